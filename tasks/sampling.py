"""What the samplers of several tasks share: laws from uniforms and normals, and Monte Carlo."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtr


@dataclass(frozen=True)
class MonteCarlo:
    """A mean over independent samples with its standard error."""

    value: float
    error: float


def monte_carlo(values: Float[np.ndarray, " sample"]) -> MonteCarlo:
    """The mean of independent values; the error of a single one is infinite.

    >>> monte_carlo(np.array([1.0, 3.0]))
    MonteCarlo(value=2.0, error=1.0)
    """
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.inf
    return MonteCarlo(float(values.mean()), error)


def invert(
    cumulative: Float[np.ndarray, "*sample option"], uniform: Float[np.ndarray, " draw"]
) -> Int[np.ndarray, " draw"]:
    """The index whose step of an unnormalised cumulative law covers each uniform; never one of zero
    weight.

    The law is one for all draws, or has a row for each.
    """
    level = uniform[:, None] * cumulative[..., -1:]
    return (cumulative <= level).sum(-1)


def uniform_choice(normal: Float[np.ndarray, " draw"], options: int) -> Int[np.ndarray, " draw"]:
    """Uniform over 0 .. options - 1 from standard normals: Phi(normal) is uniform on (0, 1)."""
    return np.minimum((ndtr(normal) * options).astype(np.int64), options - 1)


def check_count(count: int, what: str) -> None:
    """Raises ValueError for a number of `what` below 1."""
    if count < 1:
        raise ValueError(
            f"the number of {what} must be at least 1, got {count}: ask for one or more"
        )
