"""The twins experiment end to end, against the closed forms it compares with."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from analysis.claims.statistics import ratio
from analysis.experiments.base import silent
from analysis.experiments.twins import TWINS, TwinsConfig
from analysis.problems import Training, train_all
from analysis.problems.twins import TwinsProblem
from ssa_theory.mechanism import mechanism
from ssa_theory.seeds import Stream, member_generator
from ssa_theory.theory import minimal_norm, norm_lower_bound
from tasks import TwinTokenTask


@pytest.fixture(scope="module")
def config():
    return TwinsConfig(seeds=6, steps=150, angles=(1.0, 0.1, 0.03, 0.01, 0.003), pairs=3, dim=8)


@pytest.fixture(scope="module")
def result(config):
    return TWINS.run(config, silent)


def test_variables_and_dimensions(result):
    dims = {
        "minimal_norm": ("seed", "angle", "theory"),
        "norm_lower_bound": ("seed", "angle", "theory"),
        "weight_norm": ("mechanism", "seed", "angle"),
        "cross_entropy_gap": ("mechanism", "seed", "angle", "step"),
        "inverse_temperature": ("mechanism", "seed", "angle", "node"),
        "learned_norm_lower_bound": ("mechanism", "seed", "angle"),
    }
    assert {name: result[name].dims for name in dims} == dims
    assert result["angle"].attrs["units"] == "radian"


def test_closed_forms_are_those_of_the_named_seed(result):
    task = TwinTokenTask.sample(
        pairs=3, dim=8, angle=0.1, generator=member_generator(4, Stream.EMBEDDING)
    )
    cell = result.sel(seed=4, angle=0.1)
    np.testing.assert_allclose(cell["target"], task.target)
    solution = minimal_norm(task.embeddings, task.target, 2.0, selective=True)
    assert float(cell["minimal_norm"].sel(theory="selective")) == pytest.approx(
        solution.spectral_norm
    )
    bound = norm_lower_bound(task.embeddings, task.target, solution.inverse_temperature)
    assert float(cell["norm_lower_bound"].sel(theory="selective")) == pytest.approx(bound)


def test_norms_obey_the_theory(result):
    assert (result["minimal_norm"] > result["norm_lower_bound"]).all()
    learned = result["weight_norm"] / result["learned_norm_lower_bound"]
    assert learned.notnull().all()
    assert (learned > 1 - 1e-9).all()
    assert learned.min() < 3  # the bound is not idle
    assert (result["minimal_inverse_temperature"] <= 2 + 1e-9).all()
    np.testing.assert_allclose(
        result["capped_weight_norm"].sel(mechanism="vanilla"), result["weight_norm"][0] / 2
    )
    free = result.sel(mechanism="ssa-free", seed=1, angle=0.1)
    expected = float(free["weight_norm"] * free["inverse_temperature"].values.max() / 2)
    assert float(free["capped_weight_norm"]) == pytest.approx(expected)
    claims = {c.id: c for c in TWINS.claims(result)}
    assert claims["twins-slope-vanilla"].verdict == "supported"
    assert claims["twins-slope-selective"].verdict == "supported"
    assert claims["twins-lower-bound"].verdict == "supported"
    at = result.sel(angle=0.1)["cross_entropy_gap"].isel(step=-1)
    expected = ratio(at.sel(mechanism="ssa-free").values, at.sel(mechanism="vanilla").values)
    assert claims["twins-gap-ssa-free"].estimate == expected


def test_the_problem_alone_gives_the_numbers_of_one_angle(config, result):
    models = [mechanism(name) for name in ("vanilla", "ssa-free", "ssa-query-key")]
    problem = TwinsProblem(pairs=3, dim=8, angle=0.03)
    alone = train_all(problem, models, range(6), Training(150, 0.05), torch.device("cpu"))
    whole = result.sel(angle=0.03)
    for name in ("minimal_norm", "target", "norm_lower_bound"):
        np.testing.assert_array_equal(alone[name], whole[name], err_msg=name)
    for name in ("weight_norm", "capped_weight_norm", "learned_norm_lower_bound", "l1_error"):
        a, b = (d[name].sel(mechanism=["vanilla", "ssa-free"]) for d in (alone, whole))
        np.testing.assert_allclose(a, b, rtol=1e-3, err_msg=name)
    bound = alone["learned_norm_lower_bound"]
    assert bound.sel(mechanism="ssa-query-key").isnull().all()  # a key temperature breaks the bound


def test_a_broken_bound_is_not_supported(result):
    broken = result.copy(deep=True)
    broken["weight_norm"][0, 0, 0] = 0.5 * broken["learned_norm_lower_bound"][0, 0, 0]
    claims = {c.id: c for c in TWINS.claims(broken)}
    assert claims["twins-lower-bound"].verdict == "not supported"


def test_figure_shows_lines_points_and_curves(result):
    left, right = TWINS.plot(result).axes
    assert left.get_xscale() == left.get_yscale() == "log"
    labels = left.get_legend_handles_labels()[1]
    assert {
        "lower bound, vanilla",
        "minimal norm, selective",
        "vanilla, trained",
        "ssa-free, trained",
    } <= set(labels)
    np.testing.assert_allclose(right.get_lines()[0].get_xdata(), result["step"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"angles": (0.1, 2.0)}, r"angles must lie in \(0, pi/2\] radians, got \[2.0\]"),
        ({"angles": (0.0, 0.1)}, "angles must lie in"),
        ({"angles": (0.2, 0.3)}, "shown_angle must be one of the angles"),
        ({"dim": 6}, "dim must be at least twice the pairs"),
        (
            {"mechanisms": ("ssa-degree",)},
            "mechanism ssa-degree needs the degree of every query token",
        ),
        ({"mechanisms": ("ssa", "ssa")}, "mechanisms must be different"),
        ({"mechanisms": ("entmax15",)}, "mechanism entmax15 needs a loss other than cross-entropy"),
    ],
)
def test_bad_config(fields, message):
    with pytest.raises(ValidationError, match=message):
        TwinsConfig(**fields)
