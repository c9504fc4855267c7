"""The atlas as a heat map, mechanisms by problems, and its error against added parameters."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage

from analysis.draw.figures import new_figure, style
from analysis.experiments.atlas.train import AtlasConfig

_WORST = 1.2
"""Where the colours end; what is worse looks alike."""


def draw(config: AtlasConfig, result: xr.Dataset) -> Figure:
    """Left the mean excess of every cell, right that of every mechanism on what it can wear."""
    mean = result["excess_band"].sel(estimate="value").transpose("mechanism", "world")
    names, worlds = mean["mechanism"].values, mean["world"].values
    order, across = similar(mean.values), similar(mean.values.T)
    table = mean.values[order][:, across]
    figure = new_figure(8 + 0.7 * len(worlds), 2 + 0.24 * len(names))
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    left.set_facecolor("#dddddd")  # cells without a number
    left.imshow(table, vmin=0, vmax=_WORST, cmap="viridis_r", aspect="auto")
    left.set_xticks(range(len(worlds)), worlds[across], rotation=45, ha="right")
    left.set_yticks(range(len(names)), names[order])
    for (i, j), value in np.ndenumerate(table):
        if np.isfinite(value):
            color = "white" if value > 0.5 * _WORST else "black"
            left.text(j, i, f"{value:.2f}", ha="center", va="center", size=6, color=color)
    left.set_title("(a) excess over Bayes")
    added = result["added_parameters"].median("world")
    for name in names:
        values = mean.sel(mechanism=name).dropna("world")
        if values.size:
            look = style(str(name)) | {"linestyle": ""}
            right.plot(1 + added.sel(mechanism=name), values.mean(), label=name, **look)
    right.set_xscale("log")
    right.set_xlabel("1 + added parameters (median)")
    right.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1, 1))
    right.set_title("(b) mean excess")
    return figure


def similar(table: np.ndarray) -> np.ndarray:
    """An order of the rows in which neighbours are alike; what is missing counts as the mean of its
    column.
    """
    if len(table) < 3:
        return np.arange(len(table))
    known = np.isfinite(table)
    seen = np.where(known, table, 0.0)
    column = seen.sum(0) / known.sum(0).clip(min=1)
    filled = np.where(known, table, column)
    return leaves_list(linkage(np.clip(filled, 0, _WORST), "average", optimal_ordering=True))
