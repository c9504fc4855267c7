"""What is known of the signal of a denoising task given its tokens: the exact posterior, as a sum over
the subsets of relevant tokens, or over the atoms of the prior.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp, xlogy

from tasks.denoising_risk import Law

_BLOCK = 2**16  # weights held at once, sample x subset: stays near the cache


@dataclass(frozen=True, eq=False)
class Posterior:
    """What is known of y: its mean, and its variance per coordinate, the risk of that mean given
    the tokens.
    """

    mean: Float[np.ndarray, "sample dim"]
    variance: Float[np.ndarray, " sample"]


def subset_posterior(law: Law, tokens: Float[np.ndarray, "sample length dim"]) -> Posterior:
    """The posterior of y ~ N(0, s^2 I): a sum over the subsets S of tokens that may be the relevant
    ones, k = |S|, with g_k = s^2 / (a + k s^2) and weights

        log w(S) = k log rho + (L - k) log(1 - rho) + (d/2) [k log(n/a) - log(1 + k s^2/a)]
                   - (1/a - 1/n) / 2 sum_S ||x_i||^2 + g_k / (2a) ||sum_S x_i||^2,

    whose tokens enter by their Gram matrix alone, linearly. Given S the mean is g_k sum_S x_i and
    the variance a g_k.
    """
    dim, length, rho, s2, a, n = law
    subset = (np.arange(2**length)[:, None] >> np.arange(length) & 1).astype(np.float64)
    first, second = np.triu_indices(length)
    pairs = subset[:, first] * subset[:, second] * np.where(first == second, 1.0, 2.0)
    k = subset.sum(1)
    gain = s2 / (a + k * s2)
    constant = (
        xlogy(k, rho)
        + xlogy(length - k, 1 - rho)
        + dim / 2 * (k * np.log(n / a) - np.log1p(k * s2 / a))
    )
    from_gram = (
        pairs * (gain / (2 * a))[:, None]
        - np.where(first == second, (1 / a - 1 / n) / 2, 0.0) * pairs
    )
    mean, variance = np.empty((len(tokens), dim)), np.empty(len(tokens))
    rows = max(1, _BLOCK // 2**length)
    for start in range(0, len(tokens), rows):
        part = slice(start, start + rows)
        x = tokens[part]
        gram = (x @ x.transpose(0, 2, 1))[:, first, second]
        weight = gram @ from_gram.T + constant
        weight -= weight.max(1, keepdims=True)
        np.exp(weight, out=weight)
        weight /= weight.sum(1, keepdims=True)
        weight *= gain
        mean[part] = np.einsum("sl,sld->sd", weight @ subset, x)
        within = a * weight.sum(1)
        weight *= gain
        second_moment = (gram * (weight @ pairs)).sum(1)
        variance[part] = within + np.maximum(second_moment - (mean[part] ** 2).sum(1), 0.0) / dim
    return Posterior(mean, variance)


def atoms(law: Law) -> Float[np.ndarray, "atom dim"]:
    """+- s sqrt(d) e_j, the atoms of the cross-polytope."""
    return (
        np.sqrt(law.prior) * np.sqrt(law.dim) * np.concatenate([np.eye(law.dim), -np.eye(law.dim)])
    )


def atom_posterior(law: Law, tokens: Float[np.ndarray, "sample length dim"]) -> Posterior:
    """The posterior of y uniform over the atoms, whose log weights are, up to what all share, sums
    over tokens of log[rho N(x; y, a) + (1 - rho) N(x; 0, n)].
    """
    dim, _, rho, s2, a, n = law
    square = (tokens**2).sum(-1)[..., None]
    with np.errstate(divide="ignore"):
        signal = (
            np.log(rho)
            - dim / 2 * np.log(a)
            - (square - 2 * tokens @ atoms(law).T + dim * s2) / (2 * a)
        )
        filler = np.log1p(-rho) - dim / 2 * np.log(n) - square / (2 * n)
    return posterior_over_atoms(law, np.logaddexp(signal, filler).sum(1))


def posterior_over_atoms(law: Law, log_weight: Float[np.ndarray, "sample atom"]) -> Posterior:
    """Of atoms with these unnormalised log weights."""
    weight = np.exp(log_weight - logsumexp(log_weight, axis=1, keepdims=True))
    mean = weight @ atoms(law)
    return Posterior(mean, np.maximum(law.prior - (mean**2).mean(1), 0.0))
