"""Figures: same bytes for the same result, and styles that greyscale keeps apart."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from analysis.draw.figures import new_figure, save_figure, style, svg
from analysis.experiments import EXPERIMENTS
from analysis.experiments.base import silent


@pytest.mark.parametrize("name", ["graph", "twins"])
def test_the_same_result_gives_the_same_bytes(tmp_path, name):
    experiment = EXPERIMENTS[name]
    config = experiment.preset("smoke").model_copy(update={"seeds": 2, "steps": 4})
    result = experiment.run(config, silent)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save_figure(experiment.plot(result), tmp_path / folder)
    for kind in ("svg", "pdf", "png"):
        first, second = ((tmp_path / f / f"figure.{kind}").read_bytes() for f in ("a", "b"))
        assert first == second
        assert len(first) > 10_000


def test_mechanisms_that_are_drawn_together_differ_without_colour():
    looks = {m: style(m) for m in ("vanilla", "ssa", "ssa-free", "ssa-mlp", "ssa-degree")}
    for mark in ("marker", "linestyle"):
        assert len({str(look[mark]) for look in looks.values()}) == len(looks)
    grey = {m: np.dot(to_rgb(s["color"]), (0.299, 0.587, 0.114)) for m, s in looks.items()}
    shown = sorted(grey[m] for m in ("vanilla", "ssa", "ssa-free"))
    assert min(np.diff(shown)) > 0.12


def test_a_figure_for_a_notebook_is_an_svg_without_a_date():
    texts = []
    for _ in range(2):
        figure = new_figure(2.0, 1.0)
        figure.subplots().plot([0, 1])
        texts.append(svg(figure))
    assert "<svg" in texts[0]
    assert "<dc:date>" not in texts[0]
    assert texts[0] == texts[1]
