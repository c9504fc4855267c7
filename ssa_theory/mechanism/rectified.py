"""Normalisers for which a score of zero means something: what is not above it gets no weight.

    Threshold   softmax over the positive scores, Threshold Relative Attention, arXiv 2503.23174
    ReLA        p_j proportional to max(z_j, 0), arXiv 2104.07012, made to sum to one
    Softpick    p_j = max(e^z_j - 1, 0) / sum_k |e^z_k - 1|, arXiv 2504.20966

A row without a positive score is zero. Softpick's rows sum to less than one as soon as a score is
negative: the keys that are turned down hold what is missing, as a sink would.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from ssa_theory.mechanism.normalizers import Sparse
from ssa_theory.mechanism.parts import Parameters


class Rectified(Sparse):
    """A normaliser that gives weight to positive scores alone."""


@final
@dataclass(frozen=True)
class Threshold(Rectified):
    """Softmax over the positive scores."""

    def masked(self, scores: Tensor, dim: int) -> Tensor:
        return scores.masked_fill(scores <= 0, -torch.inf)


@final
@dataclass(frozen=True)
class ReLA(Rectified):
    """p_j = max(z_j, 0) / sum_k max(z_k, 0).

    A positive factor on all scores changes nothing: a query temperature is not felt.
    """

    def finite_rows(self, parameters: Parameters, scores: Tensor, dim: int) -> Tensor:
        weights = torch.relu(scores)
        total = weights.sum(dim, keepdim=True)
        return weights / torch.where(total == 0, 1.0, total)


@final
@dataclass(frozen=True)
class Softpick(Rectified):
    """p_j = max(e^z_j - 1, 0) / sum_k |e^z_k - 1|.

    Where no score is negative the rows sum to one, and for large scores they are softmax's.
    """

    def finite_rows(self, parameters: Parameters, scores: Tensor, dim: int) -> Tensor:
        # All over e^top, so that nothing overflows; top is no less than 0, for e^-top is there too.
        top = scores.detach().amax(dim, keepdim=True).clamp(min=0)
        excess = torch.exp(scores - top) - torch.exp(-top)
        excess = torch.where(scores == -torch.inf, 0.0, excess)  # a masked key turns nothing down
        total = excess.abs().sum(dim, keepdim=True)
        return torch.relu(excess) / torch.where(total == 0, 1.0, total)


def rectified_output(
    scores: Float[Tensor, "*row key"],
    values: Float[Tensor, "*batch key feature"],
    epsilon: float = 1e-8,
) -> Float[Tensor, "*row feature"]:
    """ReLA's own output, RMSNorm(max(z, 0) V) without gain: o / sqrt(mean_f o_f^2 + epsilon), arXiv
    2104.07012.

    Like the rows that sum to one it does not feel a positive factor on the scores (but for
    epsilon). It loses the output's length, hence all but the sign of a single feature; with a
    second feature that is c for every key, c/sqrt(2) times the first output tends to the row's mean
    of the first values as c grows, which is `ReLA`.
    """
    output = torch.relu(scores) @ values
    return output * (output.square().mean(-1, keepdim=True) + epsilon).rsqrt()
