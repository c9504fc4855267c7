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
# # Your own task and experiment
#
# A new question needs three things: a data-generating process with an exact baseline, a model whose tensors carry the ensemble's
# axis `member` last, and an `Experiment` that ties them together. The runner then stores the result with its provenance, tests
# the claims and draws the figure, as for every other experiment. This notebook adds all three; its last cell counts their lines.
#
# **The question.** Voters vote on a fair coin y = +1 or -1, and a voter of kind k is right with known probability p_k. The
# posterior log-odds of y are the sum over voters of vote times log(p_k / (1 - p_k)) (Nitzan and Paroush, 1982). Attention sees
# every voter's kind and vote. Can it count the votes as Bayes does?

# %%
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement, repeat
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import xarray as xr
from IPython.display import SVG
from matplotlib.figure import Figure
from pydantic import Field
from scipy.special import logit
from scipy.stats import multinomial
from torch import Tensor

from analysis.claims.claim import Claim
from analysis.store.config import SeededConfig
from analysis.experiments.base import Experiment, Progress
from analysis.draw.figures import draw_points, left_out, new_figure
from analysis.problems.base import stack_members
from analysis.run.runner import execute
from analysis.claims.statistics import mean, mean_band, ratio
from ssa_theory import Stream, inverse_temperature, member_generator, resolve_device, train

pd.options.display.float_format = "{:.3g}".format
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The task and its exact baseline
# With five voters of three kinds all outcomes can be listed, up to the order of the voters, so the Bayes cross-entropy is a
# finite sum. By symmetry it is enough to look at y = +1.


# %%
# the task
@dataclass(frozen=True)
class VoteTask:
    """Votes on a fair coin. reliability: p of each kind of voter; a voter's kind is uniform and visible."""

    reliability: np.ndarray
    voters: int = 5

    def outcomes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All outcomes given y = +1: kind and vote of each voter (outcome, voter), and their probability (outcome,)."""
        kinds = len(self.reliability)
        drawn = np.array(list(combinations_with_replacement(range(2 * kinds), self.voters)))
        count = (drawn[..., None] == np.arange(2 * kinds)).sum(1)
        chance = np.concatenate([self.reliability, 1 - self.reliability]) / kinds
        return drawn % kinds, np.where(drawn < kinds, 1, -1), multinomial.pmf(count, self.voters, chance)

    def bayes_risk(self) -> float:
        """The expected -log P(y | votes) of the posterior, in nats."""
        kind, vote, probability = self.outcomes()
        return float(probability @ np.logaddexp(0, -(vote * logit(self.reliability)[kind]).sum(1)))


# %% [markdown]
# A baseline needs a second, independent check. Here: the same risk from sampled votes.

# %%
task = VoteTask(np.array([0.55, 0.7, 0.9]))
generator, samples = np.random.default_rng(0), 100_000
kind = generator.integers(3, size=(samples, task.voters))
vote = np.where(generator.random(kind.shape) < task.reliability[kind], 1, -1)
risk = np.logaddexp(0, -(vote * logit(task.reliability)[kind]).sum(1))
print(f"{len(task.outcomes()[2])} outcomes of total probability {task.outcomes()[2].sum():.12f}")
print(f"Bayes risk {task.bayes_risk():.4f} nats; from samples {risk.mean():.4f} +- {risk.std() / samples**0.5:.4f}")

# %% [markdown]
# ## The model
# One attention layer from a constant query gives the log-odds `scale * sum_i softmax_i(score) tau_i vote_i`, where score and
# temperature of a voter depend on its kind. Three forms of the value temperature: `vanilla` has tau = 1, `ssa` the paper's
# tau = 1 + tanh f, and `ssa-free` a tau of either sign. All start at the plain majority vote. The softmax alone can weigh voters
# against one another, but its weights sum to one: a jury of experts counts for no more than a jury of laymen who agree as much.
#
# A parameter has the shape (kind, member). Indexed by the kinds of the voters it becomes (outcome, voter, member).


# %%
# the model
TEMPERATURES = {"vanilla": lambda f: 1 + 0 * f, "ssa": inverse_temperature, "ssa-free": lambda f: 1 + f}


def cross_entropy(p: dict[str, Tensor], votes: tuple[Tensor, ...], tau: Callable[[Tensor], Tensor]) -> Tensor:
    """The exact expected -log P_hat(y | votes) of every member, in nats."""
    kind, vote, probability = votes
    weight = p["scale"] * p["score"][kind].softmax(1) * tau(p["f"])[kind]
    return (probability * F.softplus(-(weight * vote[..., None]).sum(1))).sum(0)


# %% [markdown]
# ## The experiment
# A config in which every field has a description, a training that returns a labelled dataset, and `draw` and `judge`, which make
# figure and claims of it. A seed names a task, here the reliabilities of the three kinds, whatever else is trained beside it:
# models are compared seed by seed. The claims' threshold, 0.001 nats, is fixed here before any run; their verdicts are computed.


# %%
# the experiment
class VotesConfig(SeededConfig):
    """Count the votes of voters of known reliability."""

    least: float = Field(0.5, ge=0.01, le=0.9, description="reliabilities are uniform between this and 0.95")
    steps: int = Field(400, ge=1, description="steps of Adam on the exact loss")


def train_votes(config: VotesConfig, progress: Progress) -> xr.Dataset:
    device, advance = resolve_device(config.device), progress("training", len(TEMPERATURES) * config.steps)
    tasks = [VoteTask(member_generator(s, Stream.GRAPH).uniform(config.least, 0.95, 3)) for s in config.seed_range]
    kind, vote = (torch.from_numpy(a).to(device) for a in tasks[0].outcomes()[:2])
    votes = kind, vote, stack_members([t.outcomes()[2] for t in tasks], device)
    zero = torch.zeros(3, len(tasks), dtype=torch.float64, device=device)
    start = {"scale": zero[0] + tasks[0].voters, "score": zero, "f": zero}
    risk, diverged = [], []
    for tau in TEMPERATURES.values():
        loss = partial(cross_entropy, tau=tau)
        trained = train(loss, start, batches=repeat(votes), steps=config.steps, learning_rate=0.05, progress=advance)
        risk.append(torch.where(trained.diverged, torch.nan, loss(trained.parameters, votes)).cpu())
        diverged.append(trained.diverged.cpu())
    dataset = xr.Dataset(coords={"variant": list(TEMPERATURES), "seed": list(config.seed_range)})
    about = {"description": "cross-entropy above that of the exact posterior (nats)"}
    dataset["gap"] = ("variant", "seed"), np.stack(risk) - [t.bayes_risk() for t in tasks], about
    dataset["diverged"] = ("variant", "seed"), np.stack(diverged), {"description": "whether training failed"}
    return dataset.assign(gap_band=mean_band(dataset["gap"]))


def draw(config: VotesConfig, dataset: xr.Dataset) -> Figure:
    figure = new_figure(6.0, 3.6)
    axes = figure.subplots()
    for v in dataset["variant"].values:
        draw_points(axes, np.array([v]), dataset["gap_band"].sel(variant=[v]), v)
    title = f"means and 95 % intervals over {dataset.sizes['seed']} seeds{left_out(dataset)}"
    axes.set(yscale="log", xlabel="model", ylabel="cross-entropy above exact Bayes (nats)", title=title)
    return figure


def judge(config: VotesConfig, dataset: xr.Dataset) -> list[Claim]:
    what, seeds = "mean over seeds of the cross-entropy above exact Bayes (nats)", dataset.sizes["seed"]
    gaps = {v: mean(dataset["gap"].sel(variant=v).values) for v in TEMPERATURES}
    return [Claim(f"votes-{v}", f"{v}: near exact Bayes", "here", what, "<", 1e-3, e, seeds) for v, e in gaps.items()]


CAPTION = "Cross-entropy above exact Bayes (nats, log axis) by model: means over seeds with 95 % intervals."
VOTES = Experiment("votes", "Can attention count votes as Bayes does?", CAPTION, VotesConfig, train_votes, draw, judge)

# %% [markdown]
# ## Run it
# `execute` stores the result in the folder `votes`, and trains again only if config or packages have changed. It cannot see
# changes in a notebook, hence `fresh=True`. First with voters who are all right more often than not.

# %%
honest, ledger, _ = execute(VOTES, VotesConfig(seeds=32), folder / "honest", fresh=True)
for claim in ledger:
    print(f"{claim.verdict:14} {claim.estimate!s:32} {claim.relation} {claim.threshold:g}  {claim.sentence}")
print("ssa / vanilla, ratio of mean gaps:", ratio(*(honest["gap"].sel(variant=v).values for v in ("ssa", "vanilla"))))
SVG(folder / "honest" / "votes" / "figure.svg")

# %% [markdown]
# ## Where the paper's form cannot reach Bayes
# A voter who is usually *wrong* is as informative as one who is usually right: Bayes turns the vote round. The paper's tau is
# never negative, and neither is a softmax, so in `vanilla` and `ssa` all votes count with one sign, that of the scale, and
# voters of the other sort can only be ignored. A tau of either sign has no such limit.

# %%
misleading, ledger, _ = execute(VOTES, VotesConfig(seeds=32, least=0.05), folder / "misleading", fresh=True)
for claim in ledger:
    print(f"{claim.verdict:14} {claim.estimate!s:26} {claim.relation} {claim.threshold:g}  {claim.sentence}")
print(
    "ssa / vanilla, ratio of mean gaps:", ratio(*(misleading["gap"].sel(variant=v).values for v in ("ssa", "vanilla")))
)
SVG(folder / "misleading" / "votes" / "figure.svg")

# %% [markdown]
# ## Read the result back
# What is stored is an ordinary netCDF file with everything needed to make it again.

# %%
stored = xr.open_dataset(folder / "misleading" / "votes" / "result.nc")
print(stored["gap_band"].to_pandas().to_string(), "\n")
print(stored["gap"].attrs["description"])
print(stored.attrs["config"])

# %%
parts = [cell for cell in In if cell.startswith(("# the task", "# the model", "# the experiment"))]
lines = [line for cell in parts for line in cell.splitlines() if line.strip() and not line.strip().startswith("#")]
print(f"task, model and experiment: {len(lines)} lines of code, docstrings included, imports not")
