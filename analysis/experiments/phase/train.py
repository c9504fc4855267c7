"""Phase maps: the grid of settings, its training in one program per dimension and mechanism, and
the tests of its cells.
"""

from typing import cast, get_args

import numpy as np
import torch
import xarray as xr
from pydantic import Field
from scipy.stats import false_discovery_control
from torch import Tensor

from analysis.claims.claim import FALSE_DISCOVERY_RATE
from analysis.claims.statistics import sign_flip_tests
from analysis.experiments.base import Progress
from analysis.experiments.mechanisms import ComparedMechanisms, chosen
from analysis.experiments.settings import Cell, CellsConfig
from analysis.problems import GraphProblem
from analysis.problems.base import stack_members, train_layers
from analysis.problems.rows import ROW_MEASURES, RowBlock
from analysis.problems.sizes import block_size, check_result_fits
from ssa_theory.device import resolve_device
from ssa_theory.mechanism import VANILLA, Tokens
from ssa_theory.seeds import Stream, member_generator
from tasks import MarkovGraphTask, graph_from_family, unit_embeddings
from tasks.families import RandomFamily

ALL = "all families"
FAMILY_WISE_RATE = 0.05


class PhaseConfig(CellsConfig):
    """Learn the transition matrices of many graphs on the exact loss, in every cell of a grid."""

    seeds: int = Field(
        68,
        ge=1,
        le=10_000_000,
        description="number of seeds; a seed names graphs, embeddings and initialisation",
    )
    nodes: int = Field(
        8, ge=4, le=32, description="number of nodes K, of mean degree 3 in the random families"
    )
    families: tuple[RandomFamily, ...] = Field(get_args(RandomFamily), description="graph families")
    dims: tuple[int, ...] = Field((2, 3, 4, 6, 8), description="embedding dimensions d, ascending")
    similarities: tuple[float, ...] = Field(
        (0.0, 0.3, 0.6, 0.9),
        description="strengths of the component common to all embeddings, ascending",
    )
    steps: tuple[int, ...] = Field(
        (50, 200, 1000),
        description="steps at which one and the same training is measured, ascending",
    )
    mechanisms: ComparedMechanisms = Field(
        (VANILLA, "ssa", "ssa-free"), description="what is trained; vanilla is the peer"
    )
    learning_rate: float = Field(0.05, gt=0, description="step size of Adam")

    def check(self) -> None:
        self.require_ascending("dims", 1, 64)
        self.require_ascending("similarities", 0, 1)
        self.require_ascending("steps", 1, 10_000_000)
        self.require_distinct("families")
        super().check()

    @property
    def cells(self) -> list[Cell[GraphProblem]]:
        """One a dimension, whose layers are trained."""
        training, models = (
            self.training_of(self.steps[-1], self.learning_rate),
            chosen(self.mechanisms),
        )
        problems = [GraphProblem(nodes=self.nodes, dim=dim) for dim in self.dims]
        return [Cell(f"d = {p.dim}", p, training, models) for p in problems]

    @property
    def models(self) -> int:
        """The number of models that a run trains."""
        cells = len(self.families) * len(self.dims) * len(self.similarities)
        return self.seeds * cells * len(self.mechanisms)


def seeds_per_block(config: PhaseConfig) -> int:
    """A block is one tensor program per dimension and mechanism."""
    check_result_fits(2 * config.models * len(config.steps))
    # Target and logits with gradients and the exponential; embeddings and queries; W with its
    # gradient and Adam's moments.
    nodes, dim = config.nodes, config.dims[-1]
    numbers = nodes * (4 * nodes + 3 * dim) + 4 * dim**2
    models = len(config.families) * len(config.similarities)
    return block_size(config, 4 * numbers * models, models)


def train(config: PhaseConfig, progress: Progress) -> xr.Dataset:
    """Every cell and mechanism: one tensor program per dimension and mechanism.

    Members are (seed, family, similarity), the last running fastest. Returns l1_error and
    cross_entropy_gap (mechanism, dim, similarity, step, family, seed), NaN where diverged
    (mechanism, dim, similarity, family, seed).
    """
    programs = len(config.dims) * len(config.mechanisms)
    advance = progress(f"training {config.models:,} models", programs * config.steps[-1])
    target, degree = _graphs(config, resolve_device(config.device))
    members = {
        "seed": list(config.seed_range),
        "family": list(config.families),
        "similarity": list(config.similarities),
    }
    parts = [
        train_layers(
            _block(config, cell, target, degree),
            map(cell.problem.layer, cell.mechanisms),
            cell.training,
            {name: ROW_MEASURES[name] for name in _KEPT},
            {name: len(values) for name, values in members.items()},
            record=config.steps,
            progress=advance,
        )
        for cell in config.cells
    ]
    dim = xr.DataArray(list(config.dims), dims="dim", name="dim")
    dataset: xr.Dataset = xr.concat([xr.Dataset(part) for part in parts], dim, join="exact")
    return (
        dataset.rename(l1_by_step="l1_error")
        .assign_coords(
            members
            | {"mechanism": [m.name for m in chosen(config.mechanisms)], "step": list(config.steps)}
        )
        .transpose("mechanism", "dim", "similarity", ..., "family", "seed")
    )


_KEPT = ("l1_by_step", "cross_entropy_gap", "underflow", "rank_deficient")


def _graphs(config: PhaseConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """P* (node, next, member) and the number of neighbours (node, member)."""
    tasks = [
        MarkovGraphTask.from_graph(
            graph_from_family(f, config.nodes, generator=member_generator(s, Stream.GRAPH))
        )
        for s in config.seed_range
        for f in config.families
    ]
    each = len(config.similarities)
    target = stack_members([t.transition_matrix for t in tasks], device)
    degree = stack_members([t.out_degree for t in tasks], device)
    return target.repeat_interleave(each, -1), degree.repeat_interleave(each, -1)


def _block(
    config: PhaseConfig, cell: Cell[GraphProblem], target: Tensor, degree: Tensor
) -> RowBlock:
    """The members of one dimension. The families of a seed share its embeddings."""
    seeds, families, each = config.seed_range, len(config.families), len(config.similarities)
    embeddings = [
        unit_embeddings(
            config.nodes, cell.problem.dim, member_generator(s, Stream.EMBEDDING), similarity
        )
        for s in seeds
        for similarity in config.similarities
    ]
    by_seed = stack_members(embeddings, target.device).unflatten(-1, (len(seeds), 1, each))
    vector = by_seed.expand(-1, -1, -1, families, -1).flatten(2)
    members = [s for s in seeds for _ in range(families * each)]
    tokens = Tokens(vector, labels={"degree": degree})
    return RowBlock.of_vocabulary(members, tokens, target, cell.training)


def summarise(config: PhaseConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add the maps: paired differences to vanilla by cell, their tests, and the shares of cells
    that differ.
    """
    dataset["models"] = ((), config.models, {"description": "number of trained models"})
    others = [m for m in dataset["mechanism"].values if m != VANILLA]
    dataset = dataset.assign_coords(
        measure=["l1_error", "cross_entropy_gap"],
        selective=others,
        map=[*dataset["family"].values, ALL],
        direction=["better", "worse"],
        estimate=["value", "low", "high"],
    )
    errors = dataset[["l1_error", "cross_entropy_gap"]].to_dataarray("measure")
    errors = errors.rename(mechanism="selective", family="map")
    paired = errors.sel(selective=others) - errors.sel(selective=VANILLA, drop=True)
    pooled = paired.mean("map", skipna=False).expand_dims(map=[ALL])
    paired = xr.concat([paired, pooled], dim="map").transpose(
        "measure", "selective", "map", "step", "similarity", "dim", "seed"
    )
    tests = sign_flip_tests(paired.values.reshape(-1, paired.sizes["seed"]))
    p_value, together = (p.reshape(paired.shape[:-1]) for p in tests)
    adjusted = false_discovery_control(p_value.ravel()).reshape(p_value.shape)
    for name, values, about in (
        ("difference", paired.mean("seed").values, "mean error minus vanilla's, paired, by cell"),
        ("p_value", p_value, "two-sided sign-flip p-value of a zero mean difference"),
        ("adjusted_p_value", adjusted, "p_value after Benjamini and Hochberg over all cells"),
        ("significant", adjusted <= FALSE_DISCOVERY_RATE, "whether adjusted_p_value <= 0.05"),
        ("certain", together <= FAMILY_WISE_RATE, "whether it stands family-wise at 5 %"),
    ):
        dataset[name] = (paired.dims[:-1], values, {"description": about})
    return dataset.assign(share=_shares(dataset))


def _shares(dataset: xr.Dataset) -> xr.DataArray:
    """The share of the families' cells in which a mechanism is better (worse) than vanilla.

    value: cells that are significant. The 95 % interval is for the share of cells whose true mean
    difference is negative (positive): low counts the cells of that sign at a family-wise error rate
    of 5 %, high all but those of the other.
    """
    by_family = dataset.drop_sel(map=ALL)
    over = ("map", "step", "similarity", "dim")
    better = by_family["difference"] < 0
    shares = []
    for sign in (better, ~better):
        value, low = ((by_family[name] & sign).mean(over) for name in ("significant", "certain"))
        high = 1 - (by_family["certain"] & ~sign).mean(over)
        # With few significant cells in all, one that stands family-wise may miss the false
        # discovery rate.
        least = cast(xr.DataArray, np.minimum(low, value))  # numpy does not say that labels stay
        shares.append(xr.concat([value, least, high], dim="estimate"))
    share = xr.concat(shares, dim="direction")
    share = share.transpose("measure", "selective", "direction", "estimate")
    about = (
        "share of cells in which the mechanism is significantly better (worse) than vanilla, low "
        "and high: see the claims"
    )
    return xr.DataArray(share.values, dims=share.dims, attrs={"description": about})
