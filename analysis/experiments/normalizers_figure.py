"""The figure of the normalisers: error with and without temperature, spiky against sparse, and what longer contexts do."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from analysis.experiments.normalizers_config import NormalizersConfig
from analysis.draw.figures import left_out, new_figure

_STYLE: dict[str, dict[str, object]] = {
    "softmax": {"color": "#222222", "linestyle": "-", "marker": "o"},
    "sparsemax": {"color": "#d55e00", "linestyle": "--", "marker": "s"},
    "entmax15": {"color": "#0072b2", "linestyle": "-.", "marker": "^"},
    "entmax": {"color": "#56b4e9", "linestyle": (0, (8, 2)), "marker": "X"},
    "top-k": {"color": "#8c6d31", "linestyle": (0, (1, 1)), "marker": "P"},
    "threshold": {"color": "#009e73", "linestyle": ":", "marker": "D"},
    "rela": {"color": "#cc79a7", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
}
_LABEL = {"entmax15": "1.5-entmax", "entmax": "α-entmax, α learned", "rela": "ReLA"}
_ERROR = {
    "graph": "squared distance of the row from P*",
    "retrieval": "squared distance of the row from the posterior",
    "length": "squared error above the GP posterior's",
}
_BASELINE = {
    "uniform": {"label": "uniform attention", "color": "#aaaaaa", "linestyle": (0, (1, 3)), "linewidth": 3},
    "best_softmax": {
        "label": "softmax at its best temperature",
        "color": "#bbbbbb",
        "linestyle": "-",
        "linewidth": 4,
    },
}
_PEER = {"label": "softmax with SSA temperature", "color": "#222222", "linestyle": (0, (4, 2)), "linewidth": 1}


def draw(config: NormalizersConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    names = [n for n in _STYLE if n in dataset["normalizer"]]
    figure = new_figure(14.0, 8.0)
    upper, lower = figure.subplots(2, 4)
    for column, task in enumerate(map(str, dataset["task"].values)):
        part = dataset.sel(task=task)
        _draw_errors(upper[column], part, names, named=column == 0)
        _draw_shape(lower[column], part, names)
        where = f"length, n = {int(dataset['length'].max())}" if task == "length" else task
        upper[column].set(title=f"{where}: error", xlabel=_ERROR[task])
        lower[column].set(title=f"{where}: spiky against sparse")
    lower[0].set_ylabel("share of exact zeros in the rows")
    _draw_growth(upper[3], dataset, names, "mse_over_best_band", config)
    upper[3].axhline(1, **_BASELINE["best_softmax"], zorder=0)
    upper[3].set(title="longer contexts: error", ylabel="squared error / that at the best τ per n")
    _draw_growth(lower[3], dataset, names, "effective_support_by_length_band", config)
    lower[3].set(title="longer contexts: dilution", ylabel="effective support exp(H) (keys)")
    figure.legend(handles=_legend(names), loc="outside lower center", ncols=6, fontsize=8)
    figure.suptitle(
        f"sparse normalisers against temperature: adam, {config.graph_steps}, {config.retrieval_steps} and "
        f"{config.length_steps} steps; means and 95 % intervals over {config.seeds} seeds"
        + _without_gradient(dataset)
        + left_out(dataset)
    )
    return figure


def _without_gradient(dataset: xr.Dataset) -> str:
    """A part of the caption: how many models ended with dead rows only, if any."""
    dead = int((dataset["dead_rows"] == 1).sum())
    return f"; {dead} models ended with no gradient in any row" if dead else ""


def _draw_errors(ax: Axes, part: xr.Dataset, names: list[str], named: bool) -> None:
    """One line a normaliser: the mean error without (open) and with (filled) a temperature, with intervals."""
    for name, style in _BASELINE.items():
        value = float(part[f"{name}_band"].sel(estimate="value"))
        if np.isfinite(value):
            ax.axvline(value, zorder=0, **style)
    peer = part["error_band"].sel(normalizer="softmax", temperature="with", estimate="value")
    ax.axvline(float(peer), zorder=0, **_PEER)
    for place, n in enumerate(names):
        for shift, temperature in ((-0.14, "without"), (0.14, "with")):
            band = part["error_band"].sel(normalizer=n, temperature=temperature)
            value, low, high = (float(band.sel(estimate=e)) for e in ("value", "low", "high"))
            spread = [[abs(value - low)], [abs(high - value)]]
            ax.errorbar(value, place + shift, xerr=spread, capsize=2, elinewidth=1, **_mark(n, temperature))
    ax.set(xscale="log", ylim=(len(names) - 0.5, -0.5))
    ax.set_yticks(range(len(names)), [_LABEL.get(n, n) for n in names] if named else [""] * len(names))
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")
    ax.tick_params(axis="x", labelsize=8)


def _draw_shape(ax: Axes, part: xr.Dataset, names: list[str]) -> None:
    """Effective support against the share of zeros; a line joins a normaliser without and with a temperature."""
    for n in names:
        points = []
        for temperature in ("without", "with"):
            x, y = (
                part[f"{name}_band"].sel(normalizer=n, temperature=temperature)
                for name in ("effective_support", "zero_fraction")
            )
            (x, *x_ends), (y, *y_ends) = (
                [float(band.sel(estimate=e)) for e in ("value", "low", "high")] for band in (x, y)
            )
            spreads = {
                name: [[abs(value - ends[0])], [abs(ends[1] - value)]]
                for name, value, ends in (("xerr", x, x_ends), ("yerr", y, y_ends))
            }
            ax.errorbar(x, y, elinewidth=0.8, **spreads, **_mark(n, temperature))
            points.append((x, y))
        ax.plot(*zip(*points, strict=True), color=_STYLE[n]["color"], linewidth=0.8, zorder=1)
    ax.set(xscale="log", ylim=(-0.04, 1.04), xlabel="effective support exp(H) (keys)")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")


def _draw_growth(ax: Axes, dataset: xr.Dataset, names: list[str], variable: str, config: NormalizersConfig) -> None:
    """Curves over the context length of every normaliser without a temperature, and of softmax with one."""
    ax.axvspan(min(config.length_train), max(config.length_train), color="#eeeeee", zorder=-5)
    length = dataset["length"].values
    for n, temperature in (*((n, "without") for n in names), ("softmax", "with")):
        band = dataset[variable].sel(normalizer=n, temperature=temperature)
        value, low, high = (band.sel(estimate=e).values for e in ("value", "low", "high"))
        line = _PEER if temperature == "with" else {k: _STYLE[n][k] for k in ("color", "linestyle")}
        ax.plot(length, value, **line | _mark(n, temperature) | {"linestyle": line["linestyle"], "markersize": 4})
        ax.fill_between(length, low, high, color=_STYLE[n]["color"], alpha=0.12, linewidth=0)
    ax.set(xscale="log", yscale="log", xlabel="context length n")
    ax.set_xticks(length, [str(n) for n in length], fontsize=8)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()


def _mark(name: str, temperature: str) -> dict[str, object]:
    """A normaliser's marker, filled with a temperature and open without."""
    color = _STYLE[name]["color"]
    return {
        "color": color,
        "marker": _STYLE[name]["marker"],
        "markersize": 6,
        "linestyle": "none",
        "markeredgecolor": color,
        "markerfacecolor": color if temperature == "with" else "white",
    }


def _legend(names: list[str]) -> list[Line2D]:
    handles = [Line2D([], [], label=_LABEL.get(n, n), markersize=6, **_STYLE[n]) for n in names]
    for label, face in (("open: without temperature", "white"), ("filled: with SSA temperature", "#555555")):
        mark = {"color": "#555555", "marker": "o", "linestyle": "none", "markerfacecolor": face}
        handles.append(Line2D([], [], label=label, **mark))
    lines = (_PEER, *_BASELINE.values())
    return handles + [Line2D([], [], **style) for style in lines]
