"""The single-layer models of noisy retrieval, as ensembles: every tensor carries the model axis `member` last."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssa_theory.single_layer import matmul
from ssa_theory.temperature import inverse_temperature

RetrievalVariant = Literal["vanilla", "ssa-tanh", "ssa-exp"]
RETRIEVAL_VARIANTS: tuple[RetrievalVariant, ...] = get_args(RetrievalVariant)


@dataclass(frozen=True)
class RetrievalBatch:
    """What the models see, and the index of the key that each query stems from.

    keys: k_i. query: q. noise: s, of each query. target: the index of the right key.
    """

    keys: Float[Tensor, "query key dim member"]
    query: Float[Tensor, "query dim member"]
    noise: Float[Tensor, "query member"]
    target: Int[Tensor, "query member"]


@dataclass(frozen=True)
class RetrievalAttention:
    """One attention layer over the keys, whose row is the prediction: softmax_i(tau(s) [q, log s]^T W k_i), design section 3.3.

    The query token carries the noise level as the feature log s, which W sees like any other coordinate: every variant has
    the information, and vanilla may use it as far as a bilinear score can. With f = slope log s + offset, a feature-based
    score of two scalars, the inverse temperature of a query is, by variant:

    - `vanilla`: 1
    - `ssa-tanh`: 1 + tanh(f), the paper's bounded form, so that the scale of W has to carry 1 / s^2 at the least noise
    - `ssa-exp`: exp(f), unbounded; slope -2 and offset -log c with W = c I (and 0 for the feature) is the Bayes predictor
    """

    variant: RetrievalVariant

    def __post_init__(self) -> None:
        if self.variant not in RETRIEVAL_VARIANTS:
            raise ValueError(f"unknown variant {self.variant!r}: choose one of {', '.join(RETRIEVAL_VARIANTS)}")

    def initial_parameters(
        self, dim: int, generators: Sequence[np.random.Generator], init_scale: float = 0.1
    ) -> dict[str, Tensor]:
        """Parameters (..., member), float64 on the CPU, one member per generator; tau starts at 1.

        W (dim + 1, dim) is Gaussian with standard deviation init_scale / sqrt(dim), the same for every variant.
        """
        drawn = np.stack([g.standard_normal((dim + 1, dim)) for g in generators], axis=-1)
        parameters = {"weight": torch.from_numpy(drawn) * (init_scale / math.sqrt(dim))}
        if self.variant != "vanilla":
            for name in ("slope", "offset"):
                parameters[name] = torch.zeros(len(generators), dtype=torch.float64)
        return parameters

    def inverse_temperature(
        self, parameters: dict[str, Tensor], noise: Float[Tensor, "query member"]
    ) -> Float[Tensor, "query member"]:
        """tau(s) of each query."""
        if self.variant == "vanilla":
            return torch.ones_like(noise)
        score = parameters["slope"] * noise.log() + parameters["offset"]
        return score.exp() if self.variant == "ssa-exp" else inverse_temperature(score)

    def effective_inverse_temperature(
        self, parameters: dict[str, Tensor], noise: Float[Tensor, "query member"]
    ) -> Float[Tensor, "query member"]:
        """tau(s) tr(W_q) / d, W_q the rows of W that act on q: comparable with 1 / s^2, however scale is shared by tau and W.

        tr(W_q) / d = <W_q, I> / <I, I> is the scalar c for which c I is nearest to W_q in the Frobenius norm.
        """
        scale = parameters["weight"].diagonal(dim1=0, dim2=1).mean(-1)  # the last row, the feature's, has no part in it
        return self.inverse_temperature(parameters, noise) * scale

    def logits(self, parameters: dict[str, Tensor], batch: RetrievalBatch) -> Float[Tensor, "query key member"]:
        """tau(s) [q, log s]^T W k_i."""
        token = torch.cat([batch.query, batch.noise.log().unsqueeze(1)], 1)
        projected = matmul(token, parameters["weight"]) * self.inverse_temperature(parameters, batch.noise).unsqueeze(1)
        return (projected.unsqueeze(1) * batch.keys).sum(2)


def retrieval_loss(logits: Float[Tensor, "query key member"], target: Int[Tensor, "query member"]) -> Tensor:
    """The mean over queries of -log P_hat(target) in nats, (member,)."""
    return -logits.log_softmax(1).gather(1, target.unsqueeze(1)).mean((0, 1))
