"""The paper's graph experiment: its cells, its summary against loops, its claims on known data."""

import numpy as np
import pytest

from analysis.claims.statistics import correlation
from analysis.experiments.base import silent
from analysis.experiments.paper_graph import PAPER_GRAPH, PaperGraphConfig
from analysis.run.runner import execute
from tasks.small_graphs import connected_graphs

SMOKE = PAPER_GRAPH.preset("smoke")


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
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


def test_claims_follow_the_numbers(result):
    """Every mechanism's map a third of vanilla's, and temperatures that rise with the degree."""
    known = result.copy(deep=True)
    vanilla = known["map_l1"].sel(mechanism="vanilla", drop=True)
    own = (known["mechanism"] != "vanilla").values
    known["map_l1"] = known["map_l1"].where(known["mechanism"] == "vanilla", vanilla / 3)
    known["temperature_slope"] = known["temperature_slope"] * 0 + np.array(0.2)
    verdicts = {c.id: c for c in PAPER_GRAPH.claims(known)}
    ratio = verdicts["paper-graph-map-l1-sampled-ssa-degree"]
    assert ratio.verdict == "supported"
    assert ratio.estimate.value == pytest.approx(1 / 3)
    assert ratio.parts["share of graphs with the smaller"].value == 1
    assert verdicts["paper-graph-slope-sampled-ssa-degree"].estimate.value == 1
    turned = known.assign(temperature_slope=-known["temperature_slope"])
    turned["map_l1"] = known["map_l1"] * np.where(own, 9, 1)[:, None]
    verdicts = {c.id: c.verdict for c in PAPER_GRAPH.claims(turned)}
    assert verdicts["paper-graph-map-l1-sampled-ssa-degree"] == "not supported"
    assert verdicts["paper-graph-slope-sampled-ssa-degree"] == "not supported"


def test_blocks_join_to_the_same_result():
    config = SMOKE.model_copy(update={"dtype": "float64", "seeds": 4, "row_steps": 8, "steps": 6})
    whole = PAPER_GRAPH.run(config, silent)
    parted = PAPER_GRAPH.run(config.model_copy(update={"block_seeds": 3}), silent)
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


def test_the_correlation_is_pearsons_and_leaves_one_out_as_many_do():
    generator = np.random.default_rng(0)
    x = generator.standard_normal(3000)
    y = 0.3 * x + generator.standard_normal(3000)
    few, many = correlation(x[:40], y[:40]), correlation(x, y)
    assert few.value == pytest.approx(np.corrcoef(x[:40], y[:40])[0, 1])
    assert many.value == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert many.method == "jackknife t"
    fisher = np.tanh(np.arctanh(many.value) + np.array([-1.96, 1.96]) / np.sqrt(2997))
    assert np.allclose((many.low, many.high), fisher, atol=0.004)
    left_out = np.array([np.corrcoef(np.delete(x, i), np.delete(y, i))[0, 1] for i in range(50)])
    assert np.allclose(many.pseudo[:50], 3000 * many.value - 2999 * left_out, atol=1e-6)
