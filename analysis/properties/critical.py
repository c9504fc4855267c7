"""Critical inverse temperatures: predicted from the gaps of a row's scores, and measured."""

import math

import numpy as np
from scipy.special import logit, softmax

from analysis.properties.base import (
    EPS,
    Choice,
    Integer,
    Number,
    Row,
    at_most,
    collect,
    equal,
    exact,
    states,
)
from ssa_theory.theory import critical as theory

_SOURCE = "gap counting (2605.12697), here as a bracket of every row"
_LAWS: dict[str, type[theory.ScoreLaw]] = {
    law.__name__.lower(): law
    for law in (
        theory.Equal,
        theory.Gaussian,
        theory.Bounded,
        theory.Exponential,
        theory.PowerLaw,
        theory.Crowded,
    )
}
_SHARE = Number(0.51, 0.99, 2 / 3)


def _brackets(scores: np.ndarray, share: float) -> None:
    """L <= tau_c <= theta L of one row, and the share at tau_c."""
    low = theory.predicted_critical(scores, share)
    measured = theory.measured_critical(scores, share)
    rounding = 1e3 * EPS * measured  # of sums over a million keys, ten times
    at_most(low, measured, rounding, "the count of gaps, and the critical tau")
    at_most(measured, theory.slack(share) * low, rounding, "the critical tau, and theta times it")
    reached = softmax(measured * scores).max()
    equal(reached, share, 64 * EPS * (len(scores) + measured * np.abs(scores).max()), "share there")


@states(
    _SOURCE,
    law=Choice(tuple(_LAWS)),
    log10_length=Number(math.log10(2), 6.0, 1.0),
    spread=Number(0.1, 5.0, 1.0),
    share=_SHARE,
)
def gap_counting(
    generator: np.random.Generator, law: str, log10_length: float, spread: float, share: float
) -> None:
    """The tau from which the largest of n scores holds the share p lies between L = max_k [log k +
    logit p] / g_k and theta L, g_k the gap of the k-th competitor and theta a number of p alone,
    whatever the law of the scores, up to a million of them.
    """
    _brackets(_LAWS[law](spread).sample(round(10**log10_length), generator), share)


@states(_SOURCE, scores=Row(2, 40), scale=Number(0.01, 30.0, 1.0), share=_SHARE)
def gap_counting_of_any_row(
    generator: np.random.Generator, scores: tuple[float, ...], scale: float, share: float
) -> None:
    """The bracket of the critical tau holds for every row of scores, and both are infinite where
    two scores are the largest; it falls like 1 / c where all scores are c times as large.
    """
    z = scale * np.array(scores)
    measured = theory.measured_critical(z, share)
    if (z == z.max()).sum() > 1:
        exact(math.isinf(measured), "no tau separates two largest scores")
        exact(math.isinf(theory.predicted_critical(z, share)), "nor does the count of gaps")
        return
    _brackets(z, share)
    doubled = theory.measured_critical(2 * z, share)
    equal(doubled, measured / 2, 1e-12 * measured, "tau of doubled scores")


@states(
    "critical scaling of almost-simplex tokens (2510.05554)",
    cosine=Number(-0.4, 0.9, 0.5),
    spread=Number(0.0005, 0.05),
    length=Integer(2, 10**5),
    share=_SHARE,
)
def almost_simplex(
    generator: np.random.Generator, cosine: float, spread: float, length: int, share: float
) -> None:
    """Among tokens with cosines within delta of rho, a token attends to itself with the share p from
    tau = gamma (log(n - 1) + logit p) on, where gamma lies between 1 / (1 - rho + delta) and 1 / (1
    - rho - delta).
    """
    row = theory.Simplex(spread, cosine).sample(length, generator)
    units = math.log(length - 1) + logit(share)
    measured = theory.measured_critical(row, share)
    low, high = (units * theory.critical_scaling(cosine + s * spread) for s in (-1, 1))
    at_most(low, measured, 1e3 * EPS * measured, "least critical tau, and that of the row")
    at_most(measured, high, 1e3 * EPS * measured, "critical tau of the row, and the largest")


PROPERTIES = collect(globals())
