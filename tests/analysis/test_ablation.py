"""The ablation: what a run stores, that it is paired and reproducible, and what its claims and
figure say.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from numpy.testing import assert_allclose
from pydantic import ValidationError
from scipy.stats import gmean

from analysis.experiments.ablation import ABLATION, AblationConfig
from analysis.experiments.base import silent
from analysis.problems import GraphProblem, Training, train, train_all
from analysis.problems.denoise import DenoiseBlock
from analysis.run.runner import execute
from ssa_theory import Stream, member_generator
from ssa_theory.mechanism import Layer, mechanism
from tasks import DenoisingTask, MarkovGraphTask, default_text
from tests.analysis.evidence import found, missing, said

LETTERS = AblationConfig().letters_mechanisms
DENOISE = AblationConfig().denoise_mechanisms
SMALL = {
    "learning_rates": (0.05,),
    "seeds": 3,
    "letters_steps": 6,
    "denoise_steps": 4,
    "cooldown_steps": 2,
    "train_lengths": (3, 2),
    "longer_length": 5,
    "bracket_samples": 60,
    "batch_size": 8,
    "held_out": 40,
    "device": "cpu",
}
FEW = {
    "letters_mechanisms": ("vanilla", "ssa-feature", "ssa-mlp-query-key"),
    "denoise_mechanisms": ("vanilla", "ssa-mlp-query-key-value", "ssa"),
}
PAIR = {
    "letters_mechanisms": ("vanilla", "ssa-feature"),
    "denoise_mechanisms": ("vanilla", "ssa-position"),
}


def result_of(config: AblationConfig) -> xr.Dataset:
    return ABLATION.run(config, silent)


@pytest.fixture(scope="module")
def result() -> xr.Dataset:
    return result_of(AblationConfig(**SMALL))


def test_result_has_the_declared_variables(result):
    names = [f"letters-{v}" for v in LETTERS] + [f"denoise-{v}" for v in DENOISE]
    assert result["mechanism"].values.tolist() == names
    assert result["length"].values.tolist() == [2, 3, 5]
    assert (
        result["excess"].dims
        == result["l1_error"].dims
        == result["diverged"].dims
        == ("mechanism", "seed")
    )
    assert result["risk"].dims == ("mechanism", "seed", "length")
    assert all(result[name].attrs["description"] for name in set(result.data_vars) - {"risk_band"})
    assert not result["diverged"].any()
    letters, denoise = (
        result.sel(mechanism=result["part"] == part) for part in ("letters", "denoise")
    )
    assert np.isfinite(letters["l1_error"]).all()
    assert np.isnan(letters["risk"]).all()
    assert np.isfinite(denoise["risk"]).all()
    assert np.isnan(denoise["l1_error"]).all()
    assert (
        result["excess"] > 0
    ).all()  # nothing beats Bayes on the samples whose exact posterior it is
    excess = (denoise["risk"] - result["held_out_bayes"]).isel(length=slice(2)).mean("length")
    assert_allclose(denoise["excess"], excess)
    peer = [f"{part}-vanilla" for part in result["part"].values]
    log = np.log(result["excess"]).mean("seed")
    expected = np.exp(log - log.sel(mechanism=peer).values)
    assert_allclose(result["relative_excess"].sel(estimate="value"), expected)
    assert (
        result["relative_excess"].sel(mechanism=["letters-vanilla", "denoise-vanilla"]) == 1
    ).all()
    assert len(np.unique(result["excess"].isel(seed=0))) > len(names) - 4  # the mechanisms differ


def test_added_parameters_are_counted(result):
    added = dict(
        zip(
            result["mechanism"].values.tolist(),
            result["added_parameters"].values.tolist(),
            strict=True,
        )
    )
    letters = {
        "vanilla": 0,
        "ssa-constant": 1,
        "ssa-position": 1,
        "ssa-feature": 2,
        "ssa-query-key": 24,
    }
    denoise = {"vanilla": 0, "ssa-mlp-value": 162, "ssa-mlp-query-key-value": 3 * 162, "ssa": 18}
    assert {k: added[f"letters-{k}"] for k in letters} == letters
    assert {k: added[f"denoise-{k}"] for k in denoise} == denoise


def test_letters_are_the_graph_models_with_stationary_rows(result):
    """Vanilla and the shared query temperature, without position term, from their learned rows."""
    task = MarkovGraphTask.from_text(default_text())
    pi, true = task.stationary_distribution, task.transition_matrix
    problem = GraphProblem(family="letters", dim=12, row_weights="stationary")
    names = ("vanilla", "ssa-query")
    learned = train_all(
        problem,
        [mechanism(n) for n in names],
        [0, 1, 2],
        Training(6, 0.05),
        torch.device("cpu"),
    )["learned_transition_matrix"]
    for name in names:
        at, rows = result.sel(mechanism=f"letters-{name}"), learned.sel(mechanism=name).values
        surprise = -np.where(true > 0, true * np.log(rows), 0).sum(2) @ pi
        assert_allclose(at["excess"], surprise - task.entropy_rate, rtol=1e-5)
        assert_allclose(at["l1_error"], np.abs(rows - true).sum(2) @ pi, rtol=1e-5)
    assert_allclose(result["entropy_rate"], task.entropy_rate)


def test_position_terms_act_on_letters_only_where_there_is_no_other():
    plain, positioned = AblationConfig().letters
    assert [m.name for m in positioned.mechanisms] == ["ssa-position"]
    assert (plain.problem.position, positioned.problem.position) == (False, True)
    assert len(plain.mechanisms) == len(LETTERS) - 1


def test_the_feature_of_a_letter_is_its_log_frequency(monkeypatch):
    seen = []
    usual = Layer.scores

    def scores(layer, parameters, inputs):
        seen.append(inputs.query.feature)
        return usual(layer, parameters, inputs)

    monkeypatch.setattr(Layer, "scores", scores)
    result_of(AblationConfig(**SMALL | PAIR))
    seen = [feature for feature in seen if feature is not None]
    frequency = MarkovGraphTask.from_text(default_text()).stationary_distribution
    assert len(seen) >= 2 * 7
    for feature in seen:
        assert_allclose(feature.double().softmax(0), np.tile(frequency[:, None], 3), rtol=1e-5)
        assert_allclose(feature.double().mean(0), 0, atol=1e-6)


def test_risks_of_uniform_attention_are_the_closed_form(monkeypatch):
    """An untrained layer with W = 0 is the mean token: at every length its risk is the closed form
    of `naive`.
    """
    usual = Layer.initial_parameters

    def without_scores(layer, generators):
        start = usual(layer, generators)
        return start | {"weight": torch.zeros_like(start["weight"])}

    monkeypatch.setattr(Layer, "initial_parameters", without_scores)
    config = AblationConfig(
        **SMALL
        | PAIR
        | {
            "seeds": 20,
            "held_out": 200,
            "denoise_steps": 1,
            "cooldown_steps": 0,
            "learning_rates": (1e-9,),
        }
    )
    result = result_of(config)
    risk = result["risk"].sel(mechanism="denoise-vanilla")
    naive = np.array([DenoisingTask(length=n).risk("naive") for n in (2, 3, 5)])
    error = risk.std("seed", ddof=1).values / np.sqrt(20)
    assert (error < 0.05 * naive).all()
    assert (np.abs(risk.mean("seed").values - naive) < 4 * error).all()


def test_baselines_are_ordered_and_exact(result):
    # The bound of every value gate is above Bayes, up to the noise of 120 samples; closed forms are
    # the task's own.
    assert (result["bayes_lower"] < result["bayes_upper"]).all()
    assert (result["bayes_lower"] < result["additive"]).all()
    assert (result["additive"] < result["shrunk"]).all()
    assert_allclose(
        result["additive"], [DenoisingTask(length=n).risk("additive") for n in (2, 3, 5)]
    )
    samples = DenoisingTask(length=5).sample(40, member_generator(1, Stream.EVALUATION))
    exact = [
        DenoisingTask(length=n).bayes_posterior(samples.tokens[:, :n]).variance.mean()
        for n in (2, 3)
    ]
    assert_allclose(result["held_out_bayes"].sel(seed=1)[:2], exact)
    bound = result["additive"][:2].mean() - result["held_out_bayes"][:, :2].mean()
    expected = bound / gmean(result["excess"].sel(mechanism="denoise-vanilla"))
    assert_allclose(result["additive_relative_excess"], expected)


def test_training_contexts_have_the_lengths_in_turn(monkeypatch):
    seen = []
    usual = Layer.output

    def output(layer, parameters, inputs):
        samples, length, _, _ = inputs.keys.vector.shape
        assert inputs.query.vector.equal(inputs.keys.vector[:, -1])
        seen.append((samples, length))
        return usual(layer, parameters, inputs)

    monkeypatch.setattr(Layer, "output", output)
    result_of(AblationConfig(**SMALL | PAIR, compile="off"))
    assert seen == 2 * ([(8, 3), (8, 2)] * 3 + [(40, 2), (40, 3), (40, 5)])


def test_a_seed_names_its_models_whatever_is_trained_beside_it(result):
    whole = result_of(AblationConfig(**SMALL | FEW))
    assert whole.identical(result_of(AblationConfig(**SMALL | FEW)))
    alone = result_of(AblationConfig(**SMALL | FEW | {"seeds": 1}, first_seed=2))
    blocks = ABLATION.run(AblationConfig(**SMALL | FEW | {"block_seeds": 2}), silent)
    among = result.sel(mechanism=whole["mechanism"])
    for name in ("excess", "l1_error", "risk", "held_out_bayes"):
        assert_allclose(alone[name].sel(seed=2), whole[name].sel(seed=2), rtol=1e-4)
        assert_allclose(blocks[name], whole[name], rtol=1e-4)
        assert_allclose(among[name], whole[name], rtol=1e-4)
    assert (whole["excess"].sel(seed=0) != whole["excess"].sel(seed=1)).all()


def test_diverged_models_are_marked_and_left_out(result, monkeypatch):
    """Also where the parameters that a diverged model ended with are finite."""
    usual = train.fit
    one = torch.tensor([False, True, False])

    def fit(block, *args, **kwargs):
        fitted = usual(block, *args, **kwargs)
        return replace(fitted, diverged=one) if isinstance(block, DenoiseBlock) else fitted

    monkeypatch.setattr(train, "fit", fit)
    lost = result_of(AblationConfig(**SMALL))
    denoise, letters = (lost.sel(mechanism=lost["part"] == part) for part in ("denoise", "letters"))
    assert (denoise["diverged"] == one.numpy()).all()
    assert not letters["diverged"].any()
    for name in ("excess", "risk"):
        assert np.isnan(denoise[name].sel(seed=1)).all()
        kept = {"mechanism": denoise["mechanism"], "seed": [0, 2]}
        assert_allclose(denoise[name].sel(seed=[0, 2]), result[name].sel(kept))
    line = {c.id: c for c in ABLATION.claims(lost)}["ablation-value-denoising-alone-excess"]
    assert (line.effect.seeds, line.requested_seeds) == (2, 3)
    assert f"{len(DENOISE)} diverged models left out" in ABLATION.plot(lost).get_suptitle()


def synthetic(changes: dict[str, float], seeds: int = 12, noise: float = 0.01) -> xr.Dataset:
    """A result in which every model's errors are known: 1 but for the named factors, with a little
    noise.
    """
    config = AblationConfig(seeds=seeds)
    generator = np.random.default_rng(0)
    names = [f"letters-{v}" for v in LETTERS] + [f"denoise-{v}" for v in DENOISE]
    level = np.array([changes.get(name, 1.0) for name in names])[:, None]
    excess = level * (1 + noise * generator.standard_normal((len(names), seeds)))
    risk = np.repeat(excess[..., None], 4, axis=2)
    dataset = xr.Dataset(
        {
            "excess": (("mechanism", "seed"), excess),
            "l1_error": (("mechanism", "seed"), 2 * excess),
            "risk": (("mechanism", "seed", "length"), risk),
        },
        coords={
            "mechanism": names,
            "seed": np.arange(seeds),
            "length": config.denoise.problem.test_lengths,
        },
    )
    return dataset.assign_attrs(experiment="ablation", config=config.model_dump_json())


TOPICS = (
    "query",
    "key",
    "value",
    "default",
    "token-term",
    "position-term",
    "alternatives",
    "sharing",
)


def test_every_declared_cell_is_compared():
    assert not missing(ABLATION.claims(synthetic({})), *TOPICS)


def test_tests_are_log_ratios_that_favour_the_sentence():
    dataset = synthetic(
        {
            "letters-ssa-query": 0.41,
            "letters-ssa-query-key": 0.4,
            "letters-ssa-key": 1.5,
            "letters-ssa-mlp-query": 0.4,
            "denoise-ssa-mlp-token": 0.3,
            "denoise-ssa-mlp": 0.5,
            "denoise-ssa-mlp-value": 0.95,
            "denoise-ssa-mlp-query": 0.97,
        }
    )
    claims = ABLATION.claims(dataset)
    alone, added = "alone", "added to the others"
    wanted = {
        ("query", "letters", alone): ("ssa-query", "vanilla", "benefit"),
        ("query", "letters", added): ("ssa-query-key", "ssa-key", "benefit"),
        ("query", "letters", "alone, as a constant"): ("ssa-constant", "vanilla", "equivalent"),
        ("query", "denoising", alone): ("ssa-mlp-query", "vanilla", "equivalent"),
        ("query", "denoising", added): (
            "ssa-mlp-query-key-value",
            "ssa-mlp-key-value",
            "equivalent",
        ),
        ("key", "letters", alone): ("ssa-key", "vanilla", "harm"),
        ("key", "letters", added): ("ssa-query-key", "ssa-query", "equivalent"),
        ("key", "denoising", alone): ("ssa-mlp-key", "vanilla", "equivalent"),
        ("key", "denoising", added): ("ssa-mlp-query-key-value", "ssa-mlp", "harm"),
        ("value", "denoising", alone): ("ssa-mlp-value", "vanilla", "unresolved"),
        ("value", "denoising", added): (
            "ssa-mlp-query-key-value",
            "ssa-mlp-query-key",
            "equivalent",
        ),
        ("default", "denoising", "vanilla"): ("ssa-mlp", "vanilla", "benefit"),
        ("token-term", "denoising", alone): ("ssa-mlp-token", "vanilla", "benefit"),
        ("token-term", "denoising", added): ("ssa-mlp", "ssa-position", "benefit"),
        ("position-term", "letters", alone): ("ssa-position", "vanilla", "equivalent"),
        ("position-term", "denoising", alone): ("ssa-position", "vanilla", "equivalent"),
        ("position-term", "denoising", added): ("ssa-mlp", "ssa-mlp-token", "harm"),
        ("position-term", "denoising, 48 tokens", added): ("ssa-mlp", "ssa-mlp-token", "harm"),
        ("alternatives", "constant"): ("ssa-query", "ssa-constant", "benefit"),
        ("alternatives", "frequency"): ("ssa-query", "ssa-feature", "benefit"),
        ("alternatives", "frequency, on keys"): ("ssa-key", "ssa-feature-key", "harm"),
        ("sharing", "query, letters"): ("ssa-mlp-query", "ssa-query", "equivalent"),
        ("sharing", "query and key, letters"): ("ssa-mlp-query-key", "ssa-query-key", "harm"),
        ("sharing", "query and value, denoising"): ("ssa-mlp", "ssa", "benefit"),
    }
    tests = {
        (topic, *cell): test for topic in TOPICS for cell, test in found(claims, topic).items()
    }
    assert set(tests) == set(wanted)
    assert len(claims) == len(wanted)
    for place, (first, second, outcome) in wanted.items():
        test, part = tests[place], "letters" if "letters" in " ".join(place) else "denoise"
        part = "letters" if place[0] == "alternatives" else part
        of = dataset["risk"][..., -1] if "48" in place[1] else dataset["excess"]
        x, y = (of.sel(mechanism=f"{part}-{name}").values for name in (first, second))
        logs = [float(np.log(b) - np.log(a)) for a, b in zip(x, y, strict=True)]
        assert test.effect.value == pytest.approx(sum(logs) / 12), place
        assert (said(test), test.effect.seeds, test.requested_seeds) == (outcome, 12, 12), place
        assert {first, second} <= set(test.parts)
    l1 = [
        dataset["l1_error"].sel(mechanism=f"letters-{v}").values for v in ("ssa-query", "vanilla")
    ]
    part = tests["query", "letters", alone].parts["L1 error of the rows, ratio"]
    assert part.value == pytest.approx(gmean(l1[0]) / gmean(l1[1]))


def test_lost_and_single_seeds_resolve_nothing():
    dataset = synthetic({"letters-ssa-query": 0.4})
    dataset["excess"].loc[{"mechanism": "letters-ssa-query", "seed": 3}] = np.nan
    test = found(ABLATION.claims(dataset), "query")["letters", "alone"]
    assert (test.effect.seeds, said(test)) == (11, "missing")
    assert (
        said(found(ABLATION.claims(dataset), "key")["letters", "added to the others"]) == "missing"
    )
    single = ABLATION.claims(synthetic({}, seeds=1))
    assert {said(test) for topic in TOPICS for test in found(single, topic).values()} == {
        "unresolved"
    }


def test_no_more_is_claimed_than_is_trained():
    few = synthetic({}).sel(mechanism=["letters-vanilla", "letters-ssa-query", "denoise-vanilla"])
    assert [line.id for line in ABLATION.claims(few)] == ["ablation-query-letters-alone-excess"]


def test_figure_shows_every_mechanism_with_its_parameters(result):
    letters, denoise, lengths = ABLATION.plot(result).axes
    labels = [t.get_text() for t in letters.get_yticklabels()]
    assert len(labels) == len(LETTERS)
    assert "ssa-query-key  (+24)" in labels
    assert labels[0] == "vanilla"
    labels = [t.get_text() for t in denoise.get_yticklabels()]
    assert len(labels) == len(DENOISE)
    assert "ssa-mlp-query-key-value  (+486)" in labels
    assert {"vanilla", "Bayes", "L1 error of the rows"} <= set(
        letters.get_legend_handles_labels()[1]
    )
    shown = lengths.get_legend_handles_labels()[1]
    assert {"ssa-mlp-value", "ssa-mlp-token", "best additive"} <= set(shown)
    points = denoise.containers[0].lines[0].get_xdata()
    assert_allclose(points, result["relative_excess"].sel(estimate="value")[len(LETTERS) :])


def test_smoke_run_end_to_end(tmp_path, quick_figures):
    small = {
        "seeds": 2,
        "letters_steps": 3,
        "denoise_steps": 3,
        "cooldown_steps": 1,
        "train_lengths": (2, 4),
    }
    config = ABLATION.preset("smoke").model_copy(update=small | {"device": "cpu"})
    dataset, claims, trained = execute(ABLATION, config, tmp_path)
    assert trained
    assert claims
    assert json.loads(dataset.attrs["config"])["letters_steps"] == 3
    assert {p.name for p in (tmp_path / "ablation").iterdir()} >= {
        "result.nc",
        "claims.json",
        "figure.png",
        "figure.svg",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_lengths": ()}, "train_lengths must be different and at least one"),
        ({"train_lengths": (4, 4)}, "train_lengths must be different"),
        ({"train_lengths": (4, 15)}, r"must lie in \[1, 14\], where Bayes is exact, got 15"),
        ({"train_lengths": (0,)}, "got 0: choose others"),
        ({"longer_length": 12}, "longer_length must exceed the training lengths, got 12"),
        ({"letters_dim": 0}, "greater than or equal to 1"),
        ({"learning_rates": (0.0,)}, "greater than 0"),
        ({"denoise_mechanisms": ("ssa", "ssa-mlp")}, "mechanisms must be vanilla, the peer"),
        ({"letters_mechanisms": ("vanilla", "ssa-mlp-value")}, "ssa-mlp-value needs a value map"),
        ({"flag": 1}, "Extra inputs are not permitted"),
    ],
)
def test_bad_configs_are_rejected(change, message):
    with pytest.raises(ValidationError, match=message):
        AblationConfig(**change)


def test_presets_are_valid_and_of_enough_seeds():
    assert ABLATION.preset("paper").seeds >= 64
    assert ABLATION.preset("large").seeds > ABLATION.preset("paper").seeds
    assert ABLATION.preset("smoke").seeds < 16
    assert ABLATION.caption
