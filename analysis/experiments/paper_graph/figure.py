"""The figure of the paper's graph experiment."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.draw.figures import draw_points, label_axes, left_out, new_figure, style
from analysis.experiments.paper_graph.train import OWN, THEORY, PaperGraphConfig
from ssa_theory.mechanism import VANILLA

PAPER_RATIO = {"map_l1": 0.659, "final_gap": 0.714}
"""The paper's ratios SSA / vanilla, of one run on one graph: L1 .358 / .543, and .009 / .0126."""
_MAP = "L1 error of the map / vanilla's"
_BINS = 8  # of the spread of row entropies


def draw(config: PaperGraphConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    others = [m for m in dataset["mechanism"].values.tolist() if m != VANILLA]
    figure = new_figure(14.0, 7.6)
    axes = figure.subplots(2, 3)
    _draw_ratios(axes[0, 0], dataset["map_ratio"], others, PAPER_RATIO["map_l1"])
    label_axes(axes[0, 0], y=_MAP, title="attention map, by head")
    _draw_ratios(axes[0, 1], dataset["gap_ratio"], others, PAPER_RATIO["final_gap"])
    label_axes(axes[0, 1], y="gap to Bayes / vanilla's", title="cross-entropy, by head")
    _draw_distribution(axes[0, 2], dataset.sel(cell=OWN), others)
    _draw_spread(axes[1, 0], dataset.sel(cell=THEORY), others)
    _draw_temperature(axes[1, 1], dataset, others)
    _draw_identification(axes[1, 2], dataset)
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(others) + 1)
    figure.suptitle(
        f"{dataset.sizes['seed']:,} connected graphs on {config.nodes} nodes, one model each; d = "
        f"{config.row_dim} (row) and {config.dim}; {config.adam}, "
        f"{config.row_steps} and {config.steps} + {config.cooldown_steps} steps" + left_out(dataset)
    )
    return figure


def _draw_ratios(ax: Axes, ratio: xr.DataArray, others: list[str], paper: float) -> None:
    """Quantiles over graphs of each mechanism in each cell, and the paper's single number."""
    cells = ratio["cell"].values.tolist()
    for i, name in enumerate(others):
        low, quarter, median, most, high = ratio.sel(mechanism=name).transpose("quantile", "cell")
        place = np.arange(len(cells)) + 0.8 * ((i + 0.5) / len(others) - 0.5)
        color = style(name)["color"]
        ax.vlines(place, low, high, color=color, linewidth=1)
        ax.vlines(place, quarter, most, color=color, linewidth=3.5, alpha=0.6)
        ax.plot(place, median, style(name)["marker"], color=color, markersize=5, label=name)
    ax.axhline(1, color=style(VANILLA)["color"], linewidth=1)
    ax.axhline(paper, color="black", linewidth=1, linestyle=":", label="the paper's ratio")
    ax.set_xticks(range(len(cells)), cells)
    label_axes(ax, log="y")


def _draw_distribution(ax: Axes, at: xr.Dataset, others: list[str]) -> None:
    """The ratio of the map's error over graphs."""
    ratio = at["map_l1"] / at["map_l1"].sel(mechanism=VANILLA)
    ratio = ratio.where(np.isfinite(ratio) & (ratio > 0))
    each = {n: np.log(ratio.sel(mechanism=n).dropna("seed").values) for n in others}
    low, high = np.quantile(np.concatenate([*each.values(), [-0.1, 0.1]]), (0.005, 0.995))
    bins = np.linspace(low, high, 41)
    for name, values in each.items():
        share = np.histogram(values, bins)[0] / max(1, len(values))
        look = {k: v for k, v in style(name).items() if k != "marker"}
        ax.stairs(share, np.exp(bins), linewidth=1.3, **look)
    ax.axvline(1, color=style(VANILLA)["color"], linewidth=1)
    ax.axvline(PAPER_RATIO["map_l1"], color="black", linewidth=1, linestyle=":")
    title = f"attention map in the paper's own form (head {OWN})"
    label_axes(ax, _MAP, "share of graphs", title, log="x")


def _draw_spread(ax: Axes, at: xr.Dataset, others: list[str]) -> None:
    """Median ratio of the map's error in groups of graphs of like spread."""
    spread = at["entropy_spread"].values
    edges = np.unique(np.quantile(spread, np.linspace(0, 1, _BINS + 1)))
    group = np.clip(np.searchsorted(edges, spread, side="right") - 1, 0, max(0, len(edges) - 2))
    for name in others:
        one = (at["map_l1"].sel(mechanism=name) / at["map_l1"].sel(mechanism=VANILLA)).values
        points = [
            (np.median(spread[group == g]), *np.quantile(one[group == g], (0.5, 0.25, 0.75)))
            for g in np.unique(group)
        ]
        x, median, low, high = np.transpose(points)
        look = style(name)
        ax.plot(x, median, **look)
        ax.fill_between(x, low, high, color=look["color"], alpha=0.12, linewidth=0)
    ax.axhline(1, color=style(VANILLA)["color"], linewidth=1)
    ax.axhline(PAPER_RATIO["map_l1"], color="black", linewidth=1, linestyle=":")
    title = f"what explains the gain (head {THEORY}; median, quartiles)"
    label_axes(ax, "standard deviation of the graph's row entropies (nats)", _MAP, title, log="y")


def _draw_temperature(ax: Axes, dataset: xr.Dataset, others: list[str]) -> None:
    """Temperature by number of neighbours, in the theory's head (filled) and the paper's own."""
    place = dataset["neighbours"].values
    tau = dataset["inverse_temperature"]
    for name in others:
        if not np.ptp(tau.sel(mechanism=name).values, -1).max() > 0:  # the same for every node
            continue
        band = dataset["temperature_by_degree"].sel(mechanism=name)
        for cell, fill in ((THEORY, style(name)["color"]), (OWN, "none")):
            draw_points(ax, place, band.sel(cell=cell), name, joined=True, markerfacecolor=fill)
    ax.axhline(1, color=style(VANILLA)["color"], linewidth=1)
    title = f"temperature (filled: head {THEORY}; open: {OWN})"
    label_axes(ax, "number of neighbours", "learned temperature 1/tau", title, log="y")


def _draw_identification(ax: Axes, dataset: xr.Dataset) -> None:
    """Error of the map against that of the prediction, means over graphs."""
    cells = dataset["cell"].values.tolist()
    ax.plot([0, 2], [0, 2], color="#999999", linewidth=1)
    x, y = (dataset[f"{m}_band"].sel(estimate="value") for m in ("l1_error", "map_l1"))
    for name in dataset["mechanism"].values.tolist():
        look = style(name) | {"linestyle": "none", "markersize": 6}
        ax.plot(x.sel(mechanism=name), y.sel(mechanism=name), **look)
    for cell in cells:
        place = float(x.sel(cell=cell)[0]), float(y.sel(cell=cell)[0])
        ax.annotate(cell, place, (8, -3), textcoords="offset points", fontsize=8)
    ax.set(xlim=(0, 1.15 * max(0.1, float(x.max()))), ylim=(0, 2))
    title = "does the loss fix the map? (line: it does)"
    label_axes(ax, "L1 error of the prediction", "L1 error of the attention map", title)
