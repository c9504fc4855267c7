"""Config and training of the atlas: every mechanism on every problem, each at its own best rate."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Annotated

import numpy as np
import torch
import xarray as xr
from pydantic import AfterValidator, Field
from torch import Tensor

from analysis.claims.bands import mean_band, ratio_band
from analysis.experiments.atlas.problems import WORLDS, Column, World
from analysis.experiments.base import Progress
from analysis.experiments.mechanisms import SELECTIVE, chosen
from analysis.experiments.settings import RATES, CooldownSteps, LearningRates, Steps
from analysis.problems.base import Block, Fitted, Problem, Training, fit
from analysis.problems.measures import singular_values, spikiness
from analysis.problems.sizes import block_size, check_result_fits
from analysis.problems.train import best_rate
from analysis.store.config import TrainingConfig
from ssa_theory.device import resolve_device
from ssa_theory.mechanism import VANILLA, Inputs, Layer, Misfit, mechanism
from ssa_theory.mechanism.parts import own

STANDARD = (
    *(VANILLA, "scaled", "key-bias", SELECTIVE, "ssmax", "asentmax", "qk-norm", "entmax15"),
    *("softpick", "sink", "gated", "gated-head", "differential"),
)
"""The mechanisms of the preset `paper`."""
Numbers = dict[str, np.ndarray]
_BY_SEED = {
    "risk": "held-out risk of the trained model, in the problem's own measure",
    "weight_norm": "spectral norm ||W||_2 of the trained W, |w| of a constant query; NaN without W",
    "effective_norm": "mean over held-out queries of tau_i ||W||_2; of normalised queries and keys "
    "tau_i g; tau_i where scores are given",
    "largest_score": "largest |z_ij| over held-out queries and keys",
    "spikiness": "mean over held-out rows of 1 / (n sum_j p_ij^2): 1 uniform, 1/n for one key",
    "diverged": "whether the loss was ever not finite; the model's other numbers are NaN",
}
_BY_CELL = {
    "learning_rate": "step size, tuned on seeds that are not reported",
    "added_parameters": "parameters beyond those of a vanilla layer, one model",
    "reason": "why a mechanism has no numbers on a problem; empty where it has",
}
_ENDS = {
    "bayes": "risk of the exact Bayes predictor on the same data",
    "naive": "risk of the naive predictor on the same data",
}


def _completed(names: tuple[str, ...]) -> tuple[str, ...]:
    models = {m.name: name for name, m in zip(names, chosen(names), strict=True)}
    if VANILLA in models:
        return names
    return (*(name for name in STANDARD if name not in models), *names)


class AtlasConfig(TrainingConfig):
    """Every mechanism on every problem that it can wear, on one scale: 0 is exact Bayes, 1 the naive
    predictor.
    """

    mechanisms: Annotated[tuple[str, ...], AfterValidator(_completed)] = Field(
        STANDARD,
        description=f"mechanisms to train; without {VANILLA}, the peer, they join the standard ones",
    )
    problems: tuple[str, ...] = Field(tuple(WORLDS), description="problems, by name")
    learning_rates: LearningRates = RATES
    steps: Steps = 160
    cooldown_steps: CooldownSteps = 40

    def check(self) -> None:
        self.require_distinct("problems", "learning_rates")
        self.require_ascending("learning_rates", 0, 1_000_000)
        if unknown := [name for name in self.problems if name not in WORLDS]:
            raise ValueError(
                f"problems must be among {', '.join(WORLDS)}, got {unknown}: choose some of them"
            )
        check_result_fits(self.seeds * len(self.mechanisms) * 2 * len(WORLDS) * len(_BY_SEED))

    @property
    def training(self) -> Training:
        """How a model is trained, but for its rate."""
        precision = {"dtype": self.dtype, "compile": self.compiled}
        return Training(self.steps, max(self.learning_rates), self.cooldown_steps, **precision)


def units(config: AtlasConfig) -> list[AtlasConfig]:
    """The run in units of one problem and one mechanism, problem by problem."""
    return [
        config.model_copy(update={"problems": (problem,), "mechanisms": (name,)})
        for problem, name in product(config.problems, config.mechanisms)
    ]


def join_units(config: AtlasConfig, parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """The results of `units` as one."""
    many = len(config.mechanisms)
    # Texts that were read from files would be cut to the length of the first.
    parts = [part.assign(reason=part["reason"].astype(object)) for part in parts]
    by_problem = [
        xr.concat(
            parts[i * many : (i + 1) * many],
            "mechanism",
            data_vars="minimal",
            coords="minimal",
            compat="equals",
            join="exact",
        )
        for i in range(len(config.problems))
    ]
    whole = xr.concat(by_problem, "problem", join="exact", combine_attrs="override")
    columns = [column for name in config.problems for column in WORLDS[name].columns]
    names = [m.name for m in chosen(config.mechanisms)]
    return whole.assign_coords(problem=columns, mechanism=names).drop_attrs(deep=False)


def train(config: AtlasConfig, progress: Progress) -> xr.Dataset:
    """Every cell at its best rate. A problem that a mechanism cannot wear has a reason in place of
    numbers; so has a cell that diverges.
    """
    parts = units(config)
    advance = progress(f"training {config.seeds} seeds of {len(parts)} cells", len(parts))
    done = []
    for part in parts:
        done.append(_unit(part))
        advance(1)
    return join_units(config, done)


def _unit(config: AtlasConfig) -> xr.Dataset:
    """One mechanism on one problem."""
    world, device = WORLDS[config.problems[0]], resolve_device(config.device)
    problem, training, seeds = world.problem, config.training, config.seed_range
    worn, reason, rate, added = mechanism(config.mechanisms[0]), "", np.nan, 0
    try:
        layer = problem.layer(worn)
    except Misfit as error:
        layer, reason = None, str(error)
    else:
        added = worn.added_parameters(layer.form)
        rate = float(best_rate(problem, layer, training, config.learning_rates, device))
    size = block_size(config, problem.bytes_per_seed(training))
    chunks = []
    for start in range(0, len(seeds), size):
        block = _block(problem, tuple(seeds[start : start + size]), training, device)
        fitted = None if layer is None else fit(block, layer, training.at(rate))
        ends = _ends(config.problems[0], tuple(block.seeds), training, device)
        chunks.append(
            {
                name: ends[name] | _measured(column, block, layer, fitted)
                for name, column in world.columns.items()
            }
        )
    values = {
        key: np.stack([np.concatenate([c[n][key] for c in chunks]) for n in world.columns])
        for key in chunks[0][next(iter(world.columns))]
    }
    if layer is not None and values["diverged"].all():
        reason = f"mechanism {worn.name} diverges at every rate of {config.learning_rates}"
        rate = np.nan
    return _labelled(world, worn.name, seeds, values, (rate, added, reason))


def _labelled(
    world: World, name: str, seeds: range, values: Numbers, cell: tuple[float, int, str]
) -> xr.Dataset:
    """The numbers of a unit; values are (column, seed)."""
    columns = list(world.columns)
    dims = ("problem", "mechanism", "seed")
    variables = {k: (dims, values[k][:, None], {"description": v}) for k, v in _BY_SEED.items()}
    ends = {k: (dims[::2], values[k], {"description": v}) for k, v in _ENDS.items()}
    single = {
        k: (dims[:2], np.array([[value]] * len(columns)).astype(kind), {"description": about})
        for (k, about), value, kind in zip(
            _BY_CELL.items(), cell, (float, int, object), strict=True
        )
    }
    coords = {"problem": columns, "mechanism": [name], "seed": list(seeds)}
    return xr.Dataset(variables | ends | single, coords=coords)


@lru_cache(maxsize=1)
def _block(
    problem: Problem, seeds: tuple[int, ...], training: Training, device: torch.device
) -> Block:
    """The data of a problem, the same for all mechanisms, which come one after the other."""
    return problem.block(seeds, training, device)


@lru_cache(maxsize=1)
def _ends(
    name: str, seeds: tuple[int, ...], training: Training, device: torch.device
) -> dict[str, Numbers]:
    """Bayes and naive risks of a problem's columns, once for all mechanisms."""
    world = WORLDS[name]
    block = _block(world.problem, seeds, training, device)
    ends = {column: of.ends(block) for column, of in world.columns.items()}
    return {column: dict(zip(_ENDS, pair, strict=True)) for column, pair in ends.items()}


def _measured(column: Column, block: Block, layer: Layer | None, fitted: Fitted | None) -> Numbers:
    """What `_BY_SEED` names, of the members of a block in one column; NaN without a layer."""
    if layer is None or fitted is None:
        seeds = len(block.seeds)
        missing = {name: np.full(seeds, np.nan) for name in _BY_SEED}
        return missing | {"diverged": np.full(seeds, False)}
    layer, final = layer.evaluated, fitted.parameters
    inputs = column.inputs(block)
    rows = [spikiness(layer.prediction(final, one), dim=1).mean(0) for one in inputs]
    own_rows = column.spikiness
    measured = {
        "risk": column.risk(block.evaluate(layer, fitted)),
        **_norms(layer, fitted, inputs),
        "spikiness": torch.stack(rows).mean(0)
        if own_rows is None
        else own_rows(block, layer, final),
        "diverged": fitted.diverged,
    }
    return fitted.by_member(measured)


def _norms(layer: Layer, fitted: Fitted, inputs: Sequence[Inputs]) -> dict[str, Tensor]:
    """How large weights and scores are."""
    final, members = fitted.parameters, len(fitted.diverged)
    norm, unit = torch.full((2, members), torch.nan, dtype=torch.float64)
    if "weight" in final:
        weight = final["weight"]
        norm = singular_values(weight if weight.ndim == 3 else weight.unsqueeze(0))[0]
    unit = norm if "weight" in final else torch.ones_like(norm)  # of given scores tau is all
    scale = layer.mechanism.score.norm(own(final, "score"), unit)
    tau = [layer.inverse_temperature("query", final, one) for one in inputs]
    scores = [layer.scores(final, one).abs().amax((0, 1)) for one in inputs]
    return {
        "weight_norm": norm,
        "effective_norm": torch.stack([(t * scale).reshape(-1, members).mean(0) for t in tau]).mean(
            0
        ),
        "largest_score": torch.stack(scores).amax(0),
    }


def summarise(config: AtlasConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add each cell's place on the scale, its error over vanilla's, and each problem's best two."""
    above = dataset["risk"] - dataset["bayes"]
    dataset["excess"] = (above / (dataset["naive"] - dataset["bayes"])).assign_attrs(
        description="(risk - bayes) / (naive - bayes): 0 is exact Bayes, 1 the naive predictor"
    )
    dataset["excess_band"] = mean_band(dataset["excess"])
    dataset["overall_band"] = mean_band(_overall(dataset))
    about = "ratio of geometric means over seeds, paired: error above Bayes {}"
    vanilla = above.sel(mechanism=VANILLA, drop=True)
    dataset["over_vanilla_band"] = ratio_band(above, vanilla, about.format("over vanilla's"))
    best, second = _two_best(dataset, above)
    dataset["margin_band"] = ratio_band(best, second, about.format("of the best over the second's"))
    if SELECTIVE in dataset["mechanism"]:
        ssa = above.sel(mechanism=SELECTIVE, drop=True)
        dataset["selective_band"] = ratio_band(ssa, best, about.format("of SSA over the best's"))
    return dataset


def _overall(dataset: xr.Dataset) -> xr.DataArray:
    """The mean excess over all problems (mechanism, seed); a mechanism that a problem cannot wear
    counts there as vanilla.
    """
    excess = dataset["excess"]
    unworn = excess.isnull().all("seed") & ~dataset["diverged"].any("seed")
    filled = excess.where(~unworn, excess.sel(mechanism=VANILLA, drop=True))
    return filled.mean("problem", skipna=False).assign_attrs(
        description="excess over all problems, vanilla's where a mechanism cannot be worn"
    )


def _two_best(dataset: xr.Dataset, above: xr.DataArray) -> list[xr.DataArray]:
    """The errors above Bayes of each problem's best two mechanisms (problem, seed), by their means;
    their names are added to the dataset as `best` and `second`.
    """
    own = above.transpose("problem", "mechanism", "seed").values
    known = np.isfinite(own)
    mean = np.where(known, own, 0).sum(2) / known.sum(2).clip(min=1)
    order = np.argsort(np.where(known.any(2), mean, np.inf), axis=1)
    labels, rows, errors = dataset["mechanism"].values.astype(object), np.arange(len(own)), []
    for place, name in enumerate(("best", "second")):
        about = {"description": f"the {name} mechanism of the problem, by its mean error"}
        dataset[name] = ("problem", labels[order[:, place]], about)
        errors.append(dataset["bayes"].copy(data=own[rows, order[:, place]]))
    return errors
