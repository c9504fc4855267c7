"""Single-location regression: one token of L, which carries a mark, decides the answer."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from tasks.sampling import check_count, uniform_choice


@dataclass(frozen=True, eq=False)
class LocationSample:
    """Contexts, the location of the token that counts, and the answers."""

    tokens: Float[np.ndarray, "sample length dim"]
    location: Int[np.ndarray, " sample"]
    target: Float[np.ndarray, " sample"]


@dataclass(frozen=True)
class LocationTask:
    """L tokens x_j ~ N(0, I), but for one at a uniform location J, which is moved by m k; the answer
    is y = v . x_J + sigma e, e ~ N(0, 1).

    The mark k and the direction v are orthogonal unit vectors, here the first two axes. After
    arXiv 2410.01537 (and 2509.21936), with equal variances: then the densities of x_j with and
    without the mark differ by a factor exp(m k . x_j - m^2 / 2), and the posterior

        P(J = j | X) = softmax_j(m k . x_j),    E[y | X] = sum_j P(J = j | X) v . x_j

    is one layer of softmax attention with a constant query. No mechanism can be better, and none
    needs to be: a control. Given X the variance of y is sigma^2 + sum_j P_j (v . x_j)^2 - E[y |
    X]^2; the risks of estimates are E (y - y_hat)^2.

    Fields: dim, d >= 2; length, L; mark, m; noise, sigma. Raises ValueError for dim < 2, length <
    1, a mark that is negative or noise that is, or is not finite.

    >>> LocationTask(length=4, noise=0.5).zero_risk, LocationTask(length=4).naive_risk
    (1.25, 0.75)
    """

    dim: int = 4
    length: int = 8
    mark: float = 3.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name, size, least in (("dim", self.dim, 2), ("length", self.length, 1)):
            if size < least:
                raise ValueError(
                    f"{name} must be at least {least}, got {size}: choose {name} >= {least}"
                )
        for name, value in (("mark", self.mark), ("noise", self.noise)):
            if not 0 <= value < np.inf:
                raise ValueError(
                    f"{name} must be finite and at least 0, got {value}: choose another {name}"
                )

    @property
    def zero_risk(self) -> float:
        """Of the estimate zero, 1 + sigma^2: the best constant."""
        return 1 + self.noise**2

    @property
    def naive_risk(self) -> float:
        """1 - 1/L + sigma^2: of v . mean_j x_j, the best estimate that treats all tokens alike."""
        return 1 - 1 / self.length + self.noise**2

    @property
    def oracle_risk(self) -> float:
        """sigma^2: of v . x_J, by one who knows the location."""
        return self.noise**2

    def sample(self, count: int, generator: np.random.Generator) -> LocationSample:
        """Independent contexts. Each uses the same number of normals, so drawing n and then m gives
        the n + m at once. Raises ValueError for count < 1.
        """
        check_count(count, "samples")
        normal = generator.standard_normal((count, 2 + self.length * self.dim))
        location = uniform_choice(normal[:, 0], self.length)
        tokens = normal[:, 2:].reshape(count, self.length, self.dim)
        row = np.arange(count)
        tokens[row, location, 0] += self.mark
        return LocationSample(
            tokens, location, tokens[row, location, 1] + self.noise * normal[:, 1]
        )

    def posterior(
        self, tokens: Float[np.ndarray, "sample length dim"]
    ) -> Float[np.ndarray, "sample length"]:
        """P(J = j | X)."""
        return softmax(self.mark * tokens[:, :, 0], axis=1)

    def bayes(self, tokens: Float[np.ndarray, "sample length dim"]) -> Float[np.ndarray, " sample"]:
        """E[y | X]."""
        return (self.posterior(tokens) * tokens[:, :, 1]).sum(1)

    def variance(
        self, tokens: Float[np.ndarray, "sample length dim"]
    ) -> Float[np.ndarray, " sample"]:
        """Var(y | X), the risk of Bayes given X."""
        second = (self.posterior(tokens) * tokens[:, :, 1] ** 2).sum(1)
        return second - self.bayes(tokens) ** 2 + self.noise**2
