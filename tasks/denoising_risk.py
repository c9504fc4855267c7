"""Risks of the denoising baselines in closed form, and the importance sampler that brackets the
Bayes risk.
"""

from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Float
from scipy import stats
from scipy.optimize import OptimizeResult, minimize_scalar
from scipy.special import expit, log_softmax, logit, logsumexp, softmax

_TAIL = 9.0  # standard deviations kept of a norm's distribution: what lies beyond is below 1e-15
_ORDER = 12  # Gauss-Legendre nodes a panel


class Law(NamedTuple):
    """The denoising model in numbers; `prior`, `signal` and `filler` are variances per coordinate
    (s^2, a, n).
    """

    dim: int
    length: int
    relevance: float
    prior: float
    signal: float
    filler: float


def closed_form_risk(law: Law, name: str) -> float:
    """The risk per coordinate of oracle, naive, shrunk, threshold or additive (see
    `DenoisingTask.risk`).
    """
    _, length, rho, s2, a, n = law
    if name == "oracle":  # k tokens are relevant with binomial probability
        k = np.arange(length + 1)
        return float(stats.binom.pmf(k, length, rho) @ (1 / (1 / s2 + k / a)))
    if name == "threshold":
        return _threshold_risk(law)
    if name == "additive":
        radius, weight = _norm_nodes(law)
        return float(s2 - length * rho * s2 * (weight @ additive_gate(law, radius)))
    covariance = rho * s2  # of the mean token with y, per coordinate
    square = s2 * (rho**2 + rho * (1 - rho) / length) + (rho * a + (1 - rho) * n) / length
    return s2 - 2 * covariance + square if name == "naive" else s2 - covariance**2 / square


def relevance_given_norm(
    law: Law, radius: Float[np.ndarray, " point"]
) -> Float[np.ndarray, " point"]:
    """pi(r) = P(relevant | ||x|| = r): logit pi = logit rho + (d/2) log(n/v) + (r^2/2)(1/n - 1/v),
    v = s^2 + a.
    """
    v = law.prior + law.signal
    odds = law.dim / 2 * np.log(law.filler / v) + radius**2 / 2 * (1 / law.filler - 1 / v)
    return expit(logit(law.relevance) + odds)


def additive_gate(law: Law, radius: Float[np.ndarray, " point"]) -> Float[np.ndarray, " point"]:
    """h(r) of the best additive estimator sum_i h(||x_i||) x_i.

    The normal equations E[y | x] = phi(x) + (L - 1) E[phi(x_2) | x] with phi(x) = h(||x||) x read,
    with v = s^2 + a, m = s^2 / v and t^2 = v (1 - m^2),

        h(r) = pi(r) m [1 - (L - 1) rho E h(t sqrt(Q))],   Q ~ noncentral chi^2 with d + 2 degrees and m^2 r^2 / t^2,

    solved at quadrature nodes and continued to any r by the equation itself (Nystroem).
    """
    dim, length, rho, s2, a, _ = law
    v = s2 + a
    m = s2 / v
    t2 = v * (1 - m**2)
    nodes, step = _panels(law)

    reach = np.sqrt(t2) * (np.sqrt(dim + 2) + _TAIL)

    def mean_over(
        r: np.ndarray,
    ) -> np.ndarray:  # the matrix that takes h at the nodes to E h(t sqrt(Q))
        row, column = np.nonzero(
            np.abs(nodes - m * r[:, None]) < reach
        )  # elsewhere the density is 0 to rounding
        matrix = np.zeros((len(r), len(nodes)))
        density = stats.ncx2.pdf(nodes[column] ** 2 / t2, dim + 2, (m * r[row]) ** 2 / t2)
        matrix[row, column] = density * 2 * nodes[column] / t2 * step[column]
        return matrix

    factor = (length - 1) * rho
    pi = relevance_given_norm(law, nodes) * m
    h = np.linalg.solve(np.eye(len(nodes)) + factor * pi[:, None] * mean_over(nodes), pi)
    return relevance_given_norm(law, radius) * m * (1 - factor * mean_over(radius) @ h)


def _panels(law: Law) -> tuple[np.ndarray, np.ndarray]:
    """Norms r and weights of composite Gauss-Legendre over all norms that a relevant token may
    have.
    """
    v = law.prior + law.signal
    end = np.sqrt(v) * (np.sqrt(law.dim + 2) + _TAIL)
    narrow = min(
        np.sqrt(v), np.sqrt(law.signal), np.sqrt(law.filler)
    )  # the finest scale of any integrand below
    count = int(np.clip(np.ceil(end / (2 * narrow)), 8, 120))
    x, w = np.polynomial.legendre.leggauss(_ORDER)
    width = end / count
    nodes = (np.arange(count)[:, None] + (x + 1) / 2) * width
    return nodes.ravel(), np.tile(w * width / 2, count)


def _norm_nodes(law: Law) -> tuple[np.ndarray, np.ndarray]:
    """Norms r and weights for expectations over r = sqrt(v chi^2_{d+2}): a relevant token, weighted
    by its squared norm.
    """
    v = law.prior + law.signal
    radius, step = _panels(law)
    return radius, step * stats.chi2.pdf(radius**2 / v, law.dim + 2) * 2 * radius / v


def _threshold_risk(law: Law) -> float:
    """min over thresholds T, sides and factors c of the risk of c sum of x_i with ||x_i||^2 below
    (above) T.

    With g the indicator, per coordinate, A = s^2 E g(v chi2_{d+2}), P1 = v E g(v chi2_{d+2}), P0 =
    n E g(n chi2_{d+2}) and C = s^2 E_s [E g(a ncx2_{d+2}(s^2 s / a))]^2, s ~ chi2_{d+2}; the best c
    leaves s^2 - (L rho A)^2 / (L [rho P1 + (1 - rho) P0] + L (L - 1) rho^2 C).
    """
    dim, length, rho, s2, a, n = law
    v = s2 + a
    radius, weight = _norm_nodes(law)
    noncentral = s2 / v * radius**2 / a

    def risk(log_threshold: float, above: bool) -> float:
        threshold = np.exp(log_threshold)
        central = stats.chi2.sf if above else stats.chi2.cdf
        conditional = stats.ncx2.sf if above else stats.ncx2.cdf
        relevant = central(threshold / v, dim + 2)
        cross = s2 * weight @ conditional(threshold / a, dim + 2, noncentral) ** 2
        power = (
            rho * v * relevant
            + (1 - rho) * n * central(threshold / n, dim + 2)
            + (length - 1) * rho**2 * cross
        )
        return float(s2 - length * (rho * s2 * relevant) ** 2 / power) if power > 0 else s2

    # Between these ends the threshold passes from keeping almost nothing to keeping everything.
    low = np.log(min(v, n) * stats.chi2.ppf(1e-4, dim + 2))
    high = np.log(max(v, n) * stats.chi2.isf(1e-12, dim + 2))
    best = closed_form_risk(law, "shrunk")  # the threshold that keeps all
    for above in (False, True):
        grid = np.linspace(low, high, 32)
        risks = [risk(g, above) for g in grid]
        at = int(np.clip(np.argmin(risks), 1, len(grid) - 2))
        bounds = (grid[at - 1], grid[at + 1])
        accuracy = {"xatol": 1e-7}
        minimum = minimize_scalar(
            risk, bounds=bounds, args=(above,), method="bounded", options=accuracy
        )
        best = min(best, float(cast(OptimizeResult, minimum).fun))
    return best


def importance_estimates(
    law: Law,
    tokens: Float[np.ndarray, "sample length dim"],
    target: Float[np.ndarray, "sample dim"],
    draws: int,
    generator: np.random.Generator,
) -> tuple[Float[np.ndarray, "sample dim"], Float[np.ndarray, "sample dim"]]:
    """(with the first draw replaced by the true y, without): weighted means of draws from a
    proposal, per input.

    Proposal: a mixture over the modes that EM finds from every token and from zero, each a Gaussian
    with the mode's posterior variance inflated by 1.5, weighted by its share of the posterior, plus
    a tenth of the prior.
    """
    lower, upper = np.empty_like(target), np.empty_like(target)
    dim, length = law.dim, law.length
    rows = max(1, 2**21 // (draws * (length + 2)))
    for start in range(0, len(tokens), rows):
        part = slice(start, start + rows)
        x = tokens[part]
        centre, variance, log_share = _proposal(law, x)
        share = softmax(log_share, axis=1)
        uniform = generator.random((len(x), draws))
        component = np.minimum((share.cumsum(1)[:, None] < uniform[..., None]).sum(-1), length + 1)
        sample = np.arange(len(x))[:, None]
        y = centre[sample, component] + np.sqrt(variance[sample, component])[
            ..., None
        ] * generator.standard_normal((len(x), draws, dim))

        def estimate(y: np.ndarray) -> np.ndarray:
            distance = _square_distance(y, centre) / variance[:, None]  # noqa: B023
            log_q = logsumexp(
                log_softmax(log_share, axis=1)[:, None]  # noqa: B023 (used in the loop only)
                - dim / 2 * np.log(variance)[:, None]  # noqa: B023
                - distance / 2,
                axis=-1,
            )
            weight = softmax(_log_posterior(law, x, y) - log_q, axis=1)  # noqa: B023
            return np.einsum("sn,snd->sd", weight, y)

        upper[part] = estimate(y)
        y[:, 0] = target[part]
        lower[part] = estimate(y)
    return lower, upper


def _square_distance(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """||y_i - x_j||^2 for each sample, (sample, i, j)."""
    cross = y @ x.transpose(0, 2, 1)
    return np.maximum((y**2).sum(-1)[..., None] + (x**2).sum(-1)[:, None] - 2 * cross, 0.0)


def _log_odds(law: Law, tokens: np.ndarray, y: np.ndarray) -> np.ndarray:
    """log [rho N(x_i; y, a) / ((1 - rho) N(x_i; 0, n))] for each y and token, (sample, y, token)."""
    square = (tokens**2).sum(-1)[:, None]
    ratio = law.dim / 2 * np.log(law.filler / law.signal) + square / (2 * law.filler)
    return logit(law.relevance) + ratio - _square_distance(y, tokens) / (2 * law.signal)


def _log_posterior(law: Law, tokens: np.ndarray, y: np.ndarray) -> np.ndarray:
    """log p(y | X) up to a constant of each sample, (sample, y)."""
    odds = _log_odds(law, tokens, y)
    # log(1 - rho + rho ratio) without its constant; at rho = 1 the odds are infinite and only their
    # finite part is left
    token = (
        np.logaddexp(0, odds)
        if law.relevance < 1
        else -_square_distance(y, tokens) / (2 * law.signal)
    )
    return token.sum(-1) - (y**2).sum(-1) / (2 * law.prior)


def _proposal(law: Law, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres, variances and unnormalised log shares of the mixture: a mode per token, one from
    zero, and the prior.
    """
    dim, _, _, s2, a, _ = law
    samples = len(tokens)
    centre = np.concatenate([tokens * (s2 / (s2 + a)), np.zeros((samples, 1, dim))], axis=1)
    variance = np.empty(centre.shape[:-1])
    for _ in range(
        20
    ):  # EM: weight each token by its relevance given y, then take the posterior mean of y
        relevance = expit(_log_odds(law, tokens, centre))
        variance = 1 / (1 / s2 + relevance.sum(-1) / a)
        centre = variance[..., None] / a * (relevance @ tokens)
    mass = _log_posterior(law, tokens, centre) + dim / 2 * np.log(variance)
    # Many tokens lead to one mode: each then counts its mass once too often, which a proposal may.
    share = log_softmax(mass, axis=1) + np.log(0.9)
    return (
        np.concatenate([centre, np.zeros((samples, 1, dim))], axis=1),
        np.concatenate([1.5 * variance, np.full((samples, 1), s2)], axis=1),
        np.concatenate([share, np.full((samples, 1), np.log(0.1))], axis=1),
    )
