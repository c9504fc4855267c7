"""The figure of the denoising experiment: every method, the sweep of s_noise, the learned gate."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.draw.figures import (
    draw_band,
    draw_points,
    interval,
    label_axes,
    left_out,
    new_figure,
    style,
)
from analysis.experiments.denoise.train import CURVES, DenoiseConfig

BASELINES = {
    "naive": "mean token",
    "shrunk": "best multiple of the mean",
    "threshold": "best norm threshold",
    "additive": "best additive (bounds value gates)",
    "bayes": "Bayes",
    "oracle": "oracle (relevance known)",
}
_LINES = (("#999999", (0, (1, 1))), ("#555555", "--"), ("#000000", "-"), ("#777777", "-."))
_LEGEND = {"fontsize": 7.5, "loc": "upper center", "ncols": 2}
_ERROR = "mean squared error per coordinate"


def draw(config: DenoiseConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    figure = new_figure(16.0, 6.0)
    bars, sweep, gate = figure.subplots(1, 3, width_ratios=(1.15, 1.2, 1.1))
    _draw_bars(bars, dataset)
    _draw_sweep(sweep, dataset, config.no_information)
    _draw_gate(gate, dataset)
    figure.suptitle(
        f"denoising: d = {config.dim}, {config.length} tokens, each relevant with probability "
        f"{config.relevance:g}, s_y = {config.prior_scale:g}, s_signal = {config.signal_noise:g}, "
        f"{config.query} query, {config.adam}, {config.steps} + "
        f"{config.cooldown_steps} steps of {config.batch_size};\nmeans and 95 % intervals over "
        f"{config.seeds} seeds" + left_out(dataset)
    )
    return figure


def _draw_bars(ax: Axes, dataset: xr.Dataset) -> None:
    """Mean squared error at the default, ordered; baselines hatched, learned models solid."""
    at = dataset.sel(setting="default")
    rows = []
    for name, label in BASELINES.items():
        value, error = float(at[name]), float(at["bayes_error"]) if name == "bayes" else 0.0
        rows.append((value, value - 1.96 * error, value + 1.96 * error, label, True))
    names = at["mechanism"].values.tolist()
    learned = zip(*interval(at["mse_band"]), names, strict=True)
    rows += [(*numbers, name, False) for *numbers, name in learned if np.isfinite(numbers[0])]
    rows.sort(key=lambda row: row[0])
    right, labelled = rows[-1][0], set()
    for place, (value, low, high, _, baseline) in reversed(list(enumerate(rows))):
        look: dict[str, Any] = {"facecolor": "#9ecae1"}
        if baseline:
            look = {"facecolor": "white", "hatch": "////"}
        label = "baseline, closed form (Bayes: Monte Carlo)" if baseline else "learned"
        look["label"] = None if label in labelled else label
        labelled.add(label)
        ax.barh(place, value, height=0.72, edgecolor="#444444", linewidth=0.8, **look)
        if high > low:
            ends = [[value - low], [high - value]]
            ax.errorbar(value, place, xerr=ends, color="black", capsize=2.5, elinewidth=1.2)
        ax.text(np.fmax(value, high) + 0.015 * right, place, f"{value:.3f}", va="center")
    ax.set_yticks(range(len(rows))[::-1], [row[3] for row in reversed(rows)])
    ax.set_xlim(0, 1.14 * right)
    label_axes(ax, _ERROR, title=f"s_noise = {float(at['filler_noise']):g} (default)")
    ax.legend(bbox_to_anchor=(0.3, -0.14), **_LEGEND)


def _draw_sweep(ax: Axes, dataset: xr.Dataset, no_information: float) -> None:
    """Error against s_noise: closed forms as lines, Bayes and learned models as points."""
    x = dataset["curve_filler_noise"].values
    for name, (color, line) in zip(CURVES, _LINES, strict=True):
        look = {"color": color, "linestyle": line, "linewidth": 1.3}
        ax.plot(x, dataset[f"{name}_curve"].values, label=BASELINES[name], **look)
    noise = dataset["filler_noise"].values
    bayes, error = dataset["bayes"].values, 1.96 * dataset["bayes_error"].values
    look = {"color": "black", "marker": "*", "markersize": 9, "linestyle": "none", "capsize": 2}
    ax.errorbar(noise, bayes, yerr=error, label="Bayes (exact, Monte Carlo)", **look)
    for name in dataset["mechanism"].values.tolist():
        band = dataset["mse_band"].sel(mechanism=name)
        shown = np.isfinite(interval(band)[0])
        if shown.sum() > 1:  # trained over the sweep
            look = {"markersize": 7, "elinewidth": 1.5, "markeredgecolor": "white"}
            look |= {"markeredgewidth": 0.6, "label": f"{name}, learned"}
            draw_points(ax, noise[shown], band[shown], name, **look)
    ax.axvline(no_information, color="#bbbbbb", linewidth=1, zorder=0)
    label = (
        "grey line: s_noise² = s_y² + s_signal².\nAll tokens have one law there, norms carry\n"
        "no information: a value gate cannot gain."
    )
    box = {"facecolor": "white", "edgecolor": "#bbbbbb", "pad": 2.5}
    ax.text(0.03, 0.98, label, transform=ax.transAxes, fontsize=8, va="top", bbox=box)
    ax.set_ylim(0, 1.2 * float(dataset["shrunk_curve"].max()))
    title = "error by s_noise: theory (lines), learned (points)"
    label_axes(ax, "s_noise, standard deviation of the fillers", _ERROR, title)
    ax.legend(bbox_to_anchor=(0.5, -0.14), **_LEGEND)


def _draw_gate(ax: Axes, dataset: xr.Dataset) -> None:
    """The learned value gate against the norm of a token, beside what the norm says."""
    x, best = dataset["norm"].values, dataset["additive_gate"].values
    relevance = dataset["relevance_by_norm"].values
    ax.plot(x, relevance, color="black", linewidth=2.2, label="P(relevant | norm), pi(r)")
    look = {"color": "#777777", "linestyle": "--", "linewidth": 2.2}
    ax.plot(x, best / best.max(), label="best additive h(r), scaled to 1", **look)
    for name in dataset["mechanism"].values.tolist():
        band = dataset["gate_by_norm_band"].sel(mechanism=name)
        if np.isfinite(band).any():
            look = {"marker": style(name)["marker"], "markevery": 3, "markersize": 5}
            draw_band(ax, x, band, name, label=f"{name}, learned", **look)
    ax.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    y, title = "learned gate tau_v; probability", "value gate by norm (default)"
    label_axes(ax, "norm of the token", y, title)
    ax.legend(bbox_to_anchor=(0.5, -0.14), **_LEGEND)
