"""The atlas as a heat map, its error against added parameters, and the best of each problem."""

from collections import Counter
from collections.abc import Mapping
from string import ascii_lowercase
from textwrap import wrap
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage

from analysis.draw.figures import label_axes, left_out, new_figure, spread, style
from analysis.draw.names import drawable
from analysis.experiments.atlas.train import AtlasConfig
from analysis.experiments.mechanisms import SELECTIVE

_WORST = 1.2
"""Where the colours end; what is worse looks alike."""
_COLUMNS = 16
"""Letters an inch of the lines below the panels."""
_LEGEND = 20
"""Mechanisms that a legend has room for; of more only the front is named."""


def draw(config: AtlasConfig, result: xr.Dataset) -> Figure:
    """The heat map on the left, on the right the front above the best of each problem."""
    mechanisms, problems = result.sizes["mechanism"], result.sizes["problem"]
    width, height = 6.5 + 0.55 * problems, max(7.0, 2 + 0.24 * mechanisms)
    figure, marks = new_figure(width, height), _marks(result)
    parts = figure.subplot_mosaic(
        [["map", "front"], ["map", "best"]], width_ratios=[1 + problems / 10, 1]
    )
    _draw_map(parts["map"], result, marks)
    _draw_front(parts["front"], result)
    _draw_best(parts["best"], result)
    how = f"{config.seeds} seeds, {config.steps} + {config.cooldown_steps} steps, {config.adam}"
    why = wrap("; ".join(f"{mark}: {why}" for why, mark in marks.items()), int(_COLUMNS * width))
    figure.supxlabel("\n".join((how + left_out(result), *why)), fontsize=8)
    return figure


def _reasons(result: xr.Dataset) -> list[list[str]]:
    """Why each cell has no number, by mechanism and problem, without the mechanism's name."""
    reason = result["reason"].transpose("mechanism", "problem")
    return [
        [str(why).removeprefix(f"mechanism {name} ") for why in row]
        for name, row in zip(reason["mechanism"].values, reason.values, strict=True)
    ]


def _marks(result: xr.Dataset) -> dict[str, str]:
    """By reason the letter that stands in its cells, the commonest reason first."""
    counts = Counter(why for row in _reasons(result) for why in row if why)
    return {
        why: f"{ascii_lowercase[place % 26]}{place // 26 or ''}"
        for place, (why, _) in enumerate(counts.most_common())
    }


def _draw_map(ax: Axes, result: xr.Dataset, marks: Mapping[str, str]) -> None:
    mean = result["excess_band"].sel(estimate="value").transpose("mechanism", "problem")
    order, across = similar(mean.values), similar(mean.values.T)
    table = mean.values[order][:, across]
    ax.set_facecolor("#dddddd")  # cells without a number
    image = ax.imshow(table, vmin=0, vmax=_WORST, cmap="viridis_r", aspect="auto")
    problems, names = mean["problem"].values[across], mean["mechanism"].values[order]
    ax.set_xticks(range(len(problems)), problems, rotation=45, ha="right")
    ax.set_yticks(range(len(names)), [drawable(str(n)) for n in names], parse_math=False)
    reasons = _reasons(result)
    for (i, j), value in np.ndenumerate(table):
        if why := reasons[order[i]][across[j]]:
            ax.text(j, i, marks[why], ha="center", va="center", size=6, color="#777777")
        elif np.isfinite(value):
            color = "white" if value > 0.5 * _WORST else "black"
            weight = "bold" if names[i] == result["best"].sel(problem=problems[j]) else "normal"
            look = {"size": 6, "color": color, "weight": weight}
            ax.text(j, i, _short(value), ha="center", va="center", **look)
    bar = ax.figure.colorbar(image, ax=ax, extend="max", location="bottom", shrink=0.6, aspect=40)
    bar.set_label("error above Bayes: 0 exact Bayes, 1 naive", size=8)
    ax.set_title("error above Bayes")


def _short(value: float) -> str:
    return f"{value:.3f}" if value < 0.0995 else f"{value:.2f}" if value < 9.95 else f"{value:.0f}"


def front(result: xr.Dataset) -> xr.Dataset:
    """By mechanism `added`, the parameters that it adds (median over the problems that it can wear),
    `error`, its mean over all problems, and whether it is `leading`: no other has both no more of
    the one and no more of the other.
    """
    error = result["overall_band"].sel(estimate="value", drop=True)
    worn = result["excess_band"].sel(estimate="value", drop=True).notnull()
    added = result["added_parameters"].where(worn).median("problem")
    a, e = added.values, error.values
    beaten = [
        bool((((a <= x) & (e < y)) | ((a < x) & (e <= y))).any()) for x, y in zip(a, e, strict=True)
    ]
    leading = ~np.array(beaten) & np.isfinite(a + e)
    return xr.Dataset({"added": added, "error": error, "leading": ("mechanism", leading)})


def _draw_front(ax: Axes, result: xr.Dataset) -> None:
    shown = front(result)
    shown = shown.isel(mechanism=np.isfinite((shown["error"] + shown["added"]).values))
    few = shown.sizes["mechanism"] <= _LEGEND
    for name in shown["mechanism"].values.tolist():
        one, band = shown.sel(mechanism=name), result["overall_band"].sel(mechanism=name)
        look = style(name) | {"linestyle": "none", "markersize": 6 if few else 5}
        look["label"] = drawable(name) if few or one["leading"] else None
        ax.errorbar(1 + one["added"], band.sel(estimate="value"), yerr=spread(band), **look)
    first = shown.isel(mechanism=shown["leading"].values).sortby("added")
    ax.step(1 + first["added"], first["error"], where="post", color="#444444", linewidth=0.8)
    ax.set_xscale("log")
    label_axes(ax, "1 + added parameters", "mean error above Bayes", "error against size")
    legend = ax.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1, 1))
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_best(ax: Axes, result: xr.Dataset) -> None:
    problems = result["problem"].values.tolist()
    place = np.arange(len(problems))
    ssa = style(SELECTIVE)
    for band, color, marker, fill in (
        ("margin_band", "#222222", "o", "full"),
        ("selective_band", ssa["color"], ssa["marker"], "none"),
    ):
        if band in result:
            look: dict[str, Any] = {"color": color, "marker": marker, "fillstyle": fill}
            look |= {"linestyle": "none", "capsize": 2, "xerr": spread(result[band])}
            ax.errorbar(result[band].sel(estimate="value"), place, **look)
    names = [
        f"{problem}: {drawable(str(best))}, {drawable(str(second))}"
        for problem, best, second in zip(
            problems, result["best"].values, result["second"].values, strict=True
        )
    ]
    ax.set_yticks(place, names, fontsize=7, parse_math=False)
    ax.invert_yaxis()
    ax.axvline(1, color="#888888", linewidth=0.8)
    title = "best over second (filled), SSA over best (open)"
    label_axes(ax, "ratio of errors above Bayes, geometric means", title=title, log="x")


def similar(table: np.ndarray) -> np.ndarray:
    """An order in which neighbours are alike; what is missing counts as its column's mean."""
    if len(table) < 3:
        return np.arange(len(table))
    known = np.isfinite(table)
    seen = np.where(known, table, 0.0)
    column = seen.sum(0) / known.sum(0).clip(min=1)
    filled = np.where(known, table, column)
    return leaves_list(linkage(np.clip(filled, 0, _WORST), "average", optimal_ordering=True))
