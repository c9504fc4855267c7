"""The numbers that a figure shows, as a table: one row for each point, interval, bin or cell."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import (
    Collection,
    FillBetweenPolyCollection,
    LineCollection,
    PathCollection,
)
from matplotlib.container import BarContainer, Container, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch

from analysis.draw.panels import color, legend, name_at, panels, tick_names, value_label, words

Number = float | None


@dataclass(frozen=True)
class Row:
    """A point (x, y), or where there are several numbers along an axis their ends, in the units of
    the axis; value: of a cell or point that is shown as a colour. None: it has no such number.

    panel: counted from 1, in the order of the figure. series: as in the legend. drawn: as what:
    curve, points, bars, bins, cells, region or strokes. x_name, y_name: of
    a tick that stands for something that is no number, such as a node.
    """

    panel: int = 0
    title: str = ""
    series: str = ""
    drawn: str = ""
    x_axis: str = ""
    y_axis: str = ""
    value_axis: str = ""
    x: Number = None
    x_low: Number = None
    x_high: Number = None
    x_name: str = ""
    y: Number = None
    y_low: Number = None
    y_high: Number = None
    y_name: str = ""
    value: Number = None

    def turned(self) -> "Row":
        """With the axes exchanged."""
        ends = {"x_low": self.y_low, "x_high": self.y_high}
        ends |= {"y_low": self.x_low, "y_high": self.x_high}
        return replace(self, x=self.y, y=self.x, **ends)


COLUMNS = tuple(field.name for field in fields(Row))


def table(figure: Figure) -> str:
    """The numbers of a figure as CSV, with the columns of `Row`; a number that is not there is
    empty.

    Drawings of graphs, texts, shaded regions and colour bars hold no numbers of their own.

    >>> from analysis.draw.figures import new_figure
    >>> figure = new_figure(2.0, 2.0)
    >>> _ = figure.subplots().plot([1, 2], [0.5, 0.25], label="ssa")
    >>> print(table(figure).splitlines()[2])
    1,,ssa,curve,,,,2.0,,,,0.25,,,,
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(row, name) for name in COLUMNS] for row in rows_of(figure))
    return text.getvalue()


def rows_of(figure: Figure) -> Iterator[Row]:
    """The rows of every panel that is shown, in order."""
    shown = panels(figure)
    everywhere = legend(shown)
    for number, ax in enumerate(shown, 1):
        title, x_axis, y_axis = words(ax, shown)
        series_of = {**everywhere, **legend([ax])}
        x_names, y_names = tick_names(ax.xaxis), tick_names(ax.yaxis)
        for artist, drawn, rows in _drawn(ax):
            label = str(artist.get_label())
            own = label if not label.startswith("_") else series_of.get(color(artist), "")
            shade = value_label(artist, shown)
            for row in rows:
                yield replace(
                    row,
                    panel=number,
                    title=title,
                    series=own,
                    drawn=drawn,
                    x_axis=x_axis,
                    y_axis=y_axis,
                    value_axis=shade,
                    x_name=name_at(row.x, x_names),
                    y_name=name_at(row.y, y_names),
                )


def _drawn(ax: Axes) -> Iterator[tuple[Artist | Container, str, list[Row]]]:
    """What is drawn in a panel and has numbers, and how. What belongs together comes once: a curve with its
    band, a point with its bars.
    """
    parts: set[Any] = set()
    for container in ax.containers:
        if isinstance(container, ErrorbarContainer):
            line, caps, bars = container.lines
            parts |= {line, *caps, *bars}
            yield container, "points", _with_bars(container)
        elif isinstance(container, BarContainer):
            parts |= set(container.patches)
            yield container, "bars", _bars(container)
    bands = [c for c in ax.collections if isinstance(c, FillBetweenPolyCollection)]
    for line in ax.lines:
        if line in parts:
            continue
        rows = _points(ax, line)
        for band in [b for b in bands if b not in parts and color(b) == color(line)]:
            ends = {end.x: {"y_low": end.y_low, "y_high": end.y_high} for end in _ends(band)}
            if None not in ends and ends.keys() <= {row.x for row in rows}:
                parts.add(band)
                rows = [replace(row, **ends.get(row.x, {})) for row in rows]
                break
        yield line, "points" if line.get_linestyle() == "None" else "curve", rows
    for patch in ax.patches:
        if isinstance(patch, StepPatch):
            yield patch, "bins", _bins(patch)
    for image in ax.images:
        yield image, "cells", _cells(image)
    for collection in ax.collections:
        if collection in parts:
            continue
        if isinstance(collection, FillBetweenPolyCollection):
            yield collection, "region", _ends(collection)
        elif isinstance(collection, PathCollection) and ax.axison:
            yield collection, "points", _scattered(collection)
        elif isinstance(collection, LineCollection) and ax.axison:
            yield (
                collection,
                "strokes",
                [_segment(np.asarray(s)) for s in collection.get_segments()],
            )


def _points(ax: Axes, line: Line2D) -> list[Row]:
    """Of a line across the whole panel, such as a baseline, its one number."""
    x, y = (_floats(v) for v in line.get_data(orig=False))
    along_x, along_y = line.get_transform().contains_branch_seperately(ax.transData)
    if along_x and along_y:
        return [Row(x=a, y=b) for a, b in zip(x, y, strict=True)]
    if along_x:
        low, high = min(x), max(x)
        return [Row(x=low)] if low == high else [Row(x_low=low, x_high=high)]
    return [Row(y=y[0])] if along_y else []


def _with_bars(container: ErrorbarContainer) -> list[Row]:
    """Points with their intervals."""
    line, _, bars = container.lines
    if line is None:
        return []
    rows = [Row(x=a, y=b) for a, b in zip(*map(_floats, line.get_data(orig=False)), strict=True)]
    letters = [
        letter for letter, has in (("x", container.has_xerr), ("y", container.has_yerr)) if has
    ]
    for letter, bar in zip(letters, bars, strict=True):
        axis = "xy".index(letter)
        ends = [_floats(np.asarray(path.vertices)[:, axis]) for path in bar.get_paths()]
        rows = [
            replace(row, **{f"{letter}_low": low, f"{letter}_high": high})
            for row, (low, high) in zip(rows, ends, strict=True)
        ]
    return rows


def _bars(container: BarContainer) -> list[Row]:
    """Lengths of bars at their middles."""
    rows = [
        Row(x=float(p.get_x() + p.get_width() / 2), y=float(p.get_y() + p.get_height()))
        for p in container.patches
    ]
    if container.orientation != "horizontal":
        return rows
    return [
        Row(x=float(p.get_x() + p.get_width()), y=float(p.get_y() + p.get_height() / 2))
        for p in container.patches
    ]


def _bins(patch: StepPatch) -> list[Row]:
    """Values of a histogram between the edges of its bins."""
    values, edges, _ = patch.get_data()
    ends = _floats(edges)
    rows = [
        Row(x_low=low, x_high=high, y=value)
        for low, high, value in zip(ends, ends[1:], _floats(values), strict=False)
    ]
    return [row.turned() for row in rows] if patch.orientation == "horizontal" else rows


def _cells(image: AxesImage) -> list[Row]:
    """Values of an image at the middles of its cells."""
    array = np.ma.filled(np.ma.asarray(image.get_array(), dtype=float), np.nan)
    left, right, bottom, top = image.get_extent()
    if image.origin == "upper":
        bottom, top = top, bottom
    height, width = array.shape
    x = left + (np.arange(width) + 0.5) * (right - left) / width
    y = bottom + (np.arange(height) + 0.5) * (top - bottom) / height
    return [
        Row(x=float(x[j]), y=float(y[i]), value=float(v)) for (i, j), v in np.ndenumerate(array)
    ]


def _scattered(collection: Collection) -> list[Row]:
    """Points, with what their colour shows."""
    offsets = np.ma.filled(np.ma.asarray(collection.get_offsets(), dtype=float), np.nan)
    shown = collection.get_array()
    values = [None] * len(offsets) if shown is None else _floats(np.asarray(shown))
    return [Row(x=a, y=b, value=v) for (a, b), v in zip(offsets.tolist(), values, strict=True)]


def _ends(band: FillBetweenPolyCollection) -> list[Row]:
    """Lowest and highest point of a filled region at each of its places."""
    across = "xy".index(getattr(band, "t_direction"))  # noqa: B009  matplotlib's stubs lack it
    ends: dict[float, list[float]] = {}
    for path in band.get_paths():
        for vertex in np.asarray(path.vertices).tolist():
            ends.setdefault(vertex[across], []).append(vertex[1 - across])
    rows = [Row(x=place, y_low=min(v), y_high=max(v)) for place, v in sorted(ends.items())]
    return rows if across == 0 else [row.turned() for row in rows]


def _segment(ends: np.ndarray) -> Row:
    """A stroke: along one axis its ends, along the other its place."""
    (x_low, y_low), (x_high, y_high) = (_floats(end) for end in ends[[0, -1]])
    row = Row(y=y_low) if y_low == y_high else Row(y_low=y_low, y_high=y_high)
    return replace(row, **({"x": x_low} if x_low == x_high else {"x_low": x_low, "x_high": x_high}))


def _floats(values: Any) -> list[float]:
    return np.ma.filled(np.ma.asarray(values, dtype=float), np.nan).tolist()
