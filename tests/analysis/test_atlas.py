"""The atlas: rates by search, the scale by its ends, and cells without numbers."""

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from scipy.special import log_softmax

from analysis.experiments.atlas import ATLAS, AtlasConfig
from analysis.experiments.atlas.figure import similar
from analysis.experiments.atlas.train import TUNING_SEED
from analysis.experiments.atlas.worlds import WORLDS
from analysis.problems import TriggerProblem, compare

SMALL = {"seeds": 3, "tuning_seeds": 2, "steps": 12, "cooldown_steps": 4, "device": "cpu"}
DIVERGES = """
import torch
from ssa_theory.mechanism import Mechanism
from ssa_theory.mechanism.score_maps import Bilinear, ScoreMap

class Exploding(ScoreMap):
    def __call__(self, parameters, query, keys):
        return Bilinear()(parameters, query, keys) * torch.inf

MINE = Mechanism("exploding", score=Exploding())
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    mine = tmp_path_factory.mktemp("own") / "mine.py"
    mine.write_text(DIVERGES)
    names = ("vanilla", "ssmax", "gated", f"{mine}:MINE")
    worlds = ("graph", "trigger", "location")
    return ATLAS.run(
        AtlasConfig(**SMALL, mechanisms=names, worlds=worlds, rates=(0.001, 0.03, 0.3))
    )


def test_a_cell_is_a_comparison_at_its_best_rate(small: xr.Dataset) -> None:
    """Whatever is trained beside it, and on seeds that chose no rate."""
    options = {"steps": 12, "cooldown_steps": 4, "device": "cpu"}
    names = ["vanilla", "gated"]
    tried = {
        rate: compare(
            TriggerProblem(), names, seeds=2, first_seed=TUNING_SEED, learning_rate=rate, **options
        )["risk"].mean("seed")
        for rate in (0.001, 0.03, 0.3)
    }
    cell = small.sel(world="trigger")
    for name in names:
        best = min(tried, key=lambda rate: float(tried[rate].sel(mechanism=name)))
        assert cell["rate"].sel(mechanism=name) == best
        own = compare(TriggerProblem(), [name], seeds=3, learning_rate=best, **options)
        assert_allclose(cell["risk"].sel(mechanism=name), own["risk"][0], rtol=1e-4)
        zero = own["held_out_zero"]
        assert_allclose(cell["excess"].sel(mechanism=name), own["risk"][0] / zero, rtol=1e-4)
    assert len(set(cell["rate"].dropna("mechanism").values)) > 0
    assert cell["added_parameters"].sel(mechanism="gated") == 2 * 5


def test_what_cannot_be_worn_or_diverges_has_a_reason_in_place_of_numbers(
    small: xr.Dataset,
) -> None:
    reason = small["reason"]
    missing = small["excess"].isnull().all("seed")
    assert ((reason == "") == ~missing).all()
    assert "mechanism ssmax needs" in reason.sel(mechanism="ssmax", world="graph").item()
    assert "a value map" in reason.sel(mechanism="gated", world="graph").item()
    broken = reason.sel(mechanism="exploding")
    assert all("diverges at every rate of (0.001, 0.03, 0.3)" in text for text in broken.values)
    assert (small["rate"].isnull() == missing).all()
    assert (reason.sel(mechanism="vanilla") == "").all()
    assert (small["weight_norm"].sel(mechanism="vanilla") > 0).all()


def test_gains_are_paired_and_the_figure_shows_every_cell(small: xr.Dataset) -> None:
    excess = small["excess"].sel(world="trigger")
    gain = (excess.sel(mechanism="vanilla") - excess.sel(mechanism="gated")).mean("seed")
    found = small["gain_band"].sel(world="trigger", mechanism="gated", estimate="value")
    assert found.item() == pytest.approx(gain.item())
    figure = ATLAS.plot(small)
    shown = [text.get_text() for text in figure.axes[0].texts]
    mean = small["excess"].mean("seed").values
    assert sorted(shown) == sorted(f"{v:.2f}" for v in mean[np.isfinite(mean)])
    figure.draw_without_rendering()
    assert ATLAS.claims(small) == []


@pytest.mark.parametrize("name", WORLDS)
def test_the_ends_of_every_scale_are_in_order(name: str) -> None:
    world = WORLDS[name]
    bayes, naive = world.ends(world.problem.describe([0, 1]))
    assert bayes.dims == naive.dims == ("seed",)
    assert (bayes < naive).all()


def test_the_naive_row_is_the_best_single_one() -> None:
    """By a search over all rows."""
    world = WORLDS["graph"]
    described = world.problem.describe([0])
    truth = described["transition_matrix"].values[0]
    entropy = -(truth[truth > 0] * np.log(truth[truth > 0])).sum() / len(truth)
    best = minimize(lambda z: -(truth * log_softmax(z)).sum() / len(truth), np.zeros(len(truth)))
    assert world.ends(described)[1].item() == pytest.approx(best.fun - entropy, rel=1e-6)


def test_the_order_puts_what_is_alike_side_by_side() -> None:
    table = np.array([[0.0, 0.1], [1.0, 0.9], [0.05, np.nan], [0.95, 1.0]])
    order = similar(table).tolist()
    assert sorted(order) == [0, 1, 2, 3]
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset((0, 2)), frozenset((1, 3))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"worlds": ("graph", "mars")}, "worlds must be among graph, .*got \\['mars'\\]"),
        ({"worlds": ()}, "worlds must be different and at least one"),
        ({"rates": (0.1, 0.1)}, "rates must be different and at least one"),
    ],
)
def test_settings_that_do_not_go_together(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AtlasConfig(**change)
