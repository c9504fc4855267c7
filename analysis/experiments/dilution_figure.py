"""The figure of the dilution experiment: needle mass and effective support by schedule, freezing, and the critical tau."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.draw.figures import SCHEDULE_STYLE, new_figure

_KIND_STYLE = {
    "equal": {"color": "#222222", "linestyle": "-", "marker": "o"},
    "bounded": {"color": "#0072b2", "linestyle": "--", "marker": "s"},
    "gaussian": {"color": "#d55e00", "linestyle": "-.", "marker": "^"},
}
_COUNT_STYLE = (
    {"color": "#b39ddb", "linestyle": ":", "marker": "o"},
    {"color": "#7e57c2", "linestyle": "--", "marker": "s"},
    {"color": "#311b92", "linestyle": "-.", "marker": "^"},
)
_LEAST_MASS = 1e-6  # the bottom of the axis


def draw(config: Any, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is measured or estimated here."""
    figure = new_figure(13.0, 8.0)
    axes = figure.subplots(2, 3)
    m = int(dataset["needles"][0])
    titles = {
        "equal": "equal distractors",
        "bounded": f"bounded distractors: uniform on [-{config.bound:g}, {config.bound:g}]",
        "gaussian": f"Gaussian distractors, s = {config.deviation:g}",
    }
    for ax, (kind, title) in zip(axes[0], titles.items(), strict=True):
        _draw_mass(ax, dataset, kind, config)
        ax.set(title=title, xlabel="number of keys n", ylabel=f"attention on {m} needle(s)" if kind == "equal" else "")
    _draw_support(axes[1, 0], dataset, config)
    _draw_freezing(axes[1, 1], dataset)
    _draw_critical(axes[1, 2], dataset, config)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    figure.suptitle(
        f"needle logit g = {config.gap:g} above the mean distractor; schedules at their starting parameters (yarn: trained "
        f"to {config.trained_length}; power: exponent {config.power_exponent:g})\n"
        f"lines: exact expectation; points: mean and 95 % interval over {config.seeds} seeds",
        fontsize=10,
    )
    return figure


def _draw_mass(ax: Axes, dataset: xr.Dataset, kind: str, config: Any) -> None:
    n = dataset["length"].values
    shown = dataset.sel(kind=kind).isel(needles=0)
    for schedule in dataset["schedule"].values:
        one, style = shown.sel(schedule=schedule), SCHEDULE_STYLE[schedule]
        line = {k: style[k] for k in ("color", "linestyle")}
        ax.plot(n, one["needle_mass_theory"], linewidth=1.3, **line)
        _points(ax, n, one["needle_mass_band"], style)
        ax.plot([], [], label=schedule, markersize=4.5, **style)
        if kind == "bounded" and schedule in ("constant", "yarn"):
            lower, upper = (one["needle_mass_bound"].sel(bound=b) for b in ("lower", "upper"))
            ax.fill_between(n, lower, upper, color=style["color"], alpha=0.15, linewidth=0)
        if kind == "gaussian" and schedule == "ssa":
            ax.plot(n, one["needle_mass_rem"], color=style["color"], linewidth=0.8)
    if kind == "bounded":
        ax.text(0.03, 0.03, "shaded: certified bounds\n(constant, yarn)", transform=ax.transAxes, fontsize=8)
    if kind == "gaussian":
        ax.text(0.03, 0.03, "thin line: ssa by the\nrandom-energy model", transform=ax.transAxes, fontsize=8)
        _mark_sinking(ax, n, config, 0.06)
    ax.set(xscale="log", yscale="log", ylim=(_LEAST_MASS, 2))


def _mark_sinking(ax: Axes, n: np.ndarray, config: Any, height: float = 0.985) -> None:
    """The number of keys from which the largest Gaussian distractor lies, to leading order, above the needles."""
    exponent = (config.gap / config.deviation) ** 2 / 2
    if np.log(n[0]) < exponent < np.log(n[-1]):
        ax.axvline(np.exp(exponent), color="#888888", linewidth=0.8, zorder=0)
        place = (np.exp(exponent) * 1.12, height)
        ax.text(
            *place, r"$g = s\sqrt{2\log n}$", transform=ax.get_xaxis_transform(), fontsize=8, color="#555555", va="top"
        )


def _draw_support(ax: Axes, dataset: xr.Dataset, config: Any) -> None:
    n = dataset["length"].values
    shown = dataset.sel(kind="gaussian").isel(needles=0)
    ax.plot(n, n, color="#bbbbbb", linewidth=2.5, zorder=0)
    ax.annotate("n (uniform)", (n[-1], n[-1]), (-8, 0), textcoords="offset points", ha="right", va="center", fontsize=8)
    for schedule in dataset["schedule"].values:
        one, style = shown.sel(schedule=schedule), SCHEDULE_STYLE[schedule]
        ax.plot(n, np.exp(one["entropy_theory"]), color=style["color"], linestyle=style["linestyle"], linewidth=1.3)
        _points(ax, n, np.exp(one["entropy_band"]), style)
    _mark_sinking(ax, n, config)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="number of keys n",
        ylabel="effective support, exp(mean entropy)",
        title="effective support, Gaussian distractors",
    )


def _draw_freezing(ax: Axes, dataset: xr.Dataset) -> None:
    fine = np.linspace(0, float(dataset["scaled_tau"].max()), 201)
    ax.plot(fine, 1 + fine**2, color="#888888", linewidth=0.8, linestyle=":", label="without freezing")
    ax.plot(fine, np.where(fine <= 1, 1 + fine**2, 2 * fine), color="#222222", label="random-energy model")
    x = dataset["scaled_tau"].values
    for i, count in enumerate(dataset["freezing_length"].values):
        one, log_count = dataset.sel(freezing_length=count), np.log(count)
        style = _COUNT_STYLE[i % len(_COUNT_STYLE)]
        line = {k: style[k] for k in ("color", "linestyle")}
        ax.plot(x, one["log_partition_theory"] / log_count, linewidth=1.3, **line)
        _points(ax, x, one["log_partition_band"] / log_count, style)
        ax.plot([], [], label=f"N = {count:,}", markersize=4.5, **style)
    ax.axvline(1, color="#888888", linewidth=0.8, zorder=0)
    ax.set(
        xlabel=r"$\tau\, s\, /\, \sqrt{2 \log N}$",
        ylabel=r"$\log Z\, /\, \log N$",
        title="freezing of N Gaussian distractors",
        ylim=(0.8, 4.6),
    )
    ax.legend(fontsize=8, loc="upper left")


def _draw_critical(ax: Axes, dataset: xr.Dataset, config: Any) -> None:
    """Critical tau by kind, for the first two numbers of needles; a median that is infinite is not drawn."""
    n = dataset["length"].values
    theory, measured = dataset["critical_inverse_temperature_theory"], dataset["critical_inverse_temperature_median"]
    for kind, style in _KIND_STYLE.items():
        line = {k: style[k] for k in ("color", "linestyle")}
        for j in range(min(2, dataset.sizes["needles"])):
            lower, upper = (theory.sel(kind=kind, bound=b).isel(needles=j).values for b in ("lower", "upper"))
            if kind == "bounded" and j == 0 and np.isfinite(upper).all():
                ax.fill_between(n, lower, upper, color=style["color"], alpha=0.15, linewidth=0)
            if kind != "bounded":
                ax.plot(n, np.where(np.isfinite(lower), lower, np.nan), linewidth=(1.5, 0.8)[j], **line)
            points = measured.sel(kind=kind).isel(needles=j).values
            fill = style["color"] if j == 0 else "none"
            finite = np.isfinite(points)
            marks = {"marker": style["marker"], "color": style["color"], "markerfacecolor": fill, "markersize": 4.5}
            ax.plot(n[finite], points[finite], linestyle="none", **marks)
        ax.plot([], [], label=_KIND_LABEL[kind], markersize=4.5, **style)
    for schedule in ("constant", "ssa"):
        if schedule in dataset["schedule"]:
            tau = dataset["inverse_temperature"].sel(schedule=schedule).values
            ax.plot(n, tau, color="#888888", linewidth=1, linestyle=":")
            ax.annotate(
                f"tau(n) of {schedule}", (n[-1], tau[-1]), (0, 3), textcoords="offset points", ha="right", fontsize=8
            )
    needles = " and ".join(
        f"{m} ({how})" for m, how in zip(dataset["needles"].values[:2], ("filled", "hollow"), strict=False)
    )
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="number of keys n",
        ylabel="inverse temperature tau (points: median)",
        ylim=(None, 30),
        title=f"critical tau for mass {config.target_mass:g}, m = {needles}",
    )
    _mark_sinking(ax, n, config)
    ax.legend(fontsize=8, loc="lower right")


_KIND_LABEL = {
    "equal": "equal (line: exact)",
    "bounded": "bounded (shaded: certified)",
    "gaussian": "Gaussian (line: random-energy model)",
}


def _points(ax: Axes, x: np.ndarray, band: xr.DataArray, style: dict) -> None:
    """Means as markers with their 95 % intervals."""
    value, low, high = (band.sel(estimate=e).values for e in ("value", "low", "high"))
    spread = np.abs(np.stack([value - low, high - value]))
    marks = {"color": style["color"], "marker": style["marker"], "linestyle": "none", "markersize": 4}
    ax.errorbar(x, value, yerr=spread, elinewidth=1, capsize=2, **marks)
