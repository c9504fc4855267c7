"""The twins experiment end to end, against the closed forms it compares with."""

import numpy as np
import pytest
import torch
import xarray as xr
from pydantic import ValidationError

from analysis.experiments.base import silent
from analysis.experiments.twins import TWINS, TwinsConfig
from analysis.problems import Training, train_all
from analysis.problems.twins import TwinsProblem
from ssa_theory.mechanism import mechanism
from ssa_theory.seeds import Stream, member_generator
from ssa_theory.theory import minimal_norm, norm_lower_bound
from tasks import TwinTokenTask
from tests.analysis.evidence import checks, found, missing, said


@pytest.fixture(scope="module")
def config():
    return TwinsConfig(
        seeds=6,
        steps=150,
        angles=(1.0, 0.1, 0.03, 0.01, 0.003),
        pairs=3,
        dim=8,
        learning_rates=(0.05,),
    )


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
    assert {c.id: c.passed for c in checks(TWINS.claims(result)).values()} == dict.fromkeys(
        ("twins-slope-vanilla", "twins-slope-selective", "twins-lower-bound"), "passed"
    )


def known(names=("vanilla", "ssa", "ssa-free")):
    """Norms: vanilla's are 1 / angle with noise by seed; with temperatures the least are 1, the
    learned ones twice vanilla's by ssa, a tenth by ssa-free.
    """
    noise = np.random.default_rng(0)
    angle = np.array([0.1, 1.0, 0.01, 0.001])
    axes = {
        "theory": ["vanilla", "selective"],
        "mechanism": list(names),
        "seed": np.arange(64),
        "angle": angle,
        "step": [0, 9],
    }
    by_seed = np.exp(noise.normal(0, 0.1, (64, 1)))
    factor = np.array([{"vanilla": 1.0, "ssa": 2.0, "ssa-free": 0.1}[n] for n in names])
    learned = factor[:, None, None] * by_seed / angle
    least = np.stack([by_seed / angle, np.broadcast_to(by_seed**2, (64, 4))])
    data = {
        "minimal_norm": (("theory", "seed", "angle"), least),
        "norm_lower_bound": (("theory", "seed", "angle"), 0.9 * least),
        "capped_weight_norm": (("mechanism", "seed", "angle"), learned),
        "weight_norm": (("mechanism", "seed", "angle"), np.sqrt(learned)),
        "learned_norm_lower_bound": (("mechanism", "seed", "angle"), 0.8 * np.sqrt(learned)),
        "cross_entropy_gap": (
            ("mechanism", "seed", "angle", "step"),
            np.broadcast_to([1.0, 0.2], (len(names), 64, 4, 2)),
        ),
    }
    return xr.Dataset(data, axes)


PAPER = TWINS.preset("paper")


def test_tests_follow_the_norms():
    data = known()
    tests = found(TWINS.judge(PAPER, data), "twins")
    least = np.log(data["minimal_norm"].sel(angle=0.001))
    wanted = {
        "least, at the smallest angle": (least[0] - least[1]).mean().item(),
        "learned by ssa": -np.log(2),
        "learned by ssa-free": np.log(10),
    }
    assert set(tests) == {(weights,) for weights in wanted}
    for (weights,), test in tests.items():
        assert test.effect.value == pytest.approx(wanted[weights])
        assert said(test) == ("harm" if weights == "learned by ssa" else "benefit")
        assert (test.effect.seeds, test.requested_seeds) == (64, 64)
    assert tests["learned by ssa",].parts["vanilla, gap (nats)"].value == pytest.approx(0.2)


def test_every_declared_cell_is_produced():
    assert missing(TWINS.judge(PAPER, known(PAPER.mechanisms)), "twins") == []
    few = found(TWINS.judge(PAPER, known(("ssa", "ssa-free"))), "twins")
    assert set(few) == {("least, at the smallest angle",)}


@pytest.mark.parametrize(("lost", "outcome"), [(3, "benefit"), (4, "missing")])
def test_diverged_seeds_count_as_lost(lost, outcome):
    data = known()
    data["capped_weight_norm"].loc[{"mechanism": "ssa-free", "seed": range(lost)}] = np.nan
    test = found(TWINS.judge(PAPER, data), "twins")["learned by ssa-free",]
    assert (test.lost, said(test)) == (lost / 64, outcome)


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


def test_a_broken_bound_fails_its_check(result):
    broken = result.copy(deep=True)
    broken["weight_norm"][0, 0, 0] = 0.5 * broken["learned_norm_lower_bound"][0, 0, 0]
    assert checks(TWINS.claims(broken))["twins-lower-bound"].passed == "failed"


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
