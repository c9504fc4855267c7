"""Intervals: coverage by simulation, pairing, and the data that break bootstraps."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from analysis.claims import statistics
from analysis.claims.bands import mean_band, ratio_band
from analysis.claims.statistics import (
    RESAMPLES,
    Estimate,
    exact,
    log_ratio,
    mean,
    prediction,
    ratio,
    slopes,
)

POPULATIONS: dict[
    str, tuple[Callable[[np.random.Generator, tuple[int, int]], np.ndarray], float]
] = {
    "normal": (lambda rng, shape: rng.normal(0.3, 1, shape), 0.3),
    "heavy tails, t of 3 degrees": (lambda rng, shape: rng.standard_t(3, shape), 0.0),
    "log ratio of exponentials": (
        lambda rng, shape: np.log(rng.exponential(1, shape) / rng.exponential(2, shape)),
        -np.log(2),
    ),
    "log of a gamma, skewed": (
        lambda rng, shape: np.log(rng.gamma(2, 1, shape)),
        float(1 - np.euler_gamma),
    ),
    "log-normal of spread 1/2, skewed": (
        lambda rng, shape: np.exp(rng.normal(0, 0.5, shape)),
        float(np.exp(0.125)),
    ),
    "two graphs in ten gain, the rest does not": (
        lambda rng, shape: np.where(rng.random(shape) < 0.2, 1.0, 0.0) + rng.normal(0, 0.1, shape),
        0.2,
    ),
}
"""Laws of one number a seed like those that are stored, with their means."""
_TRIALS = 600
_ERROR = 3.3 * np.sqrt(0.95 * 0.05 / _TRIALS)
"""Of a simulated coverage: 3.3 standard errors, .029."""


@pytest.fixture
def quick(monkeypatch):
    """A tenth of the resamples: thousands of intervals in seconds."""
    monkeypatch.setattr(statistics, "RESAMPLES", 999)
    statistics._shares.cache_clear()
    yield
    statistics._shares.cache_clear()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("n", [48])
@pytest.mark.parametrize("name", POPULATIONS)
def test_coverage_of_the_mean_is_93_to_97_percent(name, n):
    draw, truth = POPULATIONS[name]
    data = draw(np.random.default_rng(n), (_TRIALS, n))
    hits = [e.low <= truth <= e.high for e in map(mean, data)]
    assert 0.93 - _ERROR < np.mean(hits) < 0.97 + _ERROR


@pytest.mark.parametrize("name", POPULATIONS)
def test_coverage_of_many_seeds(name):
    draw, truth = POPULATIONS[name]
    data = draw(np.random.default_rng(7), (_TRIALS, 600))
    hits = [e.low <= truth <= e.high for e in map(mean, data)]
    assert 0.93 - _ERROR < np.mean(hits) < 0.97 + _ERROR


@pytest.mark.usefixtures("quick")
def test_intervals_of_a_topic_cover_together():
    """Twelve correlated tests, each at the level 1 - .05 / 12: at least 95 % cover all at once, and
    one at the plain level would not.
    """
    rng = np.random.default_rng(3)
    level, together, plain = 1 - 0.05 / 12, [], []
    for _ in range(200):
        shared = rng.standard_t(4, (1, 48))
        data = 0.5 * shared + np.log(rng.gamma(2, 1, (12, 48))) - (1 - np.euler_gamma)
        for kept, at in ((together, level), (plain, 0.95)):
            kept.append(all(e.low <= 0 <= e.high for e in (mean(x, at) for x in data)))
    error = 3.3 * np.sqrt(0.95 * 0.05 / 200)
    assert np.mean(together) > 0.95 - error
    assert np.mean(plain) < 0.85


@pytest.mark.parametrize("n", [12, 51, 200])
@pytest.mark.parametrize(
    "name", ["normal", "heavy tails, t of 3 degrees", "log ratio of exponentials"]
)
def test_a_prediction_interval_covers_a_new_instance(name, n):
    draw, _ = POPULATIONS[name]
    data = draw(np.random.default_rng(n), (3000, n + 1))
    intervals = [prediction(x[:-1]) for x in data]
    hits = [e.low <= new <= e.high for e, new in zip(intervals, data[:, -1], strict=True)]
    assert 0.93 - 0.013 < np.mean(hits) < 0.97 + 0.013


def test_prediction_by_order_statistics():
    """Of 11,117 sorted values the interval leaves out 277 at either end: (n + 1) .025 = 277.95."""
    x = np.random.default_rng(0).permutation(11_117).astype(float)
    e = prediction(x)
    assert (e.low, e.high) == (276.0, 11_116 - 276.0)
    assert e.method == "prediction, order statistics"
    assert prediction(x[:30]).method == "prediction, Student's t"


def test_few_and_many_seeds_give_the_ordinary_t_interval():
    for n in (4, 700):
        x = np.random.default_rng(0).normal(size=n)
        e = mean(x)
        assert (e.low, e.high) == pytest.approx(
            stats.t.interval(0.95, n - 1, x.mean(), stats.sem(x))
        )
        assert e.method == "Student's t"


def test_bootstrap_t_against_a_plain_loop():
    """The same resamples, one at a time."""
    x, n = np.random.default_rng(1).exponential(size=16), 16
    shares = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    t = []
    for counts in shares:
        again = np.repeat(x, counts)
        error = again.std(ddof=1) / np.sqrt(n)
        t.append(abs(again.mean() - x.mean()) / error if error > 0 else np.inf)
    reach = np.sort(t)[int(np.ceil(0.95 * (RESAMPLES + 1))) - 1] * stats.sem(x)
    e = mean(x)
    assert e.method == "bootstrap-t"
    assert (e.low, e.high) == pytest.approx((x.mean() - reach, x.mean() + reach))


def test_a_higher_level_is_wider():
    x = np.random.default_rng(1).exponential(size=40)
    widths = [mean(x, level).high - mean(x, level).low for level in (0.9, 0.95, 0.999)]
    assert widths == sorted(widths)
    assert mean(x, 0.999).level == 0.999


def test_a_shift_and_a_scale_pass_through():
    """The interval is that of the same data in other units, however far from zero."""
    x = np.random.default_rng(2).gamma(2, size=32)
    e, far = mean(x), mean(1e6 + 1e-3 * x)
    assert (far.low, far.high) == pytest.approx((1e6 + 1e-3 * e.low, 1e6 + 1e-3 * e.high), abs=1e-7)


def test_pairing_narrows_the_interval():
    generator = np.random.default_rng(2)
    x = generator.lognormal(size=64)
    y = 0.8 * x * np.exp(0.01 * generator.normal(size=64))
    paired, unpaired = ratio(y, x), ratio(y, generator.permutation(x))
    assert (paired.value, paired.low, paired.high) == pytest.approx((0.8, 0.8, 0.8), abs=0.01)
    assert unpaired.high - unpaired.low > 10 * (paired.high - paired.low)


def test_the_ratio_is_of_geometric_means():
    x, y = np.array([1.0, 4.0, 2.0]), np.array([2.0, 2.0, 2.0])
    assert ratio(x, y).value == pytest.approx(1.0)
    assert ratio(y, x).value == pytest.approx(1.0)
    assert log_ratio(x, y) == pytest.approx(np.log([0.5, 2.0, 1.0]))


def test_log_ratios_of_nothing_are_undefined_and_of_rounding_are_none():
    x, y = np.array([0.0, 1.0, np.nan, -1.0, np.inf]), np.ones(5)
    assert np.isfinite(log_ratio(x, y)).tolist() == [False, True, False, False, False]
    floored = log_ratio(np.array([1e-12, 1e-3, np.nan]), np.array([1e-9, 1e-9, 1.0]), 1e-6)
    assert floored[:2] == pytest.approx([0.0, np.log(1e3)])
    assert np.isnan(floored[2])


@pytest.mark.parametrize("n", [2, 8, 64, 700])
def test_constant_data_have_a_zero_width_interval(n):
    e = mean(np.full(n, 0.3))
    assert (e.value, e.low, e.high) == (pytest.approx(0.3), pytest.approx(0.3), pytest.approx(0.3))
    assert e.method == "constant"


def test_non_finite_seeds_are_left_out_and_counted():
    x = np.array([1.0, 2.0, np.nan, 3.0, np.inf])
    assert mean(x).seeds == 3
    assert mean(x).value == 2.0
    assert ratio(x, np.array([1.0, np.nan, 1.0, 1.0, 1.0])).seeds == 2


def test_one_seed_and_none():
    one, none = mean(np.array([1.5])), mean(np.array([np.nan]))
    assert one.value == 1.5
    assert np.isnan([one.low, one.high, none.value, none.low]).all()
    assert (one.seeds, none.seeds) == (1, 0)


def test_an_exact_number_has_no_interval():
    assert exact(3, 64) == Estimate(3.0, 3.0, 3.0, 64, "exact", 1.0)


def test_slopes_against_polyfit():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(5, 9)), generator.normal(size=(5, 9))
    assert slopes(x, y) == pytest.approx(
        [np.polyfit(a, b, 1)[0] for a, b in zip(x, y, strict=True)]
    )
    assert slopes(x[0], y) == pytest.approx([np.polyfit(x[0], b, 1)[0] for b in y])
    y[2, 3] = np.nan
    assert np.isnan(slopes(x, y)).tolist() == [False, False, True, False, False]
    assert np.isnan(slopes(np.ones((5, 9)), y)).all()


def test_band_is_the_mean_at_every_point():
    values = np.random.default_rng(0).normal(size=(3, 20, 4))
    data = xr.DataArray(values, dims=("variant", "seed", "step"), coords={"variant": list("abc")})
    band = mean_band(data)
    assert band.dims == ("variant", "step", "estimate")
    e = mean(values[1, :, 2])
    assert band.sel(variant="b").isel(step=2).values == pytest.approx([e.value, e.low, e.high])


def test_ratio_band_takes_every_point_over_its_own_denominator():
    generator = np.random.default_rng(5)
    x = xr.DataArray(generator.exponential(size=(2, 6, 3)), dims=("variant", "seed", "step"))
    y = xr.DataArray(1 + generator.random((3, 6)), dims=("step", "seed"))
    x[1, 4, 2] = np.nan
    band = ratio_band(x, y, "x over y")
    assert band.dims == ("variant", "step", "estimate")
    assert band.attrs == {"description": "x over y"}
    for i, j in np.ndindex(2, 3):
        e = ratio(x.values[i, :, j], y.values[j])
        assert band[i, j].values == pytest.approx([e.value, e.low, e.high])
