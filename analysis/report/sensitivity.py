"""How an experiment's errors depend on the step size, from what its tuning found."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from ssa_theory.mechanism import VANILLA


@dataclass(frozen=True)
class Sensitivity:
    """By mechanism the error at each step size over vanilla's at its best one: geometric means over
    all problems of an experiment. The last column is at each problem's best step size.

    columns: the step sizes, and `best`. rows: by mechanism its ratios; infinite where a model of
    the tuning seeds diverged.
    """

    columns: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]


def sensitivity(dataset: xr.Dataset) -> Sensitivity | None:
    """That of a result; None where nothing was tuned, or vanilla is not among its mechanisms."""
    if "tuning_error" not in dataset or VANILLA not in dataset["mechanism"]:
        return None
    error = np.log(dataset["tuning_error"].transpose("mechanism", "tried_rate", ...))
    best = error.min("tried_rate")
    peer = best.sel(mechanism=VANILLA, drop=True)
    columns = [error.sel(tried_rate=rate, drop=True) for rate in error["tried_rate"]] + [best]
    ratios = [
        np.exp((one - peer).mean([d for d in one.dims if d != "mechanism"])) for one in columns
    ]
    names = error["mechanism"].values.tolist()
    rates = tuple(f"{rate:g}" for rate in error["tried_rate"].values)
    rows = {name: tuple(float(r[i]) for r in ratios) for i, name in enumerate(names)}
    return Sensitivity((*rates, "best"), rows)
