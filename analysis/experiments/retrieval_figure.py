"""The figure of noisy retrieval: cross-entropy by noise level, the learned temperature against 1 / s^2, other numbers of keys."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.draw.figures import STYLE, draw_points, left_out, new_figure

_LIKE = {"vanilla": "vanilla", "ssa-tanh": "ssa", "ssa-exp": "ssa-free"}  # whose style a variant borrows
_LABEL = {"vanilla": "vanilla", "ssa-tanh": "SSA, 1 + tanh f", "ssa-exp": "SSA, exp f"}


def draw(config: Any, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    figure = new_figure(13.0, 4.4)
    left, middle, right = figure.subplots(1, 3)
    data = dataset.sortby(["noise", "keys"])
    noise, keys = data["noise"].values, data["keys"].values

    _draw_line(left, noise, data["bayes_band"], "exact Bayes", color="#009e73", linewidth=5, alpha=0.45)
    _draw_line(left, noise, data["common_band"], "best single temperature", color="#777777", linestyle=":")
    left.axhline(float(data["naive"]), color="#aaaaaa", linestyle=(0, (6, 4)), label="uniform guess, log n")
    for v in data["variant"].values:
        _draw_variant(left, noise, data["cross_entropy_band"].sel(variant=v), v)
    left.set(xscale="log", xlabel="noise level s", ylabel="cross-entropy (nats)", title="cross-entropy by noise level")
    left.set_xticks(noise, [f"{s:g}" for s in noise])
    left.minorticks_off()
    left.set_ylim(bottom=0)
    left.legend(fontsize=8)

    wanted = 1 / noise**2
    middle.plot(wanted, wanted, color="#009e73", linewidth=5, alpha=0.45, label="posterior, 1/s²")
    for v in data["variant"].values:
        _draw_variant(middle, wanted, data["inverse_temperature_band"].sel(variant=v), v)
    middle.set(
        xscale="log",
        yscale="log",
        xlabel="1/s²",
        ylabel="learned inverse temperature, τ(s) tr(W)/d",
        title="learned inverse temperature",
    )
    middle.legend(fontsize=8)

    for v in data["variant"].values:
        _draw_variant(right, keys, data["gap_by_keys_band"].sel(variant=v), v)
    right.axvline(config.keys, color="#aaaaaa", linewidth=1, linestyle=(0, (6, 4)), label="n in training")
    right.set(
        xscale="log",
        yscale="log",
        xlabel="number of keys n in the test",
        ylabel="cross-entropy above exact Bayes (nats)",
        title="other numbers of keys, without further training",
    )
    right.set_xticks(keys, [str(k) for k in keys])
    right.minorticks_off()
    right.legend(fontsize=8)
    figure.suptitle(
        f"noisy retrieval: d = {config.dim}, n = {config.keys}, {config.steps} + {config.cooldown_steps} steps of "
        f"adam {config.learning_rate:g}; means and 95 % intervals over {config.seeds} seeds" + left_out(dataset)
    )
    return figure


def _draw_variant(ax: Axes, x: np.ndarray, band: xr.DataArray, variant: str) -> None:
    style = STYLE[_LIKE[variant]]["linestyle"]
    draw_points(ax, x, band, _LIKE[variant], label=_LABEL[variant], linestyle=style)


def _draw_line(ax: Axes, x: np.ndarray, band: xr.DataArray, label: str, **style: object) -> None:
    ax.plot(x, band.sel(estimate="value").values, label=label, **style)
