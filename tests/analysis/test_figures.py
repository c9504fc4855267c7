"""Figures: same bytes for the same result, and styles that greyscale keeps apart."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from analysis.draw.figures import STYLE, save_figure
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


def test_variants_differ_without_colour():
    grey = {v: np.dot(to_rgb(s["color"]), (0.299, 0.587, 0.114)) for v, s in STYLE.items()}
    assert (
        len({s["marker"] for s in STYLE.values()})
        == len({str(s["linestyle"]) for s in STYLE.values()})
        == len(STYLE)
    )
    shown = sorted(grey[v] for v in ("vanilla", "ssa", "ssa-free"))
    assert min(np.diff(shown)) > 0.12
