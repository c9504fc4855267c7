"""Rows of attention: normalisers beside the softmax, and all mechanisms in all forms of layer."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from analysis.properties.base import (
    EPS,
    Choice,
    Inapplicable,
    Integer,
    Number,
    Row,
    at_most,
    collect,
    equal,
    exact,
    states,
)
from ssa_theory.mechanism import MECHANISMS, Form, Inputs, Layer, Misfit, Parameters, Tokens
from ssa_theory.mechanism.normalizers import (
    Entmax,
    Entmax15,
    Normalizer,
    Softmax,
    SoftmaxSink,
    Sparsemax,
    TopK,
)
from ssa_theory.mechanism.rectified import Rectified, Softpick

_NORMALIZERS: dict[str, Normalizer] = {}
for _name, _mechanism in MECHANISMS.items():
    for _normalizer in (_mechanism.normalizer, _mechanism.evaluation):
        if _normalizer is not None and _normalizer not in _NORMALIZERS.values():
            _NORMALIZERS[_name] = _normalizer
_ROW = {"name": Choice(tuple(_NORMALIZERS)), "scores": Row(1, 12), "scale": Number(0.0, 30.0, 1.0)}
_SPARSE = "sparsemax (1602.02068), alpha-entmax (1905.05702), rectified and thresholded attention"
_LEARNED = 0.3
"""What a normaliser learns, a single number, where a property says nothing about it."""


def _normalised(normalizer: Normalizer, scores: Tensor, learned: float = _LEARNED) -> Tensor:
    """The row of a normaliser."""
    value = torch.tensor([learned], dtype=torch.float64)
    parameters = dict.fromkeys(normalizer.shapes("key", Form(1)), value)
    return normalizer.rows(parameters, scores.unsqueeze(-1), 0).squeeze(-1)


@states(_SPARSE, **_ROW, shift=Number(-20.0, 20.0, 0.0))
def normaliser_rows(
    generator: np.random.Generator,
    name: str,
    scores: tuple[float, ...],
    scale: float,
    shift: float,
) -> None:
    """Every normaliser gives weights of at least 0 that sum to one (less with a sink or by softpick,
    zero where no key is left), keep the order of the scores, and follow permuted keys; without
    a fixed zero, a common shift changes nothing.
    """
    normalizer = _NORMALIZERS[name]
    z = scale * torch.tensor(scores, dtype=torch.float64)
    n, row = len(z), _normalised(normalizer, z)
    # A score is off by its own rounding, and by the shift's; a power 1/(alpha - 1) of at most 2
    # magnifies it.
    slack = 16 * n * EPS * (1 + scale + abs(shift))
    at_most(0.0, row, 0.0, "zero below each weight")
    rectified = isinstance(normalizer, Rectified)
    total: float | Tensor = 0.0 if rectified and not (z > 0).any() else 1.0
    if isinstance(normalizer, Softpick) and total:
        taken = -torch.expm1(z[z < 0]).sum() * torch.exp(-z.max())
        given = (torch.exp(z[z > 0] - z.max()) - torch.exp(-z.max())).sum()
        total = given / (given + taken)
    if isinstance(normalizer, SoftmaxSink):
        sink = _LEARNED if normalizer.learned else 0.0
        total = torch.sigmoid(z.logsumexp(0) - sink)
    equal(row.sum(), total, slack, "sum of the weights")
    order = z.argsort()
    if not isinstance(normalizer, TopK):  # which breaks ties
        at_most(row[order[:-1]], row[order[1:]], slack, "weight of the lower score")
        mixed = torch.from_numpy(generator.permutation(n))
        permuted = _normalised(normalizer, z[mixed])
        equal(permuted, row[mixed], slack, "weight after a permutation")
    if not rectified and not isinstance(normalizer, SoftmaxSink):
        shifted = _normalised(normalizer, z + shift).sort().values
        equal(shifted, row.sort().values, slack, "weight after a common shift")
    if isinstance(normalizer, Softmax):
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
    """Key k gets a weight in alpha-entmax(tau z) exactly where sum_j [(alpha - 1) tau (z_j -
    z_k)]_+^(1/(alpha - 1)) < 1, so the support shrinks as tau rises; the weights are [(alpha - 1)
    tau z - theta]_+^(1/(alpha - 1)) with one theta.
    """
    normalizer = MECHANISMS[name].normalizer
    z, supports = torch.tensor(scores, dtype=torch.float64), []
    n, alpha = len(z), _alpha(normalizer, alpha_score)
    power = 1 / (alpha - 1)
    for t in (tau, tau * factor):
        row = _normalised(normalizer, t * z, alpha_score)
        reach = (((alpha - 1) * t * (z[:, None] - z)).clamp(min=0) ** power).sum(0)
        # A key at distance h above the threshold has reach 1 - n power h at least; h is known to a
        # few roundings.
        margin = 16 * n * power * EPS * (1 + t)
        at_most(reach[row > 0], 1.0, margin, "reach of a key with weight")
        at_most(1.0, reach[row == 0], margin, "1, and the reach of a key without weight")
        above = row.max() ** (alpha - 1) - (alpha - 1) * t * (z.max() - z)
        weight = above.clamp(min=0) ** power
        equal(row, weight, margin, "weight, and that of one threshold for all keys")
        supports.append(reach < 1 - margin)
        equal(row.sum(), 1.0, 16 * n * EPS * (1 + t) * power, "sum of the weights")
    exact(not (supports[1] & ~supports[0]).any(), "no key enters the support as tau rises")
    exact(supports[0][z == z.max()].all(), "the largest score is in the support")


def _alpha(normalizer: Normalizer, alpha_score: float) -> float:
    if isinstance(normalizer, Entmax):
        learned = torch.tensor([alpha_score], dtype=torch.float64)
        return normalizer.alpha({"alpha_score": learned}).item()
    return {Sparsemax(): 2.0, Entmax15(): 1.5}[normalizer]


_MEMBERS = 3
_COMMON = {"position": True, "trained_length": 2}
_FORMS: dict[str, Callable[[int, int], Form]] = {
    "vocabulary": lambda dim, keys: Form(
        dim,
        features=frozenset({"query", "key"}),
        labels={"token": keys, "degree": keys + 1},
        **_COMMON,
    ),
    "constant query": lambda dim, keys: Form(
        dim, constant_query=True, values=True, over_root_dim=True, **_COMMON
    ),
    "last token": lambda dim, keys: Form(dim, values=True, over_root_dim=True, **_COMMON),
    "wide query": lambda dim, keys: Form(dim, query_dim=dim + 1, features=frozenset({"query"})),
    "given scores": lambda dim, keys: Form(dim, given_scores=True, **_COMMON),
}
_LAYER = {
    "mechanism": Choice(tuple(MECHANISMS)),
    "form": Choice(tuple(_FORMS)),
    "dim": Integer(1, 4),
    "keys": Integer(1, 6),
}
_REGISTRY = "the registry of mechanisms, in every form of layer that wears them"


def _case(
    generator: np.random.Generator, mechanism: str, form: str, dim: int, keys: int
) -> tuple[Layer, Parameters, Inputs]:
    """A layer with random parameters and inputs, float64. Leaves out what does not fit."""
    chosen = _FORMS[form](dim, keys)
    try:
        layer = Layer(MECHANISMS[mechanism], chosen).evaluated
    except Misfit:
        raise Inapplicable from None

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(generator.standard_normal((*shape, _MEMBERS)))

    start = layer.initial_parameters([generator] * _MEMBERS)
    parameters = {k: v + 0.6 * normal(*v.shape[:-1]) for k, v in start.items()}
    if form == "given scores":
        return layer, parameters, Inputs(given=normal(4, keys), count=float(keys))
    if form == "vocabulary":
        degree = torch.from_numpy(generator.integers(keys + 1, size=(keys, _MEMBERS)))
        tokens = Tokens(normal(keys, dim), normal(keys), {"degree": degree})
        return layer, parameters, Inputs(tokens, tokens, count=float(keys))
    seen = normal(4, keys, dim)
    query = None if chosen.constant_query else Tokens(seen[:, -1])
    if chosen.query_dim is not None:
        query = Tokens(normal(4, chosen.query_dim), normal(4))
    return layer, parameters, Inputs(query, Tokens(seen), count=float(keys))


def _slack(layer: Layer, parameters: Parameters, inputs: Inputs) -> float:
    """Rounding of a weight: a score is a sum of a few dim products, and moves it in proportion."""
    size = float(layer.scores(parameters, inputs).abs().max())
    dim, keys = layer.form.dim, layer.rows(parameters, inputs).shape[1]
    return 256 * (dim + keys) * EPS * (1 + size) ** 2


@states(_REGISTRY, **_LAYER)
def mechanism_rows(
    generator: np.random.Generator, mechanism: str, form: str, dim: int, keys: int
) -> None:
    """Every mechanism's rows have weights of at least 0 that sum to one, or less with a sink or by
    softpick, or zero with no key left; a contrast takes its share off the sum. As a prediction they
    always sum to one, in the same proportions.
    """
    layer, parameters, inputs = _case(generator, mechanism, form, dim, keys)
    rows, predicted = layer.rows(parameters, inputs), layer.prediction(parameters, inputs)
    slack = _slack(layer, parameters, inputs)
    total = rows.sum(1)
    at_most(0.0, predicted, 0.0, "zero below each predicted probability")
    equal(predicted.sum(1), 1.0, slack, "sum of a prediction")
    if layer.mechanism.contrast is not None:
        share = parameters["contrast.share"]
        equal(total, 1 - share.expand_as(total), slack * (1 + share.abs()), "sum of a row")
        return
    at_most(0.0, rows, 0.0, "zero below each weight")
    at_most(total, 1.0, slack, "sum of a row")
    if not isinstance(layer.normalizer, SoftmaxSink | Softpick):
        dead = (layer.scores(parameters, inputs) <= 0).all(1) & isinstance(
            layer.normalizer, Rectified
        )
        equal(total, torch.where(dead, 0.0, 1.0), slack, "sum of a row")
    alive = (total > 0).unsqueeze(1)
    share = torch.where(alive, predicted * total.unsqueeze(1), rows)
    equal(share, rows, slack, "predicted probability times the row's sum")


@states(_REGISTRY, **_LAYER)
def mechanism_follows_the_keys(
    generator: np.random.Generator, mechanism: str, form: str, dim: int, keys: int
) -> None:
    """Every mechanism is equivariant: in another order of the keys each keeps its weight, and the
    output stays what it is.
    """
    layer, parameters, inputs = _case(generator, mechanism, form, dim, keys)
    mixed = torch.from_numpy(generator.permutation(keys))
    axis = 0 if form == "vocabulary" else 1
    other = replace(
        inputs,
        keys=None
        if inputs.keys is None
        else _of(inputs.keys, lambda x: x[(slice(None),) * axis + (mixed,)]),
        given=None if inputs.given is None else inputs.given[:, mixed],
    )
    slack = _slack(layer, parameters, inputs)
    rows = layer.rows(parameters, inputs)
    equal(layer.rows(parameters, other), rows[:, mixed], slack, "weight in another order")
    if layer.form.values and inputs.keys is not None:
        output = layer.output(parameters, inputs)
        size = (1 + float(inputs.keys.vector.abs().max())) ** 2
        size *= 1 + sum(float(v.abs().max()) for v in parameters.values())
        equal(layer.output(parameters, other), output, dim * slack * size, "output")


@states(_REGISTRY, **_LAYER)
def mechanism_members_are_apart(
    generator: np.random.Generator, mechanism: str, form: str, dim: int, keys: int
) -> None:
    """Every member of an ensemble is a model of its own: alone it has the rows that it has among
    the others.
    """
    layer, parameters, inputs = _case(generator, mechanism, form, dim, keys)
    rows, slack = layer.rows(parameters, inputs), _slack(layer, parameters, inputs)
    for m in range(_MEMBERS):

        def own(x: Tensor, m: int = m) -> Tensor:
            return x[..., m : m + 1]

        alone = replace(
            inputs,
            query=None if inputs.query is None else _of(inputs.query, own),
            keys=None if inputs.keys is None else _of(inputs.keys, own),
            given=None if inputs.given is None else own(inputs.given),
        )
        single = {name: own(value) for name, value in parameters.items()}
        equal(layer.rows(single, alone), own(rows), slack, f"weight of member {m} alone")


def _of(tokens: Tokens, change: Callable[[Tensor], Tensor]) -> Tokens:
    """The tokens with every tensor changed."""
    feature = None if tokens.feature is None else change(tokens.feature)
    labels = {name: change(label) for name, label in tokens.labels.items()}
    return Tokens(change(tokens.vector), feature, labels)


PROPERTIES = collect(globals())
