"""The figure of the paper's statements."""

import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.draw.figures import label_axes, new_figure
from analysis.experiments.paper_theory.train import LATE, PRINTED, PaperTheoryConfig

_LINES = {"tau = 1": "-", "tau > 0": "--", "any sign": ":"}
_COLORS = ("#222222", "#0072b2", "#d55e00", "#009e73")


def draw(config: PaperTheoryConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is computed here."""
    maps = dataset["map"].values.tolist()
    figure = new_figure(14.0, 7.6)
    axes = figure.subplots(2, 2 + math.ceil(len(maps) / 2), squeeze=False)
    flat = axes.flat
    for name in maps:
        _draw_norms(next(flat), dataset.sel(map=name), name)
    _draw_region(next(flat), dataset)
    _draw_converse(next(flat), dataset, config)
    _draw_dilution(next(flat), dataset)
    _draw_shares(next(flat), dataset)
    for ax in flat:
        ax.set_visible(False)
    counts = {s: list(dataset["statement_status"].values).count(s) for s in _STATUSES}
    shares = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
    figure.suptitle(f"the paper's {sum(counts.values())} statements, exactly: {shares}")
    return figure


_STATUSES = ("holds", "holds as corrected", "fails", "vacuous")


def _draw_norms(ax: Axes, at: xr.Dataset, name: str) -> None:
    for color, (temperatures, line) in zip(_COLORS, _LINES.items(), strict=False):
        own = at.sel(temperatures=temperatures)
        ax.plot(at["rho"], own["least_norm"], line, color=color, label=f"least, {temperatures}")
        ax.plot(at["rho_solved"], own["solved_norm"], "o", color=color, mfc="none", ms=4)
    for color, (label, variable) in zip(("#8c8c8c", "#cc79a7"), PRINTED.items(), strict=True):
        bound = at[variable].where(at[variable] > 0)
        ax.plot(at["rho"], bound, color=color, linewidth=1, label=label)
    x, title = "similarity of the tokens rho = e1.e2", f"Prop. 1, {name} (circles: solver)"
    label_axes(ax, x, "effective norm |tau| ||W||", title, log="y")
    ax.legend(fontsize=7.5, loc="upper center")


def _draw_region(ax: Axes, dataset: xr.Dataset) -> None:
    x, reach = dataset["half_ratio"].values, dataset["reachable_late_ratio"]
    low, high = (reach.sel(end=e).values for e in ("least", "largest"))
    ax.fill_between(x, low, high, color="#0072b2", alpha=0.15, linewidth=0, label="possible")
    for late, color in ((4, "#d55e00"), (LATE, "#009e73")):
        ax.plot([1, 1, 2, 2], [6, late, late, 6], color=color, label=f"hypotheses, late >= {late}")
    ax.set(xlim=(0, 4), ylim=(0, 6))
    title = "Prop. 2, converse: can its hypotheses hold?"
    label_axes(ax, "kappa at L/2", "kappa at 3L/4", title)
    ax.legend(fontsize=7.5, loc="lower right")


def _draw_converse(ax: Axes, dataset: xr.Dataset, config: PaperTheoryConfig) -> None:
    distance = np.linspace(0.02, 4, 200)
    low, high = dataset["converse_loss"].values
    ax.fill_between(distance, low * distance, high * distance, color="#009e73", alpha=0.4)
    ax.plot(distance, high * distance, color="#009e73", label="least loss of any W and sequence")
    ax.axhline(1 / 500, color="#d55e00", linestyle="--", label="printed bound, 1/500")
    ax.axvline(2, color="#8c8c8c", linewidth=1, label="a orthogonal to b")
    ax.set_ylim(0, None)
    title = f"Prop. 2, converse with late kappa >= {LATE}, L = {config.length}"
    label_axes(ax, "||a - b||^2", "mean squared error", title)
    ax.legend(fontsize=7.5)


def _draw_dilution(ax: Axes, dataset: xr.Dataset) -> None:
    for color, norm in zip(_COLORS, dataset["norm"].values, strict=False):
        labels = {"largest_weight": f"bound, ||W|| = {norm:g}"}
        _draw_curves(ax, dataset.sel(norm=norm), color, labels, "attained_weight")
    title = "dilution bound (circles: a case that attains it)"
    label_axes(ax, "number of keys", "largest weight", title, log="xy")
    ax.legend(fontsize=7.5)


def _draw_shares(ax: Axes, dataset: xr.Dataset) -> None:
    for color, slope in zip(_COLORS, dataset["slope"].values, strict=False):
        labels = {"kept_share": "corrected", "printed_share": "printed"}
        labels = {name: f"{label}, alpha = {slope:g}" for name, label in labels.items()}
        _draw_curves(ax, dataset.sel(slope=slope), color, labels, "solved_share")
    ax.axhline(1, color="#8c8c8c", linewidth=1)
    title = "Lemma 2 (circles: root finding; above 1 is no share)"
    label_axes(ax, "number of scores", "share of scores kept", title, log="xy")
    ax.legend(fontsize=7.5)


def _draw_curves(
    ax: Axes, at: xr.Dataset, color: str, labels: dict[str, str], circles: str
) -> None:
    """The named variables by number, the second dashed, and some points of another."""
    n = at["count"].values
    for line, (name, label) in zip(("-", "--"), labels.items(), strict=False):
        ax.plot(n, at[name], line, color=color, label=label)
    ax.plot(n[::5], at[circles][::5], "o", color=color, mfc="none", ms=4)
