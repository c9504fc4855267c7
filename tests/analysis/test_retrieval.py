"""The retrieval experiment end to end, against the exact posterior it compares with."""

import numpy as np
import pytest
import torch
import xarray as xr
from pydantic import ValidationError
from scipy.special import log_softmax

from analysis.experiments.base import silent
from analysis.experiments.retrieval import RETRIEVAL, RetrievalConfig
from analysis.problems import RetrievalProblem, compare
from ssa_theory.mechanism import mechanism
from ssa_theory.seeds import Stream, member_generator
from tasks.retrieval import NoisyRetrievalTask
from tests.analysis.evidence import found, missing, said


@pytest.fixture(scope="module")
def config():
    return RetrievalConfig(
        learning_rates=(0.3,),
        seeds=5,
        dim=4,
        keys=8,
        steps=120,
        cooldown_steps=40,
        held_out=128,
        tested_keys=(4, 16),
    )


@pytest.fixture(scope="module")
def result(config):
    return RETRIEVAL.run(config, silent)


def test_variables_and_dimensions(result):
    dims = {
        "cross_entropy": ("mechanism", "seed", "noise"),
        "accuracy": ("mechanism", "seed", "noise"),
        "inverse_temperature": ("mechanism", "seed", "noise"),
        "gap_ratio": ("mechanism", "seed", "noise"),
        "bayes": ("seed", "noise"),
        "bayes_error": ("seed", "noise"),
        "bayes_accuracy": ("seed", "noise"),
        "common": ("seed", "noise"),
        "naive": (),
        "cross_entropy_by_keys": ("mechanism", "seed", "keys"),
        "bayes_by_keys": ("seed", "keys"),
        "diverged": ("mechanism", "seed"),
    }
    assert {name: result[name].dims for name in dims} == dims
    assert all("description" in result[name].attrs for name in dims)
    assert result["noise"].values.tolist() == [0.1, 0.2, 0.4, 0.8]
    assert float(result["naive"]) == pytest.approx(np.log(8))
    assert not result["diverged"].any()


def test_bayes_is_computed_on_the_named_seeds_held_out_problems(result):
    generator = member_generator(3, Stream.EVALUATION)
    for s in (0.1, 0.2):
        task = NoisyRetrievalTask(4, 8, (s,))
        log_p = task.log_posterior(task.sample(128, generator))
    entropy = -(np.exp(log_p) * log_p).sum(1)
    cell = result.sel(seed=3, noise=0.2)
    assert float(cell["bayes"]) == pytest.approx(entropy.mean())
    assert float(cell["bayes_error"]) == pytest.approx(entropy.std(ddof=1) / np.sqrt(128))
    assert float(cell["bayes_accuracy"]) == pytest.approx(np.exp(log_p).max(1).mean())


def test_bayes_agrees_with_an_independent_monte_carlo(result):
    for s in result["noise"].values.tolist():
        risk = NoisyRetrievalTask(4, 8, (s,)).bayes_risk(s, 4000, np.random.default_rng(0))
        pooled = result.sel(noise=s)
        error = float(
            np.sqrt((pooled["bayes_error"] ** 2).mean() / 5 + risk.cross_entropy_error**2)
        )
        assert abs(float(pooled["bayes"].mean()) - risk.cross_entropy) < 4 * error


def test_no_model_beats_bayes_and_selective_ones_come_near(result):
    for value, bayes in (("cross_entropy", "bayes"), ("cross_entropy_by_keys", "bayes_by_keys")):
        assert (result[value] >= result[bayes] - 1e-12).all()
    assert (result["accuracy"] <= result["bayes_accuracy"] + 1e-12).all()
    gap = (result["cross_entropy"] - result["bayes"]).mean(("seed", "noise"))
    assert gap.sel(mechanism="ssa-feature-exp") < gap.sel(mechanism="ssa-feature") < 0.1
    assert gap.sel(mechanism="vanilla") > 0.2
    common = (result["common"] - result["bayes"]).mean(("seed", "noise"))
    assert (
        0.2 < common < gap.sel(mechanism="vanilla") + 0.02
    )  # vanilla is near the best that it can do
    expected = (result["cross_entropy"] - result["bayes"]) / (np.log(8) - result["bayes"])
    np.testing.assert_allclose(result["gap_ratio"], expected)


def test_learned_temperature_rises_with_one_over_variance(result):
    tau = result["inverse_temperature"].transpose("mechanism", "seed", "noise")
    for v in ("ssa-feature", "ssa-feature-exp"):
        assert (tau.sel(mechanism=v).diff("noise") < 0).all()
    assert np.ptp(tau.sel(mechanism="vanilla").values, axis=-1).max() == 0
    exact = tau.sel(mechanism="ssa-feature-exp", noise=0.4).mean()
    assert float(exact) == pytest.approx(1 / 0.4**2, rel=0.2)


def test_common_is_the_best_single_temperature_on_the_same_problems(result):
    generator = member_generator(0, Stream.EVALUATION)
    log_p, dots = [], []
    for s in (0.1, 0.2, 0.4, 0.8):
        task = NoisyRetrievalTask(4, 8, (s,))
        batch = task.sample(128, generator)
        log_p.append(task.log_posterior(batch))
        dots.append(np.einsum("skd,sd->sk", batch.keys, batch.query))
    log_p, dots = np.stack(log_p), np.stack(dots)
    dense = [
        -(np.exp(log_p) * log_softmax(c * dots, axis=2)).sum(2).mean()
        for c in np.geomspace(1, 100, 300)
    ]
    assert float(result["common"].sel(seed=0).mean()) == pytest.approx(min(dense), abs=1e-4)


def test_a_seed_does_not_depend_on_its_company(config, result):
    alone = RETRIEVAL.run(config.model_copy(update={"seeds": 1, "first_seed": 2}), silent)
    for name in ("cross_entropy", "inverse_temperature", "bayes", "cross_entropy_by_keys"):
        np.testing.assert_allclose(alone[name].squeeze("seed"), result[name].sel(seed=2), rtol=2e-3)


def test_a_diverged_model_is_nan_and_leaves_the_others_alone():
    config = RetrievalConfig(
        seeds=2,
        dim=2,
        keys=4,
        steps=5,
        cooldown_steps=0,
        held_out=8,
        tested_keys=(4,),
        learning_rates=(1e38,),
    )
    with np.errstate(all="ignore"):
        data = RETRIEVAL.run(config, silent)
    assert data["diverged"].any()
    assert (data["cross_entropy"].isnull().all("noise") == data["diverged"]).all()
    assert (data["accuracy"].isnull().all("noise") == data["diverged"]).all()
    assert data["bayes"].notnull().all()


PAPER = RETRIEVAL.preset("paper")
FACTORS = {"vanilla": 1.5, "ssa-feature": 1.02, "ssa-feature-exp": 1.2}


def known(config, factors):
    """Cross-entropies: of Bayes 1 with noise by seed, of each mechanism a factor of it, at most keys
    of twice as much; of the best single temperature 1.2 times as much.
    """
    noise = np.random.default_rng(0)
    axes = {
        "mechanism": list(factors),
        "seed": np.arange(64),
        "noise": list(config.noise_levels),
        "keys": list(config.tested_keys),
    }
    _, seeds, levels, keys = map(len, axes.values())
    bayes = np.exp(noise.normal(0, 0.1, (seeds, levels)))
    by_keys = np.exp(noise.normal(0, 0.1, (seeds, keys)))
    factor = np.array(list(factors.values()))[:, None, None]
    doubled = np.where(np.array(config.tested_keys) == max(config.tested_keys), 2, 1)
    tau = np.array(config.noise_levels) ** -2.0
    data = {
        "cross_entropy": (("mechanism", "seed", "noise"), factor * bayes),
        "bayes": (("seed", "noise"), bayes),
        "common": (("seed", "noise"), 1.2 * bayes),
        "cross_entropy_by_keys": (("mechanism", "seed", "keys"), doubled * factor * by_keys),
        "bayes_by_keys": (("seed", "keys"), by_keys),
        "inverse_temperature": (
            ("mechanism", "seed", "noise"),
            np.broadcast_to(tau, (len(factors), seeds, levels)),
        ),
    }
    return xr.Dataset(data, axes)


LINKS = {"1 + tanh": "ssa-feature", "exp": "ssa-feature-exp", "vanilla": "vanilla"}


def test_tests_follow_the_cross_entropies():
    tests = found(RETRIEVAL.judge(PAPER, known(PAPER, FACTORS)), "retrieval")
    assert len(tests) == 3 * 2
    for (link, keys), test in tests.items():
        factor = FACTORS[LINKS[link]] * (2 if keys == "the most" else 1)
        assert test.effect.value == pytest.approx(-np.log(factor))
        assert said(test) == ("benefit" if factor < 1.05 else "harm")
        assert (test.effect.seeds, test.requested_seeds) == (64, 64)


def test_gains_are_ratios_of_what_is_above_bayes():
    tests = found(RETRIEVAL.judge(PAPER, known(PAPER, FACTORS)), "retrieval-gain")
    assert set(tests) == {
        (link, p) for link in ("1 + tanh", "exp") for p in ("vanilla", "best constant")
    }
    for (link, peer), test in tests.items():
        above = {"vanilla": 0.5, "best constant": 0.2}[peer] / (FACTORS[LINKS[link]] - 1)
        assert test.effect.value == pytest.approx(np.log(above))
        equal = link == "exp" and peer == "best constant"
        assert said(test) == ("equivalent" if equal else "benefit")


def test_every_declared_cell_is_produced():
    claims = RETRIEVAL.judge(PAPER, known(PAPER, dict.fromkeys(PAPER.mechanisms, 1.0)))
    assert missing(claims, "retrieval", "retrieval-gain", "retrieval-temperature") == []
    few = known(PAPER, {"ssa-feature": 1.1})
    assert set(found(RETRIEVAL.judge(PAPER, few), "retrieval-gain")) == {
        ("1 + tanh", "best constant")
    }


@pytest.mark.parametrize(("lost", "outcome"), [(3, "benefit"), (4, "missing")])
def test_diverged_seeds_count_as_lost(lost, outcome):
    data = known(PAPER, FACTORS)
    gone = {"mechanism": "ssa-feature", "seed": range(lost)}
    data["cross_entropy"].loc[gone] = np.nan
    claims = RETRIEVAL.judge(PAPER, data)
    for topic, cell in (
        ("retrieval", ("1 + tanh", "as trained")),
        ("retrieval-gain", ("1 + tanh", "vanilla")),
    ):
        test = found(claims, topic)[cell]
        assert (test.lost, said(test)) == (lost / 64, outcome)


def test_the_learned_temperatures_are_compared_with_bayes(result):
    test = found(RETRIEVAL.claims(result), "retrieval-temperature")[("1 + tanh",)]
    slope = np.polyfit(
        np.log(1 / result["noise"] ** 2),
        np.log(result["inverse_temperature"].sel(mechanism="ssa-feature").T),
        1,
    )[0]
    assert test.effect.value == pytest.approx(-np.abs(slope - 1).mean())
    data = known(PAPER, FACTORS)
    for power, outcome in ((1, "benefit"), (0.96, "benefit"), (0.9, "harm"), (0.5, "harm")):
        other = data.assign(inverse_temperature=data["inverse_temperature"] ** power)
        tests = found(RETRIEVAL.judge(PAPER, other), "retrieval-temperature")
        assert said(tests[("exp",)]) == outcome


def test_figure_shows_bayes_mechanisms_and_the_identity(result):
    left, middle, right = RETRIEVAL.plot(result).axes
    labels = left.get_legend_handles_labels()[1]
    assert {
        "exact Bayes",
        "best single temperature",
        "vanilla",
        "ssa-feature",
        "ssa-feature-exp",
    } <= set(labels)
    assert middle.get_xscale() == middle.get_yscale() == "log"
    identity = middle.get_lines()[0]
    np.testing.assert_array_equal(identity.get_xdata(), identity.get_ydata())
    assert right.get_yscale() == "log"


def test_presets_and_precisions():
    assert RETRIEVAL.preset("smoke").seeds < 16
    assert RETRIEVAL.preset("paper").seeds >= 64
    assert RETRIEVAL.preset("large").seeds > RETRIEVAL.preset("paper").seeds
    small = {"seeds": 2, "dim": 2, "keys": 4, "steps": 20, "held_out": 16, "tested_keys": (4,)}
    small["learning_rates"] = (0.3,)
    single, double = (
        RETRIEVAL.run(RetrievalConfig(**small, dtype=t), silent) for t in ("float32", "float64")
    )
    np.testing.assert_allclose(single["cross_entropy"], double["cross_entropy"], rtol=0.05)
    assert (single["cross_entropy"] != double["cross_entropy"]).any()
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"noise_levels": (0.1, 0.0)}, "a noise level must be positive and finite, got 0.0"),
        ({"noise_levels": ()}, "noise_levels must be different and at least one"),
        ({"mechanisms": ("vanilla", "vanilla")}, "mechanisms must be different and at least one"),
        ({"tested_keys": (1,)}, r"tested_keys must lie in \[2, 4096\], got 1"),
        ({"dim": 0}, "greater than or equal to 1"),
        ({"keys": 1}, "greater than or equal to 2"),
        ({"mechanisms": ("ssa-tanh",)}, "unknown mechanism 'ssa-tanh'"),
        ({"mechanisms": ("sparsemax",)}, "mechanism sparsemax needs the Brier score"),
        ({"mechanisms": ("ssa-value",)}, "mechanism ssa-value needs a value map"),
        ({"noise": 0.1}, "Extra inputs are not permitted"),
    ],
)
def test_bad_config(fields, message):
    with pytest.raises(ValidationError, match=message):
        RetrievalConfig(**fields)


def test_a_brier_score_takes_any_rows_and_agrees_with_its_baselines():
    problem = RetrievalProblem(4, 8, batch_size=16, held_out=32, tested_keys=(4,), score="brier")
    data = compare(problem, ["vanilla", "sparsemax", "sink", "qk-norm"], seeds=2, steps=10)
    seed1 = member_generator(1, Stream.EVALUATION)
    drawn = [NoisyRetrievalTask(4, 8, (s,)).sample(32, seed1) for s in problem.noise_levels]
    p = np.stack([problem.task.posterior(one) for one in drawn])
    exact, uniform = 1 - (p**2).sum(2).mean(1), 1 - 2 / 8 + 1 / 8
    np.testing.assert_allclose(data["bayes"].sel(seed=1), exact)
    assert float(data["naive"]) == pytest.approx(uniform)
    assert (data["brier_gap"] > 0).all()
    assert (data["brier_gap_by_keys"] > 0).all()
    at_best = (data["common"] - data["bayes"]).mean()
    dots = np.stack([np.einsum("skd,sd->sk", one.keys, one.query) for one in drawn])
    row = np.exp(log_softmax(float(data["common_inverse_temperature"]) * dots, axis=2))
    gap = ((row - p) ** 2).sum(2).mean(1)
    np.testing.assert_allclose(data["common"].sel(seed=1) - exact, gap)
    assert 0 < at_best < (data["naive"] - data["bayes"]).mean()
    assert data["inverse_temperature"].sel(mechanism="qk-norm").isnull().all()
    assert "cross_entropy" not in data


def test_settings_of_a_problem_are_checked():
    with pytest.raises(ValueError, match="a noise level must be positive"):
        RetrievalProblem(noise_levels=(0.0,))
    with pytest.raises(ValueError, match="needs the Brier score"):
        RetrievalProblem().layer(mechanism("entmax15"))
