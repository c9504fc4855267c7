"""The figure of the hierarchy experiment."""

from itertools import cycle

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.draw.figures import draw_points, label_axes, left_out, new_figure, style
from analysis.experiments.hierarchy.claims import SELECTIVE
from analysis.experiments.hierarchy.train import CONTEXTS, HEADS, HierarchyConfig
from analysis.experiments.settings import Cell
from analysis.problems.hierarchy import HierarchyProblem
from ssa_theory.mechanism import VANILLA

Looks = dict[str, tuple[tuple[float, float, float, float], str]]
"""Colour and marker of each tree."""
_NAME = {"row": "L1 error of the map", "classifier": "total variation"}
_MARKERS = "os^Dv<>Ph*"


def draw(config: HierarchyConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    figure = new_figure(14.0, 7.6)
    axes = figure.subplots(2, 3)
    trees = _trees(config)
    names = dataset["mechanism"].values.tolist()
    shown = [m for m in (SELECTIVE, "scaled") if m in names] or [m for m in names if m != VANILLA]
    for i, head in enumerate(HEADS):
        for j, context in enumerate(CONTEXTS):
            cells = _cells(config, head, context)
            _draw_ratios(axes[i, j], dataset, cells, trees, shown[:2])
            title = f"head {head}, context {context}"
            label_axes(axes[i, j], y=f"{_NAME[head]} / vanilla's", title=title)
    _draw_errors(axes[0, 2], config, dataset)
    _draw_temperature(axes[1, 2], config, dataset, trees, shown[0])
    looks = [
        Line2D([], [], color=color, marker=marker, linestyle="none", label=tree)
        for tree, (color, marker) in trees.items()
    ]
    looks += [
        Line2D([], [], color="black", linestyle=line, label=name)
        for name, line in zip(shown, ("-", ":"), strict=False)
    ]
    looks += [Line2D([], [], label=f"(c) {m}", **style(m)) for m in names]
    figure.legend(handles=looks, loc="outside lower center", ncols=min(len(looks), 12))
    figure.suptitle(
        f"a hierarchy of tokens; {dataset.sizes['seed']} seeds; {config.adam}, "
        f"{config.steps} + {config.cooldown_steps} steps; prompts of {config.prompt_length} tokens"
        + left_out(dataset)
    )
    return figure


def _trees(config: HierarchyConfig) -> Looks:
    names = list(dict.fromkeys(c.problem.tree for c in config.cells))
    colors = [matplotlib.colormaps["viridis"](x) for x in np.linspace(0, 0.85, len(names))]
    return dict(zip(names, zip(colors, cycle(_MARKERS), strict=False), strict=True))


def _cells(config: HierarchyConfig, head: str, context: str) -> list[Cell[HierarchyProblem]]:
    own = HEADS[head], context
    return [c for c in config.cells if (c.problem.head, c.problem.context) == own]


def _draw_ratios(
    ax: Axes,
    dataset: xr.Dataset,
    cells: list[Cell[HierarchyProblem]],
    trees: Looks,
    shown: list[str],
) -> None:
    """The ratio to vanilla by d / N: the first mechanism solid, the second dotted and open."""
    for tree, (color, marker) in trees.items():
        own = [c for c in cells if c.problem.tree == tree]
        x = np.array([c.problem.dim / c.problem.task.nodes for c in own])
        for name, line, fill in zip(shown, ("-", ":"), (color, "none"), strict=False):
            band = dataset["error_ratio"].sel(mechanism=name, cell=[c.name for c in own])
            look = {"color": color, "marker": marker, "linestyle": line, "markerfacecolor": fill}
            draw_points(ax, x, band, name, joined=True, **look)
    ax.axhline(1, color=style(VANILLA)["color"], linewidth=1)
    label_axes(ax, "embedding dimension d / tokens N", log="y")


def _draw_errors(ax: Axes, config: HierarchyConfig, dataset: xr.Dataset) -> None:
    """Errors of the row head on the largest tree: vocabulary filled, prompts open."""
    largest = max((c.problem for c in config.cells), key=lambda p: p.task.nodes)
    for context in CONTEXTS:
        own = [c for c in _cells(config, "row", context) if c.problem.tree == largest.tree]
        at = dataset.sel(cell=[c.name for c in own])
        x = np.array([float(c.problem.dim) for c in own])
        for name in dataset["mechanism"].values.tolist():
            band = at["error_band"].sel(mechanism=name)
            fill = style(name)["color"] if context == "vocabulary" else "none"
            draw_points(ax, x, band, name, joined=True, markerfacecolor=fill)
        if context == "prompt":
            ax.plot(x, at["floor"].values, color="black", linestyle=":", linewidth=1)
            label, place = "least of any scores, prompts", (x[0], float(at["floor"][0]))
            ax.annotate(label, place, (0, -11), textcoords="offset points", fontsize=8)
    title = f"head row, {largest.tree} (filled: vocabulary; open: prompt)"
    label_axes(ax, "embedding dimension d", "L1 error of the map (Bayes: 0)", title, log="y")


def _draw_temperature(
    ax: Axes, config: HierarchyConfig, dataset: xr.Dataset, trees: Looks, name: str
) -> None:
    """By height above the leaves, head row, context vocabulary, at the smallest dimension."""
    for tree, (color, marker) in trees.items():
        own = next(c for c in _cells(config, "row", "vocabulary") if c.problem.tree == tree)
        depth = own.problem.depth
        band = dataset["level_temperature_band"].sel(mechanism=name, cell=own.name)
        band = band.sel(level=np.arange(depth + 1))
        look = {"color": color, "marker": marker, "linestyle": "-"}
        draw_points(ax, depth - np.arange(depth + 1), band, name, joined=True, **look)
    ax.axhline(1, color=style(VANILLA)["color"], linewidth=1)
    ax.set_xticks(range(max(config.depths) + 1))
    title = f"{name}: head row, vocabulary, smallest d"
    label_axes(ax, "height above the leaves (levels)", "learned temperature 1/tau", title, log="y")
