"""The figure of the phase experiment: maps of the paired difference to vanilla, by step and graph
family.
"""

from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import FuncNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, Rectangle

from analysis.draw.figures import left_out, new_figure
from analysis.experiments.phase.train import PhaseConfig

_LABEL = {"l1_error": "L1 error", "cross_entropy_gap": "cross-entropy"}


def draw(config: PhaseConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or tested here."""
    *families, everything = dataset["map"].values
    first, *others = map(str, dataset["selective"].values)
    columns = [("l1_error", first, everything), ("cross_entropy_gap", first, everything)]
    columns += [("l1_error", mechanism, everything) for mechanism in others]
    summaries = len(columns)
    columns += [("l1_error", first, family) for family in families]
    figure = new_figure(14.0, 1.4 + 1.9 * dataset.sizes["step"])
    shape = dataset.sizes["step"], len(columns)
    axes = figure.subplots(*shape, squeeze=False, sharex=True, sharey=True)
    shown = [dataset.sel(measure=m, selective=name, map=of) for m, name, of in columns]
    largest = max(float(abs(cells["difference"]).max()) for cells in shown)
    norm = FuncNorm((_signed_root, _signed_square), -largest, largest)
    images = []
    for j, (measure, mechanism, name) in enumerate(columns):
        for ax, step in zip(axes[:, j], dataset["step"].values, strict=True):
            images.append(_draw_map(ax, shown[j].sel(step=step), norm))
        title = f"{name}\n{mechanism}, {_LABEL[measure]}"
        axes[0, j].set_title(title, fontweight="bold" if j < summaries else "normal", fontsize=8.5)
    for ax in axes[-1]:
        places = [f"{d}/{config.nodes}" for d in dataset["dim"].values]
        ax.set_xticks(range(len(places)), places, fontsize=7)
        ax.set_xlabel("d / K", fontsize=8, labelpad=1)
    for ax, step in zip(axes[:, 0], dataset["step"].values, strict=True):
        places = [f"{s:g}" for s in dataset["similarity"].values]
        ax.set_yticks(range(len(places)), places, fontsize=8)
        ax.set_ylabel(f"step {step}\nsimilarity")
    label = "mechanism - vanilla (L1 error; cross-entropy: nats)"
    figure.colorbar(images[-1], ax=axes, label=label, pad=0.01, aspect=40, fraction=0.02)
    white = partial(Patch, facecolor="white")
    handles = [
        white(edgecolor="#777777", hatch="////", label="no significant difference"),
        white(edgecolor="black", linewidth=2, label="vanilla significantly better"),
        Patch(facecolor="#6a9fca", label="negative (blue): the mechanism is better"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
    figure.suptitle(
        f"{int(dataset['models']):,} trained models: {dataset.sizes['mechanism']} mechanisms, "
        f"K = {config.nodes}, exact loss, Adam {config.learning_rate:g}; means over "
        f"{dataset.sizes['seed']} seeds, error of the mechanism minus vanilla, paired"
        f"{left_out(dataset)}",
        fontsize=10.5,
    )
    return figure


def _signed_root(x: np.ndarray) -> np.ndarray:
    """A colour scale on which differences far smaller than the largest still show their sign."""
    return np.sign(x) * np.sqrt(np.abs(x))


def _signed_square(x: np.ndarray) -> np.ndarray:
    return np.sign(x) * np.square(x)


def _draw_map(ax: Axes, cells: xr.Dataset, norm: FuncNorm) -> AxesImage:
    """One map (similarity, dim): a colour and a number a cell; marks say what is significant, for
    readers without colour.
    """
    value = cells["difference"].transpose("similarity", "dim").values
    significant = cells["significant"].transpose("similarity", "dim").values
    image = ax.imshow(
        value, cmap="RdBu_r", norm=norm, aspect="auto", origin="lower", interpolation="nearest"
    )
    # Hundreds of small artists within their axes, which the layout need not measure.
    largest = norm.vmax
    assert largest is not None  # the norm of all maps has limits
    inside: dict[str, Any] = {"in_layout": False}
    for (i, j), x in np.ndenumerate(value):
        if not significant[i, j]:
            mark: dict[str, Any] = {"hatch": "////", "edgecolor": "#999999", "linewidth": 0}
            ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, **mark, **inside))
        elif x > 0:
            mark = {"edgecolor": "black", "linewidth": 1.8}
            ax.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, **mark, **inside))
        dark = significant[i, j] and abs(x) > 0.36 * largest  # 0.6 of the colour scale
        colour = "white" if dark else "black"
        box = None if significant[i, j] else {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        text = f"{x:+.2f}".replace("0.", ".", 1)
        place = {"ha": "center", "va": "center", "fontsize": 6.5}
        ax.text(j, i, text, color=colour, bbox=box, **place, **inside)
    for spine in ax.spines.values():
        spine.set_visible(True)
    return image
