"""Config and training of the atlas: every mechanism on every problem, each at its own best rate."""

from collections.abc import Sequence
from itertools import product
from typing import Annotated

import numpy as np
import torch
import xarray as xr
from pydantic import AfterValidator, Field

from analysis.claims.bands import mean_band, ratio_band
from analysis.experiments.atlas.problems import WORLDS
from analysis.experiments.atlas.world import World, ends
from analysis.experiments.base import Progress, join_blocks
from analysis.experiments.mechanisms import SELECTIVE, chosen
from analysis.experiments.settings import CooldownSteps, Steps, TunedConfig
from analysis.problems.base import DIVERGED, Training, Variable
from analysis.problems.sizes import block_size, check_result_fits
from analysis.problems.train import TUNED, best_rate, train_layers
from ssa_theory.device import resolve_device
from ssa_theory.mechanism import VANILLA, Layer, Misfit, mechanism

STANDARD = (
    *(VANILLA, "scaled", "key-bias", SELECTIVE, "ssmax", "asentmax", "qk-norm", "entmax15"),
    *("softpick", "sink", "gated", "gated-head", "differential"),
)
"""The mechanisms of the preset `paper`."""
_BY_CELL = {
    "learning_rate": TUNED,
    "added_parameters": "parameters beyond those of a vanilla layer, one model",
    "reason": "why a mechanism has no numbers on a problem; empty where it has",
}


def _completed(names: tuple[str, ...]) -> tuple[str, ...]:
    models = {m.name: name for name, m in zip(names, chosen(names), strict=True)}
    if VANILLA in models:
        return names
    return (*(name for name in STANDARD if name not in models), *names)


class AtlasConfig(TunedConfig):
    """Every mechanism on every problem that it can wear, on one scale: 0 is exact Bayes, 1 the naive
    predictor.
    """

    mechanisms: Annotated[tuple[str, ...], AfterValidator(_completed)] = Field(
        STANDARD,
        description=f"mechanisms to train; without {VANILLA}, the peer, they join the standard ones",
    )
    problems: tuple[str, ...] = Field(tuple(WORLDS), description="problems, by name")
    steps: Steps = 160
    cooldown_steps: CooldownSteps = 40

    def check(self) -> None:
        self.require_distinct("problems", "learning_rates")
        super().check()
        if unknown := [name for name in self.problems if name not in WORLDS]:
            raise ValueError(
                f"problems must be among {', '.join(WORLDS)}, got {unknown}: choose some of them"
            )
        check_result_fits(self.seeds * len(self.mechanisms) * 2 * len(WORLDS) * len(World.measures))


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
    training = config.training_of(config.steps, config.cooldown_steps)
    worn, reason, rate, added = mechanism(config.mechanisms[0]), "", np.nan, 0
    try:
        layer = world.layer(worn)
    except Misfit as error:
        layer, reason = None, str(error)
    else:
        added = worn.added_parameters(layer.form)
        rate = best_rate(world.problem, layer, training, config.learning_rates, device).item()
    seeds, size = config.seed_range, block_size(config, world.bytes_per_seed(training))
    blocks = []
    for start in range(0, len(seeds), size):
        some = seeds[start : start + size]
        measured = _measured(world, layer, some, training, rate, device)
        scale = ends(world, tuple(some), training, device)
        blocks.append(xr.Dataset(measured | scale, coords={"seed": list(some)}))
    dataset = join_blocks(blocks)
    if layer is not None and dataset["diverged"].all():
        reason = f"mechanism {worn.name} diverges at every rate of {config.learning_rates}"
        rate = np.nan
    columns = list(world.columns)
    dataset = dataset.assign_coords(problem=columns, mechanism=[worn.name])
    dataset["diverged"] = dataset["diverged"].expand_dims(problem=columns)
    for (name, about), value in zip(_BY_CELL.items(), (rate, added, reason), strict=True):
        kind = object if name == "reason" else None  # a text of any length
        cell = np.full((len(columns), 1), value, kind)
        dataset[name] = ("problem", "mechanism"), cell, {"description": about}
    return dataset.transpose("problem", "mechanism", "seed")


def _measured(
    world: World,
    layer: Layer | None,
    seeds: range,
    training: Training,
    rate: float,
    device: torch.device,
) -> dict[str, Variable]:
    """The measures of a world, of the layer trained at a rate; NaN without one."""
    members = {"seed": len(seeds)}
    if layer is not None:
        block, rates = world.block(seeds, training, device), [np.array(rate)]
        return train_layers(block, [layer], training, world.measures, members, rates)
    dims, shape = ("mechanism", *members, "problem"), (1, len(seeds), len(world.columns))
    missing = {
        name: (dims, np.full(shape, np.nan), {"description": measure.about})
        for name, measure in world.measures.items()
    }
    ((name, measure),) = DIVERGED.items()
    whether = (dims[:2], np.full(shape[:2], False), {"description": measure.about})
    return {**missing, name: whether}


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
