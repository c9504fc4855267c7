"""The length experiment end to end, against the exact risks it compares with."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from pydantic import ValidationError
from scipy.special import softmax

from analysis.experiments.base import silent
from analysis.experiments.length import LENGTH, LengthConfig
from analysis.problems import KernelRegressionProblem, Training, compare
from ssa_theory.mechanism import Inputs, mechanism
from ssa_theory.mechanism.schedules import YaRN
from ssa_theory.seeds import Stream, member_generator
from tests.analysis.evidence import checks, found, missing, said

DEFAULT = LengthConfig().mechanisms


@pytest.fixture(scope="module")
def config():
    return LengthConfig(
        learning_rates=(0.1,),
        seeds=5,
        train_lengths=(4, 16),
        test_lengths=(128, 4, 16, 32, 64),
        contexts=16,
        steps=60,
        cooldown_steps=20,
        held_out=6,
    )


@pytest.fixture(scope="module")
def result(config):
    return LENGTH.run(config, silent)


def test_variables_and_dimensions(result):
    both = ("seed", "length")
    dims = {
        "mse": ("mechanism", *both),
        "gap_ratio": ("mechanism", *both),
        "learned_inverse_temperature": ("mechanism", *both),
        "effective_support": ("mechanism", *both),
        "bayes": both,
        "oracle": both,
        "best_vanilla": both,
        "naive": both,
        "best_inverse_temperature": ("length",),
        "best_vanilla_inverse_temperature": (),
        "diverged": ("mechanism", "seed"),
    }
    assert {name: result[name].dims for name in dims} == dims
    assert all("description" in result[name].attrs for name in dims)
    assert result["length"].values.tolist() == [4, 16, 32, 64, 128]
    assert result["mechanism"].values.tolist() == list(DEFAULT)
    assert not result["diverged"].any()


def test_errors_and_supports_are_those_of_the_named_seed(config, result):
    contexts = config.problem.task.sample_contexts(
        1, 128, member_generator(2, Stream.EVALUATION), 6
    )
    keys, query = contexts.keys[0, :32], contexts.query[0]
    covariance, cross = np.exp(keys @ keys.T - 1) + 0.09 * np.eye(32), np.exp(query @ keys.T - 1)
    cell = result.sel(seed=2, length=32)
    for v in DEFAULT:
        weights = softmax(
            float(cell["learned_inverse_temperature"].sel(mechanism=v)) * query @ keys.T, axis=1
        )
        risk = (
            np.einsum("qn,nm,qm->q", weights, covariance, weights)
            - 2 * (weights * cross).sum(1)
            + 1
        )
        assert float(cell["mse"].sel(mechanism=v)) == pytest.approx(risk.mean())
        support = np.exp(-(weights * np.log(weights)).sum(1)).mean()
        assert float(cell["effective_support"].sel(mechanism=v)) == pytest.approx(support)
    bayes = 1 - (cross * np.linalg.solve(covariance, cross.T).T).sum(1)
    assert float(cell["bayes"]) == pytest.approx(bayes.mean())
    weights = np.full(32, 1 / 32)
    naive = weights @ covariance @ weights - 2 * (cross @ weights).mean() + 1
    assert float(cell["naive"]) == pytest.approx(naive)


def test_order_of_the_baselines(result):
    assert (result["mse"] >= result["bayes"]).all()
    assert (result["mse"].mean("seed") >= result["oracle"].mean("seed") * (1 - 1e-3)).all()
    assert (result["best_vanilla"].mean("seed") >= result["oracle"].mean("seed") * (1 - 1e-3)).all()
    constant = result["mse"].sel(mechanism="vanilla").mean()
    assert result["best_vanilla"].mean() <= constant * (1 + 1e-3)
    assert (result["best_inverse_temperature"].diff("length") > 0).all()
    gap = (result["mse"] - result["bayes"]) / (result["naive"] - result["bayes"])
    np.testing.assert_allclose(result["gap_ratio"], gap.transpose("mechanism", "seed", "length"))


def test_schedules_have_learned(config, result):
    tau = result["learned_inverse_temperature"].transpose("mechanism", "seed", "length")
    assert np.ptp(tau.sel(mechanism="vanilla").values, axis=-1).max() == 0
    for v in ("ssa-position", "ssmax", "asentmax-position", "power"):
        assert (tau.sel(mechanism=v).diff("length") > 0).all()
    yarn = tau.sel(mechanism="yarn") / tau.sel(mechanism="yarn", length=16)
    np.testing.assert_allclose(yarn.sel(length=128), (0.1 * np.log(8) + 1) ** 2)
    for v in DEFAULT:
        layer = config.problem.layer(mechanism(v))
        start = layer.initial_parameters([member_generator(0, Stream.PARAMETER)])
        initial = layer.inverse_temperature("query", start, Inputs(count=16.0))
        assert (tau.sel(mechanism=v, length=16) - initial.item()).all()
    at = result["mse"].sel(length=16).mean("seed")
    assert (at < result["naive"].sel(length=16).mean("seed")).all()


def test_training_data_are_the_samples_of_the_seed(config):
    """Of each member its own; queries of one context are in different batches."""
    training = Training(1, 0.1, dtype="float64")
    pool = config.problem.block([0, 7], training, torch.device("cpu")).pool
    assert len(pool) == 16 * 8 // config.batch_size
    sample = config.problem.task.sample(16, 16, member_generator(7, Stream.DATA), 8)
    dots, values, target = (torch.cat([batch[i] for batch in pool])[..., 1] for i in range(3))
    for context, query in ((0, 0), (5, 0), (3, 6)):
        place = query * 16 + context
        np.testing.assert_allclose(dots[place], sample.keys[context] @ sample.query[context, query])
        np.testing.assert_array_equal(values[place], sample.values[context])
        assert target[place] == sample.target[context, query]


def test_a_seed_does_not_depend_on_its_company(config, result):
    alone = LENGTH.run(config.model_copy(update={"seeds": 1, "first_seed": 3}), silent)
    for name in ("mse", "learned_inverse_temperature", "bayes"):
        np.testing.assert_allclose(alone[name].squeeze("seed"), result[name].sel(seed=3), rtol=1e-4)


def known(config, factors):
    """Errors above Bayes (.1): of vanilla 1 with noise by seed, of the others a factor of it; of the
    best single temperature .8, of the best of a length .2.
    """
    noise = np.random.default_rng(0)
    axes = {
        "mechanism": list(factors),
        "seed": np.arange(64),
        "length": list(config.test_lengths),
    }
    shape = tuple(map(len, axes.values()))
    excess = np.exp(noise.normal(0, 0.02, shape))
    factor = np.array(list(factors.values()))[:, None, None]
    n = np.array(config.test_lengths, float)
    data = {
        "mse": (tuple(axes), 0.1 + factor * excess),
        "effective_support": (tuple(axes), np.broadcast_to(0.5 * n, shape)),
        "bayes": (("seed", "length"), np.full(shape[1:], 0.1)),
        "best_vanilla": (("seed", "length"), 0.1 + 0.8 * excess[0]),
        "oracle": (("seed", "length"), 0.1 + 0.2 * excess[0]),
    }
    return xr.Dataset(data, axes)


FACTORS = dict.fromkeys(DEFAULT, 1.0) | {"ssa-position": 0.5, "yarn": 0.5, "power": 0.2}
PAPER = LENGTH.preset("paper")


def test_every_declared_cell_is_produced_and_none_within_training():
    claims = LENGTH.judge(PAPER, known(PAPER, FACTORS))
    assert missing(claims, "extrapolation", "schedules", "position-optimum") == []
    assert len(claims) == 4 * (2 + 5 + 7) + 1
    inside = known(PAPER, FACTORS).sel(length=[4, 128])
    assert LENGTH.judge(PAPER, inside) == []


def test_tests_follow_the_errors():
    data = known(PAPER, FACTORS)
    claims = LENGTH.judge(PAPER, data)
    own = np.log(data["mse"].sel(mechanism="ssa-position") - 0.1)
    peers = {m: np.log(data["mse"].sel(mechanism=m) - 0.1) for m in DEFAULT}
    peers["learned constant"] = peers.pop("vanilla")
    peers["best constant"] = np.log(data["best_vanilla"] - 0.1)
    tests = found(claims, "extrapolation") | found(claims, "schedules")
    assert {peer for _, peer in tests} == set(peers) - {"ssa-position"}
    for (length, peer), test in tests.items():
        wanted = float((peers[peer] - own).sel(length=int(length)).mean())
        assert test.effect.value == pytest.approx(wanted)
        says = {"yarn": "equivalent", "power": "harm"}.get(peer, "benefit")
        assert (said(test), test.effect.seeds) == (says, 64)


def test_a_schedule_reaches_the_best_temperature_or_not():
    data = known(PAPER, FACTORS)
    tests = found(LENGTH.judge(PAPER, data), "position-optimum")
    for (schedule, length), test in tests.items():
        at = np.log(data.sel(length=int(length)))
        wanted = float((at["oracle"] - at["mse"].sel(mechanism=schedule)).mean())
        assert test.effect.value == pytest.approx(wanted)
        assert said(test) == ("benefit" if schedule == "power" else "harm")


@pytest.mark.parametrize(("lost", "outcome"), [(3, "benefit"), (4, "missing")])
def test_diverged_seeds_count_as_lost(lost, outcome):
    data = known(PAPER, FACTORS)
    data["mse"].loc[{"mechanism": "vanilla", "seed": range(lost)}] = np.nan
    tests = found(LENGTH.judge(PAPER, data), "extrapolation")
    test = tests["2048", "learned constant"]
    assert (test.lost, said(test)) == (lost / 64, outcome)
    assert said(tests["2048", "best constant"]) == "benefit"


def test_few_mechanisms_make_few_tests(result):
    claims = LENGTH.claims(result.sel(mechanism=["ssa-position", "power"]))
    assert {cell[1] for cell in found(claims, "extrapolation")} == {"best constant"}
    assert {cell[1] for cell in found(claims, "schedules")} == {"power"}
    assert checks(claims) == {}
    alone = LENGTH.claims(result.sel(mechanism=["vanilla", "power"]))
    assert {cell[0] for cell in found(alone, "position-optimum")} == {"vanilla", "power"}
    assert found(alone, "extrapolation") == found(alone, "schedules") == {}


def test_the_check_of_dilution(result):
    check = checks(LENGTH.claims(result))["length-dilution"]
    beyond = result["effective_support"].sel(mechanism="vanilla", length=[16, 32, 64, 128])
    slope = np.polyfit(np.log([16, 32, 64, 128]), np.log(beyond.transpose("length", "seed")), 1)[0]
    assert check.estimate.value == pytest.approx(np.abs(slope - 1).mean())
    linear = known(PAPER, FACTORS)
    assert checks(LENGTH.judge(PAPER, linear))["length-dilution"].passed == "passed"
    flat = linear.assign(effective_support=linear["effective_support"].clip(max=128))
    assert checks(LENGTH.judge(PAPER, flat))["length-dilution"].passed == "failed"


def test_a_diverged_schedule_is_left_out():
    config = LengthConfig(
        seeds=2,
        train_lengths=(4,),
        test_lengths=(4, 8),
        contexts=4,
        steps=8,
        held_out=2,
        learning_rates=(1e38,),
    )
    with np.errstate(all="ignore"):
        data = LENGTH.run(config, silent)
    assert data["diverged"].any()
    for name in ("mse", "effective_support", "learned_inverse_temperature"):
        assert (data[name].isnull().all("length") == data["diverged"]).all()
    assert data["oracle"].notnull().all()


def test_figure_shows_training_range_baselines_and_schedules(result):
    left, middle, right = LENGTH.plot(result).axes
    labels = left.get_legend_handles_labels()[1]
    assert {"training", "exact Bayes (GP posterior)", "best τ per n", *DEFAULT} <= set(labels)
    for ax in (left, middle, right):
        assert ax.get_xscale() == ax.get_yscale() == "log"
        span = ax.patches[0].get_extents().transformed(ax.transData.inverted())
        np.testing.assert_allclose((span.x0, span.x1), (4, 16))
    drawn = {tuple(np.round(line.get_ydata(), 9)) for line in middle.get_lines()}
    assert tuple(np.round(result["best_inverse_temperature"].values, 9)) in drawn


def test_presets():
    assert LENGTH.preset("smoke").seeds < 16
    paper = LENGTH.preset("paper")
    assert paper.seeds >= 64
    assert max(paper.test_lengths) == 16 * max(paper.train_lengths) == 2048
    assert LENGTH.preset("large").seeds > paper.seeds
    assert json.loads(paper.model_dump_json())
    assert paper.problem.layer(mechanism("yarn")).mechanism.query == YaRN(128)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"noise": 0.0}, "greater than 0"),
        ({"noise": float("nan")}, "finite number"),
        ({"dim": 0}, "greater than or equal to 1"),
        (
            {"train_lengths": (0, 4)},
            r"train_lengths must be different lengths in \[1, 8192\], got \(0, 4\)",
        ),
        (
            {"test_lengths": (4, 9000)},
            r"test_lengths must be different lengths in \[1, 8192\], got \(4, 9000\)",
        ),
        ({"test_lengths": (4, 4)}, "test_lengths must be different lengths"),
        ({"mechanisms": ()}, "mechanisms must be different and at least one"),
        ({"batch_size": 48}, "batch_size must divide the 1024 training queries"),
        ({"mechanisms": ("alibi",)}, "unknown mechanism 'alibi'"),
        ({"mechanisms": ("ssa-feature",)}, "mechanism ssa-feature needs a given scalar"),
    ],
)
def test_bad_config(fields, message):
    with pytest.raises(ValidationError, match=message):
        LengthConfig(**fields)


def test_a_singular_covariance_is_an_error_with_a_remedy():
    config = LengthConfig(
        seeds=1, dim=2, length_scale=30.0, noise=1e-9, test_lengths=(4, 200), train_lengths=(128,)
    )
    with pytest.raises(ValueError, match="not positive definite to rounding with noise 1e-09"):
        LENGTH.run(config, silent)


def test_given_scores_feel_a_shift_after_the_temperature():
    """ReLA keeps the keys with tau (s + b) above zero, given scores or not."""
    layer = KernelRegressionProblem().layer(mechanism("rela+ssa-position"))
    scores = torch.tensor([[[0.9], [0.5], [-0.2]]], dtype=torch.float64)
    parameters = layer.initial_parameters([member_generator(0, Stream.PARAMETER)])
    parameters["shift.offset"] = parameters["shift.offset"] - 0.4
    inputs = Inputs(given=scores, count=3.0)
    tau = layer.inverse_temperature("query", parameters, inputs)
    np.testing.assert_allclose(layer.scores(parameters, inputs), tau * (scores - 0.4))
    np.testing.assert_allclose(layer.rows(parameters, inputs)[0, :, 0], [5 / 6, 1 / 6, 0])


def test_any_mechanism_that_fits_is_compared_with_the_baselines_of_all_seeds():
    problem = KernelRegressionProblem(
        train_lengths=(4, 8), test_lengths=(8, 16), contexts=4, held_out=2
    )
    data = compare(problem, ["vanilla", "entmax15+ssa-position", "sink"], seeds=3, steps=4)
    assert (data["mse"] > data["bayes"]).all()
    assert (data["oracle"] > data["bayes"]).all()
    assert (data["oracle"].mean("seed") <= data["best_vanilla"].mean("seed") * (1 + 1e-3)).all()
    least = data["softmax_risk"].mean("seed").min("tau")
    np.testing.assert_allclose(data["oracle"].mean("seed"), least, rtol=1e-2)
    with pytest.raises(ValueError, match="batch_size must divide"):
        KernelRegressionProblem(batch_size=48)
