"""The figure of the phase experiment: maps of the error against vanilla's, and by learning rate."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, Rectangle

from analysis.claims.registry import DELTA
from analysis.draw.figures import left_out, new_figure, style
from analysis.experiments.mechanisms import SELECTIVE
from analysis.experiments.phase.train import PhaseConfig
from ssa_theory.mechanism import VANILLA

_LABEL = {"l1_error": "L1 error", "cross_entropy_gap": "cross-entropy"}


def draw(config: PhaseConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    selective = [str(name) for name in dataset["selective"].values]
    shown = SELECTIVE if SELECTIVE in selective else selective[0]
    pooled = dataset["log_ratio"].mean("family")
    by_family = dataset["log_ratio"].sel(measure="l1_error", selective=shown)
    over_all = [("l1_error", name) for name in selective] + [("cross_entropy_gap", shown)]
    columns = {
        f"all families\n{name}, {_LABEL[measure]}": pooled.sel(measure=measure, selective=name)
        for measure, name in over_all
    } | {
        f"{family}\n{shown}, {_LABEL['l1_error']}": by_family.sel(family=family)
        for family in dataset["family"].values
    }
    steps = dataset["step"].values
    figure = new_figure(15.0, 4.6 + 1.9 * len(steps))
    grid = figure.add_gridspec(2, 1, height_ratios=(1.0 + 1.9 * len(steps), 2.8))
    upper, lower = (figure.add_subfigure(part) for part in grid)
    axes = upper.subplots(len(steps), len(columns), squeeze=False, sharex=True, sharey=True)
    images = []
    for j, (title, maps) in enumerate(columns.items()):
        for ax, step in zip(axes[:, j], steps, strict=True):
            images.append(_draw_map(ax, maps.sel(step=step)))
        bold = "bold" if title.startswith("all") else "normal"
        axes[0, j].set_title(title, fontweight=bold, fontsize=8)
    for ax in axes[-1]:
        places = [f"{d}/{config.nodes}" for d in dataset["dim"].values]
        ax.set_xticks(range(len(places)), places, fontsize=7)
        ax.set_xlabel("d / K", fontsize=8, labelpad=1)
    for ax, step in zip(axes[:, 0], steps, strict=True):
        places = [f"{s:g}" for s in dataset["similarity"].values]
        ax.set_yticks(range(len(places)), places, fontsize=8)
        ax.set_ylabel(f"step {step}\nsimilarity")
    label = "error against vanilla's (percent)"
    bar = upper.colorbar(images[-1], ax=axes, label=label, pad=0.01, aspect=40, fraction=0.02)
    bar.set_ticks(_TICKS.tolist(), labels=[f"{100 * np.expm1(t):+.0f}" for t in _TICKS])
    handles = [
        Patch(facecolor="white", edgecolor="#777777", hatch="////", label="within 5 %"),
        Patch(facecolor="white", edgecolor="black", linewidth=2, label="vanilla better by 5 %"),
        Patch(facecolor="#6a9fca", label="blue: the mechanism is better"),
    ]
    upper.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
    _draw_rates(lower, dataset)
    reporting = int(dataset["reporting"].sum())
    figure.suptitle(
        f"{int(dataset['models']):,} trained models: {dataset.sizes['mechanism']} mechanisms, "
        f"K = {config.nodes}, exact loss, Adam at each mechanism's best of "
        f"{len(config.learning_rates)} rates; geometric means over {reporting} seeds, paired"
        f"{left_out(dataset)}",
        fontsize=10.5,
    )
    return figure


_LARGEST = float(np.log(8))
"""Of a log ratio: further out the colour stays the same."""
_TICKS = np.log([1 / 8, 1 / 4, 1 / 2, 0.8, 1, 1.25, 2, 4, 8])


def _draw_rates(figure: SubFigure, dataset: xr.Dataset) -> None:
    """The sensitivity strip: the effect by learning rate, both at the same, for every step."""
    axes = figure.subplots(1, dataset.sizes["step"], sharey=True, squeeze=False)[0]
    by_rate = dataset["log_ratio_by_rate"].sel(measure="l1_error")
    rates = dataset["learning_rate"].values
    for ax, step in zip(axes, dataset["step"].values, strict=True):
        for name in map(str, dataset["selective"].values):
            value = np.exp(by_rate.sel(selective=name, step=step).values)
            ax.plot(rates, value, label=name, **style(name))
        ax.axhline(1, color=style(VANILLA)["color"], linewidth=1)
        ax.set(xscale="log", xlabel="learning rate of both")
        ax.set_title(f"step {step}", fontsize=9)
        ax.set_xticks(rates, [f"{r:g}" for r in rates])
        ax.minorticks_off()
    axes[0].set_ylabel("median L1 error\nover vanilla's")
    axes[-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def _draw_map(ax: Axes, cells: xr.DataArray) -> AxesImage:
    """One map (similarity, dim): a colour, a number and a mark of its side in every cell."""
    value = cells.transpose("similarity", "dim").values
    limits: dict[str, Any] = {"vmin": -_LARGEST, "vmax": _LARGEST}
    limits |= {"origin": "lower", "interpolation": "nearest"}
    image = ax.imshow(value, cmap="RdBu_r", aspect="auto", **limits)
    # Hundreds of small artists within their axes, which the layout need not measure.
    inside: dict[str, Any] = {"in_layout": False}
    for (i, j), x in np.ndenumerate(value):
        if not abs(x) > DELTA:
            mark: dict[str, Any] = {"hatch": "////", "edgecolor": "#999999", "linewidth": 0}
            ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, **mark, **inside))
        elif x > 0:
            mark = {"edgecolor": "black", "linewidth": 1.8}
            ax.add_patch(Rectangle((j - 0.46, i - 0.46), 0.92, 0.92, fill=False, **mark, **inside))
        colour = "white" if abs(x) > 0.6 * _LARGEST else "black"
        box = None if abs(x) > DELTA else {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        place = {"ha": "center", "va": "center", "fontsize": 6}
        ax.text(j, i, _percent(x), color=colour, bbox=box, **place, **inside)
    for spine in ax.spines.values():
        spine.set_visible(True)
    return image


def _percent(log_ratio: float) -> str:
    """A ratio as what it takes away or adds; beyond three times as a factor."""
    ratio = np.exp(log_ratio)
    return "–" if np.isnan(ratio) else f"×{ratio:.0f}" if ratio > 3 else f"{100 * (ratio - 1):+.0f}"
