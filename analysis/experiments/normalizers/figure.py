"""The figure of the normalisers: error, spiky against sparse, and what longer contexts do."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from analysis.draw.figures import draw_band, label_axes, left_out, new_figure, spread, style
from analysis.experiments.normalizers.config import (
    SOFTMAX,
    TEMPERATURES,
    NormalizersConfig,
    mechanism_of,
)

_ERROR = {
    "graph": "squared distance of the row from P*",
    "retrieval": "squared distance of the row from the posterior",
    "length": "squared error above the GP posterior's",
}
_DOTS, _DASHES = (0, (1, 3)), (0, (4, 2))
_BASELINE = {
    "uniform": {"label": "uniform attention", "color": "#aaaaaa", "linestyle": _DOTS, "lw": 3},
    "best_softmax": {"label": "softmax at its best temperature", "color": "#bbbbbb", "lw": 4},
}
_PEER = {"label": "softmax with SSA temperature", "color": "#222222", "linestyle": _DASHES, "lw": 1}


def draw(config: NormalizersConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    names = [str(n) for n in dataset["normalizer"].values]
    figure = new_figure(14.0, 8.0)
    upper, lower = figure.subplots(2, 4)
    for column, task in enumerate(map(str, dataset["task"].values)):
        part = dataset.sel(task=task)
        _draw_errors(upper[column], part, names)
        _draw_shape(lower[column], part, names)
        where = f"length, n = {int(dataset['length'].max())}" if task == "length" else task
        label_axes(upper[column], _ERROR[task], title=f"{where}: error")
        upper[column].set_yticks(range(len(names)), [""] * len(names) if column else names)
        label_axes(lower[column], title=f"{where}: spiky against sparse")
    lower[0].set_ylabel("share of exact zeros in the rows")
    _draw_growth(upper[3], dataset, names, "mse_over_best_band", config)
    upper[3].axhline(1, **_BASELINE["best_softmax"], zorder=0)
    label_axes(
        upper[3], y="squared error / that at the best τ per n", title="longer contexts: error"
    )
    _draw_growth(lower[3], dataset, names, "effective_support_by_length_band", config)
    label_axes(lower[3], y="effective support exp(H) (keys)", title="longer contexts: dilution")
    figure.legend(handles=_legend(names), loc="outside lower center", ncols=6, fontsize=8)
    dead = int((dataset["dead_rows"] == 1).sum())
    figure.suptitle(
        f"sparse normalisers against temperature: adam, {config.graph_steps}, "
        f"{config.retrieval_steps} and {config.length_steps} steps; means and 95 % intervals over "
        f"{config.seeds} seeds"
        + (f"; {dead} models ended with no gradient in any row" if dead else "")
        + left_out(dataset)
    )
    return figure


def _draw_errors(ax: Axes, part: xr.Dataset, names: list[str]) -> None:
    """One line a normaliser: the mean error without (open) and with (filled) a temperature."""
    for name, look in _BASELINE.items():
        value = float(part[f"{name}_band"].sel(estimate="value"))
        if np.isfinite(value):
            ax.axvline(value, zorder=0, **look)
    error = part["error_band"]
    peer = error.sel(normalizer=SOFTMAX, temperature="with", estimate="value")
    ax.axvline(float(peer), zorder=0, **_PEER)
    for place, n in enumerate(names):
        for shift, t in zip((-0.14, 0.14), TEMPERATURES, strict=True):
            band = error.sel(normalizer=n, temperature=t)
            look: dict[str, Any] = _mark(n, t) | {"capsize": 2, "elinewidth": 1}
            ax.errorbar(band.sel(estimate="value"), place + shift, xerr=spread(band), **look)
    ax.set(xscale="log", ylim=(len(names) - 0.5, -0.5))
    _label_supports(ax)
    ax.tick_params(axis="x", labelsize=8)


def _draw_shape(ax: Axes, part: xr.Dataset, names: list[str]) -> None:
    """Effective support against the share of zeros; a line joins without and with a temperature."""
    for n in names:
        bands = [
            part[f"{m}_band"].sel(normalizer=n) for m in ("effective_support", "zero_fraction")
        ]
        points = [band.sel(estimate="value") for band in bands]
        for t in TEMPERATURES:
            xy = (point.sel(temperature=t) for point in points)
            wide, high = (spread(band.sel(temperature=t)) for band in bands)
            ax.errorbar(*xy, xerr=wide, yerr=high, elinewidth=0.8, **_mark(n, t))
        ax.plot(*points, color=_look(n)["color"], linewidth=0.8, zorder=1)
    ax.set(xscale="log", ylim=(-0.04, 1.04), xlabel="effective support exp(H) (keys)")
    _label_supports(ax)


def _draw_growth(
    ax: Axes, dataset: xr.Dataset, names: list[str], variable: str, config: NormalizersConfig
) -> None:
    """Curves over length of all normalisers without a temperature, and of softmax with one."""
    ax.axvspan(min(config.length_train), max(config.length_train), color="#eeeeee", zorder=-5)
    length = dataset["length"].values
    for n, t in (*((n, "without") for n in names), (SOFTMAX, "with")):
        line = _PEER if t == "with" else {"linestyle": _look(n)["linestyle"]}
        look = _mark(n, t) | {"markersize": 4} | line
        band = dataset[variable].sel(normalizer=n, temperature=t)
        draw_band(ax, length, band, mechanism_of(n).name, 0.12, **look)
    ax.set(xscale="log", yscale="log", xlabel="context length n")
    ax.set_xticks(length, [str(n) for n in length], fontsize=8)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()


def _label_supports(ax: Axes) -> None:
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")


def _look(name: str) -> dict[str, Any]:
    return style(mechanism_of(name).name)


def _mark(name: str, temperature: str) -> dict[str, Any]:
    """A normaliser's marker, filled with a temperature and open without."""
    look = _look(name)
    face = look["color"] if temperature == "with" else "white"
    own = {"linestyle": "none", "markeredgecolor": look["color"], "markerfacecolor": face}
    return look | {"markersize": 6} | own


def _legend(names: list[str]) -> list[Line2D]:
    handles = [Line2D([], [], label=n, markersize=6, **_look(n)) for n in names]
    faces = {"open: without temperature": "white", "filled: with SSA temperature": "#555555"}
    grey: dict[str, Any] = {"color": "#555555", "marker": "o", "linestyle": "none"}
    handles += [Line2D([], [], label=k, markerfacecolor=v, **grey) for k, v in faces.items()]
    return handles + [Line2D([], [], **look) for look in (_PEER, *_BASELINE.values())]
