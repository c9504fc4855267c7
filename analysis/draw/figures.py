"""Figure style and saving. A mechanism looks the same in all figures: its look is in the registry."""

from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from analysis.draw.numbers import table
from analysis.store.files import write_whole
from analysis.store.guards import warnings_of
from ssa_theory.mechanism import known

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

FORMATS: Mapping[str, dict[str, None]] = MappingProxyType(
    {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
)
"""The kinds of file that a figure is written as, with the metadata left out, so that the same
figure gives the same bytes.
"""
FILES = (*(f"figure.{suffix}" for suffix in FORMATS), "figure.csv")
"""What a figure is stored as: its pictures, and the numbers that they show."""
_RC: "dict[RcKeyType, Any]" = {
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "ssa-theory",  # with no date below, the same figure gives the same bytes
    "svg.fonttype": "path",
}


def style(mechanism: str) -> dict[str, Any]:
    """Colour, line and marker of a mechanism, as matplotlib's keywords: the same in every figure."""
    look = known(mechanism).look
    return {"color": look.color, "linestyle": look.line, "marker": look.marker}


def interval(band: xr.DataArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value, low and high of an estimate along its last dimension `estimate`."""
    value, low, high = (band.sel(estimate=e).values for e in ("value", "low", "high"))
    return value, low, high


def spread(band: xr.DataArray) -> np.ndarray:
    """How far below and above its value the ends of an interval are, as error bars take them."""
    value, low, high = interval(band)
    return np.abs(np.stack([value - low, high - value])).reshape(2, -1)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in the project's style (inches), with constrained layout and no global state."""
    matplotlib.rcParams.update(_RC)
    return Figure(figsize=(width, height), layout="constrained")


def draw_band(
    axes: Axes, x: np.ndarray, band: xr.DataArray, mechanism: str, fill: float = 0.2, **extra: Any
) -> None:
    """A mean curve and its 95 % interval; `band` has the dimension `estimate` and one more.

    fill: opacity of the interval.
    """
    value, low, high = interval(band)
    whole = style(mechanism)
    look: dict[str, Any] = {k: whole[k] for k in ("color", "linestyle")}
    look |= {"label": mechanism} | extra
    axes.plot(x, value, **look)
    axes.fill_between(x, low, high, color=look["color"], alpha=fill, linewidth=0)


def draw_points(
    axes: Axes,
    x: np.ndarray,
    band: xr.DataArray,
    mechanism: str,
    joined: bool = False,
    **extra: Any,
) -> None:
    """Means as markers, their 95 % intervals as bars; joined: by the mechanism's line."""
    look: dict[str, Any] = {"markersize": 5, "capsize": 2, "elinewidth": 1}
    look |= style(mechanism) | {"label": mechanism}
    look |= ({} if joined else {"linestyle": "none"}) | extra
    axes.errorbar(x, band.sel(estimate="value").values, yerr=spread(band), **look)


def draw_each(
    draw: Callable[..., None], axes: Axes, x: np.ndarray, bands: xr.DataArray, **extra: Any
) -> None:
    """`draw_band` or `draw_points` of every mechanism of `bands` (mechanism, ..., estimate)."""
    for name in bands["mechanism"].values.tolist():
        draw(axes, x, bands.sel(mechanism=name), name, **extra)


def draw_side_by_side(axes: Axes, bands: xr.DataArray, dim: str) -> None:
    """`draw_points` of every mechanism at each label of a dimension, next to each other; `bands`
    (mechanism, dim, estimate).
    """
    labels, names = bands[dim].values.tolist(), bands["mechanism"].values.tolist()
    place = np.arange(len(labels))
    for shift, name in zip(np.linspace(-0.3, 0.3, len(names)), names, strict=True):
        draw_points(axes, place + shift, bands.sel(mechanism=name).transpose(dim, ...), name)
    axes.set_xticks(place, labels)


def draw_by_mechanism(axes: Axes, bands: xr.DataArray) -> None:
    """`draw_points` of every mechanism above its name; `bands` (mechanism, estimate)."""
    names = bands["mechanism"].values.tolist()
    for place, name in enumerate(names):
        draw_points(axes, np.array([place]), bands.sel(mechanism=[name]), name)
    turned = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), names, **turned if len(names) > 3 else {})


def letter(axes: Axes, place: int) -> None:
    """(a), (b), ... before a panel's title."""
    axes.title.set_text(f"({chr(ord('a') + place)}) {axes.get_title()}")


def letter_panels(figure: Figure) -> None:
    """(a), (b), ... before the title of every panel that has one; none where a figure has its own."""
    titled = [ax for ax in figure.axes if ax.get_title()]
    if not any(ax.get_title().startswith("(") for ax in titled):
        for place, ax in enumerate(titled):
            letter(ax, place)


def label_axes(axes: Axes, x: str = "", y: str = "", title: str = "", log: str = "") -> None:
    """Name the axes and the panel, where a name is given. log: which axes are logarithmic, such as
    "xy", with plain numbers on them (`label_log`).
    """
    names = {"xlabel": x, "ylabel": y, "title": title}
    axes.set(**{name: text for name, text in names.items() if text})
    for which in log:
        axes.set(**{f"{which}scale": "log"})
        label_log(getattr(axes, f"{which}axis"))


def label_log(*axes: Axis) -> None:
    """Plain numbers on logarithmic axes, the more of them between the powers of ten the fewer
    decades an axis shows; powers of ten where there are many.
    """
    for axis in axes:
        low, high = axis.get_view_interval()
        if high > 1e5 * low:
            axis.set_minor_locator(NullLocator())
            continue
        some = (1, 2, 5) if high < 100 * low else (1,)
        axis.set_major_locator(LogLocator(subs=(1, 2, 3, 4, 6, 8) if high < 5 * low else some))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())


def left_out(dataset: xr.Dataset) -> str:
    """The last line of a caption: what the guards found that changes a number beside it, such as
    diverged models, which are left out; none if all is well.
    """
    phrases = warnings_of(dataset, harmless=False)
    return "\n" + "; ".join(phrases) if phrases else ""


def save_figure(figure: Figure, folder: Path) -> None:
    """Write figure.svg, figure.pdf and figure.png, and figure.csv with the numbers that they show
    (see `analysis.draw.numbers`), each whole and without a time stamp.
    """
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
    figure.set_layout_engine(None)  # the layout is done; each format would otherwise do it again
    for suffix, info in FORMATS.items():
        write_whole(
            folder / f"figure.{suffix}", lambda path, info=info: figure.savefig(path, metadata=info)
        )
    numbers = table(figure)
    write_whole(folder / "figure.csv", lambda path: path.write_text(numbers, encoding="utf-8"))


def svg(figure: Figure) -> str:
    """The figure as vector graphics, for a notebook: the text of an SVG file without a date."""
    text = StringIO()
    figure.savefig(text, format="svg", metadata=FORMATS["svg"])
    return text.getvalue()
