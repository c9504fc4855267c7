"""The ledger lines of the convergence experiment. Thresholds are fixed here, before any run."""

import itertools

import numpy as np
import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import Estimate, mean, ratio
from analysis.claims.topics import LIMITS, OPTIMISATION, PAPER
from analysis.experiments.convergence.config import ConvergenceConfig
from ssa_theory.mechanism import VANILLA

CHOICES = {
    "own": "each at its own best learning rate",
    "same": "both at vanilla's best learning rate",
}


def steps_ratio(
    dataset: xr.Dataset, choice: str, setting: str, mechanism: str, level: float
) -> Estimate:
    """Ratio of restricted mean steps to a level, mechanism / vanilla, over the reporting seeds.

    Undefined where no model of either reached the level: both would count as the whole budget.
    """
    at = dataset.sel(choice=choice, setting=setting, level=level)
    if not (at["compared_reached"].sel(mechanism=[mechanism, VANILLA]) > 0).any():
        seeds = int(dataset["reporting"].sum())
        return Estimate(np.nan, np.nan, np.nan, seeds, "no model reached the level")
    x, y = (at["compared_steps"].sel(mechanism=m).values for m in (mechanism, VANILLA))
    return ratio(x, y)


def judge(config: ConvergenceConfig, dataset: xr.Dataset) -> list[Claim]:
    """Fewer steps to each level that any model of the pair reached, for every setting, paired over
    seeds.
    """
    lines = Lines("convergence", int(dataset["reporting"].sum()), f"{PAPER}, training curves")
    axes = [dataset[a].values.tolist() for a in ("choice", "setting", "other", "level")]
    for choice, setting, name, level in itertools.product(*axes):
        measured = steps_ratio(dataset, choice, setting, name, level)
        if np.isnan(measured.value):
            continue
        at = dataset.sel(choice=choice, setting=setting, level=level)
        pair = {m: at.sel(mechanism=m) for m in (name, VANILLA)}
        where = "the control d = K" if setting == "control" else f"the {setting}"
        lines.add(
            LIMITS if setting == "control" else OPTIMISATION,
            f"{choice}-{setting}-{level:g}-{name}",
            f"{name}: fewer steps than vanilla to {level:g} of the initial cross-entropy gap on "
            f"{where}, {CHOICES[choice]}",
            f"ratio, {name} / vanilla, of restricted mean steps to the level: a run that never "
            f"reaches it counts as the budget of {float(at['budget']):g} steps",
            "<",
            1.0,
            measured,
            {f"{m} steps": mean(one["compared_steps"].values) for m, one in pair.items()}
            | {f"{m} reached": mean(one["compared_reached"].values) for m, one in pair.items()},
        )
    return lines.claims
