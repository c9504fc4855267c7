"""The paper's graph experiment on every graph that it could have drawn: cells, training, summary."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import xarray as xr
from pydantic import Field

from analysis.claims.bands import mean_band
from analysis.experiments.base import Progress
from analysis.experiments.mechanisms import ComparedMechanisms, chosen
from analysis.experiments.settings import (
    Cell,
    CooldownConfig,
    CooldownSteps,
    join_cells,
    train_cells,
)
from analysis.problems.heads import ClassifierHead, TiedHead
from analysis.problems.measures import SMALLEST_TAU
from analysis.problems.sizes import block_size, check_result_fits
from analysis.problems.small_graphs import SmallGraphProblem
from ssa_theory.mechanism import VANILLA
from tasks.small_graphs import LARGEST

QUANTILES = (0.025, 0.25, 0.5, 0.75, 0.975)
COMPARED = {"map_l1": "map", "final_gap": "gap"}
"""The measures whose ratio to vanilla is drawn, and their short names."""
THEORY, OWN = "row", "sampled"
"""The cells of the paper's theory, and of its experiment."""


class PaperGraphConfig(CooldownConfig):
    """Predict the next token on every connected simple graph: uniform over a node and its
    neighbours. One seed is one graph; 11,117 seeds have each graph on 8 nodes once.
    """

    seeds: int = Field(
        11_117,
        ge=1,
        le=10_000_000,
        description="number of seeds: graphs, in a fixed random order (11,117 are all on 8 nodes)",
    )
    nodes: int = Field(8, ge=2, le=LARGEST, description="number of nodes K of the graphs")
    row_dim: int = Field(
        4, ge=1, le=512, description="embedding dimension d of the row head, below K"
    )
    dim: int = Field(
        8, ge=1, le=512, description="embedding dimension d of the other heads (tied: at least K)"
    )
    mechanisms: ComparedMechanisms = Field(
        (VANILLA, "scaled", "ssa-degree", "ssa-query", "ssa-free"),
        description="mechanisms to train; vanilla is the peer",
    )
    row_steps: int = Field(400, ge=4, le=1_000_000, description="training steps of row and tied")
    steps: int = Field(300, ge=4, le=1_000_000, description="training steps of the classifiers")
    cooldown_steps: CooldownSteps = 100
    batch_size: int = Field(
        64, ge=1, le=65_535, description="labels a step, where they are sampled"
    )

    @property
    def cells(self) -> list[Cell[SmallGraphProblem]]:
        """The heads: the paper's theory first, its experiment last."""
        low, high = (SmallGraphProblem(self.nodes, d) for d in (self.row_dim, self.dim))
        fixed, learned = ClassifierHead(), ClassifierHead(learned_embeddings=True)
        sampled = replace(high, head=learned, labels="sampled", batch_size=self.batch_size)
        problems = {
            THEORY: (low, self.row_steps),
            "tied": (replace(high, head=TiedHead()), self.row_steps),
            "fixed E": (replace(high, head=fixed), self.steps),
            "learned E": (replace(high, head=learned), self.steps),
            OWN: (sampled, self.steps),
        }
        models = chosen(self.mechanisms)
        return [
            Cell(name, problem, replace(self.training, steps=n), models, (n // 4, 2 * n // 3))
            for name, (problem, n) in problems.items()
        ]


_MODEL = ("cell", "mechanism", "seed")
_STAGES = ("quarter", "two thirds")
"""Shares of the steps after which the gap is measured, beside the end."""


def seeds_per_block(config: PaperGraphConfig) -> int:
    """By what a step of the largest cell needs of a model: of the labels few are read at a step."""
    size = len(config.cells) * len(config.mechanisms) * (config.nodes + len(_STAGES) + 5)
    check_result_fits(config.seeds * size)
    held = max(c.problem.bytes_per_seed(c.training) for c in config.cells)
    step = replace(config.training, steps=1, cooldown_steps=0)
    at_once = max(c.problem.bytes_per_seed(step) for c in config.cells)
    return block_size(config, held, at_once=at_once)


def train(config: PaperGraphConfig, progress: Progress) -> xr.Dataset:
    """Every mechanism on every seed's graph, in every cell."""
    parts = [
        part.rename(step="stage").assign_coords(stage=list(_STAGES))
        for part in train_cells(config, progress)
    ]
    own = [str(name) for name, v in parts[0].data_vars.items() if "mechanism" in v.dims]
    dataset = join_cells(config, parts, "cell", data_vars=own, coords="minimal", compat="equals")
    temperature = dataset["inverse_temperature"].astype(np.float32)
    return dataset.assign(inverse_temperature=temperature)


def summarise(config: PaperGraphConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add slopes, ratios to vanilla and their quantiles over graphs, and what is drawn."""
    # Cast, as numpy does not say that labels stay.
    log_tau = cast(xr.DataArray, np.log(dataset["inverse_temperature"].clip(min=SMALLEST_TAU)))
    log_temperature, degree = -log_tau, dataset["degree"]
    apart = degree - degree.mean("node")
    moment = (apart**2).sum("node")
    slope = (apart * log_temperature).sum("node") / moment.where(moment > 0)
    slope = slope.where(~dataset["diverged"]).transpose(*_MODEL)
    dataset["temperature_slope"] = slope.assign_attrs(
        description="least-squares slope of log(1 / tau) on the number of neighbours, per model; "
        "NaN for a graph whose nodes have equally many"
    )
    levels = np.arange(1, config.nodes)
    each: Sequence[xr.DataArray] = [log_temperature.where(degree == k).mean("node") for k in levels]
    by_degree = xr.concat(each, "neighbours").assign_coords(neighbours=levels)
    band = cast(xr.DataArray, np.exp(mean_band(by_degree)))
    dataset["temperature_by_degree"] = band.assign_attrs(
        description="temperature 1 / tau by number of neighbours, geometric mean over graphs, with "
        "its 95 % interval"
    )
    for measure, short in COMPARED.items():
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = dataset[measure] / dataset[measure].sel(mechanism=VANILLA, drop=True)
        dataset[f"{short}_ratio"] = ratio.quantile(QUANTILES, dim="seed").assign_attrs(
            description=f"quantiles over graphs of the ratio of {measure} to vanilla's"
        )
    for name in ("map_l1", "l1_error", "final_gap"):
        dataset[f"{name}_band"] = mean_band(dataset[name])
    return dataset
