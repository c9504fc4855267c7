"""Which inverse temperature lets the largest of n scores win: predicted by counting gaps, without
a softmax, and measured.

With the gaps g_1 <= .. <= g_(n-1) of all other scores below the largest, its weight at tau is 1 /
(1 + sum_k e^(-tau g_k)). It holds the share p from the critical tau_c on, where the sum is c = (1 -
p) / p. As the k nearest competitors alone have at least k e^(-tau g_k),

    L = max_k [log k + logit p] / g_k    <=    tau_c    <=    theta L,

theta > 1 with c^(theta - 1) zeta(theta) = 1: at theta L no term is above (c / k)^theta. For p = 2/3
theta is 1.85, whatever the row. So the number of competitors within each gap decides, up to that
factor; arXiv 2605.12697 defines its scale by the same count, as a limit, where we have a bracket of
every row. How L grows with n is a matter of the law of the scores, and each growth is a schedule:

    law             scores                          L grows like                schedule
    equal           all others g below              log n / g                   c log n
    almost simplex  1, others near rho              log n / (1 - rho)           c log n
    Gaussian        N(0, s^2)                       sqrt(2 log n) / s           c sqrt(log n)
    crowded         an upper end, like e^(-s/gap)   (log n)^2 / s               c (log n)^2
    bounded         uniform on [-B, B]              n / (2 B)                   c n
    exponential     tails e^(-z/s)                  1 / s                       constant
    power law       tails z^(-a), z >= s            log n / (s n^(1/a))         falls

The second is arXiv 2510.05554: beta_n = gamma log n has its transition at gamma_c = 1 / (1 - rho).
"""

import abc
import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import logit, ndtri, zeta

SHARE = 2 / 3
"""p, unless another is asked for."""
_RANKS = 1000  # looked at one by one, and beyond in steps of a thousandth
_LONGEST = 1e12  # beyond it the gaps of bounded scores are lost in rounding
_NEWTON = 100  # more steps than any row has needed


def gaps(scores: Float[np.ndarray, " key"]) -> Float[np.ndarray, " competitor"]:
    """How far all other scores lie below the largest, in order. Raises ValueError for less than
    two scores, or some that are not finite.
    """
    if len(scores) < 2 or not np.isfinite(scores).all():
        raise ValueError(
            f"gaps need at least two scores, all finite, got {len(scores)}: drop masked keys"
        )
    ordered = np.sort(scores)[::-1]
    return ordered[0] - ordered[1:]


def predicted_critical(scores: Float[np.ndarray, " key"], share: float = SHARE) -> float:
    """L, of which tau_c is at least 1 and at most `slack` times; infinite where two are largest.

    share: p, in (1/2, 1). Raises ValueError otherwise, and as `gaps`.
    """
    return _count(gaps(scores), np.arange(1.0, len(scores)), share)


def slack(share: float = SHARE) -> float:
    """theta, by which the count of gaps can be short of tau_c: of c^(theta - 1) zeta(theta) = 1."""
    odds = logit(_checked(share))
    root: Any = brentq(lambda t: math.log(zeta(t)) - (t - 1) * odds, 1 + 1e-12, 1e3 / odds + 2)
    return float(root)


def measured_critical(scores: Float[np.ndarray, " key"], share: float = SHARE) -> float:
    """tau_c, at which the largest score has this share of the softmax, to rounding; infinite where
    two are largest. Arguments and errors as of `predicted_critical`.
    """
    apart, wanted = gaps(scores), -logit(_checked(share))
    if apart[0] == 0:
        return math.inf

    # log sum_k e^(-tau g_k) is convex and falls: Newton's steps from below never pass its root.
    tau = (math.log(len(apart)) - wanted) / apart[-1]
    for _ in range(_NEWTON):
        weight = np.exp(-tau * apart)
        total = weight.sum()
        step = (math.log(total) - wanted) * total / (weight @ apart)
        tau += step
        if step <= 1e-14 * tau:
            break
    return float(tau)


def critical_scaling(cosine: float) -> float:
    """gamma_c = 1 / (1 - rho) of tokens of unit norm whose cosines are near rho: softmax(gamma log n
    <x_i, x_j>) attends to x_i alone for gamma above it, and to all alike below (arXiv 2510.05554).

    Raises ValueError for rho outside [-1, 1).

    >>> critical_scaling(0.5)
    2.0
    """
    if not -1 <= cosine < 1:
        raise ValueError(f"a cosine of others must lie in [-1, 1), got {cosine}: 1 is no other")
    return 1 / (1 - cosine)


@dataclass(frozen=True)
class ScoreLaw(abc.ABC):
    """Independent scores of one law. spread: its scale. Raises ValueError for one that is not
    positive and finite.
    """

    spread: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.spread < math.inf:
            raise ValueError(
                f"the spread of scores must be positive and finite, got {self.spread}: choose another"
            )

    @property
    def needle(self) -> float | None:
        """A score that is there beside them, the largest; None for independent scores alone."""
        return None

    @abc.abstractmethod
    def upper_quantile(self, q: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """The score that is exceeded with probability q."""

    @abc.abstractmethod
    def growth(self, n: float | int) -> float:
        """What L grows like: their ratio tends to a constant."""

    def sample(self, length: int, generator: np.random.Generator) -> Float[np.ndarray, " {length}"]:
        """A row of scores, the needle first where there is one. Raises ValueError for a length
        below 2.
        """
        if length < 2:
            raise ValueError(f"a row needs at least 2 scores, got {length}: use longer rows")
        scores = self.upper_quantile(1 - generator.random(length))
        if self.needle is not None:
            scores[0] = self.needle
        return scores

    def predicted(self, length: float | int, share: float = SHARE) -> float:
        """L before any score is seen: of the scores exceeded with probability k / (n + 1), k = 1 ..
        n = length. Raises ValueError for a length outside [2, 1e12].
        """
        if not 2 <= length <= _LONGEST:
            raise ValueError(
                f"a row is predicted from 2 to {_LONGEST:g} scores, got {length}: choose another length"
            )
        rank = np.arange(1.0, min(length, _RANKS))
        if length > _RANKS:
            more = math.ceil(math.log(length / _RANKS) * 1000) + 1
            rank = np.append(rank, np.geomspace(_RANKS, float(length) - 1, more))
        if self.needle is not None:
            apart = self.needle - self.upper_quantile(rank / length)
        else:
            top, others = (self.upper_quantile(k / (length + 1)) for k in (np.ones(1), rank + 1))
            apart = top - others
        return _count(apart, rank, share)


@final
@dataclass(frozen=True)
class Simplex(ScoreLaw):
    """Cosines of almost equally distant tokens with one of them: 1, and others uniform on rho +-
    spread. Raises ValueError where they reach 1 or -1.
    """

    spread: float = 0.05
    cosine: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.cosine - self.spread < self.cosine + self.spread < 1:
            raise ValueError(
                f"cosines must lie in [-1, 1), got {self.cosine} +- {self.spread}: lower the spread"
            )

    @property
    def needle(self) -> float:
        return 1.0

    def upper_quantile(self, q: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        return self.cosine + self.spread * (1 - 2 * q)

    def growth(self, n: float | int) -> float:
        return math.log(n) * critical_scaling(self.cosine + self.spread)  # the nearest decide


@final
@dataclass(frozen=True)
class Equal(ScoreLaw):
    """One score at 0, all others at -spread."""

    @property
    def needle(self) -> float:
        return 0.0

    def upper_quantile(self, q: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        return np.full_like(q, -self.spread)

    def growth(self, n: float | int) -> float:
        return math.log(n) / self.spread


@final
@dataclass(frozen=True)
class Bounded(ScoreLaw):
    """Uniform on [-spread, spread]."""

    def upper_quantile(self, q: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        return self.spread * (1 - 2 * q)

    def growth(self, n: float | int) -> float:
        return n / (2 * self.spread)


@final
@dataclass(frozen=True)
class Gaussian(ScoreLaw):
    """N(0, spread^2)."""

    def upper_quantile(self, q: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        return -self.spread * ndtri(q)

    def growth(self, n: float | int) -> float:
        return math.sqrt(2 * math.log(n)) / self.spread


@final
@dataclass(frozen=True)
class Exponential(ScoreLaw):
    """P(z > x) = e^(-x / spread)."""

    def upper_quantile(self, q: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        return -self.spread * np.log(q)

    def growth(self, n: float | int) -> float:
        return 1 / self.spread


@final
@dataclass(frozen=True)
class PowerLaw(ScoreLaw):
    """P(z > x) = (spread / x)^exponent from x = spread on. Raises ValueError for an exponent that is
    not positive and finite.
    """

    exponent: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.exponent < math.inf:
            raise ValueError(
                f"the exponent of tails must be positive and finite, got {self.exponent}: raise it"
            )

    def upper_quantile(self, q: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        return self.spread * q ** (-1 / self.exponent)

    def growth(self, n: float | int) -> float:
        return math.log(n) / (self.spread * n ** (1 / self.exponent))


@final
@dataclass(frozen=True)
class Crowded(ScoreLaw):
    """An upper end at 0 that scores crowd at slowly: P(z > -h) = e^(1 - spread / h), 0 < h <=
    spread.
    """

    def upper_quantile(self, q: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        return -self.spread / (1 - np.log(q))

    def growth(self, n: float | int) -> float:
        return math.log(n) ** 2 / self.spread


def _count(
    apart: Float[np.ndarray, " rank"], rank: Float[np.ndarray, " rank"], share: float
) -> float:
    """max [log k + logit p] / g_k."""
    with np.errstate(divide="ignore"):
        return float(((np.log(rank) + logit(_checked(share))) / apart).max())


def _checked(share: float) -> float:
    if not 0.5 < share < 1:
        raise ValueError(
            f"a share that only one can have lies strictly between 1/2 and 1, got {share}: choose 2/3"
        )
    return share
