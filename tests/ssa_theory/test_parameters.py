"""Parameter counts: published totals by hand, every part of a decoder, and what mechanisms add
against built layers.
"""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssa_theory import SelfAttention
from ssa_theory.mechanism import MECHANISMS, Mechanism, Misfit
from ssa_theory.mechanism.scores import MLP, Constant, Linear
from ssa_theory.mechanism.temperature import Selective
from ssa_theory.parameters import ARCHITECTURES, Architecture, added_parameters


def by_hand(a: Architecture) -> int:
    """The total from the shapes alone, matrix by matrix."""
    kv = a.kv_heads * a.dim // a.heads
    shapes = (
        [(a.dim, a.dim)] * 2
        + [(a.dim, kv)] * 2
        + [(a.dim, a.feed_forward), (a.feed_forward, a.dim)]
    )
    shapes += [(a.dim, a.feed_forward)] * a.gated
    norm = a.dim * {"layer": 2, "rms": 1}[a.norm]
    block = sum(i * o + o * a.bias for i, o in shapes) + 2 * norm
    return a.vocabulary * a.dim * (2 - a.tied) + a.positions * a.dim + a.layers * block + norm


@pytest.mark.parametrize(
    ("name", "total"),
    [
        # 50257 * 768 + 1024 * 768 + 12 * (768 * 3 * 769 + 768 * 769 + 3072 * 769 + 768 * 3073 + 4 *
        # 768) + 2 * 768
        ("GPT-2 124M", 124_439_808),
        # 2 * 50304 * 768 + 12 * 7,087,872 + 2 * 768
        ("Pythia-160M", 162_322_944),
        # 2 * 50304 * 1024 + 24 * 12,596,224 + 2 * 1024
        ("Pythia-410M", 405_334_016),
        # 2 * 32000 * 4096 + 32 * (4 * 4096^2 + 3 * 4096 * 11008 + 2 * 4096) + 4096
        ("Llama-7B", 6_738_415_616),
        # 2 * 128256 * 4096 + 32 * (2 * 4096^2 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096) +
        # 4096
        ("Llama-3-8B", 8_030_261_248),
    ],
)
def test_totals_are_those_of_the_published_checkpoints(name: str, total: int) -> None:
    assert ARCHITECTURES[name].parameters() == by_hand(ARCHITECTURES[name]) == total


SMALL = {
    "layers": st.integers(1, 3),
    "head_dim": st.integers(1, 8),
    "kv_heads": st.integers(1, 3),
    "groups": st.integers(1, 3),
    "feed_forward": st.integers(1, 20),
    "vocabulary": st.integers(1, 30),
    "positions": st.integers(0, 9),
    "tied": st.booleans(),
    "bias": st.booleans(),
    "norm": st.sampled_from(["layer", "rms"]),
    "gated": st.booleans(),
}


@given(shape=st.fixed_dictionaries(SMALL))
def test_a_built_decoder_has_the_parameters_of_its_shape(shape: dict[str, object]) -> None:
    heads = shape["kv_heads"] * shape.pop("groups")
    made = Architecture(dim=heads * shape.pop("head_dim"), heads=heads, **shape)
    assert made.parameters() == by_hand(made)
    assert {p.device.type for p in made.build().parameters()} == {"meta"}


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize("model", [n for n, a in ARCHITECTURES.items() if a.heads == a.kv_heads])
def test_added_parameters_are_those_of_the_built_layer(model: str, name: str) -> None:
    architecture = ARCHITECTURES[model]
    labels = {"token": architecture.vocabulary, "degree": 7}
    options = {"labels": labels, "trained_length": 64}
    with torch.device("meta"):
        layer, plain = (
            SelfAttention(architecture.dim, architecture.heads, worn, **options)
            for worn in (name, "vanilla")
        )
    added = sum(p.numel() for p in layer.parameters()) - sum(p.numel() for p in plain.parameters())
    assert added == layer.added_parameters()
    found = added_parameters(architecture, MECHANISMS[name], {"degree": 7})
    assert found == architecture.layers * added


# Of one layer with 32 heads of width 128, which share 8 heads of keys and values.
SHARED_KEYS = {
    "ssa": (32 + 8) * (128 + 1),
    "ssa-query": 32 * (128 + 1),
    "ssa-key": 8 * (128 + 1),
    "ssa-mlp": 2 * (4096 * 8192 + 8192) + (32 + 8) * (8192 + 1 + 1),
    "ssa-free": 32 * 128256,
    "ssmax": 32,
    "key-bias": 8 * 4096,
    "rela": 32,
    "sink": 32,
    "entmax": 32,
    "qk-norm": 32,
    "gate-and-sink": 4096 * 8192 + 8192 + 8 * (8192 + 1) + 32,
    "gated": 32 * 4096 * 128,
    "gated-head": 32 * 4096,
    "vanilla": 0,
    "softcap": 0,
}


@pytest.mark.parametrize("name", SHARED_KEYS)
def test_what_acts_on_keys_is_added_once_a_head_of_keys(name: str) -> None:
    found = added_parameters(ARCHITECTURES["Llama-3-8B"], MECHANISMS[name])
    assert found == 32 * SHARED_KEYS[name]


def test_weight_sharing_adds_a_vector_and_an_alpha_a_head() -> None:
    found = added_parameters(ARCHITECTURES["GPT-2 124M"], MECHANISMS["ssa"])
    assert found == 12 * 2 * 12 * (64 + 1)


def test_an_own_mlp_is_one_for_all_heads_with_an_output_for_each() -> None:
    term = Selective(MLP(width=16))
    worn = Mechanism("own", query=term, value=term)
    found = added_parameters(ARCHITECTURES["Llama-3-8B"], worn)
    query, value = (
        torch.nn.ModuleList([torch.nn.Linear(4096, 16), torch.nn.Linear(16, h)]) for h in (32, 8)
    )
    built = sum(p.numel() for p in [*query.parameters(), *value.parameters()]) + 32 + 8
    assert found == 32 * built


def test_a_bias_of_the_keys_counts_as_theirs() -> None:
    for bias, each in ((Linear(), 4096), (Constant(), 1)):
        found = added_parameters(ARCHITECTURES["Llama-3-8B"], Mechanism("bias", bias=bias))
        assert found == 32 * 8 * each


def test_labels_of_which_nobody_said_how_many() -> None:
    with pytest.raises(Misfit, match="mechanism ssa-degree needs the degree of every query token"):
        added_parameters(ARCHITECTURES["GPT-2 124M"], MECHANISMS["ssa-degree"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"positions": -1}, "positions must be at least 0, got -1"),
        ({"heads": 5}, "heads must divide dim and be a multiple of kv_heads, got dim=768, heads=5"),
        ({"kv_heads": 5}, "heads must divide dim and be a multiple of kv_heads, .* kv_heads=5"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(ARCHITECTURES["GPT-2 124M"], **change)
