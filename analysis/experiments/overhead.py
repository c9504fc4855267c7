"""How many parameters does selective attention add to real architectures? Counted, not trained."""

from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from pydantic import Field

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.draw.figures import label_axes, new_figure
from analysis.experiments.base import Experiment, Progress
from analysis.store.config import ExperimentConfig
from ssa_theory import SelfAttention
from ssa_theory.mechanism import MECHANISMS, Mechanism
from ssa_theory.mechanism.scores import MLP
from ssa_theory.mechanism.temperature import Selective
from ssa_theory.parameters import ARCHITECTURES, Architecture, added_parameters

LIMIT = 0.5  # percent: the paper's bound on what weight sharing adds
WIDTHS = 2 ** np.arange(11)
"""Hidden widths of the figure's curves, 1 to 1024."""
FORMS = ("shared", "unshared", "head-wide")
"""Weights shared with the layer's projections; an MLP of its own for each temperature; the same,
d_k hidden units wide.
"""
_STYLE: dict[str, dict[str, Any]] = {
    "shared": {"color": "#d55e00", "marker": "s"},
    "unshared": {"color": "#009e73", "marker": "D"},
    "head-wide": {"color": "#0072b2", "marker": "o"},
}
_COLOURS = ("#222222", "#56b4e9", "#0072b2", "#e69f00", "#cc79a7")
_ADDED = "added parameters (percent of the model)"
Number = float | int
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


class OverheadConfig(ExperimentConfig):
    """Count the parameters that query and value temperatures add to published models; nothing is
    random or trained.
    """

    width: int = Field(
        16, ge=1, le=1_000_000, description="hidden units of the own MLP of each temperature"
    )


def train(config: OverheadConfig, progress: Progress) -> xr.Dataset:
    """Count every model in every form of the temperatures, by formula and on the built layer."""
    advance = progress("counting parameters", len(ARCHITECTURES))
    rows = []
    for architecture in ARCHITECTURES.values():
        rows.append(_count(architecture, config.width))
        advance(1)
    coords = {"model": list(ARCHITECTURES), "form": list(FORMS), "width": WIDTHS}
    dataset = xr.Dataset(coords=coords)
    for name, (dims, about) in _COUNTED.items():
        values = np.array([row[name] for row in rows])
        dataset[name] = (("model", *dims), values, {"description": about})
    for name in ("layers", "dim", "heads", "kv_heads", "feed_forward", "vocabulary"):
        values = [getattr(a, name) for a in ARCHITECTURES.values()]
        about = f"{name.replace('_', ' ')} of the published model"
        dataset[name] = ("model", values, {"description": about})
    return dataset


_FORM = ("form",)
_COUNTED = {
    "parameters": ((), "parameters of the published model"),
    "hidden_width": (_FORM, "hidden units of the MLP of each temperature; 0 where there is none"),
    "added_parameters": (
        _FORM,
        "parameters that query and value temperatures add to all layers, by formula",
    ),
    "added_by_layer": (
        _FORM,
        "the same counted on a built layer; NaN where queries share keys and values, which it has "
        "no form for",
    ),
    "percent": (_FORM, "added_parameters in percent of parameters"),
    "percent_by_width": (("width",), "the same in percent for an own MLP, by its hidden width"),
    "largest_width": (
        (),
        "largest hidden width of an own MLP that stays within 0.5 percent; 0: none does",
    ),
}


def own_mlps(width: int) -> Mechanism:
    """SSA with an MLP of its own, of that many hidden units, in each of its two temperatures."""
    temperature = Selective(MLP(width=width))
    return Mechanism(f"ssa-mlp-{width}", query=temperature, value=temperature)


def _count(architecture: Architecture, width: int) -> dict[str, object]:
    """The row of one model in `_COUNTED`."""
    total = architecture.parameters()

    def own(width: int) -> int:
        return added_parameters(architecture, own_mlps(width))

    forms = [MECHANISMS["ssa"], own_mlps(width), own_mlps(architecture.head_dim)]
    added = [added_parameters(architecture, form) for form in forms]
    return {
        "parameters": total,
        "hidden_width": [0, width, architecture.head_dim],
        "added_parameters": added,
        "added_by_layer": [_added_by_layer(architecture, form) for form in forms],
        "percent": [100 * n / total for n in added],
        "percent_by_width": [100 * own(int(w)) / total for w in WIDTHS],
        # What an MLP adds is a line in its width, so two points give the width at the limit.
        "largest_width": max(0, int(1 + (LIMIT / 100 * total - own(1)) // (own(2) - own(1)))),
    }


def _added_by_layer(architecture: Architecture, form: Mechanism) -> float:
    if architecture.kv_heads != architecture.heads:
        return np.nan
    with torch.device("meta"):
        layer = SelfAttention(architecture.dim, architecture.heads, form)
    return float(architecture.layers * layer.added_parameters())


def judge(config: OverheadConfig, dataset: xr.Dataset) -> list[Claim]:
    """One test a model and form, and the agreement of the formula with the built layers."""
    lines = Lines("overhead", 1)
    temperatures = {
        "shared": "shared weights",
        "unshared": f"MLPs of {config.width} units",
        "head-wide": "MLPs as wide as a head",
    }
    for form, level in temperatures.items():
        for name in map(str, dataset["model"].values):
            one = dataset.sel(model=name, form=form)
            cell, pair = {"model": name, "temperatures": level}, (float(one["percent"]), LIMIT)
            added = f"{int(one['added_parameters']):,} added to {int(one['parameters']):,}"
            what = f"{added}, query and value temperatures, in percent, against {LIMIT:g}"
            lines.exactly("overhead", cell, "parameters", pair, what)
    sentence = (
        "the counts by formula are those of the built layers, wherever the layer fits the model"
    )
    what = "largest difference in parameters over models and forms"
    apart = float(abs(dataset["added_parameters"] - dataset["added_by_layer"]).max())
    lines.check("formula", sentence, what, "<", 1, apart)
    return lines.claims


def draw(config: OverheadConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is counted here."""
    figure = new_figure(12.0, 4.8)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _draw_forms(left, dataset, config.width)
    _draw_widths(right, dataset, config.width)
    return figure


def _draw_forms(ax: Axes, dataset: xr.Dataset, width: int) -> None:
    labels = {
        "shared": "shared weights: one vector and one alpha a head",
        "unshared": f"own MLP of {width} hidden units for each temperature",
        "head-wide": "own MLP as wide as a head (d_k hidden units)",
    }
    place = np.arange(dataset.sizes["model"])
    for form, style in _STYLE.items():
        x = dataset["percent"].sel(form=form).values
        ax.plot(x, place, linestyle="none", markersize=8, label=labels[form], **style)
        for at in zip(x.tolist(), place.tolist(), strict=True):
            text = _note(ax, f"{at[0]:.3f}", at, (0, 8), "data", ha="center", fontsize=8)
            # Over the line of the limit.
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    totals = dataset["parameters"].values
    names = [f"{n}\n{t / 1e6:,.1f} M" for n, t in zip(dataset["model"].values, totals, strict=True)]
    ax.set_yticks(place, names)
    ax.set(ylim=(len(place) - 0.5, -0.5), xscale="log")
    label_axes(ax, _ADDED, title="query and value temperature in every layer")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.axvline(LIMIT, color="#222222", linewidth=1, linestyle="--")
    _note(ax, f"{LIMIT:g} %", (LIMIT, 0), (3, 4), ("data", "axes fraction"))
    ax.margins(x=0.1)
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13))


def _draw_widths(ax: Axes, dataset: xr.Dataset, width: int) -> None:
    for i, name in enumerate(dataset["model"].values):
        one = dataset.sel(model=name)
        label = f"{name}: {LIMIT:g} % up to {int(one['largest_width'])} hidden units"
        style = {"color": _COLOURS[i % len(_COLOURS)], "linestyle": _LINES[i % len(_LINES)]}
        ax.plot(dataset["width"].values, one["percent_by_width"].values, label=label, **style)
    ax.axhline(LIMIT, color="#222222", linewidth=1, linestyle="--")
    _note(ax, f"{LIMIT:g} %", (0, LIMIT), (4, 3), ("axes fraction", "data"))
    ax.axvline(width, color="#888888", linewidth=0.8)
    _note(ax, f"{width} units", (width, 0), (3, 4), ("data", "axes fraction"))
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    x = "hidden units of the own MLP of each temperature"
    label_axes(ax, x, _ADDED, "own MLP: parameters by hidden width")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:g}")
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13))


def _note(
    ax: Axes, text: str, at: tuple[Number, Number], offset: tuple[int, int], unit: Any, **look: Any
) -> Annotation:
    """Text beside a point; unit: that of its two coordinates. offset: in points."""
    return ax.annotate(text, at, offset, xycoords=unit, textcoords="offset points", **look)


OVERHEAD = Experiment(
    name="overhead",
    question="How many parameters does SSA add to real architectures, with shared weights and with "
    "MLPs of its own?",
    caption="Left: parameters that query and value temperatures add to published models, in percent "
    "on a log axis, with shared weights and with an own MLP for each temperature of each layer; "
    "dashed: 0.5 %. Right: the same for the own MLP by its hidden width. Exact counts from "
    "published shapes.",
    config=OverheadConfig,
    train=train,
    draw=draw,
    judge=judge,
    dimensions={
        "model": "published model, of which the parameters are counted",
        "form": "of the function f in tau",
        "width": "number of hidden units of f",
    },
)
