"""Kernel regression over growing contexts: the best temperature depends on the length."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.linalg import solve_triangular
from scipy.special import softmax

_BLOCK_BYTES = 2**26  # of covariances factorised at once
_LARGEST_BYTES = 2**29  # of the covariance of one context: nothing near 1 GB is ever built


@dataclass(frozen=True, eq=False)
class Contexts:
    """Where a function is observed and where it is asked for, both uniform on the unit sphere.

    keys: k_i, in the order in which the context grows. query: q, several a context, independent of
    the keys.
    """

    keys: Float[np.ndarray, "sample position dim"]
    query: Float[np.ndarray, "sample query dim"]

    def prefix(self, length: int) -> "Contexts":
        """The same queries over the first `length` keys: a context of that length, in law. Raises
        ValueError outside 1..n.
        """
        _check_prefix(length, self.keys.shape[1])
        return Contexts(self.keys[:, :length], self.query)


@dataclass(frozen=True, eq=False)
class Regressions(Contexts):
    """Contexts with one draw of the function each: values y_i = f(k_i) + sigma eps, target f(q)."""

    values: Float[np.ndarray, "sample position"]
    target: Float[np.ndarray, "sample query"]

    def prefix(self, length: int) -> "Regressions":
        """The same queries and targets over the first `length` pairs. Raises ValueError outside
        1..n.
        """
        _check_prefix(length, self.keys.shape[1])
        return Regressions(self.keys[:, :length], self.query, self.values[:, :length], self.target)


@dataclass(frozen=True, eq=False)
class GaussianPosterior:
    """f(q) given the first n pairs, for every n = 1 .. N at once: index n - 1 of the last axis.

    mean: E[f(q) | pairs], the Bayes estimate. variance: Var[f(q) | pairs], its expected squared
    error.
    """

    mean: Float[np.ndarray, "sample query position"]
    variance: Float[np.ndarray, "sample query position"]


@dataclass(frozen=True)
class KernelRegressionTask:
    """Predict f(q) from n noisy values of f, a Gaussian process on the sphere.

    f has mean 0 and covariance k(x, x') = exp(-||x - x'||^2 / (2 l^2)), values are y_i = f(k_i) +
    sigma eps. Attention with logits tau q . k_i over these pairs is Nadaraya-Watson regression with
    bandwidth 1 / sqrt(tau), as keys have unit norm.

    One Cholesky factor L of K + sigma^2 I at the largest length serves every shorter one: the
    factor of a prefix is the leading block of L, so with u = L^-1 y and v = L^-1 k(q) the first n
    pairs give the posterior mean sum_{i<=n} u_i v_i and variance 1 - sum_{i<=n} v_i^2. Draws are
    exact too, without jitter: y = L z has the right law (sigma^2 keeps K + sigma^2 I well
    conditioned), and f(q) is then drawn from its posterior.

    Fields: dim, d; length_scale, l; noise, sigma; f has standard deviation 1.
    Raises ValueError for dim < 1, and a length scale or noise that is not positive and finite.

    >>> task = KernelRegressionTask(dim=1, length_scale=1.0, noise=1.0)  # the sphere of R^1 is {-1, 1}
    >>> one = np.ones((1, 1, 1))
    >>> posterior = task.bayes_estimate(Regressions(one, one, np.array([[3.0]]), np.array([[0.0]])))
    >>> round(posterior.mean.item(), 12), round(posterior.variance.item(), 12)
    (1.5, 0.5)
    """

    dim: int = 4
    length_scale: float = 1.0
    noise: float = 0.3

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ValueError(
                f"dim of a kernel regression must be at least 1, got {self.dim}: choose dim >= 1"
            )
        for name, value in (("length_scale", self.length_scale), ("noise", self.noise)):
            if not (np.isfinite(value) and value > 0):
                raise ValueError(
                    f"{name} must be positive and finite, got {value}: choose a value above 0"
                )

    def kernel(
        self, x: Float[np.ndarray, "*batch a dim"], y: Float[np.ndarray, "*batch b dim"]
    ) -> Float[np.ndarray, "*batch a b"]:
        """k(x, y) of unit vectors, exp((x . y - 1) / l^2)."""
        exponent = (x / self.length_scale**2) @ np.swapaxes(y, -1, -2)
        exponent -= 1 / self.length_scale**2
        return np.exp(exponent, out=exponent)

    def covariance(
        self, keys: Float[np.ndarray, "*batch n dim"]
    ) -> Float[np.ndarray, "*batch n n"]:
        """Cov(y) = K + sigma^2 I."""
        covariance = self.kernel(keys, keys)
        diagonal = np.arange(covariance.shape[-1])
        covariance[..., diagonal, diagonal] = 1 + self.noise**2
        return covariance

    def sample_contexts(
        self, count: int, length: int, generator: np.random.Generator, queries: int = 1
    ) -> Contexts:
        """Keys and queries without a function; each sample uses (length + queries) d normals of its
        own.

        Raises ValueError for count, length or queries < 1, and a length whose covariance would not
        fit.
        """
        self._check_sizes(count, length, queries)
        points = generator.standard_normal((count, length + queries, self.dim))
        return _split(points, length)

    def sample(
        self, count: int, length: int, generator: np.random.Generator, queries: int = 1
    ) -> Regressions:
        """Contexts, values and targets; each sample uses (length + queries) (d + 1) normals of its
        own.

        Any chunking of a stream gives the same samples. Raises ValueError as `sample_contexts`, and
        where K + sigma^2 I is not positive definite to rounding.
        """
        self._check_sizes(count, length, queries)
        normal = generator.standard_normal((count, (length + queries) * (self.dim + 1)))
        points, extra = np.split(normal, [(length + queries) * self.dim], axis=1)
        contexts = _split(points.reshape(count, length + queries, self.dim), length)
        values, target = np.empty((count, length)), np.empty((count, queries))
        for i, factor, whitened in self._factors(contexts):
            values[i] = factor @ extra[i, :length]
            query = contexts.query[i]
            remaining = self.kernel(query, query) - whitened.T @ whitened
            scale, basis = np.linalg.eigh(
                remaining
            )  # a square root that tolerates rounding below zero
            target[i] = whitened.T @ extra[i, :length]
            target[i] += basis @ (np.sqrt(scale.clip(min=0)) * extra[i, length:])
        return Regressions(contexts.keys, contexts.query, values, target)

    def bayes_estimate(self, batch: Regressions) -> GaussianPosterior:
        """The exact posterior of f(q) at every length. Raises ValueError where K + sigma^2 I is not
        positive definite.
        """
        mean = np.empty((*batch.target.shape, batch.keys.shape[1]))
        variance = np.empty_like(mean)
        for i, factor, whitened in self._factors(batch):
            values = solve_triangular(factor, batch.values[i], lower=True, check_finite=False)
            mean[i] = np.cumsum(whitened.T * values, axis=1)
            variance[i] = 1 - np.cumsum(whitened.T**2, axis=1)
        return GaussianPosterior(mean, variance)

    def bayes_variance(
        self,
        contexts: Contexts,
        covariance: Float[np.ndarray, "sample position position"] | None = None,
    ) -> Float[np.ndarray, "sample query position"]:
        """Var[f(q) | first n pairs], the Bayes risk given keys and query, which no value enters; n
        - 1 indexes the last axis.

        covariance: that of the keys, where it is already at hand. Raises ValueError as
        `bayes_estimate`.
        """
        variance = np.empty((*contexts.query.shape[:2], contexts.keys.shape[1]))
        for i, _, whitened in self._factors(contexts, covariance):
            variance[i] = 1 - np.cumsum(whitened.T**2, axis=1)
        return variance

    def attention(
        self, contexts: Contexts, inverse_temperature: Float[np.ndarray, " row"]
    ) -> Float[np.ndarray, "sample row query position"]:
        """softmax_i(tau q . k_i) for several tau. Raises ValueError for one that is not finite."""
        tau = np.asarray(inverse_temperature, dtype=np.float64)
        if not np.isfinite(tau).all():
            raise ValueError(
                f"inverse temperatures must be finite, got {tau}: mend the one that is not"
            )
        dots = contexts.query @ np.swapaxes(contexts.keys, -1, -2)
        return softmax(tau[:, None, None] * dots[:, None], axis=-1)

    def nadaraya_watson(
        self, batch: Regressions, inverse_temperature: float
    ) -> Float[np.ndarray, "sample query"]:
        """sum_i softmax_i(tau q . k_i) y_i over the whole context."""
        weights = self.attention(batch, np.array([inverse_temperature], dtype=np.float64))[:, 0]
        return np.einsum("sqn,sn->sq", weights, batch.values)

    def linear_risk(
        self,
        contexts: Contexts,
        weights: Float[np.ndarray, "sample row query position"],
        covariance: Float[np.ndarray, "sample position position"] | None = None,
    ) -> Float[np.ndarray, "sample row query"]:
        """E[(w . y - f(q))^2 | keys, query] = w^T (K + sigma^2 I) w - 2 w . k(q) + 1, exact over f
        and the noise.

        An estimate that is linear in the values (attention is, as its weights see only keys and
        query) needs no draw of them. covariance: that of the keys, where it is already at hand.
        """
        risk = np.empty(weights.shape[:3])
        for i, w in enumerate(weights):
            known = self.covariance(contexts.keys[i]) if covariance is None else covariance[i]
            rows = w.reshape(-1, w.shape[-1])
            variance = np.einsum("rn,rn->r", rows @ known, rows).reshape(w.shape[:2])
            cross = self.kernel(contexts.query[i], contexts.keys[i])
            risk[i] = variance - 2 * np.einsum("rqn,qn->rq", w, cross) + 1
        return risk

    @property
    def inverse_temperature_grid(self) -> Float[np.ndarray, " row"]:
        """Where the best constant inverse temperature is searched: 0.1 / l^2 to 1000 / l^2, evenly
        in the logarithm.
        """
        return np.geomspace(0.1, 1000, 25) / self.length_scale**2

    def _factors(
        self, contexts: Contexts, covariance: np.ndarray | None = None
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(sample, L, L^-1 k(q)) of every sample, in blocks of bounded memory."""
        count, length, _ = contexts.keys.shape
        block = max(1, _BLOCK_BYTES // (8 * length**2))
        for start in range(0, count, block):
            part = slice(start, start + block)
            try:
                factors = np.linalg.cholesky(
                    self.covariance(contexts.keys[part]) if covariance is None else covariance[part]
                )
            except np.linalg.LinAlgError as error:
                raise ValueError(
                    f"the covariance of the values is not positive definite to rounding with noise {self.noise:g} and "
                    f"length_scale {self.length_scale:g}: raise the noise, or lower the length scale"
                ) from error
            cross = self.kernel(contexts.keys[part], contexts.query[part])
            for i, factor in enumerate(factors):
                yield (
                    start + i,
                    factor,
                    solve_triangular(factor, cross[i], lower=True, check_finite=False),
                )

    def _check_sizes(self, count: int, length: int, queries: int) -> None:
        for name, size in (
            ("number of samples", count),
            ("length", length),
            ("number of queries", queries),
        ):
            if size < 1:
                raise ValueError(f"the {name} must be at least 1, got {size}: ask for one or more")
        if 8 * length**2 > _LARGEST_BYTES:
            raise ValueError(
                f"a context's covariance may take {_LARGEST_BYTES // 2**20} MiB, got length {length}: use at most "
                f"{int((_LARGEST_BYTES / 8) ** 0.5)}"
            )


def best_inverse_temperature(
    inverse_temperature: Float[np.ndarray, " row"], risk: Float[np.ndarray, " row"]
) -> float:
    """Where a risk sampled on a grid is least: the vertex of the parabola through the lowest three
    points, in logarithms.

    The risk falls (less bias) and then rises (more variance) in tau; at an end of the grid that end
    is returned.
    """
    x, y, lowest = np.log(inverse_temperature), np.log(risk), int(np.argmin(risk))
    if lowest in (0, len(x) - 1):
        return float(inverse_temperature[lowest])
    curvature, slope, _ = np.polyfit(
        x[lowest - 1 : lowest + 2] - x[lowest], y[lowest - 1 : lowest + 2], 2
    )
    return float(np.exp(x[lowest] - slope / (2 * curvature)))


def _split(points: np.ndarray, length: int) -> Contexts:
    """Normals to unit vectors, keys first."""
    points = points / np.sqrt(np.einsum("snd,snd->sn", points, points))[..., None]
    return Contexts(points[:, :length], points[:, length:])


def _check_prefix(length: int, available: int) -> None:
    if not 1 <= length <= available:
        raise ValueError(
            f"a prefix must have 1 to {available} keys, got {length}: choose a length in that range"
        )
