"""Imbalanced tokens: the grid of imbalances and targets, its training."""

from dataclasses import replace
from itertools import product

import numpy as np
import xarray as xr
from pydantic import Field

from analysis.experiments.base import Progress
from analysis.experiments.mechanisms import ComparedMechanisms, chosen
from analysis.experiments.settings import (
    Cell,
    CooldownConfig,
    CooldownSteps,
    Steps,
    cells_per_block,
    train_cell,
)
from analysis.problems.grid import Grid
from analysis.problems.imbalance import ImbalanceProblem
from analysis.problems.sizes import check_result_fits
from ssa_theory.mechanism import VANILLA

PAPERS = "ssa-position"
"""The paper's schedule."""
RANDOM = ", random"
QUANTILES = (0.025, 0.5, 0.975)


class ImbalanceConfig(CooldownConfig):
    """Predict alpha a + (1 - alpha) b whatever the counts, while b occurs n^power times as often as
    a among the first n tokens.
    """

    powers: tuple[float, ...] = Field(
        (0.0, 0.25, 0.5, 0.75, 1.0), description="powers of n, each in [-1, 1]; 0 is balanced"
    )
    shares: tuple[float, ...] = Field(
        (0.25, 0.5, 0.75), description="shares alpha of a in the target, each in (0, 1)"
    )
    power: float = Field(
        0.5, description="the power (one of powers) of curves by position and of random sequences"
    )
    share: float = Field(0.5, description="likewise, the share (one of shares)")
    cosine: float = Field(0.0, gt=-1, lt=1, description="cosine of the embeddings of a and b")
    train_length: int = Field(256, ge=4, le=65_536, description="the last training position")
    positions: int = Field(
        48,
        ge=2,
        le=1024,
        description="training positions at most, log-spaced from 2, equally weighted",
    )
    beyond: int = Field(
        8, ge=2, le=64, description="evaluate up to this many times the training length"
    )
    mechanisms: ComparedMechanisms = Field(
        (
            *(VANILLA, "scaled", "key-bias", PAPERS, "ssa"),
            *("released", "ssmax", "asentmax-position", "yarn", "power"),
        ),
        description=f"mechanisms to train; {VANILLA} is the peer",
    )
    steps: Steps = 400
    cooldown_steps: CooldownSteps = 100

    def check(self) -> None:
        self.require_distinct("powers", "shares")
        self.require_listed("power", "powers")
        self.require_listed("share", "shares")
        super().check()

    @property
    def problems(self) -> list[ImbalanceProblem]:
        """Every power and share on the deterministic sequence, then the curves' on random ones."""
        shown = self.build(ImbalanceProblem)
        each = product(self.powers, self.shares)
        grid = [replace(shown, power=power, share=share) for power, share in each]
        return [*grid, replace(shown, random=True)]

    @property
    def shown(self) -> str:
        """The cell of the curves by position."""
        return cell_name(self.problems[-1]).removesuffix(RANDOM)

    @property
    def cells(self) -> list[Cell[Grid]]:
        """All problems in one program."""
        problems = tuple(self.problems)
        grid = Grid("cell", tuple(map(cell_name, problems)), problems)
        return [Cell("", grid, self.training, chosen(self.mechanisms))]


def cell_name(problem: ImbalanceProblem) -> str:
    """Of a cell of the result."""
    return f"{problem.power:g}, {problem.share:g}" + RANDOM * problem.random


def seeds_per_block(config: ImbalanceConfig) -> int:
    """By the memory of one seed in all cells."""
    problems = config.problems
    numbers = 3 * len(problems[0].evaluated) * len(config.mechanisms) * len(problems)
    check_result_fits(config.seeds * numbers)
    return cells_per_block(config)


def train(config: ImbalanceConfig, progress: Progress) -> xr.Dataset:
    """Every mechanism in every cell, and the least loss of its schedules."""
    problems, seeds = config.problems, config.seed_range
    models, first = chosen(config.mechanisms), problems[0]
    advance = progress("exact optima of the schedules", len(models) * len(problems))
    best = np.empty((len(models), len(seeds), len(problems), len(first.trained)))
    for i, model in enumerate(models):
        for c, problem in enumerate(problems):
            best[i, :, c] = [problem.best_error(model, s) for s in seeds]
            advance(1)
    dataset = train_cell(config, progress)
    for name, values in dataset.items():
        if {"mechanism", "position"} <= set(values.dims):
            dataset[name] = values.astype(np.float32, keep_attrs=True)
    parameters = [first.form.dim**2 + m.added_parameters(first.form) for m in models]
    each = ("mechanism", "seed", "cell")
    dataset["best_loss"] = (each, best.mean(-1), {"description": _BEST})
    whole = np.full((*best.shape[:-1], len(first.evaluated)), np.nan, np.float32)
    whole[..., : best.shape[-1]] = best
    about = {"description": "squared error by position of that schedule; NaN beyond the training"}
    dataset["best_error"] = ((*each, "position"), whole, about)
    return dataset.assign(
        power=("cell", [p.power for p in problems], {"description": "power of n that kappa_n is"}),
        share=("cell", [p.share for p in problems], {"description": "share alpha of a"}),
        parameters=("mechanism", parameters, {"description": "parameters of a model"}),
    )


_BEST = (
    "the least mean squared error over the training positions that any model with this mechanism's "
    "schedule can have, exact; NaN where it is not known"
)


def summarise(config: ImbalanceConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add quantiles over seeds, which differ by initialisation only where nothing is random."""
    for name in ("loss", "loss_beyond", "error", "margin"):
        quantiles = dataset[name].quantile(QUANTILES, dim="seed")
        about = f"quantiles over seeds: {dataset[name].attrs['description']}"
        dataset[f"{name}_quantile"] = quantiles.assign_attrs(description=about)
    return dataset
