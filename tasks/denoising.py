"""Denoising: recover a signal from tokens of which only some carry it (value
temperature).
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtri

from tasks.denoising_posterior import (
    Posterior,
    atom_posterior,
    atoms,
    posterior_over_atoms,
    subset_posterior,
)
from tasks.denoising_risk import (
    Law,
    additive_gate,
    closed_form_risk,
    importance_estimates,
    relevance_given_norm,
)
from tasks.sampling import MonteCarlo, check_count, monte_carlo, uniform_choice

Prior = Literal["gaussian", "cross-polytope"]
LONGEST_EXACT = 14


@dataclass(frozen=True, eq=False)
class NoisyTokens:
    """Sampled inputs with what produced them.

    tokens: x_i. relevant: b_i, whether token i carries the signal. target: y.
    """

    tokens: Float[np.ndarray, "sample length dim"]
    relevant: Bool[np.ndarray, "sample length"]
    target: Float[np.ndarray, "sample dim"]


@dataclass(frozen=True)
class BayesBracket:
    """Two Monte-Carlo risks between whose expectations the Bayes risk lies: lower <= Bayes <=
    upper.
    """

    lower: MonteCarlo
    upper: MonteCarlo


@dataclass(frozen=True)
class DenoisingTask:
    """Predict y from L tokens: x_i = y + signal_noise eps with probability `relevance`, else
    filler_noise eps.

    y has mean 0 and covariance prior_scale^2 I: N(0, prior_scale^2 I), or, for the prior
    `cross-polytope`, uniform over the 2 dim atoms +- prior_scale sqrt(dim) e_j. eps ~ N(0, I). All
    risks are squared errors per coordinate. Write s^2 = prior_scale^2, a = signal_noise^2, n =
    filler_noise^2, rho = relevance.

    Raises ValueError for dim or length < 1, relevance outside [0, 1], a scale that is not positive
    and finite, or an unknown prior.

    >>> task = DenoisingTask(dim=2, length=1, relevance=1.0, signal_noise=1.0)
    >>> task.bayes_estimate(np.array([[[2.0, -4.0]]])).tolist(), task.risk("oracle")
    ([[1.0, -2.0]], 0.5)
    """

    dim: int = 8
    length: int = 10
    relevance: float = 0.3
    prior_scale: float = 1.0
    signal_noise: float = 0.5
    filler_noise: float = 2.5
    prior: Prior = "gaussian"

    def __post_init__(self) -> None:
        for name, size in (("dim", self.dim), ("length", self.length)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}: choose {name} >= 1")
        if not 0 <= self.relevance <= 1:
            raise ValueError(
                f"relevance is a probability, got {self.relevance}: choose a value in [0, 1]"
            )
        for name in ("prior_scale", "signal_noise", "filler_noise"):
            scale = getattr(self, name)
            if not 0 < scale < np.inf:
                raise ValueError(
                    f"{name} must be positive and finite, got {scale}: it is a standard deviation"
                )
        if self.prior not in get_args(Prior):
            raise ValueError(
                f"unknown prior {self.prior!r}: choose one of {', '.join(get_args(Prior))}"
            )

    @property
    def law(self) -> Law:
        """The numbers of the model, noise and prior as variances."""
        variances = (self.prior_scale**2, self.signal_noise**2, self.filler_noise**2)
        return Law(self.dim, self.length, self.relevance, *variances)

    def sample(self, count: int, generator: np.random.Generator) -> NoisyTokens:
        """Independent inputs. Each uses the same number of normals, so drawing n and then m gives
        the n + m at once.

        Raises ValueError for count < 1.
        """
        check_count(count, "samples")
        drawn = self.dim if self.prior == "gaussian" else 1
        normal = generator.standard_normal((count, drawn + self.length * (1 + self.dim)))
        if self.prior == "gaussian":
            target = self.prior_scale * normal[:, :drawn]
        else:  # Phi(normal) is uniform, and names the atom
            target = atoms(self.law)[uniform_choice(normal[:, 0], 2 * self.dim)]
        relevant = normal[:, drawn : drawn + self.length] < ndtri(self.relevance)
        noise = normal[:, drawn + self.length :].reshape(count, self.length, self.dim)
        signal = target[:, None] + self.signal_noise * noise
        return NoisyTokens(
            np.where(relevant[..., None], signal, self.filler_noise * noise), relevant, target
        )

    def bayes_estimate(
        self, tokens: Float[np.ndarray, "sample length dim"]
    ) -> Float[np.ndarray, "sample dim"]:
        """E[y | X], the estimator of least mean squared error; see `bayes_posterior`."""
        return self.bayes_posterior(tokens).mean

    def bayes_posterior(self, tokens: Float[np.ndarray, "sample length dim"]) -> Posterior:
        """The exact mean and variance of y given X.

        Gaussian prior: a sum over the subsets of tokens that may be the relevant ones, see
        `subset_posterior`. Cross-polytope: a sum over its 2 dim atoms, at any length.

        Raises ValueError for tokens of another shape, and for more than 14 tokens under the
        Gaussian prior.
        """
        self._check_tokens(tokens)
        if self.prior == "cross-polytope":
            return atom_posterior(self.law, tokens)
        if self.length > LONGEST_EXACT:
            raise ValueError(
                "the exact Bayes estimate sums over 2^length subsets and takes at most"
                f" {LONGEST_EXACT} tokens, got length {self.length}: use bayes_bracket, which"
                " bounds the Bayes risk at any length"
            )
        return subset_posterior(self.law, tokens)

    def oracle_estimate(
        self,
        tokens: Float[np.ndarray, "sample length dim"],
        relevant: Bool[np.ndarray, "sample length"],
    ) -> Float[np.ndarray, "sample dim"]:
        """E[y | X, b]; see `oracle_posterior`."""
        return self.oracle_posterior(tokens, relevant).mean

    def oracle_posterior(
        self,
        tokens: Float[np.ndarray, "sample length dim"],
        relevant: Bool[np.ndarray, "sample length"],
    ) -> Posterior:
        """Mean and variance of y given the tokens and which are relevant: no estimator from X alone
        does better.

        Gaussian prior, k relevant tokens: s^2 / (a + k s^2) times their sum, and variance s^2 a /
        (a + k s^2).
        """
        self._check_tokens(tokens)
        if relevant.shape != tokens.shape[:2]:
            raise ValueError(
                f"relevant must have shape {tokens.shape[:2]}, got {relevant.shape}: one flag a"
                " token"
            )
        total = (tokens * relevant[..., None]).sum(1)
        if self.prior == "gaussian":
            gain = self.prior_scale**2 / (
                self.signal_noise**2 + relevant.sum(1) * self.prior_scale**2
            )
            return Posterior(gain[:, None] * total, self.signal_noise**2 * gain)
        return posterior_over_atoms(self.law, total @ atoms(self.law).T / self.signal_noise**2)

    def risk(self, name: str) -> float:
        """The mean squared error per coordinate, in closed form (series, quadrature), of a
        baseline.

        - `oracle`: knows the relevant tokens. `naive`: the mean token. `shrunk`: the best multiple
          of it.
        - `threshold`: the best multiple of the sum of the tokens on the better side of the best
          norm threshold.
        - `additive`: the best sum of phi(x_i) over all maps phi, hence a bound for any value gate
          under uniform attention.

        The cross-polytope has `naive` and `shrunk`, which need the covariance of y only. The Bayes
        risk is no closed form: see `bayes_risk`. Raises ValueError for another name.
        """
        known = ("oracle", "naive", "shrunk", "threshold", "additive")
        if self.prior == "cross-polytope":
            known = ("naive", "shrunk")
        if name not in known:
            raise ValueError(
                f"no closed-form risk {name!r} for the {self.prior} prior: choose one of"
                f" {', '.join(known)}; the Bayes risk is estimated by bayes_risk"
            )
        return closed_form_risk(self.law, name)

    def bayes_risk(self, count: int, generator: np.random.Generator) -> MonteCarlo:
        """The Bayes risk E Var(y | X) by Monte Carlo over `count` inputs, each with its exact
        posterior variance.
        """
        return monte_carlo(self.bayes_posterior(self.sample(count, generator).tokens).variance)

    def bayes_bracket(
        self, count: int, generator: np.random.Generator, draws: int = 128
    ) -> BayesBracket:
        """A certified bracket of the Bayes risk at any length (Gaussian prior).

        Upper end: self-normalised importance sampling of E[y | X] with `draws` draws; it is an
        estimator, so its risk is at least Bayes. Lower end (iterated SIR): the same with the first
        draw replaced by the true y. Given X and the unordered draws, y is each of them with its
        normalised weight, so the estimate is E[y | X, draws] and its risk is the Bayes risk minus E
        Var(estimate | X). Both hold whatever the proposal; a better one narrows the bracket.

        Raises ValueError for count < 2, draws < 2, or the cross-polytope prior (exact at any
        length).
        """
        if self.prior != "gaussian":
            raise ValueError(
                f"bayes_estimate is exact at any length for the {self.prior} prior: use bayes_risk"
            )
        for what, number in (("count", count), ("draws", draws)):
            if number < 2:
                raise ValueError(
                    f"{what} must be at least 2, got {number}: a bracket needs more than one"
                )
        data = self.sample(count, generator)
        ends = importance_estimates(self.law, data.tokens, data.target, draws, generator)
        lower, upper = (monte_carlo(((h - data.target) ** 2).mean(1)) for h in ends)
        return BayesBracket(lower, upper)

    def relevance_given_norm(
        self, radius: Float[np.ndarray, " point"]
    ) -> Float[np.ndarray, " point"]:
        """pi(r), the probability that a token of norm r is relevant, given nothing else (Gaussian
        prior).
        """
        self._check_gaussian("relevance_given_norm")
        return relevance_given_norm(self.law, radius)

    def additive_gate(self, radius: Float[np.ndarray, " point"]) -> Float[np.ndarray, " point"]:
        """h(r) of the best additive estimator sum_i h(||x_i||) x_i, whose risk is
        `risk("additive")` (Gaussian prior).
        """
        self._check_gaussian("additive_gate")
        return additive_gate(self.law, radius)

    def _check_gaussian(self, what: str) -> None:
        if self.prior != "gaussian":
            raise ValueError(f"{what} needs the gaussian prior, got {self.prior}: change the prior")

    def _check_tokens(self, tokens: np.ndarray) -> None:
        if tokens.ndim != 3 or tokens.shape[1:] != (self.length, self.dim):
            raise ValueError(
                f"tokens must have shape (sample, {self.length}, {self.dim}), got {tokens.shape}:"
                " match length and dim"
            )
