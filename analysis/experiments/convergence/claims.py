"""The ledger lines of the convergence experiment."""

import itertools

import numpy as np
import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import mean
from analysis.experiments.convergence.config import ConvergenceConfig
from analysis.experiments.mechanisms import SELECTIVE
from ssa_theory.mechanism import VANILLA

EASY = 0.25
"""Of levels from this on the question is when they are reached, of lower ones whether."""
_RATES = {"own": "each its best", "same": "vanilla's best"}
_SETTINGS = {"control": "d = K"}


def judge(config: ConvergenceConfig, dataset: xr.Dataset) -> list[Claim]:
    """Steps to the easy levels, at each choice of rates; whether the hard ones are reached, at each
    mechanism's own best rate. On the reporting seeds.

    A run that did not reach an easy level has no number of steps: its seed is lost there.
    """
    lines = Lines("convergence", int(dataset["reporting"].sum()))
    names = (SELECTIVE, VANILLA)
    if not set(names) <= set(dataset["mechanism"].values.tolist()):
        return lines.claims
    axes = [dataset[a].values.tolist() for a in ("setting", "level", "choice")]
    for setting, level, choice in itertools.product(*axes):
        at = dataset.sel(setting=setting, level=level, choice=choice)
        cell = {"setting": _SETTINGS.get(setting, setting), "level": f"{level:g}"}
        kept = at["compared_reached"].where(at["compared_diverged"] == 0)
        reached = {m: kept.sel(mechanism=m).values for m in names}
        parts = {f"{m} reached": mean(share) for m, share in reached.items()}
        if level >= EASY:
            taken = {m: at["compared_steps"].sel(mechanism=m).values for m in names}
            pair = {m: np.where(reached[m] > 0, taken[m], np.nan) for m in names}
            cell |= {"rates": _RATES[choice]}
            lines.compare("optimisation", cell, "steps", pair, parts)
        elif choice == "own":
            more = reached[SELECTIVE] - reached[VANILLA]
            lines.single("reach", cell, "reached", more, parts)
    return lines.claims
