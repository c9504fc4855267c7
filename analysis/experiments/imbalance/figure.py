"""The figure of the imbalance experiment."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.draw.figures import label_axes, left_out, new_figure, style
from analysis.experiments.imbalance.train import PAPERS, RANDOM, ImbalanceConfig
from ssa_theory.mechanism import VANILLA

_BEST: dict[str, Any] = {"linewidth": 4, "alpha": 0.3, "zorder": 0}
_LEAST = 1e-7  # what is smaller is drawn at this


def draw(config: ImbalanceConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    figure = new_figure(13.0, 9.0)
    axes = figure.subplots(2, 2)
    _draw_error(axes[0, 0], config, dataset)
    _draw_optimum(axes[0, 1], dataset)
    _draw_powers(axes[1, 0], config, dataset)
    _draw_margin(axes[1, 1], config, dataset)
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=6, fontsize=8)
    figure.suptitle(
        f"two tokens, cosine {config.cosine:g}; {len(config.problems[0].trained)} training "
        f"positions n = 2 to {config.train_length}, log-spaced; {config.adam}, "
        f"{config.steps} + {config.cooldown_steps} steps; medians and 95 % of "
        f"{dataset.sizes['seed']} initialisations" + left_out(dataset)
    )
    return figure


def _draw_error(ax: Axes, config: ImbalanceConfig, dataset: xr.Dataset) -> None:
    """Error by position, of the queries that are b."""
    at = dataset.sel(cell=config.shown)
    b = ~at["query_is_a"].isel(seed=0).values
    n = at["position"].values[b]
    for name in at["mechanism"].values.tolist():
        one, look = at.sel(mechanism=name), style(name)
        low, middle, high = one["error_quantile"].transpose("quantile", "position").values[:, b]
        label = f"{name} ({one['parameters'].item()} parameters)"
        line = {"color": look["color"], "linestyle": look["linestyle"]}
        ax.plot(n, middle.clip(_LEAST), **line, label=label)
        ax.fill_between(n, low.clip(_LEAST), high.clip(_LEAST), color=look["color"], alpha=0.12)
        if name in (VANILLA, PAPERS):
            best = one["best_error"].isel(seed=0).values[b]
            ax.plot(n, best.clip(_LEAST), color=look["color"], label=f"{name}, exact", **_BEST)
    ax.axvline(config.train_length, color="#999999", linewidth=1)
    ax.set_yscale("log")
    where = f"κ(n) = n^{config.power:g}, α = {config.share:g}"
    title = f"error where the query is b: {where} (zero-loss schedule: 0)"
    label_axes(ax, "position n (tokens)", "squared error", title, log="x")


def _draw_optimum(ax: Axes, dataset: xr.Dataset) -> None:
    """Median trained loss against the exact optimum, in every cell."""
    drawn = dataset["loss_quantile"].sel(quantile=0.5)
    best = dataset["best_loss"].median("seed")
    for name in dataset["mechanism"].values.tolist():
        look = style(name)
        x, y = (v.sel(mechanism=name).values.clip(_LEAST) for v in (best, drawn))
        ax.plot(x, y, look["marker"], color=look["color"], markersize=5, alpha=0.7)
    ax.plot([_LEAST, 1], [_LEAST, 1], color="#999999", linewidth=1, zorder=0)
    ax.set(xscale="log", yscale="log")
    title = "trained against exact, every power and α (line: equal)"
    label_axes(ax, "exact least loss of the schedule", "trained loss", title)


def _draw_powers(ax: Axes, config: ImbalanceConfig, dataset: xr.Dataset) -> None:
    """Loss by power at the shown share: trained (lines), exact (broad lines)."""
    grid = dataset.sel(cell=[c for c in dataset["cell"].values if not c.endswith(RANDOM)])
    at = grid.isel(cell=np.flatnonzero(grid["share"] == config.share)).sortby("power")
    x = at["power"].values
    for name in at["mechanism"].values.tolist():
        one, look = at.sel(mechanism=name), style(name)
        low, middle, high = one["loss_quantile"].transpose("quantile", "cell").values
        ax.plot(x, middle, **look, markersize=5)
        ax.fill_between(x, low, high, color=look["color"], alpha=0.12)
        ax.plot(x, one["best_loss"].isel(seed=0), color=look["color"], **_BEST)
    ax.set_yscale("log")
    title = f"loss by imbalance, α = {config.share:g} (broad: exact optimum of the schedule)"
    label_axes(ax, "power p of the imbalance κ(n) = n^p", "loss (mean squared error)", title)
    ax.set_xticks(x)


def _draw_margin(ax: Axes, config: ImbalanceConfig, dataset: xr.Dataset) -> None:
    """The learned margin beside that of zero loss, of the queries that are b."""
    at = dataset.sel(cell=config.shown)
    b = ~at["query_is_a"].isel(seed=0).values
    n = at["position"].values[b]
    for name in at["mechanism"].values.tolist():
        look = style(name)
        one = at["margin_quantile"].sel(mechanism=name, quantile=0.5).values[b]
        ax.plot(n, one, color=look["color"], linestyle=look["linestyle"])
    wanted = at["zero_loss_margin"].isel(seed=0).values[b]
    ax.plot(n, wanted, color="#e0b000", label="zero loss: log κ(n) + log(α / (1 - α))", **_BEST)
    ax.axvline(config.train_length, color="#999999", linewidth=1)
    title = f"learned margin where the query is b: κ(n) = n^{config.power:g}, α = {config.share:g}"
    label_axes(ax, "position n (tokens)", "margin τ(n) m of a over b (nats)", title, log="x")
    ax.legend()
