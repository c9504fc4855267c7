"""The figure of the dilution experiment: needle mass, support, freezing, and the critical tau."""

from typing import Any, cast

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.draw.figures import draw_points, label_axes, new_figure, style
from analysis.experiments.dilution.config import DilutionConfig
from ssa_theory.mechanism import VANILLA, known
from ssa_theory.mechanism.temperature import Selective

_LAWS = {
    "equal": ("#222222", "-", "o", "equal (line: exact)"),
    "bounded": ("#0072b2", "--", "s", "bounded (shaded: certified)"),
    "gaussian": ("#d55e00", "-.", "^", "Gaussian (line: random-energy model)"),
}
_COUNTS = (("#b39ddb", ":", "o"), ("#7e57c2", "--", "s"), ("#311b92", "-.", "^"))
_KEYS = "number of keys n"
_LEAST_MASS = 1e-6  # the bottom of the axis


def draw(config: DilutionConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is measured or estimated here."""
    figure = new_figure(13.0, 8.0)
    axes = figure.subplots(2, 3)
    titles = {
        "equal": "equal distractors",
        "bounded": f"bounded distractors: uniform on [-{config.bound:g}, {config.bound:g}]",
        "gaussian": f"Gaussian distractors, s = {config.deviation:g}",
    }
    for ax, (law, title) in zip(axes[0], titles.items(), strict=True):
        _draw_mass(ax, dataset, law)
        label_axes(ax, _KEYS, title=title)
    axes[0, 0].set_ylabel(f"attention on {config.needles[0]} needle(s)")
    _draw_support(axes[1, 0], dataset)
    _draw_freezing(axes[1, 1], dataset)
    _draw_critical(axes[1, 2], dataset, config)
    for ax, height in ((axes[0, 2], 0.06), (axes[1, 0], 0.985), (axes[1, 2], 0.985)):
        _mark_sinking(ax, config, height)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 9))
    figure.suptitle(
        f"needle logit g = {config.gap:g} above the mean distractor; mechanisms at their starting "
        f"parameters (yarn: trained to {config.trained_length}; power: exponent "
        f"{config.power_exponent:g})\nlines: exact expectation; points: mean and 95 % interval "
        f"over {config.seeds} seeds",
        fontsize=10,
    )
    return figure


def _line(name: str, **extra: Any) -> dict[str, Any]:
    look = style(name)
    return {"color": look["color"], "linestyle": look["linestyle"], "linewidth": 1.3} | extra


def _draw_mass(ax: Axes, dataset: xr.Dataset, law: str) -> None:
    n, shown = dataset["length"].values, dataset.sel(law=law).isel(needles=0)
    for name in dataset["mechanism"].values:
        one = shown.sel(mechanism=name)
        ax.plot(n, one["needle_mass_theory"], **_line(name))
        draw_points(ax, n, one["needle_mass_band"], name, label=None, markersize=4)
        ax.plot([], [], label=name, markersize=4.5, **style(name))
        if law == "bounded":
            lower, upper = (one["needle_mass_bound"].sel(bound=b) for b in ("lower", "upper"))
            ax.fill_between(n, lower, upper, color=style(name)["color"], alpha=0.12, linewidth=0)
    note = "shaded: certified bounds" if law == "bounded" else ""
    if law == "gaussian" and (selective := _selective(dataset)):
        for name in selective:
            rem = shown["needle_mass_rem"].sel(mechanism=name)
            ax.plot(n, rem, **_line(name, linewidth=0.8, linestyle="-"))
        note = f"thin line: {', '.join(selective)} by\nthe random-energy model"
    ax.text(0.03, 0.03, note, transform=ax.transAxes, fontsize=8)
    ax.set(xscale="log", yscale="log", ylim=(_LEAST_MASS, 2))


def _selective(dataset: xr.Dataset) -> list[str]:
    """The mechanisms with a temperature of SSA's form."""
    names = [str(name) for name in dataset["mechanism"].values]
    return [name for name in names if isinstance(known(name).query, Selective)]


def _mark_sinking(ax: Axes, config: DilutionConfig, height: float) -> None:
    """The n from which the largest Gaussian distractor is, to leading order, above the needles."""
    n, exponent = config.lengths, (config.gap / config.deviation) ** 2 / 2
    if np.log(n[0]) < exponent < np.log(n[-1]):
        ax.axvline(np.exp(exponent), color="#888888", linewidth=0.8, zorder=0)
        place = (np.exp(exponent) * 1.12, height)
        look = {"fontsize": 8, "color": "#555555", "va": "top"}
        ax.text(*place, r"$g = s\sqrt{2\log n}$", transform=ax.get_xaxis_transform(), **look)


def _draw_support(ax: Axes, dataset: xr.Dataset) -> None:
    n, shown = dataset["length"].values, dataset.sel(law="gaussian").isel(needles=0)
    ax.plot(n, n, color="#bbbbbb", linewidth=2.5, zorder=0)
    look = {"textcoords": "offset points", "ha": "right", "va": "center", "fontsize": 8}
    ax.annotate("n (uniform)", (n[-1], n[-1]), (-8, 0), **look)
    for name in dataset["mechanism"].values:
        one = shown.sel(mechanism=name)
        ax.plot(n, np.exp(one["entropy_theory"]), **_line(name))
        support = cast(xr.DataArray, np.exp(one["entropy_band"]))  # numpy does not say so
        draw_points(ax, n, support, name, markersize=4)
    ax.set(xscale="log", yscale="log")
    title = "effective support, Gaussian distractors"
    label_axes(ax, _KEYS, "effective support, exp(mean entropy)", title)


def _draw_freezing(ax: Axes, dataset: xr.Dataset) -> None:
    fine = np.linspace(0, float(dataset["scaled_tau"].max()), 201)
    plain, model = 1 + fine**2, np.where(fine <= 1, 1 + fine**2, 2 * fine)
    ax.plot(fine, plain, color="#888888", linewidth=0.8, linestyle=":", label="without freezing")
    ax.plot(fine, model, color="#222222", label="random-energy model")
    x = dataset["scaled_tau"].values
    for i, count in enumerate(dataset["freezing_length"].values):
        one, log_count = dataset.sel(freezing_length=count), np.log(count)
        color, line, marker = _COUNTS[i % len(_COUNTS)]
        look: dict[str, Any] = {"color": color, "linestyle": line}
        ax.plot(x, one["log_partition_theory"] / log_count, linewidth=1.3, **look)
        points = {"color": color, "marker": marker, "label": None, "markersize": 4}
        draw_points(ax, x, one["log_partition_band"] / log_count, VANILLA, **points)
        ax.plot([], [], label=f"N = {count:,}", markersize=4.5, marker=marker, **look)
    ax.axvline(1, color="#888888", linewidth=0.8, zorder=0)
    ax.set_ylim(0.8, 4.6)
    x, y = r"$\tau\, s\, /\, \sqrt{2 \log N}$", r"$\log Z\, /\, \log N$"
    label_axes(ax, x, y, "freezing of N Gaussian distractors")
    ax.legend(fontsize=8, loc="upper left")


def _draw_critical(ax: Axes, dataset: xr.Dataset, config: DilutionConfig) -> None:
    """Critical tau by law, for two numbers of needles; an infinite median is not drawn."""
    n, needles = dataset["length"].values, config.needles[:2]
    theory = dataset["critical_inverse_temperature_theory"]
    measured = dataset["critical_inverse_temperature_median"]
    for law, (color, line, marker, label) in _LAWS.items():
        look: dict[str, Any] = {"color": color, "linestyle": line}
        for j, m in enumerate(needles):
            limits = theory.sel(law=law, needles=m)
            lower, upper = (limits.sel(bound=b).values for b in ("lower", "upper"))
            if law == "bounded" and j == 0 and np.isfinite(upper).all():
                ax.fill_between(n, lower, upper, color=color, alpha=0.15, linewidth=0)
            if law != "bounded":
                shown = np.where(np.isfinite(lower), lower, np.nan)
                ax.plot(n, shown, linewidth=(1.5, 0.8)[j], **look)
            points = measured.sel(law=law, needles=m).values
            finite, fill = np.isfinite(points), (color, "none")[j]
            marks: dict[str, Any] = {"marker": marker, "markerfacecolor": fill, "color": color}
            ax.plot(n[finite], points[finite], linestyle="none", markersize=4.5, **marks)
        ax.plot([], [], label=label, markersize=4.5, marker=marker, **look)
    names = [str(name) for name in dataset["mechanism"].values]
    plain = [name for name in names if known(name).query is None]
    for name in plain + _selective(dataset):
        tau = dataset["inverse_temperature"].sel(mechanism=name).values
        ax.plot(n, tau, color="#888888", linewidth=1, linestyle=":")
        look = {"textcoords": "offset points", "ha": "right", "fontsize": 8}
        ax.annotate(f"tau(n) of {name}", (n[-1], tau[-1]), (0, 3), **look)
    shown = (f"{m} ({how})" for m, how in zip(needles, ("filled", "hollow"), strict=False))
    ax.set(xscale="log", yscale="log", ylim=(None, 30))
    title = f"critical tau for mass {config.target_mass:g}, m = {' and '.join(shown)}"
    label_axes(ax, _KEYS, "inverse temperature tau (points: median)", title)
    ax.legend(fontsize=8, loc="lower right")
