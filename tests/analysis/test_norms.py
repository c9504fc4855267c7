"""The norms experiment: equal steps, equal loss, what the measures mean, and what its claims say of
known data.
"""

import json
from itertools import product
from string import ascii_lowercase

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from analysis.experiments.base import silent
from analysis.experiments.norms import NORMS
from analysis.experiments.norms.train import (
    COMPARISONS,
    NormsConfig,
    seeds_per_block,
)
from analysis.problems import GraphProblem, Training, train_all
from analysis.problems.anatomy import ANATOMY, anatomy
from analysis.problems.curves import common_loss, interpolate
from analysis.problems.measures import row_groups
from analysis.problems.tuning import tune
from analysis.run.runner import execute
from ssa_theory.mechanism import mechanism
from tests.analysis.evidence import found, missing, outcomes, said

SMOKE = NORMS.preset("smoke")


@pytest.fixture(scope="module")
def executed(tmp_path_factory, undrawn):
    folder = tmp_path_factory.mktemp("out")
    with undrawn():
        return folder, *execute(NORMS, SMOKE, folder)


@pytest.fixture(scope="module")
def result(executed):
    return executed[1]


def test_variables_and_dimensions(result):
    model, token = (
        ("setting", "mechanism", "seed", "comparison"),
        ("setting", "mechanism", "seed", "node", "comparison"),
    )
    dims = {
        "weight_norm": model,
        "weight_nuclear_norm": model,
        "weight_stable_rank": model,
        "mean_token_norm": model,
        "mean_effective_weight": model,
        "mean_spikiness": model,
        "sharp_support": model,
        "token_norm": token,
        "logit_scale": token,
        "effective_support": token,
        "row_hoyer": token,
        "cross_entropy_gap": ("setting", "mechanism", "seed", "record"),
        "weight_norm_by_progress": ("setting", "mechanism", "seed", "progress"),
        "common_loss": ("setting", "seed"),
        "common_loss_step": ("setting", "mechanism", "seed"),
        "diverged": ("setting", "mechanism", "seed"),
        "target_support": ("setting", "node"),
    }
    assert {name: result[name].dims for name in dims} == dims
    assert all("description" in result[name].attrs for name in dims)
    assert result["setting"].values.tolist() == ["graded", "letters"]
    assert result["label"].sel(setting="letters").values.tolist()[:2] == ["_", "a"]
    assert result["token_norm"].sel(setting="graded").notnull().sum("node").min() == 8
    assert result["token_norm"].sel(setting="letters").notnull().sum("node").min() == 27
    assert not result["unmatched"].any()


def test_every_measure_exists_at_every_comparison(result):
    assert result["comparison"].values.tolist() == list(COMPARISONS)
    for name in ANATOMY:
        assert "comparison" in result[name].dims, name
        for setting, nodes in (("graded", 8), ("letters", 27)):
            values = result[name].sel(setting=setting)
            values = values.isel({"node": slice(nodes)}, missing_dims="ignore")
            assert values.notnull().all(), (name, setting)
    for name in ("effective_weight", "spikiness"):
        np.testing.assert_allclose(result[f"mean_{name}"], result[name].mean("node"))
        apart = result[name].sel(comparison="steps") != result[name].sel(comparison="loss")
        assert apart.where(result[name].notnull().all("comparison")).mean() > 0.95, name


@pytest.mark.parametrize("name", SMOKE.mechanisms)
def test_measures_at_equal_loss_are_those_of_a_model_stopped_there(result, name):
    """Each model trained anew, for the whole numbers of steps around its own common-loss step."""
    model = result.sel(setting="graded", comparison="loss", seed=1, mechanism=name)
    before, share = divmod(float(model["common_loss_step"]), 1)
    weight, tau, rows = 0.0, 0.0, 0.0
    for steps, part in ((int(before), 1 - share), (int(before) + 1, share)):
        training, device = Training(steps, 0.06), torch.device("cpu")
        trained = train_all(GraphProblem(nodes=8), [mechanism(name)], [1], training, device)
        trained = trained.isel(mechanism=0, seed=0)
        weight += part * trained["weight_norm"].item()
        tau += part * trained["inverse_temperature"].values
        rows += part * trained["learned_transition_matrix"].values
    model = model.isel(node=slice(8))
    np.testing.assert_allclose(model["effective_weight"], tau * weight, rtol=0.03)
    expected = [1 / (8 * sum(p * p for p in row)) for row in rows]
    np.testing.assert_allclose(model["spikiness"], expected, rtol=0.03)


def test_a_scale_moved_from_weights_to_temperature_changes_no_effective_measure():
    problem, start = GraphProblem(nodes=8), [np.random.default_rng(s) for s in range(3)]
    block = problem.block(range(3), Training(1, 0.05), torch.device("cpu"))
    layer = problem.layer(mechanism("scaled"))
    weight, offset = (layer.initial_parameters(start)[k] for k in ("weight", "query.offset"))
    plain = anatomy(block, layer, {"weight": 20 * weight, "query.offset": offset})
    moved = anatomy(block, layer, {"weight": 5 * weight, "query.offset": offset + np.log(4)})
    for name in ("effective_weight", "logit_scale", "spikiness", "effective_support"):
        torch.testing.assert_close(moved[name], plain[name])
    torch.testing.assert_close(4 * moved["weight_norm"], plain["weight_norm"])


def test_measures_agree_with_those_of_the_problem_at_equal_steps(result):
    """`train_all` trains the same models, and measures them by other code at other steps."""
    names = result["mechanism"].values.tolist()
    problem, device = GraphProblem(nodes=8), torch.device("cpu")
    graph = train_all(problem, list(map(mechanism, names)), range(4), Training(60, 0.06), device)
    graded = result.sel(setting="graded", comparison="steps").isel(node=slice(8))
    for name in (
        "weight_norm",
        "weight_frobenius_norm",
        "token_norm",
        "effective_support",
        "inverse_temperature",
    ):
        np.testing.assert_allclose(graded[name], graph[name], rtol=1e-9, err_msg=name)
    learned = graph["learned_transition_matrix"]
    for row, value in zip(
        learned.values.reshape(-1, 8), graded["spikiness"].values.ravel(), strict=True
    ):
        assert value == pytest.approx(1 / (8 * sum(p * p for p in row)))
    np.testing.assert_allclose(
        graded["effective_weight"], graph["inverse_temperature"] * graph["weight_norm"]
    )
    np.testing.assert_allclose(graded["row_max"], learned.max("next"))
    np.testing.assert_allclose(
        graded["logit_scale"], graph["token_norm"] * graph["inverse_temperature"]
    )
    gap = graded["cross_entropy_gap"].transpose("mechanism", "seed", "record").values
    last = np.isfinite(gap[0, 0]).sum() - 1
    np.testing.assert_allclose(gap[:, :, last], graph["cross_entropy_gap"].isel(step=-1))


def test_relations_between_measures(result):
    result = result.sel(comparison="steps")  # at equal loss each is interpolated by itself
    spectral, frobenius, nuclear, rank = (
        result[f"weight_{n}"].values
        for n in ("norm", "frobenius_norm", "nuclear_norm", "stable_rank")
    )
    assert (spectral < frobenius).all()
    assert (frobenius < nuclear).all()
    np.testing.assert_allclose(rank, (frobenius / spectral) ** 2)
    np.testing.assert_allclose(
        result["logit_scale"], result["inverse_temperature"] * result["token_norm"]
    )
    assert (
        result["inverse_temperature"].sel(mechanism="vanilla", setting="graded").isel(node=slice(8))
        == 1
    ).all()
    assert (
        result["token_norm"].max("node") <= result["weight_norm"] * (1 + 1e-9)
    ).all()  # embeddings have norm 1
    assert (
        result["logit_scale"].max("node") <= result["effective_weight"].max("node") * (1 + 1e-9)
    ).all()
    for setting, nodes in (("graded", 8), ("letters", 27)):
        rows = result.sel(setting=setting).isel(node=slice(nodes))
        assert (nodes * rows["spikiness"] <= rows["effective_support"] * (1 + 1e-9)).all()
        assert (nodes * rows["spikiness"] * rows["row_max"] >= 1 - 1e-9).all()
    group = result["row_group"].sel(setting="letters").values
    rows = result["effective_support"].sel(setting="letters").transpose(..., "node").values
    blunt = result["blunt_support"].sel(setting="letters").values
    np.testing.assert_allclose(rows[..., group == "blunt"].mean(-1), blunt)
    assert (group == "blunt").sum() == (group == "sharp").sum() == 27 // 4
    entropy = result["target_support"].sel(setting="letters").values
    assert entropy[group == "sharp"].max() <= entropy[group == "middle"].min()
    assert entropy[group == "middle"].max() <= entropy[group == "blunt"].min()
    assert (
        row_groups(np.log([1, 1, 2, 2, 3, 4, 6, 8.0])).tolist()
        == ["sharp"] * 2 + ["middle"] * 4 + ["blunt"] * 2
    )


def test_common_loss_of_known_curves():
    fast = np.array([4.0, 2.0, 1.0, 0.5])
    slow = np.array([4.0, 3.5, 3.0, 2.0])
    level, place = common_loss(np.stack([fast, slow])[:, None], 1.0)
    assert level.tolist() == [2.0]
    np.testing.assert_allclose(place[:, 0], [1.0, 3.0])
    level, place = common_loss(np.stack([slow, fast])[:, None], 0.5)  # 4 - 0.5 (4 - 2)
    assert level.tolist() == [3.0]
    np.testing.assert_allclose(place[:, 0], [2.0, 0.5])
    values = np.array([[[0.0, 10.0, 20.0, 30.0]], [[0.0, 1.0, 4.0, 9.0]]])
    np.testing.assert_allclose(interpolate(values, place)[:, 0], [20.0, 0.5])
    np.testing.assert_allclose(interpolate(values, np.full((2, 1), 3.0))[:, 0], [30.0, 9.0])
    rows = np.stack([values, 2 * values], axis=-1)  # one more axis after the records
    np.testing.assert_allclose(interpolate(rows, place)[:, 0], [[20.0, 40.0], [0.5, 1.0]])


def test_a_seed_without_a_common_loss_is_undefined():
    rising, falling = np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.5, 0.1])
    diverged = np.array([1.0, np.nan, np.nan])
    gap = np.stack([np.stack([falling, falling, falling]), np.stack([rising, diverged, falling])])
    level, place = common_loss(gap, 0.9)
    assert np.isnan(level).tolist() == [True, True, False]
    assert np.isnan(place).all(0).tolist() == [True, True, False]
    assert np.isnan(interpolate(gap, place)[:, :2]).all()


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1.0))
def test_every_model_has_the_common_loss_where_it_is_compared(seed, progress):
    generator = np.random.default_rng(seed)
    gap = np.cumsum(generator.uniform(0.01, 1.0, (3, 5, 12)), axis=-1)[..., ::-1]
    gap = gap - gap[..., :1] + 20.0  # all start at the same loss, and fall
    level, place = common_loss(gap, progress)
    np.testing.assert_allclose(interpolate(gap, place), np.broadcast_to(level, place.shape))
    slowest = gap[:, :, -1].max(0)
    np.testing.assert_allclose((20 - level) / (20 - slowest), progress)
    assert (place >= 0).all()
    assert (place <= 11 + 1e-9).all()


def test_sparse_records_interpolate_what_dense_ones_find(monkeypatch):
    config = NormsConfig(seeds=3, letters_steps=0, steps=100, learning_rates=(0.05,))
    sparse = NORMS.run(config, silent)
    monkeypatch.setattr(
        "analysis.experiments.norms.train._recorded", lambda steps: np.arange(steps + 1)
    )
    dense = NORMS.run(config, silent)
    assert dense.sizes["record"] > 2 * sparse.sizes["record"]
    for name in ("weight_norm", "token_norm", "effective_support", "common_loss_step"):
        a, b = (
            d[name].sel(comparison="loss") if "comparison" in d[name].dims else d[name]
            for d in (sparse, dense)
        )
        np.testing.assert_allclose(a, b, rtol=0.03, err_msg=name)


def test_the_numbers_of_a_seed_do_not_depend_on_its_company(result):
    graded, result = (
        SMOKE.model_copy(update={"letters_steps": 0}),
        result.sel(setting=["graded"]).isel(node=slice(8)),
    )
    alone = NORMS.run(graded.model_copy(update={"seeds": 1, "first_seed": 2}), silent)
    parts = NORMS.run(graded.model_copy(update={"block_seeds": 3}), silent)
    for name in ("weight_norm", "logit_scale", "effective_support", "common_loss_step"):
        np.testing.assert_allclose(
            alone[name].sel(seed=2), result[name].sel(seed=2), rtol=2e-3, err_msg=name
        )
        np.testing.assert_allclose(parts[name], result[name], rtol=2e-3, err_msg=name)


def test_what_tuning_found_is_stored_by_setting():
    rates = (0.01, 0.3)
    config = NormsConfig(seeds=1, steps=5, letters_steps=5, learning_rates=rates, device="cpu")
    found = NORMS.train(config, silent)
    tried_by = {"tried_rate", "tried_step", "tuning_seed"}
    assert set(found["tuning_error"].dims) == {"setting", "mechanism", *tried_by}
    for cell in config.cells:
        own = tune(cell.problem, cell.mechanisms, cell.training, rates, torch.device("cpu"))
        tried = found["tuning_error"].sel(setting=cell.name)
        np.testing.assert_allclose(tried, own.variables["tuning_error"][1], rtol=1e-12)


def test_diverged_models_are_marked_and_leave_no_number():
    config = NormsConfig(seeds=2, steps=5, letters_steps=0, learning_rates=(1e38,))
    result = NORMS.run(config, silent)
    assert result["diverged"].any()
    assert result["unmatched"].all()
    assert result["weight_norm"].where(result["diverged"], drop=True).isnull().all()
    assert set(outcomes(NORMS.claims(result)).values()) == {"missing"}
    headline = NORMS.plot(result).get_suptitle()
    assert "diverged models left out" in headline
    assert "2 seeds without a common loss" in headline


VARIABLES = {
    ("norm", "||W||"): "weight_norm",
    ("norm", "tau ||W||"): "mean_effective_weight",
    ("spikiness", "all rows"): "mean_spikiness",
    ("spikiness", "sharp rows"): "sharp_support",
    ("bluntness", None): "blunt_support",
}
"""What a test compares, by its topic and the level of that topic's own factor."""


def _synthetic() -> xr.Dataset:
    """Of each variable, setting and comparison vanilla has values of its own, scaled 0.9 of them,
    ssa 0.6.
    """
    generator = np.random.default_rng(0)
    axes = {
        "setting": ["graded", "letters"],
        "mechanism": ["vanilla", "scaled", "ssa"],
        "seed": np.arange(64),
        "comparison": list(COMPARISONS),
    }
    shape, factor = tuple(map(len, axes.values())), np.array([1, 0.9, 0.6])[:, None, None]
    data = {
        name: (tuple(axes), factor * np.exp(generator.normal(0, 0.05, shape)))
        for name in VARIABLES.values()
    }
    return xr.Dataset(data, axes)


@pytest.mark.parametrize("topic", ["norm", "spikiness", "bluntness"])
def test_tests_of_known_data(topic):
    """Each compares the variables of its cell: the mean over seeds of the log ratio, turned to
    favour the sentence.
    """
    data = _synthetic()
    tests = found(NORMS.judge(NormsConfig(), data), topic)
    assert len(tests) == 2 * 2 * 2 * (1 if topic == "bluntness" else 2)
    for (graph, compared, *own, peer), test in tests.items():
        x = data[VARIABLES[topic, own[0] if own else None]]
        x = np.log(x.sel(setting=graph, comparison=compared.removeprefix("equal ")))
        apart = float((x.sel(mechanism="ssa") - x.sel(mechanism=peer)).mean())
        assert apart == pytest.approx(np.log(0.6 / (0.9 if peer == "scaled" else 1)), abs=0.05)
        assert test.effect.value == pytest.approx(apart if topic == "bluntness" else -apart)
        assert (test.effect.seeds, test.lost) == (64, 0)
        assert said(test) == ("harm" if topic == "bluntness" else "benefit")
        assert test.parts["ssa"].value == pytest.approx(
            float(np.exp(x.sel(mechanism="ssa")).mean())
        )


def test_as_blunt_as_vanilla_is_blunt_enough():
    data = _synthetic()
    data["blunt_support"].loc[{"mechanism": "ssa"}] = data["blunt_support"].sel(mechanism="vanilla")
    tests = found(NORMS.judge(NormsConfig(), data), "bluntness")
    assert said(tests["letters", "equal loss", "vanilla"]) == "benefit"


@pytest.mark.parametrize(("lost", "outcome"), [(3, "benefit"), (4, "missing")])
def test_lost_seeds_count_as_lost(lost, outcome):
    data = _synthetic()
    data["weight_norm"].loc[{"mechanism": "scaled", "seed": range(lost), "setting": "graded"}] = (
        np.nan
    )
    tests = found(NORMS.judge(NormsConfig(), data), "norm")
    test = tests["graded", "equal loss", "||W||", "scaled"]
    assert (test.lost, said(test)) == (lost / 64, outcome)
    assert said(tests["graded", "equal loss", "||W||", "vanilla"]) == "benefit"


def test_no_test_without_the_mechanism_or_its_peer():
    data = _synthetic()
    alone = NORMS.judge(NormsConfig(), data.sel(mechanism=["vanilla", "scaled"]))
    assert outcomes(alone) == {}
    pair = NORMS.judge(NormsConfig(), data.sel(mechanism=["ssa", "scaled"]))
    assert {cell[-1] for cell in found(pair, "bluntness")} == {"scaled"}


def test_the_figure_shows_means_distributions_and_the_diagonal(result):
    figure = NORMS.plot(result)
    assert len(figure.axes) == 2 * 4 + 2 * 4
    paper, ours = figure.axes[:8], figure.axes[8:]
    shown = [
        (ax, name, setting, comparison)
        for (setting, name, comparison), ax in zip(
            product(("graded", "letters"), ("effective_weight", "spikiness"), COMPARISONS),
            paper,
            strict=True,
        )
    ]
    for ax, name, setting, comparison in shown:
        stored = result[name].sel(setting=setting, comparison=comparison)
        stored = stored.mean([d for d in ("seed", "node") if d in stored.dims])
        means = [x.get_xdata()[0] for x in ax.get_lines() if x.get_linestyle() == "--"]
        assert set(np.round(stored.values, 9)) <= set(np.round(np.array(means, float), 9))
        assert ax.get_xscale() == ("linear" if name == "spikiness" else "log")
    for ax, name, setting, comparison in shown:
        texts = [text.get_text() for text in ax.get_legend().get_texts()]
        stored = result[name].sel(setting=setting, comparison=comparison).mean(["seed", "node"])
        assert texts == [f"{m} {stored.sel(mechanism=m):.3g}" for m in stored["mechanism"].values]
        for stairs in ax.patches:
            assert stairs.get_data().values.sum() == pytest.approx(1)
    titles = [ax.get_legend().get_title().get_text() for ax in paper]
    titles += [ax.get_title(loc="left") for ax in ours]
    assert [title[:3] for title in titles] == [f"({x})" for x in ascii_lowercase[:16]]
    sizes, support = ours[4], ours[1]
    drawn = {round(float(y), 9) for line in sizes.get_lines() for y in line.get_ydata()}
    letters = result[["weight_norm", "mean_token_norm", "mean_logit_scale"]].sel(setting="letters")
    means = letters.mean("seed").to_array().values
    assert means.size == 3 * 2 * result.sizes["mechanism"]
    assert set(np.round(means.ravel(), 9)) <= drawn
    assert "learned = target" in support.get_legend_handles_labels()[1]
    assert "graded: norms" in ours[0].get_title(loc="left")
    assert "support after 60 steps" in support.get_title(loc="left")
    assert support.get_xscale() == support.get_yscale() == "log"


def test_blocks_are_sized_by_all_that_is_held():
    """Histories of every mechanism are held at once, so more of them mean fewer large seeds."""
    fields = {"nodes": 512, "dim": 64, "letters_steps": 0, "seeds": 1024}
    pair = NormsConfig(**fields, mechanisms=("vanilla", "ssa"))
    assert seeds_per_block(NormsConfig(**fields)) < seeds_per_block(pair)


@pytest.mark.parametrize("nodes", [8, 64])
def test_what_a_result_holds_is_what_its_size_is_reckoned_from(monkeypatch, nodes):
    sizes = []
    monkeypatch.setattr("analysis.experiments.norms.train.check_result_fits", sizes.append)
    config = NormsConfig(seeds=32, steps=9, nodes=nodes, letters_steps=0)
    seeds_per_block(config)
    numbers = NORMS.run(config, silent).nbytes / 8
    assert 0.9 * numbers < sizes[0] < 1.5 * numbers


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mechanisms": ("ssa",)}, "mechanisms must be vanilla, the peer, and at least one other"),
        (
            {"mechanisms": ("vanilla",)},
            "mechanisms must be vanilla, the peer, and at least one other",
        ),
        ({"mechanisms": ("vanilla", "ssa", "ssa")}, "each once"),
        ({"mechanisms": ("vanilla", "sparsemax")}, "mechanism sparsemax needs the Brier score"),
        ({"mechanisms": ("vanilla", "ssa-value")}, "mechanism ssa-value needs a value map"),
        ({"nodes": 3}, "greater than or equal to 4"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"learning_rates": (0.0,)}, "greater than 0"),
        ({"loss": "exact"}, "Extra inputs are not permitted"),
    ],
)
def test_bad_config(fields, message):
    with pytest.raises(ValidationError, match=message):
        NormsConfig(**fields)


def test_smoke_run_end_to_end(executed):
    _, dataset, claims, trained = executed
    assert trained
    assert json.loads(dataset.attrs["config"]) == json.loads(SMOKE.model_dump_json())
    assert len(claims) == 2 * 2 * 2 * 5
    assert set(outcomes(claims).values()) == {"unresolved"}  # 4 seeds
    paper = NORMS.preset("paper")
    assert (paper.mechanisms, [c.name for c in paper.cells]) == (
        SMOKE.mechanisms,
        dataset["setting"].values.tolist(),
    )
    assert missing(claims, "norm", "spikiness", "bluntness") == []
    assert NORMS.preset("paper").seeds >= 64 > NORMS.preset("smoke").seeds
    assert NORMS.preset("large").seeds > NORMS.preset("paper").seeds
