"""The figure of the graph experiments: the graph, what was learned of it, norms, temperatures."""

from pathlib import Path
from typing import Any, cast

import networkx as nx
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from analysis.draw.figures import (
    draw_band,
    draw_by_mechanism,
    draw_each,
    draw_points,
    draw_side_by_side,
    label_axes,
    left_out,
    new_figure,
    style,
)
from analysis.draw.names import Names, drawable
from analysis.draw.order import by_community
from analysis.experiments.graph.train import GraphConfig, drawn, with_temperatures
from ssa_theory.mechanism import VANILLA

_NAMED_NODES = 30  # above this the node labels of matrices would overlap
_DRAWN_NODES = 100  # a layout takes the time of their number's third power
_PIXELS = 400  # rows of a matrix that a panel shows apart
_ARROWS = 120  # above this number of edges arrow heads and loops hide each other


def draw(config: GraphConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    mechanisms = [str(m) for m in dataset["mechanism"].values]
    seed = dataset.sel(seed=dataset["shown_seed"])
    figure = new_figure(17.5, 7.0)
    axes = figure.subplots(2, 5)
    names = Names(dataset["node"].values)
    figure.suptitle(_caption(dataset, config, names.notice), parse_math=False)
    _draw_graph(axes[0, 0], seed, names)

    matrices = [("true P*", seed["transition_matrix"])]
    for name in dict.fromkeys([m for m in mechanisms if m == VANILLA] + [drawn(dataset)]):
        one = seed.sel(mechanism=name)
        gap, error = float(one["cross_entropy_gap"][-1]), float(one["l1_error"])
        title = f"{name}, seed {int(dataset['shown_seed'])}\ngap {gap:.3f} nats, L1 {error:.3f}"
        matrices.append((title, one["learned_transition_matrix"]))
    images, truth = [], seed["transition_matrix"].values
    order = by_community(truth) if len(truth) > _NAMED_NODES else np.arange(len(truth))
    for ax, (title, matrix) in zip(axes[0, 1:4], matrices, strict=False):
        norm = PowerNorm(0.5, 0, 1)
        shown, block = largest_of_blocks(matrix.values[np.ix_(order, order)])
        edges = (-0.5, len(matrix) - 0.5, len(matrix) - 0.5, -0.5)
        image = ax.imshow(shown, cmap="viridis", norm=norm, interpolation="nearest", extent=edges)
        images.append(image)
        ax.set_title(title)
        _label_nodes(ax, names, block)
    shown = axes[0, 1:4].tolist()
    figure.colorbar(images[-1], ax=shown, label="transition probability", shrink=0.85)
    for ax in shown[len(matrices) :]:
        ax.set_visible(False)
    _draw_row_groups(axes[0, 4], dataset)
    _draw_uniform_rows(axes[1, 4], dataset)

    _draw_curves(axes[1, 0], dataset, "cross_entropy_gap_band", "step")
    axes[1, 0].set(title=f"d = {config.dim}: learning", ylabel="cross-entropy gap to Bayes (nats)")
    _draw_baselines(axes[1, 0], dataset, "gap")
    # The curves of the other panels look the same.
    handles = axes[1, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=len(handles[0]), fontsize=8)
    _draw_temperature(axes[1, 1], dataset, names)
    _draw_norms(axes[1, 2], dataset, config)
    if config.control_steps:
        _draw_curves(axes[1, 3], dataset, "control_l1_by_step_band", "control_step", log=True)
        title = f"control: d = K = {dataset.sizes['node']}, trained long"
    else:
        _draw_curves(axes[1, 3], dataset, "l1_by_step_band", "step")
        title = f"d = {config.dim}: L1 error"
        _draw_baselines(axes[1, 3], dataset, "l1")
    axes[1, 3].set(title=title, ylabel="mean row L1 error")
    return figure


_BASELINE = {
    "vanilla_optimum": ("vanilla's exact optimum", (0, (1, 1.5))),
    "constant": ("best constant row", (0, (6, 3))),
}


def _draw_baselines(ax: Axes, dataset: xr.Dataset, measure: str) -> None:
    """What vanilla can reach at any weights, and what needs no attention: means over seeds."""
    for name, (label, dashes) in _BASELINE.items():
        if f"{name}_{measure}" in dataset:
            value = float(dataset[f"{name}_{measure}"].mean())
            ax.axhline(value, color="#333333", linewidth=1.2, linestyle=dashes, label=label)


def _caption(dataset: xr.Dataset, config: GraphConfig, notice: str) -> str:
    source = Path(config.text_file or config.graph_file or config.family).name
    tried = f"{len(config.learning_rates)} rates"
    if (starts := len(config.tried_starts)) > 1:
        tried += f" and {starts} initial sizes of W"
    text = (
        f"{source}: {dataset.sizes['node']} nodes, {config.context} context, {config.loss} loss, "
        f"{config.optimizer} at each mechanism's best of {tried}, "
        f"{config.steps} steps; means and 95 % intervals over {config.seeds} seeds"
    )
    return drawable(text) + left_out(dataset) + (f"\n{notice}" if notice else "")


def largest_of_blocks(matrix: np.ndarray) -> tuple[np.ndarray, int]:
    """A large matrix as the largest entries of blocks, and their size; a small one as it is."""
    block = -(-len(matrix) // _PIXELS)
    starts = np.arange(0, len(matrix), block)
    rows = np.maximum.reduceat(np.nan_to_num(matrix), starts, axis=0)
    return (np.maximum.reduceat(rows, starts, axis=1), block) if block > 1 else (matrix, 1)


def _draw_graph(ax: Axes, seed: xr.Dataset, names: Names) -> None:
    all_nodes, labels = seed.sizes["node"], names.shown
    if all_nodes > _DRAWN_NODES:
        visits = seed["transition_matrix"].sum("node").values
        most = np.sort(np.argsort(-visits, kind="stable")[:_DRAWN_NODES])
        seed, labels = seed.isel(node=most, next=most), [labels[node] for node in most]
    matrix = seed["transition_matrix"].values
    graph = nx.from_numpy_array(matrix, create_using=nx.DiGraph)
    named = len(labels) <= _NAMED_NODES
    if named:
        place = nx.circular_layout(graph)
    else:
        place = nx.kamada_kawai_layout(graph.to_undirected(), weight=None)
    if graph.number_of_edges() > _ARROWS:
        graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    weight = np.array([d["weight"] for *_, d in graph.edges(data=True)])
    few = graph.number_of_edges() <= _ARROWS
    arrows: dict[str, Any] = {"arrows": False}
    arrows = {"arrowsize": 7, "connectionstyle": "arc3,rad=0.12"} if few else arrows
    size = 150 if named else 18
    lines = {"alpha": 0.1 + 0.8 * weight, "width": 0.2 + 2 * weight, "edge_color": "#444444"}
    nx.draw_networkx_edges(graph, place, ax=ax, node_size=size, **lines, **arrows)
    tone = seed["row_entropy"].values
    # The scale keeps the darkest node light enough for its label.
    colors = {"node_color": tone, "cmap": "YlOrBr", "vmax": 1.6 * tone.max()}
    edges = {"edgecolors": "black", "linewidths": 0.6}
    nodes = nx.draw_networkx_nodes(graph, place, ax=ax, node_size=size, **colors, **edges)
    if named:
        texts = nx.draw_networkx_labels(graph, place, dict(enumerate(labels)), font_size=7, ax=ax)
        names.literal(texts.values())
    where = {"location": "bottom", "shrink": 0.7, "pad": 0.02}
    bar = ax.figure.colorbar(nodes, ax=ax, label="row entropy (nats)", **where)
    bar.ax.set_xlim(tone.min(), max(tone.max(), tone.min() + 1e-9))
    some = len(labels) < all_nodes
    ax.set_title(f"the {len(labels)} nodes most led to, of {all_nodes:,}" if some else "graph")
    ax.axis("off")
    ax.margins(0.1)


def _label_nodes(ax: Axes, names: Names, block: int) -> None:
    """block: the nodes that a pixel stands for, of whose entries it shows the largest."""
    about = f" (the largest of each {block} x {block})" if block > 1 else ""
    about = f", by community{about}" if len(names.shown) > _NAMED_NODES else ""
    ax.set(xlabel=f"next node{about}", ylabel="current node")
    for spine in ax.spines.values():
        spine.set_visible(True)
    labels = names.shown
    if len(labels) <= _NAMED_NODES:
        size = 8 if len(labels) <= 12 else 6
        ax.set_xticks(range(len(labels)), labels, fontsize=size, **names.style)
        ax.set_yticks(range(len(labels)), labels, fontsize=size, **names.style)


def _draw_curves(ax: Axes, dataset: xr.Dataset, band: str, step: str, log: bool = False) -> None:
    draw_each(draw_band, ax, dataset[step].values, dataset[band])
    ax.set(xlabel="training step")
    if log:
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=0)


def _draw_temperature(ax: Axes, dataset: xr.Dataset, names: Names) -> None:
    """Learned temperature by number of neighbours, or, for a few named nodes, node by node."""
    levels = dataset["neighbours"].values
    uniform = np.allclose(levels, np.rint(levels))
    by_name = not uniform and len(levels) == dataset.sizes["node"] <= _NAMED_NODES
    place = np.arange(len(levels)) if by_name else levels
    bands = dataset["temperature_by_neighbours"].sel(mechanism=with_temperatures(dataset))
    draw_each(draw_points, ax, place, bands)
    ax.axhline(1, color=style(VANILLA)["color"], linewidth=1, label="vanilla (fixed)")
    ax.set(yscale="log", ylabel="learned temperature 1/tau")
    # Intervals of a saturated temperature are open; the axis shows where the means are.
    means = np.append(bands.sel(estimate="value").values, 1.0)
    ax.set_ylim(np.nanmin(means) / 4, 4 * np.nanmax(means))
    if by_name:
        entropy = dataset["row_entropy"].isel(seed=0)
        order = entropy.argsort().values
        ax.set_xticks(place, [names.shown[node] for node in order], fontsize=7, **names.style)
        ax.set(xlabel="node, by row entropy", title="temperature beside row entropy")
        side = ax.twinx()
        side.step(place, entropy.values[order], where="mid", color="#999999", linewidth=1, zorder=0)
        side.set(ylabel="row entropy (nats), grey line", ylim=(0, None))
        side.spines["right"].set_visible(True)
    else:
        x = "number of neighbours"
        x = x if uniform else f"effective {x}, exp(row entropy)"
        ax.set(xscale="log", xlabel=x, title="temperature by number of neighbours")
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter("")
        if uniform and len(levels) <= 10:
            ax.set_xticks(levels)
    ax.legend(loc="upper left")


def _draw_row_groups(ax: Axes, dataset: xr.Dataset) -> None:
    """Which rows err: the mechanisms side by side in each group."""
    bands = dataset["l1_by_row_group_band"]
    draw_side_by_side(ax, bands, "row_group")
    label_axes(ax, "rows by target entropy", "mean row L1 error", "error by row")
    # An interval of few seeds may be wider than the errors that there are.
    highest = float(bands.sel(estimate="value").max())
    if np.isfinite(highest) and highest > 0:
        ax.set_ylim(0, 1.5 * highest)


def _draw_uniform_rows(ax: Axes, dataset: xr.Dataset) -> None:
    draw_by_mechanism(ax, dataset["uniform_rows_band"])
    ax.axhline(float(dataset["uniform_targets"].mean()), color="#333333", lw=1, label="P*")
    ax.set(ylabel="share of rows with exp(H) > .9 K", title="rows left uniform (line: of P*)")
    ax.set_ylim(bottom=0)


def _draw_norms(ax: Axes, dataset: xr.Dataset, config: GraphConfig) -> None:
    for place, name in enumerate(dataset["mechanism"].values.tolist()):
        norms = dataset["weight_norm"].sel(mechanism=name).dropna("seed").values
        if len(norms) > 1 and np.ptp(norms) > 0:
            violin = ax.violinplot([norms], [place], widths=0.8, showextrema=False)
            (body,) = cast(list[PolyCollection], violin["bodies"])  # stubs take them for one
            color = style(name)["color"]
            body.set(facecolor=color, alpha=0.25, edgecolor=color)
    draw_by_mechanism(ax, dataset["weight_norm_band"])
    ax.set(ylabel="spectral norm of W", title=f"norm after {config.steps} steps")
    ax.set_ylim(bottom=0)
