"""The decoder against models of Hugging Face; its text, training and measures against plain sums."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from ssa_theory.language import (
    Decoder,
    DecoderForm,
    LanguageTraining,
    attention,
    attention_anatomy,
    cross_entropy,
    fit_language,
    query_key_norm,
    validation_loss,
    windows,
)
from ssa_theory.language.attention import rotated
from ssa_theory.language.select import select, selected_anatomy
from ssa_theory.language.worn import Worn
from ssa_theory.mechanism import MECHANISMS, Misfit
from ssa_theory.seeds import Stream, member_generator
from tasks import TextReading, corpus

FORM = DecoderForm(vocabulary=11, dim=8, layers=2, heads=2, context=6)
FREQUENCY = np.linspace(-3, -1, 11)
TEXT = np.random.default_rng(0).integers(0, 11, 400)


def tokens(length: int = 9) -> Tensor:
    return torch.from_numpy(TEXT[: 2 * length].reshape(2, length))


def in_hugging_face(model: Decoder) -> Any:
    """The same model there."""
    form, neox = model.form, model.form.block == "neox"
    options: dict[str, Any] = {
        "vocab_size": form.vocabulary,
        "hidden_size": form.dim,
        "num_hidden_layers": form.layers,
        "num_attention_heads": form.heads,
        "intermediate_size": 4 * form.dim if neox else 8 * form.dim // 3,
        "rope_parameters": {
            "rope_theta": 1e4,
            "rope_type": "default",
            "partial_rotary_factor": 1.0,
        },
        "attention_bias": False,
        "layer_norm_eps": 1e-5,
        "rms_norm_eps": torch.finfo(torch.float32).eps,
    }
    kind = "gpt_neox" if neox else "llama"
    config = transformers.AutoConfig.for_model(kind, **options)
    there = transformers.AutoModelForCausalLM.from_config(config).eval()
    state = {}
    for name, value in model.state_dict().items():
        renamed = f"{LAST[kind]}{name}" if name.startswith("norm.") else name
        for ours, theirs in NAMES[kind].items():
            renamed = renamed.replace(ours, theirs)
        state[renamed] = value
    for i in range(form.layers if neox else 0):
        at = f"gpt_neox.layers.{i}.attention"
        joined = [state.pop(f"{at}.{role}.weight") for role in ("query", "key", "value")]
        by_head = torch.stack([w.unflatten(0, (form.heads, -1)) for w in joined], 1)
        state[f"{at}.query_key_value.weight"] = by_head.flatten(0, 2)
    unknown = ("places", "frequency")
    state = {k: v for k, v in state.items() if k not in unknown and ".parts." not in k}
    there.load_state_dict(state)
    return there


NAMES = {
    "gpt_neox": {
        "embedding.": "gpt_neox.embed_in.",
        "blocks.": "gpt_neox.layers.",
        "attention.output": "attention.dense",
        "before_attention": "input_layernorm",
        "before_mlp": "post_attention_layernorm",
        "mlp.0": "mlp.dense_h_to_4h",
        "mlp.2": "mlp.dense_4h_to_h",
        "readout": "lm_head",
    },
    "llama": {
        "embedding.": "model.embed_tokens.",
        "blocks.": "model.layers.",
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.output": "self_attn.o_proj",
        "before_attention": "input_layernorm",
        "before_mlp": "post_attention_layernorm",
        "mlp.gate": "mlp.gate_proj",
        "mlp.up": "mlp.up_proj",
        "mlp.down": "mlp.down_proj",
        "readout": "lm_head",
    },
}
LAST = {"gpt_neox": "gpt_neox.final_layer_", "llama": "model."}


@pytest.mark.parametrize("block", ["neox", "llama"])
def test_vanilla_is_the_model_of_hugging_face(block: str) -> None:
    model = Decoder(DecoderForm(11, 8, 2, 2, 6, block=block), "vanilla", seed=3)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
        there = in_hugging_face(model)
        torch.testing.assert_close(model(tokens()), there(tokens()).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["ssa-query-key", "qk-norm-ssa-query"])
def test_a_selected_model_is_the_decoder(name: str) -> None:
    """Its logits, and what its attention is made of."""
    model = Decoder(FORM, name, 1)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    there = in_hugging_face(model)
    select(there, name, trained_length=FORM.context)
    for layer, own in zip(
        model.layers, (m for m in there.modules() if isinstance(m, Worn)), strict=True
    ):
        own.parts.load_state_dict(layer.parts.state_dict())
    seen = TEXT[:48].reshape(8, 6)
    with torch.no_grad():
        torch.testing.assert_close(there(tokens()).logits, model(tokens()), rtol=1e-4, atol=1e-5)
    found, wanted = selected_anatomy(there, seen, batch=3), attention_anatomy(model, seen)
    for key, values in wanted.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", [n for n in MECHANISMS if n != "ssa-degree"])
def test_a_later_token_changes_no_earlier_logit_and_all_that_is_added_learns(name: str) -> None:
    model = Decoder(FORM, name, 1, FREQUENCY)
    plain = Decoder(FORM, "vanilla", 1)
    for key, value in plain.state_dict().items():
        if key != "frequency":
            assert torch.equal(model.state_dict()[key], value), key
    assert model.parameter_count() - plain.parameter_count() == model.added_parameters()
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=generator)
    logits = model(tokens())
    torch.testing.assert_close(model(tokens()[:, :5]), logits[:, :5], rtol=1e-4, atol=1e-5)
    logits.square().sum().backward()
    added = [p for key, p in model.named_parameters() if ".parts." in key]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in added)


def test_rotary_scores_are_of_complex_numbers_and_depend_on_the_distance() -> None:
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = torch.complex(x[..., :3], x[..., 3:])
    angle = torch.arange(5.0).unsqueeze(-1) * 1e4 ** (-torch.arange(3.0) / 3)
    turned = pairs * torch.polar(torch.ones_like(angle), angle)
    wanted = torch.cat([turned.real, turned.imag], -1)
    torch.testing.assert_close(rotated(x), wanted, rtol=1e-6, atol=1e-6)
    same = rotated(x[:, :1].expand(-1, 5, -1))
    scores = same @ same.transpose(1, 2)
    torch.testing.assert_close(scores[:, 1:, 1:], scores[:, :-1, :-1], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="heads of width 3: choose an even width"):
        rotated(torch.zeros(2, 3))


def test_few_keys_are_attended_to_as_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Decoder(FORM, "ssa", 1)
    for p in model.parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    few = model(tokens())
    monkeypatch.setattr(attention, "FEW", 8)
    torch.testing.assert_close(model(tokens()), few, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 9}, "into even widths, got dim=9 and heads=2"),
        ({"heads": 3, "positions": "learned"}, "heads must divide dim, got dim=8 and heads=3"),
        ({"layers": 0}, "must be at least 1"),
    ],
)
def test_sizes_that_do_not_go_together(
    change: dict[str, Any], message: str, unchecked: None
) -> None:
    with pytest.raises(ValueError, match=message):
        DecoderForm(**vars(FORM) | change)


def test_what_a_mechanism_lacks_is_said() -> None:
    with pytest.raises(ValueError, match="got no log_frequency"):
        Decoder(FORM, "ssa-feature")
    with pytest.raises(Misfit, match="ssa-degree needs the degree"):
        Decoder(FORM, "ssa-degree")
    learned = Decoder(DecoderForm(11, 8, 1, 2, 6, positions="learned"), "ssa")
    assert learned(tokens(6)).shape == (2, 6, 11)
    with pytest.raises(ValueError, match="learned positions end at 6, got 7 tokens"):
        learned(tokens(7))


class Unigram(nn.Module):
    """Logits that are the same everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(11))

    def forward(self, seen: Tensor) -> Tensor:
        return self.logits.expand(*seen.shape, 11)


def test_validation_counts_every_token_once() -> None:
    model = Unigram()
    model.logits.data = torch.linspace(-2, 2, 11)
    each = -torch.log_softmax(model.logits, 0).detach().numpy().astype(float)
    by_place = validation_loss(model, TEXT, 7, 203, batch=5)
    counted = TEXT[1 : 29 * 7 + 1].reshape(29, 7)
    np.testing.assert_allclose(by_place, each[counted].mean(0), rtol=1e-5)
    with pytest.raises(ValueError, match="has no window of 7 to validate on"):
        validation_loss(model, TEXT[:7], 7, 100)


def test_training_finds_the_frequencies_and_depends_on_the_seed_alone() -> None:
    text = np.repeat([0, 1, 1, 2, 2, 2, 2, 2], 40)[np.random.default_rng(1).permutation(320)]
    training = LanguageTraining(steps=80, context=15, batch=8, rate=0.1, decay=1.0)
    models = [Unigram() for _ in range(3)]
    losses = fit_language(
        models,
        text,
        training,
        (4, 4, 5),
        record=[0, 80],
        measure=lambda m: {"loss": np.asarray(validation_loss(m, text, 15, 300).mean())},
    )["loss"]
    share = torch.softmax(models[0].logits, 0).detach()[:3]
    torch.testing.assert_close(share, torch.tensor([0.125, 0.25, 0.625]), rtol=0.1, atol=0.01)
    assert losses[0][0] == pytest.approx(np.log(11), rel=1e-6)
    assert np.array_equal(losses[0], losses[1])
    assert losses[0][1] != losses[2][1]
    rates = [training.rate_at(step).item() for step in range(81)]
    assert max(rates) == rates[7] == rates[8] == 0.1
    assert rates[0] == pytest.approx(0.1 / 8)
    assert rates[80] == pytest.approx(0.01)
    with pytest.raises(ValueError, match="has no window of 15 and one more"):
        fit_language(models, text[:15], training, (4, 4, 5))


@pytest.mark.parametrize("name", ["ssa", "entmax15"])
def test_models_of_one_program_are_trained_as_each_alone_by_torch(name: str) -> None:
    """Each at its own rate, on the windows of its own seed, by torch's AdamW on the module; those of
    entmax are trained one after the other.
    """
    training = LanguageTraining(4, 6, batch=3, rate=(0.01, 0.3), decay=0.5)
    together = [Decoder(FORM, name, seed) for seed in (3, 4)]
    fit_language(together, TEXT, training, (3, 4))
    for model, seed, rate in zip(together, (3, 4), (0.01, 0.3), strict=True):
        alone = Decoder(FORM, name, seed)
        groups: list[list[nn.Parameter]] = [[], []]
        for key, p in alone.named_parameters():
            groups[p.ndim - (".parts." in key) > 1].append(p)
        given = [{"params": g, "weight_decay": d} for g, d in zip(groups, (0, 0.5), strict=True)]
        optimizer = torch.optim.AdamW(given, betas=(0.9, 0.95))
        generator = member_generator(seed, Stream.DATA)
        for share in (1, 0.55 + 0.45, 0.55 + 0.45 * np.cos(np.pi / 3), 0.55 - 0.45 / 2):
            starts = generator.integers(len(TEXT) - 6, size=3)
            seen = torch.from_numpy(windows(TEXT, starts, 7))
            optimizer.zero_grad()
            cross_entropy(alone(seen[:, :-1]), seen[:, 1:]).mean().backward()
            nn.utils.clip_grad_norm_(alone.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = rate * share
            optimizer.step()
        for key, value in alone.state_dict().items():
            torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2])
def test_symbols_of_no_weight_are_not_learned(count: int) -> None:
    """One model, and several as one program."""

    def ending(drawn: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        drawn[:, -1] = 10
        return drawn

    weight = np.zeros((3, 6))
    weight[:, -1] = 5
    models = [Unigram() for _ in range(count)]
    training = LanguageTraining(40, 6, batch=3, rate=0.3)
    fit_language(models, TEXT, training, range(count), change=ending, weight=weight)
    for model in models:
        assert torch.softmax(model.logits, 0)[10] > 0.99


def test_a_loss_that_is_not_finite_ends_as_nan() -> None:
    model = Decoder(FORM, "ssa", 0)
    with torch.no_grad():
        model.embedding.weight.fill_(torch.inf)
    training = LanguageTraining(steps=3, context=6, batch=2)
    fit_language([model], TEXT, training, [0])
    assert np.isnan(validation_loss(model, TEXT, 6, 60)).all()
    found = attention_anatomy(model, TEXT[:60].reshape(10, 6))
    assert all(np.isnan(v).all() for v in found.values())


def test_the_anatomy_is_that_of_the_rows() -> None:
    model, heads = Decoder(FORM, "ssa-query-key", 2), FORM.heads
    for p in model.parameters():
        p.data += 0.4 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    seen = TEXT[:48].reshape(8, 6)
    found = attention_anatomy(model, seen, batch=3)
    layer, x = (
        model.layers[0],
        model.blocks[0].before_attention(model.embedded(torch.from_numpy(seen))),
    )
    query, key = (
        w.weight.detach().double().numpy().reshape(heads, 4, 8) for w in (layer.query, layer.key)
    )
    norms = [np.linalg.norm(q.T @ k, 2) / 2 for q, k in zip(query, key, strict=True)]
    np.testing.assert_allclose(query_key_norm(layer).detach(), norms, rtol=1e-10)
    assert found["weight_norm"][0] == pytest.approx(np.mean(norms))
    with torch.no_grad():
        rows = layer.attention(x).numpy()
        tau = layer.inverse_temperature("query", x) * layer.inverse_temperature("key", x)
    count = np.arange(1, 7)
    spread = (1 / (count * (rows**2).sum(-1))).mean(1)[:, 1:]
    effective = (tau.numpy() * np.array(norms)[:, None]).mean(1)[:, 1:]
    for name, wanted in {
        "spikiness": spread,
        "effective_weight": effective,
        "inverse_temperature": tau.numpy().mean(1)[:, 1:],
    }.items():
        assert found[name].shape == (2, 40)
        np.testing.assert_allclose(found[name][0], wanted.ravel(), rtol=1e-4, err_msg=name)


def test_a_text_is_read_by_frequency_and_split() -> None:
    read = corpus("to be or not to be " * 3, TextReading("letters", top=3), 0.2)
    assert read.symbols == ("_", "o", "b", "(other)") or read.symbols[0] == "_"
    assert len(read.training) + len(read.validation) == 57
    assert len(read.validation) == 11
    assert np.exp(read.log_frequency).sum() == pytest.approx(1)
    assert any("read as (other)" in said for said in read.notes)
    for text, share in (("aaaa", 0.5), ("", 0.5), ("ab", 0.1)):
        with pytest.raises(ValueError, match="too short to train and validate on"):
            corpus(text, validation_share=share)
    with pytest.raises(ValueError, match="must lie in"):
        corpus("abc", validation_share=1.0)
