"""Phase maps: the grid of settings, its training in one program per dimension and mechanism, and
the tests of its cells.
"""

from collections.abc import Callable
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
from analysis.problems import GraphProblem, Training, fit
from analysis.problems.base import DIVERGED, stack_members
from analysis.problems.rows import ROW_MEASURES, RowBlock
from analysis.problems.sizes import block_size, check_result_fits
from analysis.store.config import TrainingConfig
from ssa_theory.ensemble import resolve_device
from ssa_theory.losses import Queries
from ssa_theory.mechanism import VANILLA, Inputs, Layer, Tokens
from ssa_theory.seeds import Stream, member_generator
from tasks import MarkovGraphTask, graph_from_family, unit_embeddings
from tasks.families import RandomFamily

ALL = "all families"
FAMILY_WISE_RATE = 0.05


class PhaseConfig(TrainingConfig):
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
        ("vanilla", "ssa", "ssa-free"), description="what is trained; vanilla is the peer"
    )
    learning_rate: float = Field(0.05, gt=0, description="step size of Adam")

    def check(self) -> None:
        self.require_ascending("dims", 1, 64)
        self.require_ascending("similarities", 0, 1)
        self.require_ascending("steps", 1, 10_000_000)
        self.require_distinct("families")
        for mechanism in chosen(self.mechanisms):
            self.problem(self.dims[0]).layer(mechanism)

    def problem(self, dim: int) -> GraphProblem:
        """The problem of one dimension, whose layers are trained."""
        return GraphProblem(nodes=self.nodes, dim=dim)

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
    device, mechanisms = resolve_device(config.device), chosen(config.mechanisms)
    precision = {"dtype": config.dtype, "compile": config.compile}
    training = Training(config.steps[-1], config.learning_rate, **precision)
    programs = len(config.dims) * len(mechanisms)
    advance = progress(f"training {config.models:,} models", programs * training.steps)
    target, degree = _graphs(config, device)
    trained = []
    for dim in config.dims:
        block = _block(config, dim, target, degree, training)
        for layer in map(config.problem(dim).layer, mechanisms):
            trained.append(_train_members(block, layer, config, advance))
    coords = {
        "mechanism": [m.name for m in mechanisms],
        "dim": list(config.dims),
        "similarity": list(config.similarities),
        "step": list(config.steps),
        "family": list(config.families),
        "seed": list(config.seed_range),
    }
    dataset = xr.Dataset(coords=coords)
    for name, measure in _MEASURED.items():
        dims = ("dim", "mechanism", "seed", "family", "similarity", *measure.dims)
        values = np.stack([t[name] for t in trained]).reshape([len(coords[d]) for d in dims])
        array = xr.DataArray(values, dims=dims, attrs={"description": measure.about})
        dataset[name] = array.transpose("mechanism", "dim", "similarity", ..., "family", "seed")
    return dataset


_MEASURED = {
    "l1_error": ROW_MEASURES["l1_by_step"],
    **DIVERGED,
    **{k: ROW_MEASURES[k] for k in ("cross_entropy_gap", "underflow", "rank_deficient")},
}
"""What is kept of each training."""


def _train_members(
    block: RowBlock, layer: Layer, config: PhaseConfig, advance: Callable[[int], None]
) -> dict[str, np.ndarray]:
    """One program; nothing of it but the numbers outlives it."""
    fitted = fit(block, layer, block.training, record=config.steps, progress=advance)
    values = block.evaluate(layer, fitted) | fitted.history | {"diverged": fitted.diverged}
    values["l1_error"] = values["l1_by_step"]
    return fitted.by_member({name: values[name] for name in _MEASURED})


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
    config: PhaseConfig, dim: int, target: Tensor, degree: Tensor, training: Training
) -> RowBlock:
    """The members of one dimension. The families of a seed share its embeddings."""
    seeds, families, each = config.seed_range, len(config.families), len(config.similarities)
    embeddings = [
        unit_embeddings(config.nodes, dim, member_generator(s, Stream.EMBEDDING), similarity)
        for s in seeds
        for similarity in config.similarities
    ]
    by_seed = stack_members(embeddings, target.device).unflatten(-1, (len(seeds), 1, each))
    vector = by_seed.expand(-1, -1, -1, families, -1).flatten(2)
    tokens = Tokens(vector, labels={"degree": degree})
    weight = torch.full_like(target[:, 0], 1 / config.nodes)
    return RowBlock(
        [s for s in seeds for _ in range(families * each)],
        target.device,
        Inputs(tokens, tokens, count=float(config.nodes)),
        target,
        Queries(target, weight),
        training,
    )


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
