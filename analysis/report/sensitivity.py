"""How an experiment's comparisons depend on the step size and the steps, from what tuning found."""

from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
import xarray as xr

from ssa_theory.mechanism import VANILLA

MARGIN = 0.05
"""The least effect that counts, as a share: that of the topics."""
BEST = "each its best"
"""The column of a strip in which both have the best of their step sizes, problem by problem."""
_REGIMES = {"": "", "control_": ", control"}
"""How the variables of a regime begin, and what is said of it after a mechanism's name."""


@dataclass(frozen=True)
class Setting:
    """The error of a mechanism over vanilla's: infinite where only its own training diverged, 0 where
    only vanilla's did, NaN where there is nothing to compare.
    """

    ratio: float

    @property
    def outcome(self) -> Literal["benefit", "equivalent", "harm", "no ratio"]:
        """On which side of the margin the ratio lies."""
        if np.isnan(self.ratio):
            return "no ratio"
        if abs(np.log(max(self.ratio, 1e-300))) <= -np.log1p(-MARGIN):
            return "equivalent"
        return "benefit" if self.ratio < 1 else "harm"

    @property
    def text(self) -> str:
        """The ratio, or who diverged."""
        diverged = {0.0: "vanilla diverged", np.inf: "diverged"}
        known = "" if np.isnan(self.ratio) else f"{self.ratio:.3g}"
        return diverged.get(self.ratio, known)


@dataclass(frozen=True)
class Strip:
    """The settings of one mechanism.

    regime: what is said of it after the mechanism's name. columns: the step sizes, at which both
    train, and `BEST`. rows: by the share of the steps.
    """

    mechanism: str
    regime: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[Setting, ...]]

    @property
    def name(self) -> str:
        """Of mechanism and regime."""
        return f"{self.mechanism}{self.regime}"

    @property
    def sentence(self) -> str:
        """What it shows, of the settings at equal step size and steps."""
        equal = [one for row in self.rows.values() for one in row[:-1]]
        counts = {
            name: sum(one.outcome == name for one in equal)
            for name in ("benefit", "equivalent", "harm")
        }
        ratios = [one.ratio for one in equal if 0 < one.ratio < np.inf]
        if not ratios:
            return f"{self.name} and vanilla have no ratio at equal step size and steps."
        return (
            f"{self.name}: the error over vanilla's at equal step size and steps lies between "
            f"{min(ratios):.3g} and {max(ratios):.3g}: a benefit at {counts['benefit']} of "
            f"{len(equal)} settings, equivalent at {counts['equivalent']}, a harm at "
            f"{counts['harm']}."
        )


def strips(dataset: xr.Dataset) -> tuple[Strip, ...]:
    """Those of a result, by mechanism: geometric means over all problems on which both have an error.
    None of them where nothing was tuned, or vanilla is not among its mechanisms. Where each has a
    `peer`, that stands for vanilla.
    """
    names = {f"{prefix}tuning_error": regime for prefix, regime in _REGIMES.items()}
    tuned = {name: regime for name, regime in names.items() if name in dataset}
    if not tuned or (VANILLA not in dataset["mechanism"] and "peer" not in dataset):
        return ()
    return tuple(chain(*(_strips(dataset[name], regime) for name, regime in tuned.items())))


def _strips(error: xr.DataArray, regime: str) -> list[Strip]:
    if "tried_start" in error.dims:
        error = error.min("tried_start")  # of each by itself
    tried = error.transpose("mechanism", "tried_step", "tried_rate", ...)
    names = [str(name) for name in tried["mechanism"].values]
    each = tried.values.reshape(*tried.shape[:3], -1)
    each = np.concatenate([each, each.min(2, keepdims=True)], 2)
    peers = [VANILLA] * len(names)
    if "peer" in tried.coords:
        peers = [str(name) for name in tried["peer"].values]
    columns = (*(f"{rate:g}" for rate in tried["tried_rate"].values), BEST)
    steps = [f"{100 * share:.3g} % of the steps" for share in tried["tried_step"].values]
    found = []
    for name, peer, own in zip(names, peers, each, strict=True):
        ratios = _over(own, each[names.index(peer)]).tolist()
        rows = {s: tuple(map(Setting, r)) for s, r in zip(steps, ratios, strict=True)}
        if name != peer:
            found.append(Strip(name, regime, columns, rows))
    return found


def _over(own: np.ndarray, peer: np.ndarray) -> np.ndarray:
    """The geometric mean over problems (step, rate, problem) of the ratio of errors."""
    with np.errstate(invalid="ignore"):  # infinite over infinite
        log = np.log(own) - np.log(peer)
        known = ~np.isnan(log)
        total = np.where(known, log, 0).sum(-1)
    mean = np.where(known.any(-1), total, np.nan) / known.sum(-1).clip(min=1)
    return np.exp(mean)


def settled_shares(dataset: xr.Dataset) -> dict[str, float]:
    """The share of each mechanism's models whose loss had settled, where it is known."""
    return {
        f"{name}{regime}": float(dataset[f"{prefix}settled"].sel(mechanism=name).mean())
        for prefix, regime in _REGIMES.items()
        if f"{prefix}settled" in dataset
        for name in dataset["mechanism"].values
    }
