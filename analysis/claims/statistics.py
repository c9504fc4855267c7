"""Estimates over seeds with their intervals. A seed is the same graph, embeddings and data for every
mechanism: all is paired.

One statistic carries every claim: the mean over seeds of one number a seed, a log ratio of two
errors or a slope. Its interval is a bootstrap-t, or, where a claim is about any graph, the
prediction interval for a new one.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy
from jaxtyping import Float

LEVEL = 0.95
RESAMPLES = 9999
FEWEST = 6
"""Below it a bootstrap has too few different samples: Student's t."""
MANY = 512
"""From it on the bootstrap-t is Student's t, within a few percent of its width."""


@dataclass(frozen=True)
class Estimate:
    """A statistic over seeds.

    value: the statistic on all usable seeds. low, high: its interval (NaN for fewer than two
    seeds). seeds: how many were usable. method: how the interval was computed. level: its coverage.
    """

    value: float
    low: float
    high: float
    seeds: int
    method: str
    level: float = LEVEL

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def exact(value: float | int, seeds: int) -> Estimate:
    """A number that no chance is in: a count, a closed form, a worst case."""
    return Estimate(float(value), float(value), float(value), seeds, EXACT, 1.0)


EXACT = "exact"


def mean(x: Float[np.ndarray, " seed"], level: float = LEVEL) -> Estimate:
    """The mean over seeds; seeds with a non-finite value are left out and not counted.

    `FEWEST` to `MANY` seeds: symmetric bootstrap-t, mean -+ c s / sqrt(n), c the `level` quantile of
    |t| over `RESAMPLES` resamples with a fixed random state (Hall 1988). Fewer, or more: Student's
    t. Seeds that do not vary get a zero-width interval.
    """
    x = np.asarray(x, dtype=np.float64)
    x = x[np.isfinite(x)]
    n = len(x)
    if n < 2:
        method = "one seed has no interval" if n else "no usable seed"
        return Estimate(float(x[0]) if n else np.nan, np.nan, np.nan, n, method, level)
    centre = float(x.mean())
    if np.ptp(x) <= 1e-12 * max(1.0, abs(centre)):
        return Estimate(centre, centre, centre, n, "constant", level)
    half = float(_quantile(x[None], level)[0] * x.std(ddof=1) / np.sqrt(n))
    method = "bootstrap-t" if FEWEST <= n < MANY else "Student's t"
    return Estimate(centre, centre - half, centre + half, n, method, level)


def _quantile(x: Float[np.ndarray, "point seed"], level: float) -> Float[np.ndarray, " point"]:
    """The `level` quantile of |t|, t = (mean* - mean) / (s* / sqrt(n)), of each point."""
    n = x.shape[1]
    if not FEWEST <= n < MANY:
        return np.full(len(x), scipy.stats.t.ppf((1 + level) / 2, n - 1))
    share = _shares(n)
    # In units of the spread about the mean, sums of squares lose no digits.
    spread = x.std(1, keepdims=True)
    z = np.divide(x - x.mean(1, keepdims=True), spread, out=np.zeros_like(x), where=spread > 0)
    rank = min(RESAMPLES, int(np.ceil(level * (RESAMPLES + 1)))) - 1
    quantiles = []
    for part in np.array_split(z, len(z) // 512 + 1):
        centre = part @ share
        variance = np.maximum((part**2) @ share - centre**2, 0) / (n - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.nan_to_num(np.abs(centre) / np.sqrt(variance), nan=0.0, posinf=np.inf)
        quantiles.append(np.partition(t, rank, axis=1)[:, rank])
    return np.concatenate(quantiles)


@lru_cache(maxsize=4)
def _shares(n: int) -> Float[np.ndarray, "seed resample"]:
    """The share of each seed in each resample."""
    generator = np.random.default_rng(0)
    return generator.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).T / n


def prediction(x: Float[np.ndarray, " instance"], level: float = LEVEL) -> Estimate:
    """The mean over instances, with the interval in which the value of a new one lies.

    Order statistics, which need no law, where there are enough instances for the level: n + 1 >=
    2 / (1 - level). Else mean -+ t_(n-1) s sqrt(1 + 1/n).
    """
    x = np.asarray(x, dtype=np.float64)
    x = np.sort(x[np.isfinite(x)])
    n = len(x)
    if n < 2:
        return mean(x, level)
    centre, tail = float(x.mean()), (n + 1) * (1 - level) / 2
    if tail >= 1:
        place = int(np.floor(tail)) - 1
        low, high = float(x[place]), float(x[n - 1 - place])
        return Estimate(centre, low, high, n, "prediction, order statistics", level)
    half = float(scipy.stats.t.ppf((1 + level) / 2, n - 1) * x.std(ddof=1) * np.sqrt(1 + 1 / n))
    return Estimate(centre, centre - half, centre + half, n, "prediction, Student's t", level)


def log_ratio(
    x: Float[np.ndarray, "*seed"], y: Float[np.ndarray, "*#seed"], floor: float | int = 0.0
) -> Float[np.ndarray, "*seed"]:
    """log(x / y) of each seed, the log of the ratio of geometric means once averaged.

    floor: values below it count as it, as what is smaller is rounding. NaN where either is not
    finite, or not positive and there is no floor.
    """
    x, y = (np.asarray(v, dtype=np.float64) for v in (x, y))
    x, y = (np.where(np.isfinite(v), np.maximum(v, floor), np.nan) for v in (x, y))
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.log(x) - np.log(y)
    return np.where(np.isfinite(log), log, np.nan)


def ratio(x: Float[np.ndarray, " seed"], y: Float[np.ndarray, " seed"]) -> Estimate:
    """The ratio of geometric means over seeds, paired: exp of the mean of log(x / y)."""
    log = mean(log_ratio(x, y))
    value, low, high = np.exp((log.value, log.low, log.high)).tolist()
    return Estimate(value, low, high, log.seeds, log.method)


def slopes(
    x: Float[np.ndarray, "*#seed point"], y: Float[np.ndarray, "seed point"]
) -> Float[np.ndarray, " seed"]:
    """The least-squares slope of each seed's y on x; NaN where a point is not finite, or x does not
    vary.
    """
    x = np.broadcast_to(x, y.shape) - np.mean(x, axis=-1, keepdims=True)
    over, square = (x * y).sum(-1), (x**2).sum(-1)
    return np.divide(
        over, square, out=np.full(len(y), np.nan), where=(square > 0) & np.isfinite(over)
    )
