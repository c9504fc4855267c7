"""Vanilla attention's exact optimum, against a general minimiser and against training."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

from analysis.problems import GraphProblem, Training, train_all
from ssa_theory.mechanism import known
from ssa_theory.theory.optimum import constant_row, vanilla_optimum


def _case(tokens, dim, members=6, zeros=0.0, seed=0):
    rng = np.random.default_rng(seed)
    e = rng.normal(size=(members, tokens, dim))
    e /= np.linalg.norm(e, axis=-1, keepdims=True)
    p = rng.dirichlet(np.ones(tokens), (members, tokens))
    p = np.where(rng.random(p.shape) < zeros, 0, p)
    p[..., 0] += 1e-3  # no empty row
    weight = rng.dirichlet(np.ones(tokens), members)
    return e, p / p.sum(-1, keepdims=True), weight


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_equals_a_general_minimiser(dim):
    e, p, weight = _case(6, dim)
    found = vanilla_optimum(e, p, weight)
    for m in range(len(e)):

        def gap(flat, m=m):
            rows = log_softmax(e[m] @ flat.reshape(dim, dim) @ e[m].T, axis=-1)
            return float((weight[m] * (p[m] * (np.log(p[m]) - rows)).sum(-1)).sum())

        least = minimize(gap, np.zeros(dim * dim), method="BFGS", options={"gtol": 1e-8})
        assert found.gap[m] == pytest.approx(least.fun, abs=1e-8)
        rows = np.exp(log_softmax(e[m] @ least.x.reshape(dim, dim) @ e[m].T, axis=-1))
        assert found.l1[m] == pytest.approx(np.abs(rows - p[m]).sum(-1).mean(), abs=1e-4)
    assert found.promised.max() < 1e-10


def test_at_full_rank_any_map_is_reached_and_zeros_at_infinity():
    """d = K: W = E^-1 log P* E^-T; entries that are zero are approached as the weights grow."""
    e, p, weight = _case(5, 5)
    assert vanilla_optimum(e, p, weight).gap.max() < 1e-8
    e, p, weight = _case(5, 5, zeros=0.5)
    found = vanilla_optimum(e, p, weight)
    assert found.gap.min() > -1e-12
    assert found.gap.max() < 1e-6


def test_members_do_not_depend_on_each_other():
    e, p, weight = _case(6, 3, members=5, zeros=0.3)
    together = vanilla_optimum(e, p, weight)
    for m in range(5):
        alone = vanilla_optimum(e[m : m + 1], p[m : m + 1], weight[m : m + 1])
        assert alone.gap[0] == pytest.approx(together.gap[m], abs=1e-9)


def test_no_training_is_below_it_and_long_training_comes_near():
    """Vanilla attention on the graded graph at d = 4, where the optimum is finite."""
    training = Training(1000, 0.2, 200, dtype="float64")
    problem, seeds = GraphProblem(dim=4), range(4)
    result = train_all(problem, [known("vanilla")], seeds, training, torch.device("cpu"))
    trained = result["cross_entropy_gap"].isel(step=-1, mechanism=0).values
    optimum = result["vanilla_optimum_gap"].values
    assert (trained - optimum > -1e-9).all()
    assert (trained - optimum < 2e-3).all()
    assert (result["constant_gap"].values > optimum).all()


def test_the_best_constant_row_beats_every_other():
    _, p, weight = _case(6, 3)
    gap, l1 = constant_row(p, weight)
    rng = np.random.default_rng(1)
    for _ in range(200):
        q = rng.dirichlet(np.ones(6))
        other = (weight * (p * (np.log(p) - np.log(q))).sum(-1)).sum(-1)
        assert (other >= gap - 1e-12).all()
    row = (weight[..., None] * p).sum(1)
    assert l1 == pytest.approx(np.abs(row[:, None] - p).sum(-1).mean(-1))


def test_a_dimension_that_its_hessian_does_not_fit_is_refused():
    e, p, weight = _case(3, 65, members=1)
    with pytest.raises(ValueError, match="up to d = 64, got d = 65"):
        vanilla_optimum(e, p, weight)
