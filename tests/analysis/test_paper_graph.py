"""The paper's graph experiment: its cells, its summary against loops, its claims on known data."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from analysis.experiments.base import silent
from analysis.experiments.paper_graph import PAPER_GRAPH, PaperGraphConfig
from analysis.run.runner import execute
from tasks.small_graphs import connected_graphs
from tests.analysis.evidence import found, missing, said

SMOKE = PAPER_GRAPH.preset("smoke")


@pytest.fixture(scope="module")
def executed(tmp_path_factory, undrawn):
    with undrawn():
        return execute(PAPER_GRAPH, SMOKE, tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def result(executed):
    return executed[0]


def test_variables_and_dimensions(result):
    model = ("cell", "mechanism", "seed")
    dims = {
        "map_l1": model,
        "final_gap": model,
        "temperature_slope": model,
        "inverse_temperature": (*model, "node"),
        "cross_entropy_gap": (*model, "stage"),
        "graph": ("seed",),
        "degree": ("seed", "node"),
    }
    assert {name: result[name].dims for name in dims} == dims
    assert all("description" in variable.attrs for variable in result.data_vars.values())
    assert result["cell"].values.tolist() == ["row", "tied", "fixed E", "learned E", "sampled"]


def test_the_paper_preset_has_every_graph_once():
    config = PAPER_GRAPH.preset("paper")
    number = config.cells[0].problem.graphs(config.seed_range)
    assert sorted(number) == list(range(len(connected_graphs(8))))


def test_the_slope_is_that_of_a_line_through_each_model(result):
    at = result.sel(cell="row", mechanism="ssa-degree")
    for seed in result["seed"].values:
        one = at.sel(seed=seed)
        degree, tau = one["degree"].values, one["inverse_temperature"].values.astype(float)
        slope = float(one["temperature_slope"])
        if np.ptp(degree) == 0:
            assert np.isnan(slope)
        else:
            assert slope == pytest.approx(np.polyfit(degree, -np.log(tau), 1)[0], abs=1e-5)


def test_ratios_are_quantiles_over_graphs_of_the_ratio_in_each(result):
    for measure, name in (("map_l1", "map_ratio"), ("final_gap", "gap_ratio")):
        own, peer = (
            result[measure].sel(cell="tied", mechanism=m).values for m in ("ssa-query", "vanilla")
        )
        wanted = np.quantile(own / peer, (0.025, 0.25, 0.5, 0.75, 0.975))
        assert np.allclose(result[name].sel(cell="tied", mechanism="ssa-query"), wanted)
        assert np.allclose(result[name].sel(mechanism="vanilla"), 1)


def test_no_model_is_below_the_entropy_of_its_graph(result):
    assert (result["final_gap"] > -1e-9).all()


def test_where_the_row_is_the_prediction_map_and_prediction_are_one(result):
    one = result.sel(cell=["row", "tied"])
    assert np.allclose(one["map_l1"], one["l1_error"], atol=1e-12)
    apart = result.sel(cell=["fixed E", "learned E", "sampled"])
    assert (abs(apart["map_l1"] - apart["l1_error"]) > 0.01).all()


TOPICS = ("paper-map", "paper-loss", "paper-order", "identification")


@pytest.fixture
def known(result):
    """SSA's map and gap by degree a third of vanilla's and the others' equal to it, each graph with a
    factor of its own; SSA's temperatures rise with the degree.
    """
    data = result.copy(deep=True)
    own, generator = (data["mechanism"] == "ssa-degree"), np.random.default_rng(0)
    for name in ("map_l1", "final_gap"):
        factor = np.exp(0.01 * generator.standard_normal(data[name].shape))
        data[name] = xr.where(own, 0.3, 0.9) * xr.full_like(data[name], 1.0) * factor
        data[name] = data[name].transpose("cell", "mechanism", "seed")
    slope = 0.2 + 0.01 * generator.standard_normal(data["temperature_slope"].shape)
    data["temperature_slope"] = data["temperature_slope"].copy(data=slope)
    return data


def test_every_declared_cell_is_compared(result):
    paper = PAPER_GRAPH.preset("paper")
    assert result["cell"].values.tolist() == [cell.name for cell in paper.cells]
    assert result["mechanism"].values.tolist() == list(paper.mechanisms)
    assert not missing(PAPER_GRAPH.claims(result), *TOPICS)


def test_tests_are_log_ratios_by_graph_that_favour_the_sentence(known):
    lines = PAPER_GRAPH.claims(known)
    for topic, variable in (("paper-map", "map_l1"), ("paper-loss", "final_gap")):
        tests = found(lines, topic)
        for head, mechanism, peer, wanted in (
            ("sampled", "ssa-degree", "vanilla", "benefit"),
            ("row", "ssa-degree", "scaled", "benefit"),
            ("tied", "ssa-query", "vanilla", "equivalent"),
            ("fixed E", "scaled", "vanilla", "equivalent"),
        ):
            test, at = tests[head, mechanism, peer], known[variable].sel(cell=head)
            x, y = (at.sel(mechanism=m).values for m in (mechanism, peer))
            logs = np.array([np.log(b) - np.log(a) for a, b in zip(x, y, strict=True)])
            assert test.effect.value == pytest.approx(logs.mean())
            # For a new graph: n + 1 = 13 graphs are too few for order statistics at .95.
            half = stats.t.ppf(0.975, 11) * logs.std(ddof=1) * np.sqrt(1 + 1 / 12)
            assert test.effect.high == pytest.approx(logs.mean() + half)
            assert (said(test), test.effect.seeds) == (wanted, 12)
            share = test.parts["share of graphs with a gain of 5 %"].value
            assert share == (logs > -np.log(0.95)).mean()
        assert ("row", "scaled", "scaled") not in tests
        assert not any(mechanism == "vanilla" for _, mechanism, _ in tests)


def test_a_map_is_recovered_within_a_distance_of_a_tenth(known):
    known["map_l1"] = known["map_l1"] * xr.where(known["mechanism"] == "ssa-degree", 0.3, 0.12)
    known["map_l1"] = known["map_l1"].transpose("cell", "mechanism", "seed")
    tests = found(PAPER_GRAPH.claims(known), "identification")
    at = known["map_l1"].sel(cell="sampled")
    for name, wanted in (("ssa-degree", "benefit"), ("vanilla", "harm")):
        test = tests["sampled", name]
        logs = np.log(0.1) - np.log(at.sel(mechanism=name).values)
        assert test.effect.value == pytest.approx(logs.mean())
        assert said(test) == wanted


def test_slopes_are_of_each_model_where_temperatures_differ(known):
    tests = found(PAPER_GRAPH.claims(known), "paper-order")
    assert {mechanism for _, mechanism in tests} == {"ssa-degree", "ssa-query", "ssa-free"}
    slope = known["temperature_slope"].sel(cell="sampled", mechanism="ssa-degree")
    test = tests["sampled", "ssa-degree"]
    assert test.effect.value == pytest.approx(float(slope.mean()))
    assert said(test) == "benefit"
    assert test.parts["share of models in which it rises"].value == 1
    turned = known.assign(temperature_slope=-known["temperature_slope"])
    test = found(PAPER_GRAPH.claims(turned), "paper-order")["sampled", "ssa-degree"]
    assert said(test) == "harm"
    assert test.parts["share of models in which it rises"].value == 0


def test_diverged_graphs_count_as_lost(known):
    lost = {"cell": "row", "mechanism": "ssa-degree", "seed": [4]}
    for name in ("map_l1", "final_gap", "temperature_slope", "inverse_temperature"):
        known[name].loc[lost] = np.nan
    lines = PAPER_GRAPH.claims(known)
    for topic, place in (
        ("paper-map", ("row", "ssa-degree", "vanilla")),
        ("paper-loss", ("row", "ssa-degree", "scaled")),
        ("paper-order", ("row", "ssa-degree")),
        ("identification", ("row", "ssa-degree")),
    ):
        test = found(lines, topic)[place]
        assert (test.effect.seeds, test.requested_seeds, said(test)) == (11, 12, "missing")
    assert said(found(lines, "paper-map")["tied", "ssa-degree", "vanilla"]) == "benefit"


def test_blocks_join_to_the_same_result():
    config = SMOKE.model_copy(update={"dtype": "float64", "seeds": 3, "row_steps": 4, "steps": 4})
    whole = PAPER_GRAPH.run(config, silent)
    parted = PAPER_GRAPH.run(config.model_copy(update={"block_seeds": 2}), silent)
    for name in ("map_l1", "final_gap", "inverse_temperature", "temperature_slope"):
        assert np.allclose(parted[name], whole[name], rtol=1e-6, atol=1e-9, equal_nan=True)


def test_labels_of_other_steps_take_no_room_in_a_block_but_in_memory(machine):
    """A block is as large for any number of steps, until its labels fill the memory."""
    sizes = [
        PAPER_GRAPH.seeds_per_block(PaperGraphConfig(steps=n)) for n in (4, 400, 40_000, 1_000_000)
    ]
    assert sizes[0] == sizes[1] >= {2**18: 256, 2**23: 1024, 2**30: 1024}[machine.l2]
    assert sizes[1] >= sizes[2] > sizes[3]
    labels = 64 * 1_000_000  # a byte for each pair of nodes and step
    assert 2**30 < sizes[3] * labels <= 2**31


def test_bad_settings_are_refused_before_training():
    with pytest.raises(ValueError, match="a tied classifier"):
        PaperGraphConfig(dim=4)
    with pytest.raises(ValueError, match="exact zeros"):
        PaperGraphConfig(mechanisms=("vanilla", "sparsemax"))
    with pytest.raises(ValueError, match="less than or equal to 8"):
        PaperGraphConfig(nodes=9)
