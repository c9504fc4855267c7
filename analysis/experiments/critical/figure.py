"""The figure of the critical temperatures: laws, schedules, trained rows."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.draw.figures import label_axes, left_out, new_figure, style
from analysis.experiments.critical.config import LAWS, TRAINED, CriticalConfig
from ssa_theory.theory import critical as theory

_LARGEST = 100.0
"""Critical tau of a trained row that is drawn; rows of two nearly equal largest have any."""
_MARKS = dict(zip(LAWS, "osD^v<>", strict=True))


def draw(config: CriticalConfig, result: xr.Dataset) -> Figure:
    """Critical tau by law; how far schedules are from it; and that of trained rows."""
    figure = new_figure(14.0, 4.8)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1.1, 1])
    _draw_laws(left, result)
    _draw_schedules(middle, config, result)
    _draw_trained(right, config, result)
    figure.supxlabel(f"{config.seeds} seeds{left_out(result)}", fontsize=8)
    return figure


def _draw_laws(ax: Axes, result: xr.Dataset) -> None:
    n = result["length"].values
    for i, (law, marker) in enumerate(_MARKS.items()):
        one, color = result.sel(law=law), f"C{i}"
        ax.plot(n, one["predicted"], color=color, linewidth=1)
        look = {"color": color, "marker": marker, "markersize": 4.5, "linestyle": "none"}
        ax.plot(n, one["measured_median"], label=law, **look)
    ax.set(xscale="log", yscale="log")
    title = "predicted (lines) and measured (median)"
    label_axes(ax, "number of scores n", "critical tau", title)
    ax.legend(fontsize=7)


def _draw_schedules(ax: Axes, config: CriticalConfig, result: xr.Dataset) -> None:
    band = result["distance_band"].isel(length=-2).sel(estimate="value")
    table = band.transpose("law", "mechanism").values
    ax.imshow(table, cmap="viridis_r", vmin=0, vmax=2, aspect="auto")
    for (i, j), value in np.ndenumerate(table):
        weight = "bold" if value == np.nanmin(table[i]) else "normal"
        color = "white" if value > 1 else "black"
        look = {"size": 7, "color": color, "weight": weight}
        ax.text(j, i, f"{value:.2f}", ha="center", va="center", **look)
    names = result["mechanism"].values.tolist()
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    ax.set_yticks(range(len(LAWS)), list(LAWS), fontsize=8)
    ax.set_title(
        f"|log(tau / critical)| at n = {config.lengths[-2]:,}, fitted to {config.trained_length:,}"
    )


def _draw_trained(ax: Axes, config: CriticalConfig, result: xr.Dataset) -> None:
    for name in TRAINED:
        one = result.sel(model=name)
        x, low = (one[f"trained_{what}"].values.ravel() for what in ("measured", "counted"))
        y = x / np.where(np.isfinite(low), low, np.nan)  # both infinite where two are largest
        look = style(name) | {"linestyle": "none", "markersize": 2.5, "alpha": 0.5}
        ax.plot(x, y, label=name, **look)
    for factor, line in ((1.0, "-"), (theory.slack(config.share), "--")):
        ax.axhline(factor, color="#222222", linewidth=0.8, linestyle=line)
    ax.axvline(1, color="#888888", linewidth=0.8, linestyle=":")
    ax.set(xscale="log", xlim=(0.1, _LARGEST))
    x, y = "critical tau of a row, over its own tau", "critical tau over the count of gaps L"
    label_axes(ax, x, y, "trained rows: between 1 and theta (dashed)", log="x")
    ax.legend(fontsize=7)
