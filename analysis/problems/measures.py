"""Measures of attention rows (how spiky, how sparse) and of weights (how large).

*Spiky* (concentrated) and *sparse* (exact zeros) are different things here: a softmax row is never
sparse. All measures run on the device of their input and reduce one axis, the last by default.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ssa_theory.mechanism.parts import matmul
from ssa_theory.theory import entropy

SMALLEST_TAU = 1e-6  # below this a row is uniform to rounding; keeps log tau finite


def effective_support(row: Tensor, dim: int = -1) -> Tensor:
    """exp(H): how many keys a uniform row of the same entropy would attend to, from 1 to n."""
    return entropy(row.movedim(dim, -1)).exp()


def spikiness(row: Tensor, dim: int = -1) -> Tensor:
    """1 / (n sum_j s_j^2) of a row that sums to 1 (arXiv 2411.12892, figure 2): from 1/n for one
    key to 1 for the uniform row, *smaller* is spikier.

    Times n it is another effective number of keys, at most exp(H), as the largest weights count for
    more.
    """
    return 1 / (row.shape[dim] * (row**2).sum(dim))


def gini(row: Tensor, dim: int = -1) -> Tensor:
    """Gini's sum_j (2j - n - 1) s_(j) / (n sum s), s_(j) ascending: 0 uniform, 1 - 1/n one key."""
    n = row.shape[dim]
    ascending = row.movedim(dim, -1).sort(-1).values
    rank = torch.arange(1, n + 1, dtype=row.dtype, device=row.device)
    return ((2 * rank - n - 1) * ascending).sum(-1) / (n * ascending.sum(-1))


def hoyer(row: Tensor, dim: int = -1) -> Tensor:
    """Hoyer's (sqrt(n) - ||s||_1 / ||s||_2) / (sqrt(n) - 1), n >= 2: 0 uniform, 1 for one key."""
    root = row.shape[dim] ** 0.5
    return (root - row.abs().sum(dim) / (row**2).sum(dim).sqrt()) / (root - 1)


def zero_fraction(row: Tensor, dim: int = -1) -> Tensor:
    """The share of exact zeros: sparsity proper."""
    return (row == 0).to(row.dtype).mean(dim)


def row_shape(rows: Float[Tensor, "row key member"]) -> dict[str, Float[Tensor, " member"]]:
    """Means over the rows of each member: how spiky, how sparse, how many dead.

    Effective support and largest weight are over the rows with a key left. A dead row has at most
    one key left, so that its weights do not move with its scores: it has no gradient.
    """
    left = (rows > 0).sum(1)
    some = left > 0
    spread = torch.where(some, torch.special.entr(rows).sum(1).exp(), 0.0)
    return {
        "effective_support": spread.sum(0) / some.sum(0),
        "largest_weight": rows.amax(1).sum(0) / some.sum(0),
        "zero_fraction": zero_fraction(rows, 1).mean(0),
        "dead_rows": (left <= 1).double().mean(0),
    }


def singular_values(weight: Float[Tensor, "row column member"]) -> Float[Tensor, "value member"]:
    """The singular values of each member's matrix, descending; the first is the norm ||W||_2."""
    return torch.linalg.svdvals(weight.movedim(-1, 0)).movedim(0, -1)


def token_norm(
    weight: Float[Tensor, "dim out member"], embeddings: Float[Tensor, "node dim member"]
) -> Float[Tensor, "node member"]:
    """||W^T e_i||: how far the query map stretches token i; times tau_i, its logit scale."""
    return matmul(embeddings, weight).norm(dim=1)


def row_l1(
    p: Float[Tensor, "row next #member"], q: Float[Tensor, "row next #member"]
) -> Float[Tensor, " member"]:
    """mean_i sum_j |p_ij - q_ij|, between 0 and 2: twice the mean total variation of the rows."""
    return (p - q).abs().sum(1).mean(0)


ROW_GROUPS = ("sharp", "middle", "blunt")


def row_groups(row_entropy: Float[np.ndarray, " node"]) -> np.ndarray:
    """Of each row its group: sharp for the quarter of least entropy, blunt for the quarter of most,
    middle between. A quarter has at least one row.
    """
    quarter = max(1, len(row_entropy) // 4)
    order = np.argsort(row_entropy, kind="stable")
    groups = np.full(len(row_entropy), "middle")
    groups[order[:quarter]], groups[order[-quarter:]] = "sharp", "blunt"
    return groups
