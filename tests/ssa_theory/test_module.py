"""The attention module, over all mechanisms: equal to the ensemble's layer, to its heads one by
one, to loops over numbers and to torch's own attention; masks, padding, gradients, precision,
devices, counts, and bad input.
"""

import copy
import itertools
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ssa_theory import SelfAttention
from ssa_theory.mechanism import (
    MECHANISMS,
    Form,
    Inputs,
    Layer,
    Mechanism,
    Misfit,
    Shift,
    Tokens,
    View,
    mechanism,
)
from ssa_theory.mechanism.normalizers import SoftmaxSink
from ssa_theory.mechanism.parts import own, project
from ssa_theory.mechanism.rectified import ReLA, Threshold
from ssa_theory.mechanism.score_maps import Side
from ssa_theory.mechanism.scores import MLP, Constant, Feature, Linear, WeightShared
from ssa_theory.mechanism.temperature import Exp, Selective
from ssa_theory.module import ROLES, form_of_heads

LABELS = {"token": 5, "degree": 3}
OPTIONS = {"labels": LABELS, "trained_length": 3}  # for the mechanisms that ask
# Beside the registry: parts joined, and parts that no entry combines.
JOINED = (
    *("sparsemax+ssa-query", "sink+ssa", "softcap+ssa-mlp-query-key", "qk-norm+gated+ssa-key"),
    "differential+ssa-query+sink+key-bias",
)
OURS = {
    m.name: m
    for m in (
        Mechanism(
            "bias-of-a-head",
            query=Selective(Linear(), Exp()),
            bias=Constant(),
            normalizer=ReLA(),
        ),
        Mechanism(
            "shift-of-both",
            query=Selective(),
            key=Selective(),
            shift=Shift(),
            normalizer=Threshold(),
        ),
    )
}
NEED_POSITION = (
    *("ssa-position", "released", "ssmax", "log2", "root"),
    *("asentmax-position", "yarn", "llama4", "power"),
)
ALL = {name: mechanism(name) for name in (*MECHANISMS, *JOINED)} | OURS


def over(names: dict[str, Mechanism] | tuple[str, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", list(names))


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def layer(
    dim: int, heads: int, worn: str | Mechanism, seed: int = 1, **options: object
) -> SelfAttention:
    """A float64 module whose parameters are all random, those of the parts included."""
    worn = ALL[worn] if isinstance(worn, str) else worn
    made = SelfAttention(dim, heads, worn, **OPTIONS | options).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.7, generator=generator)
    return made


def given_to(made: SelfAttention, batch: int, length: int, seed: int = 2) -> dict[str, object]:
    """The features and labels that a mechanism reads."""
    found: dict[str, object] = {}
    scores = [getattr(part, "score", part) for part in made.mechanism.parts().values()]
    if any(isinstance(score, Feature) for score in scores):
        found["features"] = random(batch, length, seed=seed)
    wanted = {score.label for score in scores if hasattr(score, "label")}
    generator = torch.Generator().manual_seed(seed)
    if wanted:
        found["labels"] = {
            k: torch.randint(LABELS[k], (batch, length), generator=generator) for k in wanted
        }
    return found


def at(given: dict[str, object], index: object) -> dict[str, object]:
    """A part of features and labels."""
    return {
        k: {i: j[index] for i, j in v.items()} if isinstance(v, dict) else v[index]
        for k, v in given.items()
    }


def close(a: Tensor, b: Tensor, tolerance: float = 1e-11) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# The same attention, computed in other ways


def test_all_mechanisms_have_a_module() -> None:
    assert set(MECHANISMS) <= set(ALL)
    assert {name for name, worn in ALL.items() if layer(4, 1, worn).fused} == {
        name
        for name, worn in ALL.items()
        if replace(worn, query=None, key=None, value=None, gate=None).is_vanilla
    }


def maps_for(worn: Mechanism, dim: int) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """W_q, W_k, and the W and W_k of the ensemble's layer that are the same attention."""
    first, second = random(dim, dim, seed=3), random(dim, dim, seed=4)
    if worn.score.maps_keys:
        return first, second, first, {"key_map": second.unsqueeze(-1)}
    shared = {
        role
        for role in ("query", "key")
        if isinstance(getattr(getattr(worn, role), "score", None), WeightShared)
    }
    if shared == {"query", "key"}:
        first[:, dim // 2 :] = 0
        weight = first @ torch.linalg.pinv(second @ first) @ second  # W W = W
        close(weight @ weight, weight, 1e-8)
        return weight, weight.T, weight, {}
    if shared == {"query"}:
        second = torch.eye(dim, dtype=torch.float64)
    elif shared == {"key"}:
        first = torch.eye(dim, dtype=torch.float64)
    return first, second, first @ second.T, {}


@pytest.mark.parametrize("position", [True, False])
@over([n for n, worn in ALL.items() if n != "qk-norm+gated+ssa-key"])
def test_one_head_is_the_layer_of_an_ensemble(name: str, position: bool) -> None:
    """With one head, no mask and W_o the identity. The layer's scores are x_i W x_j / sqrt(d), so W
    is W_q W_k^T. Its temperatures with shared weights see x_i W of a query and W x_j of a key, the
    module's x_i W_q and x_j W_k. These agree where the other map is the identity, and for both at
    once where W_q = W, W_k = W^T and W is a projection, W W = W. Of QK norm W is W_q, and W_k the
    layer's own map of the keys. (QK norm with weights shared by keys is not the same: the layer
    shares W there, not W_k.)
    """
    dim, length = 4, 5
    form = Form(
        dim,
        values=True,
        over_root_dim=True,
        position=position,
        features=frozenset(ROLES),
        **OPTIONS,
    )
    if name in NEED_POSITION and not position:
        for make in (lambda: Layer(ALL[name], form), lambda: layer(dim, 1, name, position=False)):
            with pytest.raises(Misfit, match=f"mechanism {name} needs queries that see different"):
                make()
        return
    ensemble = Layer(ALL[name], form).evaluated
    start = ensemble.initial_parameters([np.random.default_rng(0)])
    made = layer(dim, 1, name, causal=False, position=position).requires_grad_(False).eval()
    query, key, weight, key_map = maps_for(made.mechanism, dim)
    for linear, matrix in (
        (made.query, query),
        (made.key, key),
        (made.output, torch.eye(dim)),
    ):
        linear.weight.copy_(matrix.T)
    parameters = {f"{part}.{k}": v for part in made.parts for k, v in made.parts[part].items()}
    parameters |= {"weight": weight.unsqueeze(-1), "value": made.value.weight.T.unsqueeze(-1)}
    if "contrast.key_map" in parameters:  # the layer's W' is the product of both maps
        maps = (parameters.pop(f"contrast.{k}")[..., 0] for k in ("weight", "key_map"))
        first, second = maps
        parameters["contrast.weight"] = (first @ second.T).unsqueeze(-1)
    x, read = random(2, length, dim), given_to(made, 2, length)
    rows, out = made.attention(x, **read), made(x, **read)
    for b in range(2):
        one = at(read, b)
        feature = one["features"].unsqueeze(-1) if "features" in one else None
        labels = {k: v.unsqueeze(-1) for k, v in one.get("labels", {}).items()}
        tokens = Tokens(x[b].unsqueeze(-1), feature, labels)
        inputs = Inputs(tokens, tokens, count=float(length))
        acting = parameters | key_map
        assert set(acting) == set(start)
        close(rows[b, 0], ensemble.rows(acting, inputs).squeeze(-1), 1e-8)
        close(out[b], ensemble.output(acting, inputs).squeeze(-1), 1e-8)
        for role in ROLES:
            tau = ensemble.inverse_temperature(role, acting, inputs).expand(length, 1)
            found = made.inverse_temperature(role, x, **read)
            close(found[b, 0], tau.squeeze(-1), 1e-8)


def apart(
    made: SelfAttention, x: Tensor, read: dict[str, object]
) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Rows and output of every sequence and head, each by itself, from the same parts."""
    worn, (batch, length, _), width = made.mechanism, x.shape, made.dim // made.heads
    n = (
        torch.arange(1, length + 1).unsqueeze(-1)
        if made.causal
        else torch.full((length, 1), length)
    )
    for b, h in itertools.product(range(batch), range(made.heads)):
        one = at(read, b)
        span = slice(h * width, (h + 1) * width)
        parameters = {
            f"{part}.{k}": v[..., [h if v.shape[-1] > 1 else 0]]
            for part in made.parts
            for k, v in made.parts[part].items()
        }
        projected = {
            role: (x[b] @ getattr(made, role).weight[span].T).unsqueeze(-1) for role in ROLES
        }
        views = {
            role: View(
                x[b].unsqueeze(-1),
                partial(projected.__getitem__, role),
                one["features"].unsqueeze(-1) if "features" in one else None,
                {k: v.unsqueeze(-1) for k, v in one.get("labels", {}).items()},
                n.double(),
            )
            for role in ROLES
        }
        tau = {
            role: part(own(parameters, role), views[role]).expand(length, 1)
            for role in ROLES
            if (part := getattr(worn, role)) is not None
        }
        bias = None if worn.bias is None else worn.bias(own(parameters, "bias"), views["key"])
        maps = [(1.0, projected["query"], projected["key"])]
        if worn.contrast is not None:
            second = own(parameters, "contrast")
            token = x[b].unsqueeze(-1)
            pair = (project(token, second[k]) for k in ("weight", "key_map"))
            maps.append((-second["share"].item(), *pair))
        rows = torch.zeros(length, length, dtype=torch.float64)
        for share, query, key in maps:
            query = query / (1 if worn.score.maps_keys else math.sqrt(width))
            sides = Side(query, tau.get("query")), Side(key, tau.get("key"))
            z = worn.scores(parameters, *sides, bias)
            for i in range(length):  # of the keys that it sees, without a mask
                seen = z[i : i + 1, : i + 1 if made.causal else length]
                parts = own(parameters, "normalizer")
                rows[i, : seen.shape[1]] += share * worn.normalizer.rows(parts, seen, 1)[0, :, 0]
        out = (rows * tau["value"].T if "value" in tau else rows) @ projected["value"][..., 0]
        if worn.gate is not None:
            out = out * worn.gate(own(parameters, "gate"), x[b].unsqueeze(-1))[..., 0]
        yield b, h, rows, out


@pytest.mark.parametrize("causal", [True, False])
@over(ALL)
def test_heads_and_sequences_are_those_computed_apart(name: str, causal: bool) -> None:
    made = layer(12, 3, name, causal=causal).requires_grad_(False)
    x, read = random(2, 6, 12), given_to(made, 2, 6)
    rows, out = made.attention(x, **read), torch.zeros(2, 6, 12, dtype=torch.float64)
    for b, h, row, head in apart(made, x, read):
        close(rows[b, h], row)
        out[b, :, 4 * h : 4 * h + 4] = head
    close(made(x, **read), out @ made.output.weight.T)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_vanilla_is_the_attention_of_torch(causal: bool, bias: bool) -> None:
    x, made = random(2, 5, 6), layer(6, 2, "vanilla", causal=causal, bias=bias)
    split = [getattr(made, role)(x).view(2, 5, 2, 3).transpose(1, 2) for role in ROLES]
    out = F.scaled_dot_product_attention(*split, is_causal=causal)
    assert torch.equal(made(x), made.output(out.transpose(1, 2).reshape(2, 5, 6)))
    mask = torch.ones(5, 5, dtype=torch.bool)
    z = (split[0] @ split[1].transpose(-2, -1) / 3**0.5).masked_fill(
        ~mask.tril() & causal, -torch.inf
    )
    close(made.attention(x), z.softmax(-1))


def gelu(z: float) -> float:
    return z * 0.5 * (1 + math.erf(z / math.sqrt(2)))


def naive_tau(made: SelfAttention, role: str, x: Tensor, feature: float, n: int, h: int) -> float:
    """tau of one token x (dim,) of head h that sees n keys, number by number."""
    part = getattr(made.mechanism, role)
    if part is None:
        return 1.0
    p, width, f = made.parts[role], made.dim // made.heads, 0.0
    if isinstance(part.score, WeightShared):
        matrix = getattr(made, role).weight
        for i in range(width):
            projected = sum(float(matrix[h * width + i, j] * x[j]) for j in range(made.dim))
            f += float(p["vector"][i, h]) * gelu(projected)
    elif isinstance(part.score, MLP):
        f = float(p["offset"][h])
        for i in range(part.score.width):
            inner = float(p["bias"][i, 0])
            inner += sum(float(p["hidden"][j, i, 0] * x[j]) for j in range(made.dim))
            f += float(p["vector"][i, h]) * gelu(inner)
    elif isinstance(part.score, Feature):
        f = float(p["slope"][h]) * feature + float(p["offset"][h])
    tau = 1 + math.tanh(f)
    if part.position:
        tau += math.log(n) / (1 + math.exp(-float(p["alpha"][h])))
    return tau


TERMS = [
    Selective(score, position=position)
    for score in (WeightShared(), MLP(width=3), Feature(), None)
    for position in (True, False)
    if score or position
]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("term", TERMS, ids=str)
def test_temperatures_against_a_loop_over_numbers(term: Selective, role: str, causal: bool) -> None:
    batch, length, dim, heads = 2, 4, 6, 2
    width = dim // heads
    x = random(batch, length, dim)
    made = layer(dim, heads, Mechanism("term", **{role: term}), causal=causal).requires_grad_(False)
    read = given_to(made, batch, length)
    feature = read.get("features", torch.zeros(batch, length))
    rows = torch.zeros(batch, heads, length, length, dtype=torch.float64)
    out = torch.zeros(batch, length, dim, dtype=torch.float64)
    spread = []
    for b, h in itertools.product(range(batch), range(heads)):
        part, scaled = slice(h * width, (h + 1) * width), {}
        for name in ROLES:
            taus = [
                naive_tau(made, name, x[b, i], float(feature[b, i]), seen, h)
                for i, seen in enumerate(range(1, length + 1) if causal else [length] * length)
            ]
            matrix = getattr(made, name).weight[part]
            scaled[name] = [tau * (matrix @ x[b, i]) for i, tau in enumerate(taus)]
            found = made.inverse_temperature(name, x, **read)[b, h]
            close(found, torch.tensor(taus, dtype=torch.float64))
            spread += [max(taus) - min(taus)] if name == role else []
        for i in range(length):
            visible = range(i + 1 if causal else length)
            weight = [
                math.exp(float(scaled["query"][i] @ scaled["key"][j]) / math.sqrt(width))
                for j in visible
            ]
            for j in visible:
                rows[b, h, i, j] = weight[j] / sum(weight)
                out[b, i, part] += rows[b, h, i, j] * scaled["value"][j]
    close(made.attention(x, **read), rows)
    close(made(x, **read), out @ made.output.weight.T)
    varies = term.score is not None or (term.position and causal)
    assert (min(spread) > 0.01) if varies else (max(spread) == 0)


@pytest.mark.parametrize("roles", [(), ("query",), ("key",), ("query", "key")])
def test_shift_and_bias_by_the_formula(roles: tuple[str, ...]) -> None:
    """z = tau_q tau_k (s + shift) + w . x_j, over the keys and a sink."""
    worn = Mechanism(
        "formula",
        **dict.fromkeys(roles, Selective()),
        shift=Shift(),
        bias=Linear(),
        normalizer=SoftmaxSink(),
    )
    x, made = random(2, 4, 6), layer(6, 2, worn).requires_grad_(False)
    query, key = (getattr(made, r)(x).view(2, 4, 2, 3).transpose(1, 2) for r in ("query", "key"))
    tau_query, tau_key = (made.inverse_temperature(r, x) for r in ("query", "key"))
    p = {name: made.parts[name] for name in ("shift", "bias", "normalizer")}
    shift, sink = (v.view(2, 1, 1) for v in (p["shift"]["offset"], p["normalizer"]["sink"]))
    z = query @ key.transpose(-2, -1) / math.sqrt(3) + shift
    z = z * tau_query.unsqueeze(-1) * tau_key.unsqueeze(-2)
    z = z + (x @ p["bias"]["vector"]).transpose(1, 2).unsqueeze(-2)
    weights = z.exp().tril()
    close(made.attention(x), weights / (weights.sum(-1, keepdim=True) + sink.exp()))


@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from([1, 2, 4]), st.booleans())
def test_rows_are_distributions_and_agree_with_the_output(
    seed: int, length: int, heads: int, causal: bool
) -> None:
    x, made = random(2, length, 4, seed=seed), layer(4, heads, "ssa", seed, causal=causal)
    rows = made.attention(x)
    close(rows.sum(-1), torch.ones(2, heads, length, dtype=torch.float64))
    whole = torch.ones_like(rows, dtype=torch.bool)
    assert (rows > 0).equal(whole.tril() if causal else whole)
    value = made.value(x).view(2, length, heads, -1).transpose(1, 2)
    mixed = rows @ (value * made.inverse_temperature("value", x).unsqueeze(-1))
    close(made(x), made.output(mixed.transpose(1, 2).flatten(2)))


# Starts


AT_VANILLA = {
    name: worn
    for name, worn in MECHANISMS.items()
    if replace(worn, query=None, key=None, value=None).is_vanilla
    and all(
        isinstance(p, Selective) and not p.position
        for p in worn.parts().values()
        if p != worn.score and p != worn.normalizer
    )
}


@over(AT_VANILLA)
def test_token_temperatures_start_at_vanilla(name: str) -> None:
    x = random(2, 6, 8).float()
    start, vanilla = SelfAttention(8, 2, name, **OPTIONS), SelfAttention(8, 2, "vanilla")
    vanilla.load_state_dict({k: v for k, v in start.state_dict().items() if "parts" not in k})
    read = given_to(start, 2, 6)
    read |= {"features": read["features"].float()} if "features" in read else {}
    torch.testing.assert_close(start(x, **read), vanilla(x))
    for role in ROLES:
        assert torch.equal(start.inverse_temperature(role, x, **read), torch.ones(2, 2, 6))


def test_position_temperatures_start_at_half_the_logarithm() -> None:
    """sigmoid(0) = 1/2: the position term is not off at the start, and the first token alone is
    vanilla.
    """
    made, x = SelfAttention(4, 2), random(1, 5, 4).float()
    for role in ("query", "value"):
        tau = made.inverse_temperature(role, x)[0, 1]
        torch.testing.assert_close(tau, 1 + 0.5 * torch.arange(1.0, 6.0).log())
    assert torch.equal(made.inverse_temperature("key", x), torch.ones(1, 2, 5))


@over(ALL)
def test_parts_start_as_in_an_ensemble_and_by_the_seed_of_torch(name: str) -> None:
    worn = ALL[name]
    torch.manual_seed(5)
    first = SelfAttention(6, 2, worn, **OPTIONS)
    torch.manual_seed(5)
    again = SelfAttention(6, 2, worn, **OPTIONS)
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    other = SelfAttention(6, 2, worn, **OPTIONS)
    for part, parameters in first.parts.items():
        for k, v in parameters.items():
            assert k != "hidden" or not torch.equal(v, other.parts[part][k])
            assert v.shape[-1] == (1 if k in first.mechanism.parts()[part].shared_by_heads else 2)
            if k == "hidden":
                close(v[..., 0] @ v[..., 0].T, 2 * torch.eye(6), 1e-5)  # a basis, and its negative
            elif k == "vector" and name == "ssa-mlp-key-shift":
                assert 0 < v.detach().std() < 0.3
                assert not torch.equal(v[..., 0], v[..., 1])
    starts = {k: float(v.detach().flatten()[0]) for k, v in first.parts.named_parameters()}
    assert starts.get("query.b", 2.0) == 2.0
    assert starts.get("query.delta", 1.0) == 1.0


def test_position_terms_can_be_left_out() -> None:
    made = SelfAttention(8, 2, "ssa", position=False)
    assert made.mechanism.query == made.mechanism.value == Selective(position=False)
    with pytest.raises(Misfit, match="mechanism ssmax needs queries that see different numbers"):
        SelfAttention(8, 2, "ssmax", position=False)


# Who sees whom


@over(ALL)
def test_a_later_token_never_changes_an_earlier_output(name: str) -> None:
    made = layer(8, 2, name)
    x, read = random(2, 6, 8), given_to(made, 2, 6)
    whole, rows = made(x, **read), made.attention(x, **read)
    assert (rows.triu(1) == 0).all()
    for n in range(1, 7):
        first = (slice(None), slice(n))
        close(made(x[first], **at(read, first)), whole[first])
    changed, other = x.clone(), given_to(made, 2, 6, seed=9)
    changed[:, 3:] += 1
    both = at(read, ...)
    for k, v in both.items():
        if isinstance(v, dict):
            both[k] = {i: torch.cat([j[:, :3], other[k][i][:, 3:]], 1) for i, j in v.items()}
        else:
            both[k] = torch.cat([v[:, :3], other[k][:, 3:]], 1)
    later = made(changed, **both)
    torch.testing.assert_close(later[:, :3], whole[:, :3], rtol=0, atol=0)
    assert (later[:, 3:] - whole[:, 3:]).abs().max() > 1e-3


@over(ALL)
def test_without_a_mask_the_order_of_tokens_does_not_matter(name: str) -> None:
    order = (slice(None), torch.tensor([3, 0, 5, 1, 4, 2]))
    x, made = random(2, 6, 8), layer(8, 2, name, causal=False)
    read = given_to(made, 2, 6)
    close(made(x[order], **at(read, order)), made(x, **read)[order], 1e-10)
    causal = layer(8, 2, name, causal=True)
    assert (causal(x[order], **at(read, order)) - causal(x, **read)[order]).abs().max() > 1e-3


@pytest.mark.parametrize("causal", [True, False])
@over(ALL)
def test_padding_is_as_if_it_were_not_there(name: str, causal: bool) -> None:
    """Left, right and in between; what stands there may be anything, NaN included."""
    made = layer(8, 2, name, causal=causal)
    x, read = random(4, 6, 8), given_to(made, 4, 6)
    padding = torch.tensor(
        [[0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 1, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0]]
    ).bool()
    x[~padding] = torch.nan
    x = x.requires_grad_()
    if "features" in read:
        read["features"][~padding] = torch.inf
    for labels in read.get("labels", {}).values():
        labels[~padding] = -1
    rows, out = made.attention(x, padding=padding, **read), made(x, padding=padding, **read)
    assert out.isfinite().all()
    for b, real in enumerate(padding):
        index = (slice(b, b + 1), real)
        if real.any():
            alone = at(read, index)
            close(out[index], made(x[index], **alone), 1e-10)
            close(rows[b][:, real][:, :, real], made.attention(x[index], **alone)[0], 1e-10)
        blind = real.cumsum(0) == 0 if causal else ~real.any().expand(6)
        assert (rows[b][:, :, ~real] == 0).all()
        assert (rows[b][:, blind] == 0).all()
        assert (out[b, blind] == 0).all()
    gradients = torch.autograd.grad(out.square().sum(), [x, *made.parameters()])
    assert all(g.isfinite().all() for g in gradients)
    assert (gradients[0][~padding] == 0).all()
    full = torch.ones(4, 6, dtype=torch.bool)
    plain = random(4, 6, 8, seed=7)
    read = given_to(made, 4, 6)
    close(made(plain, padding=full, **read), made(plain, **read))


@over(("ssa", "key-bias", "softcap", "sparsemax"))
def test_no_nan_hides_behind_a_padded_row(name: str) -> None:
    made, x = layer(4, 2, name), random(2, 3, 4)
    padding = torch.tensor([[False, True, True], [False, False, False]])
    with torch.autograd.set_detect_anomaly(True):
        for found in (made(x, padding=padding), made.attention(x, padding=padding)):
            found.square().sum().backward()


@pytest.mark.parametrize("rest", ["", "+off-by-one", "+entmax15"])
def test_masking_comes_after_scaling(rest: str) -> None:
    """A temperature of zero: uniform over the visible keys, where masking first would give 0 * -inf
    = NaN.
    """
    made = layer(4, 2, mechanism("ssa-feature" + rest)).requires_grad_(False)
    made.parts["query"]["slope"].fill_(1)
    x, features = random(1, 4, 4), torch.full((1, 4), -100.0, dtype=torch.float64)
    rows = made.attention(x, features)
    sink = rest == "+off-by-one"
    for i in range(4):
        expected = [1 / (i + 1 + sink)] * (i + 1) + [0] * (3 - i)
        assert rows[0, 0, i].tolist() == pytest.approx(expected)
    assert made(x, features).isfinite().all()


def test_a_value_temperature_of_zero_removes_what_a_token_says() -> None:
    """tau_tok -> -1 where tanh saturates; without a position term tau_v is then exactly 0."""
    worn = Mechanism("value-feature", value=Selective(Feature(), position=False))
    x, made = random(1, 5, 4), layer(4, 1, worn, causal=False).requires_grad_(False)
    made.query.weight.zero_()  # uniform: token 2 is attended to, and speaks through its value alone
    made.parts["value"]["offset"].zero_()
    features = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    changed = x.clone()
    changed[0, 2] += 10
    for slope, tau in ((-100.0, 0.0), (-1.0, 1 + math.tanh(-1))):
        made.parts["value"]["slope"].fill_(slope)
        found = made.inverse_temperature("value", x, features)[0, 0]
        assert found.tolist() == pytest.approx([1, 1, tau, 1, 1], abs=0)
        assert made.attention(x, features)[0, 0, :, 2].tolist() == pytest.approx([0.2] * 5)
        assert torch.equal(made(changed, features), made(x, features)) == (tau == 0)


def test_labels_choose_from_the_table() -> None:
    made = layer(4, 2, "ssa-degree").requires_grad_(False)
    labels = torch.tensor([[2, 0, 1, 2, 2]])
    tau = made.inverse_temperature("query", random(1, 5, 4), labels={"degree": labels})
    close(tau[0], made.parts["query"]["theta"].exp()[labels[0]].T)


def test_heads_have_parameters_of_their_own() -> None:
    x, made = random(1, 5, 6), layer(6, 2, "ssa")
    before = made.attention(x)
    with torch.no_grad():
        made.parts["query"]["vector"][:, 1] += 1
    after = made.attention(x)
    assert torch.equal(after[:, 0], before[:, 0])
    assert (after[:, 1] - before[:, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(0, 3), (2, 1), (2, 0)])
@over(("ssa", "sink+ssa", "sparsemax", "qk-norm", "gated"))
def test_empty_and_single_inputs(name: str, shape: tuple[int, int]) -> None:
    made, x = layer(4, 2, name), random(*shape, 4)
    assert made(x).shape == x.shape
    assert made.attention(x).shape == (shape[0], 2, shape[1], shape[1])
    assert made(x, padding=torch.ones(shape, dtype=torch.bool)).shape == x.shape


# Gradients


@over(ALL)
def test_gradients_reach_every_parameter(name: str) -> None:
    made = layer(8, 2, name)
    x, read = random(3, 7, 8), given_to(made, 3, 7)
    gradients = torch.autograd.grad(made(x, **read).square().sum(), list(made.parameters()))
    for (parameter, _), gradient in zip(made.named_parameters(), gradients, strict=True):
        assert gradient.abs().max() > 1e-9, parameter
        if "parts" in parameter:  # of every head
            assert gradient.abs().reshape(-1, gradient.shape[-1]).amax(0).min() > 1e-9, parameter


@over(ALL)
def test_gradients_are_right(name: str) -> None:
    made = layer(4, 2, name)
    x, read = random(1, 3, 4).requires_grad_(), given_to(made, 1, 3)
    parameters = {k: v for k, v in made.named_parameters() if "parts" in k}
    padding = torch.tensor([[False, True, True]])

    def run(x: Tensor, *values: Tensor) -> Tensor:
        moved = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(made, moved, (x,), {**read, "padding": padding})

    assert torch.autograd.gradcheck(run, (x, *parameters.values()), fast_mode=True)


# Precision and devices


@over(ALL)
def test_single_precision_is_close_to_double(name: str) -> None:
    made = layer(8, 2, name)
    x, read = random(2, 6, 8), given_to(made, 2, 6)
    expected = made(x, **read)
    read |= {"features": read["features"].float()} if "features" in read else {}
    found = copy.deepcopy(made).float()(x.float(), **read)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)


@over(ALL)
def test_half_precision_and_autocast(name: str) -> None:
    """Sparse rows, which their package cannot find in half precision, are found in single."""
    made = layer(8, 2, name).bfloat16()
    x, read = random(2, 6, 8).bfloat16(), given_to(made, 2, 6)
    half = read | ({"features": read["features"].bfloat16()} if "features" in read else {})
    found, rows = made(x, **half), made.attention(x, **half)
    assert found.dtype == rows.dtype == torch.bfloat16
    made = made.float()
    single = read | ({"features": half["features"].float()} if "features" in read else {})
    expected = made(x.float(), **single)
    with torch.autocast("cpu", torch.bfloat16):
        cast = made(x.float(), **single)
    for output in (found, cast):
        assert output.isfinite().all()
        error = (output - expected).abs()
        # One score that rounds to the other side of a threshold changes a row.
        assert error.median() < 0.02 * expected.abs().max()


@over(ALL)
def test_shapes_without_storage_count_the_same(name: str) -> None:
    state = torch.get_rng_state()
    with torch.device("meta"):
        made = SelfAttention(24, 4, ALL[name], **OPTIONS)
    with FakeTensorMode():
        SelfAttention(24, 4, ALL[name], **OPTIONS)
    assert torch.equal(torch.get_rng_state(), state)  # nothing is drawn
    real = SelfAttention(24, 4, ALL[name], **OPTIONS)
    assert {p.device.type for p in made.parameters()} == {"meta"}
    shapes = {k: v.shape for k, v in made.named_parameters()}
    assert shapes == {k: v.shape for k, v in real.named_parameters()}
    assert made.added_parameters() == real.added_parameters()
    x = torch.empty(2, 5, 24, device="meta")
    read = given_to(made, 2, 5)
    if "features" in read:
        read["features"] = torch.empty(2, 5, device="meta")
    if "labels" in read:
        read["labels"] = {k: v.to("meta") for k, v in read["labels"].items()}
    assert made(x, **read).shape == (2, 5, 24)


class Everything(nn.Module):
    """All that a module computes, as `functional_call` calls nothing but `forward`."""

    def __init__(self, made: SelfAttention) -> None:
        super().__init__()
        self.made = made

    def forward(self, *given: Tensor, **read: object) -> tuple[Tensor, ...]:
        made = self.made
        taus = (made.inverse_temperature(role, *given, **read) for role in ROLES)
        return made(*given, **read), made.attention(*given, **read), *taus


@pytest.mark.parametrize("masked", [True, False])
@over(ALL)
def test_nothing_is_made_on_another_device(
    name: str, masked: bool, no_host: TorchDispatchMode
) -> None:
    with torch.device("meta"):
        made = Everything(SelfAttention(8, 2, ALL[name], causal=masked, **OPTIONS))
    read = given_to(made.made, 2, 5)
    with FakeTensorMode() as fake, torch.no_grad():
        parameters = {k: torch.empty(v.shape, device="cuda") for k, v in made.named_parameters()}
        x = torch.empty(2, 5, 8, device="cuda")
        if "features" in read:
            read["features"] = torch.empty(2, 5, device="cuda")
        if "labels" in read:
            read["labels"] = {
                k: torch.empty(2, 5, dtype=torch.int64, device="cuda") for k in read["labels"]
            }
        if masked:
            read["padding"] = torch.empty(2, 5, dtype=torch.bool, device="cuda")
        with no_host:
            found = torch.func.functional_call(made, parameters, (x,), read)
        shapes = [(2, 5, 8), (2, 2, 5, 5), *[(2, 2, 5)] * 3]
        assert [tuple(v.shape) for v in found] == shapes
        assert all(fake.is_our_fake(v) and v.device.type == "cuda" for v in found)


@pytest.mark.cuda
@over(ALL)
def test_a_cuda_device_agrees_with_the_host(name: str) -> None:
    made = layer(8, 2, name)
    x, read = random(2, 6, 8), given_to(made, 2, 6)
    padding = torch.tensor([[False, True, True, True, True, False], [True] * 6])
    for extra in ({}, {"padding": padding}):
        expected = made.cpu()(x, **read, **extra)
        on_device = {
            k: {i: j.cuda() for i, j in v.items()} if isinstance(v, dict) else v.cuda()
            for k, v in (read | extra).items()
        }
        close(made.cuda()(x.cuda(), **on_device).cpu(), expected, 1e-9)


@over(ALL)
def test_copies_and_stored_weights_are_the_same_layer(name: str) -> None:
    made = layer(8, 2, name)
    x, read = random(2, 5, 8), given_to(made, 2, 5)
    other = layer(8, 2, name, seed=7)
    assert not torch.equal(other(x, **read), made(x, **read))
    other.load_state_dict(made.state_dict())
    for same in (other, copy.deepcopy(made)):
        assert torch.equal(same(x, **read), made(x, **read))
    assert f"mechanism={name!r}" in repr(made)


def test_the_module_is_one_graph_for_a_compiler() -> None:
    """In a process of its own: the runtime type checker of the tests cannot be compiled."""
    script = """
import torch
from ssa_theory import SelfAttention
x, padding = torch.randn(2, 5, 8), torch.tensor([[False, True, True, True, True], [True] * 5])
for name in ("ssa", "ssa-mlp", "sink+ssa", "gated", "qk-norm", "top-k"):
    torch._dynamo.reset()
    made = SelfAttention(8, 2, name)
    compiled = torch.compile(made, backend="eager", fullgraph=True)
    for given in ({}, {"padding": padding}):
        torch.testing.assert_close(compiled(x, **given), made(x, **given))
print("the same")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "the same\n", done.stderr


def test_a_model_that_is_evaluated_otherwise_is_so_in_eval_mode_alone() -> None:
    made, x = layer(8, 2, "entropy-adaptive"), 0.3 * random(2, 9, 8)
    plain = layer(8, 2, "vanilla")
    plain.load_state_dict(made.state_dict())
    close(made(x), plain(x))
    close(made.attention(x), plain.attention(x))
    trained = made.attention(x)
    rows = made.eval().attention(x)
    entropy, sharper = (torch.special.entr(r).sum(-1) for r in (trained, rows))
    assert (sharper <= entropy + 1e-12).all()
    assert (sharper < entropy - 0.1).any()
    plain.eval()
    assert (made(x) - plain(x)).abs().max() > 1e-3
    close(made.train()(x), plain(x))


# Parameter counts


@over(ALL)
def test_added_parameters_are_the_difference_of_counts(name: str) -> None:
    counts = {
        worn: sum(p.numel() for p in layer(12, 3, worn).parameters()) for worn in ("vanilla", name)
    }
    made = layer(12, 3, name)
    assert made.added_parameters() == counts[name] - counts["vanilla"]
    nothing = {"vanilla", "softcap", "sparsemax", "entmax15", "top-k", "threshold", "off-by-one"}
    nothing |= {"softpick", "entropy-adaptive", "constant-scale"}
    assert (made.added_parameters() == 0) == (name in nothing)


@pytest.mark.parametrize(
    ("term", "each"),
    [
        (Selective(position=False), 4 * 6),
        (Selective(), 4 * 6 + 4),
        (Selective(MLP(width=5), position=False), (24 * 5 + 5) + (5 * 4 + 4)),
        (Selective(MLP(width=1)), (24 + 1) + (4 + 4) + 4),
        (Selective(MLP()), (24 * 48 + 48) + (48 * 4 + 4) + 4),
        (Selective(Feature(), position=False), 4 + 4),
        (Selective(Linear()), 24 * 4 + 4),
        (Selective(Constant()), 4 + 4),
        (Selective(None), 4),
    ],
    ids=str,
)
def test_added_parameters_by_hand(term: Selective, each: int) -> None:
    """dim 24, 4 heads of width 6."""
    for roles in (("query",), ("query", "value"), ROLES):
        made = SelfAttention(24, 4, Mechanism("term", **dict.fromkeys(roles, term)))
        assert made.added_parameters() == len(roles) * each


@pytest.mark.parametrize(
    ("name", "added"),
    [
        ("qk-norm", 4),
        ("key-bias", 4 * 24),
        ("gated", 24 * 24),
        ("gated-head", 4 * 24),
        ("sink", 4),
        ("rela", 4),
        ("entmax", 4),
        ("gate-and-sink", 24 * 48 + 48 + 48 * 4 + 4 + 4),
        ("differential", 2 * 24 * 24 + 4),  # a query and a key map more
        ("asentmax", 2 * (4 * 24 + 4)),
        ("scaled-key-bias", 4 * (24 + 1)),
        ("ssa-key-bias", 2 * 4 * (6 + 1) + 4 * 24),
        ("qk-norm-ssa-query", 4 + 4 * (6 + 1)),
        ("llama4", 4),
        ("log2", 4),
    ],
)
def test_added_parameters_of_other_parts_by_hand(name: str, added: int) -> None:
    assert SelfAttention(24, 4, name, trained_length=3).added_parameters() == added


@pytest.mark.parametrize(("dim", "heads"), [(768, 12), (1024, 16), (1280, 20), (1600, 25)])
def test_weight_sharing_adds_less_than_half_a_percent_at_gpt2_sizes(dim: int, heads: int) -> None:
    with torch.device("meta"):
        made = SelfAttention(dim, heads)
    assert made.added_parameters() == 2 * (dim + heads)
    attention = sum(p.numel() for p in made.parameters()) - made.added_parameters()
    assert attention == 4 * dim**2
    assert 0 < made.added_parameters() / attention < 0.005


# Bad input


@pytest.mark.parametrize(("dim", "heads"), [(0, 1), (4, 0), (4, 3), (-4, 2), (4, 8)])
def test_bad_sizes(dim: int, heads: int) -> None:
    message = f"heads must divide dim, .* got dim={dim} and heads={heads}: change one"
    for make in (SelfAttention, form_of_heads):
        with pytest.raises(ValueError, match=message):
            make(dim, heads)


def test_unknown_mechanisms_and_those_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="unknown mechanism 'ssb': did you mean ssa"):
        SelfAttention(4, 2, "ssb")
    with pytest.raises(Misfit, match="mechanism ssa-free needs the token of every query token"):
        SelfAttention(4, 2, "ssa-free")
    with pytest.raises(Misfit, match="mechanism ssa-degree needs the degree of every query token"):
        SelfAttention(4, 2, "ssa-degree", labels={"token": 3})
    with pytest.raises(Misfit, match="mechanism yarn needs the longest context of training"):
        SelfAttention(4, 2, "yarn")


@pytest.mark.usefixtures("unchecked")
def test_bad_inputs() -> None:
    x = random(2, 3, 4)
    flat, mask = x[..., 0], torch.ones(2, 3, dtype=torch.bool)
    number = {"degree": torch.zeros(2, 3, dtype=torch.int64)}
    ssa, feature, degree = (layer(4, 2, name) for name in ("ssa", "ssa-feature", "ssa-degree"))
    for made, inputs, message in (
        (ssa, {"x": x[..., :3]}, r"shape \(batch, length, 4\), got \(2, 3, 3\): match the layer's"),
        (ssa, {"x": x[0]}, r"shape \(batch, length, 4\), got \(3, 4\): match the layer's dim"),
        (ssa, {"features": flat}, "ssa reads no given scalar, got features: leave them out"),
        (ssa, {"labels": number}, "ssa reads no labels here, got degree: pass those"),
        (feature, {}, "ssa-feature reads a given scalar of every token, got None: pass features"),
        (
            feature,
            {"features": x},
            r"features must have one value a token, \(2, 3\), got \(2, 3, 4",
        ),
        (degree, {}, "ssa-degree reads degree labels here, got none: pass those that it reads"),
        (degree, {"labels": {"token": mask}}, "reads degree labels here, got token: pass those"),
        (degree, {"labels": {"degree": mask[0]}}, r"degree must have one value .* got \(3,\)"),
        (
            ssa,
            {"padding": mask[:1]},
            r"padding must have one value a token, .* got \(1, 3\): match",
        ),
        (
            ssa,
            {"padding": mask.long()},
            "padding must be boolean, True for a real token, got torch.",
        ),
    ):
        for call in (made, made.attention, partial(made.inverse_temperature, "query")):
            with pytest.raises(ValueError, match=message):
                call(**{"x": x} | inputs)


def test_a_layer_of_given_scores_has_its_shift() -> None:
    """tau (s + b), with the layer's scale in tau: `rela` would otherwise have a b that nobody
    reads.
    """
    made = Layer(MECHANISMS["rela"], Form(4, given_scores=True))
    scores = random(3, 5, 2)
    scale, offset = random(2, seed=1), random(2, seed=2)
    parameters = {"log_scale": scale, "shift.offset": offset}
    assert set(parameters) == set(made.initial_parameters([np.random.default_rng(0)]))
    close(made.scores(parameters, Inputs(given=scores)), scale.exp() * (scores + offset))
