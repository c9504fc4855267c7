"""The figure of the convergence experiment: loss by step, steps by learning rate, and ratios of steps to each level."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.draw.figures import STYLE, draw_band, draw_points, label_log, new_figure

_CHOICE = {"own": {"markersize": 7, "elinewidth": 1.6}, "same": {"markersize": 4, "elinewidth": 0.8}}


def draw(config: Any, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    settings, variants = [str(s) for s in dataset["setting"].values], [str(v) for v in dataset["variant"].values]
    figure = new_figure(max(7.0, 4.6 * len(settings)), 8.0)
    axes = figure.subplots(3, len(settings), squeeze=False)
    for (top, middle, bottom), setting in zip(axes.T, settings, strict=True):
        at = dataset.sel(setting=setting)
        _draw_curves(top, at, variants, config.shown_level)
        dim = {"graded": config.dim, "letters": config.letters_dim, "control": config.nodes}[setting]
        top.set_title(f"{setting}: d = {dim}" + (" = K" if dim == config.nodes else ""))
        _draw_rates(middle, at, variants)
        _draw_ratios(bottom, at)
    shown = f"{config.shown_level:g} of the initial gap"
    axes[0, 0].set_ylabel("cross-entropy gap to Bayes (nats)")
    axes[1, 0].set_ylabel(f"restricted mean steps\nto {shown}")
    axes[2, 0].set_ylabel("steps to the level, ratio to vanilla")
    grey = {"color": "#666666", "linestyle": "none"}
    marks = {
        "at its own best learning rate": {"marker": "s", "markersize": 7},
        "at vanilla's best": {"marker": "s", "markersize": 4},
        "some run never reached the level": {"marker": "s", "markersize": 6, "markerfacecolor": "white"},
    }
    handles = [Line2D([], [], label=label, **grey, **look) for label, look in marks.items()]
    handles += axes[1, 0].get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    figure.suptitle(_headline(dataset, config))
    return figure


def _headline(dataset: xr.Dataset, config: Any) -> str:
    reported = int(dataset["reporting"].sum())
    runs = dataset["reached"].sel(level=config.shown_level).isel(seed=dataset["reporting"].values)
    censored, diverged = int((~runs).sum()), int(dataset["diverged"].sum())
    text = (
        f"steps to a given loss: adam, learning rates chosen on {config.seeds - reported} seeds; means and 95 % intervals "
        f"over the other {reported};\n{censored} of {runs.size} runs never reached {config.shown_level:g} of the initial gap "
        "and count as their whole budget"
    )
    return text + (f"; {diverged} diverged models count as never reaching" if diverged else "")


def _draw_curves(ax: Axes, at: xr.Dataset, variants: list[str], level: float) -> None:
    shown, names = np.isfinite(at["curve_step"].values), []
    for v in variants:
        rate = float(at["best_learning_rate"].sel(variant=v, level=level))
        draw_band(ax, at["curve_step"].values[shown], at["gap_curve_band"].sel(variant=v).isel(point=shown), v)
        names.append(f"{v}, rate {rate:g}")
    ax.legend(ax.get_lines(), names, fontsize=8, loc="lower left")
    ax.axhline(level * float(at["initial_gap"].mean()), color="#777777", linewidth=1, linestyle=":")
    ax.set(xscale="log", yscale="log", xlabel="training step")
    label_log(ax.xaxis)
    label_log(ax.yaxis)


def _draw_rates(ax: Axes, at: xr.Dataset, variants: list[str]) -> None:
    rates = at["learning_rate"].values
    for v in variants:
        draw_points(ax, rates, at["steps_by_rate_band"].sel(variant=v), v, linestyle=STYLE[v]["linestyle"])
    ax.axhline(float(at["budget"]), color="#777777", linewidth=1, linestyle=":", label="budget")
    ax.set(xscale="log", yscale="log", xlabel="learning rate of Adam")
    ax.set_xticks(rates, [f"{r:g}" for r in rates])
    ax.minorticks_off()
    label_log(ax.yaxis)


def _draw_ratios(ax: Axes, at: xr.Dataset) -> None:
    """Ratios by level: large marks at each variant's own best learning rate, small ones at vanilla's; hollow where censored."""
    levels = at["level"].values
    others = [str(v) for v in at["other"].values]
    offsets = np.linspace(-0.3, 0.3, 2 * len(others))
    for i, v in enumerate(others):
        for j, (choice, look) in enumerate(_CHOICE.items()):
            for place, level in enumerate(levels):
                cell = at.sel(level=level, choice=choice)
                reached = cell["compared_reached"].sel(variant=[v, "vanilla"])
                value, low, high = cell["ratio"].sel(other=v).values
                ax.errorbar(
                    place + offsets[2 * i + j],
                    value,
                    yerr=np.abs([[value - low], [high - value]]),
                    color=STYLE[v]["color"],
                    marker=STYLE[v]["marker"],
                    markerfacecolor="white" if float(reached.min()) < 1 else STYLE[v]["color"],
                    capsize=2,
                    **look,
                )
    ax.axhline(1, color=STYLE["vanilla"]["color"], linewidth=1)
    ax.set(yscale="log", xlabel="level: share of the initial cross-entropy gap", xlim=(-0.5, len(levels) - 0.5))
    ax.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
    label_log(ax.yaxis)
