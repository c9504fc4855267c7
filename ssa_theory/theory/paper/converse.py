"""The converse of Proposition 2 of arXiv 2411.12892: can one temperature serve a sequence of two
tokens whose imbalance grows?

Its hypotheses: kappa_n = n_b / n_a lies in [1, 2] for n in [L/4, L/2], and is at least a late ratio
from 3L/4 to L, printed as 4. Whether any sequence of length L meets them, and the least loss over
all that do and over all W, are decided exactly.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import final

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit

LATE_RATIO = 4


def reachable_ratios(ratio: float, stretch: float = 1.5) -> tuple[float, float]:
    """(least, largest) kappa at position stretch n of a sequence with the given kappa at n, as n
    grows.

    n_a cannot fall, and grows by at most (stretch - 1) n: stretch (1 + kappa) / (1 + (stretch - 1)
    (1 + kappa)) - 1 and stretch (1 + kappa) - 1. From L/2 to 3L/4 the stretch is 1.5, and 2 becomes
    3.5 at most. Raises ValueError for a negative ratio or a stretch below 1.
    """
    if not ratio >= 0:
        raise ValueError(f"a ratio of counts must be at least 0, got {ratio}: raise it")
    if not stretch >= 1:
        raise ValueError(f"the later position must not be earlier, got stretch {stretch}: raise it")
    total = stretch * (1 + ratio)
    return total / (1 + (stretch - 1) * (1 + ratio)) - 1, total - 1


def count_limits(length: int, late_ratio: int = LATE_RATIO) -> tuple[int, int]:
    """(least, most): n_a is at least n/3 at the last n <= L/2 and at most n/(1 + late ratio) at the
    first n >= 3L/4. Raises ValueError as `first_contradiction`.
    """
    check_hypotheses(length, late_ratio)
    half, late = length // 2, -(-3 * length // 4)
    return -(-half // 3), late // (1 + late_ratio)


def consistent(length: int, late_ratio: int = LATE_RATIO) -> bool:
    """Whether a sequence of `length` meets the hypotheses: the least count of the first half fits
    under the most of the end, as n_a cannot fall, and position 1, where kappa is 0 or infinite, is
    in neither range.

    n_a = ceil(n/3) up to L/2, and no a from there on, is then such a sequence. Raises ValueError as
    `first_contradiction`.
    """
    least, most = count_limits(length, late_ratio)
    return length > 4 and least <= most


def consistent_by_search(length: int, late_ratio: int = LATE_RATIO) -> bool:
    """The same by following every possible count n_a from position to position."""
    check_hypotheses(length, late_ratio)
    margins = np.zeros((1, 2))  # whatever a path costs
    return bool(np.isfinite(_path(length, late_ratio, margins, margins)).all())


def first_contradiction(late_ratio: int = LATE_RATIO) -> float:
    """The length from which on no sequence meets the hypotheses; infinite for a late ratio of 3 or
    less.

    n_a >= (L - 1)/6 at the last position of the first half and n_a <= 3 (L + 1) / (4 (1 + late
    ratio)) at the first beyond 3L/4 exclude each other for L > (c + 1)/(c - 1), c = 2 (1 + late
    ratio)/9 > 1. Raises ValueError for a late ratio below 1.
    """
    check_hypotheses(1, late_ratio)
    c = Fraction(2 * (1 + late_ratio), 9)
    return float(math.floor((c + 1) / (c - 1)) + 1) if c > 1 else math.inf


@final
@dataclass(frozen=True, eq=False)
class LeastLoss:
    """The least mean of (w_n - 1/2)^2 over all W and all sequences that meet the hypotheses; times
    ||a - b||^2 it is the loss.

    lower and upper: it lies between them. margins: (m_a, m_b) and is_a: the sequence that attain
    upper.
    """

    lower: float
    upper: float
    margins: Float[np.ndarray, " 2"]
    is_a: Bool[np.ndarray, " position"]


def least_loss(length: int, late_ratio: int = LATE_RATIO, tolerance: float = 1e-4) -> LeastLoss:
    """The least loss at one temperature, to `tolerance`, by branch and bound over the margins.

    For given margins the best sequence is a shortest path through the counts n_a. In a cell of
    margins every step of the path costs at least what its nearest margin costs, which bounds the
    whole cell from below. Cells are halved until none can hold a loss of upper - tolerance or less.
    Positions where only one token was seen cost nothing.

    Raises ValueError where no sequence meets the hypotheses, and as `first_contradiction`.
    """
    if not consistent(length, late_ratio):
        raise ValueError(
            f"no sequence of length {length} meets the hypotheses with late ratio {late_ratio}: "
            "choose another length"
        )
    low, high = np.full((1, 2), -np.inf), np.full((1, 2), np.inf)
    upper, margins = math.inf, np.zeros(2)
    while len(low):
        middle = (np.clip(low, -8, 8) + np.clip(high, -8, 8)) / 2
        losses = _path(length, late_ratio, middle, middle)
        if losses.min() < upper:
            upper, margins = float(losses.min()), middle[losses.argmin()]
        open_ = _path(length, late_ratio, low, high) <= upper - tolerance
        low, high, middle = low[open_], high[open_], middle[open_]
        for axis in range(2):
            left, right = high.copy(), low.copy()
            left[:, axis], right[:, axis] = middle[:, axis], middle[:, axis]
            low, high = np.concatenate([low, right]), np.concatenate([left, high])
            middle = np.concatenate([middle, middle])
    is_a = _best_path(length, late_ratio, margins)
    return LeastLoss(max(upper - tolerance, 0.0), upper, margins, is_a)


def _allowed(n: int, length: int, late_ratio: int) -> np.ndarray:
    """Which counts n_a = 0..L the hypotheses allow at position n."""
    a = np.arange(length + 1)
    allowed = a <= n
    if length <= 4 * n and 2 * n <= length:
        allowed &= (a > 0) & (a <= n - a) & (n - a <= 2 * a)
    if 4 * n >= 3 * length:
        allowed &= (a > 0) & (n - a >= late_ratio * a)
    return allowed


def _steps(n: int, length: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(w - 1/2)^2 at position n by cell, query (a, b) and n_a, at its least in low..high."""
    a = np.arange(1, n)
    wanted = np.log((n - a) / a)
    nearest = np.clip(wanted, low[..., None], high[..., None])
    cost = np.zeros((*low.shape, length + 1))
    cost[..., 1:n] = (expit(nearest - wanted) - 0.5) ** 2
    return cost


def _path(length: int, late_ratio: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The least mean over all sequences, by cell of margins."""
    total = np.full((len(low), length + 1), np.inf)
    total[:, 0] = 0
    for n in range(1, length + 1):
        cost = _steps(n, length, low, high)
        with_a = np.full_like(total, np.inf)
        with_a[:, 1:] = total[:, :-1] + cost[:, 0, 1:]
        total = np.minimum(total + cost[:, 1], with_a)
        total[:, ~_allowed(n, length, late_ratio)] = np.inf
    return total.min(1) / length


def _best_path(length: int, late_ratio: int, margins: np.ndarray) -> np.ndarray:
    """The best sequence at given margins, by walking back through the shortest paths."""
    total, choices = np.append(0.0, np.full(length, np.inf)), []
    for n in range(1, length + 1):
        cost_a, cost_b = _steps(n, length, margins, margins)
        with_a, with_b = np.append(np.inf, total[:-1]) + cost_a, total + cost_b
        choices.append(with_a < with_b)
        total = np.minimum(with_a, with_b)
        total[~_allowed(n, length, late_ratio)] = np.inf
    count, is_a = int(total.argmin()), []
    for choice in reversed(choices):
        is_a.append(bool(choice[count]))
        count -= is_a[-1]
    return np.array(is_a[::-1])


def check_hypotheses(length: int, late_ratio: int) -> None:
    """Raises ValueError for a length or a late ratio below 1."""
    if length < 1:
        raise ValueError(f"a sequence has at least 1 token, got length {length}: raise it")
    if late_ratio < 1:
        raise ValueError(f"the late ratio must be at least 1, got {late_ratio}: raise it")
