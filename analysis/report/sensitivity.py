"""How an experiment's comparisons depend on the step size and the steps, from what tuning found."""

from dataclasses import dataclass
from itertools import chain
from typing import Literal, cast

import numpy as np
import xarray as xr

from analysis.claims.registry import DELTA
from analysis.claims.rule import Side, side
from analysis.claims.statistics import FEWEST, ratio
from analysis.problems.tuned import LONGER
from ssa_theory.mechanism import VANILLA

BEST = "each its best"
"""The first column of a strip, in which both have the best of their step sizes, problem by problem."""
LASTING = f"{100 * LONGER} %"
"""The row of the longer training, in that column alone."""
_ERROR = "error"
_REGIMES = {"": "", "control_": ", control"}
"""How the variables of a regime begin, and what is said of it after a mechanism's name."""
_COUNTED: dict[str, str] = {
    "benefit": "a benefit",
    "harm": "a harm",
    "equivalent": "equivalent",
    "unresolved": "unresolved",
}


@dataclass(frozen=True)
class Setting:
    """The error of a mechanism over vanilla's with its 95 % interval: infinite where only its own
    training diverged, 0 where only vanilla's did, NaN where there is nothing to compare.
    """

    ratio: float
    low: float = np.nan
    high: float = np.nan

    @property
    def outcome(self) -> Side | Literal["no ratio"]:
        """What it says, by the rule and the margin of the topics."""
        if np.isnan(self.ratio):
            return "no ratio"
        if self.ratio in (0.0, np.inf):
            return "harm" if self.ratio else "benefit"
        with np.errstate(divide="ignore"):  # of an open interval
            return side(-np.log(self.high), -np.log(self.low), DELTA)

    @property
    def said(self) -> str:
        """The outcome in a sentence."""
        return _COUNTED.get(self.outcome, self.outcome)

    @property
    def text(self) -> str:
        """The ratio, or who diverged."""
        if self.ratio in (0.0, np.inf):
            return "diverged" if self.ratio else "vanilla diverged"
        return "" if np.isnan(self.ratio) else f"{self.ratio:.3g}"

    @property
    def interval(self) -> str:
        """That of the ratio, where it has one."""
        return "" if np.isnan(self.low) else f"{self.low:.3g} to {self.high:.3g}"


@dataclass(frozen=True)
class Longer:
    """Of the longer training, both at the step size that is best after all steps: the setting, and
    the shares of the mechanism's models and of vanilla's that had settled.
    """

    setting: Setting
    own: float
    vanilla: float

    def said(self, name: str) -> str:
        """What it shows of a mechanism."""
        one = self.setting
        interval = f" ({one.interval})" if one.interval else ""
        ratio_text = f"{one.text}{interval}, " if one.text else ""
        return (
            f"With {LONGER} times the steps, {BEST}: {ratio_text}{one.said}; "
            f"{100 * self.own:.0f} % of {name}'s and {100 * self.vanilla:.0f} % of vanilla's "
            "models had settled"
        )


@dataclass(frozen=True)
class Strip:
    """The settings of one mechanism.

    variable: what is compared, such as `error`. measure: that of the registry, none for the error.
    regime: what is said of it after the mechanism's name. columns: `BEST`, and the step sizes at
    which both train. rows: by the share of the steps. longer: None where it was not stored.
    """

    mechanism: str
    regime: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[Setting, ...]]
    longer: Longer | None = None
    variable: str = _ERROR
    measure: str = ""

    @property
    def compared(self) -> str:
        """What is compared, in words."""
        return self.variable.replace("_", " ")

    @property
    def name(self) -> str:
        """Of mechanism and regime, and of what is compared if that is not the error."""
        own = "" if self.variable == _ERROR else f", {self.compared}"
        return f"{self.mechanism}{self.regime}{own}"

    @property
    def changed(self) -> str:
        """What longer training changes of the outcome after all steps, each at its best; empty where
        that stays.
        """
        if self.longer is None:
            return ""
        *_, (before, *_) = self.rows.values()
        words = before.outcome, self.longer.setting.outcome
        return "" if words[0] == words[1] else f"longer training changes this: {' -> '.join(words)}"

    @property
    def sentence(self) -> str:
        """What it shows, of the settings at equal step size and steps, and of the longer training."""
        if self.longer is None:
            return self._equal
        last = "; ".join(filter(None, (self.longer.said(self.mechanism), self.changed)))
        return f"{self._equal} {last}."

    @property
    def _equal(self) -> str:
        equal = [one for row in self.rows.values() for one in row[1:]]
        ratios = [one.ratio for one in equal if 0 < one.ratio < np.inf]
        if not ratios:
            return f"{self.name}: no ratio to vanilla's at equal step size and steps."
        counts = [
            f"{what} at {sum(one.outcome == name for one in equal)}"
            for name, what in _COUNTED.items()
        ]
        return (
            f"{self.mechanism}{self.regime}: the {self.compared} over vanilla's at equal step size "
            "and steps lies between "
            f"{min(ratios):.3g} and {max(ratios):.3g}; of {len(equal)} settings {', '.join(counts)}."
        )


def strips(dataset: xr.Dataset) -> tuple[Strip, ...]:
    """Those of a result, by mechanism: geometric means over all problems on which both have an error,
    and over the seeds that tuned, with intervals over these; of the error, and of what else tuning
    tracked. None of them where nothing was tuned, an older version stored no seeds, or vanilla is not
    among its mechanisms. Where each has a `peer`, that stands for vanilla.
    """
    tuned = {
        f"{prefix}tuning_": regime
        for prefix, regime in _REGIMES.items()
        if "tuning_seed" in dataset.get(f"{prefix}tuning_error", xr.DataArray()).dims
    }
    if not tuned or (VANILLA not in dataset["mechanism"] and "peer" not in dataset):
        return ()
    pairs = [
        (prefix, name.removeprefix(prefix))
        for prefix in tuned
        for name in map(str, dataset.data_vars)
        if name.startswith(prefix)
    ]
    pairs.sort(key=lambda pair: pair[1] != _ERROR)
    return tuple(chain(*(_strips(dataset, *pair, tuned[pair[0]]) for pair in pairs)))


def _strips(dataset: xr.Dataset, prefix: str, variable: str, regime: str) -> list[Strip]:
    """Those of one variable. The best step sizes, and starts, are those of the least error."""
    error, values = dataset[f"{prefix}{_ERROR}"], dataset[f"{prefix}{variable}"]
    if "tried_start" in error.dims:
        error, values = (_best(one, error, "tried_start") for one in (error, values))
    best = _best(values, error, "tried_rate").expand_dims(tried_rate=[np.nan])
    tried = xr.concat([best, values], "tried_rate").transpose(
        "mechanism", "tried_step", "tried_rate", ..., "tuning_seed"
    )
    each = tried.values
    each = each.reshape(*each.shape[:3], -1, each.shape[-1])
    names = [str(name) for name in tried["mechanism"].values]
    peers = [VANILLA] * len(names)
    if "peer" in tried.coords:
        peers = [str(name) for name in tried["peer"].values]
    columns = (BEST, *(f"{rate:g}" for rate in values["tried_rate"].values))
    steps = [f"{100 * share:.3g} %" for share in tried["tried_step"].values]
    regime_strips = []
    for name, peer, own in zip(names, peers, each, strict=True):
        if name != peer:
            of_peer = each[names.index(peer)]
            settings = [
                tuple(_over(*pair) for pair in zip(*rows, strict=True))
                for rows in zip(own, of_peer, strict=True)
            ]
            rows = dict(zip(steps, settings, strict=True))
            longer = _longer(dataset, prefix, name, peer) if variable == _ERROR else None
            measure = values.attrs.get("measure", "")
            regime_strips.append(Strip(name, regime, columns, rows, longer, variable, measure))
    return regime_strips


def _longer(dataset: xr.Dataset, prefix: str, *pair: str) -> Longer | None:
    """That of a mechanism and its peer, where it was stored."""
    names = [prefix.replace("tuning", "longer") + name for name in (_ERROR, "settled")]
    if names[0] not in dataset:
        return None
    of = dataset[names]
    error, settled = (
        of.sel(mechanism=list(pair)).transpose("mechanism", ..., "tuning_seed").values()
    )
    known = error.notnull()
    shares = settled.where(known).mean([d for d in settled.dims if d != "mechanism"]).values
    each = error.values.reshape(2, -1, error.sizes["tuning_seed"])
    return Longer(_over(*each), *shares.tolist())


def _best(values: xr.DataArray, error: xr.DataArray, dim: str) -> xr.DataArray:
    """Those at the least error, its geometric mean over the seeds, of each mechanism and problem by
    itself.
    """
    score = cast(xr.DataArray, np.log(error)).mean("tuning_seed", skipna=False).fillna(np.inf)
    return values.isel({dim: score.argmin(dim)}).drop_vars(dim, errors="ignore")


def _over(own: np.ndarray, peer: np.ndarray) -> Setting:
    """The ratio of errors (problem, seed): of each seed the geometric mean over the problems."""
    lost_own, lost_peer = (np.asarray(np.isinf(one).any(-1)) for one in (own, peer))
    known = np.asarray(~np.isnan(own + peer).any(-1) & ~(lost_own & lost_peer))
    if not known.any() or (lost_own[known].any() and lost_peer[known].any()):
        return Setting(np.nan)
    if lost_own[known].any() or lost_peer[known].any():
        return Setting(np.inf if lost_own[known].any() else 0.0)
    with np.errstate(over="ignore"):  # the end of an interval that is open
        estimate = ratio(*(np.exp(np.log(one[known]).mean(0)) for one in (own, peer)))
    if estimate.seeds < FEWEST:
        return Setting(estimate.value)
    return Setting(estimate.value, estimate.low, estimate.high)


def settled_shares(dataset: xr.Dataset) -> dict[str, float]:
    """The share of each mechanism's models whose loss had settled, where it is known."""
    return {
        f"{name}{regime}": float(dataset[f"{prefix}settled"].sel(mechanism=name).mean())
        for prefix, regime in _REGIMES.items()
        if f"{prefix}settled" in dataset
        for name in dataset["mechanism"].values
    }
