"""The one attention layer: inputs to scores to rows to output, for ensembles, the model axis
`member` last.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssa_theory.mechanism.mechanism import Mechanism
from ssa_theory.mechanism.normalizers import Normalizer, as_prediction
from ssa_theory.mechanism.parts import (
    INITIAL_SCALE,
    Form,
    Generators,
    Parameters,
    Role,
    View,
    beside,
    matmul,
    normal,
    own,
    project,
)
from ssa_theory.mechanism.score_maps import Side
from ssa_theory.mechanism.temperature import Selective, Temperature

There = TypeVar("There")


@dataclass(frozen=True)
class Tokens:
    """The tokens in one role.

    vector: x. feature: a given scalar of each, for example a log frequency. labels: integers by
    name, for example the number of neighbours; without `token` the tokens are the vocabulary
    itself, once, in order.
    """

    vector: Float[Tensor, "*token dim #member"]
    feature: Float[Tensor, "*token #member"] | None = None
    labels: Mapping[str, Int[Tensor, "*token #member"]] = field(default_factory=dict)


@dataclass(frozen=True)
class Inputs:
    """What a layer sees.

    query: one token a query, (query, dim, member); None for a learned constant, or given scores.
    keys: (key, dim, member), shared by all queries, or (query, key, dim, member). given: finite
    scores (query, key, member) in place of both. count: n, the number of keys that the queries see;
    a tensor broadcasts against (query, member). attended: which keys the rows are over, for each
    query; None for all. A query that attends to no key has a row of zeros.

    >>> tokens = Tokens(torch.eye(3)[..., None])
    >>> Inputs(tokens, tokens, count=3.0).count
    3.0
    """

    query: Tokens | None = None
    keys: Tokens | None = None
    given: Float[Tensor, "query key member"] | None = None
    count: Tensor | float = 1.0
    attended: Bool[Tensor, "#query #key #member"] | None = None


@dataclass(frozen=True)
class Layer:
    """One attention layer of a form that wears a mechanism; see `Mechanism` for the whole formula.

        s(x_i, x_j) = x_i W x_j     over sqrt(d) where the form says so; w . x_j of a constant query
        s_ij = c z_ij               of given scores z, c > 0; c = 1 if the mechanism has its own;
                                    of a shift, c (z_ij + shift)

    initial_scale: times 1 / sqrt(d) the standard deviation of the initial W. Raises Misfit where
    the mechanism does not fit the form; `mechanism` is then what the layer wears of it.

    >>> from ssa_theory.mechanism import mechanism
    >>> layer, tokens = Layer(mechanism("vanilla"), Form(3)), Tokens(torch.eye(3)[..., None])
    >>> weight = {"weight": 2 * torch.eye(3)[..., None]}
    >>> layer.rows(weight, Inputs(tokens, tokens, count=3.0))[..., 0].round(decimals=3)[0]
    tensor([0.7870, 0.1070, 0.1070])
    """

    mechanism: Mechanism
    form: Form
    initial_scale: float = INITIAL_SCALE

    def __post_init__(self) -> None:
        object.__setattr__(self, "mechanism", self.mechanism.fitted(self.form))

    @property
    def normalizer(self) -> Normalizer:
        """The mechanism's."""
        return self.mechanism.normalizer

    @property
    def exponential(self) -> bool:
        """Whether the rows are a softmax of `logits` over the keys, up to a factor a row."""
        return self.normalizer.exponential and self.mechanism.contrast is None

    @property
    def evaluated(self) -> "Layer":
        """The layer as it is evaluated, with the normaliser that the mechanism has then."""
        after = self.mechanism.evaluation
        if after is None:
            return self
        return replace(self, mechanism=replace(self.mechanism, normalizer=after, evaluation=None))

    def initial_parameters(self, generators: Generators) -> Parameters:
        """Parameters (..., member), float64 on the CPU, one member per generator.

        W is Gaussian and drawn first, so the same generators give every mechanism the same W. W_v
        and W_k start at the identity: from a small W_v a value temperature first grows to its upper
        bound to make up for the scale, saturates there, and the model stays vanilla. All parts
        start at vanilla, but for position terms and gates.
        """
        form, parameters = self.form, {}
        if form.given_scores:
            if self._learns_scale:
                parameters["log_scale"] = torch.zeros(len(generators), dtype=torch.float64)
        else:
            shape = (form.dim,) if form.constant_query else (form.width("query"), form.dim)
            parameters["weight"] = normal(generators, *shape) * (
                self.initial_scale / math.sqrt(form.dim)
            )
            identity = torch.eye(form.dim, dtype=torch.float64).unsqueeze(-1)
            maps = {"value": form.values, "key_map": self.mechanism.score.maps_keys}
            for name in (name for name, there in maps.items() if there):
                parameters[name] = identity.repeat(1, 1, len(generators))
        for name, part in self.mechanism.parts().items():
            start = part.initial(self.mechanism.role(name), form, generators)
            parameters |= {f"{name}.{k}": v for k, v in start.items()}
        return parameters

    def inverse_temperature(self, role: Role, parameters: Parameters, inputs: Inputs) -> Tensor:
        """tau of every token in a role (..., member), ones without a temperature; (member,) where
        all have the same.

        Of given scores it is the whole factor c tau.
        """
        tau = self._tau(role, parameters, inputs)
        if tau is not None:
            return tau
        tokens = inputs.query if role == "query" else inputs.keys
        if tokens is None:
            some = next(iter(parameters.values()))
            return some.new_ones(some.shape[-1:])
        vector = tokens.vector
        return vector.new_ones((*vector.shape[:-2], vector.shape[-1]))

    def scores(self, parameters: Parameters, inputs: Inputs) -> Float[Tensor, "query key member"]:
        """z; of a contrast, those of its first map."""
        return self._scores(parameters, inputs, "weight")

    def logits(self, parameters: Parameters, inputs: Inputs) -> Float[Tensor, "query key member"]:
        """What the rows are a softmax of, where they are `exponential`, and all keys attended."""
        return self.normalizer.logits(self.scores(parameters, inputs), 1)

    def _scores(
        self, parameters: Parameters, inputs: Inputs, weight: str
    ) -> Float[Tensor, "query key member"]:
        """z of the map whose W has this name."""
        mechanism, form = self.mechanism, self.form
        bias = None
        if mechanism.bias is not None:
            view = self._view("key", parameters, inputs)
            bias = mechanism.bias(own(parameters, "bias"), view)
        if form.given_scores:
            given = _there(inputs.given, "given scores")
            tau = beside(_there(self._tau("query", parameters, inputs), "a temperature"))
            return mechanism.given_scores(parameters, given, tau, bias)
        keys, query = _there(inputs.keys, "keys").vector, parameters[weight]
        if mechanism.score.maps_keys:
            keys = project(keys, parameters["key_map"])
        if not form.constant_query:
            query = matmul(_there(inputs.query, "query tokens").vector, query)
        tau = self._tau("query", parameters, inputs, query if weight == "weight" else None)
        if form.over_root_dim:
            query = query * (1 / math.sqrt(form.dim))
        scaled = Side(keys, self._tau("key", parameters, inputs))
        return mechanism.scores(parameters, Side(query, tau), scaled, bias)

    def rows(self, parameters: Parameters, inputs: Inputs) -> Float[Tensor, "query key member"]:
        """p, over the keys."""
        rows = self._rows(parameters, inputs, "weight")
        if self.mechanism.contrast is None:
            return rows
        other = self._rows(parameters, inputs, "contrast.weight")
        return rows - parameters["contrast.share"] * other

    def _rows(
        self, parameters: Parameters, inputs: Inputs, weight: str
    ) -> Float[Tensor, "query key member"]:
        """Of the map whose W has this name."""
        z, learned = self._scores(parameters, inputs, weight), own(parameters, "normalizer")
        if inputs.attended is not None:
            return self.normalizer.attending(learned, z, inputs.attended, 1)
        return self.normalizer.rows(learned, z, 1)

    def prediction(
        self, parameters: Parameters, inputs: Inputs
    ) -> Float[Tensor, "query key member"]:
        """The rows as distributions over the keys: see `Normalizer.prediction`."""
        if inputs.attended is not None or self.mechanism.contrast is not None:
            return as_prediction(self.rows(parameters, inputs), 1)
        z = self.scores(parameters, inputs)
        return self.normalizer.prediction(own(parameters, "normalizer"), z, 1)

    def output(self, parameters: Parameters, inputs: Inputs) -> Float[Tensor, "query dim member"]:
        """y of every query."""
        y = self.mixed(parameters, inputs, self.rows(parameters, inputs))
        if self.mechanism.gate is not None:
            token = _there(inputs.query, "query tokens").vector
            y = y * self.mechanism.gate(own(parameters, "gate"), token)
        return y

    def mixed(
        self, parameters: Parameters, inputs: Inputs, rows: Float[Tensor, "query key member"]
    ) -> Float[Tensor, "query dim member"]:
        """sum_j p_ij tau_j W_v x_j of given rows p: the output before a gate."""
        keys, tau = _there(inputs.keys, "keys").vector, self._tau("value", parameters, inputs)
        weight = rows if tau is None else rows * tau
        mixed = matmul(weight, keys) if keys.ndim == 3 else (weight.unsqueeze(2) * keys).sum(1)
        return matmul(mixed, parameters["value"])

    def selective(self, role: Role) -> Selective:
        """The SSA temperature of a role. Raises ValueError where it has none, or one of another
        kind.
        """
        part = self._temperature(role)
        if not isinstance(part, Selective):
            raise ValueError(
                f"mechanism {self.mechanism.name} has no {role} temperature of SSA's "
                "form here: choose one that has"
            )
        return part

    def token_score(self, role: Role, parameters: Parameters, inputs: Inputs) -> Tensor:
        """f of every token in a role (..., member). Raises ValueError where the role has no token
        term.
        """
        view = self._view(role, parameters, inputs)
        return self.selective(role).token_score(own(parameters, role), view)

    @property
    def _learns_scale(self) -> bool:
        return self.form.given_scores and not self.mechanism.has_scale

    def _temperature(self, role: Role) -> Temperature | None:
        return {
            "query": self.mechanism.query,
            "key": self.mechanism.key,
            "value": self.mechanism.value,
        }[role]

    def _tau(
        self, role: Role, parameters: Parameters, inputs: Inputs, projection: Tensor | None = None
    ) -> Tensor | None:
        """tau of a role, of queries with the scale c of given scores; None for 1. projection: as in
        `_view`.
        """
        part, tau = self._temperature(role), None
        if part is not None:
            tau = part(own(parameters, role), self._view(role, parameters, inputs, projection))
        if role == "query" and self._learns_scale:
            scale = parameters["log_scale"].exp()
            return scale if tau is None else scale * tau
        return tau

    def _view(
        self, role: Role, parameters: Parameters, inputs: Inputs, projection: Tensor | None = None
    ) -> View:
        """What a part sees of the tokens in a role. projection: of the tokens, where it is known
        already.
        """
        tokens, count = inputs.query if role == "query" else inputs.keys, inputs.count
        if role != "query" and isinstance(count, Tensor) and count.ndim > 1:
            count = count.unsqueeze(1)  # one for each query, whatever the key
        if tokens is None:
            return View(count=count)

        def projected() -> Tensor:
            if projection is not None:
                return projection
            weight = parameters["value" if role == "value" else "weight"]
            return project(tokens.vector, weight.transpose(0, 1) if role == "key" else weight)

        return View(tokens.vector, projected, tokens.feature, tokens.labels, count)


def _there(value: There | None, what: str) -> There:
    if value is None:
        raise ValueError(f"this layer needs {what}, which its inputs lack: add them to the inputs")
    return value
