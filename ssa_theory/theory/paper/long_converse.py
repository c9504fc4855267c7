"""The converse of Proposition 2 of arXiv 2411.12892 for all long sequences at once: an inequality,
where `converse` searches length by length.

A sequence of N tokens has kappa_n in [1, 2] for n in [N/4, N/2] (early) and at least a late ratio r
from 3N/4 on (late). All b among the queries share a margin, though the early ones need log kappa <=
log 2 and the late ones log kappa >= log r; so do all a.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import final

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from ssa_theory.theory.paper.converse import check_hypotheses

_MIDDLE, _LATE = 12, 3  # blocks of positions
_CELLS = 24  # of the shares of a queries
_MARGINS = 400


def always_consistent(late_ratio: int) -> float:
    """The length from which on every length has a sequence that meets the hypotheses; infinite for
    a late ratio of 4 or more.

    With ceil(x / 3) <= (x + 2) / 3 and floor(L/2) <= L/2 the least count of the first half is at
    most (L + 4)/6; with floor(x / (1 + r)) >= (x - r)/(1 + r) and ceil(3L/4) >= 3L/4 the most of
    the end is at least (3L/4 - r)/(1 + r). The first does not exceed the second for L >= (4 +
    10 r)/(3.5 - r). Raises ValueError for a late ratio below 1.
    """
    check_hypotheses(1, late_ratio)
    if late_ratio >= 4:
        return math.inf
    return float(math.ceil(Fraction(2 * (4 + 10 * late_ratio), 7 - 2 * late_ratio)))


@final
@dataclass(frozen=True)
class Windows:
    """What the hypotheses fix in every sequence of `length` tokens or more, in shares of its N.

    slack: 1 / length. n_a only grows, is at least n/3 at floor(N/2), at most n/(1 + r) at ceil(3N/4)
    and at N, and early between n/3 and n/2; a floor or a ceiling moves a count by less than one.
    Raises ValueError for a late ratio that is not 1, 2 or 3, the ones that long sequences can have.
    """

    length: int
    late_ratio: int = 3

    def __post_init__(self) -> None:
        check_hypotheses(self.length, self.late_ratio)
        if self.late_ratio > 3:
            raise ValueError(
                f"no long sequence has a late ratio above 3, got {self.late_ratio}: choose 1 to 3"
            )

    @property
    def slack(self) -> float:
        """1 / length."""
        return 1 / self.length

    @property
    def count_a(self) -> tuple[float, float]:
        """(least n_a at N/2, most at 3N/4): (1 - s)/6 and 3 (1 + s)/(4 (1 + r)), s the slack."""
        return (1 - self.slack) / 6, 3 * (1 + self.slack) / (4 * (1 + self.late_ratio))

    @property
    def early(self) -> float:
        """The least number of early positions, (1 - s)/4."""
        return (1 - self.slack) / 4

    @property
    def early_a(self) -> tuple[float, float]:
        """The least and most early queries a, n_a(N/2) less the count before N/4, which is between
        1/12 - s and 1/8 + 3 s / 8.
        """
        least, most = self.count_a
        return max(0.0, least - 1 / 8 - 3 * self.slack / 8), most - 1 / 12 + self.slack

    @property
    def late_a(self) -> float:
        """The most late queries a, 1/(1 + r) less n_a(N/2)."""
        return 1 / (1 + self.late_ratio) - self.count_a[0]

    def ratios(self, start: float, end: float) -> tuple[float, float]:
        """(least, largest) kappa of the positions between start N and end N, of the middle."""
        least, most = self.count_a
        return start / most - 1, end / least - 1

    def late_ratios(self, start: float, late_a: float) -> float:
        """The least kappa of the positions beyond start N, late, with so many late queries a."""
        return max(float(self.late_ratio), start / (self.count_a[1] + late_a) - 1)


def long_loss_bound(length: int, late_ratio: int = 3) -> float:
    """A number below the mean of (w_n - 1/2)^2 of every sequence of `length` tokens or more that
    meets the hypotheses, at one temperature, for every W; times ||a - b||^2 it bounds the loss.

    With e early and d late queries a, the mean is at least the sum of two minima: over m_b of

        (early - e) f(m - log 2) + sum_blocks (number - a) f(distance of m from log kappa)

    over blocks of the middle and of the late positions, an open interval of x N holding at least
    x - s of them; and over m_a of e f(m - log 2) + d f(log r - m), with f(x) = (sigmoid(max(x, 0)) -
    1/2)^2. In a block what is known of kappa is an interval (`Windows`); the queries a, of which
    the middle has at most most - least, are taken away where b costs most. Both minima and that
    over (e, d) are over cells, each term at its least in the cell: nothing is between grid points.
    Outside the cells of margins every term that is not zero grows.

    Raises ValueError as `Windows`.
    """
    own = Windows(length, late_ratio)
    least, most = own.count_a
    e, d = np.linspace(*own.early_a, _CELLS + 1), np.linspace(0, own.late_a, _CELLS + 1)
    middle, late = np.linspace(0.5, 0.75, _MIDDLE + 1), np.linspace(0.75, 1, _LATE + 1)[:-1]
    near = np.log([own.ratios(*ends) for ends in pairwise(middle)])
    far = np.log([[own.late_ratios(start, a) for start in late] for a in d[1:]])
    margins = np.linspace(min(near.min(), np.log(2)), max(near[:, 0].max(), far.max()), _MARGINS)
    low, high = margins[:-1], margins[1:]

    early = _cost(low - np.log(2))
    blocks = np.maximum(_cost(near[:, :1] - high), _cost(low - near[:, 1:]))
    between = (0.25 / _MIDDLE - own.slack) * blocks.sum(0) - (most - least) * blocks.max(0)
    size = max(0.0, 0.25 / _LATE - own.slack)
    after = size * np.arange(_LATE)[::-1]  # positions in later blocks, which cost no less
    kept = size - np.clip(d[1:, None] - after, 0, size)
    end = (kept[:, :, None] * _cost(far[:, :, None] - high)).sum(1)
    some_b = np.maximum(own.early - e[1:], 0)[:, None] * early + np.maximum(between, 0)
    margin_b = (some_b[:, None] + end).min(2)
    late_a = d[:-1, None] * _cost(np.log(late_ratio) - high)
    margin_a = ((e[:-1, None] * early)[:, None] + late_a).min(2)
    return float((margin_b + margin_a).min())


def _cost(distance: Float[np.ndarray, "*cell"]) -> Float[np.ndarray, "*cell"]:
    """(w - 1/2)^2 at a margin so far from log kappa; 0 for a negative distance."""
    return (expit(np.maximum(distance, 0)) - 0.5) ** 2
