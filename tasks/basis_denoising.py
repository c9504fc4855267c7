"""Denoising of basis vectors: which of K directions do the tokens share? (value temperature)"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import ndtri, softmax

from tasks.sampling import MonteCarlo, check_count, monte_carlo, uniform_choice

_BLOCK_BYTES = 2**24  # of tokens held at once by `risks`


@dataclass(frozen=True, eq=False)
class BasisTokens:
    """Sampled inputs as what produced them.

    unit_noise: eps_i. noise: sigma. relevant: whether token i carries e_q; the last one always
    does. label: q.
    """

    unit_noise: Float[np.ndarray, "sample length dim"]
    noise: float
    relevant: Bool[np.ndarray, "sample length"]
    label: Int[np.ndarray, " sample"]

    @cached_property
    def tokens(self) -> Float[np.ndarray, "sample length dim"]:
        """x_i."""
        signal = np.eye(self.unit_noise.shape[2])[self.label]
        return self.noise * self.unit_noise + self.relevant[:, :, None] * signal[:, None]

    def at(self, noise: float) -> "BasisTokens":
        """The same inputs at another sigma."""
        return replace(self, noise=noise)


@dataclass(frozen=True)
class BasisDenoisingTask:
    """Predict the direction y = e_q from L tokens: x_i = e_q + sigma eps_i with probability alpha,
    else sigma eps_i; the last token always carries e_q.

    q is uniform over the K = dim standard basis vectors, eps_i ~ N(0, I). An estimate counts by its
    direction: the risk is E||y - u||^2 with u = y_hat / ||y_hat||, which is 2 - 2 E u_q. Source:
    the denoising experiment of arXiv 2411.12892 (K = 8, alpha = 1/4). Tokens of baselines have
    shape (sample, length, dim), estimates (sample, dim).

    Fields: dim, K; length, L; relevance, alpha; noise, sigma. Raises ValueError for dim or length <
    1, relevance outside [0, 1], or noise that is not positive and finite.

    >>> task = BasisDenoisingTask(dim=2, length=1, noise=1.0)
    >>> task.posterior(np.array([[[np.log(3.0), 0.0]]])).round(3).tolist()
    [[0.75, 0.25]]
    """

    dim: int = 8
    length: int = 8
    relevance: float = 0.25
    noise: float = 0.3

    def __post_init__(self) -> None:
        for name, size in (("dim", self.dim), ("length", self.length)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}: choose {name} >= 1")
        if not 0 <= self.relevance <= 1:
            raise ValueError(
                f"relevance is a probability, got {self.relevance}: choose a value in [0, 1]"
            )
        if not 0 < self.noise < np.inf:
            raise ValueError(
                f"noise must be positive and finite, got {self.noise}: it is a standard deviation"
            )

    def sample(self, count: int, generator: np.random.Generator) -> BasisTokens:
        """Independent inputs. Each uses the same number of normals, so drawing n and then m gives
        the n + m at once.

        Raises ValueError for count < 1.
        """
        check_count(count, "samples")
        normal = generator.standard_normal((count, self.length * (1 + self.dim)))
        label = uniform_choice(normal[:, 0], self.dim)
        relevant = np.ones((count, self.length), dtype=bool)
        relevant[:, :-1] = normal[:, 1 : self.length] < ndtri(self.relevance)
        unit_noise = normal[:, self.length :].reshape(count, self.length, self.dim)
        return BasisTokens(unit_noise, self.noise, relevant, label)

    def posterior(
        self, tokens: Float[np.ndarray, "sample length dim"]
    ) -> Float[np.ndarray, "sample dim"]:
        """P(q | X), exact, in O(L K): with s_i = (x_iq - 1/2) / sigma^2, the log of how much more
        likely e_q makes token i,

            log P(q | X) = const + s_L + sum_{i < L} log(1 - alpha + alpha exp(s_i)).

        As y is a basis vector, it is also the posterior mean of y.
        """
        self._check_tokens(tokens)
        ratio = (tokens - 0.5) / self.noise**2
        with np.errstate(divide="ignore"):
            filler, signal = np.log1p(-self.relevance), np.log(self.relevance)
        maybe = np.logaddexp(filler, signal + ratio[:, :-1])
        return softmax(ratio[:, -1] + maybe.sum(1), axis=1)

    def bayes_act(
        self, tokens: Float[np.ndarray, "sample length dim"]
    ) -> Float[np.ndarray, "sample dim"]:
        """The unit vector of least expected error: the posterior mean p over its norm.

        Given X a unit vector u has the expected error 2 - 2 p . u, least along p: 2 - 2 ||p||.
        """
        return unit(self.posterior(tokens))

    def naive_mean(
        self, tokens: Float[np.ndarray, "sample length dim"]
    ) -> Float[np.ndarray, "sample dim"]:
        """The direction of the mean of all tokens."""
        self._check_tokens(tokens)
        return unit(tokens.mean(1))

    def threshold_mean(
        self, tokens: Float[np.ndarray, "sample length dim"]
    ) -> Float[np.ndarray, "sample dim"]:
        """The direction of the mean of the tokens that have a coordinate of at least 1/2, as a
        value temperature might pick them; see `unit` for where there is none.
        """
        self._check_tokens(tokens)
        return _mean_of(tokens, tokens.max(2) >= 0.5)

    def oracle_mean(
        self,
        tokens: Float[np.ndarray, "sample length dim"],
        relevant: Bool[np.ndarray, "sample length"],
    ) -> Float[np.ndarray, "sample dim"]:
        """The direction of the mean of the tokens that carry the signal.

        It knows which these are, and yet is not optimal: it does not use that y is one of K
        vectors. Raises ValueError for flags of another shape.
        """
        self._check_tokens(tokens)
        if relevant.shape != tokens.shape[:2]:
            raise ValueError(
                f"relevant must have shape {tokens.shape[:2]}, got {relevant.shape}: one flag a"
                " token"
            )
        return _mean_of(tokens, relevant)

    def expected_error(
        self,
        tokens: Float[np.ndarray, "sample length dim"],
        estimate: Float[np.ndarray, "sample dim"],
    ) -> Float[np.ndarray, " sample"]:
        """E[||y - u||^2 | X] = 2 - 2 p . u of an estimate made from X alone, u its direction.

        It has the mean of `squared_error` and less variance, and is never below the Bayes act's.
        """
        return _expected(self.posterior(tokens), estimate)

    def errors(self, data: BasisTokens) -> dict[str, Float[np.ndarray, " sample"]]:
        """The error of each baseline on each input, to be compared in pairs: bayes, naive and
        threshold as `expected_error`, oracle, which sees more than X, as `squared_error`.
        """
        posterior = self.posterior(data.tokens)
        acts = {
            "bayes": unit(posterior),
            "naive": self.naive_mean(data.tokens),
            "threshold": self.threshold_mean(data.tokens),
        }
        oracle = squared_error(self.oracle_mean(data.tokens, data.relevant), data.label)
        return {name: _expected(posterior, act) for name, act in acts.items()} | {"oracle": oracle}

    def risks(self, count: int, generator: np.random.Generator) -> dict[str, MonteCarlo]:
        """The risk of each baseline by Monte Carlo, all over the same `count` inputs.

        Raises ValueError for count < 2, which has no standard error.
        """
        if count < 2:
            raise ValueError(
                f"a standard error needs at least 2 samples, got {count}: ask for more"
            )
        block = max(1, _BLOCK_BYTES // (8 * self.length * self.dim))
        parts = [
            self.errors(self.sample(min(block, count - start), generator))
            for start in range(0, count, block)
        ]
        return {
            name: monte_carlo(np.concatenate([part[name] for part in parts])) for name in parts[0]
        }

    def _check_tokens(self, tokens: np.ndarray) -> None:
        if tokens.ndim != 3 or tokens.shape[1:] != (self.length, self.dim):
            raise ValueError(
                f"tokens must have shape (sample, {self.length}, {self.dim}), got {tokens.shape}:"
                " match length and dim"
            )


def unit(vectors: Float[np.ndarray, "sample dim"]) -> Float[np.ndarray, "sample dim"]:
    """Vectors over their norms; zero, which has no direction, becomes (1, .., 1) / sqrt(dim).

    That is the best direction without a token. An error of ||y - 0||^2 = 1 in its place could be
    below that of the best unit vector, and so below the Bayes risk.

    >>> unit(np.array([[0.0, -2.0], [0.0, 0.0]])).round(3).tolist()
    [[0.0, -1.0], [0.707, 0.707]]
    """
    vectors = np.where((vectors == 0).all(1, keepdims=True), 1.0, vectors)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def squared_error(
    estimate: Float[np.ndarray, "sample dim"], label: Int[np.ndarray, " sample"]
) -> Float[np.ndarray, " sample"]:
    """||e_q - u||^2, u the direction of the estimate."""
    return ((unit(estimate) - np.eye(estimate.shape[1])[label]) ** 2).sum(1)


def _expected(posterior: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    return 2 - 2 * (posterior * unit(estimate)).sum(1)


def _mean_of(tokens: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return unit((tokens * chosen[..., None]).sum(1))  # a sum has the direction of its mean
