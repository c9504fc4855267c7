"""One attention layer of which every temperature, and every term of it, can be left out; ensembles, `member` last."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ssa_theory.denoising_models import initial_mlp, mlp_score
from ssa_theory.single_layer import matmul
from ssa_theory.temperature import inverse_temperature, weight_shared_score

Role = Literal["query", "key", "value"]
ROLES: tuple[Role, ...] = get_args(Role)
TokenTerm = Literal["constant", "feature", "shared", "mlp"]


@dataclass(frozen=True)
class Terms:
    """The terms of one inverse temperature, tau(x, n) = 1 + tanh f(x) + sigmoid(alpha) log n.

    token: f, or None for no token term.

    - `constant`: f(x) = b
    - `feature`: f(x) = a phi(x) + b, phi a given scalar of the token, for example its log frequency
    - `shared`: f(x) = w . gelu(W x), W x the layer's own projection of x in that role
    - `mlp`: f(x) = v . gelu(U x + b) + c, an MLP of its own with 2 dim hidden units

    position: whether it has the term sigmoid(alpha) log n, n the number of keys that the query sees.
    """

    token: TokenTerm | None = "shared"
    position: bool = False

    def __post_init__(self) -> None:
        if self.token is not None and self.token not in get_args(TokenTerm):
            raise ValueError(
                f"unknown token term {self.token!r}: choose one of {', '.join(get_args(TokenTerm))}, or None"
            )


@dataclass(frozen=True)
class AblationLayer:
    """One attention layer with the temperatures that are asked for, without mask (every token sees n keys):

        Q = tau_q(X) * X W     K = tau_k(X) * X     V = tau_v(X) * X W_v
        row of query i: softmax_j(Q_i . K_j),       output: sum_j row_j V_j.

    query, key, value: the terms of each tau, or None for tau = 1; all None is vanilla attention. With `value_map` the layer
    has W_v and predicts by its `output`; without, the attention row itself is the prediction (`logits`).

    `shared` reads X W for queries, X W^T for keys (the score x_i W x_j is bilinear, so either side may carry W) and
    X W_v for values. All keys and values of a query have its n, so the position terms of query and key scale its logits alike.

    Raises ValueError for value terms without a value map.
    """

    query: Terms | None = None
    key: Terms | None = None
    value: Terms | None = None
    value_map: bool = True

    def __post_init__(self) -> None:
        if self.value is not None and not self.value_map:
            raise ValueError(
                f"a value temperature needs a value map, got {self.value} without: drop it, or set value_map"
            )

    def initial_parameters(self, dim: int, generators: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """Parameters (..., member), float64 on the CPU, one member per generator.

        W is Gaussian with standard deviation 0.1 / sqrt(dim) and drawn first, so the same generators give every layer the same
        W. W_v starts at the identity: from a small W_v a value gate saturates (see `DenoisingAttention`). All temperatures
        start at f = 0 and alpha = 0: at vanilla, but for a position term.
        """
        members = len(generators)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, members, dtype=torch.float64)

        drawn = np.stack([g.standard_normal((dim, dim)) for g in generators], axis=-1)
        parameters = {"weight": torch.from_numpy(drawn) * (0.1 / math.sqrt(dim))}
        if self.value_map:
            parameters["value"] = torch.eye(dim, dtype=torch.float64).unsqueeze(-1).repeat(1, 1, members)
        for role in ROLES:
            terms: Terms | None = getattr(self, role)
            if terms is None:
                continue
            new = {}
            if terms.token == "shared":
                new["vector"] = zeros(dim)
            elif terms.token == "mlp":
                new = initial_mlp(dim, generators)
            if terms.token in ("constant", "feature", "mlp"):
                new["offset"] = zeros()
            if terms.token == "feature":
                new["slope"] = zeros()
            if terms.position:
                new["alpha"] = zeros()
            parameters |= {f"{role}_{name}": p for name, p in new.items()}
        return parameters

    def added_parameters(self, dim: int) -> int:
        """How many parameters the temperatures add to the vanilla layer, counted on one model."""

        def count(layer: AblationLayer) -> int:
            return sum(p.numel() for p in layer.initial_parameters(dim, [np.random.default_rng(0)]).values())

        return count(self) - count(AblationLayer(value_map=self.value_map))

    def inverse_temperature(
        self,
        role: Role,
        parameters: dict[str, Tensor],
        tokens: Float[Tensor, "token dim member"],
        count: int,
        feature: Float[Tensor, "token member"] | None = None,
    ) -> Float[Tensor, "token member"]:
        """tau of every token in a role. count: n. feature: phi, without which the token term `feature` raises ValueError."""
        terms: Terms | None = getattr(self, role)
        score = tokens.new_zeros(tokens.shape[0], tokens.shape[2])
        if terms is None:
            return inverse_temperature(score)
        own = {k.removeprefix(f"{role}_"): p for k, p in parameters.items() if k.startswith(f"{role}_")}
        if terms.token == "shared":
            maps = {"query": parameters["weight"], "key": parameters["weight"].transpose(0, 1)}
            projection = matmul(tokens, maps[role] if role in maps else parameters["value"])
            score = weight_shared_score(projection, own["vector"], dim=1)
        elif terms.token == "mlp":
            score = mlp_score(tokens, own["hidden"], own["bias"], own["vector"]) + own["offset"]
        elif terms.token == "feature":
            if feature is None:
                raise ValueError("a feature-based temperature needs the feature of every token: pass feature")
            score = own["slope"] * feature + own["offset"]
        elif terms.token == "constant":
            score = score + own["offset"]
        return inverse_temperature(score, own.get("alpha"), float(count))

    def logits(
        self,
        parameters: dict[str, Tensor],
        tokens: Float[Tensor, "token dim member"],
        feature: Float[Tensor, "token member"] | None = None,
    ) -> Float[Tensor, "token token member"]:
        """tau_q,i tau_k,j x_i W x_j for all pairs of tokens."""
        tau = {r: self.inverse_temperature(r, parameters, tokens, len(tokens), feature) for r in ("query", "key")}
        query = matmul(tokens, parameters["weight"]) * tau["query"].unsqueeze(1)
        return matmul(query, (tokens * tau["key"].unsqueeze(1)).transpose(0, 1))

    def output(
        self, parameters: dict[str, Tensor], tokens: Float[Tensor, "sample length dim member"]
    ) -> Float[Tensor, "sample dim member"]:
        """The output at the last token of every sample, with logits over sqrt(dim)."""
        samples, length, dim, members = tokens.shape
        flat, last = tokens.reshape(-1, dim, members), tokens.select(1, length - 1)
        tau_query = self.inverse_temperature("query", parameters, last, length)
        tau_key, tau_value = (
            self.inverse_temperature(role, parameters, flat, length).reshape(samples, length, members)
            for role in ("key", "value")
        )
        query = matmul(last, parameters["weight"]) * (tau_query / math.sqrt(dim)).unsqueeze(1)
        row = ((tokens * query.unsqueeze(1)).sum(2) * tau_key).softmax(1)
        return matmul(((row * tau_value).unsqueeze(2) * tokens).sum(1), parameters["value"])
