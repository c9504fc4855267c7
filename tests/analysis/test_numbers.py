"""The numbers of a figure are those that were drawn."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_array_equal

from analysis.draw.figures import new_figure
from analysis.draw.numbers import COLUMNS, table

ENDS = [f"{axis}{end}" for axis in "xy" for end in ("", "_low", "_high")]


def read(figure: Figure) -> pd.DataFrame:
    """The table of a figure."""
    return pd.read_csv(io.StringIO(table(figure)))


def drawn(found: pd.DataFrame, *columns: str, **kept: object) -> list[list[float]]:
    """Numbers of the rows with these values, in order."""
    for name, value in kept.items():
        found = found[found[name] == value]
    return found[list(columns or ENDS)].to_numpy(float).tolist()


def test_what_is_drawn_in_any_way_is_in_the_table():
    nan, figure = np.nan, new_figure(6.0, 4.0)
    axes = figure.subplots(2, 4)
    line, points, image, bars, bins, region, scatter, hidden = axes.flat
    line.plot([1, 2, 4], [5, 6, nan], color="C3", label="one")
    line.fill_between([1, 2, 4], [4, 5, nan], [7, 9, nan], color="C3", alpha=0.2)
    line.axhline(0.5, color="C1", label="base")
    line.set(title="a title", xlabel="step", ylabel="loss\n(nats)", xscale="log")
    points.errorbar([0.1, 1.1], [3, nan], yerr=[[1, nan], [0.5, nan]], color="C3", linestyle="none")
    points.set_xticks([0, 1], ["p", "q"])
    shown = image.imshow([[1, 2], [3, 4]], extent=(0, 4, 0, 2))
    figure.colorbar(shown, ax=image, label="weight")
    bars.barh(["u", "v"], [2, 3], label="bar")
    bins.stairs([7, 8], [0, 1, 3], label="bin")
    region.violinplot([[1.0, 2.0, 4.0]], [5])
    dots = scatter.scatter([1, 2], [3, 4], c=[5, 6])
    figure.colorbar(dots, ax=scatter, label="heat", location="bottom")
    hidden.plot([1], [1])
    hidden.set_visible(False)
    found = read(figure)
    assert tuple(found) == COLUMNS
    assert_array_equal(
        drawn(found, panel=1, series="one"),
        [[1, nan, nan, 5, 4, 7], [2, nan, nan, 6, 5, 9], [4, *[nan] * 5]],
    )
    assert drawn(found, "y", series="base") == [[0.5]]
    head = found[found.panel == 1][["title", "x_axis", "y_axis"]].drop_duplicates()
    assert head.to_numpy().tolist() == [["a title", "step", "loss (nats)"]]
    first, second = found[found.panel == 2].itertuples()
    assert (first.series, first.x_name, first.x, first.y) == ("one", "p", 0.1, 3)
    assert (first.y_low, first.y_high, second.x_name) == (2, 3.5, "q")
    assert drawn(found, "x", "y", "value", panel=3) == [
        [1, 1.5, 1], [3, 1.5, 2], [1, 0.5, 3], [3, 0.5, 4]
    ]  # fmt: skip
    assert set(found[found.panel == 3].value_axis) == {"weight"}
    assert drawn(found, "x", "y", series="bar") == [[2, 0], [3, 1]]
    assert found[found.series == "bar"].y_name.tolist() == ["u", "v"]
    assert drawn(found, "x_low", "x_high", "y", series="bin") == [[0, 1, 7], [1, 3, 8]]
    wide = found[(found.panel == 6) & (found.drawn == "region")]
    assert (wide.x_low + wide.x_high).to_numpy() == pytest.approx(10)
    assert (wide.y.min(), wide.y.max()) == (1, 4)
    assert drawn(found, "x", "y", "value", panel=7) == [[1, 3, 5], [2, 4, 6]]
    assert set(found[found.panel == 7].value_axis) == {"heat"}
    assert found.panel.max() == 7
