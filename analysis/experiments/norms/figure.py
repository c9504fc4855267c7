"""The figure of the norms experiment."""

from collections.abc import Iterator
from string import ascii_lowercase

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from analysis.draw.distributions import draw_distributions, log_bins
from analysis.draw.figures import draw_each, draw_points, label_log, left_out, new_figure
from analysis.experiments.norms.train import COMPARISONS, NormsConfig

_PAPER = {"effective_weight": "effective weight τ ||W||₂", "spikiness": "spikiness 1 / (K Σ s²)"}
_COLUMNS = {
    "weight_norm": ("norm of W", "spectral norm ||W||₂", "weight_norm_band"),
    "token_norm": ("norm of tokens", "token norm ||Wᵀe||", "mean_token_norm_band"),
    "logit_scale": (
        "norm with temperature",
        "effective logit scale τ ||Wᵀe||",
        "mean_logit_scale_band",
    ),
}


def draw(config: NormsConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    rows = len(config.cells)
    figure = new_figure(14.0, 1.2 + 6.4 * rows)
    grid = figure.add_gridspec(2, height_ratios=(2.3, 4.1))
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
                ax.legend(
                    title=f"({next(letters)}) {setting.name}, {_when(comparison, setting.training.steps)}: "
                    "means",
                    loc="lower left",
                    bbox_to_anchor=(-0.02, 1),
                    ncols=2,
                    fontsize=8,
                    alignment="left",
                )


def _draw_ours(
    figure: SubFigure, config: NormsConfig, dataset: xr.Dataset, letters: Iterator[str]
) -> None:
    """Norms of W and of tokens, the support of rows against that of their targets, and the norm of
    W on the way: two rows a setting.
    """
    figure.suptitle(
        "beside it: what the effective weight is made of, and how spiky the targets are"
    )
    settings = config.cells
    grid = figure.add_gridspec(2 * len(settings), len(_COLUMNS) + 2)
    for i, setting in enumerate(settings):
        whole = dataset.sel(setting=setting.name)
        for j, comparison in enumerate(COMPARISONS):
            row = [figure.add_subplot(grid[2 * i + j, k]) for k in range(len(_COLUMNS) + 1)]
            at = whole.sel(comparison=comparison)
            for ax, (name, (title, label, band)) in zip(row, _COLUMNS.items(), strict=False):
                bins = log_bins(whole[name].values)  # the same for each comparison
                draw_distributions(ax, at[name], at[band], bins)
                ax.set_title(f"({next(letters)}) {title}", loc="left")
                ax.set(xlabel=label if j else "", ylabel="share of tokens")
            _draw_support(row[-1], at)
            row[-1].set_title(f"({next(letters)}) effective support", loc="left")
            row[-1].set_xlabel("of the target row (tokens)" if j else "")
            when = _when(comparison, setting.training.steps)
            row[0].set_ylabel(f"{setting.name}, {when}\nshare of models")
        ax = figure.add_subplot(grid[2 * i : 2 * i + 2, -1])
        _draw_progress(ax, whole)
        ax.set_title(f"({next(letters)}) norm by progress", loc="left")
    handles = figure.axes[len(_COLUMNS)].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=5)


def _draw_support(ax: Axes, at: xr.Dataset) -> None:
    """Effective support of the learned rows against that of their targets."""
    x, band = at["target_support"].values, at["effective_support_band"]
    ends = [np.nanmin(x), np.nanmax(x)]
    ax.plot(ends, ends, color="#999999", linewidth=1, label="learned = target")
    draw_each(draw_points, ax, x, band, markeredgewidth=0.5)
    ax.set(xscale="log", yscale="log", ylabel="of the learned row")
    label_log(ax.xaxis, ax.yaxis)


def _draw_progress(ax: Axes, at: xr.Dataset) -> None:
    """The norm of W where the slowest model has made a given share of its progress."""
    shares, band = at["progress"].values, at["weight_norm_by_progress_band"]
    place = np.arange(len(shares))
    draw_each(draw_points, ax, place, band, joined=True)
    ax.set(yscale="log", xlabel="slowest model's progress")
    ax.set_ylabel("spectral norm ||W||₂ at that loss")
    ax.set_xticks(place, [f"{100 * s:g} %" for s in shares], fontsize=8)
    label_log(ax.yaxis)
