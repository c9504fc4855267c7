# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own task, mechanism and experiment
#
# A new question needs a task with an exact baseline, and a `Problem` that makes it trainable. Then
# `compare` trains any mechanism on it, of the registry or your own. An `Experiment` record adds
# claims, a figure and a stored result.
#
# **The question.** Voters vote on a fair coin y = +1 or -1, and a voter of kind k is right with
# known probability p_k. The posterior log-odds of y are the sum over voters of
# vote times log(p_k / (1 - p_k)) (Nitzan and Paroush, 1982). Attention sees every voter's kind and
# vote. Can it count the votes as Bayes does?

# %%
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import xarray as xr
from IPython.display import SVG
from matplotlib.figure import Figure
from pydantic import Field
from scipy.special import entr, expit, logit
from scipy.stats import multinomial
from torch import Tensor

from analysis.claims.bands import mean_band
from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.registry import parse
from analysis.claims.rule import judge_cells, verdict, when
from analysis.claims.words import with_interval
from analysis.draw.figures import draw_points, left_out, new_figure
from analysis.experiments.base import Experiment, Progress
from analysis.experiments.mechanisms import Mechanisms, chosen
from analysis.problems import Block, Fitted, Measure, Problem, Training, compare, train_all
from analysis.problems.base import stack_members
from analysis.run.runner import execute
from analysis.store.config import TrainingConfig
from ssa_theory import Form, Inputs, Layer, Stream, Tokens, member_generator, resolve_device

pd.options.display.float_format = "{:.3g}".format
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The task and its exact baseline
# With three voters of three kinds all outcomes can be listed, up to the order of the voters, so the
# Bayes cross-entropy is a finite sum.


# %%
@dataclass(frozen=True)
class VoteTask:
    """Votes on a fair coin. reliability: p of each kind of voter; a voter's kind is uniform."""

    reliability: np.ndarray
    voters: int = 3

    def outcomes(self) -> tuple[np.ndarray, ...]:
        """Of every outcome: kind and vote of each voter, probability, and posterior of y = +1."""
        kinds, right = len(self.reliability), self.reliability
        drawn = np.array(list(combinations_with_replacement(range(2 * kinds), self.voters)))
        count = (drawn[..., None] == np.arange(2 * kinds)).sum(1)
        laws = (np.append(right, 1 - right) / kinds, np.append(1 - right, right) / kinds)
        probability = np.mean([multinomial.pmf(count, self.voters, law) for law in laws], 0)
        kind, vote = drawn % kinds, np.where(drawn < kinds, 1, -1)
        return kind, vote, probability, expit((vote * logit(right)[kind]).sum(1))

    def bayes_risk(self) -> float:
        """The expected -log P(y | votes) of the posterior, in nats."""
        _, _, probability, p = self.outcomes()
        return float(probability @ (entr(p) + entr(1 - p)))


# %% [markdown]
# A baseline needs a second, independent check. Here: the same risk from sampled votes.

# %%
task = VoteTask(np.array([0.55, 0.7, 0.9]))
generator, samples = np.random.default_rng(0), 100_000
kind = generator.integers(3, size=(samples, task.voters))
vote = np.where(generator.random(kind.shape) < task.reliability[kind], 1, -1)  # of a coin y = +1
risk = np.logaddexp(0, -(vote * logit(task.reliability)[kind]).sum(1))
spread = risk.std() / samples**0.5
print(f"Bayes risk {task.bayes_risk():.4f} nats; from samples {risk.mean():.4f} +- {spread:.4f}")

# %% [markdown]
# ## The problem: the task made trainable
# A voter is a token: its kind one-hot, and its vote. The query is a learned constant, the log-odds
# one coordinate of the output: `sum_j p_j tau_j (a_kind + b vote)`, at the start the majority vote.
# A `Problem` says the form of its layers and which task a seed names; its `Block` holds the data
# and has the loss, here exact, and the evaluation. Tensors carry the models on their last axis.


# %%
@dataclass(frozen=True)
class VotesBlock(Block):
    """Votes: tokens (outcome, voter, 4, 1), probability and posterior (outcome, member)."""

    seeds: Sequence[int]
    device: torch.device
    tokens: Tensor
    probability: Tensor
    posterior: Tensor
    bayes: Tensor

    def loss(self, layer: Layer, parameters: dict[str, Tensor], batch: None = None) -> Tensor:
        kind, voters = parameters["value"].dtype, self.tokens.shape[1]
        y = layer.output(parameters, Inputs(keys=Tokens(self.tokens.to(kind)), count=float(voters)))
        log_odds, target = voters * y[:, -1], self.posterior.to(kind)
        each = F.binary_cross_entropy_with_logits(log_odds, target, reduction="none")
        return (self.probability.to(kind) * each).sum(0)

    def evaluate(self, layer: Layer, fitted: Fitted) -> dict[str, Tensor]:
        return {"gap": self.loss(layer, fitted.parameters) - self.bayes}


@dataclass(frozen=True)
class VotesProblem(Problem):
    """Count the votes of voters whose reliabilities are uniform between `least` and 0.95."""

    least: float = 0.5
    name: ClassVar[str] = "votes"
    measures: ClassVar = {"gap": Measure((), "cross-entropy above exact Bayes (nats)")}
    form: ClassVar[Form] = Form(4, constant_query=True, values=True)

    def task(self, seed: int) -> VoteTask:
        return VoteTask(member_generator(seed, Stream.GRAPH).uniform(self.least, 0.95, 3))

    def bytes_per_seed(self, training: Training) -> int:
        return 8 * 64 * len(self.task(0).outcomes()[2])

    def block(self, seeds: Sequence[int], training: Training, device: torch.device) -> VotesBlock:
        tasks = [self.task(s) for s in seeds]
        kind, vote, *_ = tasks[0].outcomes()
        tokens = torch.from_numpy(np.append(np.eye(3)[kind], vote[..., None], 2)).unsqueeze(-1)
        laws = [stack_members([t.outcomes()[i] for t in tasks], device) for i in (2, 3)]
        bayes = torch.tensor([t.bayes_risk() for t in tasks], device=device)
        return VotesBlock(seeds, device, tokens.to(device), *laws, bayes)


# %% [markdown]
# ## Compare mechanisms, your own among them
# `ssa-mlp-value` has the paper's value temperature `tau = 1 + tanh f`, between 0 and 2. The one in
# the file allows either sign, `tau = 1 + f`. `compare` takes a `Mechanism` as well, but a file can
# also be named from the shell and in a stored config. First with voters who are all right more
# often than not.

# %%
(folder / "mine.py").write_text("""
from ssa_theory import Mechanism
from ssa_theory.mechanism.scores import MLP
from ssa_theory.mechanism.temperature import Selective, Signed

MINE = Mechanism("mine", "values times 1 + f", value=Selective(MLP(), Signed(), position=False))
""")
mechanisms = ("vanilla", "ssa-mlp-value", f"{folder}/mine.py:MINE")
honest = compare(VotesProblem(), mechanisms, seeds=32, steps=300)
honest[["gap", "added_parameters"]].mean("seed").to_dataframe()

# %% [markdown]
# ## An experiment: where the paper's form cannot reach Bayes
# A voter who is usually *wrong* is as informative as one who is usually right: Bayes turns the vote
# round. The value `a_kind + b vote` rises with the vote for every kind or for none, and no positive
# tau changes its sign.
#
# What is claimed is declared before any run: the sentence, the factors with their levels, and the
# measure. A cell is a level of each factor. It holds where the effect, a log ratio paired by seed,
# is beyond the margin of 5 % with its whole interval.


# %%
REGISTRY = parse(
    {
        "measures": {
            "gap": {
                "says": "cross-entropy above exact Bayes (nats)",
                "favours": "smaller",
                "floor": 1e-4,  # what is below is rounding
            },
        },
        "topics": {
            "votes": {
                "sentence": "A value temperature of either sign counts votes better.",
                "source": "this notebook",
                "measures": ["gap"],
                "factors": {"against": ["vanilla", "ssa-mlp-value"]},
            },
        },
    }
)
TOPIC = REGISTRY.topics["votes"]


class VotesConfig(TrainingConfig):
    """Count the votes of voters of known reliability."""

    least: float = Field(0.05, ge=0.01, le=0.9, description="least reliability of a kind of voter")
    steps: int = Field(300, ge=1, description="steps of Adam on the exact loss")
    mechanisms: Mechanisms = Field(mechanisms, description="mechanisms to train")


def train(config: VotesConfig, progress: Progress) -> xr.Dataset:
    training = Training(config.steps, 0.05, dtype=config.dtype, compile=config.compile)
    models, device = chosen(config.mechanisms), resolve_device(config.device)
    result = train_all(VotesProblem(config.least), models, config.seed_range, training, device)
    return result.assign(gap_band=mean_band(result["gap"]))


def draw(config: VotesConfig, dataset: xr.Dataset) -> Figure:
    figure = new_figure(6.0, 3.6)
    axes = figure.subplots()
    for i, name in enumerate(dataset["mechanism"].values.tolist()):
        draw_points(axes, np.array([i]), dataset["gap_band"].sel(mechanism=[name]), name)
    title = f"means and 95 % intervals over {config.seeds} seeds{left_out(dataset)}"
    axes.set(yscale="log", xticks=[], ylabel="cross-entropy above exact Bayes (nats)", title=title)
    axes.legend()
    return figure


def judge(config: VotesConfig, dataset: xr.Dataset) -> list[Claim]:
    lines, gap = Lines("votes", config.seeds, REGISTRY), dataset["gap"]
    for peer in TOPIC.factors["against"]:
        pair = {name: gap.sel(mechanism=name).values for name in ("mine", peer)}
        lines.compare(TOPIC.name, {"against": peer}, "gap", pair)
    return lines.claims


QUESTION = "Can attention count votes as Bayes does, if some voters are usually wrong?"
CAPTION = "Cross-entropy above exact Bayes: means over seeds, 95 % intervals."
VOTES = Experiment("votes", QUESTION, CAPTION, VotesConfig, train, draw, judge)

# %% [markdown]
# `execute` runs it as every other experiment: it stores the result with its provenance, tests what
# is claimed and draws the figure. The verdict and its *when* follow by rule. It cannot see changes
# in a notebook, hence `fresh=True`. What it stores, `votes/result.nc`, is an ordinary netCDF file
# with everything needed to make it again.

# %%
result, claims, _ = execute(VOTES, VotesConfig(seeds=32), folder, fresh=True)
cells = judge_cells(TOPIC, claims)
print(f"{verdict(cells)}: {TOPIC.sentence} It {when(TOPIC, cells)}.")
for claim in claims:
    print(claim.statistic, with_interval(claim.effect, REGISTRY.measures[claim.measure]))
    print("  made of", ", ".join(f"{name} {part}" for name, part in claim.parts.items()))
SVG(folder / "votes" / "figure.svg")
