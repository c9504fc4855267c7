"""Train every mechanism at every learning rate; count steps; choose the rates that are compared."""

import math
from collections.abc import Callable

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from analysis.claims.bands import mean_band, ratio_band
from analysis.experiments.base import Progress
from analysis.experiments.chains import Chain, train_settings
from analysis.experiments.convergence.config import ConvergenceConfig
from analysis.problems.base import DIVERGED, fit
from analysis.problems.curves import first_passage
from analysis.problems.rows import ROW_BASELINES
from analysis.problems.sizes import block_size, check_result_fits
from analysis.problems.tuned import TRIED_STEPS, tuning_error
from ssa_theory.mechanism import VANILLA, Mechanism

CHOICES = ("own", "same")
"""Of learning rates: each mechanism's own best, or vanilla's best for both."""
_CURVE_POINTS = 16
_TIE = 1e-6
"""Steps that the whole initial gap is worth: decides between rates only where steps are equal."""
_ABOUT = {
    "steps_to_level": "first step at which the cross-entropy gap is at most the level; the budget "
    "where the run never reaches it (right-censored), so that its mean is a restricted mean",
    "reached": "whether the run reached the level within the budget; a run whose loss was ever not "
    "finite reached none",
    "diverged": DIVERGED["diverged"].about,
    "initial_gap": "cross-entropy above Bayes (nats) of vanilla at initialisation, level 1",
    "vanilla_optimum_gap": ROW_BASELINES["vanilla_optimum_gap"] + "; level 0",
    "gap_by_share": "cross-entropy above Bayes (nats) after a share of the steps",
    "gap_curve": "cross-entropy above Bayes (nats) at curve_step",
    "curve_step": "the steps of gap_curve",
    "budget": "training steps of every run of the setting",
    "best_learning_rate": "the learning rate of the least mean steps_to_level over the tuning "
    "seeds; between equals, as where no run reaches the level, the one of the lower final loss",
    "compared_steps": "steps_to_level at the mechanism's own best learning rate (choice own) or at "
    "vanilla's best (choice same); NaN for tuning seeds",
    "compared_reached": "whether that run reached the level; NaN for tuning seeds",
    "compared_diverged": "whether that run diverged; NaN for tuning seeds",
    "ratio": "ratio of geometric means of compared_steps over the reporting seeds, mechanism / "
    "vanilla, with its 95 % interval; NaN where no model of either reached the level",
}


def seeds_per_block(config: ConvergenceConfig) -> int:
    """By the memory of one seed in the largest setting: all rates, and the loss of every step."""
    cells, rates = config.cells, len(config.learning_rates)
    points = len(config.levels) * 2 + _CURVE_POINTS
    check_result_fits(len(cells) * config.seeds * len(config.mechanisms) * rates * points)
    sizes = [c.problem.bytes_per_seed(c.training) + 16 * c.training.steps for c in cells]
    return block_size(config, rates * max(sizes), rates)


def train(config: ConvergenceConfig, progress: Progress) -> xr.Dataset:
    """Train every mechanism at every learning rate on every seed."""
    return train_settings(config, progress, _train_setting)


def loss_of(
    level: float, initial: Float[np.ndarray, " seed"], optimum: Float[np.ndarray, " seed"]
) -> Float[np.ndarray, " seed"]:
    """The cross-entropy gap (nats) of a level: 1 is vanilla's initial gap, 0 its exact optimum, -1
    that of Bayes, and straight lines between.
    """
    return optimum + level * (initial - optimum if level > 0 else optimum)


def _train_setting(
    config: ConvergenceConfig, chain: Chain, device: torch.device, advance: Callable[[int], None]
) -> xr.Dataset:
    """One setting's part of the result."""
    models, budget = chain.mechanisms, chain.training.steps
    shares = [math.ceil(share * budget) for share in TRIED_STEPS]
    curve = np.unique(np.rint(np.geomspace(1, budget, _CURVE_POINTS)).astype(int))
    runs = [gap_by_step(config, chain, m, device, advance) for m in models]
    gap, diverged = (np.stack(each, axis=-3) for each in zip(*runs, strict=True))
    names = [m.name for m in models]
    initial = gap[0, names.index(VANILLA), 0]
    optimum = chain.problem.describe(list(config.seed_range))["vanilla_optimum_gap"].values
    passages = [first_passage(gap, loss_of(level, initial, optimum)) for level in config.levels]
    taken, reached = (np.stack(each, axis=-1) for each in zip(*passages, strict=True))
    taken[diverged], reached[diverged] = budget, False
    run = ("mechanism", "learning_rate", "seed")
    return xr.Dataset(
        {
            "steps_to_level": ((*run, "level"), taken),
            "reached": ((*run, "level"), reached),
            "diverged": (run, diverged),
            "initial_gap": ("seed", initial),
            "vanilla_optimum_gap": ("seed", optimum),
            "gap_by_share": ((*run, "tried_step"), np.moveaxis(gap[shares], 0, -1)),
            "gap_curve": ((*run, "point"), np.moveaxis(gap[curve], 0, -1)),
            "curve_step": ("point", curve.astype(float)),
            "budget": float(budget),
        },
        {
            "mechanism": names,
            "learning_rate": list(config.learning_rates),
            "seed": list(config.seed_range),
            "level": list(config.levels),
            "point": np.arange(len(curve)),
            "tried_step": list(TRIED_STEPS),
        },
    )


def gap_by_step(
    config: ConvergenceConfig,
    chain: Chain,
    mechanism: Mechanism,
    device: torch.device,
    advance: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The cross-entropy gap in nats (step, rate, seed) after every step of Adam, 0 included, and
    what diverged (rate, seed).

    All learning rates are members of one ensemble, trained at the largest: see `ensemble.train`.
    """
    rates, seeds = np.array(config.learning_rates), list(config.seed_range)
    training, layer = chain.training, chain.problem.layer(mechanism)
    block = chain.problem.block(seeds * len(rates), training, device)
    fitted = fit(
        block,
        layer,
        training,
        rates=np.repeat(rates / rates.max(), len(seeds)).tolist(),
        record=range(training.steps + 1),
        measure=lambda parameters: {"loss": block.loss(layer, parameters, None)},
        progress=advance,
    )
    bayes = chain.problem.describe(seeds[:1])["conditional_entropy"].item()
    gap = fitted.history["loss"].double().cpu().numpy() - bayes
    shape = (len(rates), len(seeds))
    return gap.reshape(-1, *shape), fitted.diverged.cpu().numpy().reshape(shape)


def summarise(config: ConvergenceConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Choose learning rates on the tuning seeds; add what is compared, and shown, on the others."""
    taken = dataset["steps_to_level"]
    gap = dataset["gap_by_share"]
    dataset["tuning_error"] = tuning_error(gap.isel(seed=slice(config.tuning_seeds)))
    final = gap.isel(tried_step=-1, drop=True) / dataset["initial_gap"]
    tuned = taken + _TIE * final.fillna(1.0).clip(max=1.0)
    best = tuned.isel(seed=slice(config.tuning_seeds)).mean("seed").idxmin("learning_rate")
    reporting = ("seed", np.arange(config.seeds) >= config.tuning_seeds)
    dataset = dataset.assign_coords(reporting=reporting).assign(best_learning_rate=best)

    def at(source: xr.DataArray, rate: xr.DataArray) -> xr.DataArray:
        chosen = source.sel(learning_rate=rate).drop_vars("learning_rate")
        return chosen.where(dataset["reporting"])

    rates = {"own": best, "same": best.sel(mechanism=VANILLA, drop=True)}
    choice = xr.DataArray(list(CHOICES), dims="choice", name="choice")
    sources = {
        "compared_steps": taken,
        "compared_reached": dataset["reached"].astype(float),
        "compared_diverged": dataset["diverged"].astype(float),
    }
    for name, source in sources.items():
        dataset[name] = xr.concat([at(source, rates[c]) for c in CHOICES], dim=choice)
    # Where no model of either reached the level, all would count as the budget.
    steps, reached = dataset["compared_steps"], dataset["compared_reached"].max("seed") > 0
    others = [m for m in dataset["mechanism"].values.tolist() if m != VANILLA]
    own, any_own = (of.sel(mechanism=others).rename(mechanism="other") for of in (steps, reached))
    peer, any_peer = (of.sel(mechanism=VANILLA, drop=True) for of in (steps, reached))
    ratio = ratio_band(own, peer, _ABOUT["ratio"]).where(any_own | any_peer)
    dataset["ratio"] = ratio.transpose("choice", "setting", "other", "level", "estimate")
    shown = best.sel(level=config.shown_level, drop=True)
    dataset["gap_curve_band"] = mean_band(at(dataset["gap_curve"], shown))
    by_rate = taken.sel(level=config.shown_level, drop=True).where(dataset["reporting"])
    dataset["steps_by_rate_band"] = mean_band(by_rate)
    for name, about in _ABOUT.items():
        dataset[name].attrs["description"] = about
    return dataset
