"""Noisy retrieval: the Bayes predictor is attention with a query-dependent temperature."""

from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import OptimizeResult, minimize_scalar
from scipy.special import log_softmax

from tasks.sampling import check_count, uniform_choice

_BLOCK_BYTES = 2**26  # of keys drawn at once by the Monte Carlo of `bayes_risk`


@dataclass(frozen=True, eq=False)
class Retrievals:
    """Sampled retrieval problems.

    keys: unit vectors k_i. query: q = k_target + s eps. noise: the standard deviation s of each
    coordinate of the noise, visible to the model. target: the index of the key that the query stems
    from, uniform.
    """

    keys: Float[np.ndarray, "sample key dim"]
    query: Float[np.ndarray, "sample dim"]
    noise: Float[np.ndarray, " sample"]
    target: Int[np.ndarray, " sample"]


@dataclass(frozen=True)
class RetrievalRisk:
    """The Bayes risk at one noise level, by Monte Carlo.

    cross_entropy: the expected entropy of the posterior (nats), which is the cross-entropy of the
    Bayes predictor. accuracy: the expected largest posterior probability, which is the probability
    that the Bayes decision is right. The errors are standard errors of those means over the
    samples.
    """

    cross_entropy: float
    cross_entropy_error: float
    accuracy: float
    accuracy_error: float


@dataclass(frozen=True)
class NoisyRetrievalTask:
    """Which of n keys does a noisy query stem from?

    n keys k_i are independent and uniform on the unit sphere of R^d, the target t is uniform over
    them, the noise level s is uniform over `noise_levels`, and the query is q = k_t + s eps, eps
    standard Gaussian. As the keys have unit norm,

        P(i | q, s, keys) = softmax_i(q . k_i / s^2),

    attention with the query's own inverse temperature 1 / s^2 and the identity as its weight
    matrix.

    Fields: dim, d; keys, n; noise_levels, the values of s in the units of the keys' norm. Raises
    ValueError for dim < 1, keys < 1, and noise levels that are missing, repeated, or not positive
    and finite.

    >>> task = NoisyRetrievalTask(dim=2, keys=2, noise_levels=(0.5,))
    >>> keys, query = np.array([[[1.0, 0.0], [0.0, 1.0]]]), np.array([[0.75, 0.25]])
    >>> task.posterior(Retrievals(keys, query, np.array([0.5]), np.array([0]))).round(3).tolist()
    [[0.881, 0.119]]
    """

    dim: int = 8
    keys: int = 32
    noise_levels: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)

    def __post_init__(self) -> None:
        for name, size in (("dim", self.dim), ("keys", self.keys)):
            if size < 1:
                raise ValueError(
                    f"{name} of a retrieval task must be at least 1, got {size}: choose {name} >= 1"
                )
        if not self.noise_levels or len(set(self.noise_levels)) != len(self.noise_levels):
            raise ValueError(
                f"noise_levels must be different and at least one, got {self.noise_levels}: list each level once"
            )
        for level in self.noise_levels:
            if not (np.isfinite(level) and level > 0):
                raise ValueError(
                    f"a noise level must be positive and finite, got {level}: choose values above 0"
                )

    def sample(self, count: int, generator: np.random.Generator) -> Retrievals:
        """Independent problems. Each uses (n + 1) d + 2 normals of its own, so any chunking of a
        stream gives the same ones.

        Raises ValueError for count < 1.
        """
        check_count(count, "retrieval problems")
        normal = generator.standard_normal((count, (self.keys + 1) * self.dim + 2))
        keys = normal[:, : self.keys * self.dim].reshape(count, self.keys, self.dim)
        keys = keys / np.sqrt(np.einsum("skd,skd->sk", keys, keys))[..., None]
        target, level = (
            uniform_choice(normal[:, -2], self.keys),
            uniform_choice(normal[:, -1], len(self.noise_levels)),
        )
        noise = np.array(self.noise_levels, dtype=np.float64)[level]
        query = (
            keys[np.arange(count), target] + noise[:, None] * normal[:, self.keys * self.dim : -2]
        )
        return Retrievals(keys, query, noise, target)

    def log_posterior(self, batch: Retrievals) -> Float[np.ndarray, "sample key"]:
        """log P(i | q, s, keys), exact."""
        logits = np.einsum("skd,sd->sk", batch.keys, batch.query) / batch.noise[:, None] ** 2
        return log_softmax(logits, axis=1)

    def posterior(self, batch: Retrievals) -> Float[np.ndarray, "sample key"]:
        """P(i | q, s, keys), exact."""
        return np.exp(self.log_posterior(batch))

    def best_common_inverse_temperature(self, batch: Retrievals) -> float:
        """The one c for all noise levels at which softmax_i(c q . k_i) has the least expected
        cross-entropy on `batch`.

        The best that attention without a selective temperature can do. The expected cross-entropy
        of a problem is convex in c and least at its own 1 / s^2, so the optimum of the sum lies
        between the least and the largest of those.
        """
        dots, p = np.einsum("skd,sd->sk", batch.keys, batch.query), self.posterior(batch)
        low, high = 1 / batch.noise.max() ** 2, 1 / batch.noise.min() ** 2
        if low == high:
            return float(low)
        minimum = minimize_scalar(
            lambda log_c: -(p * log_softmax(np.exp(log_c) * dots, axis=1)).sum(),
            bounds=(np.log(low), np.log(high)),
            method="bounded",
            options={"xatol": 1e-5},
        )
        return float(np.exp(cast(OptimizeResult, minimum).x))

    def bayes_risk(self, noise: float, count: int, generator: np.random.Generator) -> RetrievalRisk:
        """The Bayes cross-entropy and accuracy at noise level `noise`, with standard errors, from
        `count` samples.

        The target is integrated out: a sample contributes its posterior's entropy and maximum,
        whose expectations are those of -log P(target) and of the hit, with less variance. Raises
        ValueError for fewer than 2 samples or a bad noise level.
        """
        if count < 2:
            raise ValueError(
                f"a standard error needs at least 2 samples, got {count}: ask for more"
            )
        task = NoisyRetrievalTask(self.dim, self.keys, (noise,))
        block = max(1, _BLOCK_BYTES // (8 * (self.keys + 1) * self.dim))
        parts = []
        for start in range(0, count, block):
            log_p = self.log_posterior(task.sample(min(block, count - start), generator))
            parts.append(np.stack([posterior_entropy(log_p), np.exp(log_p.max(1))]))
        values = np.concatenate(parts, axis=1)
        (entropy, accuracy), error = (
            values.mean(1).tolist(),
            (values.std(1, ddof=1) / np.sqrt(count)).tolist(),
        )
        return RetrievalRisk(entropy, error[0], accuracy, error[1])


def posterior_entropy(
    log_posterior: Float[np.ndarray, "sample key"],
) -> Float[np.ndarray, " sample"]:
    """-sum_i p_i log p_i in nats, with 0 log 0 = 0."""
    p = np.exp(log_posterior)
    return -(p * np.where(p > 0, log_posterior, 0.0)).sum(1)
