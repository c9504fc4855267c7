"""The figure of the norms experiment."""

from collections.abc import Iterator
from string import ascii_lowercase
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from analysis.draw.distributions import draw_distributions, log_bins
from analysis.draw.figures import (
    draw_each,
    draw_points,
    draw_side_by_side,
    label_axes,
    left_out,
    new_figure,
)
from analysis.experiments.norms.train import COMPARISONS, NormsConfig

_PAPER = {"effective_weight": "effective weight τ ||W||₂", "spikiness": "spikiness 1 / (K Σ s²)"}
_SIZES = {
    "||W||₂": "weight_norm_band",
    "||Wᵀe||": "mean_token_norm_band",
    "τ ||Wᵀe||": "mean_logit_scale_band",
}
"""How large weights are: of W, of what it makes of a token, and that with the token's temperature."""


def draw(config: NormsConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    rows = len(config.cells)
    figure = new_figure(15.0, 1.2 + 5.2 * rows)
    grid = figure.add_gridspec(2)
    letters = iter(ascii_lowercase)
    _draw_as_the_paper(figure.add_subfigure(grid[0]), config, dataset, letters)
    _draw_ours(figure.add_subfigure(grid[1]), config, dataset, letters)
    dims = ", ".join(f"{s.name} d = {s.problem.dim}" for s in config.cells)
    lost = int(dataset["unmatched"].sum())
    figure.suptitle(
        f"norms with and without query temperature: {dims}, {config.adam}; "
        f"means and 95 % intervals over {config.seeds} seeds"
        + (f"; {lost} seeds without a common loss left out there" if lost else "")
        + left_out(dataset)
    )
    return figure


def _when(comparison: str, steps: int) -> str:
    return f"after {steps} steps" if comparison == "steps" else "at equal loss"


def _draw_as_the_paper(
    figure: SubFigure, config: NormsConfig, dataset: xr.Dataset, letters: Iterator[str]
) -> None:
    """Effective weight and spikiness of the tokens of all models, and means: a row a setting."""
    figure.suptitle(
        "as the paper draws it: over the tokens of all models, dashed lines at the means; "
        "smaller is spikier"
    )
    axes = figure.subplots(len(config.cells), len(_PAPER) * len(COMPARISONS), squeeze=False)
    for setting, row in zip(config.cells, axes, strict=True):
        whole, panels = dataset.sel(setting=setting.name), iter(row)
        for name, label in _PAPER.items():
            log = name == "effective_weight"
            bins = log_bins(whole[name].values) if log else np.linspace(0, 1, 41)
            for comparison in COMPARISONS:
                ax, at = next(panels), whole.sel(comparison=comparison)
                draw_distributions(ax, at[name], at[f"mean_{name}_band"], bins, log)
                ax.set(xlabel=label, ylabel="share of tokens")
                when = _when(comparison, setting.training.steps)
                title = f"({next(letters)}) {setting.name}, {when}: means"
                place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1)}
                ax.legend(title=title, ncols=2, fontsize=8, alignment="left", **place)


def _draw_ours(
    figure: SubFigure, config: NormsConfig, dataset: xr.Dataset, letters: Iterator[str]
) -> None:
    """Sizes of weights, support against the target's, the norm on the way: a row a setting."""
    figure.suptitle(
        "beside it: what the effective weight is made of, and how spiky the targets are"
    )
    axes = figure.subplots(len(config.cells), 2 + len(COMPARISONS), squeeze=False)
    for setting, row in zip(config.cells, axes, strict=True):
        whole = dataset.sel(setting=setting.name)
        titles = [f"{setting.name}: norms"]
        _draw_sizes(row[0], whole)
        for ax, comparison in zip(row[1:], COMPARISONS, strict=False):
            _draw_support(ax, whole.sel(comparison=comparison))
            titles.append(f"effective support {_when(comparison, setting.training.steps)}")
        _draw_progress(row[-1], whole)
        for ax, title in zip(row, [*titles, "norm by progress"], strict=True):
            ax.set_title(f"({next(letters)}) {title}", loc="left")
    handles = axes[0, 1].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=5)


def _draw_sizes(ax: Axes, at: xr.Dataset) -> None:
    """Means over tokens and seeds of `_SIZES`, at equal steps and beside it at equal loss."""
    each = {
        f"{size}\n{comparison}": at[band].sel(comparison=comparison, drop=True)
        for size, band in _SIZES.items()
        for comparison in COMPARISONS
    }
    draw_side_by_side(ax, xr.concat(list(each.values()), xr.Variable("size", list(each))), "size")
    ax.tick_params(axis="x", labelsize=7)
    label_axes(ax, "at equal", "mean over tokens", log="y")


def _draw_support(ax: Axes, at: xr.Dataset) -> None:
    """Effective support of the learned rows against that of their targets."""
    x, band = at["target_support"].values, at["effective_support_band"]
    ends = [np.nanmin(x), np.nanmax(x)]
    ax.plot(ends, ends, color="#999999", linewidth=1, label="learned = target")
    draw_each(draw_points, ax, x, band, markeredgewidth=0.5)
    label_axes(ax, "of the target row (tokens)", "of the learned row", log="xy")


def _draw_progress(ax: Axes, at: xr.Dataset) -> None:
    """The norm of W where the slowest model has made a given share of its progress."""
    shares, band = at["progress"].values, at["weight_norm_by_progress_band"]
    place = np.arange(len(shares))
    draw_each(draw_points, ax, place, band, joined=True)
    ax.set_xticks(place, [f"{100 * s:g} %" for s in shares], fontsize=8)
    label_axes(ax, "slowest model's progress", "spectral norm ||W||₂ at that loss", log="y")
