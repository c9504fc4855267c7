"""The atlas: cells by search, the scale by its ends, units that runs share, and its ledger lines."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.special import log_softmax

from analysis.cli import main
from analysis.experiments.atlas import ATLAS, AtlasConfig
from analysis.experiments.atlas.claims import RIVALS
from analysis.experiments.atlas.figure import front, similar
from analysis.experiments.atlas.problems import COLUMNS, TRIGGER, WORLDS
from analysis.experiments.atlas.train import STANDARD
from analysis.problems.base import Training, fit
from analysis.problems.imbalance import ImbalanceProblem
from analysis.problems.kernel_regression import KernelRegressionProblem
from analysis.problems.train import train_all
from analysis.run.runner import execute
from analysis.store.results import load
from ssa_theory.mechanism import MECHANISMS, Misfit, mechanism
from tests.analysis.evidence import checks, found, missing, said

CPU = torch.device("cpu")
SMALL = {"seeds": 3, "steps": 12, "cooldown_steps": 4, "device": "cpu", "compile": "off"}
OWN = """
import torch
from ssa_theory.mechanism import Mechanism
from ssa_theory.mechanism.score_maps import Bilinear, ScoreMap

class Exploding(ScoreMap):
    def __call__(self, parameters, query, keys):
        return Bilinear()(parameters, query, keys) * torch.inf

MINE = Mechanism("exploding", score=Exploding())
FINE = Mechanism("fine", shift=None)
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("own") / "mine.py"
    path.write_text(OWN)
    return f"{path}:MINE"


@pytest.fixture(scope="module")
def small(mine: str) -> xr.Dataset:
    names = ("vanilla", "ssmax", "gated", "qk-norm", mine)
    problems = ("graph", "trigger", "imbalance")
    rates = {"mechanisms": names, "problems": problems, "learning_rates": (0.001, 0.3)}
    return ATLAS.run(AtlasConfig(**SMALL, **rates))


def test_a_cell_is_a_comparison_at_the_tuned_rate(small: xr.Dataset) -> None:
    """Whatever is trained beside it; on the scale of zero."""
    how = Training(12, 0.3, 4)
    models = [mechanism("gated")]
    own = train_all(TRIGGER, models, [0, 1, 2], how, CPU, rates=(0.001, 0.3))
    cell = small.sel(problem="trigger", mechanism="gated")
    assert cell["learning_rate"] == own["learning_rate"].item() == 0.3
    for name in ("tuning_error", "longer_error", "longer_settled"):
        assert_allclose(cell[name], own[name][0], rtol=1e-12)
    assert_allclose(cell["risk"], own["risk"][0], rtol=1e-12)
    assert_allclose(cell["excess"], own["risk"][0] / own["held_out_zero"], rtol=1e-12)
    assert cell["added_parameters"] == 2 * 5


def test_what_cannot_be_worn_or_diverges_has_a_reason_in_place_of_numbers(
    small: xr.Dataset,
) -> None:
    reason = small["reason"]
    absent = small["excess"].isnull().all("seed")
    assert ((reason == "") == ~absent).all()
    assert "mechanism ssmax needs" in reason.sel(mechanism="ssmax", problem="graph").item()
    assert "a value map" in reason.sel(mechanism="gated", problem="graph").item()
    broken = reason.sel(mechanism="exploding", problem=["graph", "trigger"])
    assert all("diverges at every rate of (0.001, 0.3)" in text for text in broken.values)
    assert small["diverged"].sel(mechanism="exploding", problem="graph").all()
    assert (small["learning_rate"].isnull() == absent).all()
    unworn = small.sel(mechanism="ssmax", problem="graph")
    assert unworn["longer_error"].isnull().all()
    assert not unworn["longer_settled"].any()
    assert (reason.sel(mechanism="vanilla") == "").all()


def test_norms_bound_scores_and_counted_rows_are_as_spiky_as_all_keys(small: xr.Dataset) -> None:
    graph = small.sel(problem="graph")
    bound, largest, norm = (graph[v] for v in ("effective_norm", "largest_score", "weight_norm"))
    assert (largest < bound * (1 + 1e-9)).sel(mechanism=["vanilla", "qk-norm"]).all()
    assert_allclose(bound.sel(mechanism="vanilla"), norm.sel(mechanism="vanilla"))
    assert (bound != norm).sel(mechanism="qk-norm").all()
    # 1 / (n sum p^2) of the rows of a graph, and of the softmax over every key of a sequence.
    model, how = mechanism("vanilla"), Training(12, 0.3, 4)
    assert graph["learning_rate"].sel(mechanism="vanilla") == how.learning_rate
    nodes = WORLDS["graph"].problem
    learned, worn = nodes.block([0, 1, 2], how, CPU), nodes.layer(model)
    inputs = [of for column in WORLDS["graph"].columns.values() for of in column.inputs(learned)]
    rows = worn.prediction(fit(learned, worn, how).parameters, inputs[0]).numpy()
    wanted = (1 / (rows.shape[1] * (rows**2).sum(1))).mean(0)
    assert_allclose(graph["spikiness"].sel(mechanism="vanilla"), wanted)
    problem = ImbalanceProblem()
    block, layer = problem.block([0], Training(5, 0.1), CPU), problem.layer(model)
    final = fit(block, layer, Training(5, 0.1)).parameters
    margin = block.evaluate(layer, fit(block, layer, Training(5, 0.1)))["margin"][:, 0].numpy()
    tokens, spiky = problem.sequence(0).tokens[0], []
    for n, m in zip(problem.evaluated, margin, strict=True):
        row = np.where(tokens[:n] == 0, np.exp(m), 1.0)
        row /= row.sum()
        both = 0 < (tokens[:n] == 0).sum() < n
        spiky.append(1 / (n * (row**2).sum()) if both else 1.0)
    (column,) = WORLDS["imbalance"].columns.values()
    assert column.spikiness is not None
    assert_allclose(column.spikiness(block, layer, final).item(), np.mean(spiky))


def counted(monkeypatch: pytest.MonkeyPatch, cut_after: int = 10**9) -> list[str]:
    """The cells that are trained from now on; after so many, the process is cut off."""
    module = import_module("analysis.experiments.atlas.train")
    trained, sized = [], module.block_size

    def one(config: AtlasConfig, bytes_per_seed: int) -> int:
        if len(trained) == cut_after:
            raise KeyboardInterrupt
        trained.append(f"{config.problems[0]} {mechanism(config.mechanisms[0]).name}")
        return sized(config, bytes_per_seed)

    monkeypatch.setattr(module, "block_size", one)
    return trained


@pytest.mark.usefixtures("quick_figures")
def test_only_what_is_new_is_trained(tmp_path: Path, mine: str, monkeypatch) -> None:
    few = SMALL | {"learning_rates": (0.1,), "problems": ("graph", "hierarchy")}
    config = AtlasConfig(**few, mechanisms=("vanilla", "scaled"))
    trained = counted(monkeypatch, cut_after=3)
    with pytest.raises(KeyboardInterrupt):
        execute(ATLAS, config, tmp_path)
    monkeypatch.undo()
    again = counted(monkeypatch)
    first, _, _ = execute(ATLAS, config, tmp_path)
    cells = [f"{p} {m}" for p in few["problems"] for m in ("vanilla", "scaled")]
    assert [*trained, *again] == cells
    again.clear()
    more = AtlasConfig(**few, mechanisms=("vanilla", "scaled", mine))
    second, claims, _ = execute(ATLAS, more, tmp_path, place="atlas@mine")
    assert again == [f"{p} exploding" for p in few["problems"]]
    assert second.attrs["config"] == more.model_dump_json()
    assert second["risk"].attrs["description"]
    assert second["problem"].values.tolist() == list(few["problems"])
    broken = second["reason"].sel(mechanism="exploding", problem="hierarchy").item()
    assert broken == "mechanism exploding diverges at every rate of (0.1,)"
    known = second.sel(mechanism=["vanilla", "scaled"])["risk"]
    assert known.equals(first["risk"])
    assert np.isfinite(known).all()
    assert checks(claims)["atlas-bayes"].passed == "passed"
    again.clear()
    one = config.model_copy(update={"problems": ("graph",)})
    execute(ATLAS, one, tmp_path, fresh=True, place="atlas@fresh")
    assert again == cells[:2]


def test_a_mechanism_of_ones_own_joins_the_standard_ones(mine: str, tmp_path: Path, capsys) -> None:
    assert AtlasConfig(mechanisms=(mine,)).mechanisms == (*STANDARD, mine)
    assert AtlasConfig(mechanisms=("sink", "root")).mechanisms[-2:] == ("sink", "root")
    assert set(AtlasConfig(mechanisms=("sink", "root")).mechanisms) == {*STANDARD, "root"}
    assert AtlasConfig(mechanisms=("vanilla", mine)).mechanisms == ("vanilla", mine)
    assert main(["run", "atlas", "--problems", "mars", "--out", str(tmp_path)]) == 2
    assert "problems must be among graph, graph-wide" in capsys.readouterr().err
    for change, message in (
        ({"problems": ()}, "problems must be different and at least one"),
        ({"learning_rates": (0.3, 0.1)}, "learning_rates must ascend"),
        ({"mechanisms": ("vanilla", "vanilla")}, "mechanisms must be different"),
    ):
        with pytest.raises(ValueError, match=message):
            AtlasConfig(**change)


@pytest.mark.usefixtures("quick_figures")
def test_the_command_says_who_diverges_and_the_figure_why_a_cell_is_grey(
    mine: str, tmp_path: Path, capsys
) -> None:
    flags = ["--preset", "smoke", "--learning-rates", "0.1", "--steps", "2", "--seeds", "2"]
    fine = mine.replace("MINE", "FINE")
    some = ["--problems", "graph", "--mechanisms", "vanilla", "ssa", "gated", mine, fine]
    assert main(["run", "atlas", *flags, *some, "--out", str(tmp_path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "substitute excess fine, graph" in printed
    assert "failed 1 [1, 1]" in printed
    assert "on every problem that it can wear; not so exploding" in printed
    (path,) = tmp_path.glob("*/result.nc")
    dataset = load(path)
    figure = ATLAS.plot(dataset)
    marks = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(text for text in marks if text.isalpha()) == ["a", "b"]
    assert "a: needs a value map; b: diverges at every rate of (0.1,)" in figure.get_supxlabel()


@pytest.mark.parametrize("name", WORLDS)
def test_the_ends_of_every_scale_are_in_order(name: str) -> None:
    world = WORLDS[name]
    block = world.problem.block([0, 1], Training(1, 0.1), CPU)
    for column in world.columns.values():
        bayes, naive = column.ends(block)
        assert bayes.shape == naive.shape == (2,)
        assert (bayes < naive).all()


def test_ends_by_a_second_computation() -> None:
    """The best single row by a search, the mixture of all tokens and the growing context by their
    problems.
    """
    graph = WORLDS["graph"]
    block = graph.problem.block([0], Training(1, 0.1), CPU)
    truth = block.target[..., 0].numpy()
    entropy = -(truth[truth > 0] * np.log(truth[truth > 0])).sum() / len(truth)
    best = minimize(lambda z: -(truth * log_softmax(z)).sum() / len(truth), np.zeros(len(truth)))
    assert graph.columns["graph"].ends(block)[1].item() == pytest.approx(best.fun - entropy, 1e-6)

    problem = ImbalanceProblem()
    imbalance = WORLDS["imbalance"].columns["imbalance"]
    share = [(problem.sequence(0).tokens[0, :n] == 0).mean() for n in problem.trained]
    errors = [2 * (s - 0.5) ** 2 if 0 < s < 1 else 0.0 for s in share]
    naive = imbalance.ends(WORLDS["imbalance"].problem.block([0], Training(1, 0.1), CPU))[1]
    assert naive.item() == pytest.approx(np.mean(errors))

    growing = KernelRegressionProblem(train_lengths=(4, 16, 64), test_lengths=(4, 16, 64, 512))
    described = growing.describe([3])
    ends = WORLDS["length"]
    block = ends.problem.block([3], Training(1, 0.1), CPU)
    for name, places in (("length", slice(0, 3)), ("length-beyond", slice(3, 4))):
        wanted = [described[v].isel(length=places).mean().item() for v in ("bayes", "naive")]
        assert_allclose(np.ravel(ends.columns[name].ends(block)), wanted)


def wearable() -> xr.DataArray:
    """Whether a column can be worn by a standard mechanism (problem, mechanism)."""

    def fits(name: str, column: str) -> bool:
        (world,) = (w for w in WORLDS.values() if column in w.columns)
        try:
            world.problem.layer(MECHANISMS[name])
        except Misfit:
            return False
        return True

    values = [[fits(m, c) for m in STANDARD] for c in COLUMNS]
    return xr.DataArray(values, {"problem": COLUMNS, "mechanism": list(STANDARD)})


def result(
    change: Callable[[xr.Dataset], None] = lambda dataset: None, seeds: int = 64
) -> xr.Dataset:
    """A result as of the preset `paper`: the errors above Bayes are 1 for all, but .5 of SSA on
    `graph`, 2 of it on `letters`, .5 of sinks on `denoise`, .01 on `location`, .5 on
    `trigger`, where it is less of SSA and gates.
    """
    fits = wearable()
    noise = 1 + 0.02 * np.random.default_rng(0).standard_normal((*fits.shape, seeds))
    dims = (*fits.dims, "seed")
    risk = xr.DataArray(noise, {**fits.coords, "seed": np.arange(seeds)}, dims).where(fits)
    for problem, name, factor in (
        ("graph", "ssa", 0.5),
        ("letters", "ssa", 2.0),
        ("denoise", "sink", 0.5),
        ("trigger", "ssa", 0.5),  # a value temperature has no floor
        ("trigger", "gated", 0.5),
    ):
        risk.loc[{"problem": problem, "mechanism": name}] *= factor
    risk.loc[{"problem": "location"}] *= 0.01
    risk.loc[{"problem": "trigger"}] *= 0.5
    ones = xr.ones_like(risk.isel(mechanism=0, drop=True))
    dataset = xr.Dataset(
        {
            "risk": 1 + risk,
            "bayes": ones,
            "naive": 2 * ones,
            "largest_score": 0 * risk + 1,
            "effective_norm": 0 * risk + 1,
            "diverged": risk.isnull() & False,
            "added_parameters": 0 * risk.mean("seed"),
            "reason": xr.where(fits, "", "needs another problem"),
        }
    )
    change(dataset)
    whole = ATLAS.summarise(AtlasConfig(), dataset, lambda about, total: lambda done: None)
    config = AtlasConfig().model_dump_json()
    return whole.assign_attrs(experiment="atlas", config=config)


def test_every_declared_cell_is_judged_by_what_was_trained() -> None:
    claims = ATLAS.claims(result())
    assert missing(claims, "best", "substitute", "substituted") == []
    best = {cell[0]: said(test) for cell, test in found(claims, "best").items()}
    harmed = {"letters", "denoise"}
    assert {name for name, outcome in best.items() if outcome == "harm"} == harmed
    assert set(best.values()) == {"benefit", "harm"}
    assert "sink" in found(claims, "best")["denoise",].statistic
    halves = {(t.effect.seeds, t.requested_seeds) for t in found(claims, "best").values()}
    assert halves == {(32, 32)}  # the others chose the rival
    rival = {cell: said(test) for cell, test in found(claims, "substitute").items()}
    assert rival["sink", "graph"] == "harm"
    assert rival["sink", "letters"] == rival["gated", "denoise"] == "benefit"
    own = {cell: said(test) for cell, test in found(claims, "substituted").items()}
    assert own["sink", "denoise"] == own["sink", "letters"] == "harm"
    assert own["sink", "graph"] == own["sink", "location"] == "benefit"
    assert {cell[0] for cell in own} == set(RIVALS)
    assert {c.passed for c in checks(claims).values()} == {"passed"}
    assert len(checks(claims)) == 6


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("bayes", {"problem": "denoise", "mechanism": "sink"}, 0.9),
        ("location", {"problem": "location", "mechanism": "vanilla"}, 1.1),
        ("floor-reached", {"problem": "trigger", "mechanism": "vanilla"}, 1.55),
        ("floor", {"problem": "trigger", "mechanism": "key-bias"}, 1.4),
        ("norm", {"problem": "denoise", "mechanism": "qk-norm"}, None),
    ],
)
def test_a_check_sees_what_breaks_it(name: str, at: dict[str, str], value: float | None) -> None:
    def broken(dataset: xr.Dataset) -> None:
        if value is None:
            dataset["largest_score"].loc[at] = 1.001
        else:
            noise = 0.001 * np.random.default_rng(0).standard_normal(4)
            dataset["risk"].loc[at] = value + noise

    failed = {k for k, c in checks(ATLAS.claims(result(broken, 4))).items() if c.passed != "passed"}
    assert failed == {f"atlas-{name}"}


def test_the_figure_shows_every_cell_and_who_leads() -> None:
    def sizes(dataset: xr.Dataset) -> None:
        dataset["added_parameters"] += xr.where(dataset["mechanism"] == "ssa", 4.0, 0.0)
        dataset["risk"].loc[{"mechanism": "ssa"}] -= 0.2

    whole = result(sizes, 5)
    figure = ATLAS.plot(whole)
    figure.draw_without_rendering()
    shown = [text.get_text() for text in figure.axes[0].texts if text.get_text() != "a"]
    mean = whole["excess"].mean("seed").values
    wanted = [f"{v:.3f}" if v < 0.0995 else f"{v:.2f}" for v in mean[np.isfinite(mean)]]
    assert sorted(shown) == sorted(wanted)
    leads = front(whole)["leading"]
    assert leads.sel(mechanism="ssa")
    assert set(leads["mechanism"].values[leads.values]) < {"ssa", "sink", "scaled"} | {*STANDARD}
    excess = whole["excess"].mean("seed")
    sink = excess.sel(mechanism="sink").fillna(excess.sel(mechanism="vanilla")).mean()
    assert front(whole)["error"].sel(mechanism="sink").item() == pytest.approx(sink.item())
    assert whole["best"].sel(problem="denoise") == "sink"
    ratio = whole["selective_band"].sel(problem="denoise", estimate="value")
    assert ratio.item() == pytest.approx(0.8 / 0.5, rel=0.05)


def test_the_order_puts_what_is_alike_side_by_side() -> None:
    table = np.array([[0.0, 0.1], [1.0, 0.9], [0.05, np.nan], [0.95, 1.0]])
    order = similar(table).tolist()
    assert sorted(order) == [0, 1, 2, 3]
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset((0, 2)), frozenset((1, 3))}
