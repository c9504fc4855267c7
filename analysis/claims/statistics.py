"""Estimates over seeds with 95 % intervals. A seed is the same graph, embeddings and data for every
variant: all is paired.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

RESAMPLES = 4999
SIGN_FLIPS = 9999
MANY = 1024
"""From so many seeds on, intervals and p-values are those of Student's t on the pseudo-values."""
Resampling = Literal["BCa", "percentile"]
Statistic = Callable[[Int[np.ndarray, "*resample seed"]], Float[np.ndarray, "*resample"]]


@dataclass(frozen=True)
class Estimate:
    """A statistic over seeds.

    value: the statistic on all usable seeds. low, high: its 95 % interval (NaN for fewer than two
    seeds). seeds: how many were usable. method: how the interval was computed. pseudo: the
    jackknife pseudo-value of each usable seed, which is the seed's own value where the statistic is
    a mean; None for a number that is not an estimate over seeds.
    """

    value: float
    low: float
    high: float
    seeds: int
    method: str
    pseudo: Float[np.ndarray, " seed"] | None = field(default=None, repr=False, compare=False)

    def p_value(self, threshold: float) -> float | None:
        """The two-sided p-value of the statistic being `threshold`; None where there is nothing to
        test.

        Sign-flip permutation test of the mean of the pseudo-values minus the threshold: under the
        hypothesis each seed is as likely to lie on one side as on the other. Exact up to 13 seeds,
        beyond by random flips, fixed random state. At least `MANY` seeds: Student's t-test.
        """
        if self.pseudo is None:
            return None
        shifted = self.pseudo - threshold
        if not shifted.any():  # every seed exactly at the threshold
            return 1.0
        if len(shifted) >= MANY:
            t = shifted.mean() / scipy.stats.sem(shifted)
            return float(2 * scipy.stats.t.sf(abs(t), len(shifted) - 1))
        test = scipy.stats.permutation_test(
            (shifted,),
            lambda x, axis: x.mean(axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=SIGN_FLIPS,
            batch=1000,
            rng=np.random.default_rng(0),
        )
        return float(test.pvalue)

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def estimate(
    statistic: Statistic,
    usable: Bool[np.ndarray, " seed"],
    smooth: bool = True,
    without: Callable[[Int[np.ndarray, " seed"]], Float[np.ndarray, " seed"]] | None = None,
) -> Estimate:
    """The value of `statistic(index)` with a 95 % interval over seeds.

    statistic takes an integer array (..., seed) of seed positions and reduces its last axis;
    resampling whole seeds keeps every pairing. usable marks the seeds to use (finite, not
    diverged). smooth: False for a statistic of ranks, whose resampled values jump; BCa's
    corrections assume that they do not, so it gets plain percentiles. without(seeds): the statistic
    with each seed left out in turn, for many seeds in less than quadratic time.

    16 to `MANY` seeds: BCa bootstrap, fixed random state. Fewer, or more: Student's t on the
    jackknife pseudo-values, which is the ordinary t interval where the statistic is a mean. A
    statistic that does not vary gets a zero-width interval.
    """
    seeds = np.flatnonzero(usable)
    n = len(seeds)
    if n == 0:
        return Estimate(np.nan, np.nan, np.nan, 0, "no usable seed")
    value = float(statistic(seeds))
    if not np.isfinite(value):
        return Estimate(np.nan, np.nan, np.nan, n, "undefined")
    if n == 1:
        return Estimate(value, np.nan, np.nan, 1, "one seed has no interval")
    if n >= MANY and without is not None:
        left_out = without(seeds)
    else:
        left_out = np.concatenate(
            [statistic(_others(seeds, part)) for part in np.array_split(np.arange(n), n // 512 + 1)]
        )
    pseudo = n * value - (n - 1) * left_out
    if np.ptp(pseudo) <= 1e-12 * max(1.0, abs(value)):
        return Estimate(value, value, value, n, "constant", pseudo)
    if n < 16 or n >= MANY:
        low, high = scipy.stats.t.interval(
            0.95, n - 1, loc=pseudo.mean(), scale=scipy.stats.sem(pseudo)
        )
        return Estimate(value, float(low), float(high), n, "jackknife t", pseudo)
    method: Resampling = "BCa" if smooth else "percentile"
    low, high = _bootstrap(statistic, seeds, method)
    if smooth and not np.isfinite((low, high)).all():  # degenerate data make BCa NaN
        method = "percentile"
        low, high = _bootstrap(statistic, seeds, method)
    return Estimate(value, low, high, n, f"{method} bootstrap", pseudo)


def _others(
    seeds: Int[np.ndarray, " seed"], part: Int[np.ndarray, " left_out"]
) -> Int[np.ndarray, "left_out other"]:
    """All seeds but one, for each place of a part."""
    place = np.arange(len(seeds) - 1)
    return seeds[place + (place >= part[:, None])]


def _bootstrap(
    statistic: Statistic, seeds: Int[np.ndarray, " seed"], method: Resampling
) -> tuple[float, float]:
    """The 95 % interval of a statistic from resampled seeds, with a fixed random state."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        low, high = scipy.stats.bootstrap(
            (seeds,),
            lambda index, axis: statistic(np.moveaxis(index, axis, -1)),
            n_resamples=RESAMPLES,
            vectorized=True,
            batch=500,
            method=method,
            rng=np.random.default_rng(0),
        ).confidence_interval
    return float(low), float(high)


def mean(x: Float[np.ndarray, " seed"]) -> Estimate:
    """The mean over seeds; seeds with a non-finite value are left out and not counted."""
    x = np.asarray(x, dtype=np.float64)
    return estimate(
        lambda index: x[index].mean(-1),
        np.isfinite(x),
        without=lambda seeds: (x[seeds].sum() - x[seeds]) / (len(seeds) - 1),
    )


def ratio(x: Float[np.ndarray, " seed"], y: Float[np.ndarray, " seed"]) -> Estimate:
    """mean(x) / mean(y), paired: a seed counts only where both are finite."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # a zero denominator makes the estimate undefined
        return estimate(
            lambda index: x[index].mean(-1) / y[index].mean(-1),
            np.isfinite(x) & np.isfinite(y),
            without=lambda seeds: (x[seeds].sum() - x[seeds]) / (y[seeds].sum() - y[seeds]),
        )


def difference(x: Float[np.ndarray, " seed"], y: Float[np.ndarray, " seed"]) -> Estimate:
    """mean(x - y), paired."""
    return mean(np.asarray(x, dtype=np.float64) - np.asarray(y, dtype=np.float64))


def correlation(x: Float[np.ndarray, " seed"], y: Float[np.ndarray, " seed"]) -> Estimate:
    """Pearson's correlation over seeds; a seed counts only where both are finite."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    kept = np.isfinite(x) & np.isfinite(y)
    # About their means, sums of products lose no digits.
    x, y = (v - v[kept].sum() / max(1, kept.sum()) for v in (x, y))
    moments = np.stack([x, y, x * x, y * y, x * y])

    def from_means(means: np.ndarray) -> np.ndarray:
        a, b, aa, bb, ab = means
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((ab - a * b) / np.sqrt((aa - a * a) * (bb - b * b)))

    def without(seeds: Int[np.ndarray, " seed"]) -> Float[np.ndarray, " seed"]:
        own = moments[:, seeds]
        return from_means((own.sum(1, keepdims=True) - own) / (len(seeds) - 1))

    return estimate(lambda index: from_means(moments[:, index].mean(-1)), kept, without=without)


def sign_flip_tests(
    difference: Float[np.ndarray, "cell seed"],
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """Two-sided p-values of a zero mean in each cell: alone, and family-wise over all cells.

    Under the hypothesis the sign of each seed's difference is arbitrary; a flip turns a seed's
    differences in all cells at once, which keeps their dependence, and the largest statistic of all
    cells adjusts each (Westfall and Young 1993). The statistic |sum x| / sqrt(sum x^2) orders flips
    and cells of as many seeds as |t| does, and needs no variance. Seeds that are NaN in a cell are
    left out of it. Random flips with a fixed random state; the identity counts as one of them, so
    no p-value is below 1 / (SIGN_FLIPS + 1).
    """
    x = np.nan_to_num(difference)
    length = np.sqrt((x**2).sum(1, keepdims=True))
    x = np.divide(x, length, out=np.zeros_like(x), where=length > 0)
    # A flip back to the observed signs must not lose by rounding.
    observed = np.abs(x.sum(1)) - 1e-9
    generator = np.random.default_rng(0)
    alone, together = np.ones(len(x)), np.ones(len(x))
    for start in range(0, SIGN_FLIPS, 1000):
        flips = min(1000, SIGN_FLIPS - start)
        flipped = np.abs(generator.choice([-1.0, 1.0], (flips, x.shape[1])) @ x.T)
        alone += (flipped >= observed).sum(0)
        together += (flipped.max(1, keepdims=True) >= observed).sum(0)
    return alone / (SIGN_FLIPS + 1), together / (SIGN_FLIPS + 1)


def rank_correlation(
    x: Float[np.ndarray, "*seed item"], y: Float[np.ndarray, "*#seed item"]
) -> Float[np.ndarray, "*seed"]:
    """Spearman's rank correlation along the last axis (ties share their rank); NaN where either is
    constant.
    """
    a, b = (scipy.stats.rankdata(v, axis=-1) for v in np.broadcast_arrays(x, y))
    a, b = (v - v.mean(-1, keepdims=True) for v in (a, b))
    scale = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.divide((a * b).sum(-1), scale, out=np.full(scale.shape, np.nan), where=scale > 0)


def slopes(
    x: Float[np.ndarray, " point"], y: Float[np.ndarray, "seed point"]
) -> Float[np.ndarray, " seed"]:
    """The least-squares slope of each seed's y on x; NaN where a point is not finite."""
    usable = np.isfinite(y).all(1)
    slope = np.full(len(y), np.nan)
    slope[usable] = np.polyfit(x, y[usable].T, 1)[0]
    return slope
