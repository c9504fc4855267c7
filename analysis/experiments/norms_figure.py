"""The figure of the norms experiment: distributions of norms and spikiness of rows, at equal steps and at equal loss."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.draw.figures import STYLE, draw_points, label_log, left_out, new_figure

_COLUMNS = {
    "weight_norm": ("norm of W", "spectral norm ||W||₂", "weight_norm_band"),
    "token_norm": ("norm of tokens", "token norm ||Wᵀe||", "mean_token_norm_band"),
    "logit_scale": ("norm with temperature", "effective logit scale τ ||Wᵀe||", "mean_logit_scale_band"),
}
_BINS = 32


def draw(config: Any, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    settings, variants = dataset["setting"].values, [str(v) for v in dataset["variant"].values]
    figure = new_figure(14.0, 0.8 + 3.6 * len(settings))
    grid = figure.add_gridspec(2 * len(settings), len(_COLUMNS) + 2)
    for i, setting in enumerate(settings):
        steps = config.steps if setting == "graded" else config.letters_steps
        for j, comparison in enumerate(dataset["comparison"].values):
            row = [figure.add_subplot(grid[2 * i + j, k]) for k in range(len(_COLUMNS) + 1)]
            at = dataset.sel(setting=setting, comparison=comparison)
            for ax, (name, (title, label, band)) in zip(row, _COLUMNS.items(), strict=False):
                both = dataset[name].sel(setting=setting).values  # one set of bins for both comparisons
                _draw_histogram(ax, at[name], at[band], variants, _bins(both))
                ax.set(title=title if i == j == 0 else "", xlabel=label if j else "")
            _draw_support(row[-1], at, variants)
            row[-1].set(title="spikiness" if i == j == 0 else "", xlabel="effective support, target row" if j else "")
            what = f"after {steps} steps" if comparison == "steps" else "at equal loss"
            row[0].set_ylabel(f"{setting}, {what}\nshare of models")
            row[1].set_ylabel("share of tokens")
        _draw_progress(figure.add_subplot(grid[2 * i : 2 * i + 2, -1]), dataset.sel(setting=setting), variants)
    figure.axes[2 * len(_COLUMNS) + 2].set_title("norm by progress")
    figure.legend(*figure.axes[len(_COLUMNS)].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    figure.suptitle(_headline(dataset, config))
    return figure


def _headline(dataset: xr.Dataset, config: Any) -> str:
    text = (
        f"norms with and without query temperature: ring d = {config.dim}, "
        + (f"letters d = {config.letters_dim}, " if config.letters_steps else "")
        + f"adam {config.learning_rate:g}; means and 95 % intervals over {config.seeds} seeds"
    )
    unmatched = int(dataset["unmatched"].sum())
    return text + (f"; {unmatched} seeds without a common loss left out there" if unmatched else "") + left_out(dataset)


def _bins(values: np.ndarray) -> np.ndarray:
    """Logarithmic bins that hold all but the extremes, which go to the outer bins; at most four decades."""
    kept = values[np.isfinite(values) & (values > 0)]
    low, high = np.quantile(kept, (0.002, 0.998)) if len(kept) else (0.5, 2.0)
    return np.geomspace(max(0.9 * low, 1e-4 * high), 1.1 * high, _BINS + 1)


def _draw_histogram(ax: Axes, values: xr.DataArray, band: xr.DataArray, variants: list[str], bins: np.ndarray) -> None:
    """Outlines of the distributions, dashed lines at the means, and above them the means' intervals."""
    tallest = 0.0
    for place, v in enumerate(variants):
        data = values.sel(variant=v).values
        data = np.clip(data[np.isfinite(data)], bins[0], bins[-1])
        share = np.histogram(data, bins)[0] / max(1, len(data))
        tallest = max(tallest, share.max())
        color = STYLE[v]["color"]
        ax.stairs(share, bins, color=color, linestyle=STYLE[v]["linestyle"], linewidth=1.3)
        ax.stairs(share, bins, color=color, fill=True, alpha=0.12)
        mean, low, high = (float(band.sel(variant=v, estimate=e)) for e in ("value", "low", "high"))
        ax.axvline(mean, color=color, linestyle="--", linewidth=1)
        height = 0.97 - 0.08 * place
        ax.plot([low, high], [height, height], color=color, linewidth=1.5, transform=ax.get_xaxis_transform())
        ax.plot(mean, height, STYLE[v]["marker"], color=color, markersize=4, transform=ax.get_xaxis_transform())
    ax.set(xscale="log", xlim=(bins[0], bins[-1]), ylim=(0, 1.4 * tallest or 1))
    label_log(ax.xaxis)


def _draw_support(ax: Axes, at: xr.Dataset, variants: list[str]) -> None:
    """Effective support of the learned rows against that of their targets."""
    x = at["target_support"].values
    ends = [np.nanmin(x), np.nanmax(x)]
    ax.plot(ends, ends, color="#999999", linewidth=1, label="learned = target")
    for v in variants:
        draw_points(ax, x, at["effective_support_band"].sel(variant=v), v, markeredgewidth=0.5)
    ax.set(xscale="log", yscale="log", ylabel="learned row")
    label_log(ax.xaxis)
    label_log(ax.yaxis)


def _draw_progress(ax: Axes, at: xr.Dataset, variants: list[str]) -> None:
    """The norm of W where the slowest model has made a given share of its progress."""
    shares = at["progress"].values
    place = np.arange(len(shares))
    for v in variants:
        line = STYLE[v]["linestyle"]
        draw_points(ax, place, at["weight_norm_by_progress_band"].sel(variant=v), v, linestyle=line)
    ax.set(yscale="log", xlabel="slowest model's progress", ylabel="spectral norm ||W||₂ at that loss")
    ax.set_xticks(place, [f"{100 * s:g} %" for s in shares], fontsize=8)
    label_log(ax.yaxis)
