"""The schedules of inverse temperatures that a mechanism can have, for exact optima."""

from dataclasses import dataclass, replace

import numpy as np

from ssa_theory.mechanism import Mechanism
from ssa_theory.mechanism.schedules import ASEntmax, Llama4, LogPower, Power, Released, YaRN
from ssa_theory.mechanism.score_maps import Bilinear
from ssa_theory.mechanism.temperature import Selective
from ssa_theory.theory.paper.schedules import FAMILIES, Family, llama4, yarn


@dataclass(frozen=True)
class Least:
    """Schedules among which those of a mechanism are.

    by_query: whether each of the two query tokens has a schedule of its own.
    """

    family: Family
    by_query: bool = False


_CONSTANT, _SSA = Least(FAMILIES["constant"]), Least(FAMILIES["ssa"])
_GROWING = Family(FAMILIES["log"].schedule, (tuple(np.linspace(0, np.pi / 2, 31).tolist()),))
"""t + s log n with t and s of one sign, up to a factor."""


def schedules(mechanism: Mechanism) -> Least | None:
    """What the query temperature of a fitted mechanism can be.

    A token's factor goes into its margin, so that a token term alone is a constant, and beside a
    position term it sets a ratio t / s for each query token. A bias of keys adds to both margins,
    which a constant temperature lets W do. None where another part changes the scores.
    """
    rest = replace(mechanism, query=None, bias=None)
    alone = replace(rest, key=None, shift=None, score=Bilinear(), contrast=None)
    if rest != alone:
        return None
    if mechanism.bias is not None:
        return _CONSTANT if mechanism.query is None else None
    match mechanism.query:
        case None | Selective(position=False):
            return _CONSTANT
        case YaRN(trained_length=int(length)):
            return Least(yarn(length))
        case Released() | Selective(score=None):
            return _SSA
        case Selective(link=link):
            return Least(FAMILIES["log"] if link.floor is None else _GROWING, True)
        case Llama4(trained_length=int(length)):
            return Least(llama4(length))
        case LogPower(exponent=1.0):
            return Least(FAMILIES["ssmax"])
        case LogPower(exponent=2.0):
            return Least(FAMILIES["log2"])
        case LogPower(exponent=0.5):
            return Least(FAMILIES["root"])
        case Power():
            return Least(FAMILIES["power"])
        case ASEntmax():
            return Least(FAMILIES["asentmax"])
        case _:
            return None
