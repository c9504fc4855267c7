"""Losses of an ensemble: one value a member, the model axis `member` last."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Queries:
    """What the models are asked, and the distribution of the answer.

    target: P(next) of each query (one-hot for a sampled answer). weight: of each query in the loss.
    node: the token that each query stands on; None where the queries are all nodes, once, in order.
    counts: m, how often each token stands in the query's prompt; None for the vocabulary context.

    >>> rows = torch.tensor([[0.5, 0.5], [1.0, 0.0]])[..., None]
    >>> Queries(rows, torch.full((2, 1), 0.5)).weight.sum().item()
    1.0
    """

    target: Float[Tensor, "query next member"]
    weight: Float[Tensor, "query member"]
    node: Int[Tensor, "query member"] | None = None
    counts: Float[Tensor, "query next member"] | None = None

    def to(self, dtype: torch.dtype) -> "Queries":
        """In another precision."""
        counts = None if self.counts is None else self.counts.to(dtype)
        return replace(
            self, target=self.target.to(dtype), weight=self.weight.to(dtype), counts=counts
        )


def log_predictive(
    logits: Float[Tensor, "row next member"], counts: Tensor | None = None
) -> Float[Tensor, "row next member"]:
    """log P_hat(j) = logit_j + log m_j, normalised over `next`; equal tokens share their attention.

    counts: m (row, next, member), how often each token stands in the prompt; None for m = 1.

    >>> equal = torch.zeros(1, 2, 1)
    >>> log_predictive(equal, torch.tensor([3.0, 1.0]).reshape(1, 2, 1)).exp().flatten()
    tensor([0.7500, 0.2500])
    """
    return (logits if counts is None else logits + counts.log()).log_softmax(1)


def query_logits(
    logits: Float[Tensor, "node next member"], queries: Queries
) -> Float[Tensor, "query next member"]:
    """z + log m of each query, from the logits of all nodes."""
    if queries.node is not None:
        shape = (len(queries.node), *logits.shape[1:])
        logits = logits.gather(0, queries.node.unsqueeze(1).expand(shape))
    return logits if queries.counts is None else logits + queries.counts.log()


def cross_entropy(
    logits: Float[Tensor, "node next member"], queries: Queries
) -> Float[Tensor, " member"]:
    """`query_cross_entropy` from the logits of all nodes.

    >>> rows = torch.tensor([[0.5, 0.5], [0.5, 0.5]])[..., None]
    >>> queries = Queries(rows, torch.full((2, 1), 0.5))
    >>> round(cross_entropy(torch.zeros(2, 2, 1), queries).item(), 4)  # log 2
    0.6931
    """
    return query_cross_entropy(query_logits(logits, queries), queries)


def query_cross_entropy(
    logits: Float[Tensor, "query next member"], queries: Queries
) -> Float[Tensor, " member"]:
    """-sum_q weight_q sum_j target_qj log P_hat(j | q) in nats, P_hat the softmax of the logits.

    A target of zero contributes zero, whatever P_hat is. With the logits z it is
    sum_q weight_q (log sum_j exp z_qj - sum_j target_qj z_qj), since targets sum to one: the
    gradient then needs the one exponential that the value needs.
    """
    shifted = logits - logits.detach().amax(1, keepdim=True)
    # 0 * -inf, of a token that is not in the prompt, would be NaN.
    answered = torch.where(queries.target > 0, shifted, 0.0)
    log_partition = shifted.exp().sum(1).log()
    return (queries.weight * (log_partition - (queries.target * answered).sum(1))).sum(0)


def choice_loss(
    logits: Float[Tensor, "query key member"], target: Int[Tensor, "query member"]
) -> Float[Tensor, " member"]:
    """The mean over queries of -log P_hat(target) in nats, P_hat the softmax of the logits."""
    return -logits.log_softmax(1).gather(1, target.unsqueeze(1)).mean((0, 1))


def squared_error(
    estimate: Float[Tensor, "sample dim member"], target: Float[Tensor, "sample dim member"]
) -> Float[Tensor, " member"]:
    """Mean squared error per coordinate."""
    return (estimate - target).square().mean((0, 1))


def squared_distance(
    rows: Float[Tensor, "row key member"], target: Float[Tensor, "row key member"]
) -> Float[Tensor, " member"]:
    """mean over rows of sum_j (p_j - target_j)^2: the Brier score less its value at the target."""
    return (rows - target).square().sum(1).mean(0)
