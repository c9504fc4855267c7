"""Selective Self-Attention as a module: Q, K and V scaled row by row by learned inverse temperatures."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssa_theory.temperature import inverse_temperature, weight_shared_score


def attention_weights(
    query: Float[Tensor, "*batch length dim"],
    key: Float[Tensor, "*batch keys dim"],
    mask: Bool[Tensor, "length keys"] | None = None,
) -> Float[Tensor, "*batch length keys"]:
    """softmax(Q K^T / sqrt(d_k)) over the keys that `mask` allows (True: visible); queries already scaled by tau."""
    logits = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)  # after scaling by tau: 0 * -inf would be NaN
    return logits.softmax(-1)


@dataclass(frozen=True)
class Temperature:
    """Which terms one inverse temperature has.

    token: None, or f as `shared` (w . gelu(W x), the layer's own projection), `mlp` (a two-layer MLP of its own with
    `width` hidden units) or `feature` (w . phi + b of `features` given scalars a token, for example log-frequency).
    position: whether it has the term sigmoid(alpha) log n.
    """

    token: Literal["shared", "mlp", "feature"] | None = "shared"
    position: bool = True
    width: int = 16
    features: int = 1

    def __post_init__(self) -> None:
        if self.token not in (None, "shared", "mlp", "feature"):
            raise ValueError(f"unknown token term {self.token!r}: choose shared, mlp, feature or None")
        for name in ("width", "features"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}: choose a positive size")


class _InverseTemperature(nn.Module):
    """tau (batch, head, token) of one of the three projections; starts at tau_tok = 0 and alpha = 0."""

    def __init__(self, temperature: Temperature, dim: int, heads: int) -> None:
        super().__init__()
        self.temperature = temperature
        if temperature.token == "shared":
            self.vector = nn.Parameter(torch.zeros(heads, 1, dim // heads))
        elif temperature.token is not None:
            last = nn.Linear(temperature.width if temperature.token == "mlp" else temperature.features, heads)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            first = (nn.Linear(dim, temperature.width), nn.GELU()) if temperature.token == "mlp" else ()
            self.score = nn.Sequential(*first, last)
        self.alpha = nn.Parameter(torch.zeros(heads, 1)) if temperature.position else None

    def forward(self, x: Tensor, projection: Tensor, features: Tensor | None, count: Tensor) -> Tensor:
        token = self.temperature.token
        if token == "shared":
            score = weight_shared_score(projection, self.vector, dim=-1)
        elif token is not None:
            score = self.score(features if token == "feature" else x).transpose(-2, -1)
        else:
            score = projection.new_zeros(projection.shape[:-1])
        return inverse_temperature(score, self.alpha, count)


class SelectiveSelfAttention(nn.Module):
    """Multi-head attention with query, key and value temperatures (arXiv 2411.12892).

        Q = tau_q(X) * X W_q,   K = tau_k(X) * X W_k,   V = tau_v(X) * X W_v,
        out = softmax(Q K^T / sqrt(d_k) + mask) V W_o.

    Each temperature is a `Temperature` or None (tau = 1); the paper's default scales queries and values. It is per
    head: weight sharing adds one d_k-vector and one alpha a head. Position n counts the keys that a token sees
    as a query: 1..L under the causal mask, L without. With all three None the layer is exactly
    `torch.nn.functional.scaled_dot_product_attention` between its projections.

    dim: model width d; heads: number of heads H, d_k = d / H. Raises ValueError for sizes < 1, heads that do not
    divide dim, and features that are missing or of the wrong width.
    """

    def __init__(
        self,
        dim: int,
        heads: int = 1,
        *,
        causal: bool = True,
        query: Temperature | None = Temperature(),
        key: Temperature | None = None,
        value: Temperature | None = Temperature(),
        bias: bool = False,
    ) -> None:
        super().__init__()
        if dim < 1 or heads < 1 or dim % heads:
            raise ValueError(f"heads must divide dim, both at least 1, got dim={dim} and heads={heads}: change one")
        self.dim, self.heads, self.causal = dim, heads, causal
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim, bias=bias) for _ in range(4))
        given = {"query": query, "key": key, "value": value}
        self.temperatures = nn.ModuleDict(
            {name: _InverseTemperature(t, dim, heads) for name, t in given.items() if t is not None}
        )

    def scaled_projections(
        self,
        x: Float[Tensor, "batch length dim"],
        features: Float[Tensor, "batch length feature"] | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The projections Q, K, V, each scaled by its tau (batch, head, length, d_k), and the taus (batch, head, length)."""
        batch, length, dim = x.shape
        if dim != self.dim:
            raise ValueError(f"tokens must have width {self.dim}, got {dim}: match the layer's dim")
        wanted = {t.temperature.features for t in self.temperatures.values() if t.temperature.token == "feature"}
        got = None if features is None else features.shape[-1]
        if wanted and wanted != {got}:
            raise ValueError(f"this layer needs {sorted(wanted)} scalar features a token, got {got}: pass features")
        if not wanted and features is not None:
            raise ValueError("features were passed, but no temperature is feature-based: leave them out")
        if self.causal:
            count = torch.arange(1, length + 1, device=x.device, dtype=x.dtype)
        else:
            count = torch.full((length,), float(length), device=x.device, dtype=x.dtype)
        projections, taus = {}, {}
        for name in ("query", "key", "value"):
            projection = getattr(self, name)(x).view(batch, length, self.heads, -1).transpose(1, 2)
            if name in self.temperatures:
                taus[name] = self.temperatures[name](x, projection, features, count)
                projection = projection * taus[name].unsqueeze(-1)
            projections[name] = projection
        return projections, taus

    def forward(
        self,
        x: Float[Tensor, "batch length dim"],
        features: Float[Tensor, "batch length feature"] | None = None,
    ) -> Float[Tensor, "batch length dim"]:
        """The layer's output; features (batch, length, feature) go to feature-based temperatures."""
        projections, _ = self.scaled_projections(x, features)
        out = F.scaled_dot_product_attention(**projections, is_causal=self.causal)
        return self.output(out.transpose(1, 2).flatten(2))

    def attention(
        self,
        x: Float[Tensor, "batch length dim"],
        features: Float[Tensor, "batch length feature"] | None = None,
    ) -> Float[Tensor, "batch head length length"]:
        """The attention rows themselves, which the fused kernel of `forward` does not return."""
        projections, _ = self.scaled_projections(x, features)
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
        return attention_weights(projections["query"], projections["key"], mask.tril() if self.causal else mask)

    def added_parameters(self) -> int:
        """How many parameters the temperatures add to the vanilla layer."""
        return sum(p.numel() for p in self.temperatures.parameters())
