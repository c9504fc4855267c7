"""Schedules of inverse temperatures that depend on the number n of keys alone, as families: each up
to a factor, which Proposition 2 of arXiv 2411.12892 leaves to the margins.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import final

import numpy as np
from jaxtyping import Float

Schedule = Callable[[Float[np.ndarray, " position"], Float[np.ndarray, " parameter"]], np.ndarray]
"""tau_n for the counts n and the parameters theta."""


@final
@dataclass(frozen=True)
class Family:
    """Schedules tau_n(theta), up to a factor. schedule: of (n, theta); grid: for each parameter the
    values to start from, in order, whose first and last bound it.
    """

    schedule: Schedule
    grid: tuple[tuple[float, ...], ...] = ()


def _steps(start: float, end: float, steps: int) -> tuple[float, ...]:
    return tuple(np.linspace(start, end, steps).tolist())


def _growing(n: np.ndarray, angle: float, power: float = 1.0) -> np.ndarray:
    """cos(angle) + sin(angle) (log n / log n_max)^power: the scales of both terms, as an angle."""
    return np.cos(angle) + np.sin(angle) * (np.log(n) / np.log(n.max())) ** power


_HALF = math.pi / 2
_POWERS = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.5, 7.0, 11.0, 16.0, 24.0)
FAMILIES: Mapping[str, Family] = {
    "constant": Family(lambda n, theta: np.ones_like(n)),
    "ssa": Family(lambda n, theta: 1 + theta[0] * np.log(n), (_steps(0.0, 1.0, 21),)),
    "log": Family(lambda n, theta: _growing(n, theta[0]), (_steps(-_HALF, _HALF, 61),)),
    "ssmax": Family(lambda n, theta: np.log(n)),
    "log2": Family(lambda n, theta: np.log(n) ** 2),
    "root": Family(lambda n, theta: np.sqrt(np.log(n))),
    "power": Family(lambda n, theta: n ** theta[0], (_steps(-4.0, 4.0, 65),)),
    "asentmax": Family(
        lambda n, theta: _growing(n, theta[0], theta[1]), (_steps(0.0, math.pi, 37), _POWERS)
    ),
}
"""Schedules of n alone, without their scales; `yarn` and `llama4` have a length of their own.

constant     1
ssa          1 + s log n, s in [0, 1]: s = sigmoid(alpha) in the paper, exp(-exp(b)) as released
log          1 + s log n for any s, as the angle of both terms; constant and ssmax are members
ssmax        log n
log2         (log n)^2
root         sqrt(log n)
power        n^g, g in [-4, 4]
asentmax     delta + beta (log n)^g with beta >= 0, as the angle of both terms; g in [0.1, 24]
"""


@cache
def yarn(trained_length: int) -> Family:
    """(0.1 log(n / n_train) + 1)^2 beyond n_train = trained_length, 1 up to it, where it is the
    constant: YaRN, arXiv 2309.00071.

    Raises ValueError for a length < 1.
    """
    _check_length("trained_length", trained_length)
    return Family(lambda n, theta: (0.1 * np.log(np.maximum(n / trained_length, 1)) + 1) ** 2)


@cache
def llama4(floor_length: int) -> Family:
    """1 + c log(1 + floor(n / F)), F = floor_length, for any c, as the angle of the two terms: the
    attention scale of Llama 4, where c = 0.1. It is the constant below F.

    Raises ValueError for a length < 1.
    """
    _check_length("floor_length", floor_length)

    def schedule(n: np.ndarray, theta: np.ndarray) -> np.ndarray:
        growth = np.log1p(n // floor_length)
        return np.cos(theta[0]) + np.sin(theta[0]) * growth / (growth.max() or 1)

    return Family(schedule, FAMILIES["log"].grid)


def _check_length(name: str, length: int) -> None:
    if length < 1:
        raise ValueError(f"{name} must be at least 1, got {length}: choose {name} >= 1")
