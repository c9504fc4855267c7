"""The figure of the norms experiment."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.draw.distributions import draw_distributions, log_bins
from analysis.draw.figures import draw_each, draw_points, label_log, left_out, new_figure
from analysis.experiments.norms.train import COMPARISONS, NormsConfig

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
    settings = config.settings
    figure = new_figure(14.0, 0.8 + 3.6 * len(settings))
    grid = figure.add_gridspec(2 * len(settings), len(_COLUMNS) + 2)
    for i, setting in enumerate(settings):
        whole = dataset.sel(setting=setting.name)
        for j, comparison in enumerate(COMPARISONS):
            row = [figure.add_subplot(grid[2 * i + j, k]) for k in range(len(_COLUMNS) + 1)]
            at, first = whole.sel(comparison=comparison), i == j == 0
            for ax, (name, (title, label, band)) in zip(row, _COLUMNS.items(), strict=False):
                bins = log_bins(whole[name].values)  # the same for both comparisons
                draw_distributions(ax, at[name], at[band], bins)
                ax.set(title=title if first else "", xlabel=label if j else "")
            _draw_support(row[-1], at)
            label = "effective support, target row" if j else ""
            row[-1].set(title="spikiness" if first else "", xlabel=label)
            what = f"after {setting.steps} steps" if comparison == "steps" else "at equal loss"
            row[0].set_ylabel(f"{setting.name}, {what}\nshare of models")
            row[1].set_ylabel("share of tokens")
        _draw_progress(figure.add_subplot(grid[2 * i : 2 * i + 2, -1]), whole)
    figure.axes[2 * len(_COLUMNS) + 2].set_title("norm by progress")
    handles = figure.axes[len(_COLUMNS)].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=5)
    dims = ", ".join(f"{s.name} d = {s.problem.dim}" for s in settings)
    lost = int(dataset["unmatched"].sum())
    figure.suptitle(
        f"norms with and without query temperature: {dims}, adam {config.learning_rate:g}; "
        f"means and 95 % intervals over {config.seeds} seeds"
        + (f"; {lost} seeds without a common loss left out there" if lost else "")
        + left_out(dataset)
    )
    return figure


def _draw_support(ax: Axes, at: xr.Dataset) -> None:
    """Effective support of the learned rows against that of their targets."""
    x, band = at["target_support"].values, at["effective_support_band"]
    ends = [np.nanmin(x), np.nanmax(x)]
    ax.plot(ends, ends, color="#999999", linewidth=1, label="learned = target")
    draw_each(draw_points, ax, x, band, markeredgewidth=0.5)
    ax.set(xscale="log", yscale="log", ylabel="learned row")
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
