"""The language experiment: its numbers, its choices, its claims, and what it refuses."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import xarray as xr

import ssa_theory.language
from analysis.claims.registry import registry
from analysis.cli import main
from analysis.experiments.base import silent
from analysis.experiments.language import LANGUAGE, LanguageConfig, train, tuning
from analysis.experiments.language.claims import tokens_to
from analysis.experiments.language.latency import median_band
from analysis.experiments.language.sources import source_of
from analysis.experiments.language.train import _models, _passkey
from ssa_theory.language import validation_loss
from ssa_theory.language.ensemble import Ensemble
from ssa_theory.mechanism import mechanism
from tests.analysis.evidence import found, missing

TINY: dict[str, Any] = {
    "dim": 4,
    "heads": 1,
    "layers": 1,
    "context": 12,
    "steps": 4,
    "batch": 2,
    "rates": (0.05,),
    "scales": (2.5,),
    "tuning_seeds": 1,
    "validation_tokens": 200,
    "measured_tokens": 30,
    "passkeys": 1,
    "passkey_share": 0.5,
    "records": 3,
    "device": "cpu",
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSA_THEORY_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def small() -> xr.Dataset:
    """Of all that topics are about; nothing is timed."""
    names = [n for n in LanguageConfig().mechanisms if n not in ("sink", "gated", "qk-norm")]
    config = LanguageConfig(seeds=1, first_seed=1, mechanisms=tuple(names), **TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "latency_ratios", lambda source, worn, seeds, device: np.ones((1, 2)))
        return LANGUAGE.run(config)


def test_every_declared_cell_has_its_test(small: xr.Dataset) -> None:
    claims = LANGUAGE.claims(small)
    topics = [name for name in registry().topics if name.startswith("language-")]
    assert missing(claims, *topics) == []
    ratio = np.log(
        small["perplexity"].sel(mechanism="ssa") / small["perplexity"].sel(mechanism="scaled")
    )
    test = found(claims, "language-beyond-constant")["ssa", "scaled"]
    assert test.effect.value == pytest.approx(-float(ratio.mean()))


@pytest.mark.parametrize(("wrong", "passed"), [(0.6, "passed"), (0.89, "failed")])
def test_passkeys_that_nobody_finds_are_told(small: xr.Dataset, wrong: float, passed: str) -> None:
    seeds = xr.concat(
        [small.assign_coords(seed=[s]) for s in range(6)], "seed", data_vars="minimal"
    )
    error = xr.full_like(seeds["passkey_error"], 0.9)
    error[-1] = wrong
    error[0] = np.nan
    claims = LANGUAGE.claims(seeds.assign(passkey_error=error))
    assert [c.passed for c in claims if c.id == "language-passkey-found"] == [passed]


def test_a_seed_is_the_same_in_any_company(small: xr.Dataset) -> None:
    names = ("vanilla", "constant-scale", "ssa")
    two = LANGUAGE.train(LanguageConfig(seeds=2, mechanisms=names, **TINY), silent)
    for name in ("perplexity", "loss", "loss_by_place"):
        own = small[name].sel(mechanism=list(names), seed=1)
        np.testing.assert_allclose(own, two[name].sel(seed=1), rtol=1e-5, err_msg=name)
        assert (own != two[name].sel(seed=0)).any()
    assert (two["latency"] > 0).all()
    assert two["latency"].dims == ("mechanism", "seed", "task")
    assert [part.seeds for part in LANGUAGE.blocks(LanguageConfig(seeds=12, dim=32))] == [8, 4]


def test_numbers_are_what_they_say(small: xr.Dataset) -> None:
    by_place = small["loss_by_place"]
    np.testing.assert_allclose(
        small["perplexity_by_length"].sel(length="up to four times"),
        np.exp(by_place.isel(place=slice(24, 48)).mean("place")),
    )
    assert small["added_parameters"].sel(
        mechanism=["vanilla", "constant-scale", "scaled"]
    ).values.tolist() == [0, 0, 1]
    assert small["tokens"].values[-1] == 4 * 2 * 12
    last = small.sel(comparison="steps")
    tau = last["inverse_temperature"].sel(mechanism="constant-scale")
    np.testing.assert_allclose(tau, 2.5)
    np.testing.assert_allclose(
        last["mean_effective_weight"].sel(mechanism="constant-scale"),
        2.5 * last["mean_weight_norm"].sel(mechanism="constant-scale"),
        rtol=1e-6,
    )
    figure = LANGUAGE.plot(small)
    figure.draw_without_rendering()


def test_both_halves_of_the_validation_text_are_from_all_of_it() -> None:
    """In pieces of at least sixteen of the longest contexts; of a short text there are two."""
    source = source_of(LanguageConfig(seeds=1, **TINY))
    for length, pieces in ((12 * 4 * 16 * 10, 10), (12 * 4 * 16 * 11 + 5, 10), (100, 2)):
        text = np.arange(length)
        source.text = replace(source.text, validation=text)
        own, other = source.halves
        np.testing.assert_array_equal(np.sort(np.concatenate([own, other])), text)
        assert abs(len(own) - len(other)) <= pieces / 2
        breaks = [1 + int((np.diff(half) != 1).sum()) for half in (own, other)]
        assert breaks == [pieces / 2, pieces / 2]
        assert own[0] == 0
        assert other[-1] == length - 1


def test_the_choice_is_the_least_loss_of_all_pairs_and_is_made_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = LanguageConfig(seeds=1, **TINY | {"rates": (0.01, 0.3), "scales": (1.0, 4.0)})
    source, scaled, seed = source_of(config), mechanism("scaled"), tuning.FIRST_SEED
    ticks: list[int] = []
    choice = tuning.chosen_for(source, scaled, CPU, ticks.append)
    losses = {}
    for rate in config.rates:
        for scale in config.scales:
            model = source.model(scaled, scale, seed)
            start = model.layers[0].parts["query"]["offset"].exp()
            assert torch.allclose(start, torch.tensor(scale))
            source.fit([model], [rate], [seed])
            losses[rate, scale] = validation_loss(model, source.halves[1], 12, 200).mean()
    assert (choice.rate, choice.scale) == min(losses, key=losses.__getitem__)
    assert choice.loss == pytest.approx(min(losses.values()), rel=1e-5)
    assert sum(ticks) == tuning.tuning_steps(source, scaled) == 16
    monkeypatch.setattr(source, "model", None)
    again: list[int] = []
    assert tuning.chosen_for(source, scaled, CPU, again.append) == choice
    assert sum(again) == 16


class Copier(torch.nn.Module):
    """Sure that the symbol `back` places ago comes next; `back` is a passkey's distance to its
    repetition where every window hides it at one place.
    """

    def __init__(self, back: int, symbols: int, wrong: int | None = None) -> None:
        super().__init__()
        self.back, self.symbols, self.wrong = back, symbols, wrong
        self.none = torch.nn.Parameter(torch.zeros(()))

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        following = seen.roll(self.back - 1, 1)
        if self.wrong is not None:
            following[:, self.wrong] = 0  # the most frequent symbol of the text, no digit
        return torch.nn.functional.one_hot(following, self.symbols).double() + self.none


def test_a_passkey_is_counted_by_digit_and_whole() -> None:
    """Windows of 13 symbols have room for a key at the places 0 and 1 before its repetition at 7."""
    source = source_of(LanguageConfig(seeds=1, **TINY | {"passkeys": 400}))
    symbols = len(source.text.symbols)
    assert source.passkey.digits == tuple(reversed(range(symbols - 11, symbols - 1)))
    digits, keys = (1 - _passkey(source, Copier(6, symbols)))[0]
    assert keys == pytest.approx(0.5, abs=0.1)  # half of them are 6 places before, others 7
    assert digits == pytest.approx(keys + (1 - keys) * 0.1, abs=0.05)
    first, none = (1 - _passkey(source, Copier(6, symbols, wrong=-1)))[0]
    assert none == 0
    assert first == pytest.approx(0.8 * digits, abs=0.03)


def test_half_of_the_windows_hide_a_passkey_whose_digits_count_as_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = source_of(LanguageConfig(seeds=1, **TINY))
    seen: list[np.ndarray] = []
    weights: list[np.ndarray] = []

    def losses(ensemble: Ensemble, tokens: torch.Tensor) -> torch.Tensor:
        seen.append(tokens.numpy())
        weights.append(ensemble.share.numpy())
        return torch.zeros(len(tokens))

    monkeypatch.setattr(Ensemble, "losses", losses)
    source.fit([source.model(mechanism("vanilla"), None, 0)], [0.1], [0])
    key, plain = np.array([1] * 7 + [12 / 5] * 5), np.ones(12)
    np.testing.assert_allclose(weights[0], np.stack([key, plain]) * 24 / 31, rtol=1e-6)
    windows = np.concatenate(seen).reshape(-1, 2, 13)
    assert ((windows == source.passkey.mark).sum(-1) == [2, 0]).all()


def test_a_median_lies_between_its_order_statistics() -> None:
    about = {"description": "a number"}
    values = xr.DataArray(np.arange(1.0, 9.0)[::-1, None], dims=("seed", "task"), attrs=about)
    assert median_band(values).values.tolist() == [[4.5, 1.0, 8.0]]  # .992 of the time; 2 to 7 .93
    few = median_band(values.isel(seed=slice(5))).values[0]
    assert few[0] == 6
    assert np.isnan(few[1:]).all()


def test_tokens_to_the_loss_that_the_slower_reaches() -> None:
    loss = np.array([[[4.0, 2.0, 1.0]], [[4.0, 3.0, 2.0]]])
    curves = xr.Dataset(
        {"loss": (("mechanism", "seed", "record"), loss), "tokens": ("record", [0.0, 10.0, 30.0])},
        {"mechanism": ["fast", "slow"]},
    )
    at = tokens_to(curves, ("fast", "slow"), 1.0)
    assert {name: values.tolist() for name, values in at.items()} == {
        "fast": [10.0],
        "slow": [30.0],
    }
    at = tokens_to(curves, ("fast", "slow"), 0.75)  # a loss of 2.5
    assert {name: values.tolist() for name, values in at.items()} == {"fast": [7.5], "slow": [20.0]}


def test_a_pretrained_model_is_fine_tuned_and_measured(tmp_path: Path) -> None:
    """One that does not learn is measured as it is; the same weights give the same numbers as the
    decoder.
    """
    torch.manual_seed(0)
    there = transformers.AutoConfig.for_model(
        "llama",
        vocab_size=90,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=20,
    )
    transformers.AutoModelForCausalLM.from_config(there).save_pretrained(tmp_path)
    own = {k: v for k, v in TINY.items() if k not in ("dim", "heads", "layers")}
    names = ("vanilla", "constant-scale", "ssa")
    config = LanguageConfig(seeds=1, mechanisms=names, model=str(tmp_path), **own)
    assert {"model/config.json", "model/model.safetensors"} <= set(config.files())
    result = LANGUAGE.run(config)
    assert result["diverged"].sum() == 0
    assert result["perplexity"].notnull().all()
    assert result["added_parameters"].values.tolist() == [0, 0, 2 * 4 + 2 + 4 + 1]
    assert result["loss_by_place"].sizes["place"] == config.context
    loss = result["loss"].isel(record=0, seed=0)
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    text = source_of(config).halves[0]
    wanted = validation_loss(plain, text, 12, 25, logits=lambda m, seen: m(seen).logits).mean()
    assert loss.sel(mechanism="vanilla") == pytest.approx(wanted, rel=1e-6)
    assert loss.sel(mechanism="ssa") == pytest.approx(wanted, rel=1e-3)
    assert len(set(result["loss"].isel(record=-1, seed=0).values)) == 3
    with pytest.raises(ValueError, match="reads at most 20 tokens, got context=21"):
        source_of(config.model_copy(update={"context": 21}))


def test_a_diverged_model_is_lost_and_spoils_no_other() -> None:
    config = LanguageConfig(seeds=1, mechanisms=("vanilla", "ssa"), **TINY)
    choice = tuning.Choice(1e30)
    numbers = _models(source_of(config), mechanism("ssa"), choice, [0], CPU, lambda n: None)
    assert np.isnan(numbers["perplexity"]).all()
    assert np.isnan(numbers["passkey"]).all()
    assert np.isnan(numbers["spikiness"][:, -1]).all()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--heads", "3"], "heads must divide dim"),
        (["--mechanisms", "vanilla", "ssa-degree"], "ssa-degree needs the degree"),
        (["--context", "20000"], "too short for windows of 20000 and 80000"),
        (["--rates", "0.1", "0.1"], "rates must be different"),
        (["--model", "./nowhere"], "no causal language model can be loaded from './nowhere'"),
        (["--model", "./nowhere", "--dim", "8"], "dim apply only to models from scratch"),
    ],
)
def test_bad_input_is_one_sentence_before_training(
    flags: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    unchecked: None,
) -> None:
    assert main(["run", "language", *flags, "--out", str(tmp_path)]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("missing_package", ["transformers", "safetensors"])
def test_without_the_extra_one_sentence_says_what_to_install(
    missing_package: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    unchecked: None,
) -> None:
    """And small models are trained as ever."""
    for name in [n for n in sys.modules if n.split(".")[0] == missing_package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing_package, None)
    monkeypatch.delitem(sys.modules, "ssa_theory.language.select", raising=False)
    monkeypatch.delattr(ssa_theory.language, "select", raising=False)
    what = "pip install 'ssa-theory[language]'"
    with pytest.raises(ImportError, match="needs the extra language") as error:
        importlib.import_module("ssa_theory.language.select")
    assert str(error.value).endswith(what)
    for model in (str(tmp_path), "some/name-of-the-hub"):
        command = ["run", "language", "--model", model, "--out", str(tmp_path / "out")]
        assert main(command) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "a pretrained model needs the extra language (" in said
        assert said.endswith(what)
    result = LANGUAGE.train(LanguageConfig(seeds=1, mechanisms=("vanilla", "ssa"), **TINY), silent)
    assert result["perplexity"].notnull().all()
