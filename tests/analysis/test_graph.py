"""The graph experiment end to end: what is stored, what it means, what it may not depend on."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from analysis.claims.statistics import mean
from analysis.experiments import APART, EXPERIMENTS, PLACES
from analysis.experiments.base import silent
from analysis.experiments.graph import GRAPH, GraphConfig
from analysis.problems import GraphProblem
from analysis.problems.measures import SMALLEST_TAU
from analysis.store.config import SeededConfig
from ssa_theory.seeds import Stream, member_generator
from tasks.small_graphs import connected_graphs, neighbour_law
from tests.analysis.evidence import checks, found, missing, said

SMALL = {"seeds": 3, "steps": 20, "control_steps": 0, "learning_rates": (0.05,)}


def test_variables_and_dimensions():
    result = GRAPH.run(GraphConfig(seeds=3, steps=20, control_steps=30), silent)
    dims = {
        "transition_matrix": ("seed", "node", "next"),
        "learned_transition_matrix": ("mechanism", "seed", "node", "next"),
        "cross_entropy_gap": ("mechanism", "seed", "step"),
        "l1_error": ("mechanism", "seed"),
        "weight_norm": ("mechanism", "seed"),
        "inverse_temperature": ("mechanism", "seed", "node"),
        "out_degree": ("seed", "node"),
        "control_l1_error": ("mechanism", "seed"),
        "control_cross_entropy_gap": ("mechanism", "seed", "control_step"),
    }
    assert {name: result[name].dims for name in dims} == dims
    assert result.sizes["step"] == 21
    assert (result["step"].values[[0, -1]] == [0, 20]).all()
    assert all("description" in result[name].attrs for name in dims)
    learned = result["learned_transition_matrix"]
    np.testing.assert_allclose(learned.sum("next"), 1)
    # The stored summaries follow from the stored matrices.
    l1 = np.abs(learned - result["transition_matrix"]).sum("next").mean("node")
    np.testing.assert_allclose(result["l1_error"], l1.transpose("mechanism", "seed"))
    truth = result["transition_matrix"]
    kl = (truth * (np.log(truth.where(truth > 0, 1)) - np.log(learned))).sum("next").mean("node")
    np.testing.assert_allclose(
        result["cross_entropy_gap"].isel(step=-1), kl.transpose("mechanism", "seed"), atol=1e-10
    )
    assert (result["cross_entropy_gap"] > 0).all()
    np.testing.assert_array_equal(result["inverse_temperature"].sel(mechanism="vanilla"), 1)


@pytest.mark.parametrize(
    "context", [{}, {"context": "prompt", "loss": "sampled"}, {"loss": "sampled"}]
)
def test_a_seed_names_its_model_whatever_is_trained_beside_it(context):
    together = GRAPH.run(GraphConfig(**SMALL, **context, family="erdos-renyi"), silent)
    alone = GRAPH.run(
        GraphConfig(
            **SMALL | {"seeds": 1},
            **context,
            first_seed=2,
            mechanisms=("ssa",),
            family="erdos-renyi",
        ),
        silent,
    )
    for name in (
        "transition_matrix",
        "learned_transition_matrix",
        "cross_entropy_gap",
        "inverse_temperature",
    ):
        one = together[name].sel(seed=2)
        one = one.sel(mechanism="ssa") if "mechanism" in one.dims else one
        np.testing.assert_allclose(one, alone[name].sel(seed=2).squeeze(), rtol=1e-4, atol=1e-6)
    assert (
        abs(
            together["transition_matrix"].sel(seed=0) - together["transition_matrix"].sel(seed=1)
        ).max()
        > 0
    )


def test_the_same_config_gives_the_same_bits():
    first, second = (GRAPH.run(GraphConfig(**SMALL, context="prompt"), silent) for _ in range(2))
    assert first.identical(second)


@pytest.mark.parametrize("loss", ["exact", "sampled"])
def test_prompt_training_approaches_the_bayes_loss(loss):
    config = GraphConfig(
        seeds=4,
        dim=8,
        steps=400,
        context="prompt",
        loss=loss,
        mechanisms=("ssa-free",),
        control_steps=0,
        learning_rates=(0.05,),
    )
    gap = GRAPH.run(config, silent)["cross_entropy_gap"].mean("seed").squeeze()
    assert gap[0] > 0.4
    assert 0 < gap[-1] < 0.1 * gap[0]


def test_sampled_transitions_approach_the_exact_solution():
    config = GraphConfig(
        seeds=4,
        dim=8,
        steps=400,
        loss="sampled",
        batch_size=256,
        mechanisms=("ssa-free",),
        control_steps=0,
        learning_rates=(0.05,),
    )
    gap = GRAPH.run(config, silent)["cross_entropy_gap"].mean("seed").squeeze()
    assert 0 < gap[-1] < 0.1 * gap[0]


def test_stationary_row_weights_weigh_the_loss():
    result = GRAPH.run(
        GraphConfig(**SMALL, family="les-miserables", row_weights="stationary"), silent
    )
    np.testing.assert_allclose(result["conditional_entropy"], result["entropy_rate"])
    learned, truth, pi = (
        result[n]
        for n in ("learned_transition_matrix", "transition_matrix", "stationary_distribution")
    )
    kl = (pi * (truth * (np.log(truth.where(truth > 0, 1)) - np.log(learned))).sum("next")).sum(
        "node"
    )
    gap = result["cross_entropy_gap"].isel(step=-1)
    np.testing.assert_allclose(gap, kl.transpose("mechanism", "seed"), atol=1e-9)


def test_several_mechanisms_and_the_position_term():
    mechanisms = ("vanilla", "ssa", "ssa-mlp", "ssa-free", "ssa-degree")
    result = GRAPH.run(GraphConfig(**SMALL, mechanisms=mechanisms, position=True), silent)
    tau = result["inverse_temperature"]
    assert not result["diverged"].any()
    degree = tau.sel(mechanism="ssa-degree").isel(seed=0).values
    assert degree[0] == degree[1] != degree[-1]  # nodes 0 and 1 have one neighbour each
    assert (
        tau.sel(mechanism=["ssa", "ssa-mlp"]).mean("node") > 1.2
    ).all()  # 1 + sigmoid(alpha) log 8 + tanh f


def test_errors_and_uniform_rows_by_group():
    """Against loops; the second of two graphs has its rows in another order."""
    config = GraphConfig(
        seeds=2, steps=30, control_steps=0, family="erdos-renyi", learning_rates=(0.06,), dim=3
    )
    result = GRAPH.run(config)
    assert set(result["row_group"].values) == {"sharp", "middle", "blunt"}
    truth, learned = (
        result[name].transpose(..., "seed", "node", "next").values
        for name in ("transition_matrix", "learned_transition_matrix")
    )
    nodes, entropy = truth.shape[1], result["row_entropy"].values
    for m, name in enumerate(result["mechanism"].values):
        for seed in range(2):
            order = sorted(range(nodes), key=lambda i: entropy[seed, i])
            error = [float(np.abs(learned[m, seed, i] - truth[seed, i]).sum()) for i in order]
            groups = (
                error[: nodes // 4],
                error[nodes // 4 : -(nodes // 4)],
                error[-(nodes // 4) :],
            )
            own = result["l1_by_row_group"].sel(mechanism=name, seed=seed)
            for group, errors in zip(("sharp", "middle", "blunt"), groups, strict=True):
                assert float(own.sel(row_group=group)) == pytest.approx(np.mean(errors)), group
            rows = learned[m, seed]
            spread = np.exp(-np.where(rows > 0, rows * np.log(rows), 0).sum(1))
            share = np.mean(spread > 0.9 * nodes)
            assert float(result["uniform_rows"].sel(mechanism=name, seed=seed)) == share
    assert 0 < float(result["uniform_rows"].mean()) < 1


def test_the_family_paper_draws_a_connected_graph_of_the_list_for_each_seed():
    """Every node leads to itself and its neighbours alike; the seed's own stream picks the graph."""
    seeds, graphs = range(40), connected_graphs(5)
    tasks = GraphProblem(family="paper", nodes=5).tasks(seeds)
    numbers = []
    for seed, task in zip(seeds, tasks, strict=True):
        number = member_generator(seed, Stream.GRAPH).integers(len(graphs))
        np.testing.assert_allclose(task.transition_matrix, neighbour_law(graphs[number]))
        numbers.append(int(number))
    assert 10 < len(set(numbers)) <= 21
    small = GraphConfig(**SMALL, family="paper", nodes=5)
    result = GRAPH.run(small, silent)
    for seed in range(3):
        np.testing.assert_allclose(
            result["transition_matrix"].sel(seed=seed), tasks[seed].transition_matrix
        )
    np.testing.assert_allclose(result["row_entropy"], np.log(result["out_degree"]))
    alone = GRAPH.run(small.model_copy(update={"seeds": 1, "first_seed": 2}), silent)
    for name in ("transition_matrix", "learned_transition_matrix"):
        one = result[name].sel(seed=2)
        np.testing.assert_allclose(one, alone[name].sel(seed=2), rtol=1e-4, atol=1e-6)
    assert GraphProblem(family="paper").size == 8


def test_sizes_of_the_family_paper_are_refused_before_training():
    with pytest.raises(ValueError, match="at hand for 1 to 8 nodes, got 9: choose one of these"):
        GRAPH.run(GraphConfig(**SMALL, family="paper", nodes=9), silent)


def test_diverged_models_are_marked_counted_and_left_out():
    config = GraphConfig(
        seeds=8,
        steps=30,
        learning_rates=(3e4,),
        optimizer="sgd",
        mechanisms=("ssa-free", "vanilla"),
        control_steps=0,
    )
    result = GRAPH.run(config, silent)
    diverged = result["diverged"].sel(mechanism="ssa-free")
    assert diverged.any()
    assert np.isnan(
        result["weight_norm"].sel(mechanism="ssa-free").where(diverged, drop=True)
    ).all()
    kept = int((~result["diverged"]).all("mechanism").sum())
    assert kept < 8
    renamed = result.assign_coords(mechanism=["ssa", "vanilla"])
    (test,) = (
        t for t in found(GRAPH.claims(renamed), "error-on-cases").values() if t.measure == "l1"
    )
    assert (test.effect.seeds, test.requested_seeds) == (kept, 8)
    assert said(test) == "missing"
    assert "diverged models left out" in GRAPH.plot(result).get_suptitle()


def test_the_claims_follow_from_the_data():
    config = GraphConfig(seeds=20, steps=120, control_steps=30, learning_rates=(0.05,))
    result = GRAPH.run(config, silent)
    claims = GRAPH.claims(result)
    tests, last = found(claims, "error-on-cases"), result.isel(step=-1, control_step=-1)
    assert len(tests) == 2 * 3 * 2
    for regime, prefix in (("d < K", ""), ("d = K", "control_")):
        for peer in ("vanilla", "scaled", "key-bias"):
            for measure, name in (("l1", "l1_error"), ("gap", "cross_entropy_gap")):
                own, other = (last[prefix + name].sel(mechanism=m).values for m in ("ssa", peer))
                test = tests["graded", regime, peer, measure]
                wanted = mean(np.log(other / own), test.effect.level)
                ends = (test.effect.value, test.effect.low, test.effect.high)
                assert ends == pytest.approx((wanted.value, wanted.low, wanted.high))
    assert said(tests["graded", "d < K", "vanilla", "l1"]) == "benefit"
    (order,) = found(claims, "order").values()
    tau = result["inverse_temperature"].sel(mechanism="ssa").values
    log_temperature = -np.log(np.maximum(tau, SMALLEST_TAU))
    entropy = result["row_entropy"].values
    each = [np.polyfit(x, y, 1)[0] for x, y in zip(entropy, log_temperature, strict=True)]
    assert order.effect.value == pytest.approx(np.mean(each))
    assert order.parts["share of models with a positive slope"].value == np.mean(np.array(each) > 0)
    optimum = checks(claims)["graph-optimum"]
    assert optimum.passed == "passed"
    least = last["cross_entropy_gap"].sel(mechanism="vanilla") - result["vanilla_optimum_gap"]
    assert optimum.estimate.value == pytest.approx(-float(least.min()))


def test_a_model_below_the_optimum_fails_the_check():
    result = GRAPH.run(GraphConfig(**SMALL | {"mechanisms": ("vanilla", "ssa")}), silent)
    broken = result.assign(vanilla_optimum_gap=result["vanilla_optimum_gap"] + 3.0)
    assert checks(GRAPH.claims(broken))["graph-optimum"].passed == "failed"


def test_every_declared_cell_is_tested_at_the_settings_of_the_presets():
    claims = []
    for name in ("graph", "letters", "les-miserables"):
        small = {"seeds": 3, "steps": 2, "learning_rates": (0.05,), "starts": (1.0,)}
        config = EXPERIMENTS[name].preset("paper")
        control = {"control_steps": min(1, config.control_steps)}
        result = EXPERIMENTS[name].run(config.model_copy(update=small | control), silent)
        claims += EXPERIMENTS[name].claims(result)
    assert missing(claims, "error-on-cases", "order") == []


def test_letters_single_out_q():
    config = EXPERIMENTS["letters"].preset("smoke").model_copy(update={"seeds": 6, "steps": 200})
    result = EXPERIMENTS["letters"].run(config, silent)
    tau = result["inverse_temperature"].sel(mechanism="ssa-free")
    share = (tau < tau.sel(node="q")).sum("node") / 26
    assert share.mean() > 0.75
    labels = [
        t.get_text()
        for ax in EXPERIMENTS["letters"].plot(result).axes
        for t in ax.get_xticklabels()
    ]
    assert (
        labels.count("q") >= 3
    )  # the matrices name the letters, and so does the temperature panel


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nodes": 4, "family": "letters"}, "nodes applies only to family graded, erdos-renyi"),
        ({"mean_degree": 2.0}, "mean_degree applies only to family erdos-renyi"),
        (
            {"mean_degree": 2.0, "family": "paper"},
            "mean_degree applies only to family erdos-renyi, .*-blocks, got",
        ),
        ({"text_file": "a.txt"}, "text_file applies only to family letters"),
        ({"graph_file": "a.graphml"}, "graph_file applies only to family file"),
        ({"prompt_length": 4}, "prompt_length applies only to context prompt"),
        ({"batch_size": 4}, "batch_size applies only to context prompt or loss sampled"),
        ({"family": "file"}, "family file needs a graph file"),
        ({"mechanisms": ("ssa", "ssa")}, "mechanisms must be different"),
        ({"mechanisms": ()}, "mechanisms must be different and at least one"),
        ({"mechanisms": ("sparsemax",)}, "mechanism sparsemax needs the Brier score"),
        (
            {"mechanisms": ("ssa-position",)},
            "mechanism ssa-position needs queries that see different numbers of keys",
        ),
        ({"dim": 0}, "greater than or equal to 1"),
        ({"learning_rates": (float("inf"),)}, "finite number"),
        ({"learning_rates": (0.5, 0.1)}, "learning_rates must ascend"),
        ({"sedes": 3}, "Extra inputs are not permitted"),
    ],
)
def test_bad_config(fields, message):
    with pytest.raises(ValidationError, match=message):
        GraphConfig(**fields)


def test_a_result_is_read_without_the_file_of_its_graph():
    config = GraphConfig(family="file", graph_file="gone.graphml")
    assert GraphConfig.model_validate_json(config.model_dump_json()) == config


def test_too_large_a_model_is_refused_before_training(machine):
    with pytest.raises(ValueError, match=r"one seed needs about .* GiB, above the limit"):
        GRAPH.run(
            GraphConfig(seeds=1, nodes=256, context="prompt", batch_size=65_536, steps=1), silent
        )


def test_a_result_that_does_not_fit_is_refused_before_training(machine):
    memory = f"more than half of this machine's {machine.memory / 2**30:.0f} GiB: use fewer seeds"
    with pytest.raises(ValueError, match=rf"the result of this run needs about .* {memory}"):
        GRAPH.run(GraphConfig(seeds=300_000, nodes=512, steps=1), silent)


def test_every_preset_is_a_valid_config_of_enough_seeds():
    """Language models are few and their presets large."""
    for experiment in (EXPERIMENTS[name] for name in PLACES if name not in APART):
        if not issubclass(experiment.config, SeededConfig):  # nothing is random
            assert not hasattr(experiment.preset("paper"), "seeds")
            continue
        assert experiment.preset("paper").seeds >= 64
        assert experiment.preset("smoke").seeds < 16
        large, paper = (experiment.preset(name) for name in ("large", "paper"))
        assert large.seeds > paper.seeds or len(large.mechanisms) > len(paper.mechanisms)
        assert json.loads(experiment.preset("paper").model_dump_json())
    with pytest.raises(
        ValueError, match="unknown preset 'huge': choose one of smoke, paper, large"
    ):
        GRAPH.preset("huge")
