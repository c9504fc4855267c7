"""The figure of the paper's denoising task."""

from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.draw.figures import (
    draw_each,
    draw_points,
    interval,
    label_axes,
    left_out,
    new_figure,
    spread,
    style,
)
from analysis.experiments.basis_denoise.train import DEFAULT, BasisDenoiseConfig
from ssa_theory.mechanism import VANILLA, known

_LOOKS = {
    "naive": ("mean token", "#999999", (0, (1, 1))),
    "threshold": ("threshold at 1/2", "#b15928", "--"),
    "oracle": ("oracle mean", "#6a3d9a", "-."),
    "bayes": ("Bayes", "#000000", "-"),
}
_RISK = "risk of the normalised output"
_NOISE = "noise sigma, per coordinate"


def draw(config: BasisDenoiseConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    figure = new_figure(16.0, 8.4)
    axes = figure.subplots(2, 3)
    _draw_table(axes[0, 0], dataset)
    _draw_sweep(axes[0, 1], dataset, "noise", "length", float(config.length))
    label_axes(axes[0, 1], _NOISE, title=f"by noise, L = {config.length}")
    _draw_sweep(axes[0, 2], dataset, "length", "noise", config.noise)
    label_axes(axes[0, 2], "tokens L", title=f"by length, sigma = {config.noise:g}")
    axes[0, 2].set_xscale("log", base=2)
    axes[0, 2].xaxis.set_major_formatter("{x:g}")
    _draw_gate(axes[1, 0], dataset, config)
    gates = [m for m in config.swept_mechanisms if known(m).value is not None]
    _draw_grid(axes[1, 1], dataset, [VANILLA], "naive")
    _draw_grid(axes[1, 2], dataset, gates, "threshold")
    handles, labels = axes[0, 1].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles))
    figure.suptitle(
        f"basis vectors in noise: d = K = {config.dim}, each token but the last, which is the query, "
        f"carries the signal with probability {config.relevance:g}; {config.adam}, "
        f"{config.steps} + {config.cooldown_steps} steps of {config.batch_size};\nmeans and 95 % "
        f"intervals over {config.seeds} seeds" + left_out(dataset)
    )
    return figure


def _draw_table(ax: Axes, dataset: xr.Dataset) -> None:
    """Risks at the default, one row an estimator, the largest on top; exact ones as lines too."""
    at = dataset.sel(setting=DEFAULT)
    rows: list[tuple[str, xr.DataArray, dict[str, Any]]] = []
    for name, (label, color, line) in _LOOKS.items():
        band = at[f"{name}_band"]
        ax.axvline(float(band.sel(estimate="value")), color=color, linestyle=line, linewidth=1)
        rows.append((label, band, {"color": color, "marker": "|", "markersize": 10}))
    for name in at["mechanism"].values.tolist():
        one = at.sel(mechanism=name)
        label = f"{name} (+{int(one['added_parameters'])})"
        rows.append((label, one["risk_band"], style(name) | {"markersize": 6}))
    rows = [row for row in rows if np.isfinite(row[1].sel(estimate="value"))]
    rows.sort(key=lambda row: float(row[1].sel(estimate="value")))
    for place, (_, band, own) in enumerate(rows):
        value = float(band.sel(estimate="value"))
        look: dict[str, Any] = {"capsize": 2.5} | own | {"linestyle": "none"}
        ax.errorbar(value, place, xerr=np.nan_to_num(spread(band)), **look)
        ax.text(1.01, place, f"{value:.4f}", transform=ax.get_yaxis_transform(), va="center")
    ax.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    title = f"default: L = {int(at['length'])}, sigma = {float(at['noise']):g}"
    label_axes(ax, _RISK, title=title, log="x")


def _draw_sweep(ax: Axes, dataset: xr.Dataset, over: str, fixed: str, value: float) -> None:
    """Risks over one setting, the other at its default, as shares of the mean token's."""
    at = dataset.isel(setting=np.flatnonzero(dataset[fixed].values == value)).sortby(over)
    x, whole = at[over].values, at["naive_band"].sel(estimate="value", drop=True)
    for name, (label, color, line) in _LOOKS.items():
        share = at[f"{name}_band"].sel(estimate="value") / whole
        ax.plot(x, share, color=color, linestyle=line, linewidth=1.3, label=label)
    for name in dataset["mechanism"].values.tolist():
        share = at["risk_band"].sel(mechanism=name) / whole
        if len(x) == 1 or np.isfinite(interval(share)[0]).sum() > 1:
            draw_points(ax, x, share, name, joined=True, linewidth=1)
    ax.set(ylabel="risk / risk of the mean token", ylim=(0, None))


def _draw_grid(ax: Axes, dataset: xr.Dataset, names: list[str], over: str) -> None:
    """Risks of mechanisms over that of an exact estimator by noise, one line a length."""
    lengths = np.unique(dataset["length"])
    for length, shade in zip(lengths, np.linspace(0.8, 0, len(lengths)), strict=True):
        at = dataset.isel(setting=np.flatnonzero(dataset["length"] == length)).sortby("noise")
        share = at["risk_band"] / at[f"{over}_band"].sel(estimate="value", drop=True)
        color = matplotlib.colormaps["viridis"](shade)
        for i, name in enumerate(names):
            band, label = share.sel(mechanism=name), f"L = {length}" if i == 0 else None
            draw_points(ax, at["noise"].values, band, name, joined=True, color=color, label=label)
    label, color, line = _LOOKS[over]
    ax.axhline(1, color=color, linestyle=line)
    title = f"{', '.join(names)}: every length and noise"
    label_axes(ax, _NOISE, f"risk / risk of the {label}", title)
    ax.legend(fontsize=8)


def _draw_gate(ax: Axes, dataset: xr.Dataset, config: BasisDenoiseConfig) -> None:
    """Learned value temperatures by the largest coordinate of a token, and the hard threshold."""
    x = dataset["peak"].values
    _, color, line = _LOOKS["threshold"]
    ax.step([x[0], 0.5, x[-1]], [0, 1, 1], where="post", color=color, linestyle=line)
    draw_each(draw_points, ax, x, dataset["gate_band"].dropna("mechanism", how="all"), joined=True)
    ax.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    title = f"value temperature, L = {config.length}, sigma = {config.noise:g}"
    y = "learned tau_v / its mean over signal tokens"
    label_axes(ax, "largest coordinate of a token", y, title)
    ax.legend(loc="lower right")
