"""The figure of the convergence experiment: loss by step, steps by rate, ratios by level."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.draw.figures import draw_band, draw_each, draw_points, label_axes, new_figure, style
from analysis.experiments.convergence.config import ConvergenceConfig
from analysis.experiments.convergence.train import loss_of
from ssa_theory.mechanism import VANILLA

_SMALLEST = 1e-6
"""Of a loss in nats: below lies rounding."""
_CHOICE = {
    "own": {"markersize": 7, "elinewidth": 1.6},
    "same": {"markersize": 4, "elinewidth": 0.8},
}
_DOTTED = {"color": "#777777", "linewidth": 1, "linestyle": ":"}
_MARKS = {
    "at its own best learning rate": {"markersize": 7},
    "at vanilla's best": {"markersize": 4},
    "some run never reached the level": {"markersize": 6, "markerfacecolor": "white"},
}


def draw(config: ConvergenceConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    settings = config.cells
    figure = new_figure(max(7.0, 4.6 * len(settings)), 8.0)
    axes = figure.subplots(3, len(settings), squeeze=False)
    for (top, middle, bottom), setting in zip(axes.T, settings, strict=True):
        at, dim = dataset.sel(setting=setting.name), setting.problem.dim
        _draw_curves(top, at, config.shown_level)
        top.set_title(
            f"{setting.name}: d = {dim}" + (" = K" if dim == setting.problem.size else "")
        )
        _draw_rates(middle, at)
        _draw_ratios(bottom, at)
    axes[0, 0].set_ylabel("cross-entropy gap to Bayes (nats)")
    axes[1, 0].set_ylabel(f"restricted mean steps\nto level {config.shown_level:g}")
    axes[2, 0].set_ylabel("steps to the level, ratio to vanilla")
    grey = {"color": "#666666", "linestyle": "none", "marker": "s"}
    handles = [Line2D([], [], label=label, **grey, **look) for label, look in _MARKS.items()]
    handles += axes[1, 0].get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    figure.suptitle(_headline(config, dataset))
    return figure


def _headline(config: ConvergenceConfig, dataset: xr.Dataset) -> str:
    reported = int(dataset["reporting"].sum())
    runs = dataset["reached"].sel(level=config.shown_level).isel(seed=dataset["reporting"].values)
    censored, diverged = int((~runs).sum()), int(dataset["diverged"].sum())
    return (
        f"steps to a given loss: adam, learning rates chosen on {config.seeds - reported} seeds; "
        f"means and 95 % intervals over the other {reported};\n{censored} of {runs.size} runs "
        f"never reached level {config.shown_level:g} (1: vanilla's initial loss, 0: its exact optimum, "
        "-1: Bayes) and count as their whole budget"
        + (f"; {diverged} diverged models count as never reaching" if diverged else "")
    )


def _draw_curves(ax: Axes, at: xr.Dataset, level: float) -> None:
    at = at.isel(point=np.isfinite(at["curve_step"].values))
    draw_each(draw_band, ax, at["curve_step"].values, at["gap_curve_band"])
    rates = at["best_learning_rate"].sel(level=level).to_series()
    labels = [f"{name}, rate {rate:g}" for name, rate in rates.items()]
    ax.legend(ax.get_lines(), labels, fontsize=8, loc="lower left")
    for shown in (level, 0.0):  # the level, and vanilla's exact optimum
        loss = loss_of(shown, at["initial_gap"].values, at["vanilla_optimum_gap"].values).mean()
        if loss > _SMALLEST:
            ax.axhline(loss, **_DOTTED)
    label_axes(ax, "training step", log="xy")


def _draw_rates(ax: Axes, at: xr.Dataset) -> None:
    rates, band = at["learning_rate"].values, at["steps_by_rate_band"]
    draw_each(draw_points, ax, rates, band, joined=True)
    ax.axhline(float(at["budget"]), label="budget", **_DOTTED)
    ax.set(xscale="log", xlabel="learning rate of Adam")
    ax.set_xticks(rates, [f"{r:g}" for r in rates])
    ax.minorticks_off()
    label_axes(ax, log="y")


def _draw_ratios(ax: Axes, at: xr.Dataset) -> None:
    """Ratios by level: large marks at each mechanism's own best learning rate, small ones at
    vanilla's; hollow where censored.
    """
    levels, others = at["level"].values, at["other"].values.tolist()
    offsets = iter(np.linspace(-0.3, 0.3, 2 * len(others)))
    for name in others:
        for choice, look in _CHOICE.items():
            cell, offset = at.sel(choice=choice), next(offsets)
            reached = cell["compared_reached"].sel(mechanism=[name, VANILLA])
            censored = reached.min(("mechanism", "seed")).values < 1
            for hollow in (False, True):
                (place,) = np.nonzero(censored == hollow)
                face: dict[str, Any] = {"markerfacecolor": "white"} if hollow else {}
                band = cell["ratio"].sel(other=name).isel(level=place)
                draw_points(ax, place + offset, band, name, **look, **face)
    ax.axhline(1, color=style(VANILLA)["color"], linewidth=1)
    ax.set_xlim(-0.5, len(levels) - 0.5)
    ax.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
    label_axes(ax, "level: 1 vanilla's initial loss, 0 its optimum, -1 Bayes", log="y")
