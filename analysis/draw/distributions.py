"""Distributions of a positive number, one a mechanism."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from analysis.draw.figures import interval, label_log, style

_BINS = 32


def log_bins(values: np.ndarray) -> np.ndarray:
    """Logarithmic bins that hold all but the extremes, which go to the outer bins; at most four
    decades.
    """
    kept = values[np.isfinite(values) & (values > 0)]
    low, high = np.quantile(kept, (0.002, 0.998)) if len(kept) else (0.5, 2.0)
    return np.geomspace(max(0.9 * low, 1e-4 * high), 1.1 * high, _BINS + 1)


def interval_height(place: int) -> float:
    """Where above the distributions the interval of a mechanism is, as a share of the panel; place:
    the mechanism's, from 0.
    """
    return 0.97 - 0.08 * place


def draw_distributions(
    ax: Axes, values: xr.DataArray, band: xr.DataArray, bins: np.ndarray, log: bool = True
) -> None:
    """Outlines of the distributions of `values` (mechanism, ...), dashed lines at the means, and
    above them the means' intervals, of `band` (mechanism, estimate).

    The outlines are labelled with the means, for a legend. log: whether the axis is logarithmic.
    """
    tallest = 0.0
    above: dict[str, Any] = {"transform": ax.get_xaxis_transform()}
    for place, name in enumerate(values["mechanism"].values.tolist()):
        data = values.sel(mechanism=name).values
        data = np.clip(data[np.isfinite(data)], bins[0], bins[-1])
        share = np.histogram(data, bins)[0] / max(1, len(data))
        tallest = max(tallest, share.max())
        look = style(name)
        color = look["color"]
        mean, low, high = interval(band.sel(mechanism=name))
        ax.stairs(
            share,
            bins,
            color=color,
            linestyle=look["linestyle"],
            linewidth=1.3,
            label=f"{name} {float(mean):.3g}",
        )
        ax.axvline(float(mean), color=color, linestyle="--", linewidth=1)
        height = interval_height(place)
        ax.plot([low, high], [height, height], color=color, linewidth=1.5, **above)
        ax.plot(mean, height, look["marker"], color=color, markersize=4, **above)
    ax.set(xlim=(bins[0], bins[-1]), ylim=(0, 1.4 * tallest or 1))
    if log:
        ax.set_xscale("log")
        label_log(ax.xaxis)
