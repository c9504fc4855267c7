"""The figure of the ablation: both parts beside vanilla and Bayes, and risk by context length."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from analysis.draw.figures import draw_points, label_axes, left_out, new_figure, spread, style
from analysis.experiments.ablation.train import AblationConfig
from ssa_theory.mechanism import VANILLA

_HIDDEN = {
    *("ssa-mlp-key", "ssa-mlp-query-key", "ssa-mlp-key-value", "ssa-mlp-query-key-value"),
    "ssa-position",
}
"""Not drawn by context length, where they would lie upon others."""
_LEGEND = {"fontsize": 7.5, "loc": "upper center", "ncols": 2}


def draw(config: AblationConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    figure = new_figure(14.0, 7.0)
    letters, denoise, lengths = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    _draw_part(letters, dataset, "letters")
    letters.set_title(
        f"letters, d = {config.letters_dim}, {config.letters_steps} steps\n"
        "without position terms, but for mechanisms that have no other"
    )
    _draw_part(denoise, dataset, "denoise")
    denoise.set_title(
        f"denoising, {config.denoise_steps} + {config.cooldown_steps} steps\nfrom the last token"
    )
    _draw_lengths(lengths, dataset, max(config.train_lengths))
    figure.suptitle(
        "ablation of the temperatures (in brackets: parameters added); means and 95 % intervals "
        f"over {config.seeds} seeds" + left_out(dataset)
    )
    return figure


def _draw_part(ax: Axes, dataset: xr.Dataset, part: str) -> None:
    """The relative excess of each mechanism as a point, with the parameters that it adds."""
    at = dataset.sel(mechanism=dataset["part"] == part)
    names = [name.removeprefix(f"{part}-") for name in at["mechanism"].values.tolist()]
    places = np.arange(len(names))[::-1]
    shown = {"relative_excess": ("s", "black", "black", 0.0, "risk above Bayes")}
    if part == "letters":
        shown = {
            "relative_excess": (*shown["relative_excess"][:-1], "cross-entropy above H*"),
            "relative_l1": ("o", "#d55e00", "white", -0.22, "L1 error of the rows"),
        }
    for name, (marker, color, face, shift, label) in shown.items():
        look: dict[str, Any] = {"marker": marker, "color": color, "markerfacecolor": face}
        look |= {"linestyle": "none", "markersize": 4, "capsize": 3, "elinewidth": 1.2}
        value = at[name].sel(estimate="value").values
        ax.errorbar(value, places + shift, xerr=spread(at[name]), label=label, **look)
    ax.axvline(1, color=style(VANILLA)["color"], linewidth=1, label=VANILLA)
    ax.axvline(0, color="#777777", linestyle="--", linewidth=1.2, label="Bayes")
    if part == "denoise":
        look = {"color": "#777777", "linestyle": ":", "linewidth": 1.4}
        bound = float(dataset["additive_relative_excess"])
        ax.axvline(bound, label="best additive (bounds value gates)", **look)
    added = at["added_parameters"].values
    counted = zip(names, added, strict=True)
    ax.set_yticks(places, [f"{name}  (+{n})" if n else name for name, n in counted])
    ax.set(xlim=(-0.04, None), ylim=(-0.7, len(names) - 0.5))
    ax.set_xlabel("error above Bayes / that of vanilla")
    ax.grid(axis="y", color="#eeeeee")
    ax.legend(bbox_to_anchor=(0.4, -0.11), **_LEGEND)


def _draw_lengths(ax: Axes, dataset: xr.Dataset, longest: int) -> None:
    """Denoising risk by context length: mechanisms, the exact Bayes risk and the closed forms."""
    length = dataset["length"].values
    ax.axvspan(length[0], longest, color="#f2f2f2", zorder=0)
    look = {"color": "#777777", "linewidth": 1.2}
    shrunk, additive = dataset["shrunk"].values, dataset["additive"].values
    ax.plot(length, shrunk, label="best multiple of the mean", linestyle=(0, (1, 1)), **look)
    ax.plot(length, additive, label="best additive", linestyle="--", **look)
    lower, upper = dataset["bayes_lower"].values, dataset["bayes_upper"].values
    label = "Bayes (bracket beyond)"
    ax.fill_between(length, lower, upper, color="black", linewidth=1.5, label=label)
    bands = dataset["risk_band"].sel(mechanism=dataset["part"] == "denoise")
    for label, band in zip(bands["mechanism"].values.tolist(), bands, strict=True):
        name = label.removeprefix("denoise-")
        if name not in _HIDDEN:
            draw_points(ax, length, band, name, joined=True, linewidth=1.2)
    title = "denoising by context length,\ntrained in the grey range"
    label_axes(ax, "context length n (tokens)", "mean squared error per coordinate", title)
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(length, [f"{n}" for n in length])
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.legend(bbox_to_anchor=(0.45, -0.11), **_LEGEND)
