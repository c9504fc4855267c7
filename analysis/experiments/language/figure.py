"""The figure of the language experiment."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.draw.distributions import draw_distributions, log_bins
from analysis.draw.figures import (
    draw_band,
    draw_each,
    draw_points,
    interval,
    left_out,
    new_figure,
    style,
)
from analysis.experiments.language.config import LanguageConfig
from analysis.experiments.language.train import COMPARISONS
from analysis.experiments.mechanisms import SELECTIVE
from ssa_theory.mechanism import VANILLA

_SHOWN = (VANILLA, "constant-scale", "scaled", SELECTIVE)
"""Those of distributions and curves; all are in the table of perplexities."""
_PAPER = {"effective_weight": "τ ||W_q W_kᵀ||₂ / √d_k", "spikiness": "spikiness 1 / (n Σ s²)"}


def draw(config: LanguageConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    names = [n for n in _SHOWN if n in dataset["mechanism"].values]
    shown = dataset.sel(mechanism=names)
    figure = new_figure(15.0, 9.0)
    grid = figure.add_gridspec(2, 4, width_ratios=(1, 1, 1, 1.2))
    for i, comparison in enumerate(COMPARISONS):
        at = shown.sel(comparison=comparison)
        for j, (name, label) in enumerate(_PAPER.items()):
            ax, log = figure.add_subplot(grid[i, j]), name == "effective_weight"
            bins = log_bins(shown[name].values) if log else np.linspace(0, 1, 41)
            draw_distributions(ax, at[name], at[f"mean_{name}_band"], bins, log)
            ax.set(xlabel=label, ylabel="share of tokens", title=f"at equal {comparison}")
            ax.legend(fontsize=7, title="means", loc="upper right")
    curves = figure.add_subplot(grid[0, 2])
    draw_each(draw_band, curves, shown["tokens"].values, shown["loss_band"])
    curves.set(xlabel="training tokens", ylabel="validation loss (nats)", title="training")
    curves.locator_params(axis="x", nbins=4)
    curves.legend(fontsize=7)
    places = figure.add_subplot(grid[1, 2])
    _draw_lengths(places, dataset)
    _draw_table(figure.add_subplot(grid[:, 3]), dataset)
    figure.suptitle(
        f"language models: {config.layers} layers, d = {config.dim}, context {config.context}, "
        f"{config.steps} steps of {config.batch * config.context} tokens; means and 95 % intervals "
        f"over {config.seeds} seeds" + left_out(dataset)
    )
    return figure


def _draw_lengths(ax: Axes, dataset: xr.Dataset) -> None:
    """Perplexity over vanilla's by place in a context."""
    if "perplexity_by_length_ratio" not in dataset:
        ax.set_axis_off()
        return
    lengths = dataset["length"].values.tolist()
    bands, place = dataset["perplexity_by_length_ratio"], np.arange(len(lengths), dtype=float)
    names = [n for n in dataset["mechanism"].values.tolist() if n != VANILLA]
    for k, name in enumerate(names):
        shift = 0.6 * (k / max(1, len(names) - 1) - 0.5)
        draw_points(ax, place + shift, bands.sel(mechanism=name), name)
    ax.axhline(1, color="#999999", linewidth=1)
    ax.set_xticks(place, lengths, fontsize=8)
    ax.set(title="beyond the training context", xlabel="places in a context")
    ax.set_ylabel("perplexity over vanilla's")


def _draw_table(ax: Axes, dataset: xr.Dataset) -> None:
    """Perplexity over vanilla's of every mechanism, with what it adds and how it was tuned."""
    names = dataset["mechanism"].values.tolist()
    value, low, high = interval(dataset["perplexity_ratio"])
    for place, name in enumerate(names):
        look = {k: v for k, v in style(name).items() if k != "linestyle"}
        ax.plot([low[place], high[place]], [place, place], color=look["color"], linewidth=1.5)
        ax.plot(value[place], place, linestyle="none", markersize=5, **look)
    scale = dataset["scale"].values
    said = [
        f"{name}, +{int(dataset['added_parameters'].values[i])}, {dataset['rate'].values[i]:g}"
        + (f", c {scale[i]:g}" if np.isfinite(scale[i]) else "")
        for i, name in enumerate(names)
    ]
    ax.set_yticks(range(len(names)), said, fontsize=7)
    ax.invert_yaxis()
    ax.axvline(1, color="#999999", linewidth=1)
    ax.set(title="perplexity over vanilla's", xlabel="ratio; name, added parameters, step size")
