"""The size of the initial query-key weights: what it stands for, and its tuning."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from pydantic import ValidationError

from analysis.experiments.base import silent
from analysis.experiments.graph import GRAPH, GraphConfig
from analysis.problems import GraphProblem, Training, fit, train_all
from analysis.problems.tuned import TUNING_SEEDS
from analysis.report.sensitivity import strips
from ssa_theory.ensemble import train
from ssa_theory.mechanism import known

CPU = torch.device("cpu")
PROBLEM = GraphProblem(dim=3)
RATES, STARTS = (0.05, 0.4), (0.1, 1.0, 12.0)


@pytest.mark.parametrize("mechanism", ["vanilla", "key-bias"])
def test_a_constant_scale_of_the_logits_is_larger_initial_weights(mechanism):
    """Adam's step does not depend on the scale of the gradient: with logits c E W E^T, W from W_0 at
    the rate r is what c W is from c W_0 at c r. Another rate of the weights is all that is left.
    """
    c, training = 3.0, Training(60, 0.15, dtype="float64")
    layer = PROBLEM.layer(known(mechanism))
    block = PROBLEM.block(range(4), training, CPU)
    ours = fit(block, layer, training, starts=[c] * 4).parameters

    first = fit(block, layer, replace(training, steps=0)).parameters
    rest = {name: value for name, value in first.items() if name != "weight"}

    def scaled(parameters, batch):
        return block.loss(layer, {**parameters, "weight": c * parameters["weight"]}, batch)

    def shared(parameters, batch):  # the other parameters' rate is not that of the weights
        return scaled({**parameters, **{k: c * parameters[k] for k in rest}}, batch)

    start = {"weight": first["weight"]} | {k: v / c for k, v in rest.items()}
    theirs = train(shared, start, steps=60, learning_rate=0.05).parameters
    for name, value in ours.items():
        torch.testing.assert_close(value, c * theirs[name], rtol=1e-5, atol=1e-6)
    plain = fit(block, layer, training).parameters["weight"]
    assert (plain - ours["weight"]).abs().mean() > 1e-3  # a thousand times the tolerance


def test_the_start_is_tuned_together_with_the_rate():
    """Against trainings one by one; the models that are reported start from the chosen one."""
    training, models = Training(25, 0.1), [known("vanilla"), known("ssa-free")]
    seeds = range(2)
    result = train_all(PROBLEM, models, seeds, training, CPU, rates=RATES, starts=STARTS)
    error = result["tuning_error"]
    assert error.dims == ("mechanism", "tried_rate", "tried_start", "tried_step", "tuning_seed")
    assert result["tried_start"].values.tolist() == list(STARTS)
    for model in models:
        layer = PROBLEM.layer(model)
        wanted = np.empty((len(RATES), len(STARTS), len(TUNING_SEEDS)))
        for place in np.ndindex(wanted.shape[:2]):
            own = training.at(RATES[place[0]])
            block = PROBLEM.block(TUNING_SEEDS, own, CPU)
            fitted = fit(block, layer, own, starts=[STARTS[place[1]]] * len(TUNING_SEEDS))
            wanted[place] = block.evaluate(layer, fitted)["final_gap"].numpy()
        at = result.sel(mechanism=model.name)
        np.testing.assert_allclose(at["tuning_error"].isel(tried_step=-1), wanted, rtol=5e-3)
        score = np.log(wanted).mean(-1)
        rate, start = np.unravel_index(score.argmin(), score.shape)
        assert (at["learning_rate"], at["start"]) == (RATES[rate], STARTS[start])
        block, own = PROBLEM.block(seeds, training, CPU), training.at(RATES[rate])
        alone = block.evaluate(layer, fit(block, layer, own, starts=[STARTS[start]] * 2))
        np.testing.assert_allclose(at["l1_error"], alone["l1_error"], rtol=1e-6)
    assert len(np.unique(result["start"])) == 2


def test_each_member_of_a_layer_has_its_own_start():
    """Where a layer has no query-key weights a start changes nothing."""
    training = Training(0, 0.1)
    layer = PROBLEM.layer(known("ssa"))
    block = PROBLEM.block([5, 5], training, CPU)
    first = fit(block, layer, training, starts=[1.0, 2.5]).parameters
    weight = first["weight"]
    torch.testing.assert_close(weight[..., 1], (2.5 * weight[..., 0].float()).double())
    others = [value for name, value in first.items() if name != "weight"]
    assert others
    assert all(torch.equal(value[..., 0], value[..., 1]) for value in others)


def test_one_start_is_not_tuned_and_not_stored():
    models, training = [known("vanilla")], Training(0, 0.1)
    result, plain = (train_all(PROBLEM, models, [0], training, CPU, starts=s) for s in ((2.0,), ()))
    assert not {"start", "tried_start", "tuning_error"} & set(result.variables)
    np.testing.assert_allclose(result["weight_norm"], 2 * plain["weight_norm"], rtol=1e-6)


def test_a_strip_compares_the_best_starts():
    dims = ("mechanism", "tried_rate", "tried_start", "tried_step", "tuning_seed")
    error = np.array([[[[4.0], [2.0]]], [[[1.0], [3.0]]]])[..., None] * np.ones(6)
    labels = {"mechanism": ["vanilla", "ssa"], "tried_rate": [0.1], "tried_step": [1.0]}
    (strip,) = strips(xr.Dataset({"tuning_error": (dims, error)}, labels))
    assert [one.ratio for one in strip.rows["100 %"]] == pytest.approx([0.5, 0.5])


def test_the_graph_experiment_stores_the_start_of_each_regime():
    few = {"seeds": 2, "steps": 6, "control_steps": 6, "mechanisms": ("vanilla", "ssa")}
    config = GraphConfig(**few, learning_rates=(0.1,), starts=(0.3, 1.0))
    heard = {}

    def progress(description, total):
        heard.update(total=total, done=0)
        return lambda finished: heard.update(done=heard["done"] + finished)

    found = GRAPH.train(config, progress)
    assert heard["done"] == heard["total"]
    for regime in ("", "control_"):
        assert found[f"{regime}start"].isin((0.3, 1.0)).all()
        assert found[f"{regime}tuning_error"].sizes["tried_start"] == 2
    assert "start" not in GRAPH.train(GraphConfig(**few, learning_rates=(0.1,)), silent)
    with pytest.raises(ValidationError, match="starts must ascend"):
        GraphConfig(starts=(3.0, 1.0))
