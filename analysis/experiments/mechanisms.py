"""Mechanisms as a setting: names of the registry, or `PATH.py:NAME` for one of the user's own."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator

from ssa_theory.mechanism import VANILLA, Mechanism, mechanism

SELECTIVE = "ssa"
"""The mechanism that claims are about, where a problem can wear it whole."""


def chosen(names: Sequence[str]) -> list[Mechanism]:
    """The mechanisms of a setting.

    Raises ValueError for none, for one that cannot be found, and for two of one name.
    """
    mechanisms = [mechanism(name) for name in names]
    own = [m.name for m in mechanisms]
    if not own or len(set(own)) != len(own):
        raise ValueError(
            f"mechanisms must be different and at least one, got {tuple(own)}: list each once"
        )
    return mechanisms


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    chosen(names)
    return names


def _with_peer(names: tuple[str, ...]) -> tuple[str, ...]:
    own = [m.name for m in chosen(names)]
    if VANILLA not in own or len(own) < 2:
        raise ValueError(
            f"mechanisms must be {VANILLA}, the peer, and at least one other, got {tuple(own)}: "
            "list them so"
        )
    return names


Mechanisms = Annotated[tuple[str, ...], AfterValidator(_known)]
"""At least one mechanism, each once."""
ComparedMechanisms = Annotated[tuple[str, ...], AfterValidator(_with_peer)]
"""Vanilla and at least one other, each once."""
