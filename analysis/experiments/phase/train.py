"""Phase maps: a grid of settings, one program a dimension and mechanism, rates tuned apart."""

from typing import cast, get_args

import numpy as np
import torch
import xarray as xr
from pydantic import Field
from torch import Tensor

from analysis.claims.registry import DELTA
from analysis.claims.statistics import log_ratio
from analysis.experiments.base import Progress
from analysis.experiments.mechanisms import ComparedMechanisms, chosen
from analysis.experiments.settings import Cell, CellsConfig
from analysis.problems import GraphProblem
from analysis.problems.base import stack_members
from analysis.problems.rows import ROW_MEASURES, RowBlock
from analysis.problems.sizes import block_size, check_result_fits
from analysis.problems.train import train_layers
from analysis.problems.tuned import tuning_error
from ssa_theory.device import resolve_device
from ssa_theory.mechanism import VANILLA, Tokens
from ssa_theory.seeds import Stream, member_generator
from tasks import MarkovGraphTask, graph_from_family, unit_embeddings
from tasks.families import RandomFamily


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
        (VANILLA, "scaled", "key-bias", "ssa", "ssa-free"),
        description="what is trained; vanilla is the peer, scaled and key-bias are controls",
    )

    def check(self) -> None:
        self.require_ascending("dims", 1, 64)
        self.require_ascending("similarities", 0, 1)
        self.require_ascending("steps", 1, 10_000_000)
        self.require_distinct("families")
        super().check()

    @property
    def cells(self) -> list[Cell[GraphProblem]]:
        """One a dimension, whose layers are trained."""
        training = self.training_of(self.steps[-1])
        models = chosen(self.mechanisms)
        problems = [GraphProblem(nodes=self.nodes, dim=dim) for dim in self.dims]
        return [Cell(f"d = {p.dim}", p, training, models) for p in problems]

    @property
    def models(self) -> int:
        """The number of models that a run trains."""
        cells = len(self.families) * len(self.dims) * len(self.similarities)
        return self.seeds * cells * len(self.mechanisms) * len(self.learning_rates)

    @property
    def tuning_seeds(self) -> int:
        """How many seeds, the first ones, choose the learning rates and report nothing."""
        return max(1, self.seeds // 4)


def seeds_per_block(config: PhaseConfig) -> int:
    """A block is one tensor program per dimension and mechanism."""
    check_result_fits(2 * config.models * len(config.steps))
    # Target and logits with gradients and the exponential; embeddings and queries; W with its
    # gradient and Adam's moments.
    nodes, dim = config.nodes, config.dims[-1]
    numbers = nodes * (4 * nodes + 3 * dim) + 4 * dim**2
    models = len(config.learning_rates) * len(config.families) * len(config.similarities)
    return block_size(config, 4 * numbers * models, models)


def train(config: PhaseConfig, progress: Progress) -> xr.Dataset:
    """Every cell and mechanism: one tensor program per dimension and mechanism.

    Members are (learning_rate, seed, family, similarity), the last running fastest. Returns
    l1_error and cross_entropy_gap (mechanism, dim, similarity, step, family, learning_rate, seed),
    NaN where diverged (mechanism, dim, similarity, family, learning_rate, seed).
    """
    programs = len(config.dims) * len(config.mechanisms)
    advance = progress(f"training {config.models:,} models", programs * config.steps[-1])
    target, degree = _graphs(config, resolve_device(config.device))
    rates = np.array(config.learning_rates)[:, None, None, None]
    members = {
        "learning_rate": list(config.learning_rates),
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
            [rates] * len(cell.mechanisms),
            record=config.steps,
            progress=advance,
        )
        for cell in config.cells
    ]
    dim = xr.DataArray(list(config.dims), dims="dim", name="dim")
    dataset: xr.Dataset = xr.concat([xr.Dataset(part) for part in parts], dim, join="exact")
    names = [m.name for m in chosen(config.mechanisms)]
    labels = {**members, "mechanism": names, "step": list(config.steps)}
    dataset = dataset.rename(l1_by_step="l1_error").assign_coords(labels)
    return dataset.transpose(
        "mechanism", "dim", "similarity", ..., "family", "learning_rate", "seed"
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
    each, rates = len(config.similarities), len(config.learning_rates)
    target = stack_members([t.transition_matrix for t in tasks], device)
    degree = stack_members([t.out_degree for t in tasks], device)
    repeated = (t.repeat_interleave(each, -1) for t in (target, degree))
    target, degree = (t.repeat(*[1] * (t.dim() - 1), rates) for t in repeated)
    return target, degree


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
    by_seed = stack_members(embeddings, target.device).unflatten(-1, (1, len(seeds), 1, each))
    rates = len(config.learning_rates)
    vector = by_seed.expand(-1, -1, rates, -1, families, -1).flatten(2)
    members = [s for _ in range(rates) for s in seeds for _ in range(families * each)]
    tokens = Tokens(vector, labels={"degree": degree})
    return RowBlock.of_vocabulary(members, tokens, target, cell.training)


def summarise(config: PhaseConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Choose each mechanism's learning rate on the tuning seeds; add what is compared on the others.

    A rate is chosen for each cell and step by the mean over the tuning seeds of the log of the
    cross-entropy gap; one at which any of them diverged is not chosen while another is left.
    """
    reporting = ("seed", np.arange(config.seeds) >= config.tuning_seeds)
    dataset = dataset.assign_coords(reporting=reporting)
    gap = dataset["cross_entropy_gap"].isel(seed=slice(config.tuning_seeds))
    tried = tuning_error(gap.rename(step="tried_step"), SMALLEST)
    dataset["tuning_error"] = tried.assign_coords(tried_step=tried["tried_step"] / config.steps[-1])
    renamed = tried.rename(tried_rate="learning_rate", tried_step="step")
    # Cast, as numpy does not say that labels stay.
    score = cast(xr.DataArray, np.log(renamed)).mean("tuning_seed")
    best = score.idxmin("learning_rate", skipna=False)
    dataset["best_learning_rate"] = best.assign_attrs(
        description="the learning rate that is compared, chosen on the tuning seeds"
    )
    for name in MEASURES:
        tuned = dataset[name].sel(learning_rate=best).drop_vars("learning_rate")
        what = dataset[name].attrs["description"]
        dataset[f"tuned_{name}"] = tuned.where(dataset["reporting"]).assign_attrs(
            description=f"{what}, at the best learning rate; NaN for tuning seeds"
        )
    others = [m for m in dataset["mechanism"].values.tolist() if m != VANILLA]
    dataset = dataset.assign_coords(selective=others, measure=list(MEASURES))
    paired, same_rate = (_log_ratios(dataset, prefix) for prefix in ("tuned_", ""))
    dataset["log_ratio"] = paired.mean("seed").assign_attrs(
        description="mean over reporting seeds of log(error / vanilla's error), each at its best "
        "learning rate"
    )
    gains = (paired < -DELTA).where(paired.notnull())
    dataset["gain_share"] = gains.mean("seed").assign_attrs(
        description="share of reporting seeds, each a graph, whose error is at least 5 % below "
        "vanilla's"
    )
    at_rate = same_rate.where(dataset["reporting"]).median(("seed", "dim", "similarity", "family"))
    dataset["log_ratio_by_rate"] = at_rate.assign_attrs(
        description="median over cells and reporting seeds of log(error / vanilla's error), both at "
        "the same learning rate"
    )
    dataset["models"] = ((), config.models, {"description": "number of trained models"})
    return dataset


MEASURES = ("l1_error", "cross_entropy_gap")
SMALLEST = 1e-6
"""Of an error: below it lies rounding."""


def _log_ratios(dataset: xr.Dataset, prefix: str) -> xr.DataArray:
    """log(error / vanilla's) of every other mechanism, along `measure` and `selective`."""
    names = [prefix + m for m in MEASURES]
    errors = dataset[names].to_dataarray("measure").assign_coords(measure=list(MEASURES))
    own = errors.rename(mechanism="selective").sel(selective=dataset["selective"].values)
    peer = errors.sel(mechanism=VANILLA, drop=True)
    return xr.apply_ufunc(log_ratio, own, peer, kwargs={"floor": SMALLEST})
