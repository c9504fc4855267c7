"""Extending the project: a mechanism touches two files, a task two, and the shell takes a file."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure
from pydantic import Field
from torch import Tensor

from analysis.claims.bands import mean_band
from analysis.claims.builder import Lines
from analysis.claims.claim import Claim, Test
from analysis.claims.registry import parse
from analysis.claims.rule import judge_cells, verdict, when
from analysis.cli import main
from analysis.draw.figures import draw_points, new_figure
from analysis.experiments import EXPERIMENTS
from analysis.experiments.base import Experiment, Progress
from analysis.experiments.graph import GRAPH
from analysis.experiments.mechanisms import Mechanisms, chosen
from analysis.problems import (
    Block,
    Fitted,
    GraphProblem,
    Measure,
    Problem,
    Training,
    compare,
    train_all,
)
from analysis.problems.base import stack_members
from analysis.report.report import write_report
from analysis.run.runner import execute
from analysis.store.config import TrainingConfig
from analysis.store.results import load
from ssa_theory import SelfAttention
from ssa_theory.losses import squared_error
from ssa_theory.mechanism import (
    MECHANISMS,
    Form,
    Inputs,
    Layer,
    Look,
    Mechanism,
    Parameters,
    Role,
    Tokens,
    View,
)
from ssa_theory.mechanism.temperature import Temperature
from ssa_theory.seeds import Stream, member_generator

TINY = ["--preset", "smoke", "--seeds", "2", "--steps", "4", "--control-steps", "0"]
COLOR = "#12a45b"


def run(*arguments: object) -> int:
    """The exit code, whether main returns it or the flag parser exits with it."""
    try:
        return main([str(a) for a in arguments])
    except SystemExit as stop:
        return stop.code


# A mechanism: a class for its part, and an entry of the registry.


@dataclass(frozen=True)
class ByCoordinate(Temperature):
    """tau = exp(a x_1), a learned."""

    def shapes(self, role: Role, form: Form) -> dict[str, tuple[int, ...]]:
        return {"slope": ()}

    def __call__(self, parameters: Parameters, view: View) -> Tensor:
        return (parameters["slope"] * view.token[..., 0, :]).exp()


def test_a_mechanism_is_a_part_and_an_entry(tmp_path, monkeypatch):
    entry = Mechanism("toy", "exp(a x_1)", "here", query=ByCoordinate(), look=Look(COLOR, "X"))
    monkeypatch.setitem(MECHANISMS, "toy", entry)
    settings = {"seeds": 4, "steps": 30, "control_steps": 0, "learning_rates": (0.05,)}
    config = GRAPH.config(mechanisms=("vanilla", "toy"), **settings)
    result, claims, trained = execute(GRAPH, config, tmp_path)
    assert trained
    assert result["mechanism"].values.tolist() == ["vanilla", "toy"]
    tau = result["inverse_temperature"].sel(mechanism="toy")
    assert (tau.std("node") > 0.01).all()  # it has learned, a temperature a node
    assert not [c for c in claims if isinstance(c, Test)]  # topics are about SSA
    assert COLOR in (tmp_path / "graph" / "figure.svg").read_text()
    page = write_report(EXPERIMENTS, tmp_path).read_text()
    assert COLOR in page
    compared = compare(GraphProblem(), ["vanilla", "toy"], seeds=4, steps=30)
    assert np.array_equal(compared["l1_error"], result["l1_error"])
    assert compared["added_parameters"].values.tolist() == [0, 1]
    layer = SelfAttention(8, heads=2, mechanism="toy")
    assert layer(torch.randn(2, 5, 8)).shape == (2, 5, 8)
    assert layer.added_parameters() == 2


# A task: its law with an exact baseline, and a Problem with its Block.


@dataclass(frozen=True)
class MeanTask:
    """Contexts of n tokens, whose mean is to be said: tokens (context, n, dim)."""

    tokens: np.ndarray

    @classmethod
    def sample(cls, generator: np.random.Generator) -> "MeanTask":
        return cls(generator.standard_normal((16, 5, 3)))

    @property
    def target(self) -> np.ndarray:
        return self.tokens.mean(1)

    def one_token_risk(self) -> float:
        """Of the first token in place of the mean, per coordinate."""
        return float(((self.tokens[:, 0] - self.target) ** 2).mean())


@dataclass(frozen=True)
class MeanBlock(Block):
    """Contexts (context, token, dim, member) and their means."""

    seeds: Sequence[int]
    device: torch.device
    tokens: Tensor
    target: Tensor

    def loss(self, layer: Layer, parameters: Parameters, batch: None = None) -> Tensor:
        kind = parameters["value"].dtype
        inputs = Inputs(keys=Tokens(self.tokens.to(kind)), count=float(self.tokens.shape[1]))
        return squared_error(layer.output(parameters, inputs), self.target.to(kind))

    def evaluate(self, layer: Layer, fitted: Fitted) -> dict[str, Tensor]:
        return {"mse": self.loss(layer, fitted.parameters)}


@dataclass(frozen=True)
class MeanProblem(Problem):
    """Say the mean of the tokens, which uniform attention does exactly."""

    name: ClassVar[str] = "mean"
    measures: ClassVar = {"mse": Measure((), "mean squared error per coordinate")}
    form: ClassVar[Form] = Form(3, constant_query=True, values=True)

    def bytes_per_seed(self, training: Training) -> int:
        return 8 * 16 * 5 * 3 * 16

    def task(self, seed: int) -> MeanTask:
        return MeanTask.sample(member_generator(seed, Stream.DATA))

    def block(self, seeds: Sequence[int], training: Training, device: torch.device) -> MeanBlock:
        tasks = [self.task(s) for s in seeds]
        tokens, target = (
            stack_members([getattr(t, name) for t in tasks], device)
            for name in ("tokens", "target")
        )
        return MeanBlock(seeds, device, tokens, target)

    def describe(self, seeds: Sequence[int]) -> xr.Dataset:
        risk = [self.task(s).one_token_risk() for s in seeds]
        return super().describe(seeds).assign(one_token=("seed", risk))


class MeanConfig(TrainingConfig):
    """Say the mean."""

    steps: int = Field(60, ge=1, description="training steps")
    mechanisms: Mechanisms = Field(("vanilla", "ssa-mlp-value"), description="what is trained")


def train_means(config: MeanConfig, progress: Progress) -> xr.Dataset:
    training = Training(config.steps, 0.05, dtype=config.dtype)
    models, device = chosen(config.mechanisms), torch.device("cpu")
    return train_all(MeanProblem(), models, config.seed_range, training, device)


def add_band(config: MeanConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    return dataset.assign(mse_band=mean_band(dataset["mse"]))


def draw_means(config: MeanConfig, dataset: xr.Dataset) -> Figure:
    figure = new_figure(4.0, 3.0)
    axes = figure.subplots()
    for place, name in enumerate(config.mechanisms):
        draw_points(axes, np.array([place]), dataset["mse_band"].sel(mechanism=[name]), name)
    return figure


OWN = parse(
    {
        "measures": {"mse": {"says": "mean squared error", "favours": "smaller"}},
        "topics": {
            "mean": {
                "sentence": "Attention says the mean better than one token does.",
                "source": "this test",
                "measures": ["mse"],
                "factors": {"mechanism": ["vanilla", "ssa-mlp-value"]},
            }
        },
    }
)


def judge_means(config: MeanConfig, dataset: xr.Dataset) -> list[Claim]:
    lines, one = Lines("mean", config.seeds, OWN), dataset["one_token"].values
    for name in config.mechanisms:
        pair = {name: dataset["mse"].sel(mechanism=name).values, "one token": one}
        lines.compare("mean", {"mechanism": name}, "mse", pair)
    return lines.claims


def two_seeds(config: MeanConfig) -> int:
    return 2


MEAN = Experiment(
    name="mean",
    question="Can attention say the mean?",
    caption="Mean squared error.",
    config=MeanConfig,
    train=train_means,
    draw=draw_means,
    judge=judge_means,
    seeds_per_block=two_seeds,
    summarise=add_band,
)


def test_a_task_is_a_law_with_a_problem(tmp_path):
    config = MeanConfig(seeds=6)
    result, claims, trained = execute(MEAN, config, tmp_path)
    assert trained
    assert result["mse"].dims == ("mechanism", "seed")
    assert result["mse"].attrs["description"] == "mean squared error per coordinate"
    assert (result["mse"] < 0.05 * result["one_token"]).all()  # the exact baseline
    assert not result["diverged"].any()
    assert result.attrs["blocks"] == 3
    cells = judge_cells(OWN.topics["mean"], claims)
    assert (verdict(cells), when(OWN.topics["mean"], cells)) == (
        "supported",
        "holds in all 2 cells",
    )
    assert MECHANISMS["ssa-mlp-value"].look.color in (tmp_path / "mean/figure.svg").read_text()
    page = write_report(EXPERIMENTS | {"mean": MEAN}, tmp_path).read_text()
    assert all(f'id="mean-mean-{name}-mse"' in page for name in config.mechanisms)
    assert "mean (not in the registry)" in page
    assert MEAN.question in page
    assert not execute(MEAN, config, tmp_path)[2]
    compared = compare(MeanProblem(), ["vanilla", "ssa-mlp-value"], seeds=6, steps=60)
    assert compared["mse"].values == pytest.approx(result["mse"].values, rel=1e-3)
    with pytest.raises(ValueError, match="ssa-free needs the token of every query token"):
        compare(MeanProblem(), ["vanilla", "ssa-free"], seeds=2, steps=1)


# The shell: a mechanism in a file.

MINE = f"""
from ssa_theory import Mechanism
from ssa_theory.mechanism import Look
from ssa_theory.mechanism.normalizers import SoftmaxSink
from ssa_theory.mechanism.temperature import Selective, Signed

MINE = Mechanism("mine", query=Selective(), normalizer=SoftmaxSink(), look=Look("{COLOR}"))
"""


def test_the_shell_takes_a_mechanism_from_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file, moment = Path("mine.py"), 10**18

    def write(text: str) -> None:
        nonlocal moment
        file.write_text(text)
        moment += 10**9  # a file system may count in seconds
        os.utime(file, ns=(moment, moment))

    command = ["run", "graph", *TINY, "--mechanisms", "vanilla", "ssa", "./mine.py:MINE"]
    write(MINE)
    assert run(*command, "--out", "out") == 0
    assert "run in" in capsys.readouterr().out
    first = load(Path("out/graph/result.nc"))
    assert first["mechanism"].values.tolist() == ["vanilla", "ssa", "mine"]
    assert COLOR in Path("out/graph/figure.svg").read_text()
    assert "./mine.py:MINE, content" in Path("out/index.html").read_text()

    write(MINE)  # later, but the same
    assert run(*command, "--out", "out") == 0
    assert "unchanged, not run again" in capsys.readouterr().out

    write(MINE.replace("Selective()", "Selective(link=Signed())"))
    assert run(*command, "--out", "out") == 0
    assert "run in" in capsys.readouterr().out
    second = load(Path("out/graph/result.nc"))
    same = (first["l1_error"] == second["l1_error"]).all("seed")
    assert same.to_series().to_dict() == {"vanilla": True, "ssa": True, "mine": False}
    assert first.attrs["inputs"] != second.attrs["inputs"]


BROKEN = """
from dataclasses import dataclass
from ssa_theory import Mechanism
from ssa_theory.mechanism.normalizers import Normalizer

@dataclass(frozen=True)
class Rows(Normalizer):
    exponential = True

    def rows(self, parameters, scores, dim):
        {body}

MINE = Mechanism("mine", normalizer=Rows())
"""
ROWS = "mechanism mine needs a normaliser whose rows are finite and do not sum to less than zero, "
FILES = {
    "zero.py": "MINE = 1 / 0",
    "syntax.py": "MINE = (",
    "leaves.py": "import sys\nsys.exit(3)",
    "number.py": "MINE = 3",
    "mine.py": MINE,
    "taken.py": 'from ssa_theory import Mechanism\nMINE = Mechanism("ssa")',
    "nan.py": BROKEN.format(body="return scores / 0 * 0"),
    "negative.py": BROKEN.format(body="return -scores.softmax(dim)"),
    "shape.py": BROKEN.format(body="return scores.softmax(dim).sum(dim)"),
    "raises.py": BROKEN.format(body="return scores @ scores.new_ones(7, 7)"),
}
BAD = [
    ("vanila", "unknown mechanism 'vanila': did you mean vanilla"),
    ("sparsmax+ssa-query", "unknown mechanism 'sparsmax': did you mean sparsemax"),
    ("ssa+ssa-query", "mechanisms ssa and ssa-query cannot be joined, both change query"),
    ("./none.py:MINE", "there is no file none.py for mechanism './none.py:MINE'"),
    ("./zero.py:MINE", "the mechanism file zero.py fails with ZeroDivisionError: division by zero"),
    ("./syntax.py:MINE", "the mechanism file syntax.py fails with SyntaxError: "),
    ("./leaves.py:MINE", "the mechanism file leaves.py fails with SystemExit: 3: mend the file"),
    ("./number.py:MINE", "has no Mechanism named 'MINE' (it holds no Mechanism): name one"),
    ("./mine.py:YOURS", "has no Mechanism named 'YOURS' (it holds MINE): name one"),
    ("./taken.py:MINE", "has a name of the registry, 'ssa': rename it"),
    ("ssa-value", "mechanism ssa-value needs a value map"),
    ("sparsemax", "mechanism sparsemax needs the Brier score, as its rows have exact zeros"),
    ("./nan.py:MINE", f"{ROWS}got weights that are not finite: mend its rows"),
    ("./negative.py:MINE", f"{ROWS}got a sum of -1: mend its rows"),
    ("./shape.py:MINE", f"{ROWS}got shape (16, 1) for scores (16, 5, 1): mend its rows"),
    ("./raises.py:MINE", f"{ROWS}got RuntimeError: "),
]


@pytest.fixture(scope="module")
def stored(tmp_path_factory, undrawn) -> Path:
    """A folder with the files, and a result that no refusal may touch."""
    folder = tmp_path_factory.mktemp("shell")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    with undrawn():
        assert run("run", "graph", *TINY, "--out", folder / "out") == 0
    return folder


@pytest.mark.parametrize(("mechanism", "sentence"), BAD, ids=[name for name, _ in BAD])
def test_a_bad_mechanism_is_one_sentence_and_loses_nothing(
    stored, monkeypatch, capsys, mechanism, sentence
):
    monkeypatch.chdir(stored)
    monkeypatch.setattr("analysis.problems.base.train", None)  # nothing trains
    before = {p: p.read_bytes() for p in Path("out").rglob("*") if p.is_file()}
    assert run("run", "graph", *TINY, "--mechanisms", "vanilla", mechanism, "--out", "out") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert sentence in printed.err
    assert printed.err.startswith("ssa-theory: ")
    assert {p: p.read_bytes() for p in Path("out").rglob("*") if p.is_file()} == before


def test_models_that_diverge_are_counted_not_hidden(tmp_path, monkeypatch, capsys):
    """A temperature that is not finite is found in training: the models are left out, and said."""
    monkeypatch.chdir(tmp_path)
    Path("hot.py").write_text(
        """
from ssa_theory import Mechanism
from ssa_theory.mechanism.temperature import Temperature

class Hot(Temperature):
    def shapes(self, role, form):
        return {"slope": ()}

    def __call__(self, parameters, view):
        return parameters["slope"] / parameters["slope"]

MINE = Mechanism("hot", query=Hot())
"""
    )
    command = ["run", "graph", *TINY, "--mechanisms", "vanilla", "./hot.py:MINE", "--out", "out"]
    assert run(*command) == 0
    result = load(Path("out/graph/result.nc"))
    assert result["diverged"].sel(mechanism="hot").all()
    assert result["l1_error"].sel(mechanism="hot").isnull().all()
    assert result["l1_error"].sel(mechanism="vanilla").notnull().all()
    assert "2 diverged models left out" in Path("out/index.html").read_text()
