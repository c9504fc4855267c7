"""Critical temperatures of drawn and trained rows, and schedules fitted to them."""

from itertools import product
from typing import cast

import numpy as np
import xarray as xr
from jaxtyping import Float

from analysis.claims.bands import mean_band
from analysis.experiments.base import Progress
from analysis.experiments.critical.config import LAWS, TRAINED, CriticalConfig
from analysis.experiments.mechanisms import chosen
from analysis.experiments.settings import train_cell
from ssa_theory.seeds import Stream, member_generator
from ssa_theory.theory import critical as theory
from ssa_theory.theory.paper.schedules import Family

EVERY = 16
"""One seed in so many also measures the longest rows."""


def train(config: CriticalConfig, progress: Progress) -> xr.Dataset:
    """The critical tau of every row: its prediction before any score is seen, the count of its gaps,
    and as measured. NaN for lengths that a seed does not measure.
    """
    seeds, advance = config.seed_range, progress(f"rows of {config.seeds} seeds", len(LAWS))
    drawn = np.full((2, len(LAWS), len(seeds), len(config.lengths)), np.nan)
    for i, law in enumerate(LAWS.values()):
        for j, seed in enumerate(seeds):
            generator = member_generator(seed, Stream.DATA)
            some = config.lengths if seed % EVERY == 0 else config.lengths[:-1]
            for k, n in enumerate(some):
                drawn[:, i, j, k] = _counted_and_measured(law.sample(n, generator), config.share)
        advance(1)
    trained = train_cell(config, progress)
    rows = trained["learned_transition_matrix"].values
    score = np.log(np.maximum(rows, np.finfo(float).tiny))
    trained_tau = np.apply_along_axis(
        lambda row: _counted_and_measured(row, config.share), -1, score
    )
    dims, by_row = ("law", "seed", "length"), ("model", "seed", "row")
    predicted = [[law.predicted(n, config.share) for n in config.lengths] for law in LAWS.values()]
    values = {
        "predicted": (dims[::2], np.array(predicted), "L of the law, before any score is seen"),
        "counted": (dims, drawn[0], "L of the row, by the count of its gaps"),
        "measured": (dims, drawn[1], "critical tau of the row"),
        "trained_counted": (
            by_row,
            trained_tau[..., 0],
            "L of a trained row, in units of its own tau",
        ),
        "trained_measured": (
            by_row,
            trained_tau[..., 1],
            "critical tau of a trained row, likewise",
        ),
        "trained_largest": (by_row, rows.max(-1), "largest weight of the trained row"),
        "diverged": (by_row[:2], trained["diverged"].values, "whether the loss was not finite"),
    }
    coords = {"law": list(LAWS), "seed": list(seeds), "length": list(config.lengths)}
    return xr.Dataset(
        {k: (d, v, {"description": about}) for k, (d, v, about) in values.items()},
        coords | {"model": list(TRAINED)},
    )


def _counted_and_measured(scores: Float[np.ndarray, " key"], share: float) -> tuple[float, float]:
    """The count of gaps and the critical tau; NaN of scores that are not finite."""
    if not np.isfinite(scores).all():
        return np.nan, np.nan
    return theory.predicted_critical(scores, share), theory.measured_critical(scores, share)


def summarise(config: CriticalConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Fit schedules to the median critical tau up to `trained_length`; add how far they are off."""
    measured, names = dataset["measured"], [m.name for m in chosen(config.mechanisms)]
    median = measured.median("seed")
    lengths = np.array(config.lengths, float)
    families, longest = [config.family(name) for name in names], config.trained_length
    tau = [[fitted(f, lengths, row, longest) for f in families] for row in median.values]
    dims = ("law", "mechanism", "length")
    about = "tau(n) of each schedule, fitted in log tau to the median critical tau up to training"
    dataset = dataset.assign_coords(mechanism=names)
    dataset["schedule"] = (dims, np.array(tau), {"description": about})
    with np.errstate(invalid="ignore"):
        distance = abs(np.log(dataset["schedule"]) - np.log(measured))
    # Cast, as numpy does not say that labels stay.
    dataset["distance"] = cast(xr.DataArray, distance).assign_attrs(
        description="|log(tau(n) / tau_c)|, how far a schedule is from a row's critical tau"
    )
    dataset["distance_band"] = mean_band(dataset["distance"])
    dataset["measured_median"] = median.assign_attrs(description="median over seeds of measured")
    return dataset


def fitted(
    family: Family,
    lengths: Float[np.ndarray, " length"],
    wanted: Float[np.ndarray, " length"],
    longest: int,
) -> Float[np.ndarray, " length"]:
    """c tau(n, theta) at all lengths, of least squared log ratio to what is wanted up to one."""
    seen, best = lengths <= longest, (np.inf, np.full(len(lengths), np.nan))
    for theta in product(*family.grid):
        tau = np.asarray(family.schedule(lengths, np.array(theta)), float)
        if not (tau > 0).all():
            continue
        log = np.log(wanted[seen] / tau[seen])
        best = min(best, (log.var(), tau * np.exp(log.mean())), key=lambda pair: pair[0])
    return best[1]
