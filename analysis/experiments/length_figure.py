"""The figure of the length experiment: error, inverse temperature and effective support against the context's length."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from analysis.draw.figures import SCHEDULE_STYLE, left_out, new_figure
from ssa_theory import SCHEDULES

_BASELINE = {
    "naive": {"label": "uniform attention (τ = 0)", "color": "#aaaaaa", "linestyle": (0, (1, 3)), "linewidth": 3},
    "best_vanilla": {"label": "best single τ", "color": "#555555", "linestyle": (0, (6, 4)), "linewidth": 1.2},
    "oracle": {"label": "best τ per n", "color": "#bbbbbb", "linestyle": "-", "linewidth": 5},
    "bayes": {"label": "exact Bayes (GP posterior)", "color": "#e0b000", "linestyle": "-", "linewidth": 3},
}


if set(SCHEDULE_STYLE) != set(SCHEDULES):  # a schedule without a style would silently be left out
    raise ValueError(
        f"every position schedule needs a style of its own, got styles {', '.join(SCHEDULE_STYLE)} for the schedules "
        f"{', '.join(SCHEDULES)}: give SCHEDULE_STYLE in analysis/figures.py what it lacks, and drop what is no schedule"
    )


def draw(config: Any, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    length = dataset["length"].values
    variants = [v for v in SCHEDULE_STYLE if v in dataset["variant"]]
    figure = new_figure(14.0, 5.4)
    axes = figure.subplots(1, 3)
    for ax in axes:
        ax.axvspan(min(config.train_lengths), max(config.train_lengths), color="#eeeeee", zorder=-5, label="training")
    left, middle, right = axes

    for name, style in _BASELINE.items():
        left.plot(length, dataset[f"{name}_band"].sel(estimate="value"), zorder=0, **style)
    middle.plot(length, dataset["best_inverse_temperature"], zorder=0, **_BASELINE["oracle"])
    middle.axhline(float(dataset["best_vanilla_inverse_temperature"]), zorder=0, **_BASELINE["best_vanilla"])
    right.plot(length, length, zorder=0, **_BASELINE["naive"])
    for place, v in enumerate(variants):
        for ax, name in ((left, "mse"), (middle, "learned_inverse_temperature"), (right, "effective_support")):
            _draw(ax, length, dataset[f"{name}_band"].sel(variant=v), v, place)
    left.set(ylabel="mean squared error of f(q)", title="error")
    middle.set(ylabel="inverse temperature τ(n)", title="learned schedules")
    right.set(ylabel="effective support exp(H) of the row (keys)", title="dilution")
    for ax in axes:
        ax.set(xscale="log", yscale="log", xlabel="context length n")
        ax.set_xticks(length, [str(n) for n in length], fontsize=8)
        ax.minorticks_off()
    middle.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    middle.yaxis.set_major_formatter("{x:g}")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8)
    figure.suptitle(
        f"kernel regression: d = {config.dim}, l = {config.length_scale:g}, σ = {config.noise:g}, trained on "
        f"n = {min(config.train_lengths)} to {max(config.train_lengths)}; means and 95 % intervals over "
        f"{config.seeds} seeds" + left_out(dataset)
    )
    return figure


def _draw(ax: Axes, x: np.ndarray, band: xr.DataArray, variant: str, place: int) -> None:
    """A mean curve with its 95 % interval; markers start at different points, so that equal curves stay readable."""
    value, low, high = (band.sel(estimate=e).values for e in ("value", "low", "high"))
    ax.plot(x, value, label=variant, markersize=4.5, markevery=(place % 2, 2), **SCHEDULE_STYLE[variant])
    ax.fill_between(x, low, high, color=SCHEDULE_STYLE[variant]["color"], alpha=0.15, linewidth=0)
