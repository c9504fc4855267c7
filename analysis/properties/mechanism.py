"""The mechanism: its reductions to plain attention, and the normalisers beside the softmax."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from analysis.properties.base import (
    EPS,
    Choice,
    Integer,
    Number,
    Row,
    at_most,
    collect,
    equal,
    exact,
    states,
)
from ssa_theory import SelfAttention, SingleLayerAttention, Tokens
from ssa_theory.mechanism import Mechanism
from ssa_theory.mechanism.scores import MLP, Feature, WeightShared
from ssa_theory.mechanism.temperature import Selective
from ssa_theory.normalizers import ROW_NORMALIZERS, Normalizer

_SOURCE = "SSA paper: attention with query, key and value temperatures"
_ROLES = ("query", "key", "value")
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
    temperatures: dict[str, Selective | None],
    **arguments: bool,
) -> SelfAttention:
    """A float64 layer whose parameters are all random, the temperatures' included."""
    worn = Mechanism("worn", **temperatures)
    made = SelfAttention(dim, heads, worn, **arguments).double().requires_grad_(False)
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
    """Without temperatures the layer is torch's scaled_dot_product_attention between its projections, to the bit."""
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
    role: str,
) -> None:
    """Where every score f is zero every tau is one, and the layer is vanilla attention: its scaled projections
    to the bit, its output to rounding."""
    dim = heads * width
    x = _normal(generator, 2, length, dim)
    vanilla = _layer(generator, dim, heads, {}, causal=causal, bias=bias)
    worn = {role: _term(token, position=False)}
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
    """Under the causal mask a token's output is that of the input cut off behind it, with every temperature on."""
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
    """A token with tau_v = 0 cannot influence the output through its value, however much attention it gets."""
    dim, place = heads * width + heads, place % length
    worn = {"query": _term("feature", position=True), "value": _term("feature", position=False)}
    made = _layer(generator, dim, heads, worn, causal=causal, bias=bias)
    for name in ("query", "key"):
        getattr(made, name).weight[:, -1] = (
            0  # the last coordinate of a token speaks through its value alone
        )
    made.parts["value"]["slope"].fill_(-1)
    made.parts["value"]["offset"].zero_()
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
    variant=Choice(("vanilla", "ssa", "ssa-mlp")),
    position=Choice((False, True)),
    nodes=Integer(2, 6),
)
def ensemble_member_is_the_module(
    generator: np.random.Generator, variant: str, position: bool, nodes: int
) -> None:
    """Each member of an ensemble is the attention module with its parameters: W_q = W and W_k = sqrt(d) I."""
    dim, members = 4, 3
    model = SingleLayerAttention(variant, position)
    tokens = Tokens(
        _normal(generator, nodes, dim, members),
        torch.ones(nodes, members, dtype=torch.int64),
        nodes,
    )
    start = model.initial_parameters(nodes, dim, [generator] * members, init_scale=1.0)
    parameters = {
        name: value + 0.6 * _normal(generator, *value.shape) for name, value in start.items()
    }
    logits, taus = model.logits(parameters, tokens), model.inverse_temperature(parameters, tokens)
    score = {"vanilla": None, "ssa": WeightShared(), "ssa-mlp": MLP(width=dim)}[variant]
    term = None if score is None else Selective(score, position=position)
    module = SelfAttention(dim, 1, Mechanism("worn", query=term), causal=False).double()
    module.requires_grad_(False)
    for m in range(members):
        single = {name: value[..., m] for name, value in parameters.items()}
        module.query.weight.copy_(single["weight"].T)
        module.key.weight.copy_(math.sqrt(dim) * torch.eye(dim))
        for name, value in module.parts["query"].items() if term else ():
            value.copy_(single[name].unsqueeze(-1) if name in single else torch.zeros(1))
        x = tokens.embeddings[None, ..., m]
        # A score f is a sum of dim products of sums of dim products, and moves a logit in proportion.
        size = (
            float(x.norm(dim=-1).max()) ** 2
            * float(single["weight"].norm())
            * (1 + math.log(nodes))
        )
        spread = 1 + sum(float(v.norm()) for v in single.values()) ** 2 * float(
            x.norm(dim=-1).max()
        )
        slack = 32 * dim * EPS * (1 + size) * spread
        equal(
            module.attention(x)[0, 0],
            logits[..., m].softmax(1),
            slack,
            "attention row of the module",
        )
        if term:
            equal(
                module.inverse_temperature("query", x)[0, 0], taus[:, m], slack, "tau of the module"
            )
    if variant == "vanilla":
        exact((taus == 1).all(), "every tau is one")


_ROW = {"name": Choice(ROW_NORMALIZERS), "scores": Row(1, 12), "scale": Number(0.0, 30.0, 1.0)}
_SPARSE = "sparsemax (1602.02068), alpha-entmax (1905.05702), rectified and thresholded attention"


def _normalised(name: str, scores: Tensor, alpha_score: float = 0.3) -> Tensor:
    """The row of a normaliser (top-k with k = 3)."""
    normalizer = Normalizer(name, 3 if name == "top-k" else None)
    parameters = {"alpha_score": torch.tensor([alpha_score], dtype=torch.float64)}
    return normalizer.rows(parameters, scores.unsqueeze(-1), 0).squeeze(-1)


@states(_SPARSE, **_ROW, shift=Number(-20.0, 20.0, 0.0))
def normaliser_rows(
    generator: np.random.Generator, name: str, scores: tuple[float, ...], scale: float, shift: float
) -> None:
    """Every normaliser gives weights of at least 0 that sum to one (to zero where no key is left), keep the order of the
    scores, and follow the keys when they are permuted; but for those with a fixed zero, a common shift changes nothing."""
    z = scale * torch.tensor(scores, dtype=torch.float64)
    n, row = len(z), _normalised(name, z)
    # A score is off by its own rounding, and by the shift's; a power 1/(alpha - 1) of at most 2 magnifies it.
    slack = 16 * n * EPS * (1 + scale + abs(shift))
    at_most(0.0, row, 0.0, "zero below each weight")
    fixed_zero = name in ("threshold", "rela")
    equal(row.sum(), 1.0 if not fixed_zero or (z > 0).any() else 0.0, slack, "sum of the weights")
    order = z.argsort()
    if name != "top-k":  # which breaks ties
        at_most(row[order[:-1]], row[order[1:]], slack, "weight of the lower score")
        mixed = torch.from_numpy(generator.permutation(n))
        equal(_normalised(name, z[mixed]), row[mixed], slack, "weight after a permutation")
    if not fixed_zero:
        equal(
            _normalised(name, z + shift).sort().values,
            row.sort().values,
            slack,
            "weight after a common shift",
        )
    if name == "softmax":
        exact((row > 0).all(), "a softmax weight is never zero")


@states(
    _SPARSE,
    name=Choice(("sparsemax", "entmax15", "entmax")),
    scores=Row(1, 12),
    tau=Number(0.0, 10.0, 1.0),
    factor=Number(1.0, 5.0),
    alpha_score=Number(-2.0, 3.0, 0.0),
)
def entmax_support(
    generator: np.random.Generator,
    name: str,
    scores: tuple[float, ...],
    tau: float,
    factor: float,
    alpha_score: float,
) -> None:
    """Key k gets a weight in alpha-entmax(tau z) exactly where sum_j [(alpha - 1) tau (z_j - z_k)]_+^(1/(alpha - 1)) < 1, so
    the support shrinks as tau rises; the weights are [(alpha - 1) tau z - theta]_+^(1/(alpha - 1)) with one theta."""
    z, supports = torch.tensor(scores, dtype=torch.float64), []
    n, learned = len(z), torch.tensor([alpha_score], dtype=torch.float64)
    alpha = {"sparsemax": 2.0, "entmax15": 1.5}.get(name) or Normalizer("entmax").alpha(
        {"alpha_score": learned}
    ).item()
    power = 1 / (alpha - 1)
    for t in (tau, tau * factor):
        row = _normalised(name, t * z, alpha_score)
        reach = (((alpha - 1) * t * (z[:, None] - z)).clamp(min=0) ** power).sum(0)
        # A key at distance h above the threshold has reach 1 - n power h at least; h is known to a few roundings.
        margin = 16 * n * power * EPS * (1 + t)
        at_most(reach[row > 0], 1.0, margin, "reach of a key with weight")
        at_most(1.0, reach[row == 0], margin, "1, and the reach of a key without weight")
        above = (row.max() ** (alpha - 1) - (alpha - 1) * t * (z.max() - z)).clamp(min=0)
        equal(row, above**power, margin, "weight, and that of one threshold for all keys")
        supports.append(reach < 1 - margin)
        equal(row.sum(), 1.0, 16 * n * EPS * (1 + t) * power, "sum of the weights")
    exact(not (supports[1] & ~supports[0]).any(), "no key enters the support as tau rises")
    exact(supports[0][z == z.max()].all(), "the largest score is in the support")


PROPERTIES = collect(globals())
