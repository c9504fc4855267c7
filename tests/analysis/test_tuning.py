"""The tuned learning rate: against trainings one by one, whatever is held at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from analysis.problems import (
    DenoiseProblem,
    GraphProblem,
    RetrievalProblem,
    Training,
    fit,
    train,
    train_all,
)
from analysis.problems.grid import Grid
from analysis.problems.imbalance import ImbalanceProblem
from analysis.problems.kernel_regression import KernelRegressionProblem
from analysis.problems.train import TUNING_SEEDS, best_rate, tuned
from analysis.report.sensitivity import sensitivity
from ssa_theory.mechanism import known

CPU = torch.device("cpu")
RATES = (0.01, 0.1, 0.5)
PROBLEMS = {
    "graph": GraphProblem(dim=3),
    "retrieval": RetrievalProblem(batch_size=8, held_out=32),
}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("steps", [5, 60])
def test_is_the_rate_of_the_least_mean_log_objective(name, steps):
    problem, training = PROBLEMS[name], Training(steps, 0.1, 5)
    layer = problem.layer(known("ssa-feature" if name == "retrieval" else "ssa"))
    score = []
    for rate in RATES:
        result = train_all(problem, [layer.mechanism], list(TUNING_SEEDS), training.at(rate), CPU)
        objective = "cross_entropy" if name == "retrieval" else "cross_entropy_gap"
        value = result[objective].isel(mechanism=0).transpose("seed", ...).values
        value = value.mean(-1) if name == "retrieval" else value[:, -1]
        score.append(np.log(value).mean())
    if name == "graph":  # the recorded steps leave out the cooldown, which changes little here
        assert np.ptp(score) > 0.02
    assert best_rate(problem, layer, training, RATES, CPU) == RATES[int(np.argmin(score))]


def test_does_not_depend_on_how_much_is_held_at_a_time(monkeypatch):
    problem, training = PROBLEMS["graph"], Training(20, 0.1)
    layer = problem.layer(known("vanilla"))
    whole = best_rate(problem, layer, training, RATES, CPU)
    monkeypatch.setattr(train, "_BYTES", 5 * problem.bytes_per_seed(training))
    assert best_rate(problem, layer, training, RATES, CPU) == whole


def test_a_rate_at_which_a_seed_diverges_is_not_chosen():
    problem, training = PROBLEMS["graph"], Training(20, 0.1, optimizer="sgd")
    layer = problem.layer(known("ssa-free"))
    assert best_rate(problem, layer, training, (0.1, 1e30), CPU) == 0.1


def test_one_rate_is_not_tuned(monkeypatch):
    monkeypatch.setattr(train, "fit", None)
    problem = PROBLEMS["graph"]
    layer = problem.layer(known("vanilla"))
    assert best_rate(problem, layer, Training(5, 9.0), (0.3,), CPU) == 0.3


def test_each_mechanism_is_trained_at_its_own_rate():
    problem, training = PROBLEMS["graph"], Training(30, 9.0)
    models = [known("vanilla"), known("ssa-free")]
    together = train_all(problem, models, range(3), training, CPU, rates=RATES)
    for model, rate in zip(models, together["learning_rate"].values.tolist(), strict=True):
        assert rate in RATES
        alone = train_all(problem, [model], range(3), replace(training, learning_rate=rate), CPU)
        own = together.sel(mechanism=[model.name])
        np.testing.assert_array_equal(own["cross_entropy_gap"], alone["cross_entropy_gap"])


def test_each_problem_of_a_grid_has_the_rate_that_it_has_alone():
    """The balanced counts need no step; the others need many."""
    small = {"train_length": 24, "positions": 9, "beyond": 2}
    problems = tuple(ImbalanceProblem(p, a, **small) for p, a in ((0.0, 0.5), (1.0, 0.25)))
    grid, training = Grid("cell", ("even", "odd"), problems), Training(20, 0.1)
    models, rates = [known("vanilla"), known("ssa-position")], (0.02, 0.6)
    together = train_all(grid, models, range(2), training, CPU, rates=rates)
    chosen = together["learning_rate"]
    assert chosen.dims == ("mechanism", "cell")
    assert len(np.unique(chosen.sel(mechanism="ssa-position"))) == 2
    for name, problem in zip(grid.labels, problems, strict=True):
        alone = train_all(problem, models, range(2), training, CPU, rates=rates)
        own = together.sel(cell=name)
        np.testing.assert_array_equal(own["learning_rate"], alone["learning_rate"])
        np.testing.assert_allclose(own["margin"], alone["margin"], rtol=2e-4, atol=1e-6)
        np.testing.assert_array_equal(own["zero_loss_margin"], alone["zero_loss_margin"])


def test_a_rate_is_tuned_once_whatever_the_blocks(monkeypatch):
    problem, training = PROBLEMS["graph"], Training(7, 0.1)
    models, rates = [known("vanilla"), known("ssa")], (0.03, 0.3)
    first = tuned(problem, models, training, rates, CPU)
    monkeypatch.setattr(train, "fit", None)
    told = []
    assert tuned(problem, models, training, rates, CPU, told.append) == first
    assert told == [7, 7]


def test_no_rate_is_tuned_beyond_the_training():
    length = KernelRegressionProblem(train_lengths=(4, 9), test_lengths=(4, 8, 64))
    assert length.for_tuning.test_lengths == (4, 8)
    assert replace(length, test_lengths=(64,)).for_tuning.test_lengths == (9,)
    assert RetrievalProblem(tested_keys=(128,)).for_tuning == RetrievalProblem()


def test_rates_may_be_tuned_on_another_problem():
    small, large = GraphProblem(dim=2), GraphProblem(dim=8)
    training, model = Training(30, 0.1), known("vanilla")
    wanted = [float(best_rate(p, p.layer(model), training, RATES, CPU)) for p in (small, large)]
    assert wanted[0] != wanted[1]
    found = train_all(large, [model], [0], training, CPU, rates=RATES, tune_on=small)
    assert found["learning_rate"].item() == wanted[0]


def test_compiling_serves_tuning_and_training(monkeypatch):
    """The estimate counts the steps of both, where both are of one problem."""
    small, large = GraphProblem(dim=2), GraphProblem(dim=3)
    counted = []

    def never(loss, state, first, steps):
        counted.append((steps, state.diverged.numel()))
        return False

    monkeypatch.setattr("ssa_theory.ensemble.pays", never)
    training, tuning = Training(4, 0.1, 3, compile=None), 2 * len(TUNING_SEEDS)
    for rates, other, expected in (
        ((0.2,), None, [(7, 3)]),
        ((0.21, 0.1), None, [(14, tuning), (14, 3)]),
        ((0.22, 0.1), small, [(7, tuning), (7, 3)]),
    ):
        counted.clear()
        own = training.at(max(rates))
        train_all(large, [known("vanilla")], range(3), own, CPU, rates=rates, tune_on=other)
        assert counted == expected


def test_the_data_of_a_seed_that_stands_twice_are_those_that_stand_once():
    tested = (("denoise", DenoiseProblem(batch_size=4, held_out=16)), *PROBLEMS.items())
    for name, problem in tested:
        training, mechanism = Training(3, 0.1), known("vanilla")
        blocks = [problem.block(seeds, training, CPU) for seeds in ((7, 7, 4), (7, 4))]
        twice, once = (
            block.evaluate(layer, fit(block, layer, training))[problem.objective]
            for block in blocks
            for layer in [problem.layer(mechanism)]
        )
        np.testing.assert_allclose(twice[..., [1, 2]], once, rtol=1e-5, err_msg=name)
        np.testing.assert_array_equal(twice[..., 0], twice[..., 1])


def test_no_run_reports_a_tuning_seed():
    """They are the last that a config takes."""
    assert TUNING_SEEDS.stop == 2**63
    assert len(TUNING_SEEDS) == 8


def test_what_tuning_found_is_stored_and_told_by_step_size():
    """Against trainings one by one: the report's ratios are over vanilla's at its best."""
    problem, training = PROBLEMS["graph"], Training(40, 0.1)
    models = [known("vanilla"), known("ssa-free")]
    result = train_all(problem, models, range(2), training, CPU, rates=RATES)
    errors = []
    for model in models:
        for rate in RATES:
            one = train_all(problem, [model], list(TUNING_SEEDS), training.at(rate), CPU)
            gap = one["cross_entropy_gap"].isel(step=-1).values
            errors.append(np.exp(np.log(gap).mean()))
    wanted = np.reshape(errors, (2, 3))
    # Rates of members move Adam's epsilon, hence not to rounding.
    np.testing.assert_allclose(result["tuning_error"], wanted, rtol=5e-3)
    wanted = result["tuning_error"].values
    found = sensitivity(result)
    assert found.columns == ("0.01", "0.1", "0.5", "best")
    over = np.c_[wanted, wanted.min(1)] / wanted[0].min()
    np.testing.assert_allclose(list(found.rows.values()), over, rtol=1e-5)
    assert list(found.rows) == ["vanilla", "ssa-free"]
    at = result["learning_rate"].values
    np.testing.assert_array_equal(at, np.array(RATES)[wanted.argmin(1)])
    twice = xr.concat([result, result.assign(tuning_error=4 * result["tuning_error"])], "setting")
    twice["tuning_error"][1, 1] *= (
        4  # the second setting's second mechanism: a factor 2 in the mean
    )
    np.testing.assert_allclose(sensitivity(twice).rows["ssa-free"], 2 * over[1], rtol=1e-5)
    assert sensitivity(result.drop_vars("tuning_error")) is None
    assert sensitivity(result.sel(mechanism=["ssa-free"])) is None
