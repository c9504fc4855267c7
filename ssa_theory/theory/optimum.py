"""The best that vanilla attention can do on a map: min over W of the cross-entropy of
softmax(E W E^T) to P*, which is convex in W.

The infimum may lie at infinity, as P* with zeros asks for unbounded logits; there the loss
approaches it, and the decrease that Newton's step still promises bounds what is missing.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import entr, log_softmax

LARGEST_DIM = 64
"""Of d: the Hessian has d^4 numbers."""
_STEPS = 200
_PROMISED = 1e-10
"""nats: Newton's method stops where its step promises less."""
_BYTES = 1 << 26
"""Of the Hessians that are held at a time."""


@dataclass(frozen=True)
class Optimum:
    """The optimum of each member.

    gap: its cross-entropy above Bayes (nats). l1: mean over rows of the L1 distance of its rows from
    P*. promised: the decrease that one more Newton step promises (nats).
    """

    gap: Float[np.ndarray, " member"]
    l1: Float[np.ndarray, " member"]
    promised: Float[np.ndarray, " member"]


def vanilla_optimum(
    embeddings: Float[np.ndarray, "member token dim"],
    target: Float[np.ndarray, "member token token"],
    weight: Float[np.ndarray, "member token"],
) -> Optimum:
    """The infimum over W of sum_i weight_i KL(P*_i || softmax(e_i W E^T)), by damped Newton steps.

    embeddings: E, a unit vector e_i a token. target: P*, rows that sum to one. weight: of each row,
    summing to one. Raises ValueError for d above 64.
    """
    members, _, dim = embeddings.shape
    if dim > LARGEST_DIM:
        raise ValueError(
            f"the optimum of vanilla attention is computed up to d = {LARGEST_DIM}, got d = {dim}: "
            "its Hessian has d^4 numbers"
        )
    at_once = max(1, _BYTES // (8 * dim**4))
    parts = [
        _solve(embeddings[s : s + at_once], target[s : s + at_once], weight[s : s + at_once])
        for s in range(0, members, at_once)
    ]
    gap, l1, promised = (np.concatenate(values) for values in zip(*parts, strict=True))
    return Optimum(gap, l1, promised)


def _solve(
    e: Float[np.ndarray, "member token dim"],
    target: Float[np.ndarray, "member token token"],
    weight: Float[np.ndarray, "member token"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    members, _, dim = e.shape
    bayes = (weight * entr(target).sum(-1)).sum(-1)
    w = np.zeros((members, dim, dim))

    def log_rows(w: np.ndarray) -> np.ndarray:
        return log_softmax(e @ w @ e.swapaxes(1, 2), axis=-1)

    def loss(w: np.ndarray) -> np.ndarray:
        return -(weight * (target * log_rows(w)).sum(-1)).sum(-1)

    value, promised = loss(w), np.full(members, np.inf)
    outer = np.einsum("mia,mib->miab", e, e)
    ridge = 1e-12 * np.eye(dim * dim)
    for _ in range(_STEPS):
        rows = np.exp(log_rows(w))
        slope = e.swapaxes(1, 2) @ (weight[..., None] * (rows - target)) @ e
        centre = rows @ e
        spread = np.einsum("mij,mja,mjb->miab", rows, e, e, optimize=True)
        spread -= np.einsum("mia,mib->miab", centre, centre)
        curve = np.einsum("mi,miab,micd->macbd", weight, outer, spread, optimize=True)
        curve = curve.reshape(members, dim * dim, dim * dim) + ridge
        flat = slope.reshape(members, -1, 1)
        step = np.linalg.solve(curve, flat)
        promised = (flat * step).sum((1, 2)) / 2
        if (promised < _PROMISED).all():
            break
        step = step.reshape(w.shape)
        length = np.ones(members)
        tried = loss(w - step)
        for _ in range(30):  # halved until the loss falls by a tenth of what is promised
            short = (tried > value - 0.1 * length * promised) & (promised >= _PROMISED)
            if not short.any():
                break
            length = np.where(short, length / 2, length)
            tried = loss(w - length[:, None, None] * step)
        better = tried < value
        w = np.where(better[:, None, None], w - length[:, None, None] * step, w)
        value = np.where(better, tried, value)
    rows = np.exp(log_rows(w))
    return value - bayes, np.abs(rows - target).sum(-1).mean(-1), promised


def constant_row(
    target: Float[np.ndarray, "member token token"], weight: Float[np.ndarray, "member token"]
) -> tuple[Float[np.ndarray, " member"], Float[np.ndarray, " member"]]:
    """The best single distribution in place of all rows, sum_i weight_i P*_i: its cross-entropy
    above Bayes (nats), and the mean over rows of its L1 distance from P*.
    """
    row = (weight[..., None] * target).sum(1, keepdims=True)
    gap = entr(row).sum((1, 2)) - (weight * entr(target).sum(-1)).sum(-1)
    return gap, np.abs(row - target).sum(-1).mean(-1)
