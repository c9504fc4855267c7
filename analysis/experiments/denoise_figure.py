"""The figure of the denoising experiment: every method between naive and Bayes, the sweep of s_noise, the learned gate."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.draw.figures import STYLE, left_out, new_figure

BASELINES = {
    "naive": "mean token",
    "shrunk": "best multiple of the mean",
    "threshold": "best norm threshold",
    "additive": "best additive (bounds value gates)",
    "bayes": "Bayes",
    "oracle": "oracle (relevance known)",
}
_LINES = {
    "naive": ("#999999", (0, (1, 1))),
    "shrunk": ("#555555", "--"),
    "additive": ("#000000", "-"),
    "oracle": ("#777777", "-."),
}
_SHOWN = {
    "vanilla": STYLE["vanilla"],
    "value-additive": STYLE["ssa"],
    "value-sigmoid": STYLE["ssa-free"],
    "sink": STYLE["ssa-mlp"],
    "value-tanh": STYLE["ssa-degree"],
    "query-value": {"color": "#e69f00", "linestyle": (0, (3, 1, 1, 1)), "marker": "P"},
    "query": {"color": "#0072b2", "linestyle": (0, (1, 2)), "marker": "X"},
    "key": {"color": "#8c6d31", "linestyle": (0, (4, 2)), "marker": "<"},
    "key-bias": {"color": "#7b4173", "linestyle": (0, (6, 2, 2, 2)), "marker": ">"},
}


def draw(config: Any, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    figure = new_figure(16.0, 6.0)
    bars, sweep, gate = figure.subplots(1, 3, width_ratios=(1.15, 1.2, 1.1))
    _draw_bars(bars, dataset)
    _draw_sweep(sweep, dataset, config.no_information)
    _draw_gate(gate, dataset)
    figure.suptitle(
        f"denoising: d = {config.dim}, {config.length} tokens, each relevant with probability "
        f"{config.relevance:g}, s_y = {config.prior_scale:g}, s_signal = {config.signal_noise:g}, "
        f"{config.query} query, adam {config.learning_rate:g}, {config.steps} + {config.cooldown_steps} steps "
        f"of {config.batch_size};\nmeans and 95 % intervals over {config.seeds} seeds" + left_out(dataset)
    )
    return figure


def _draw_bars(ax: Axes, dataset: xr.Dataset) -> None:
    """Mean squared error at the default, ordered; baselines light and hatched, learned models solid."""
    at = dataset.sel(setting="default")
    rows = []
    for name, label in BASELINES.items():
        spread = 1.96 * float(at["bayes_error"]) if name == "bayes" else 0.0
        value = float(at[name])
        rows.append((value, value - spread, value + spread, label, True))
    for v in dataset["variant"].values:
        value, low, high = (float(at["mse_band"].sel(variant=v, estimate=e)) for e in ("value", "low", "high"))
        if np.isfinite(value):
            rows.append((value, low, high, str(v), False))
    rows.sort(key=lambda row: -row[0])
    places = np.arange(len(rows))[::-1]
    right = max(row[0] for row in rows)
    for place, (value, low, high, _, baseline) in zip(places, rows, strict=True):
        look = {"facecolor": "white", "hatch": "////"} if baseline else {"facecolor": "#9ecae1"}
        first = not any(p > place and row[4] == baseline for p, row in zip(places, rows, strict=True))
        ax.barh(
            place,
            value,
            height=0.72,
            edgecolor="#444444",
            linewidth=0.8,
            label=("baseline, closed form (Bayes: Monte Carlo)" if baseline else "learned") if first else None,
            **look,
        )
        if np.isfinite([low, high]).all() and high > low:
            ax.errorbar(value, place, xerr=[[value - low], [high - value]], color="black", capsize=2.5, elinewidth=1.2)
        ax.text(max(value, high if np.isfinite(high) else value) + 0.015 * right, place, f"{value:.3f}", va="center")
    ax.set_yticks(places, [row[3] for row in rows])
    ax.set(
        xlim=(0, 1.14 * right),
        xlabel="mean squared error per coordinate",
        title=f"s_noise = {float(at['filler_noise']):g} (default)",
    )
    ax.legend(fontsize=7.5, loc="upper center", bbox_to_anchor=(0.3, -0.14), ncols=2)


def _draw_sweep(ax: Axes, dataset: xr.Dataset, no_information: float) -> None:
    """Error against s_noise: closed forms as lines, Bayes and learned models as points."""
    x = dataset["curve_filler_noise"].values
    for name, (color, style) in _LINES.items():
        ax.plot(x, dataset[f"{name}_curve"].values, color=color, linestyle=style, linewidth=1.3, label=BASELINES[name])
    noise = dataset["filler_noise"].values
    ax.errorbar(
        noise,
        dataset["bayes"].values,
        yerr=1.96 * dataset["bayes_error"].values,
        color="black",
        marker="*",
        markersize=9,
        linestyle="none",
        capsize=2,
        label="Bayes (exact, Monte Carlo)",
    )
    for v in dataset["variant"].values:
        band = dataset["mse_band"].sel(variant=v)
        value, low, high = (band.sel(estimate=e).values for e in ("value", "low", "high"))
        shown = np.isfinite(value)
        if shown.sum() > 1:  # trained over the sweep
            spread = np.abs(np.stack([value - low, high - value]))[:, shown]
            look = {k: _SHOWN[str(v)][k] for k in ("color", "marker")}
            ax.errorbar(
                noise[shown],
                value[shown],
                yerr=spread,
                linestyle="none",
                markersize=6,
                markeredgecolor="white",
                markeredgewidth=0.6,
                capsize=2,
                label=f"{v}, learned",
                **look,
            )
    top = 1.2 * float(dataset["shrunk_curve"].max())
    ax.axvline(no_information, color="#bbbbbb", linewidth=1, zorder=0)
    ax.text(
        0.03,
        0.98,
        "grey line: s_noise² = s_y² + s_signal².\nAll tokens have one law there, norms carry\n"
        "no information: a value gate cannot gain.",
        transform=ax.transAxes,
        fontsize=8,
        va="top",
        bbox={"facecolor": "white", "edgecolor": "#bbbbbb", "pad": 2.5},
    )
    ax.set(
        ylim=(0, top),
        xlabel="s_noise, standard deviation of the fillers",
        ylabel="mean squared error per coordinate",
        title="error by s_noise: theory (lines), learned (points)",
    )
    ax.legend(fontsize=7.5, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)


def _draw_gate(ax: Axes, dataset: xr.Dataset) -> None:
    """The learned value gate against the norm of a token, beside what the norm says."""
    x = dataset["norm"].values
    ax.plot(x, dataset["relevance_by_norm"].values, color="black", linewidth=2.2, label="P(relevant | norm), pi(r)")
    best = dataset["additive_gate"].values
    ax.plot(
        x, best / best.max(), color="#777777", linestyle="--", linewidth=2.2, label="best additive h(r), scaled to 1"
    )
    for v in dataset["variant"].values:
        band = dataset["gate_by_norm_band"].sel(variant=v)
        value, low, high = (band.sel(estimate=e).values for e in ("value", "low", "high"))
        if np.isfinite(value).any():
            look = _SHOWN[str(v)]
            ax.plot(x, value, markevery=3, markersize=5, label=f"{v}, learned", **look)
            ax.fill_between(x, low, high, color=look["color"], alpha=0.2, linewidth=0)
    ax.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    ax.set(xlabel="norm of the token", ylabel="learned gate tau_v; probability", title="value gate by norm (default)")
    ax.legend(fontsize=7.5, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
