"""Kernel regression: the GP posterior of every prefix against an independent solver, exact risks
against Monte Carlo, laws.
"""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg, stats

from tasks.kernel_regression import (
    Contexts,
    KernelRegressionTask,
    Regressions,
    best_inverse_temperature,
)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def kernel(x: np.ndarray, y: np.ndarray, length_scale: float) -> np.ndarray:
    """From distances, unlike the task, which uses inner products."""
    return np.exp(-((x[:, None] - y[None]) ** 2).sum(-1) / (2 * length_scale**2))


@pytest.mark.parametrize(
    ("dim", "length_scale", "noise"), [(4, 1.0, 0.3), (2, 0.4, 0.05), (6, 2.5, 1.5), (1, 1.0, 0.7)]
)
def test_posterior_of_every_prefix_against_an_independent_solver(
    dim: int, length_scale: float, noise: float
) -> None:
    task = KernelRegressionTask(dim, length_scale, noise)
    batch = task.sample(3, 12, generator(1), queries=2)
    posterior = task.bayes_estimate(batch)
    assert posterior.mean.shape == (3, 2, 12)
    for s in range(3):
        for n in range(1, 13):
            keys = batch.keys[s, :n]
            covariance = kernel(keys, keys, length_scale) + noise**2 * np.eye(n)
            cross = kernel(keys, batch.query[s], length_scale)
            mean = cross.T @ linalg.solve(covariance, batch.values[s, :n])
            variance = 1 - (cross * linalg.solve(covariance, cross)).sum(0)
            np.testing.assert_allclose(posterior.mean[s, :, n - 1], mean, rtol=1e-8, atol=1e-9)
            np.testing.assert_allclose(
                posterior.variance[s, :, n - 1], variance, rtol=1e-8, atol=1e-9
            )
    np.testing.assert_array_equal(task.bayes_variance(batch), posterior.variance)
    np.testing.assert_allclose(
        task.bayes_variance(batch, task.covariance(batch.keys)), posterior.variance
    )


def test_posterior_variance_falls_with_every_pair_and_truncation_agrees() -> None:
    task = KernelRegressionTask()
    batch = task.sample(4, 40, generator(2))
    posterior = task.bayes_estimate(batch)
    assert (np.diff(posterior.variance, axis=-1) <= 0).all()
    assert posterior.variance[..., -1].max() < 0.6
    short = task.bayes_estimate(batch.prefix(17))
    np.testing.assert_allclose(short.mean, posterior.mean[..., :17], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(short.variance, posterior.variance[..., :17], rtol=1e-9)


def test_squared_error_of_the_posterior_mean_is_its_variance() -> None:
    """The Bayes risk, twice: as posterior variance and by Monte Carlo over functions; the residual
    is standard normal.
    """
    task = KernelRegressionTask(dim=3, noise=0.5)
    batch = task.sample(4000, 10, generator(3))
    posterior = task.bayes_estimate(batch)
    for n in (1, 4, 10):
        residual = (batch.target - posterior.mean[..., n - 1])[:, 0]
        variance = posterior.variance[:, 0, n - 1]
        error = residual**2 - variance
        assert abs(error.mean()) < 4 * error.std() / math.sqrt(len(error))
        assert stats.kstest(residual / np.sqrt(variance), "norm").pvalue > 1e-3


def test_sampler_law() -> None:
    """With keys and queries set aside, (y, f(q)) whitened by the joint covariance is standard
    normal.
    """
    task = KernelRegressionTask(dim=2, length_scale=0.8, noise=0.4)
    batch = task.sample(3000, 5, generator(4), queries=3)
    np.testing.assert_allclose(np.linalg.norm(batch.keys, axis=-1), 1, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(batch.query, axis=-1), 1, rtol=1e-12)
    for points in (batch.keys[:, 0], batch.query[:, 2]):
        angle = np.arctan2(points[:, 1], points[:, 0])
        assert stats.kstest(angle, "uniform", (-np.pi, 2 * np.pi)).pvalue > 1e-3
    whitened = []
    for keys, query, values, target in zip(
        batch.keys, batch.query, batch.values, batch.target, strict=True
    ):
        points = np.concatenate([keys, query])
        # Queries on a plane come close to each other; a hair of noise keeps their covariance
        # invertible.
        joint = kernel(points, points, 0.8) + np.diag([0.4**2] * 5 + [1e-8] * 3)
        whitened.append(
            linalg.solve_triangular(
                linalg.cholesky(joint, lower=True), np.append(values, target), lower=True
            )
        )
    whitened = np.array(whitened)
    assert stats.kstest(whitened[:, :6].ravel(), "norm").pvalue > 1e-3
    correlation = np.corrcoef(whitened[:, :6].T) - np.eye(6)
    assert np.abs(correlation).max() < 4.5 / math.sqrt(3000)


def test_stream_is_the_same_however_it_is_chunked() -> None:
    task = KernelRegressionTask(dim=3)
    whole, stream = task.sample(12, 6, generator(5), queries=2), generator(5)
    parts = [task.sample(n, 6, stream, queries=2) for n in (1, 4, 7)]
    other = task.sample(12, 6, generator(6), queries=2)
    for name in ("keys", "query", "values", "target"):
        joined = np.concatenate([getattr(p, name) for p in parts])
        np.testing.assert_allclose(getattr(whole, name), joined, rtol=1e-12, atol=1e-13)
        assert (getattr(whole, name) != getattr(other, name)).all()
    contexts, stream = task.sample_contexts(9, 6, generator(5)), generator(5)
    parts = [task.sample_contexts(n, 6, stream) for n in (2, 7)]
    np.testing.assert_array_equal(contexts.keys, np.concatenate([p.keys for p in parts]))
    np.testing.assert_array_equal(contexts.query, np.concatenate([p.query for p in parts]))


def test_nadaraya_watson_against_a_loop() -> None:
    task = KernelRegressionTask(dim=3)
    batch = task.sample(4, 7, generator(7), queries=2)
    for tau in (0.0, 2.5, 900.0, -3.0):
        found = task.nadaraya_watson(batch, tau)
        for s in range(4):
            for q in range(2):
                logits = [tau * float(k @ batch.query[s, q]) for k in batch.keys[s]]
                scores = [math.exp(z - max(logits)) for z in logits]
                wanted = sum(w * y for w, y in zip(scores, batch.values[s], strict=True)) / sum(
                    scores
                )
                assert found[s, q] == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    np.testing.assert_allclose(
        task.nadaraya_watson(batch, 0.0), np.repeat(batch.values.mean(1)[:, None], 2, 1)
    )
    nearest = (batch.query @ batch.keys.transpose(0, 2, 1)).argmax(-1)
    np.testing.assert_allclose(
        task.nadaraya_watson(batch, 1e7), np.take_along_axis(batch.values, nearest, 1), rtol=1e-6
    )


def test_exact_risk_against_drawn_functions() -> None:
    """w^T (K + sigma^2 I) w - 2 w . k + 1 against the mean squared error over functions, contexts
    fixed by their stream.
    """
    task = KernelRegressionTask(dim=2, noise=0.6)
    batch = task.sample(6000, 8, generator(8))
    tau = np.array([0.0, 3.0, 12.0])
    risk = task.linear_risk(batch, task.attention(batch, tau))[:, :, 0]
    np.testing.assert_array_equal(
        risk,
        task.linear_risk(batch, task.attention(batch, tau), task.covariance(batch.keys))[:, :, 0],
    )
    for row, value in enumerate(tau.tolist()):
        error = (task.nadaraya_watson(batch, value) - batch.target)[:, 0] ** 2 - risk[:, row]
        assert abs(error.mean()) < 4 * error.std() / math.sqrt(len(error))
    assert np.ptp(risk.mean(0)) > 0.05


def test_best_inverse_temperature_against_a_dense_search_and_growing_with_length() -> None:
    task = KernelRegressionTask()
    contexts = task.sample_contexts(40, 128, generator(10), queries=4)
    best = []
    for n in (8, 32, 128):
        part = contexts.prefix(n)

        def risk(tau: np.ndarray, part: Contexts = part) -> np.ndarray:
            return task.linear_risk(part, task.attention(part, tau)).mean((0, 2))

        grid = task.inverse_temperature_grid
        best.append(best_inverse_temperature(grid, risk(grid)))
        dense = np.geomspace(0.3, 100, 150)
        assert risk(np.array([best[-1]]))[0] <= risk(dense).min() * (1 + 1e-3)
        assert risk(np.array([best[-1]]))[0] <= risk(grid).min() * (1 + 1e-6)
    assert best[0] < best[1] < best[2]
    assert best_inverse_temperature(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0])) == 1.0
    assert best_inverse_temperature(np.array([1.0, 2.0, 4.0]), np.array([3.0, 2.0, 1.0])) == 4.0


@given(st.floats(-2, 4), st.floats(0.05, 3), st.floats(-3, 3))
def test_best_inverse_temperature_is_the_vertex_of_a_parabola_in_logarithms(
    vertex: float, curvature: float, level: float
) -> None:
    grid = np.geomspace(math.exp(-3), math.exp(5), 20)
    risk = np.exp(level + curvature * (np.log(grid) - vertex) ** 2)
    assert math.log(best_inverse_temperature(grid, risk)) == pytest.approx(vertex, abs=1e-7)


@pytest.mark.parametrize("length_scale", [0.5, 2.0])
def test_the_grid_of_inverse_temperatures_follows_the_length_scale(length_scale: float) -> None:
    grid = (
        KernelRegressionTask(length_scale=length_scale).inverse_temperature_grid * length_scale**2
    )
    np.testing.assert_allclose(np.log10(grid), np.linspace(-1, 3, 25), atol=1e-12)


def test_memory_at_length_2048_stays_far_below_a_gigabyte() -> None:
    task = KernelRegressionTask()
    contexts = task.sample_contexts(6, 2048, generator(11))
    tracemalloc.start()
    try:
        variance = task.bayes_variance(contexts)
        task.linear_risk(contexts, task.attention(contexts, np.array([30.0])))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (
        2**25 < peak < 2**28
    )  # one covariance (32 MiB) was seen, but never all six and their factors
    assert variance[..., -1].max() < 0.03


def test_bad_input() -> None:
    with pytest.raises(
        ValueError, match=r"dim of a kernel regression must be at least 1, got 0: choose dim >= 1"
    ):
        KernelRegressionTask(dim=0)
    for name in ("length_scale", "noise"):
        for value in (0.0, -1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match=rf"{name} must be positive and finite, got"):
                KernelRegressionTask(**{name: value})
    task = KernelRegressionTask()
    for sizes, name in (
        ((0, 4, 1), "number of samples"),
        ((1, 0, 1), "length"),
        ((1, 4, 0), "number of queries"),
    ):
        with pytest.raises(
            ValueError, match=rf"the {name} must be at least 1, got 0: ask for one or more"
        ):
            task.sample(sizes[0], sizes[1], generator(), sizes[2])
    with pytest.raises(
        ValueError, match=r"covariance may take 512 MiB, got length 9000: use at most 8192"
    ):
        task.sample_contexts(1, 9000, generator())
    batch = task.sample(1, 4, generator())
    for length in (0, 5):
        with pytest.raises(ValueError, match=rf"a prefix must have 1 to 4 keys, got {length}"):
            batch.prefix(length)
    for tau in (math.nan, math.inf):
        with pytest.raises(ValueError, match=r"inverse temperatures must be finite, got"):
            task.nadaraya_watson(batch, tau)


def test_a_covariance_that_is_not_positive_definite_is_refused() -> None:
    task = KernelRegressionTask(dim=2, length_scale=20.0, noise=1e-9)
    with pytest.raises(
        ValueError,
        match=r"not positive definite to rounding with noise 1e-09 and length_scale 20: raise",
    ):
        task.sample(1, 60, generator())
    contexts = task.sample_contexts(1, 60, generator())
    with pytest.raises(ValueError, match=r"not positive definite to rounding"):
        task.bayes_estimate(
            Regressions(contexts.keys, contexts.query, np.zeros((1, 60)), np.zeros((1, 1)))
        )
