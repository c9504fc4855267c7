"""The single-layer models of the Markov task, as ensembles: every tensor carries the model axis `member` last."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ssa_theory.temperature import inverse_temperature, weight_shared_score

Variant = Literal["vanilla", "ssa", "ssa-mlp", "ssa-free", "ssa-degree"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)

_BROADCAST_LIMIT = 2**14  # products per member; larger matrices run faster, and in less memory, as batched products


def matmul(a: Float[Tensor, "i j #member"], b: Float[Tensor, "j k #member"]) -> Float[Tensor, "i k member"]:
    """sum_j a_ij b_jk for each member. With the model axis last and contiguous, products and sums vectorise over it."""
    if a.shape[0] * a.shape[1] * b.shape[1] <= _BROADCAST_LIMIT:
        return (a.unsqueeze(2) * b.unsqueeze(0)).sum(1)
    return (a.permute(2, 0, 1).contiguous() @ b.permute(2, 0, 1).contiguous()).permute(1, 2, 0).contiguous()


@dataclass(frozen=True)
class Tokens:
    """What the models see of the vocabulary.

    embeddings: fixed E, one row a node. degree: number of out-neighbours, by which `ssa-degree` ties its temperatures.
    keys: n, the number of keys that the query sees (the vocabulary, or the prompt), for the position term.
    """

    embeddings: Float[Tensor, "node dim member"]
    degree: Int[Tensor, "node member"]
    keys: int


@dataclass(frozen=True)
class Queries:
    """What the models are asked, and the distribution of the answer.

    target: P(next) of each query (one-hot for a sampled answer). weight: of each query in the loss. node: the token that each
    query stands on; None where the queries are all nodes, once, in order. counts: m, how often each token stands in the
    query's prompt; None for the vocabulary context.
    """

    target: Float[Tensor, "query next member"]
    weight: Float[Tensor, "query member"]
    node: Int[Tensor, "query member"] | None = None
    counts: Float[Tensor, "query next member"] | None = None


@dataclass(frozen=True)
class SingleLayerAttention:
    """One attention layer whose row is the prediction: P_hat = softmax(diag(tau) E W E^T), design section 3.1.

    W is the query map (keys are the embeddings themselves). The inverse temperature of node i is, by variant:

    - `vanilla`: 1
    - `ssa`: 1 + tanh(w . gelu(W^T e_i)), weight-shared
    - `ssa-mlp`: 1 + tanh(v . gelu(U e_i + b)), an MLP of its own with dim hidden units
    - `ssa-free`: exp(theta_i), one free parameter a token (the theory's idealised SSA)
    - `ssa-degree`: exp(theta_k), k the number of out-neighbours of i

    With `position`, `ssa` and `ssa-mlp` add sigmoid(alpha) log n. The context has the same n for every query, so the term
    is one learned scale a model.
    """

    variant: Variant
    position: bool = False

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"unknown variant {self.variant!r}: choose one of {', '.join(VARIANTS)}")

    def initial_parameters(
        self, nodes: int, dim: int, generators: Sequence[np.random.Generator], init_scale: float = 0.1
    ) -> dict[str, Tensor]:
        """Parameters (..., member), float64 on the CPU, one member per generator.

        W is Gaussian with standard deviation init_scale / sqrt(dim) and drawn first, so the same generators give every
        variant the same W. All temperatures start at tau_tok = 0, log tau = 0 and alpha = 0: at vanilla, but for a position term.
        """
        members = len(generators)

        def normal(*shape: int) -> Tensor:
            return torch.from_numpy(np.stack([g.standard_normal(shape) for g in generators], axis=-1))

        parameters = {"weight": normal(dim, dim) * (init_scale / math.sqrt(dim))}
        if self.variant == "ssa":
            parameters["vector"] = torch.zeros(dim, members, dtype=torch.float64)
        elif self.variant == "ssa-mlp":
            parameters["hidden"] = normal(dim, dim) / math.sqrt(dim)
            parameters["bias"] = torch.zeros(dim, members, dtype=torch.float64)
            parameters["vector"] = torch.zeros(dim, members, dtype=torch.float64)
        elif self.variant in ("ssa-free", "ssa-degree"):
            parameters["log_tau"] = torch.zeros(nodes + (self.variant == "ssa-degree"), members, dtype=torch.float64)
        if self.position and self.variant in ("ssa", "ssa-mlp"):
            parameters["alpha"] = torch.zeros(members, dtype=torch.float64)
        return parameters

    def inverse_temperature(self, parameters: dict[str, Tensor], tokens: Tokens) -> Float[Tensor, "node member"]:
        """tau of every node."""
        return self._temperature(parameters, tokens, matmul(tokens.embeddings, parameters["weight"]))

    def logits(self, parameters: dict[str, Tensor], tokens: Tokens) -> Float[Tensor, "node next member"]:
        """tau_i e_i^T W e_j."""
        query = matmul(tokens.embeddings, parameters["weight"])
        tau = self._temperature(parameters, tokens, query)
        return matmul(query * tau.unsqueeze(1), tokens.embeddings.transpose(0, 1))

    def _temperature(self, parameters: dict[str, Tensor], tokens: Tokens, query: Tensor) -> Tensor:
        if self.variant == "vanilla":
            return query.new_ones(query.shape[0], query.shape[2])
        if self.variant == "ssa-free":
            return parameters["log_tau"].exp()
        if self.variant == "ssa-degree":
            return parameters["log_tau"].gather(0, tokens.degree).exp()
        if self.variant == "ssa":
            score = weight_shared_score(query, parameters["vector"], dim=1)
        else:
            hidden = matmul(tokens.embeddings, parameters["hidden"]) + parameters["bias"]
            score = (F.gelu(hidden) * parameters["vector"]).sum(1)
        return inverse_temperature(score, parameters.get("alpha"), float(tokens.keys))


def log_predictive(
    logits: Float[Tensor, "row next member"], counts: Tensor | None = None
) -> Float[Tensor, "row next member"]:
    """log P_hat(j) = logit_j + log m_j, normalised over `next`; equal tokens of a prompt share their attention.

    counts: m (row, next, member), how often each token stands in the prompt; None for the vocabulary context (m = 1).
    """
    return (logits if counts is None else logits + counts.log()).log_softmax(1)


def cross_entropy(logits: Float[Tensor, "node next member"], queries: Queries) -> Float[Tensor, " member"]:
    """-sum_q weight_q sum_j target_qj log P_hat(j | q) in nats; a target of zero contributes zero, whatever P_hat is.

    With z = logits + log m it is sum_q weight_q (log sum_j exp z_qj - sum_j target_qj z_qj), since targets sum to one: the
    gradient then needs the one exponential that the value needs.
    """
    if queries.node is not None:
        shape = (len(queries.node), *logits.shape[1:])
        logits = logits.gather(0, queries.node.unsqueeze(1).expand(shape))
    if queries.counts is not None:
        logits = logits + queries.counts.log()
    shifted = logits - logits.detach().amax(1, keepdim=True)
    answered = torch.where(queries.target > 0, shifted, 0.0)  # 0 * -inf, of a token not in the prompt, would be NaN
    log_partition = shifted.exp().sum(1).log()
    return (queries.weight * (log_partition - (queries.target * answered).sum(1))).sum(0)
