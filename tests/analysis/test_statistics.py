"""Intervals: coverage by simulation, pairing, and the data that break bootstraps."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from analysis.claims.bands import mean_band, ratio_band
from analysis.claims.statistics import (
    difference,
    estimate,
    mean,
    rank_correlation,
    ratio,
)


@pytest.mark.parametrize(("n", "draw"), [(6, "normal"), (24, "normal"), (48, "exponential")])
def test_coverage_of_the_mean(n, draw):
    generator = np.random.default_rng(0)
    trials = 400
    truth = 0.0 if draw == "normal" else 1.0
    hits = sum(
        e.low <= truth <= e.high
        for e in (mean(getattr(generator, draw)(size=n)) for _ in range(trials))
    )
    # Nominal 95 %; a bootstrap of a skewed mean falls a little short. Binomial standard error: 1.1
    # points.
    assert 0.90 < hits / trials < 0.985


def test_coverage_of_a_paired_ratio():
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(300):
        shared = generator.gamma(4, size=32)
        e = ratio(0.7 * shared + 0.1 * generator.normal(size=32), shared)
        hits += e.low <= 0.7 <= e.high
    assert 0.89 < hits / 300 < 0.99


def test_few_seeds_give_the_ordinary_t_interval():
    x = np.random.default_rng(0).normal(size=9)
    e = mean(x)
    assert (e.low, e.high) == pytest.approx(stats.t.interval(0.95, 8, x.mean(), stats.sem(x)))
    assert e.method == "jackknife t"


def test_many_seeds_give_the_bca_interval():
    x = np.random.default_rng(0).exponential(size=40)
    e = mean(x)
    assert e.method == "BCa bootstrap"
    assert e.low < x.mean() < e.high
    assert e.high - x.mean() > x.mean() - e.low  # the skew is seen


def test_pairing_narrows_the_interval():
    generator = np.random.default_rng(2)
    x = generator.normal(size=64)
    y = x + 0.1 + 0.01 * generator.normal(size=64)
    paired, unpaired = difference(y, x), difference(y, generator.permutation(x))
    assert paired.low > 0.09
    assert unpaired.high - unpaired.low > 10 * (paired.high - paired.low)


@pytest.mark.parametrize("n", [2, 8, 64])
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


def test_an_undefined_statistic_is_nan_not_an_error():
    e = ratio(np.ones(20), np.array([1.0, -1.0] * 10))
    assert np.isnan([e.value, e.low, e.high]).all()
    assert e.method == "undefined"


def test_rank_correlation_against_scipy_with_ties():
    generator = np.random.default_rng(3)
    x, y = generator.integers(0, 4, (5, 20)).astype(float), generator.normal(size=(5, 20))
    expected = [stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    assert rank_correlation(x, y) == pytest.approx(expected)
    assert np.isnan(rank_correlation(np.ones(4), np.arange(4.0)))


def test_rank_statistics_keep_the_value_near_their_interval():
    generator = np.random.default_rng(4)
    truth = np.arange(8.0)
    data = truth + generator.normal(scale=6, size=(64, 8))
    e = estimate(
        lambda i: rank_correlation(data[i].mean(-2), truth), np.ones(64, bool), smooth=False
    )
    assert e.method == "percentile bootstrap"
    assert e.low <= e.high <= 1


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


def test_p_value_against_full_enumeration():
    x = np.array([0.3, -0.1, 0.8, 0.5, 0.2, 0.9])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1)
    shifted = x - 0.1
    least = min(  # the share of sign patterns with a mean at least as far to either side, doubled
        (signs.T @ shifted >= shifted.sum() - 1e-12).mean(),
        (signs.T @ shifted <= shifted.sum() + 1e-12).mean(),
    )
    assert mean(x).p_value(0.1) == pytest.approx(2 * least)


def test_p_value_is_calibrated_and_has_power():
    rng = np.random.default_rng(1)
    null = np.array([mean(rng.exponential(size=32)).p_value(1.0) for _ in range(200)])
    assert 0.01 < (null < 0.05).mean() < 0.11  # 200 draws: 0.05 +- 4 standard errors of 0.015
    assert max(mean(rng.normal(1.0, 1.0, 32)).p_value(0.0) for _ in range(20)) < 0.05


def test_p_value_of_a_ratio_tests_the_paired_difference():
    rng = np.random.default_rng(2)
    y = rng.uniform(1, 2, 64)
    x = 0.8 * y + rng.normal(0, 0.1, 64)
    assert ratio(x, y).p_value(0.8) > 0.05
    assert ratio(x, y).p_value(0.9) < 0.001


def test_p_value_of_constant_data_and_of_none():
    assert mean(np.full(20, 0.5)).p_value(0.5) == 1.0
    assert mean(np.full(20, 0.5)).p_value(0.4) < 0.001
    assert mean(np.array([1.0])).p_value(0.0) is None
    assert mean(np.array([np.nan])).p_value(0.0) is None
