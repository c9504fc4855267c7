"""Denoising: the exact Bayes estimate's invariants, and the order of the baselines' risks."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from scipy.special import logsumexp, xlogy

from analysis.properties.base import EPS, Integer, Number, at_most, collect, equal, exact, states
from tasks import DenoisingTask
from tasks.denoising import NoisyTokens

_SOURCE = "denoising with a value temperature; Bayes estimate in a Gaussian mixture"
_LAW = {
    "relevance": Number(0.05, 0.95, 0.5),
    "prior_scale": Number(0.3, 2.0, 1.0),
    "signal_noise": Number(0.3, 2.0, 1.0),
    "filler_noise": Number(0.3, 4.0, 1.0),
}
_TASK = {"dim": Integer(1, 5), "length": Integer(1, 7)} | _LAW
_SAMPLES = 3
_CHANCE = 1e-15
"""The probability that chance alone refutes a statement about expectations, in one case."""


def _drawn(
    generator: np.random.Generator, task: DenoisingTask, samples: int = _SAMPLES
) -> tuple[np.ndarray, float]:
    """Tokens, and how far rounding moves an estimate from them.

    A log-weight sums squares up to q = sum ||x_i||^2 (1/a + 1/n), each off by d roundings and met
    up to L times; the weights, and with them an estimate that is at most the longest token, follow
    relatively.
    """
    x = task.sample(samples, generator).tokens
    size = (x**2).sum((1, 2)).max() * (1 / task.signal_noise**2 + 1 / task.filler_noise**2)
    rounding = 16 * (task.dim + task.length) * EPS * (1 + task.dim + size)
    return x, rounding * float(np.linalg.norm(x, axis=2).max())


def _patterns(
    task: DenoisingTask, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Every relevance pattern b: (b, P(b | x), E[y | x, b], Var(y | x, b)) of one sample, by
    conditioning a Gaussian.

    Given b the coordinates are independent, with covariance s^2 b b^T + diag(a or n) over the
    tokens and s^2 b with y.
    """
    s2, a, n = task.prior_scale**2, task.signal_noise**2, task.filler_noise**2
    b = np.array(list(product((0.0, 1.0), repeat=task.length)))
    covariance = s2 * b[:, :, None] * b[:, None] + np.where(b > 0, a, n)[:, :, None] * np.eye(
        task.length
    )
    solved = np.linalg.solve(covariance, np.broadcast_to(x, (len(b), *x.shape)))
    k = b.sum(1)
    log_p = xlogy(k, task.relevance) + xlogy(task.length - k, 1 - task.relevance)
    log_p -= task.dim / 2 * np.linalg.slogdet(covariance)[1] + (x * solved).sum((1, 2)) / 2
    gain = np.linalg.solve(covariance, b[..., None])[..., 0]
    return (
        b,
        np.exp(log_p - logsumexp(log_p)),
        s2 * np.einsum("pl,pld->pd", b, solved),
        s2 - s2**2 * (b * gain).sum(1),
    )


@states(_SOURCE, **_TASK)
def bayes_turns_with_the_tokens(generator: np.random.Generator, **law: Any) -> None:
    """The Bayes estimate is rotation-equivariant: turning every token turns it."""
    task = DenoisingTask(**law)
    x, slack = _drawn(generator, task)
    rotation = np.linalg.qr(generator.standard_normal((task.dim, task.dim)))[0]
    equal(
        task.bayes_estimate(x @ rotation),
        task.bayes_estimate(x) @ rotation,
        slack,
        "estimate from turned tokens",
    )


@states(_SOURCE, **_TASK)
def bayes_ignores_the_order(generator: np.random.Generator, **law: Any) -> None:
    """The Bayes estimate is permutation-invariant: the order of the tokens does not matter."""
    task = DenoisingTask(**law)
    x, slack = _drawn(generator, task)
    mixed = x[:, generator.permutation(task.length)]
    equal(
        task.bayes_estimate(mixed), task.bayes_estimate(x), slack, "estimate from reordered tokens"
    )


@states(_SOURCE, **_TASK, log_factor=Number(-5.0, 5.0, 0.0))
def bayes_follows_the_scale(generator: np.random.Generator, log_factor: float, **law: Any) -> None:
    """The Bayes estimate is scale-equivariant: tokens and all standard deviations times c make it c
    times as large.
    """
    task, factor = DenoisingTask(**law), float(np.exp(log_factor))
    x, slack = _drawn(generator, task)
    scales = {
        name: factor * getattr(task, name)
        for name in ("prior_scale", "signal_noise", "filler_noise")
    }
    scaled = replace(task, **scales).bayes_estimate(factor * x)
    equal(
        scaled / factor,
        task.bayes_estimate(x),
        slack,
        "estimate from scaled tokens, over the factor",
    )


@states(_SOURCE, **_TASK)
def bayes_without_fillers(generator: np.random.Generator, **law: Any) -> None:
    """With rho = 1 the Bayes estimate is L s^2 / (a + L s^2) times the mean token, and with rho = 0
    it is zero.
    """
    task = replace(DenoisingTask(**law), relevance=1.0)
    x, slack = _drawn(generator, task)
    shrink = (
        task.length
        * task.prior_scale**2
        / (task.signal_noise**2 + task.length * task.prior_scale**2)
    )
    equal(task.bayes_estimate(x), shrink * x.mean(1), slack, "estimate from relevant tokens alone")
    oracle = task.oracle_estimate(x, np.ones(x.shape[:2], dtype=bool))
    equal(oracle, shrink * x.mean(1), slack, "oracle's estimate from relevant tokens alone")
    nothing = replace(task, relevance=0.0).bayes_posterior(x)
    equal(nothing.mean, 0.0, 0.0, "estimate from fillers alone")
    equal(
        nothing.variance,
        task.prior_scale**2,
        8 * EPS * task.prior_scale**2,
        "variance from fillers alone",
    )


@states(_SOURCE, dim=_TASK["dim"], **_LAW)
def bayes_of_a_single_token(generator: np.random.Generator, **law: Any) -> None:
    """With L = 1 the Bayes estimate is pi(||x||) m x: the shrunk token times the probability that
    it is relevant.
    """
    task = DenoisingTask(length=1, **law)
    x, slack = _drawn(generator, task)
    pi = task.relevance_given_norm(np.linalg.norm(x[:, 0], axis=1))
    m = task.prior_scale**2 / (task.prior_scale**2 + task.signal_noise**2)
    equal(task.bayes_estimate(x), (pi * m)[:, None] * x[:, 0], slack, "estimate from one token")


@states(_SOURCE, **_TASK)
def bayes_norm_bound(generator: np.random.Generator, **law: Any) -> None:
    """The Bayes estimate is never longer than L s^2 / (a + L s^2) times the longest token."""
    task = DenoisingTask(**law)
    x, slack = _drawn(generator, task)
    shrink = (
        task.length
        * task.prior_scale**2
        / (task.signal_noise**2 + task.length * task.prior_scale**2)
    )
    longest = np.linalg.norm(x, axis=2).max(1)
    at_most(
        np.linalg.norm(task.bayes_estimate(x), axis=1),
        shrink * longest,
        slack,
        "norm of the estimate",
    )


@states(_SOURCE, **_TASK | {"length": Integer(1, 5)}, log10_distance=Number(-3.0, 1.0, 0.0))
def bayes_risk_identity(generator: np.random.Generator, log10_distance: float, **law: Any) -> None:
    """Given the tokens, any estimate h errs by ||h - y_hat||^2 more than the Bayes estimate y_hat,
    whose error is the posterior variance, over an enumeration of all relevance patterns; so no
    estimator beats Bayes.
    """
    task = DenoisingTask(**law)
    x, slack = _drawn(generator, task, 1)
    posterior = task.bayes_posterior(x)
    h = posterior.mean[0] + 10**log10_distance * generator.standard_normal(task.dim)
    _, p, mean, variance = _patterns(task, x[0])
    risk = p @ (variance + ((mean - h) ** 2).mean(1))
    # Rounding moves each mean by `slack` times the covariance's condition, and a square by twice
    # its root.
    least = min(task.signal_noise, task.filler_noise) ** 2
    condition = (
        task.length * task.prior_scale**2 + max(task.signal_noise, task.filler_noise) ** 2
    ) / least
    size = task.prior_scale + np.abs(h).max() + np.abs(x).max()
    error = 2 * slack * condition * size + 64 * EPS * condition * size**2
    equal(
        risk - posterior.variance[0],
        ((h - posterior.mean[0]) ** 2).mean(),
        error,
        "excess risk of an estimate",
    )


@states(_SOURCE, **_TASK | {"length": Integer(1, 5)})
def oracle_below_bayes(generator: np.random.Generator, **law: Any) -> None:
    """Given the tokens, knowing which of them are relevant lowers the expected error: E Var(y | X,
    b) <= Var(y | X), with the oracle's own variance in every relevance pattern.
    """
    task = DenoisingTask(**law)
    x, slack = _drawn(generator, task, 1)
    b, p, mean, variance = _patterns(task, x[0])
    oracle = task.oracle_posterior(np.broadcast_to(x, (len(b), *x.shape[1:])), b > 0)
    condition = (
        task.length * task.prior_scale**2 + max(task.signal_noise, task.filler_noise) ** 2
    ) / min(task.signal_noise, task.filler_noise) ** 2
    equal(oracle.mean, mean, condition * slack, "oracle's estimate")
    equal(
        oracle.variance,
        variance,
        16 * task.length * EPS * condition * task.prior_scale**2,
        "oracle's variance",
    )
    largest = float(np.abs(x).max() + task.prior_scale)
    bayes = task.bayes_posterior(x).variance[0]
    at_most(p @ oracle.variance, bayes, slack * condition * largest, "expected error of the oracle")


@states(_SOURCE, dim=Integer(1, 3), length=Integer(1, 4), **_LAW)
def bayes_is_calibrated(generator: np.random.Generator, **law: Any) -> None:
    """E[y . y_hat] = E||y_hat||^2 over the sampled signals and tokens.

    Checked on samples with a bound that holds at every sample size: as exp(x - x^2/6) <= 1 + x +
    x^2/3, the sum S of independent D_i of mean zero obeys |S| <= t sum(D_i^2 + 2 E D_i^2) / 6 +
    log(2/delta) / t with probability 1 - delta, for any t chosen without these samples (Delyon
    2009).
    """
    task = DenoisingTask(**law)
    pilot, data = task.sample(200, generator), task.sample(1000, generator)

    def parts(sample: NoisyTokens) -> tuple[np.ndarray, np.ndarray]:
        """D = (y - y_hat) . y_hat, and a bound of E[D^2 | X]: ||y_hat||^2 times the trace of the
        posterior covariance.
        """
        posterior = task.bayes_posterior(sample.tokens)
        d = ((sample.target - posterior.mean) * posterior.mean).sum(1)
        return d, (posterior.mean**2).sum(1) * task.dim * posterior.variance

    (d0, v0), (d, v) = parts(pilot), parts(data)
    cost = np.log(2 / _CHANCE)
    t = np.sqrt(cost * 6 / (len(d) * (d0**2 + 2 * v0).mean()))
    at_most(
        abs(d.sum()), t * (d**2 + 2 * v).sum() / 6 + cost / t, 0.0, "sum of y . y_hat - ||y_hat||^2"
    )
    exact((v > 0).any(), "the estimate is not degenerate")


@states(_SOURCE, dim=_TASK["dim"], length=_TASK["length"], **_LAW)
def risks_are_ordered(generator: np.random.Generator, **law: Any) -> None:
    """Oracle <= best additive <= norm threshold <= shrunk mean <= min(naive mean, prior variance),
    in risk.
    """
    task = DenoisingTask(**law)
    names = ("oracle", "additive", "threshold", "shrunk")
    risks = [task.risk(name) for name in names]
    s2 = task.prior_scale**2
    bounds = [*risks[1:], min(task.risk("naive"), s2)]
    slack = 1e-10 * s2  # the quadratures' own accuracy
    for name, risk, bound in zip(names, risks, bounds, strict=True):
        at_most(risk, bound, slack, f"risk of {name}")
    exact(risks[0] > 0, "the oracle's risk is positive")


@states(_SOURCE, dim=_TASK["dim"], length=_TASK["length"], **_LAW)
def norms_without_information(generator: np.random.Generator, **law: Any) -> None:
    """Where fillers are as long as relevant tokens, n = s^2 + a, no gate on the norm helps:
    additive = threshold = shrunk.
    """
    task = DenoisingTask(**law)
    task = replace(task, filler_noise=float(np.hypot(task.prior_scale, task.signal_noise)))
    shrunk = task.risk("shrunk")
    equal(task.risk("additive"), shrunk, 1e-9 * shrunk, "risk of the best additive estimator")
    at_most(
        task.risk("additive") - 1e-9 * shrunk,
        task.risk("threshold"),
        0.0,
        "risk of additive, and of threshold",
    )
    at_most(task.risk("threshold"), shrunk, 1e-9 * shrunk, "risk of threshold")


PROPERTIES = collect(globals())
