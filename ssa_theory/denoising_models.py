"""The single-layer models of the denoising task, as ensembles: every tensor carries the model axis `member` last."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ssa_theory.single_layer import matmul
from ssa_theory.temperature import inverse_temperature

DenoisingVariant = Literal[
    "vanilla", "value-additive", "value-tanh", "value-sigmoid", "query", "query-value", "key", "key-bias", "sink"
]
DENOISING_VARIANTS: tuple[DenoisingVariant, ...] = get_args(DenoisingVariant)
DenoisingQuery = Literal["readout", "last"]

_VANISHED = 1e-3  # d tau / d f below this is a gate at its bound: it no longer learns


@dataclass(frozen=True)
class DenoisingAttention:
    """One attention layer from one query to L noisy tokens, whose output is the estimate of the signal:

        y_hat = sum_i softmax_i(tau_q tau_k,i q . W x_i / sqrt(d)) tau_v,i W_v x_i.

    The query is a learned constant (`readout`, absorbed into one score vector) or the last token (`last`). With
    tau_add(f) = 1 + tanh f + sigmoid(alpha) log L, the paper's form, the variants have

    - `vanilla`: every tau 1
    - `value-additive`: tau_v = tau_add(f(x_i)); never below sigmoid(alpha) log L
    - `value-tanh`: tau_v = 1 + tanh f(x_i); `value-sigmoid`: tau_v = 2 sigmoid(f(x_i)); both reach 0
    - `query`: tau_q = tau_add(f(query)); a constant for `readout`. `query-value`: this and `value-additive`, the paper's default
    - `key`: tau_k = tau_add(f(x_i)); `key-bias`: the same with a learned bias added to the score before scaling
    - `sink`: every tau 1, but a gate inside the softmax, softmax_i(score_i + f(x_i)), over the tokens and a learned sink
      logit whose value is 0

    f is a two-layer MLP of its own, `mlp_score` plus an offset, which can follow the norm from the first step.
    A weight-shared f = w . gelu(W_v x) cannot: gelu(z) - z/2 is even, but the linear rest w . W_v x / 2 vanishes only where W_v
    is singular.
    """

    variant: DenoisingVariant
    query: DenoisingQuery = "readout"

    def __post_init__(self) -> None:
        if self.variant not in DENOISING_VARIANTS:
            raise ValueError(f"unknown variant {self.variant!r}: choose one of {', '.join(DENOISING_VARIANTS)}")
        if self.query not in get_args(DenoisingQuery):
            raise ValueError(f"unknown query {self.query!r}: choose readout or last")

    @property
    def gated(self) -> bool:
        """Whether the values are scaled by a learned tau_v."""
        return "value" in self.variant

    def initial_parameters(
        self, dim: int, generators: Sequence[np.random.Generator], value_scale: float = 1.0
    ) -> dict[str, Tensor]:
        """Parameters (..., member), float64 on the CPU, one member per generator.

        W_v starts at value_scale times the identity: from a small W_v the gate first grows to its upper bound to make up for
        the scale, saturates there, and the model stays vanilla. Scores are Gaussian with standard deviation
        0.1 / sqrt(dim) and drawn first, so the same generators give every variant the same ones. Every f starts at 0,
        but that of `key-bias` only near it.
        """
        members = len(generators)

        def normal(*shape: int) -> Tensor:
            return torch.from_numpy(np.stack([g.standard_normal(shape) for g in generators], axis=-1))

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, members, dtype=torch.float64)

        shape = (dim,) if self.query == "readout" else (dim, dim)
        parameters = {
            "score": normal(*shape) * (0.1 / math.sqrt(dim)),
            "value": (value_scale * torch.eye(dim, dtype=torch.float64)).unsqueeze(-1).repeat(1, 1, members),
        }
        for role in self._roles():
            parameters[f"{role}_offset"] = zeros()
            if role != "query" or self.query == "last":  # a constant query has a constant f
                parameters |= {f"{role}_{name}": p for name, p in initial_mlp(dim, generators).items()}
            if role != "sink" and self.variant not in ("value-tanh", "value-sigmoid"):
                parameters[f"{role}_alpha"] = zeros()
        if self.variant == "key-bias":
            # With equal tau_k a softmax ignores the shift: Adam would make a full step of the rounding of a zero gradient.
            parameters["key_vector"] = 0.1 * normal(2 * dim)
            parameters["key_shift"] = zeros()
        if self.variant == "sink":
            parameters["sink"] = zeros()
        return parameters

    def estimate(
        self, parameters: dict[str, Tensor], tokens: Float[Tensor, "sample length dim member"]
    ) -> Float[Tensor, "sample dim member"]:
        """y_hat of every sample."""
        length, dim = tokens.shape[1:3]
        last = tokens.narrow(1, length - 1, 1) if self.query == "last" else None
        if last is None:
            score = (tokens * parameters["score"]).sum(2)
        else:
            score = (tokens * matmul(last.squeeze(1), parameters["score"]).unsqueeze(1)).sum(2)
        score = score / math.sqrt(dim)
        if self.variant == "key-bias":
            score = score + parameters["key_shift"]
        if "query" in self.variant:
            score = score * self._temperature("query", parameters, last, length)
        if self.variant in ("key", "key-bias"):
            score = score * self._temperature("key", parameters, tokens, length)
        if self.variant == "sink":
            score = score + self._score("sink", parameters, tokens)
            sink = parameters["sink"].expand(len(score), 1, score.shape[-1])
            weight = torch.cat([score, sink], dim=1).softmax(1).narrow(1, 0, length)
        else:
            weight = score.softmax(1)
        if self.gated:
            weight = weight * self.value_gate(parameters, tokens)
        return matmul((weight.unsqueeze(2) * tokens).sum(1), parameters["value"])

    def value_gate(
        self, parameters: dict[str, Tensor], tokens: Float[Tensor, "sample length dim member"]
    ) -> Float[Tensor, "sample length member"]:
        """tau_v of every token. Raises ValueError for a variant without a value temperature."""
        if not self.gated:
            raise ValueError(f"variant {self.variant} has no value gate: choose one of value-..., query-value")
        if self.variant == "value-sigmoid":
            return 2 * torch.sigmoid(self._score("value", parameters, tokens))
        return self._temperature("value", parameters, tokens, tokens.shape[1])

    def saturation(
        self, parameters: dict[str, Tensor], tokens: Float[Tensor, "sample length dim member"]
    ) -> Float[Tensor, "bound member"]:
        """The share of value gates at their lower and at their upper bound, where d tau_v / d f < 0.001.

        Many at the lower bound are fillers that the gate has shut out. All at the upper one are a gate that does nothing: the
        model is vanilla, and no gradient tells it so. Raises ValueError for a variant without a value temperature.
        """
        if not self.gated:
            raise ValueError(f"variant {self.variant} has no value gate: choose one of value-..., query-value")
        score = self._score("value", parameters, tokens)
        if self.variant == "value-sigmoid":
            slope = 2 * torch.sigmoid(score) * torch.sigmoid(-score)
        else:
            slope = 1 - torch.tanh(score) ** 2
        still = slope < _VANISHED
        shares = [(still & (score < 0)), (still & (score > 0))]
        return torch.stack([s.to(score.dtype).mean((0, 1)) for s in shares])

    def gate_floor(self, parameters: dict[str, Tensor], length: int) -> Float[Tensor, " member"]:
        """The least tau_v that the trained gate can give to a token: sigmoid(alpha) log L, or 0 without the position term."""
        if "value_alpha" in parameters:
            return torch.sigmoid(parameters["value_alpha"]) * math.log(length)
        return torch.zeros_like(parameters["value"][0, 0])

    def _roles(self) -> tuple[str, ...]:
        """What the variant gives an f of its own."""
        if self.variant == "query-value":
            return ("query", "value")
        return () if self.variant == "vanilla" else (self.variant.split("-")[0],)

    def _score(self, role: str, parameters: dict[str, Tensor], tokens: Tensor | None) -> Tensor:
        """f of every token (sample, length, member); without tokens, of the constant query."""
        offset = parameters[f"{role}_offset"]
        if tokens is None:
            return offset
        samples, length, dim, members = tokens.shape
        own = {name: parameters[f"{role}_{name}"] for name in ("hidden", "bias", "vector")}
        return mlp_score(tokens.reshape(-1, dim, members), **own).reshape(samples, length, members) + offset

    def _temperature(self, role: str, parameters: dict[str, Tensor], tokens: Tensor | None, length: int) -> Tensor:
        score = self._score(role, parameters, tokens)
        return inverse_temperature(score, parameters.get(f"{role}_alpha"), float(length))


def squared_error(
    estimate: Float[Tensor, "sample dim member"], target: Float[Tensor, "sample dim member"]
) -> Float[Tensor, " member"]:
    """Mean squared error per coordinate."""
    return (estimate - target).square().mean((0, 1))


def initial_mlp(dim: int, generators: Sequence[np.random.Generator]) -> dict[str, Tensor]:
    """U (`hidden`), b (`bias`) and v (`vector`) of `mlp_score`, float64 on the CPU, one member per generator; the score is 0.

    The 2 dim hidden units start as a random orthogonal basis and its negative: gelu(z) + gelu(-z) is even and grows with |z|,
    so the score can follow the norm of a token from the first step.
    """
    drawn = torch.from_numpy(np.stack([g.standard_normal((dim, dim)) for g in generators]))
    basis = torch.linalg.qr(drawn).Q.movedim(0, -1)
    start = {"hidden": torch.cat([basis, -basis], dim=1)}
    return start | {name: torch.zeros(2 * dim, len(generators), dtype=torch.float64) for name in ("bias", "vector")}


def mlp_score(
    tokens: Float[Tensor, "token dim member"],
    hidden: Float[Tensor, "dim width member"],
    bias: Float[Tensor, "width member"],
    vector: Float[Tensor, "width member"],
) -> Float[Tensor, "token member"]:
    """v . gelu(U x + b), a two-layer MLP of every token."""
    # Batched products, member first: the hidden layer is the widest tensor here, and is never copied.
    x = tokens.permute(2, 0, 1).contiguous()
    inner = torch.baddbmm(bias.T.unsqueeze(1), x, hidden.permute(2, 0, 1))
    return (F.gelu(inner) @ vector.T.unsqueeze(2)).squeeze(2).T
