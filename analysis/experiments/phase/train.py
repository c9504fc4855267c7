"""Where does selective attention help, and where not? Dimension x similarity x training time x graph family."""

from typing import get_args

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from pydantic import Field, model_validator
from scipy.stats import false_discovery_control

from analysis.claims.claim import FALSE_DISCOVERY_RATE
from analysis.store.config import TrainingConfig
from analysis.experiments.base import Experiment, Progress
from analysis.experiments.phase_claims import judge
from analysis.experiments.phase_figure import draw
from analysis.fitting import FITTED, block_size, check_result_fits, fit, stack_members
from analysis.store.guards import GUARDS
from analysis.claims.statistics import SIGN_FLIPS
from ssa_theory import (
    Queries,
    SingleLayerAttention,
    Stream,
    Tokens,
    Variant,
    member_generator,
    resolve_device,
)
from tasks import MarkovGraphTask, graph_from_family, unit_embeddings
from tasks.families import RandomFamily

ALL = "all families"
FAMILY_WISE_RATE = 0.05


class PhaseConfig(TrainingConfig):
    """Train P_hat = softmax(diag(tau) E W E^T) on the exact loss of many graphs, in every cell of a grid of settings."""

    seeds: int = Field(
        68, ge=1, le=10_000_000, description="number of seeds; a seed names graphs, embeddings and initialisation"
    )
    nodes: int = Field(8, ge=4, le=32, description="number of nodes K, of mean degree 3 in the random families")
    families: tuple[RandomFamily, ...] = Field(get_args(RandomFamily), description="graph families")
    dims: tuple[int, ...] = Field((2, 3, 4, 6, 8), description="embedding dimensions d, ascending")
    similarities: tuple[float, ...] = Field(
        (0.0, 0.3, 0.6, 0.9), description="strengths of the component common to all embeddings, ascending"
    )
    steps: tuple[int, ...] = Field(
        (50, 200, 1000), description="steps at which one and the same training is measured, ascending"
    )
    variants: tuple[Variant, ...] = Field(("vanilla", "ssa", "ssa-free"), description="models to train; vanilla first")
    learning_rate: float = Field(0.05, gt=0, description="step size of Adam")

    @model_validator(mode="after")
    def _consistent(self) -> "PhaseConfig":
        for name, least, most in (("dims", 1, 64), ("similarities", 0, 1), ("steps", 1, 10_000_000)):
            values = getattr(self, name)
            if not values or list(values) != sorted(set(values)) or not least <= values[0] <= values[-1] <= most:
                raise ValueError(f"{name} must ascend and lie in [{least}, {most}], got {values}: sort and bound them")
        self.require_distinct("families", "variants")
        if self.variants[0] != "vanilla" or len(self.variants) < 2:
            raise ValueError(
                f"variants must be vanilla and then at least one to compare with it, got {self.variants}: add what lacks"
            )
        return self

    @property
    def models(self) -> int:
        """The number of models that a run trains."""
        return self.seeds * len(self.families) * len(self.dims) * len(self.similarities) * len(self.variants)


def seeds_per_block(config: PhaseConfig) -> int:
    """A block is one tensor program per dimension and variant."""
    check_result_fits(2 * config.models * len(config.steps))
    # Target and logits with gradients and the exponential; embeddings and queries; W with its gradient and Adam's moments.
    nodes, dim = config.nodes, config.dims[-1]
    numbers = nodes * (4 * nodes + 3 * dim) + 4 * dim**2
    models = len(config.families) * len(config.similarities)
    return block_size(config, 4 * numbers * models, models)


def train(config: PhaseConfig, progress: Progress) -> xr.Dataset:
    """Train every cell and variant: one tensor program per dimension and variant.

    Members are (seed, family, similarity), the last running fastest. Returns l1_error and cross_entropy_gap (variant, dim,
    similarity, step, family, seed), NaN where diverged (variant, dim, similarity, family, seed).
    """
    device, seeds = resolve_device(config.device), config.seed_range
    advance = progress(f"training {config.models:,} models", len(config.dims) * len(config.variants) * config.steps[-1])
    tasks = [
        MarkovGraphTask.from_graph(graph_from_family(f, config.nodes, generator=member_generator(s, Stream.GRAPH)))
        for s in seeds
        for f in config.families
    ]
    families, each = len(config.families), len(config.similarities)
    target, degree = (
        stack_members([getattr(t, name) for t in tasks], device).repeat_interleave(each, -1)
        for name in ("transition_matrix", "out_degree")
    )
    weight = torch.full(target.shape[1:], 1 / config.nodes, dtype=torch.float64, device=device)
    found: dict[str, list[np.ndarray]] = {name: [] for name in _MEASURED}
    for variant in config.variants:
        for dim in config.dims:
            embeddings = [
                unit_embeddings(config.nodes, dim, member_generator(s, Stream.EMBEDDING), similarity)
                for s in seeds
                for similarity in config.similarities
            ]
            # The families of a seed share its embeddings.
            by_seed = stack_members(embeddings, device).unflatten(-1, (len(seeds), 1, each))
            fitted = fit(
                SingleLayerAttention(variant),
                Tokens(by_seed.expand(-1, -1, -1, families, -1).flatten(2), degree, config.nodes),
                target,
                Queries(target, weight),
                [s for s in seeds for _ in range(families * each)],
                dtype=config.dtype,
                steps=config.steps[-1],
                learning_rate=config.learning_rate,
                compile=config.compile,
                record=np.array(config.steps),
                progress=advance,
            )
            for name, (by_fit, _) in _MEASURED.items():
                found[name].append(fitted[by_fit])
    dataset = xr.Dataset(
        coords={
            "variant": list(config.variants),
            "dim": list(config.dims),
            "similarity": list(config.similarities),
            "step": list(config.steps),
            "family": list(config.families),
            "seed": list(seeds),
        }
    )
    sizes = dict(dataset.sizes)
    for name, (_, about) in _MEASURED.items():
        step = () if name in GUARDS else ("step",)
        dims = ("variant", "dim", "seed", "family", "similarity", *step)
        values = np.stack(found[name]).reshape([sizes[d] for d in dims])
        order = ("variant", "dim", "similarity", *step, "family", "seed")
        dataset[name] = xr.DataArray(values, dims=dims, attrs={"description": about}).transpose(*order)
    return dataset


_MEASURED = {
    "l1_error": (
        "l1_by_step",
        "mean over rows of the L1 distance between P_hat and P*, by step; NaN where the model diverged",
    ),
    "cross_entropy_gap": (
        "cross_entropy_gap",
        "cross-entropy above H*, that of the Bayes predictor (nats), by step; NaN where the model diverged",
    ),
    "diverged": ("diverged", "whether the loss was ever not finite"),
    "underflow": ("underflow", FITTED["underflow"][1]),
    "rank_deficient": ("rank_deficient", FITTED["rank_deficient"][1]),
}
"""What is kept of each training: by name, the name that `fit` gives it, and the description stored with it."""


def summarise(config: PhaseConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add the maps: paired differences to vanilla by cell, their tests, and the shares of cells that differ."""
    dataset["models"] = ((), config.models, {"description": "number of trained models"})
    errors = dataset[["l1_error", "cross_entropy_gap"]].to_dataarray("measure")
    dataset = dataset.assign_coords(
        measure=errors["measure"].values,
        selective=dataset["variant"].values[1:],
        map=[*dataset["family"].values, ALL],
        direction=["better", "worse"],
        estimate=["value", "low", "high"],
    )
    errors = errors.rename(variant="selective", family="map")
    paired = errors.isel(selective=slice(1, None)) - errors.isel(selective=0, drop=True)
    pooled = paired.mean("map", skipna=False).expand_dims(map=[ALL])
    paired = xr.concat([paired, pooled], dim="map").transpose(
        "measure", "selective", "map", "step", "similarity", "dim", "seed"
    )
    cells = paired.dims[:-1]
    tests = sign_flip_tests(paired.values.reshape(-1, paired.sizes["seed"]))
    p_value, together = (p.reshape(paired.shape[:-1]) for p in tests)
    adjusted = false_discovery_control(p_value.ravel()).reshape(p_value.shape)
    for name, values, about in (
        (
            "difference",
            paired.mean("seed").values,
            "mean over seeds of the variant's error minus vanilla's, paired, by cell",
        ),
        ("p_value", p_value, "two-sided sign-flip p-value of a zero mean difference"),
        ("adjusted_p_value", adjusted, "the same after Benjamini and Hochberg over all cells of all maps"),
        ("significant", adjusted <= FALSE_DISCOVERY_RATE, "whether adjusted_p_value is at most 0.05"),
        ("certain", together <= FAMILY_WISE_RATE, "whether the difference stands at a family-wise error rate of 5 %"),
    ):
        dataset[name] = (cells, values, {"description": about})
    return _add_shares(dataset)


def _add_shares(dataset: xr.Dataset) -> xr.Dataset:
    """The share of the families' cells in which the variant is better (worse) than vanilla, with a 95 % interval.

    value: cells that are significant. The interval is for the share of cells whose true mean difference is negative
    (positive): low counts the cells of that sign at a family-wise error rate of 5 %, high all but those of the other.
    """
    by_family = dataset.drop_sel(map=ALL)
    over = ("map", "step", "similarity", "dim")
    better = by_family["difference"] < 0
    shares = []
    for sign in (better, ~better):
        value, low = ((by_family[name] & sign).mean(over) for name in ("significant", "certain"))
        high = 1 - (by_family["certain"] & ~sign).mean(over)
        # With few significant cells in all, one that stands family-wise may miss the false discovery rate.
        shares.append(xr.concat([value, np.minimum(low, value), high], dim="estimate"))
    about = (
        "share of cells in which the variant is significantly better (worse) than vanilla, low and high: see the claims"
    )
    shares = xr.concat(shares, dim="direction").transpose("measure", "selective", "direction", "estimate")
    dataset["share"] = (shares.dims, shares.values, {"description": about})
    return dataset


def sign_flip_tests(
    difference: Float[np.ndarray, "cell seed"],
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """Two-sided p-values of a zero mean in each cell: alone, and adjusted family-wise by the largest statistic of all cells.

    Under the hypothesis the sign of each seed's difference is arbitrary; a flip turns a seed's differences in all cells at
    once, which keeps their dependence (Westfall and Young 1993). The statistic |sum x| / sqrt(sum x^2) orders flips and
    cells of as many seeds as |t| does, and needs no variance. Seeds that are NaN in a cell are left out of it. Random
    flips with a fixed random state; the identity counts as one of them, so no p-value is below 1 / (SIGN_FLIPS + 1).
    """
    x = np.nan_to_num(difference)
    length = np.sqrt((x**2).sum(1, keepdims=True))
    x = np.divide(x, length, out=np.zeros_like(x), where=length > 0)
    observed = np.abs(x.sum(1)) - 1e-9  # a flip back to the observed signs must not lose by rounding
    generator = np.random.default_rng(0)
    alone, together = np.ones(len(x)), np.ones(len(x))
    for start in range(0, SIGN_FLIPS, 1000):
        flips = min(1000, SIGN_FLIPS - start)
        flipped = np.abs(generator.choice([-1.0, 1.0], (flips, x.shape[1])) @ x.T)
        alone += (flipped >= observed).sum(0)
        together += (flipped.max(1, keepdims=True) >= observed).sum(0)
    return alone / (SIGN_FLIPS + 1), together / (SIGN_FLIPS + 1)


PHASE = Experiment(
    name="phase",
    question="Where does SSA help, and where not: embedding dimension, similarity of tokens, training time, graph family?",
    caption=(
        "Maps of the error of a variant minus that of vanilla attention, paired by seed and averaged over seeds; rows are "
        "training steps, columns graph families, each map embedding dimension over vocabulary size (d / K) against "
        "similarity of the embeddings. Blue, negative: the variant is better; red, positive, framed in black: vanilla is "
        "significantly better. Hatched: no significant difference (sign-flip test, Benjamini-Hochberg over all cells, 5 %)."
    ),
    config=PhaseConfig,
    train=train,
    seeds_per_block=seeds_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={
        "smoke": {"seeds": 4, "dims": (4, 8), "similarities": (0.0, 0.9), "steps": (50, 200)},
        "large": {"seeds": 3400, "compile": True},
    },
)
