"""What a panel of a figure says in words: title, axes, series, and the names of ticks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.category import StrCategoryLocator
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_hex
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

_NEAR = 0.45  # of the distance of ticks that are counted: points stand beside each other there


def panels(figure: Figure) -> list[Axes]:
    """The panels that are shown, in order, without colour bars."""
    return [ax for ax in figure.axes if ax.get_visible() and ax.get_label() != "<colorbar>"]


def words(ax: Axes, shown: Sequence[Axes]) -> tuple[str, str, str]:
    """Title and labels of the axes; of a panel in a grid that says them once, those of its column
    and row.
    """
    spec, grid = ax.get_subplotspec(), [ax]
    for one in shown:
        place = one.get_subplotspec()
        if spec and place and place.get_gridspec() is spec.get_gridspec():
            grid.append(one)
    # Axes that lie on top of each other, such as those of a second scale, come first.
    grid.sort(key=lambda one: (one is not ax, one.get_subplotspec() != spec))
    column = [one for one in grid if _span(one, "colspan") == _span(ax, "colspan")]
    along_x, along_y = ax.get_shared_x_axes(), ax.get_shared_y_axes()
    texts = (
        (one.get_title() for one in column),
        (one.get_xlabel() for one in grid if one is ax or along_x.joined(ax, one)),
        (one.get_ylabel() for one in grid if one is ax or along_y.joined(ax, one)),
    )
    title, x_axis, y_axis = (" ".join(next(filter(None, some), "").split()) for some in texts)
    return title, x_axis, y_axis


def _span(ax: Axes, name: str) -> object:
    return getattr(ax.get_subplotspec(), name, None)


def tick_names(axis: Axis) -> Mapping[float, str]:
    """The names of ticks that stand for something else than their number."""
    locator, formatter = axis.get_major_locator(), axis.get_major_formatter()
    fixed = isinstance(locator, FixedLocator) and isinstance(formatter, FuncFormatter)
    if not fixed and not isinstance(locator, StrCategoryLocator):
        return {}
    ticks = np.asarray(locator(), float).tolist()
    return dict(zip(ticks, formatter.format_ticks(ticks), strict=True))


def name_at(place: float | None, names: Mapping[float, str]) -> str:
    """The name of the tick at a place; where ticks are counted, of the tick beside it."""
    if place is None or place in names or not names:
        return names.get(place, "") if place is not None else ""
    nearest = min(names, key=lambda tick: abs(tick - place))
    counted = all(tick == int(tick) for tick in names) and np.ptp(list(names)) == len(names) - 1
    return names[nearest] if counted and abs(nearest - place) < _NEAR else ""


def legend(shown: Sequence[Axes]) -> Mapping[str, str]:
    """The series of each colour, of those colours that stand for one."""
    series: dict[str, set[str]] = {}
    for ax in shown:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            series.setdefault(color(handle), set()).add(label)
    return {key: label for key, (label, *others) in series.items() if key and not others}


def color(artist: Any) -> str:
    """Of a line, region, bar, or of what is made of them, without its opacity; empty where there is
    not one.
    """
    if isinstance(artist, Container):
        return color(artist[0])
    if isinstance(artist, ScalarMappable) and artist.get_array() is not None:
        return ""
    for get in ("get_color", "get_facecolor", "get_edgecolor"):
        if getter := getattr(artist, get, None):
            array = np.atleast_1d(np.asarray(getter(), dtype=object))
            colors = [getter()] if isinstance(getter(), str) or array.ndim == 1 else list(getter())
            kept = {to_hex(one) for one in colors if len(colors)}
            if len(kept) == 1:
                return kept.pop()
    return ""


def value_label(artist: Artist | Container, shown: Sequence[Axes]) -> str:
    """What the colour bar of an image or of points says; several of the same scale share one."""
    if not isinstance(artist, ScalarMappable):
        return ""
    scale = (artist.cmap.name, artist.get_clim())
    for ax in shown:
        for one in (*ax.images, *ax.collections):
            if one.colorbar is not None and (one.cmap.name, one.get_clim()) == scale:
                bar = one.colorbar
                axis = bar.ax.yaxis if bar.orientation == "vertical" else bar.ax.xaxis
                return axis.get_label_text()
    return ""
