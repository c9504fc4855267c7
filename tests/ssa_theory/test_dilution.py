"""Closed forms of dilution against direct softmax, adversarial logits, an independent quadrature
and Monte Carlo.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import integrate
from scipy.special import expit, log_softmax, logsumexp
from scipy.stats import norm

from ssa_theory.theory import dilution as d

NEEDLES, REST = st.integers(1, 5), st.integers(1, 60)
TAU, GAP = st.floats(0, 30), st.floats(-3, 8)


def _row(
    needles: int, gap: float, distractors: np.ndarray, tau: float
) -> tuple[float, float, float]:
    """(needle mass, entropy, largest weight) of the explicit row."""
    log_p = log_softmax(tau * np.concatenate([np.full(needles, gap), distractors]))
    return (
        float(np.exp(log_p[:needles]).sum()),
        float(-(np.exp(log_p) * log_p).sum()),
        float(np.exp(log_p.max())),
    )


def test_bounds_are_attained() -> None:
    n, tau, m, g, b = 12, 1.7, 2, 2.0, 0.8
    lower, upper = d.bounded_needle_mass(n, tau, m, g, b)
    assert float(lower) == pytest.approx(_row(m, g, np.full(n - m, b), tau)[0], rel=1e-12)
    assert float(upper) == pytest.approx(_row(m, g, np.full(n - m, -b), tau)[0], rel=1e-12)
    # One logit at the top, all others at the bottom: to first order in 1 / n the largest weight is
    # exp(2 B tau) / n.
    largest = _row(1, 0.5, np.full(10**6 - 1, -0.5), 2.0)[2]
    assert largest == pytest.approx(float(d.bounded_largest_weight(10**6, 2.0, 0.5, 0.5)), rel=1e-4)
    assert float(d.bounded_entropy_bound(100, 1.0, 0.2, 0.5)) == pytest.approx(
        np.log(100) - 1
    )  # 2 B tau
    assert float(d.bounded_entropy_bound(100, 1.0, 2.0, 0.5)) == pytest.approx(
        np.log(100) - 2.5
    )  # (B + g) tau


def test_bounded_critical_temperature_is_infinite_where_distractors_can_win() -> None:
    _, sufficient = d.bounded_critical_inverse_temperature(100, 0.5, 1, 1.0, 1.5)
    assert np.isinf(sufficient)
    assert max(_row(1, 1.0, np.full(99, 1.5), t)[0] for t in np.linspace(0, 50, 200)) < 0.5


def test_random_energy_model_is_smooth_at_freezing_and_flat_in_slope_beyond() -> None:
    count, s = np.array([3, 100, 10**6]), 1.7
    edge = d.gaussian_freezing(count, s)
    h = 1e-6
    log_z = [d.gaussian_log_partition(count, edge + k * h, s) for k in (-2, -1, 0, 1, 2)]
    assert np.allclose(log_z[2], 2 * np.log(count), rtol=1e-12)
    left, right = (log_z[2] - log_z[1]) / h, (log_z[3] - log_z[2]) / h
    assert np.allclose(left, right, rtol=1e-5)
    assert np.allclose(right, s * np.sqrt(2 * np.log(count)), rtol=1e-5)
    far = d.gaussian_log_partition(count, 3 * edge, s) - d.gaussian_log_partition(
        count, 2 * edge, s
    )
    assert np.allclose(far / edge, s * np.sqrt(2 * np.log(count)))
    assert np.allclose(d.gaussian_log_partition(count, 0.5 * edge, s), 1.25 * np.log(count))


def test_random_energy_model_bounds_and_approaches_the_expectation() -> None:
    gaps = []
    for count in (10, 1000, 100_000):
        tau = np.array([0.2, 0.5, 1.0, 1.5, 2.0]) * d.gaussian_freezing(count, 1.3)
        exact = np.array(
            [d.expected_row("gaussian", 1.3, count, float(t)).log_partition for t in tau]
        )
        model = d.gaussian_log_partition(count, tau, 1.3)
        assert (exact <= model + 1e-10).all()
        gaps.append((model - exact).max() / np.log(count))
    assert gaps[0] > gaps[1] > gaps[2] > 0.01  # the approach is slow, like log log N / log N


def test_a_needle_below_the_largest_gaussian_distractor_is_lost_at_every_temperature() -> None:
    n = np.array([100, 2000, 4000, 10**6])
    tau = d.gaussian_critical_inverse_temperature(
        n, 0.5, 1, 4.0, 1.0
    )  # the border is exp(8) = 2981
    assert np.isfinite(tau[:2]).all()
    assert np.isinf(tau[2:]).all()
    # In the frozen phase: an ambitious mass is reached only beyond tau_c.
    for needles, mass in ((1, 0.9), (3, 0.97)):
        frozen = float(d.gaussian_critical_inverse_temperature(2000, mass, needles, 4.0, 1.0))
        assert frozen > float(d.gaussian_freezing(2000 - needles, 1.0))
        assert float(d.gaussian_needle_mass(2000, frozen, needles, 4.0, 1.0)) == pytest.approx(mass)


def test_gaussian_entropy_in_both_phases() -> None:
    # A hopeless needle leaves the distractors' own entropy: log N - tau^2 s^2 / 2, then 0.
    tau = np.array([0.0, 1.0, 2.0, 9.0])
    entropy = d.gaussian_entropy(10**4 + 1, tau, 1, -50.0, 1.0)
    assert np.allclose(entropy[1:], [np.log(10**4) - 0.5, np.log(10**4) - 2, 0.0], atol=1e-12)
    assert float(entropy[0]) == pytest.approx(np.log(10**4 + 1))


def test_no_needle_stands_out_at_tau_zero_and_alone_it_holds_everything() -> None:
    n = np.array([4, 50, 10**6])
    for mass in (
        d.equal_needle_mass(n, 0.0, 3, 2.0),
        *d.bounded_needle_mass(n, 0.0, 3, 2.0, 1.0),
        d.gaussian_needle_mass(n, 0.0, 3, 2.0, 1.0),
    ):
        assert np.allclose(mass, 3 / n, rtol=1e-12)
    assert np.allclose(d.equal_entropy(n, 0.0, 3, 2.0), np.log(n))
    for law in ("uniform", "gaussian"):
        row = d.expected_row(law, 1.0, 47, 0.0, 3, 2.0)
        assert (row.needle_mass, row.entropy) == pytest.approx((3 / 50, np.log(50)), rel=1e-10)
    tau = np.array([0.0, 1.0, 40.0])
    assert (d.equal_needle_mass(5, tau, 5, 2.0) == 1).all()
    assert (d.gaussian_needle_mass(5, tau, 5, 2.0, 1.0) == 1).all()
    assert all((bound == 1).all() for bound in d.bounded_needle_mass(5, tau, 5, 2.0, 1.0))
    assert np.allclose(d.equal_entropy(5, tau, 5, 2.0), np.log(5))
    assert np.allclose(d.gaussian_entropy(5, tau, 5, 2.0, 1.0), np.log(5))
    row = d.expected_row("gaussian", 1.0, 0, 2.0, 5, 1.5)
    assert (row.needle_mass, row.log_partition, row.entropy) == pytest.approx(
        (1, 3 + np.log(5), np.log(5)), abs=1e-10
    )
    for critical in (
        d.equal_critical_inverse_temperature(5, 0.5, 5, 1.0),
        *d.bounded_critical_inverse_temperature(5, 0.5, 5, 1.0, 2.0),
        d.gaussian_critical_inverse_temperature(5, 0.5, 5, 1.0, 2.0),
    ):
        assert float(critical) == 0


@pytest.mark.parametrize("law", ["uniform", "gaussian"])
@pytest.mark.parametrize("tau", [0.7, 3.0])
def test_expected_row_equals_an_independent_quadrature_for_one_distractor(
    law: str, tau: float
) -> None:
    spread, gap, m = 1.4, 1.1, 2
    density = (
        (lambda z: norm.pdf(z, scale=spread))
        if law == "gaussian"
        else (lambda z: 1 / (2 * spread) if abs(z) <= spread else 0.0)
    )
    reach = spread * (10 if law == "gaussian" else 1)

    def expect(f: Callable[[float], float]) -> float:
        return integrate.quad(
            lambda z: f(z) * density(z), -reach, reach, epsabs=1e-13, epsrel=1e-12, limit=400
        )[0]

    rows = [expect(lambda z, i=i: _row(m, gap, np.array([z]), tau)[i]) for i in (0, 1)]
    square = expect(lambda z: _row(m, gap, np.array([z]), tau)[0] ** 2)
    log_z = expect(lambda z: float(logsumexp(tau * np.array([gap, gap, z]))))
    found = d.expected_row(law, spread, 1, tau, m, gap)
    assert (found.needle_mass, found.entropy, found.log_partition) == pytest.approx(
        (*rows, log_z), abs=1e-9
    )
    assert found.needle_mass_deviation == pytest.approx(np.sqrt(square - rows[0] ** 2), abs=1e-7)
    assert found.needle_mass_deviation > 0.01


@pytest.mark.parametrize("law", ["uniform", "gaussian"])
@pytest.mark.parametrize(("tau", "count", "needles"), [(0.5, 200, 1), (2.0, 50, 3), (5.0, 400, 2)])
def test_expected_row_agrees_with_monte_carlo(
    law: str, tau: float, count: int, needles: int
) -> None:
    generator, rows, gap, spread = np.random.default_rng(7), 4000, 1.8, 1.2
    z = (
        generator.standard_normal((rows, count))
        if law == "gaussian"
        else generator.uniform(-1, 1, (rows, count))
    )
    logits = tau * np.concatenate([np.full((rows, needles), gap), spread * z], 1)
    log_p = log_softmax(logits, axis=1)
    samples = {
        "needle_mass": np.exp(log_p[:, :needles]).sum(1),
        "entropy": -(np.exp(log_p) * log_p).sum(1),
        "log_partition": logsumexp(logits, axis=1),
    }
    exact = d.expected_row(law, spread, count, tau, needles, gap)
    for name, values in samples.items():
        assert abs(values.mean() - getattr(exact, name)) < 4.5 * values.std() / np.sqrt(rows), name
    mass = samples["needle_mass"]
    assert exact.needle_mass_deviation == pytest.approx(mass.std(), rel=0.15)


def test_expected_log_odds_are_never_below_the_model() -> None:
    for tau in (0.5, 2.0, 6.0):
        z = np.random.default_rng(3).standard_normal((2000, 500))
        log_odds = tau * 3.0 - logsumexp(tau * z, axis=1)
        model = tau * 3.0 - float(d.gaussian_log_partition(500, tau, 1.0))
        assert log_odds.mean() > model - 4 * log_odds.std() / np.sqrt(2000)


def test_random_energy_model_of_one_and_two_distractors() -> None:
    assert d.gaussian_freezing(1, 0.7) == 0
    assert d.gaussian_log_partition(2, 9.0, 0.7) == pytest.approx(
        9.0 * 0.7 * math.sqrt(2 * math.log(2))
    )
    assert d.gaussian_entropy(2, 0.0, 1, 1.0, 0.7) == pytest.approx(
        math.log(2)
    )  # one distractor has no entropy


def test_gaussian_critical_temperature_and_entropy_by_hand() -> None:
    """log 99 + logit(1/2) = a: the smaller root of tau g - tau^2 s^2 / 2 = a, just before the two
    roots meet.
    """
    gap, deviation, a = 1.0, 0.3, math.log(99)
    root = gap**2 - 2 * a * deviation**2
    assert 0.1 < root < 0.3
    tau = (gap - math.sqrt(root)) / deviation**2
    assert d.gaussian_critical_inverse_temperature(100, 0.5, 1, gap, deviation) == pytest.approx(
        tau
    )
    entropy = d.gaussian_entropy(100, tau, 1, gap, deviation)
    assert entropy == pytest.approx(math.log(2) + 0.5 * (a - (tau * deviation) ** 2 / 2))
    assert math.isinf(
        d.gaussian_critical_inverse_temperature(100, 0.5, 1, 0.9, deviation)
    )  # they have met


@pytest.mark.parametrize("law", ["uniform", "gaussian"])
def test_expected_row_feels_spread_and_temperature_by_their_product(law: str) -> None:
    wide, unit = (d.expected_row(law, s, 3, 15.0 / s, needles=1, gap=0.4 * s) for s in (5.0, 1.0))
    for name in ("needle_mass", "needle_mass_deviation", "log_partition", "entropy"):
        assert getattr(wide, name) == pytest.approx(getattr(unit, name), rel=1e-9)
    one = d.expected_row("uniform", 5.0, 1, 3.0, needles=1, gap=2.0)
    mass, _ = integrate.quad(lambda z: expit(3.0 * (2.0 - z)) / 10, -5, 5, epsabs=1e-13)
    assert one.needle_mass == pytest.approx(mass, abs=1e-9)


@pytest.mark.parametrize(("law", "tau"), [("uniform", 100.0), ("gaussian", 20.0)])
def test_expected_row_of_one_distractor_alone_at_low_temperature(law: str, tau: float) -> None:
    """log Z = tau z, whose mean is 0, over a range of +-100 or more; one key has no entropy."""
    row = d.expected_row(law, 1.0, 1, tau)
    assert row.needle_mass == 0
    assert row.log_partition == pytest.approx(0, abs=1e-8)
    assert row.entropy == pytest.approx(0, abs=1e-8)


def test_bounded_distractors_without_spread_are_equal_ones() -> None:
    exact = d.equal_needle_mass(9, 1.3, 2, 0.7)
    assert d.bounded_needle_mass(9, 1.3, 2, 0.7, 0.0) == (exact, exact)


def test_arrays_broadcast_in_length_and_temperature() -> None:
    n, tau = np.array([[10], [100]]), np.array([0.5, 1.0, 2.0])
    for found in (
        d.equal_needle_mass(n, tau, 1, 2.0),
        d.equal_entropy(n, tau, 1, 2.0),
        d.bounded_needle_mass(n, tau, 1, 2.0, 1.0)[0],
        d.bounded_entropy_bound(n, tau, 2.0, 1.0),
        d.gaussian_needle_mass(n, tau, 1, 2.0, 1.0),
        d.gaussian_entropy(n, tau, 1, 2.0, 1.0),
    ):
        assert found.shape == (2, 3)
        assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: d.equal_needle_mass(10, 1.0, 0, 1.0), "at least 1 needle, got 0"),
        (lambda: d.equal_needle_mass(3, 1.0, 4, 1.0), "at least their number 4, got 3"),
        (lambda: d.equal_needle_mass(np.nan, 1.0, 1, 1.0), "use longer rows"),
        (lambda: d.equal_entropy(10, -0.1, 1, 1.0), "at least 0, got -0.1"),
        (lambda: d.equal_entropy(10, np.inf, 1, 1.0), "finite and at least 0, got inf"),
        (lambda: d.equal_entropy(10, 1.0, 1, np.inf), "the gap must be finite, got inf"),
        (
            lambda: d.equal_critical_inverse_temperature(10, 1.0, 1, 1.0),
            "strictly between 0 and 1, got 1.0",
        ),
        (lambda: d.equal_critical_inverse_temperature(10, 0.5, 1, 0.0), "gap must be positive"),
        (
            lambda: d.bounded_needle_mass(10, 1.0, 1, 1.0, -1.0),
            "bound of the distractors must be finite and at least",
        ),
        (
            lambda: d.gaussian_log_partition(-1, 1.0, 1.0),
            "number of distractors must be finite and at least 0, got -1",
        ),
        (
            lambda: d.gaussian_freezing(10, 0.0),
            "deviation of the distractors must be positive and finite, got 0.0",
        ),
        (lambda: d.gaussian_entropy(10, 1.0, 1, 1.0, np.nan), "deviation of the distractors"),
        (lambda: d.expected_row("cauchy", 1.0, 5, 1.0), "unknown law 'cauchy'"),
        (lambda: d.expected_row("gaussian", 1.0, 0, 1.0), "got 0 distractors and 0 needles"),
        (lambda: d.expected_row("gaussian", 2.0, 5, 151.0), "tau \\* spread <= 300, got 302"),
    ],
)
def test_bad_input_is_refused_with_the_rule(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
