"""The figure of the language experiment."""

from textwrap import fill
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.draw.distributions import draw_distributions, interval_height, log_bins
from analysis.draw.figures import (
    draw_band,
    draw_each,
    draw_side_by_side,
    interval,
    label_axes,
    left_out,
    new_figure,
    style,
)
from analysis.experiments.language.config import LanguageConfig
from analysis.experiments.language.train import COMPARISONS
from analysis.experiments.mechanisms import SELECTIVE
from ssa_theory.mechanism import VANILLA
from tasks.passkey import CHANCE

_SHOWN = (VANILLA, "constant-scale", "scaled", SELECTIVE)
"""Those of distributions and curves; all are in the table of perplexities."""
_PAPER = {"effective_weight": "τ ||W_q W_kᵀ||₂ / √d_k", "spikiness": "spikiness 1 / (n Σ s²)"}


def draw(config: LanguageConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    names = [n for n in _SHOWN if n in dataset["mechanism"].values]
    shown = dataset.sel(mechanism=names)
    figure = new_figure(16.0, 12.0)
    grid = figure.add_gridspec(3, 5, width_ratios=(1, 1, 1, 1.1, 0.7))
    for i, comparison in enumerate(COMPARISONS):
        at = shown.sel(comparison=comparison)
        for j, (name, label) in enumerate(_PAPER.items()):
            ax, log = figure.add_subplot(grid[i, j]), name == "effective_weight"
            bins = log_bins(shown[name].values) if log else np.linspace(0, 1, 41)
            draw_distributions(ax, at[name], at[f"mean_{name}_band"], bins, log)
            label_axes(ax, label, "share of tokens", f"at equal {comparison}")
            ax.set_ylim(0, 1.8 * ax.get_ylim()[1])
            _draw_layers(ax, at[name])
            title = "means (above, numerals: of each layer)"
            place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.17)}
            ax.legend(title=title, title_fontsize=7, fontsize=7, ncols=2, **place)
    curves = figure.add_subplot(grid[0, 2])
    draw_each(draw_band, curves, shown["tokens"].values, shown["loss_band"])
    label_axes(curves, "training tokens", "validation loss (nats)", "training")
    curves.locator_params(axis="x", nbins=4)
    curves.legend(fontsize=7)
    places = figure.add_subplot(grid[2, :2])
    if "perplexity_by_length_ratio" in dataset:
        others = dataset.sel(mechanism=[n for n in dataset["mechanism"].values if n != VANILLA])
        _draw_groups(places, others["perplexity_by_length_ratio"], "length")
        places.axhline(1, color="#999999", linewidth=1)
        over = "perplexity over vanilla's"
        label_axes(places, "places in a context", over, "beyond the training context")
    else:
        places.set_axis_off()
    keys = figure.add_subplot(grid[2, 2])
    _draw_groups(keys, dataset["passkey_error_band"], "multiple")
    keys.axhline(1 - CHANCE, color="#999999", linewidth=1, linestyle=":")
    label_axes(keys, "contexts", "share of wrong digits", "passkey")
    looks = figure.add_subplot(grid[1, 2])
    looks.set_axis_off()
    lines, said = keys.get_legend_handles_labels()
    looks.legend(lines, said, fontsize=7, ncols=2, loc="center", title="in the row below")
    table, latency = (figure.add_subplot(grid[:, place]) for place in (3, 4))
    _draw_table(table, dataset)
    _draw_latency(latency, dataset)
    figure.suptitle(
        f"language models: {config.layers} layers, d = {config.dim}, context {config.context}, "
        f"{config.steps} steps of {config.batch * config.context} tokens; means and 95 % intervals "
        f"over {config.seeds} seeds" + left_out(dataset)
    )
    return figure


def _draw_layers(ax: Axes, values: xr.DataArray) -> None:
    """The number of every layer, from 1, at its mean, over the interval of the mechanism's mean."""
    means = values.astype(np.float64).mean(("seed", "token"))
    low, high = ax.get_xlim()
    for place, name in enumerate(means["mechanism"].values.tolist()):
        for layer, mean in enumerate(means.sel(mechanism=name).values.tolist(), 1):
            if low <= mean <= high:
                look = {"ha": "center", "fontsize": 6, "color": style(name)["color"]}
                look |= {"xycoords": ax.get_xaxis_transform(), "textcoords": "offset points"}
                ax.annotate(f"{layer}", (mean, interval_height(place)), (0, -8), **look)


def _draw_groups(ax: Axes, bands: xr.DataArray, dim: str) -> None:
    draw_side_by_side(ax, bands, dim)
    levels = bands[dim].values.tolist()
    ax.set_xticks(range(len(levels)), [fill(level, 12) for level in levels], fontsize=7)


def _draw_rows(ax: Axes, bands: xr.DataArray, shift: float = 0.0, **own: Any) -> None:
    """Every mechanism's estimate, one below the other."""
    value, low, high = interval(bands)
    for row, name in enumerate(bands["mechanism"].values.tolist()):
        look = {k: v for k, v in style(name).items() if k != "linestyle"} | own
        at = row + shift
        ax.plot([low[row], high[row]], [at, at], color=look["color"], linewidth=1.5)
        ax.plot(value[row], at, linestyle="none", markersize=5, **look)
    ax.axvline(1, color="#999999", linewidth=1)
    ax.set_ylim(len(bands["mechanism"]) - 0.5, -0.5)


def _draw_table(ax: Axes, dataset: xr.Dataset) -> None:
    """Perplexity over vanilla's of every mechanism, with what it adds and how it was tuned."""
    _draw_rows(ax, dataset["perplexity_ratio"])
    scale, added = dataset["scale"].values, dataset["added_parameters"].values
    said = [
        f"{name}\n+{int(added[i])}, {dataset['rate'].values[i]:g}"
        + (f", c {scale[i]:g}" if np.isfinite(scale[i]) else "")
        for i, name in enumerate(dataset["mechanism"].values.tolist())
    ]
    ax.set_yticks(range(len(said)), said, fontsize=7)
    ax.set(title="perplexity over vanilla's", xlabel="ratio")


def _draw_latency(ax: Axes, dataset: xr.Dataset) -> None:
    """Seconds of a training step and of generation over vanilla's."""
    for task, shift, face in (("train", -0.15, None), ("generate", 0.15, "white")):
        own = {} if face is None else {"markerfacecolor": face}
        _draw_rows(ax, dataset["latency_band"].sel(task=task), shift, **own)
    ax.set_yticks([])
    ax.set(title="seconds over vanilla's", xlabel="training: full,\ngeneration: hollow")
