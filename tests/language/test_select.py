"""A mechanism on models of Hugging Face: against the module, unchanged at the start, with cache and
padding, trained, saved and loaded.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from ssa_theory import SelfAttention
from ssa_theory.language.attention import RotaryAttention
from ssa_theory.language.select import load_selected, save_selected, select
from ssa_theory.language.worn import Worn
from ssa_theory.mechanism import MECHANISMS, Misfit

SYMBOLS, DIM, LENGTH = 13, 8, 6
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": DIM, "n_layer": 1, "n_head": 2, "n_positions": 32},
    "gpt_neox": {
        "hidden_size": DIM,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 32,
    },
    "llama": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 32,
    },
}
NOT_WORN = {"differential": "a second map of queries and keys", "ssa-degree": "the degree of every"}
WORN = [name for name in MECHANISMS if name not in NOT_WORN]
TOKENS_OF_KEYS = ("key-bias", "ssa-mlp-key-shift")
OF_EVERY_KIND = (
    *("ssa", "ssa-key", "ssa-mlp", "ssa-free", "ssa-feature", "ssmax", "yarn", "qk-norm-ssa-query"),
    *("softcap", "entropy-adaptive", "sink", "entmax15", "gated", *TOKENS_OF_KEYS),
)
FREQUENCY = np.linspace(-3, -1, SYMBOLS)


def model_of(family: str, seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    options = {"vocab_size": SYMBOLS, "bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0}
    config = transformers.AutoConfig.for_model(family, **options, **SIZES[family] | changes)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def perturbed(model: Any) -> None:
    generator = torch.Generator().manual_seed(5)
    for module in model.modules():
        if isinstance(module, Worn):
            for p in module.parameters():
                p.data += 0.5 * torch.randn(p.shape, generator=generator)


def worn_by(name: str, family: str, **changes: Any) -> Any:
    model = model_of(family, **changes)
    select(model, name, log_frequency=FREQUENCY)
    perturbed(model)
    return model


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(SYMBOLS, (2, LENGTH), generator=torch.Generator().manual_seed(1))


def maps_of(layer: Any) -> dict[str, Tensor]:
    """The weights of the projections of GPT-2 or GPT-NeoX, as `SelfAttention` names them."""
    if hasattr(layer, "c_attn"):
        weights, biases = layer.c_attn.weight.T.chunk(3), layer.c_attn.bias.chunk(3)
        last = {"output.weight": layer.c_proj.weight.T, "output.bias": layer.c_proj.bias}
    else:
        weights, biases = (
            p.unflatten(0, (2, 3, -1)).transpose(0, 1).flatten(1, 2)
            for p in (layer.query_key_value.weight, layer.query_key_value.bias)
        )
        last = {"output.weight": layer.dense.weight, "output.bias": layer.dense.bias}
    for role, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
        last |= {f"{role}.weight": weight, f"{role}.bias": bias}
    return last


@pytest.mark.parametrize(
    ("family", "name"),
    [("gpt_neox", name) for name in WORN]
    + [("gpt2", name) for name in ("ssa", "key-bias", "gated", "qk-norm+ssa-value")],
)
def test_a_layer_is_the_module_on_the_same_weights(family: str, name: str, tokens: Tensor) -> None:
    """GPT-2's is `SelfAttention`, GPT-NeoX' `RotaryAttention`; and a later token changes no earlier
    logit.
    """
    rotary = {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 1.0}}
    model = worn_by(name, family, **(rotary if family == "gpt_neox" else {}))
    layer = next(m for m in model.modules() if hasattr(m, "worn"))
    kind, labels = RotaryAttention if family == "gpt_neox" else SelfAttention, {"token": SYMBOLS}
    own = kind(DIM, 2, name, bias=True, labels=labels, trained_length=32).eval()
    own.load_state_dict(maps_of(layer) | layer.worn.state_dict())
    seen: list[tuple[Tensor, Tensor]] = []
    layer.register_forward_hook(
        lambda m, given, named, y: seen.append(
            (given[0] if given else named["hidden_states"], y[0])
        ),
        with_kwargs=True,
    )
    with torch.no_grad():
        logits = model(tokens).logits
        ((x, found),) = seen
        extra: dict[str, Any] = {}
        if own.required.features:
            extra["features"] = torch.as_tensor(FREQUENCY).float()[tokens]
        if own.required.labels:
            extra["labels"] = {"token": tokens}
        torch.testing.assert_close(found, own(x, **extra), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(model(tokens[:, :4]).logits, logits[:, :4])


@pytest.mark.parametrize("name", OF_EVERY_KIND)
def test_a_cache_and_padding_change_nothing(name: str, tokens: Tensor) -> None:
    model = worn_by(name, "llama")
    with torch.no_grad():
        whole = model(tokens, use_cache=False).logits
        mask = torch.ones(2, LENGTH + 2, dtype=torch.long)
        mask[:, :2] = 0
        padded = torch.cat([torch.zeros(2, 2, dtype=torch.long), tokens], 1)
        places = (mask.cumsum(1) - 1).clamp(min=0)
        options = {"attention_mask": mask, "position_ids": places, "use_cache": False}
        found = model(padded, **options).logits
        torch.testing.assert_close(found[:, 2:], whole, rtol=1e-4, atol=1e-5)
        cache = transformers.DynamicCache(config=model.config)
        first = model(tokens[:, :4], cache=cache)
        if name in TOKENS_OF_KEYS:
            with pytest.raises(ValueError, match="pass use_cache=False"):
                model(tokens[:, 4:], cache=cache)
            return
        rest = model(tokens[:, 4:], cache=cache).logits
        both = torch.cat([first.logits, rest], 1)
        torch.testing.assert_close(both, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", SIZES)
def test_the_start_changes_no_logit_and_every_parameter_has_a_gradient(
    family: str, tokens: Tensor
) -> None:
    plain = model_of(family)
    mask = torch.tensor([[0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    with torch.no_grad():
        wanted = plain(tokens, attention_mask=mask).logits[mask.bool()]
    greedy = {"max_new_tokens": 4, "do_sample": False, "attention_mask": mask}
    for name in ("ssa", "ssa-query-key", "ssa-mlp", "ssa-feature"):
        model = model_of(family)
        added = select(model, name, log_frequency=FREQUENCY)
        assert added == sum(p.numel() for n, p in model.named_parameters() if ".worn." in n) > 0
        with torch.no_grad():
            found = model(tokens, attention_mask=mask).logits[mask.bool()]
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
        assert torch.equal(model.generate(tokens, **greedy), plain.generate(tokens, **greedy))
        perturbed(model)
        model.train()
        model(tokens, labels=tokens).loss.backward()
        for n, p in model.named_parameters():
            assert p.grad is not None, n
            assert p.grad.abs().max() > 0, n


def test_what_was_saved_is_loaded(tmp_path: Path, tokens: Tensor) -> None:
    model, path = worn_by("ssa", "llama"), tmp_path / "ssa.safetensors"
    save_selected(model, path)
    other = model_of("llama")
    added = load_selected(other, path)
    assert added == sum(p.numel() for n, p in other.named_parameters() if ".worn." in n)
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, other(tokens).logits)
    content = path.read_bytes()
    save_selected(other, path)
    assert path.read_bytes() == content
    with pytest.raises(ValueError, match="wears a mechanism already"):
        select(other, "ssa")
    with pytest.raises(ValueError, match="model of other sizes"):
        load_selected(model_of("gpt2"), path)
    with pytest.raises(ValueError, match="wears no mechanism: select one first"):
        save_selected(model_of("gpt2"), path)


def test_what_cannot_be_worn_is_refused_and_changes_nothing(tokens: Tensor) -> None:
    model = model_of("gpt2")
    with torch.no_grad():
        before = model(tokens).logits
    for name, reason in NOT_WORN.items():
        with pytest.raises(Misfit, match=reason):
            select(model, name)
    with pytest.raises(ValueError, match="give log_frequency, one number for each token"):
        select(model, "ssa-feature")
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, before)
    config = transformers.AutoConfig.for_model("opt", hidden_size=8, num_attention_heads=2)
    config.num_hidden_layers, config.vocab_size, config.ffn_dim = 1, SYMBOLS, 8
    config.word_embed_proj_dim = 8
    other = transformers.AutoModelForCausalLM.from_config(config)
    with pytest.raises(ValueError, match="gpt2, gpt_neox, llama, got a model of type 'opt'"):
        select(other, "ssa")
