"""Whether a loss has settled: against the loss of trainings that are cut off."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from analysis.problems import GraphProblem, LocationProblem, Training, compare, fit, train_all
from analysis.problems.settled import settled
from analysis.report.sensitivity import settled_shares
from ssa_theory.mechanism import known

CPU = torch.device("cpu")
PROBLEM = GraphProblem(dim=4)


@pytest.mark.parametrize("cooldown", [0, 15])
def test_is_the_change_of_the_loss_over_the_last_third(cooldown):
    seeds, training = range(12), Training(60, 0.2, cooldown)
    models = [known("vanilla"), known("ssa")]
    # Two thirds of the training, the cooldown included; and steps that are of no use.
    last = 2 * training.total_steps // 3
    result = train_all(PROBLEM, models, seeds, training, CPU, record=(0, 20, last, 55))
    block, found = PROBLEM.block(seeds, training, CPU), result["settled"]
    for model in models:
        layer = PROBLEM.layer(model)
        early = replace(training, steps=last, cooldown_steps=0)
        loss = [
            block.loss_of(block.recorded(layer, fit(block, layer, of).parameters)).numpy()
            for of in (early, training)
        ]
        rows = block.target.permute(2, 0, 1).numpy()
        bayes = -(rows * np.log(rows, where=rows > 0, out=np.zeros_like(rows))).sum(2).mean(1)
        assert (loss[1] > bayes).all()  # the loss itself, not what it is above Bayes
        wanted = abs(loss[1] - loss[0]) < 0.01 * loss[0]
        np.testing.assert_array_equal(found.sel(mechanism=model.name), wanted)
    assert 0 < found.mean() < 1


def test_no_diverged_model_has_settled():
    """Even one that stood still before: its parameters mean nothing."""
    training, layer = Training(30, 1e-9), PROBLEM.layer(known("vanilla"))
    block = PROBLEM.block(range(2), training, CPU)
    fitted = fit(block, layer, training, record=(20,))
    assert settled(block, layer, fitted, training, (20,))["settled"].tolist() == [True, True]
    lost = replace(fitted, diverged=torch.tensor([True, False]))
    assert settled(block, layer, lost, training, (20,))["settled"].tolist() == [False, True]


def test_is_told_only_where_the_loss_was_recorded_in_time():
    models, training = [known("vanilla")], Training(30, 0.1)
    for record in ((), (30,), (0, 14, 21, 30)):
        result = train_all(PROBLEM, models, [0], training, CPU, record=record)
        assert "settled" not in result, record
    brier = train_all(replace(PROBLEM, score="brier"), models, [0], training, CPU)
    assert "settled" not in brier
    assert "settled" in compare(PROBLEM, ["vanilla"], seeds=1, steps=30)
    assert "settled" not in compare(LocationProblem(), ["vanilla"], seeds=1, steps=4)


def test_shares_are_told_by_mechanism_and_regime():
    dims, labels = ("mechanism", "seed"), {"mechanism": ["vanilla", "ssa"]}
    main, control = [[True, False], [True, True]], [[False, False], [True, False]]
    result = xr.Dataset({"settled": (dims, main), "control_settled": (dims, control)}, labels)
    shares = {"vanilla": 0.5, "ssa": 1.0, "vanilla, control": 0.0, "ssa, control": 0.5}
    assert settled_shares(result) == shares
    assert settled_shares(result.drop_vars("settled")) == dict(list(shares.items())[2:])
    assert settled_shares(xr.Dataset()) == {}
