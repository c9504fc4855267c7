"""The figure of the ablation: every variant against vanilla and Bayes on both parts, and denoising by context length."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from analysis.draw.figures import STYLE, left_out, new_figure

_LABELS = {
    "constant": "query: constant",
    "position": "query: position only",
    "query-frequency": "query: frequency",
    "key-frequency": "key: frequency",
    "query-mlp": "query: own MLP",
    "query-key-mlp": "query + key: own MLP",
    "query-value-token": "query + value: token only",
    "query-value-position": "query + value: position only",
    "query-value-shared": "query + value: shared weights",
}
_BY_LENGTH = {
    "vanilla": STYLE["vanilla"],
    "query": STYLE["ssa-free"],
    "value": STYLE["ssa-mlp"],
    "query-value": STYLE["ssa"],
    "query-value-token": STYLE["ssa-degree"],
    "query-value-shared": {"color": "#e69f00", "linestyle": (0, (3, 1, 1, 1)), "marker": "P"},
}


def draw(config: Any, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    figure = new_figure(14.0, 7.0)
    letters, denoise, lengths = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    _draw_variants(letters, dataset, "letters")
    letters.set_title(
        f"letters, d = {config.letters_dim}, {config.letters_steps} steps\n"
        "tau = 1 + tanh f(x), f weight-shared if not named"
    )
    _draw_variants(denoise, dataset, "denoise")
    denoise.set_title(
        f"denoising, {config.denoise_steps} + {config.cooldown_steps} steps\n"
        "tau = 1 + tanh f(x) + sigmoid(alpha) log n, own MLP if not named"
    )
    _draw_lengths(lengths, dataset, max(config.train_lengths))
    figure.suptitle(
        f"ablation of the temperatures (in brackets: parameters added); means and 95 % intervals over {config.seeds} seeds"
        + left_out(dataset)
    )
    return figure


def _draw_variants(ax: Axes, dataset: xr.Dataset, part: str) -> None:
    """The relative excess of each variant as a point, the parameters that it adds beside its name."""
    at = dataset.sel(variant=dataset["part"] == part)
    names = [str(v).removeprefix(f"{part}-") for v in at["variant"].values]
    places = np.arange(len(names))[::-1]
    shown = [
        (
            "relative_excess",
            "s",
            "black",
            0.0,
            {"letters": "cross-entropy above H*", "denoise": "risk above Bayes"}[part],
        )
    ]
    if part == "letters":
        shown.append(("relative_l1", "o", "#d55e00", -0.22, "L1 error of the rows"))
    for name, marker, color, shift, label in shown:
        value, low, high = at[name].values.T
        ax.errorbar(
            value,
            places + shift,
            xerr=np.abs(np.stack([value - low, high - value])),
            marker=marker,
            color=color,
            markerfacecolor=color if shift == 0 else "white",
            linestyle="none",
            markersize=4,
            capsize=3,
            elinewidth=1.2,
            label=label,
        )
    ax.axvline(1, color=STYLE["vanilla"]["color"], linewidth=1, label="vanilla")
    ax.axvline(0, color="#777777", linestyle="--", linewidth=1.2, label="Bayes")
    if part == "denoise":
        ax.axvline(
            float(dataset["additive_relative_excess"]),
            color="#777777",
            linestyle=":",
            linewidth=1.4,
            label="best additive (bounds value gates)",
        )
    added = at["added_parameters"].values
    labels = [_LABELS.get(n, n.replace("-", " + ")) for n in names]
    ax.set_yticks(
        places, [f"{label}  (+{count})" if count else label for label, count in zip(labels, added, strict=True)]
    )
    ax.set(xlim=(-0.04, None), ylim=(-0.7, len(names) - 0.5), xlabel="error above Bayes / that of vanilla")
    ax.grid(axis="y", color="#eeeeee")
    ax.legend(fontsize=7.5, loc="upper center", bbox_to_anchor=(0.4, -0.11), ncols=2)


def _draw_lengths(ax: Axes, dataset: xr.Dataset, trained: int) -> None:
    """Denoising risk by context length: variants, the exact Bayes risk and the closed forms."""
    length = dataset["length"].values
    ax.axvspan(length[0], trained, color="#f2f2f2", zorder=0)
    for name, style, label in (
        ("shrunk", (0, (1, 1)), "best multiple of the mean"),
        ("additive", "--", "best additive"),
    ):
        ax.plot(length, dataset[name].values, color="#777777", linestyle=style, linewidth=1.2, label=label)
    lower, upper = dataset["bayes_lower"].values, dataset["bayes_upper"].values
    ax.fill_between(length, lower, upper, color="black", linewidth=1.5, label="Bayes (bracket beyond)")
    for name, look in _BY_LENGTH.items():
        value, low, high = dataset["risk_band"].sel(variant=f"denoise-{name}").values.T
        ax.errorbar(
            length,
            value,
            yerr=np.abs(np.stack([value - low, high - value])),
            markersize=5,
            capsize=2.5,
            linewidth=1.2,
            label=_LABELS.get(name, name.replace("-", " + ")),
            **look,
        )
    ax.set(xscale="log", yscale="log", xlabel="context length n (tokens)", ylabel="mean squared error per coordinate")
    ax.set_xticks(length, [f"{n}" for n in length])
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
    ax.set_title("denoising by context length,\ntrained in the grey range")
    ax.legend(fontsize=7.5, loc="upper center", bbox_to_anchor=(0.45, -0.11), ncols=2)
