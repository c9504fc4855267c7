"""The hierarchy experiment: its cells, training, and summary."""

from dataclasses import replace
from itertools import product
from typing import Annotated, cast

import numpy as np
import xarray as xr
from pydantic import Field

from analysis.claims.bands import mean_band, ratio_band
from analysis.experiments.base import Progress
from analysis.experiments.mechanisms import ComparedMechanisms, chosen
from analysis.experiments.settings import (
    Cell,
    CooldownConfig,
    cells_per_block,
    join_cells,
    train_cells,
)
from analysis.problems.heads import ClassifierHead, RowHead
from analysis.problems.hierarchy import Context, HierarchyProblem
from analysis.problems.sizes import check_result_fits
from ssa_theory.mechanism import VANILLA

HEADS = {"row": RowHead(), "classifier": ClassifierHead()}
MEASURE = {"row": "map_l1", "classifier": "tv"}
"""What the paper's claim on each head is about."""
CONTEXTS: tuple[Context, ...] = ("vocabulary", "prompt")
Tree = tuple[int, int, int]
"""Branching, depth, and the number of nodes."""
_SMALLEST_DIM = 2


class HierarchyConfig(CooldownConfig):
    """Predict the next token of a tree of tokens: uniform over the query and those below it that
    occur in the context.
    """

    branchings: tuple[Annotated[int, Field(ge=2, le=64)], ...] = Field(
        (2, 3), description="children k of a token that has any"
    )
    depths: tuple[Annotated[int, Field(ge=1, le=8)], ...] = Field(
        (1, 2, 3), description="levels D below the root"
    )
    most_nodes: int = Field(
        40, ge=3, le=512, description="larger trees than this number N of tokens are left out"
    )
    dim_shares: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field(
        (0.25, 0.5, 1.0),
        description=f"embedding dimensions d as shares of N, rounded, but at least {_SMALLEST_DIM}",
    )
    mechanisms: ComparedMechanisms = Field(
        (VANILLA, "scaled", "key-bias", "ssa-query", "ssa-free"),
        description="mechanisms to train; vanilla is the peer",
    )
    prompt_length: int = Field(8, ge=1, le=4096, description="tokens of a prompt, the query last")
    batch_size: int = Field(16, ge=1, le=65_535, description="prompts a step")
    pool: int = Field(
        32, ge=1, le=65_535, description="different batches of prompts, used over and over"
    )
    held_out: int = Field(
        256, ge=1, le=65_535, description="prompts of a seed to evaluate on, not trained on"
    )
    steps: int = Field(200, ge=1, le=1_000_000, description="training steps")

    def check(self) -> None:
        self.require_distinct("branchings", "depths", "dim_shares")
        if not self.cells:
            raise ValueError(
                f"most_nodes must allow a tree, got {self.most_nodes} for branchings "
                f"{self.branchings} and depths {self.depths}: raise most_nodes"
            )
        super().check()

    @property
    def cells(self) -> list[Cell[HierarchyProblem]]:
        """Every tree, dimension, head and context. Rates are tuned for each head, context and share
        of N, on the tree of the middle size.
        """
        prompts = self.build(HierarchyProblem)
        trees = [
            (k, depth, nodes)
            for k in self.branchings
            for depth in self.depths
            if (nodes := sum(k**n for n in range(depth + 1))) <= self.most_nodes
        ]
        models, training = chosen(self.mechanisms), self.training
        middle = sorted(trees, key=lambda tree: tree[-1])[(len(trees) - 1) // 2] if trees else None

        def problem(share: float, head: str, context: Context, tree: Tree) -> HierarchyProblem:
            k, depth, nodes = tree
            own, dim = HEADS[head], self._dim(share, nodes)
            return replace(prompts, branching=k, depth=depth, dim=dim, head=own, context=context)

        cells: dict[str, Cell[HierarchyProblem]] = {}
        for head, context, tree in product(HEADS, CONTEXTS, trees):
            for share in sorted(self.dim_shares):  # of equal dimensions the largest share remains
                p, tuned = (problem(share, head, context, t) for t in (tree, middle or tree))
                name = f"{head}-{context}-{p.tree}-d{p.dim}"
                cells[name] = Cell(name, p, training, models, (), tuned)
        return list(cells.values())

    def _dim(self, share: float, nodes: int) -> int:
        return max(_SMALLEST_DIM, round(share * nodes))

    def share_of(self, problem: HierarchyProblem) -> str:
        """The dimension as a share of N, such as N/4; where several give it, the largest."""
        nodes = problem.task.nodes
        share = max(s for s in self.dim_shares if self._dim(s, nodes) == problem.dim)
        return "N" if share == 1 else f"N/{1 / share:g}"


def seeds_per_block(config: HierarchyConfig) -> int:
    """By the memory of one model of the largest cell."""
    numbers = len(HierarchyProblem.measures) + max(config.depths)
    check_result_fits(config.seeds * len(config.cells) * len(config.mechanisms) * numbers)
    return cells_per_block(config)


def train(config: HierarchyConfig, progress: Progress) -> xr.Dataset:
    """Every mechanism on every seed's embeddings and prompts, in every cell."""
    parts = train_cells(config, progress)
    dataset = join_cells(config, parts, "cell", join="outer")  # levels that a tree lacks are NaN
    return dataset.drop_dims("step", errors="ignore").drop_vars("step", errors="ignore")


def summarise(config: HierarchyConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add what is drawn: ratios to vanilla, errors, temperatures; and the floor of the prompts."""
    row = [cell.problem.head == HEADS["row"] for cell in config.cells]
    error = dataset[MEASURE["row"]].where(
        xr.DataArray(row, dims="cell"), dataset[MEASURE["classifier"]]
    )
    dataset["error"] = error.assign_attrs(
        description="the measure of the paper's claim: map_l1 of head row, tv of head classifier"
    )
    dataset["error_band"] = mean_band(dataset["error"])
    error, vanilla = error.transpose("mechanism", "cell", "seed"), error.sel(mechanism=VANILLA)
    about = "ratio of errors to vanilla's, geometric mean with its 95 % interval over seeds"
    dataset["error_ratio"] = ratio_band(error, vanilla.drop_vars("mechanism"), about)
    # Cast, as numpy does not say that labels stay.
    log_temperature = cast(xr.DataArray, np.log(dataset["level_temperature"]))
    band = cast(xr.DataArray, np.exp(mean_band(log_temperature)))
    dataset["level_temperature_band"] = band.assign_attrs(
        description="temperature 1 / tau by level, geometric mean over tokens and seeds, with its "
        "95 % interval"
    )
    about = {
        "description": "map_l1 of the best rows softmax(z + log m) whatever z, which count equal "
        "tokens of a prompt; 0 in the vocabulary context, NaN where not known"
    }
    floors = [cell.problem.floor() for cell in config.cells]
    return dataset.assign(floor=("cell", floors, about))
