"""The denoising experiment: what a run stores, that it is paired and reproducible, and what its
claims and figure say.
"""

import json

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from pydantic import ValidationError

from analysis.experiments.base import silent
from analysis.experiments.denoise import DENOISE, DenoiseConfig
from analysis.run.runner import execute
from ssa_theory import Stream, member_generator
from ssa_theory.mechanism import Layer
from tasks.denoising import DenoisingTask

SMALL = {
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
    config = DenoiseConfig(**SMALL | FEW | {"steps": 1, "cooldown_steps": 0, "learning_rate": 1e-6})
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
        | {"mechanisms": ("vanilla",), "swept_mechanisms": ("vanilla",), "learning_rate": 1e30}
    )
    dataset = DENOISE.run(config, silent)
    assert dataset["diverged"].all()
    assert np.isnan(dataset["mse"]).all()
    assert {c.verdict for c in DENOISE.claims(dataset) if "vanilla" in c.id} == {"inconclusive"}
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


def test_claims_are_computed_from_the_numbers(result):
    ledger = {c.id: c for c in DENOISE.claims(result)}
    assert {
        "denoise-naive-above-vanilla",
        "denoise-vanilla-above-value-sigmoid",
        "denoise-ssa-mlp-value-above-bayes",
        "denoise-bayes-above-oracle",
        "denoise-bound-ssa-mlp-value",
        "denoise-no-gain-ssa-mlp-value",
        "denoise-ssa-mlp-value-above-gate-and-sink",
        "denoise-gate-and-sink-beyond-additive",
        "denoise-ssa-mlp-value-floor",
    } <= set(ledger)
    assert "denoise-no-gain-value-tanh" not in ledger  # not among the swept mechanisms
    at = result.sel(setting="default")
    claim = ledger["denoise-naive-above-vanilla"]
    paired = at["held_out_naive"].values - at["mse"].sel(mechanism="vanilla").values
    assert_allclose(claim.estimate.value, paired.mean())
    assert claim.estimate.seeds == claim.requested_seeds == 3
    better = result.copy(deep=True)
    better["mse"].loc[{"mechanism": "value-sigmoid", "setting": "default"}] = float(
        at["additive"]
    ) * np.array([1.0, 1.01, 1.02])
    assert {c.id: c.verdict for c in DENOISE.claims(better)}[
        "denoise-bound-value-sigmoid"
    ] == "supported"
    better["mse"].loc[{"mechanism": "value-sigmoid", "setting": "default"}] = float(
        at["additive"]
    ) * np.array([1.1, 1.11, 1.12])
    assert {c.id: c.verdict for c in DENOISE.claims(better)}[
        "denoise-bound-value-sigmoid"
    ] == "not supported"
    equal = result.copy(deep=True)
    equal["mse"].loc[{"mechanism": "value-sigmoid"}] = (
        equal["mse"].sel(mechanism="vanilla").values * 1.005
    )
    claim = {c.id: c for c in DENOISE.claims(equal)}["denoise-no-gain-value-sigmoid"]
    assert claim.verdict == "supported"
    assert_allclose(claim.estimate.value, 0.005)


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
        **SMALL | {"steps": 120, "learning_rate": 2.0, "seeds": 4, "swept_filler_noise": ()},
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
