"""Noisy retrieval: the posterior against densities, quadrature and Monte Carlo; the sampler's law
and streams.
"""

import math
from dataclasses import astuple

import numpy as np
import pytest
from scipy import integrate, stats

from tasks import retrieval
from tasks.retrieval import NoisyRetrievalTask, Retrievals, posterior_entropy


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(5))
def test_posterior_is_the_normalised_product_of_prior_and_densities(seed: int) -> None:
    task = NoisyRetrievalTask(dim=3, keys=5, noise_levels=(0.3, 0.9))
    batch = task.sample(20, generator(seed))
    density = np.array(
        [
            [stats.multivariate_normal(k, s**2 * np.eye(3)).pdf(q) for k in keys]
            for keys, q, s in zip(batch.keys, batch.query, batch.noise, strict=True)
        ]
    )
    assert 0.05 < (density / density.sum(1, keepdims=True)).max(1).min() < 0.9
    np.testing.assert_allclose(
        task.posterior(batch), density / density.sum(1, keepdims=True), rtol=1e-9, atol=1e-12
    )


def test_log_posterior_is_finite_where_the_posterior_underflows() -> None:
    task = NoisyRetrievalTask(dim=2, keys=2, noise_levels=(0.01,))
    keys = np.array([[[1.0, 0.0], [-1.0, 0.0]]])
    batch = Retrievals(keys, np.array([[1.0, 0.0]]), np.array([0.01]), np.array([0]))
    np.testing.assert_allclose(task.log_posterior(batch), [[0.0, -20000.0]], atol=1e-9)
    assert posterior_entropy(task.log_posterior(batch)).item() == 0.0


def test_sampler_law() -> None:
    task = NoisyRetrievalTask(dim=3, keys=4, noise_levels=(0.2, 0.7, 1.5))
    batch = task.sample(30_000, generator())
    np.testing.assert_allclose(np.linalg.norm(batch.keys, axis=-1), 1, rtol=1e-12)
    assert stats.chisquare(np.bincount(batch.target, minlength=4)).pvalue > 1e-3
    levels, counts = np.unique(batch.noise, return_counts=True)
    assert levels.tolist() == [0.2, 0.7, 1.5]
    assert stats.chisquare(counts).pvalue > 1e-3
    residual = batch.query - batch.keys[np.arange(len(batch.target)), batch.target]
    for s in levels:
        assert stats.kstest(residual[batch.noise == s].ravel() / s, "norm").pvalue > 1e-3
    # A uniform direction on the sphere of R^3 has uniform coordinates (Archimedes); keys are
    # independent.
    assert stats.kstest(batch.keys[:, 1, 2], "uniform", (-1, 2)).pvalue > 1e-3
    cosine = (batch.keys[:, 0] * batch.keys[:, 1]).sum(-1)
    assert stats.kstest(cosine, "uniform", (-1, 2)).pvalue > 1e-3


def test_target_level_keys_and_noise_are_independent() -> None:
    batch = NoisyRetrievalTask(dim=3, keys=4, noise_levels=(0.2, 0.7, 1.5)).sample(
        20_000, generator(6)
    )
    rows = np.arange(len(batch.target))
    noise = (batch.query - batch.keys[rows, batch.target]) / batch.noise[:, None]
    drawn = np.column_stack([batch.target, batch.noise, batch.keys.reshape(len(rows), -1), noise])
    correlation = np.corrcoef(drawn, rowvar=False)
    assert correlation.shape == (17, 17)
    assert np.abs(correlation - np.eye(17)).max() < 5 / math.sqrt(len(rows))


class Extreme:
    """A generator of normals so large that their distribution function rounds to one."""

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, 40.0)


@pytest.mark.usefixtures("unchecked")
def test_the_largest_normal_names_the_last_target_and_level() -> None:
    batch = NoisyRetrievalTask(dim=2, keys=3, noise_levels=(0.2, 0.7)).sample(1, Extreme())
    assert (batch.target.tolist(), batch.noise.tolist()) == ([2], [0.7])


def test_stream_is_the_same_however_it_is_chunked() -> None:
    task = NoisyRetrievalTask(dim=3, keys=4)
    whole, stream = task.sample(50, generator(3)), generator(3)
    parts = [task.sample(n, stream) for n in (1, 19, 30)]
    other = task.sample(50, generator(4))
    for name in ("keys", "query", "noise", "target"):
        np.testing.assert_array_equal(
            getattr(whole, name), np.concatenate([getattr(p, name) for p in parts])
        )
        assert (getattr(whole, name) != getattr(other, name)).any()


def test_bayes_risk_of_two_keys_on_a_line_against_quadrature() -> None:
    """d = 1: keys are +-1, equal half of the time (entropy log 2); else log-odds 2 q / s^2 with q ~
    N(1, s^2).
    """
    s = 0.9
    risk = NoisyRetrievalTask(dim=1, keys=2, noise_levels=(s,)).bayes_risk(s, 40_000, generator())
    apart, _ = integrate.quad(
        lambda q: np.logaddexp(0, -2 * q / s**2) * stats.norm.pdf(q, 1, s), 1 - 12 * s, 1 + 12 * s
    )
    assert risk.cross_entropy == pytest.approx(
        (math.log(2) + apart) / 2, abs=4 * risk.cross_entropy_error
    )
    assert risk.accuracy == pytest.approx(
        (0.5 + stats.norm.cdf(1 / s)) / 2, abs=4 * risk.accuracy_error
    )
    assert 0 < risk.cross_entropy_error < 0.003


def test_bayes_accuracy_of_two_keys_on_the_sphere_against_quadrature() -> None:
    """d = 3: the cosine c is uniform, and Bayes is right with probability Phi(||k1 - k2|| / 2s) =
    Phi(sqrt((1 - c) / 2) / s).
    """
    s = 0.5
    risk = NoisyRetrievalTask(dim=3, keys=2, noise_levels=(s,)).bayes_risk(s, 40_000, generator(1))
    exact, _ = integrate.quad(lambda c: stats.norm.cdf(math.sqrt((1 - c) / 2) / s) / 2, -1, 1)
    assert risk.accuracy == pytest.approx(exact, abs=4 * risk.accuracy_error)


def test_bayes_risk_agrees_with_sampled_targets() -> None:
    task = NoisyRetrievalTask(noise_levels=(0.4,))
    risk = task.bayes_risk(0.4, 20_000, generator(2))
    batch = task.sample(20_000, generator(5))
    log_p = task.log_posterior(batch)
    loss = -log_p[np.arange(len(log_p)), batch.target]
    hit = log_p.argmax(1) == batch.target
    for sampled, value, error in (
        (loss, risk.cross_entropy, risk.cross_entropy_error),
        (hit, risk.accuracy, risk.accuracy_error),
    ):
        own = sampled.std() / math.sqrt(len(sampled))
        assert error < own  # integrating the target out reduces the variance
        assert sampled.mean() == pytest.approx(value, abs=4 * math.hypot(own, error))


def test_blocks_do_not_change_the_risk(monkeypatch: pytest.MonkeyPatch) -> None:
    task = NoisyRetrievalTask(dim=3, keys=4)
    whole = task.bayes_risk(0.4, 20, generator(9))
    monkeypatch.setattr(
        retrieval, "_BLOCK_BYTES", 8 * 7 * (4 + 1) * 3
    )  # blocks of 7, the last of 6
    parts, after, same = task.bayes_risk(0.4, 20, used := generator(9)), used.random(), generator(9)
    assert astuple(parts) == pytest.approx(astuple(whole), rel=1e-12)
    task.sample(20, same)
    assert after == same.random()  # no more samples than asked for


def test_limits_of_the_noise() -> None:
    task = NoisyRetrievalTask()
    clear, lost = (task.bayes_risk(s, 400, generator()) for s in (0.02, 200.0))
    assert clear.cross_entropy < 1e-3
    assert clear.accuracy > 0.999
    assert lost.cross_entropy == pytest.approx(math.log(32), abs=1e-3)
    only = NoisyRetrievalTask(keys=1).bayes_risk(0.4, 10, generator())
    assert (only.cross_entropy, only.accuracy) == (0.0, 1.0)


def test_no_other_temperature_beats_the_posterior_and_the_best_common_one_is_between() -> None:
    task = NoisyRetrievalTask(dim=4, keys=8)
    batch = task.sample(4000, generator(7))
    best = task.best_common_inverse_temperature(batch)
    assert 1 / 0.8**2 < best < 1 / 0.1**2
    p, dots = task.posterior(batch), np.einsum("skd,sd->sk", batch.keys, batch.query)

    def cross_entropy(tau: np.ndarray) -> float:
        logits = tau * dots
        return float(
            -(p * (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))).sum(1).mean()
        )

    bayes = posterior_entropy(task.log_posterior(batch)).mean()
    assert cross_entropy(1 / batch.noise[:, None] ** 2) == pytest.approx(bayes)
    at_best = cross_entropy(np.full((1, 1), best))
    assert at_best > bayes + 0.1
    dense = [cross_entropy(np.full((1, 1), c)) for c in np.geomspace(0.5, 200, 400)]
    assert at_best <= min(dense) + 1e-9
    one = NoisyRetrievalTask(noise_levels=(0.5,))
    assert one.best_common_inverse_temperature(one.sample(3, generator())) == pytest.approx(4.0)


def test_bad_input() -> None:
    for name in ("dim", "keys"):
        with pytest.raises(
            ValueError,
            match=rf"{name} of a retrieval task must be at least 1, got 0: choose {name} >= 1",
        ):
            NoisyRetrievalTask(**{name: 0})
    for level in (0.0, -0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"a noise level must be positive and finite, got"):
            NoisyRetrievalTask(noise_levels=(0.1, level))
    for levels in ((), (0.1, 0.1)):
        with pytest.raises(ValueError, match=r"noise_levels must be different and at least one"):
            NoisyRetrievalTask(noise_levels=levels)
    with pytest.raises(ValueError, match=r"number of retrieval problems must be at least 1, got 0"):
        NoisyRetrievalTask().sample(0, generator())
    with pytest.raises(ValueError, match=r"a standard error needs at least 2 samples, got 1"):
        NoisyRetrievalTask().bayes_risk(0.1, 1, generator())
    with pytest.raises(ValueError, match=r"a noise level must be positive and finite, got -1"):
        NoisyRetrievalTask().bayes_risk(-1.0, 10, generator())
