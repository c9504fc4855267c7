"""The module of SSA: its reductions to plain attention, its mask, its gate, and its ensembles."""

import math
from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from analysis.properties.base import (
    EPS,
    Choice,
    Integer,
    Number,
    collect,
    equal,
    exact,
    states,
)
from ssa_theory.mechanism import MECHANISMS, Form, Inputs, Layer, Mechanism, Role, Tokens
from ssa_theory.mechanism.scores import MLP, Feature, WeightShared
from ssa_theory.mechanism.temperature import Selective
from ssa_theory.module import SelfAttention

_SOURCE = "SSA paper: attention with query, key and value temperatures"
_ROLES: tuple[Role, ...] = ("query", "key", "value")
_SIZES = {"length": Integer(1, 6), "heads": Choice((1, 2)), "width": Integer(1, 4)}
_LAYER = _SIZES | {"causal": Choice((False, True)), "bias": Choice((False, True))}
_TOKEN = Choice((None, "shared", "mlp", "feature"))


def _normal(generator: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(generator.standard_normal(shape))


def _term(token: str | None, position: bool) -> Selective | None:
    """A temperature with a token term, a position term, or both; None for neither."""
    score = {None: None, "shared": WeightShared(), "mlp": MLP(width=3), "feature": Feature()}[token]
    return Selective(score, position=position) if token or position else None


def _layer(
    generator: np.random.Generator,
    dim: int,
    heads: int,
    temperatures: Mapping[Role, Selective | None],
    causal: bool = True,
    bias: bool = False,
) -> SelfAttention:
    """A float64 layer whose parameters are all random, the temperatures' included."""
    query, key, value = (temperatures.get(role) for role in _ROLES)
    worn = Mechanism("worn", query=query, key=key, value=value)
    made = SelfAttention(dim, heads, worn, causal=causal, bias=bias)
    made = made.double().requires_grad_(False)
    for parameter in made.parameters():
        parameter.copy_(0.7 * _normal(generator, *parameter.shape))
    return made


def _scaled(
    made: SelfAttention, x: Tensor, features: Tensor | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The projections, each scaled by its tau, and the taus."""
    taus = {role: made.inverse_temperature(role, x, features) for role in _ROLES}
    split = (*x.shape[:2], made.heads, -1)
    scaled = {
        role: getattr(made, role)(x).view(split).transpose(1, 2) * tau.unsqueeze(-1)
        for role, tau in taus.items()
    }
    return scaled, taus


def _output_slack(made: SelfAttention, scaled: dict[str, Tensor]) -> float:
    """Rounding of a layer's output: a logit sums width products of sums of dim, and moves a weight
    by twice its error.
    """
    length = scaled["query"].shape[-2]
    logit = float(scaled["query"].norm(dim=-1).max() * scaled["key"].norm(dim=-1).max())
    size = float(scaled["value"].abs().max() * made.output.weight.abs().sum(1).max())
    return 16 * (made.dim + length) * EPS * (1 + logit) * (1 + size)


@states(_SOURCE, **_LAYER)
def no_temperature_is_plain_attention(
    generator: np.random.Generator, length: int, heads: int, width: int, causal: bool, bias: bool
) -> None:
    """Without temperatures the layer is torch's scaled_dot_product_attention between its
    projections, to the bit.
    """
    dim = heads * width
    x = _normal(generator, 2, length, dim)
    made = _layer(generator, dim, heads, {}, causal=causal, bias=bias)
    q, k, v = (
        getattr(made, name)(x).view(2, length, heads, width).transpose(1, 2) for name in _ROLES
    )
    plain = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    exact(
        torch.equal(made(x), made.output(plain.transpose(1, 2).reshape(2, length, dim))),
        "the outputs are equal",
    )
    exact(made.added_parameters() == 0, "no parameter is added")


@states(_SOURCE, **_LAYER, token=_TOKEN, role=Choice(_ROLES))
def unit_temperature_is_vanilla(
    generator: np.random.Generator,
    length: int,
    heads: int,
    width: int,
    causal: bool,
    bias: bool,
    token: str | None,
    role: Role,
) -> None:
    """Where every score f is zero every tau is one, and the layer is vanilla attention: its scaled
    projections to the bit, its output to rounding.
    """
    dim = heads * width
    x = _normal(generator, 2, length, dim)
    vanilla = _layer(generator, dim, heads, {}, causal=causal, bias=bias)
    worn: dict[Role, Selective | None] = {role: _term(token, position=False)}
    start = _layer(generator, dim, heads, worn, causal=causal, bias=bias)
    start.load_state_dict(vanilla.state_dict(), strict=False)
    for name, parameter in start.parts.named_parameters():
        if name.rpartition(".")[2] in ("vector", "slope", "offset"):
            parameter.zero_()
    features = _normal(generator, 2, length) if token == "feature" else None
    scaled, taus = _scaled(start, x, features)
    plain, _ = _scaled(vanilla, x)
    exact((taus[role] == 1).all(), "every tau is one")
    exact(
        all(torch.equal(scaled[name], plain[name]) for name in _ROLES),
        "the scaled projections are equal",
    )
    # The same numbers may lie in memory in another order, and then be summed in another.
    equal(start(x, features), vanilla(x), _output_slack(vanilla, plain), "output")


@states(_SOURCE, **_SIZES, token=_TOKEN, position=Choice((False, True)))
def masked_is_truncated(
    generator: np.random.Generator,
    length: int,
    heads: int,
    width: int,
    token: str | None,
    position: bool,
) -> None:
    """Under the causal mask a token's output is that of the input cut off behind it, with every
    temperature on.
    """
    dim = heads * width
    made = _layer(generator, dim, heads, dict.fromkeys(_ROLES, _term(token, position)))
    x = _normal(generator, 1, length, dim)
    features = _normal(generator, 1, length) if token == "feature" else None
    whole, rows = made(x, features), made.attention(x, features)
    slack = _output_slack(made, _scaled(made, x, features)[0])
    for n in range(1, length + 1):
        part = (x[:, :n], None if features is None else features[:, :n])
        equal(made(*part), whole[:, :n], slack, f"output of the first {n} tokens")
        equal(
            made.attention(*part),
            rows[:, :, :n, :n],
            slack,
            f"attention among the first {n} tokens",
        )
    exact((rows.triu(1) == 0).all(), "later tokens get no weight")
    equal(rows.sum(-1), 1.0, 4 * length * EPS, "sum of an attention row")


@states(
    _SOURCE,
    **_LAYER,
    place=Integer(0, 5),
    score=Number(20.0, 1000.0),
    change=Number(-100.0, 100.0, 1.0),
)
def value_gate(
    generator: np.random.Generator,
    length: int,
    heads: int,
    width: int,
    causal: bool,
    bias: bool,
    place: int,
    score: float,
    change: float,
) -> None:
    """A token with tau_v = 0 cannot influence the output through its value, however much attention
    it gets.
    """
    dim, place = heads * width + heads, place % length
    worn: dict[Role, Selective | None] = {
        "query": _term("feature", position=True),
        "value": _term("feature", position=False),
    }
    made = _layer(generator, dim, heads, worn, causal=causal, bias=bias)
    for name in ("query", "key"):
        getattr(made, name).weight[:, -1] = (
            0  # the last coordinate of a token speaks through its value alone
        )
    gate = cast(nn.ParameterDict, made.parts["value"])
    gate["slope"].fill_(-1)
    gate["offset"].zero_()
    x, features = _normal(generator, 1, length, dim), _normal(generator, 1, length)
    features[0, place] = score  # tau_v = 1 - tanh(score), which is 0 to the bit from 20 on
    changed = x.clone()
    changed[0, place, -1] += change
    _, taus = _scaled(made, x, features)
    exact((taus["value"][0, :, place] == 0).all(), "tau_v is zero")
    exact((made.attention(x, features)[0, :, place:, place] > 0).all(), "the token is attended to")
    exact(torch.equal(made(changed, features), made(x, features)), "the output does not change")


@states(
    _SOURCE,
    mechanism=Choice(("vanilla", "ssa-query", "ssa-mlp-query")),
    position=Choice((False, True)),
    nodes=Integer(2, 6),
)
def ensemble_member_is_the_module(
    generator: np.random.Generator, mechanism: str, position: bool, nodes: int
) -> None:
    """Each member of an ensemble is the attention module with its parameters: W_q = W and
    W_k = sqrt(d) I.
    """
    dim, members = 4, 3
    layer = Layer(MECHANISMS[mechanism], Form(dim, position=position), initial_scale=1.0)
    tokens = Tokens(_normal(generator, nodes, dim, members))
    inputs = Inputs(tokens, tokens, count=float(nodes))
    start = layer.initial_parameters([generator] * members)
    parameters = {name: v + 0.6 * _normal(generator, *v.shape) for name, v in start.items()}
    logits = layer.scores(parameters, inputs)
    taus = layer.inverse_temperature("query", parameters, inputs)
    selective = layer.mechanism.query is not None
    module = SelfAttention(dim, 1, layer.mechanism, causal=False).double().requires_grad_(False)
    for m in range(members):
        single = {name.removeprefix("query."): v[..., m] for name, v in parameters.items()}
        module.query.weight.copy_(single["weight"].T)
        module.key.weight.copy_(math.sqrt(dim) * torch.eye(dim))
        for name, value in module.parts.named_parameters():
            value.copy_(single[name.removeprefix("query.")].unsqueeze(-1))
        x = tokens.vector[None, ..., m]
        # A score f is a sum of dim products of sums of dim products, and moves a logit in
        # proportion.
        length = float(x.norm(dim=-1).max())
        size = length**2 * float(single["weight"].norm()) * (1 + math.log(nodes))
        spread = 1 + sum(float(v.norm()) for v in single.values()) ** 2 * length
        slack = 32 * dim * EPS * (1 + size) * spread
        row = module.attention(x)[0, 0]
        equal(row, logits[..., m].softmax(1), slack, "attention row of the module")
        if selective:
            tau = module.inverse_temperature("query", x)[0, 0]
            equal(tau, taus[:, m], slack, "tau of the module")
    if not selective:
        exact((taus == 1).all(), "every tau is one")


PROPERTIES = collect(globals())
