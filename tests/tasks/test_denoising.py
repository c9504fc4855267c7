"""The denoising task: exact estimates against enumeration and quadrature, closed forms against
Monte Carlo.
"""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats
from scipy.interpolate import CubicSpline

from tasks.denoising import DenoisingTask
from tasks.denoising_risk import importance_estimates

DEFAULT = DenoisingTask()
TASKS = st.builds(
    DenoisingTask,
    dim=st.integers(1, 5),
    length=st.integers(1, 7),
    relevance=st.floats(0.05, 0.95),
    prior_scale=st.floats(0.3, 2.0),
    signal_noise=st.floats(0.3, 2.0),
    filler_noise=st.floats(0.3, 4.0),
)
SEEDS = st.integers(0, 2**32)
CONFIGURATIONS = [
    DEFAULT,
    DenoisingTask(
        dim=3, length=4, relevance=0.6, prior_scale=1.7, signal_noise=1.1, filler_noise=0.7
    ),
    DenoisingTask(
        dim=1, length=6, relevance=0.15, prior_scale=0.8, signal_noise=0.3, filler_noise=1.9
    ),
    DenoisingTask(
        dim=5, length=3, relevance=0.45, prior_scale=2.0, signal_noise=0.4, filler_noise=1.3
    ),
]
ids = {"ids": [f"d{t.dim}-L{t.length}" for t in CONFIGURATIONS]}


def draw(task: DenoisingTask, seed: int, count: int = 5):
    return task.sample(count, np.random.default_rng(seed))


def additive_gate(task: DenoisingTask, radius: np.ndarray) -> np.ndarray:
    """h at many radii, from a fine grid."""
    grid = np.linspace(0, 1.001 * radius.max(), 300)
    return CubicSpline(grid, task.additive_gate(grid))(radius)


@settings(max_examples=25)
@given(task=TASKS, seed=SEEDS)
def test_bayes_in_one_dimension_is_the_quadrature_over_the_signal(task, seed):
    task = replace(task, dim=1)
    data = draw(task, seed, 2)
    posterior = task.bayes_posterior(data.tokens)
    y = np.linspace(-9, 9, 4001) * task.prior_scale
    for i, x in enumerate(data.tokens[..., 0]):
        relevant = task.relevance * stats.norm.pdf(x[:, None], y, task.signal_noise)
        filler = (1 - task.relevance) * stats.norm.pdf(x[:, None], 0, task.filler_noise)
        density = stats.norm.pdf(y, 0, task.prior_scale) * (relevant + filler).prod(0)
        density /= density.sum()
        mean = density @ y
        assert_allclose(posterior.mean[i, 0], mean, rtol=1e-7, atol=1e-9)
        assert_allclose(posterior.variance[i], density @ (y - mean) ** 2, rtol=1e-7)


@settings(max_examples=25)
@given(
    seed=SEEDS,
    dim=st.integers(1, 4),
    length=st.integers(1, 5),
    relevance=st.sampled_from([0.0, 0.2, 0.7, 1.0]),
)
def test_cross_polytope_is_the_enumeration_over_atoms_and_patterns(seed, dim, length, relevance):
    task = DenoisingTask(dim, length, relevance, 0.8, 0.9, 1.4, prior="cross-polytope")
    data = draw(task, seed, 2)
    atoms = 0.8 * np.sqrt(dim) * np.vstack([np.eye(dim), -np.eye(dim)])
    posterior, oracle = (
        task.bayes_posterior(data.tokens),
        task.oracle_posterior(data.tokens, data.relevant),
    )
    for i, x in enumerate(data.tokens):
        weight, known = np.zeros(2 * dim), np.zeros(2 * dim)
        for j, y in enumerate(atoms):
            for b in product((False, True), repeat=length):
                density = 1.0
                for token, flag in zip(x, b, strict=True):
                    density *= relevance if flag else 1 - relevance
                    density *= np.prod(
                        stats.norm.pdf(token, y if flag else 0, 0.9 if flag else 1.4)
                    )
                weight[j] += density
            known[j] = np.prod(stats.norm.pdf(x[data.relevant[i]], y, 0.9))
        for law, found in ((weight / weight.sum(), posterior), (known / known.sum(), oracle)):
            mean = law @ atoms
            assert_allclose(found.mean[i], mean, rtol=1e-9, atol=1e-12)
            assert_allclose(
                found.variance[i], law @ ((atoms - mean) ** 2).mean(1), rtol=1e-8, atol=1e-12
            )


def test_cross_polytope_atoms_are_equally_likely_with_the_prior_covariance():
    task = DenoisingTask(dim=3, length=2, prior_scale=1.5, prior="cross-polytope")
    target = draw(task, 0, 12_000).target
    atoms, counts = np.unique(target, axis=0, return_counts=True)
    assert len(atoms) == 6
    assert stats.chisquare(counts).pvalue > 1e-3
    assert_allclose(atoms.T @ atoms / 6, 1.5**2 * np.eye(3), atol=1e-12)


def test_sampled_tokens_follow_the_model():
    task = DenoisingTask(
        dim=4, length=3, relevance=0.4, prior_scale=1.2, signal_noise=0.6, filler_noise=2.0
    )
    data = draw(task, 1, 20_000)
    residual = (data.tokens - data.target[:, None])[data.relevant]
    fillers = data.tokens[~data.relevant]
    for values, scale in ((residual, 0.6), (fillers, 2.0), (data.target, 1.2)):
        assert stats.kstest(values.ravel()[:20_000] / scale, "norm").pvalue > 1e-3
    assert abs(data.relevant.mean() - 0.4) < 4 * np.sqrt(0.24 / data.relevant.size)


@pytest.mark.parametrize("prior", ["gaussian", "cross-polytope"])
def test_signal_relevance_and_noise_are_independent(prior):
    task = DenoisingTask(
        dim=2, length=3, relevance=0.4, signal_noise=0.5, filler_noise=0.5, prior=prior
    )
    data = draw(task, 2, 20_000)
    noise = np.where(data.relevant[..., None], data.tokens - data.target[:, None], data.tokens)
    signal = np.column_stack([data.target, data.target**2])
    rest = np.column_stack([data.relevant, noise.reshape(20_000, -1)])
    correlation = np.corrcoef(signal, rest, rowvar=False)[:4, 4:]
    assert correlation.shape == (4, 3 + 6)
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)


class Extreme:
    """A generator of normals so large that their distribution function rounds to one."""

    def standard_normal(self, shape):
        return np.full(shape, 40.0)


@pytest.mark.usefixtures("unchecked")
def test_the_largest_normal_names_the_last_atom():
    task = DenoisingTask(dim=3, prior_scale=2.0, prior="cross-polytope")
    assert_allclose(task.sample(1, Extreme()).target, [[0, 0, -2 * np.sqrt(3)]])


@pytest.mark.parametrize("prior", ["gaussian", "cross-polytope"])
def test_sampler_is_seeded_and_does_not_depend_on_its_chunks(prior):
    task = DenoisingTask(dim=3, length=4, prior=prior)
    whole, again, other = draw(task, 5, 7), draw(task, 5, 7), draw(task, 6, 7)
    generator = np.random.default_rng(5)
    parts = [task.sample(n, generator) for n in (3, 4)]
    for name in ("tokens", "relevant", "target"):
        assert (getattr(whole, name) == getattr(again, name)).all()
        assert (getattr(whole, name) == np.concatenate([getattr(p, name) for p in parts])).all()
        assert (getattr(whole, name) != getattr(other, name)).any()


@pytest.mark.parametrize(("prior", "signal"), [("gaussian", 8), ("cross-polytope", 1)])
def test_the_sampler_uses_a_normal_for_every_number_it_draws(prior, signal):
    used, same = np.random.default_rng(8), np.random.default_rng(8)
    replace(DEFAULT, prior=prior).sample(3, used)
    same.standard_normal(
        3 * (signal + 10 * (1 + 8))
    )  # each token: whether it is relevant, and its noise
    assert used.random() == same.random()


def test_the_noise_of_the_fillers_scales_them_and_nothing_else():
    unit, loud = (draw(DenoisingTask(filler_noise=s), 3, 50) for s in (1.0, 3.5))
    assert (unit.relevant == loud.relevant).all()
    assert 0 < unit.relevant.mean() < 1
    assert_allclose(
        loud.tokens, unit.tokens * np.where(unit.relevant, 1.0, 3.5)[..., None], rtol=1e-15
    )


def test_relevance_given_norm_is_the_ratio_of_densities():
    task = CONFIGURATIONS[1]
    x = draw(task, 0, 6).tokens[:, 0]
    v = task.prior_scale**2 + task.signal_noise**2
    signal = task.relevance * stats.multivariate_normal(np.zeros(3), v).pdf(x)
    filler = (1 - task.relevance) * stats.multivariate_normal(
        np.zeros(3), task.filler_noise**2
    ).pdf(x)
    assert_allclose(
        task.relevance_given_norm(np.linalg.norm(x, axis=1)), signal / (signal + filler), rtol=1e-10
    )


@pytest.mark.parametrize("scale", [0.01, 100.0])
@pytest.mark.parametrize("name", ["oracle", "naive", "shrunk", "threshold", "additive"])
def test_risks_scale_with_the_square_of_the_units(name, scale):
    scaled = replace(DEFAULT, prior_scale=scale, signal_noise=0.5 * scale, filler_noise=2.5 * scale)
    assert scaled.risk(name) == pytest.approx(scale**2 * DEFAULT.risk(name), rel=1e-9)


def test_risks_at_the_limits_of_relevance():
    for relevance, value in ((0.0, 1.0), (1.0, 0.25 / (0.25 + 10))):
        task = replace(DEFAULT, relevance=relevance)
        for name in ("oracle", "shrunk", "additive", "threshold"):
            assert_allclose(task.risk(name), value, rtol=1e-9)


@pytest.mark.parametrize("task", CONFIGURATIONS, **ids)
def test_closed_forms_are_the_monte_carlo_risks(task):
    data = draw(task, 11, 40_000)
    mean = data.tokens.mean(1)
    shrink = (mean * data.target).mean() / (mean**2).mean()
    radius = np.linalg.norm(data.tokens, axis=2)
    gate = additive_gate(task, radius)
    estimates = {
        "oracle": task.oracle_estimate(data.tokens, data.relevant),
        "naive": mean,
        "shrunk": shrink * mean,
        "additive": (gate[..., None] * data.tokens).sum(1),
    }
    for name, found in estimates.items():
        error = ((found - data.target) ** 2).mean(1)
        assert abs(error.mean() - task.risk(name)) < 4 * error.std() / np.sqrt(len(error)), name


@pytest.mark.parametrize("task", CONFIGURATIONS, **ids)
def test_additive_solves_its_normal_equations(task):
    """The error of the best additive estimator is uncorrelated with g(||x_1||) x_1, whatever g: it
    cannot be bettered.
    """
    data = draw(task, 12, 40_000)
    radius = np.linalg.norm(data.tokens, axis=2)
    gate = additive_gate(task, radius)
    error = data.target - (gate[..., None] * data.tokens).sum(1)
    scale = np.hypot(task.prior_scale, task.signal_noise)
    for test in (
        np.ones_like(radius),
        np.exp(-((radius / scale) ** 2) / task.dim),
        radius < scale * task.dim**0.5,
    ):
        products = ((test[..., None] * data.tokens).sum(1) * error).mean(1)
        assert abs(products.mean()) < 4 * products.std() / np.sqrt(len(products))


@pytest.mark.parametrize("task", CONFIGURATIONS, **ids)
def test_threshold_is_the_best_of_a_grid_of_thresholds(task):
    data = draw(task, 13, 60_000)
    square, half = (data.tokens**2).sum(2), 30_000
    grid, scores = np.quantile(square, np.linspace(0.02, 1, 50)), []
    for above in (False, True):
        for level in grid:
            total = (
                data.tokens * ((square > level) if above else (square <= level))[..., None]
            ).sum(1)
            power = (total[:half] ** 2).mean()
            factor = (total[:half] * data.target[:half]).mean() / power if power > 0 else 0.0
            fitted = ((factor * total[:half] - data.target[:half]) ** 2).mean()
            scores.append((fitted, ((factor * total[half:] - data.target[half:]) ** 2).mean(1)))
    error = min(scores, key=lambda score: score[0])[1]  # chosen on one half, judged on the other
    exact, noise = task.risk("threshold"), error.std() / np.sqrt(half)
    assert -4 * noise < error.mean() - exact < 4 * noise + 0.005 * exact
    assert exact < 0.999 * task.risk("shrunk")


@pytest.mark.parametrize("task", CONFIGURATIONS, **ids)
def test_bayes_is_calibrated_and_no_estimator_beats_it(task):
    data = draw(task, 14, 20_000)
    posterior = task.bayes_posterior(data.tokens)
    error = ((posterior.mean - data.target) ** 2).mean(1)

    def assert_zero(values: np.ndarray) -> None:
        assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))

    assert_zero(error - posterior.variance)
    assert_zero((data.target * posterior.mean).mean(1) - (posterior.mean**2).mean(1))
    # Pythagoras: risk(h) = risk(Bayes) + ||h - Bayes||^2
    for other in (data.tokens.mean(1), np.zeros_like(data.target)):
        distance = ((other - posterior.mean) ** 2).mean(1)
        assert_zero(((other - data.target) ** 2).mean(1) - error - distance)
        assert distance.mean() > 0
    bayes = task.bayes_risk(20_000, np.random.default_rng(15))
    assert abs(bayes.value - posterior.variance.mean()) < 6 * bayes.error
    assert task.risk("oracle") < bayes.value + 4 * bayes.error
    assert bayes.value - 4 * bayes.error < task.risk("additive")


@pytest.mark.parametrize("task", [*CONFIGURATIONS[1:], replace(DEFAULT, relevance=1.0)], ids=str)
@pytest.mark.parametrize("draws", [3, 64])
def test_bracket_contains_the_exact_bayes_risk(task, draws):
    bracket = task.bayes_bracket(4000, np.random.default_rng(16), draws)
    exact = task.bayes_risk(20_000, np.random.default_rng(17))
    noise = 4 * np.hypot(exact.error, bracket.lower.error)
    assert bracket.lower.value - noise < exact.value < bracket.upper.value + noise
    width = bracket.upper.value - bracket.lower.value
    assert (width < 0.1 * exact.value) if draws == 64 else (width > 0.02 * exact.value)


@pytest.mark.parametrize("relevance", [0.5, 1.0])
def test_importance_sampling_tends_to_the_exact_estimate(relevance):
    task = DenoisingTask(dim=2, length=3, relevance=relevance, filler_noise=1.2)
    data = draw(task, 3, 30)
    found = importance_estimates(
        task.law, data.tokens, data.target, 20_000, np.random.default_rng(4)
    )[1]
    error = found - task.bayes_estimate(data.tokens)
    # The effective number of draws is some thousands; a wrong density of the proposal or the
    # posterior leaves 0.03 or more.
    assert np.sqrt((error**2).mean()) < 0.012


def test_bracket_beyond_the_exact_lengths():
    task = replace(DEFAULT, dim=4, length=24)
    bracket = task.bayes_bracket(600, np.random.default_rng(0), 64)
    assert task.risk("oracle") < bracket.upper.value + 4 * bracket.upper.error
    assert bracket.lower.value - 4 * bracket.lower.error < task.risk("additive")
    assert bracket.upper.value - bracket.lower.value < 0.1 * bracket.upper.value


def test_the_error_of_a_risk_is_that_of_the_mean_over_its_inputs():
    task = replace(DEFAULT, length=4)
    variance = task.bayes_posterior(draw(task, 12, 50).tokens).variance
    risk = task.bayes_risk(50, np.random.default_rng(12))
    assert risk.value == pytest.approx(variance.mean())
    assert risk.error == pytest.approx(
        np.sqrt(np.square(variance - variance.mean()).sum() / 49 / 50)
    )
    assert 0 < task.bayes_risk(2, np.random.default_rng(0)).error < np.inf
    assert (
        task.bayes_risk(1, np.random.default_rng(0)).error == np.inf
    )  # one input tells nothing of the spread


def test_blocks_do_not_change_the_estimate(monkeypatch):
    x = draw(DEFAULT, 2, 30).tokens
    whole = DEFAULT.bayes_posterior(x)
    monkeypatch.setattr("tasks.denoising_posterior._BLOCK", 3 * 2**10)
    parts = DEFAULT.bayes_posterior(x)
    assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    assert_allclose(parts.variance, whole.variance, rtol=1e-12)


def test_far_tokens_leave_finite_estimates():
    x = draw(DEFAULT, 2).tokens
    for scale in (1e-6, 1e6):
        posterior = DEFAULT.bayes_posterior(scale * x)
        assert np.isfinite(posterior.mean).all()
        assert (posterior.variance > 0).all()
    tiny = replace(DEFAULT, signal_noise=1e-4)
    assert np.isfinite(tiny.bayes_posterior(draw(tiny, 1).tokens).mean).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relevance": 1.2}, r"relevance is a probability, got 1.2"),
        ({"relevance": -0.1}, r"relevance is a probability, got -0.1"),
        ({"relevance": float("nan")}, r"relevance is a probability, got nan"),
        ({"signal_noise": 0.0}, r"signal_noise must be positive and finite, got 0.0"),
        ({"filler_noise": -1.0}, r"filler_noise must be positive and finite, got -1.0"),
        ({"prior_scale": float("inf")}, r"prior_scale must be positive and finite, got inf"),
        ({"length": 0}, r"length must be at least 1, got 0"),
        ({"dim": 0}, r"dim must be at least 1, got 0"),
    ],
)
def test_bad_tasks_are_rejected(change, message):
    with pytest.raises(ValueError, match=message):
        replace(DEFAULT, **change)


@pytest.mark.usefixtures("unchecked")
def test_bad_questions_are_rejected():
    generator = np.random.default_rng(0)
    atoms = DenoisingTask(prior="cross-polytope")
    long = replace(DEFAULT, length=15)
    data = draw(DEFAULT, 0)
    for call, message in (
        (
            lambda: long.bayes_estimate(draw(long, 0).tokens),
            "at most 14 tokens, got length 15: use bayes_bracket",
        ),
        (lambda: long.bayes_risk(2, generator), "use bayes_bracket"),
        (
            lambda: DEFAULT.bayes_estimate(data.tokens[:, 1:]),
            r"tokens must have shape \(sample, 10, 8\)",
        ),
        (
            lambda: DEFAULT.oracle_estimate(data.tokens, data.relevant[1:]),
            r"relevant must have shape \(5, 10\)",
        ),
        (lambda: DEFAULT.risk("bayes"), "choose one of oracle, naive, shrunk, threshold, additive"),
        (lambda: atoms.risk("oracle"), "for the cross-polytope prior: choose one of naive, shrunk"),
        (lambda: atoms.bayes_bracket(9, generator), "exact at any length for the cross-polytope"),
        (lambda: atoms.additive_gate(np.ones(1)), "additive_gate needs the gaussian prior"),
        (
            lambda: atoms.relevance_given_norm(np.ones(1)),
            "relevance_given_norm needs the gaussian prior",
        ),
        (lambda: DEFAULT.sample(0, generator), "number of samples must be at least 1, got 0"),
        (lambda: DEFAULT.bayes_bracket(9, generator, 1), "draws must be at least 2, got 1"),
        (lambda: DEFAULT.bayes_bracket(1, generator), "count must be at least 2, got 1"),
        (
            lambda: replace(DEFAULT, prior="cube"),
            "unknown prior 'cube': choose one of gaussian, cross-polytope",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_cross_polytope_shares_the_second_moment_risks():
    atoms = replace(DEFAULT, prior="cross-polytope", length=40)
    assert atoms.risk("naive") == replace(DEFAULT, length=40).risk("naive")
    data = draw(atoms, 3, 4000)
    posterior = atoms.bayes_posterior(data.tokens)  # at any length
    error = ((posterior.mean - data.target) ** 2).mean(1)
    difference = error - posterior.variance
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(4000)
    naive = ((data.tokens.mean(1) - data.target) ** 2).mean(1)
    assert abs(naive.mean() - atoms.risk("naive")) < 4 * naive.std() / np.sqrt(4000)
