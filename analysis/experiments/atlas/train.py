"""Config and training of the atlas: every mechanism on every problem, each at its own best rate."""

from collections.abc import Sequence
from itertools import product
from typing import Annotated, Any

import numpy as np
import xarray as xr
from pydantic import AfterValidator, Field

from analysis.claims.bands import mean_band, ratio_band
from analysis.experiments.atlas.problems import WORLDS
from analysis.experiments.atlas.world import ENDS, MEASURED, ends
from analysis.experiments.base import Progress
from analysis.experiments.mechanisms import SELECTIVE, chosen
from analysis.experiments.settings import CooldownSteps, Steps, TunedConfig
from analysis.problems.base import DIVERGED, Variable, fit
from analysis.problems.sizes import block_size, check_result_fits
from analysis.problems.train import at_rates
from analysis.problems.tuned import TRIED_STEPS, TUNED, TUNING_SEEDS, Tuned
from analysis.problems.tuning import block_of, tune
from ssa_theory.device import resolve_device
from ssa_theory.mechanism import VANILLA, Misfit, mechanism

STANDARD = (
    *(VANILLA, "scaled", "key-bias", SELECTIVE, "ssmax", "asentmax", "qk-norm", "entmax15"),
    *("softpick", "sink", "gated", "gated-head", "differential"),
)
"""The mechanisms of the preset `paper`."""
_BY_SEED = {**MEASURED, "diverged": DIVERGED["diverged"].about}
"""The numbers of a trained model."""
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
        check_result_fits(self.seeds * len(self.mechanisms) * 2 * len(WORLDS) * len(MEASURED))


def units(config: AtlasConfig) -> list[AtlasConfig]:
    """The run in units of one problem and one mechanism, problem by problem."""
    return [
        config.model_copy(update={"problems": (problem,), "mechanisms": (name,)})
        for problem, name in product(config.problems, config.mechanisms)
    ]


def train(config: AtlasConfig, progress: Progress) -> xr.Dataset:
    """A unit: one mechanism on one problem, at its best rate. Where it cannot be worn, or diverges,
    there is a reason in place of numbers.

    All numbers are one variable (quantity, problem, seed), as a run has hundreds of units, and
    each variable of a file takes as long to write as several steps of training.
    """
    world, device = WORLDS[config.problems[0]], resolve_device(config.device)
    training = config.training_of(config.steps, config.cooldown_steps)
    worn, reason, rate, added = mechanism(config.mechanisms[0]), "", np.nan, 0
    scores, longer = (np.full(shape, np.nan) for shape in _tried(config))
    try:
        layer = world.problem.layer(worn)
    except Misfit as error:
        layer, reason = None, str(error)
    else:
        added = worn.added_parameters(layer.form)
        tuned = tune(world.problem, [worn], training, config.learning_rates, device)
        rate, scores, longer = tuned.rate.item(), tuned.scores[0], tuned.longer[0]
    seeds, size = config.seed_range, block_size(config, world.problem.bytes_per_seed(training))
    blocks = []
    for start in range(0, len(seeds), size):
        some = tuple(seeds[start : start + size])
        measured = np.full((len(_BY_SEED), len(world.columns), len(some)), np.nan)
        if layer is not None:
            block = block_of(world.problem, some, training, device)
            own, factors = at_rates(training, np.full(len(some), rate))
            fitted = fit(block, layer, own, factors, np.ones(len(some)).tolist())
            values = world.measured(block, layer.evaluated, fitted)
            trained = fitted.by_member(values | {"diverged": fitted.diverged})
            for place, name in enumerate(_BY_SEED):
                measured[place] = trained[name].T
        blocks.append(np.concatenate([measured, ends(world, some, training, device)]))
    numbers = np.concatenate(blocks, -1)
    lost = numbers[len(MEASURED)]
    if layer is not None and lost.all():
        reason = f"mechanism {worn.name} diverges at every rate of {config.learning_rates}"
        rate = np.nan
    about: dict[str, Any] = dict(zip(_BY_CELL, (rate, added, reason), strict=True))
    about |= {"scores": scores.ravel().tolist(), "longer": longer.ravel().tolist()}
    dims = ("quantity", "problem", "seed")
    about["description"] = f"{', '.join((*_BY_SEED, *ENDS))} of a mechanism on a problem"
    return xr.Dataset({"numbers": (dims, numbers, about)}, coords={"seed": list(seeds)})


def _tried(config: AtlasConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of a unit's tuning (rate, start, step, seed) and longer training (point, seed)."""
    seeds = len(TUNING_SEEDS)
    return (len(config.learning_rates), 1, len(TRIED_STEPS), seeds), (2, seeds)


def join_units(config: AtlasConfig, parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """The results of `units` as one, (problem, mechanism, seed)."""
    many, units = len(config.mechanisms), [part["numbers"] for part in parts]
    worlds = [WORLDS[name] for name in config.problems]
    columns = [len(world.columns) for world in worlds]
    rows = [np.stack(units[i : i + many], axis=2) for i in range(0, len(units), many)]
    numbers, dims = np.concatenate(rows, axis=1), ("problem", "mechanism", "seed")
    variables: dict[str, Variable] = {
        name: (dims, values == 1 if name in DIVERGED else values, {"description": about})
        for (name, about), values in zip(_BY_SEED.items(), numbers, strict=False)
    }
    # The ends are the same for all mechanisms.
    for (name, about), values in zip(ENDS.items(), numbers[len(_BY_SEED) :, :, 0], strict=True):
        variables[name] = dims[::2], values, {"description": about}
    for name, about in _BY_CELL.items():
        cells = np.array([one.attrs[name] for one in units]).reshape(len(worlds), many)
        variables[name] = dims[:2], cells.repeat(columns, axis=0), {"description": about}
    tried = []
    for name, shape in zip(("scores", "longer"), _tried(config), strict=True):
        each = np.array([one.attrs[name] for one in units]).reshape(len(worlds), many, *shape)
        tried.append(np.moveaxis(each.repeat(columns, axis=0), 0, -2))
    tuned = Tuned(config.learning_rates, (1.0,), dims[:1], *tried).variables
    variables = {**tuned, **variables}
    coords = {
        "problem": [column for world in worlds for column in world.columns],
        "mechanism": [m.name for m in chosen(config.mechanisms)],
        "seed": list(config.seed_range),
    }
    return xr.Dataset(variables, coords)


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
    """The mean excess over all problems (mechanism, seed), vanilla's where one cannot be worn."""
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
