"""What norm the weights need to write a transition matrix A as rows softmax(diag(tau) E W E^T).

Logits that embeddings of alike tokens must tell apart cost a large W, and a temperature per query
token makes it smaller (arXiv 2411.12892, expressivity): a lower bound for every W, and the least W.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import lsq_linear


def norm_lower_bound(
    embeddings: Float[np.ndarray, "token dim"],
    target: Float[np.ndarray, "token token"],
    inverse_temperature: Float[np.ndarray, " token"] | float = 1.0,
) -> float:
    """The least spectral norm that any W with softmax(diag(tau) E W E^T) = A can have, by pairs of
    rows and columns.

    With l_a = log(A_a) / tau_a, any such W obeys (e_a - e_b)^T W (e_j - e_k) = [l_a(j) - l_a(k)] -
    [l_b(j) - l_b(k)], so

        ||W||_2 >= max |[l_a(j) - l_a(k)] - [l_b(j) - l_b(k)]| / (||e_a - e_b|| ||e_j - e_k||).

    A common tau only rescales the bound; a tau per row can make it small. embeddings: E; target: A,
    positive rows. Infinite where two equal embeddings would need different rows.

    Raises ValueError for a target that is not positive and row-stochastic, an inverse temperature
    that is not positive, or shapes that do not fit.

    >>> target = np.array([[0.9, 0.1], [0.1, 0.9]])
    >>> round(norm_lower_bound(np.eye(2), target), 3)  # log 81 / 2
    2.197
    """
    embeddings, logits, tau = _checked(embeddings, target, inverse_temperature)
    logits = logits / tau[:, None]
    first, second = np.triu_indices(len(embeddings), k=1)
    distance = np.linalg.norm(embeddings[first] - embeddings[second], axis=1)
    bound = 0.0
    for a in range(len(embeddings) - 1):  # one row against all later ones: memory stays at token^3
        odds = logits[a] - logits[a + 1 :]
        rise = np.abs(odds[:, first] - odds[:, second])
        apart = np.linalg.norm(embeddings[a] - embeddings[a + 1 :], axis=1)[:, None] * distance
        with np.errstate(divide="ignore", invalid="ignore"):
            bound = float(
                np.max(rise / apart, where=rise > 0, initial=bound)
            )  # 0 / 0 is no constraint
    return bound


@dataclass(frozen=True, eq=False)
class MinimalNorm:
    """The W of least Frobenius norm that realises a target.

    weight: W (dim, dim); inverse_temperature: tau by row (all equal for vanilla); spectral_norm and
    frobenius_norm of W. converged: whether the least-squares solver found its minimum; where not, W
    realises the target, but its norm is only an upper bound.

    >>> minimal_norm(np.eye(2), np.array([[0.9, 0.1], [0.1, 0.9]])).converged
    True
    """

    weight: Float[np.ndarray, "dim dim"]
    inverse_temperature: Float[np.ndarray, " token"]
    spectral_norm: float
    frobenius_norm: float
    converged: bool


def minimal_norm(
    embeddings: Float[np.ndarray, "token dim"],
    target: Float[np.ndarray, "token token"],
    max_inverse_temperature: float = 1.0,
    selective: bool = False,
) -> MinimalNorm:
    """The W of least Frobenius norm with softmax(diag(tau) E W E^T) = A and every tau <=
    max_inverse_temperature.

    All solutions are W = E^+ (diag(u) log A + c 1^T) E^{+T} plus the null space, u = 1/tau and c
    free. For given u the best c is linear in u (it makes the logit rows orthogonal to 1 in the
    metric of E^{+T}), which leaves W = sum_i u_i M_i with M_i = e^+_i (E^+ l_i)^T, e^+_i column i
    of E^+. Vanilla takes every u_i = 1 / max_inverse_temperature; SSA (`selective`) minimises
    ||sum_i u_i M_i||_F over u_i >= 1 / max_inverse_temperature, a bounded linear least-squares
    problem.

    embeddings: E of full row rank (token <= dim); target: A, positive rows. Raises ValueError
    otherwise.

    >>> target = np.array([[0.9, 0.1], [0.4, 0.6]])
    >>> one, each = (minimal_norm(np.eye(2), target, 2.0, selective=s) for s in (False, True))
    >>> round(one.frobenius_norm, 3), round(each.frobenius_norm, 3)
    (0.79, 0.79)
    """
    if not 0 < max_inverse_temperature < np.inf:
        raise ValueError(
            f"max_inverse_temperature must be positive and finite, got {max_inverse_temperature}: "
            "choose one above 0"
        )
    embeddings, logits, _ = _checked(embeddings, target, 1.0)
    rank = int(np.linalg.matrix_rank(embeddings))
    if rank < len(embeddings):
        raise ValueError(
            "embeddings must have full row rank for every target to be realisable, got rank "
            f"{rank} for {len(embeddings)} tokens: use dim >= tokens, or set similar tokens "
            "further apart"
        )
    inverse = np.linalg.pinv(embeddings)
    ones = inverse.sum(1)
    columns = logits @ inverse.T
    columns = columns - np.outer(columns @ ones, ones) / (ones @ ones)  # the best c, row by row
    pieces = np.einsum("di,ie->ide", inverse, columns)
    least = np.full(len(embeddings), 1 / max_inverse_temperature)
    converged = True
    if selective:
        solution = lsq_linear(
            pieces.reshape(len(pieces), -1).T,
            np.zeros(pieces[0].size),
            bounds=(least, np.inf),
            method="bvls",
            tol=1e-14,
            max_iter=100 * len(pieces),  # one for each variable, the default, is sometimes too few
        )
        converged = solution.status > 0
        least = np.maximum(solution.x, least)
    weight = np.tensordot(least, pieces, 1)
    spectral, frobenius = float(np.linalg.norm(weight, 2)), float(np.linalg.norm(weight))
    return MinimalNorm(weight, 1 / least, spectral, frobenius, bool(converged))


def _checked(
    embeddings: np.ndarray, target: np.ndarray, inverse_temperature: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(embeddings, log target, tau by row) in float64, or a ValueError."""
    embeddings, target = np.asarray(embeddings, np.float64), np.asarray(target, np.float64)
    tokens = len(embeddings)
    if target.shape != (tokens, tokens):
        raise ValueError(
            f"the target must have shape {(tokens, tokens)}, got {target.shape}: one row a token"
        )
    if tokens < 2:
        raise ValueError(
            f"a norm bound compares tokens and needs at least 2, got {tokens}: add tokens"
        )
    if not (np.isfinite(embeddings).all() and np.isfinite(target).all()):
        raise ValueError(
            "embeddings and target must be finite, got NaN or infinity: mend the input"
        )
    if not (target > 0).all():
        row, column = np.argwhere(target <= 0)[0]
        raise ValueError(
            "the target must be positive, since no finite W gives probability "
            f"{target[row, column]} (row {row}, column {column}): smooth the row"
        )
    worst = int(np.argmax(np.abs(target.sum(1) - 1)))
    if abs(target[worst].sum() - 1) > 1e-4:  # a float32 softmax passes
        raise ValueError(
            f"target rows must sum to 1, but row {worst} sums to {target[worst].sum():.6g}: "
            "normalise it"
        )
    tau = np.broadcast_to(np.asarray(inverse_temperature, np.float64), (tokens,))
    wrong = tau[~(np.isfinite(tau) & (tau > 0))]
    if len(wrong):
        raise ValueError(
            f"inverse temperatures must be positive and finite, got {wrong[0]}: "
            "choose values above 0"
        )
    return embeddings, np.log(target), tau
