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
    tried = dataset["tuning_error"].transpose("mechanism", "tried_rate", ...)
    names = tried["mechanism"].values.tolist()
    error = np.log(tried.values).reshape(len(names), tried.sizes["tried_rate"], -1)
    best = error.min(1, keepdims=True)
    above = np.concatenate([error, best], 1) - best[names.index(VANILLA)]
    ratios = np.exp(above.mean(2))
    columns = (*(f"{rate:g}" for rate in tried["tried_rate"].values), "best")
    return Sensitivity(columns, {n: tuple(r.tolist()) for n, r in zip(names, ratios, strict=True)})
