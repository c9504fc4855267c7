"""The denoising experiment: what a run stores, that it is paired and reproducible, and what its
claims and figure say.
"""

import json

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from pydantic import ValidationError

from analysis.claims.claim import Check
from analysis.claims.registry import registry
from analysis.claims.rule import cell_of
from analysis.experiments.base import silent
from analysis.experiments.denoise import DENOISE, DenoiseConfig
from analysis.run.runner import execute
from ssa_theory import Stream, member_generator
from ssa_theory.mechanism import Layer
from tasks.denoising import DenoisingTask
from tests.analysis.evidence import checks, found, missing, said

SMALL = {
    "learning_rates": (0.05,),
    "seeds": 3,
    "dim": 3,
    "length": 4,
    "steps": 6,
    "cooldown_steps": 2,
    "batch_size": 16,
    "held_out": 40,
    "swept_filler_noise": (4.0,),
    "device": "cpu",
}
FEW = {
    "mechanisms": ("vanilla", "value-sigmoid", "gate-and-sink"),
    "swept_mechanisms": ("vanilla", "value-sigmoid", "gate-and-sink"),
}


@pytest.fixture(scope="module")
def result() -> xr.Dataset:
    config = DenoiseConfig(**SMALL)
    dataset = DENOISE.run(config, silent)
    return dataset


def test_result_has_the_declared_variables(result):
    assert (
        result["mse"].dims
        == result["gap_ratio"].dims
        == result["diverged"].dims
        == ("mechanism", "seed", "setting")
    )
    assert result["gate_saturation"].dims == ("mechanism", "seed", "setting", "bound")
    for name in ("bayes", "bayes_error", "naive", "shrunk", "threshold", "additive", "oracle"):
        assert result[name].dims == ("setting",)
        assert np.isfinite(result[name]).all()
        assert result[name].attrs["description"]
    assert result["setting"].values.tolist() == ["default", "no information", "s_noise 4"]
    assert_allclose(result["filler_noise"], [2.5, np.hypot(1, 0.5), 4.0])
    swept = ["vanilla", "ssa-mlp-value", "value-sigmoid", "gate-and-sink"]
    assert np.isfinite(result["mse"].sel(setting="default")).all()
    assert np.isfinite(result["mse"].sel(mechanism=swept)).all()
    assert np.isnan(result["mse"].sel(setting="s_noise 4").drop_sel(mechanism=swept)).all()
    assert not result["diverged"].any()
    gated = ["ssa-mlp-value", "value-tanh", "value-sigmoid", "ssa-mlp"]
    for name in ("gate_by_norm", "gate_floor", "gate_saturation"):
        at = result[name].sel(setting="default") if "setting" in result[name].dims else result[name]
        assert np.isfinite(at.sel(mechanism=gated)).all()
        assert np.isnan(at.drop_sel(mechanism=gated)).all()


def test_baselines_are_the_tasks_and_paired_with_the_models(result):
    for setting in result["setting"].values:
        at = result.sel(setting=setting)
        task = DenoisingTask(dim=3, length=4, filler_noise=float(at["filler_noise"]))
        for name in ("naive", "shrunk", "threshold", "additive", "oracle"):
            assert float(at[name]) == task.risk(name)
        pooled = []
        for seed in range(3):
            held_out = task.sample(40, member_generator(seed, Stream.EVALUATION))
            posterior = task.bayes_posterior(held_out.tokens)
            pooled.append(posterior.variance)
            naive = (
                posterior.variance.mean() + ((held_out.tokens.mean(1) - posterior.mean) ** 2).mean()
            )
            assert_allclose(at["held_out_bayes"].sel(seed=seed), posterior.variance.mean())
            assert_allclose(at["held_out_naive"].sel(seed=seed), naive)
        assert_allclose(at["bayes"], np.mean(pooled))
        assert_allclose(at["bayes_error"], np.std(pooled, ddof=1) / np.sqrt(120))
    assert (result["mse"] >= result["held_out_bayes"]).where(result["mse"].notnull(), True).all()
    ratio = (result["mse"] - result["held_out_bayes"]) / (result["naive"] - result["bayes"])
    xr.testing.assert_allclose(result["gap_ratio"], ratio.transpose("mechanism", "seed", "setting"))


def test_untrained_readout_is_near_the_mean_token():
    """Before training, the vanilla model attends almost uniformly and passes values on: its risk is
    that of the mean.
    """
    config = DenoiseConfig(
        **SMALL | FEW | {"steps": 1, "cooldown_steps": 0, "learning_rates": (1e-6,)}
    )
    dataset = DENOISE.run(config, silent)
    mse = dataset["mse"].sel(mechanism=["vanilla", "value-sigmoid"], setting="default")
    assert_allclose(
        mse, dataset["held_out_naive"].sel(setting="default").expand_dims(mechanism=2), rtol=0.15
    )


def test_a_seed_does_not_depend_on_the_others_and_repeats(result):
    few = result["mse"].sel(mechanism=list(FEW["mechanisms"]))
    alone = DENOISE.run(DenoiseConfig(**SMALL | FEW | {"seeds": 1, "first_seed": 2}), silent)
    assert_allclose(alone["mse"].sel(seed=2), few.sel(seed=2), rtol=1e-4)
    again = DENOISE.run(DenoiseConfig(**SMALL | FEW), silent)
    assert (again["mse"] == few).all()
    assert (result["mse"].sel(seed=0) != result["mse"].sel(seed=1)).any()


def test_diverged_models_are_marked_and_left_out():
    config = DenoiseConfig(
        **SMALL
        | {"mechanisms": ("vanilla",), "swept_mechanisms": ("vanilla",), "learning_rates": (1e30,)}
    )
    dataset = DENOISE.run(config, silent)
    assert dataset["diverged"].all()
    assert np.isnan(dataset["mse"]).all()
    assert {check.passed for check in checks(DENOISE.claims(dataset)).values()} == {"open"}
    assert (
        "9 diverged models left out" in DENOISE.plot(dataset).get_suptitle()
    )  # 3 seeds at 3 settings


@pytest.mark.parametrize("query", ["readout", "last"])
def test_training_finds_the_gate(query):
    """A short training at a small size already separates gated from vanilla, in the order of the
    baselines.
    """
    config = DenoiseConfig(
        **SMALL
        | {
            "seeds": 2,
            "dim": 4,
            "steps": 150,
            "cooldown_steps": 50,
            "batch_size": 128,
            "held_out": 1000,
            "swept_filler_noise": (),
            "mechanisms": ("vanilla", "value-sigmoid", "gate-and-sink"),
            "swept_mechanisms": ("vanilla",),
            "query": query,
        }
    )
    dataset = DENOISE.run(config, silent)
    mse = dataset["mse"].sel(setting="default").mean("seed")
    vanilla, gated, sink = (
        float(mse.sel(mechanism=v)) for v in ("vanilla", "value-sigmoid", "gate-and-sink")
    )
    bayes = float(dataset["held_out_bayes"].sel(setting="default").mean())
    assert bayes < sink < gated < 0.93 * vanilla
    assert gated < 1.15 * float(dataset["additive"].sel(setting="default"))


def synthetic(seeds=12, **changes) -> xr.Dataset:
    """A result of the paper preset's axes in which the risk above Bayes of each mechanism is known:
    its level times a factor of the seed of its own, so that a ratio differs by seed.
    """
    config = DENOISE.preset("paper").model_copy(update={"seeds": seeds})
    names, model = list(config.mechanisms), ("mechanism", "seed", "setting")
    level = np.array([changes.get(name.replace("-", "_"), 0.5) for name in names])
    generator = np.random.default_rng(0)
    noise = np.exp(0.01 * generator.standard_normal((len(names), seeds, len(config.noises))))
    excess = level[:, None, None] * noise
    closed = {"naive": 1.0, "bayes": 0.2, "additive": 0.4, "shrunk": 0.8}
    dataset = xr.Dataset(
        {
            "excess": (model, excess),
            "mse": (model, 0.2 + excess),
            "gate_floor": (model, np.full_like(excess, 0.05 * np.log(config.length))),
            "held_out_naive": (model[1:], np.full(excess.shape[1:], 1.0)),
        }
        | {name: ("setting", np.full(len(config.noises), v)) for name, v in closed.items()},
        coords={"mechanism": names, "seed": np.arange(seeds), "setting": list(config.noises)},
    )
    return dataset.assign_attrs(experiment="denoise", config=config.model_dump_json())


def effect(dataset: xr.Dataset, first: str, second: str, setting: str = "default") -> float:
    """The mean over seeds of log(second / first), above Bayes: positive where the first is better."""
    logs = [
        np.log(float(dataset["excess"].sel(mechanism=second, setting=setting, seed=s)))
        - np.log(float(dataset["excess"].sel(mechanism=first, setting=setting, seed=s)))
        for s in dataset["seed"].values
    ]
    return sum(logs) / len(logs)


def test_every_declared_cell_is_compared():
    assert missing(DENOISE.claims(synthetic()), "denoising", "floor", "beyond", "query") == [
        ("query", cell)
        for cell in registry().topics["query"].cells  # of the ablation
    ]


def test_tests_are_log_ratios_that_favour_the_sentence():
    data = synthetic(ssa_mlp_value=0.25, value_tanh=0.2, gate_and_sink=0.1, ssa_mlp_query=0.51)
    lines = DENOISE.claims(data)
    denoising = found(lines, "denoising")
    settings = {"0.6": "s_noise 0.6", "1.7": "s_noise 1.7", "2.5": "default", "4": "s_noise 4"}
    assert set(denoising) == {(noise, "vanilla") for noise in settings}
    for noise, setting in settings.items():
        test = denoising[noise, "vanilla"]
        wanted = effect(data, "ssa-mlp-value", "vanilla", setting)
        assert test.effect.value == pytest.approx(wanted)
        assert wanted == pytest.approx(np.log(2), abs=0.02)
        assert (test.effect.seeds, test.requested_seeds, said(test)) == (12, 12, "benefit")
    floor = found(lines, "floor")
    wanted = effect(data, "value-tanh", "ssa-mlp-value")
    assert floor["value-tanh",].effect.value == pytest.approx(wanted)
    assert [said(floor[c]) for c in (("value-tanh",), ("value-sigmoid",))] == ["benefit", "harm"]
    (share,) = (v for k, v in floor["value-tanh",].parts.items() if "floor" in k)
    assert share.value == pytest.approx(0.1)
    beyond = found(lines, "beyond")
    wanted = effect(data, "gate-and-sink", "ssa-mlp-value")
    assert beyond["ssa-mlp-value",].effect.value == pytest.approx(wanted)
    bound = np.log(0.4 - 0.2) - np.log(data["excess"].sel(mechanism="gate-and-sink")).sel(
        setting="default"
    )
    assert beyond["best additive estimator",].effect.value == pytest.approx(float(bound.mean()))
    query = found(lines, "query")["denoising, query readout", "alone"]
    assert query.effect.value == pytest.approx(effect(data, "ssa-mlp-query", "vanilla"))
    assert said(query) == "equivalent"
    assert (
        cell_of(registry().topics["query"], query) is None
    )  # a constant query is no declared task


def test_diverged_seeds_count_as_lost():
    data = synthetic(ssa_mlp_value=0.25)
    data["excess"].loc[{"mechanism": "ssa-mlp-value", "seed": [3], "setting": "default"}] = np.nan
    test = found(DENOISE.claims(data), "denoising")["2.5", "vanilla"]
    assert (test.effect.seeds, said(test)) == (11, "missing")
    assert said(found(DENOISE.claims(data), "denoising")["4", "vanilla"]) == "benefit"


def test_checks_are_of_the_exact_estimators():
    at = checks(DENOISE.claims(synthetic(vanilla=0.61, value_tanh=0.2, value_sigmoid=0.3)))
    passed = {key.removeprefix("denoise-"): check.passed for key, check in at.items()}
    assert passed == {
        "vanilla-naive": "passed",  # .81 of 1
        "vanilla-shrunk": "passed",  # .81 of .8
        "bound-ssa-mlp-value": "failed",  # .7 of .4
        "bound-value-tanh": "passed",  # .4 of .4
        "bound-value-sigmoid": "failed",  # .5 of .4
        "uninformed-ssa-mlp-value": "failed",  # .7 of .81
        "uninformed-value-sigmoid": "failed",
    }
    assert at["denoise-bound-value-tanh"].estimate.value == pytest.approx(1, abs=0.01)
    passed = checks(DENOISE.claims(synthetic(ssa_mlp_value=0.51)))
    assert passed["denoise-uninformed-ssa-mlp-value"].passed == "passed"


def test_no_more_is_claimed_than_is_trained(result):
    assert {noise for noise, _ in found(DENOISE.claims(result), "denoising")} == {"2.5", "4"}
    few = DenoiseConfig(
        **SMALL, mechanisms=("vanilla", "value-tanh"), swept_mechanisms=("vanilla",)
    )
    dataset = result.sel(mechanism=list(few.mechanisms)).assign_attrs(config=few.model_dump_json())
    assert all(isinstance(line, Check) for line in DENOISE.claims(dataset))
    assert "denoise-bound-value-tanh" in checks(DENOISE.claims(dataset))


def test_figure_shows_every_method_and_explains_the_point_without_information(result):
    figure = DENOISE.plot(result)
    bars, sweep, gate = figure.axes
    labels = [t.get_text() for t in bars.get_yticklabels()]
    assert len(labels) == 6 + result.sizes["mechanism"]
    assert {
        "Bayes",
        "mean token",
        "oracle (relevance known)",
        "gate-and-sink",
        "ssa-mlp-value",
    } <= set(labels)
    assert {bool(p.get_hatch()) for p in bars.patches} == {True, False}  # told apart without colour
    widths = [p.get_width() for p in bars.patches]
    assert widths == sorted(widths, reverse=True)
    assert any("cannot gain" in t.get_text() for t in sweep.texts)
    assert len(gate.lines) >= 2 + 4


def test_smoke_run_end_to_end(tmp_path, quick_figures):
    config = DENOISE.preset("smoke").model_copy(
        update={"device": "cpu", "steps": 3, "cooldown_steps": 1, "seeds": 2}
    )
    dataset, claims, trained = execute(DENOISE, config, tmp_path)
    assert trained
    assert claims
    assert json.loads(dataset.attrs["config"])["steps"] == 3
    assert {p.name for p in (tmp_path / "denoise").iterdir()} >= {
        "result.nc",
        "claims.json",
        "figure.png",
        "figure.svg",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 15}, "less than or equal to 14"),
        ({"relevance": 0.0}, "greater than 0"),
        ({"signal_noise": 0.0}, "greater than 0"),
        ({"swept_filler_noise": (-1.0,)}, r"swept_filler_noise must be positive, got \[-1.0\]"),
        ({"swept_filler_noise": (2.5,)}, "must all be different"),
        ({"filler_noise": float(np.hypot(1.0, 0.5))}, "must all be different"),
        ({"mechanisms": ("gate-and-sink", "gate-and-sink")}, "mechanisms must be different"),
        ({"mechanisms": ()}, "mechanisms must be different and at least one"),
        ({"mechanisms": ("vanilla",)}, "swept_mechanisms must be among mechanisms"),
        ({"mechanisms": ("gated",), "swept_mechanisms": ("gated",)}, "gated needs query tokens"),
        ({"mechanisms": ("ssa-feature",)}, "ssa-feature"),
        ({"flag": 1}, "Extra inputs are not permitted"),
    ],
)
def test_bad_configs_are_rejected(change, message):
    with pytest.raises(ValidationError, match=message):
        DenoiseConfig(**change)


def test_paper_preset_has_at_least_64_seeds():
    assert DENOISE.preset("paper").seeds >= 64
    assert DENOISE.preset("large").seeds > DENOISE.preset("paper").seeds


def test_a_saturated_gate_is_marked_and_named_in_the_caption(monkeypatch):
    """From a small W_v and with large steps the gate runs to its upper bound: the trap that must
    not stay silent.
    """
    usual = Layer.initial_parameters

    def small_values(layer, generators):
        start = usual(layer, generators)
        return start | {"value": 1e-3 * start["value"]}

    monkeypatch.setattr(Layer, "initial_parameters", small_values)
    config = DenoiseConfig(
        **SMALL | {"steps": 120, "learning_rates": (2.0,), "seeds": 4, "swept_filler_noise": ()},
        mechanisms=("vanilla", "value-tanh"),
        swept_mechanisms=("vanilla",),
    )
    dataset = DENOISE.run(config, silent)
    marked = dataset["gate_saturated"].sel(mechanism="value-tanh", setting="default")
    upper = dataset["gate_saturation"].sel(mechanism="value-tanh", setting="default", bound="upper")
    assert marked.any()
    assert (marked == (upper > 0.99)).all()
    assert not dataset["gate_saturated"].sel(mechanism="vanilla").any()
    caption = " ".join(DENOISE.plot(dataset).get_suptitle().split())
    count = int(dataset["gate_saturated"].sum())
    assert f"{count} model{'' if count == 1 else 's'} with a saturated gate" in caption
