"""Two tokens in growing imbalance: the zero-loss schedule of arXiv 2411.12892, Proposition 2, and
the least loss that any other schedule of inverse temperatures can reach.

Tokens are unit vectors a and b with a.b = r. At position n the keys hold n_a copies of a and n_b of
b, kappa_n = n_b / n_a, and the target is alpha a + (1 - alpha) b. All copies of a token share a
logit, so that only the margin m of a over b matters: m_a where the query is a, else m_b. With

    w_n = 1 / (1 + kappa_n exp(-tau_n m))

the attention on a, the loss is the mean of (w_n - alpha)^2 ||a - b||^2. For linearly independent a
and b any two margins are some W's, which leaves a minimisation over the schedule's parameters and
two numbers: no training. A factor on tau is a factor on the margins, so that schedules count only
up to scale.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import final

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import least_squares
from scipy.special import expit, logit

from ssa_theory.theory.paper.schedules import Family


@final
@dataclass(frozen=True, eq=False)
class Imbalance:
    """A sequence of two tokens, as far as the loss depends on it.

    count: n, the number of keys by position; ratio: kappa_n; query_a: whether the query is a;
    alpha: in (0, 1); cosine: r, in (-1, 1). A position where only one token was seen (kappa of 0 or
    infinity) has that token as its target and costs nothing. Raises ValueError otherwise.
    """

    count: Float[np.ndarray, " position"]
    ratio: Float[np.ndarray, " position"]
    query_a: Bool[np.ndarray, " position"]
    alpha: float = 0.5
    cosine: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(
                f"alpha must be in (0, 1), got {self.alpha}: it is the share of token a"
            )
        if not -1 < self.cosine < 1:
            raise ValueError(
                f"the cosine of a and b must be in (-1, 1), got {self.cosine}: they must be "
                "linearly independent"
            )
        if not len(self.count) == len(self.ratio) == len(self.query_a) > 0:
            raise ValueError(
                f"count, ratio and query_a must have one entry a position, got {len(self.count)}, "
                f"{len(self.ratio)} and {len(self.query_a)}: align them"
            )
        if not ((self.ratio >= 0).all() and (self.count >= 1).all()):
            raise ValueError(
                f"ratios must be at least 0 and counts at least 1, got {self.ratio.min()} and "
                f"{self.count.min()}: count the keys, the query's own included"
            )

    @classmethod
    def of_tokens(
        cls, is_a: Bool[np.ndarray, " position"], alpha: float = 0.5, cosine: float = 0.0
    ) -> "Imbalance":
        """Every position of a sequence, whose query is its last token. is_a: which tokens are a."""
        count, share = np.arange(1.0, len(is_a) + 1), np.cumsum(is_a, dtype=np.float64)
        with np.errstate(divide="ignore"):
            return cls(count, (count - share) / share, np.asarray(is_a), alpha, cosine)

    @property
    def distance_squared(self) -> float:
        """||a - b||^2 = 2 - 2 r."""
        return 2 - 2 * self.cosine

    @property
    def balanced(self) -> Bool[np.ndarray, " position"]:
        """The positions with a loss: both tokens were seen."""
        return (self.ratio > 0) & np.isfinite(self.ratio)

    @property
    def log_odds(self) -> Float[np.ndarray, " position"]:
        """log kappa_n + log(alpha / (1 - alpha)): the tau_n m without loss; 0 where there is none.

        With both margins at 1, that is with W such that a^T W (a - b) = b^T W (a - b) = 1, this is
        Proposition 2's schedule. It is negative where kappa_n < (1 - alpha) / alpha.
        """
        ratio = np.where(self.balanced, self.ratio, 1.0)
        return np.where(self.balanced, np.log(ratio) + logit(self.alpha), 0.0)

    def loss(
        self,
        inverse_temperature: Float[np.ndarray, " position"],
        margins: Float[np.ndarray, " 2"],
    ) -> float:
        """The mean over all positions of (w_n - alpha)^2 ||a - b||^2; margins: (m_a, m_b)."""
        margin = np.where(self.query_a, margins[0], margins[1])
        ratio = np.where(self.balanced, self.ratio, 1.0)
        weight = expit(inverse_temperature * margin - np.log(ratio))  # 1 / (1 + kappa e^(-tau m))
        error = np.where(self.balanced, weight - self.alpha, 0.0)
        return float(np.mean(error**2)) * self.distance_squared


@final
@dataclass(frozen=True, eq=False)
class BestSchedule:
    """The least loss of a family, and where.

    loss: the minimum. parameters: theta; margins: (m_a, m_b), 0 for a token that is never the
    query; inverse_temperature: tau_n. The certificate: gradient, the largest partial derivative of
    the loss that does not push against a bound of theta, with tau scaled to a mean square of 1;
    grid_loss, the best of the grid, which the loss does not exceed. at_bound: whether a parameter
    ends at a bound, beyond which the family may go on.
    """

    loss: float
    parameters: Float[np.ndarray, " parameter"]
    margins: Float[np.ndarray, " 2"]
    inverse_temperature: Float[np.ndarray, " position"]
    gradient: float
    grid_loss: float
    at_bound: bool


def best_schedule(task: Imbalance, family: Family, starts: int = 6) -> BestSchedule:
    """The least loss over a family's parameters and both margins.

    For given parameters the loss separates into a function of each margin. Its every term is least
    at its own m_n = (log kappa_n + logit alpha) / tau_n and monotone on both sides, so that the
    best margin lies between the least and the largest m_n: a grid of that interval, for each point
    of the grid of parameters, finds the basin. The `starts` best points are refined together in all
    parameters by bounded least squares, and the best of these again, to the last digit.

    Raises ValueError for a schedule that is not finite on the grid.
    """
    keep = task.balanced
    if not keep.any():
        raise ValueError(
            "a schedule needs positions where both tokens were seen, got none: use more tokens"
        )
    wanted, query_a = task.log_odds[keep], task.query_a[keep]
    shift, size = float(logit(task.alpha)), task.distance_squared / len(task.count)
    lower = np.array([values[0] for values in family.grid] + [-np.inf] * 2)
    upper = np.array([values[-1] for values in family.grid] + [np.inf] * 2)

    def scaled(theta: np.ndarray) -> tuple[np.ndarray, float]:
        tau = np.asarray(family.schedule(task.count, theta), np.float64)[keep]
        if not np.isfinite(tau).all():
            raise ValueError(
                f"a schedule must be finite, got {tau[~np.isfinite(tau)][0]} at parameters "
                f"{theta.tolist()}: choose another grid"
            )
        scale = float(np.sqrt(np.mean(tau**2))) or 1.0
        return tau / scale, scale

    def errors(x: np.ndarray) -> np.ndarray:
        tau, _ = scaled(x[:-2])
        return expit(tau * np.where(query_a, x[-2], x[-1]) - wanted + shift) - task.alpha

    def loss(x: np.ndarray) -> float:
        return size * float(np.sum(errors(x) ** 2))

    def refined(x: np.ndarray, tolerance: float) -> np.ndarray:
        bounds, given = (lower, upper), (tolerance, tolerance, tolerance)
        return least_squares(errors, x, "3-point", bounds, "dogbox", *given).x

    grid = np.array(list(product(*family.grid)))
    taus = np.array([scaled(theta)[0] for theta in grid])
    margins, costs = zip(
        *(_best_margins(taus[:, q], wanted[q], task.alpha) for q in (query_a, ~query_a)),
        strict=True,
    )
    points = np.column_stack([grid, *margins])[np.argsort(sum(costs), kind="stable")]
    grid_loss, best = loss(points[0]), points[0]
    rough = [refined(point, 1e-8) for point in points[:starts]]
    best = min([best, *(refined(x, 1e-15) for x in sorted(rough, key=loss)[:1])], key=loss)
    free = _slope(errors, best, lower, upper)
    free[(best <= lower) & (free > 0) | (best >= upper) & (free < 0)] = 0
    theta = best[:-2]
    _, scale = scaled(theta)
    return BestSchedule(
        loss(best),
        theta,
        best[-2:] / scale,
        np.asarray(family.schedule(task.count, theta), np.float64),
        float(np.abs(2 * size * free).max()),
        grid_loss,
        bool(((theta <= lower[:-2]) | (theta >= upper[:-2])).any()),
    )


def _best_margins(
    tau: Float[np.ndarray, "point position"], wanted: Float[np.ndarray, " position"], alpha: float
) -> tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]:
    """For each tau the best margin of a grid between the least and the largest m_n, denser where
    there are many; and the sum of squares there. A tau of 0 has no m_n, and counts as one at 0.
    """
    if not len(wanted):
        return np.zeros(len(tau)), np.zeros(len(tau))
    single = np.divide(wanted, tau, out=np.zeros_like(tau), where=tau != 0)
    even = np.linspace(single.min(1), single.max(1), 97)
    grid = np.concatenate([even, np.quantile(single, np.linspace(0, 1, 33), axis=1)])
    shifted = wanted - logit(alpha)
    cost = np.array([((expit(m[:, None] * tau - shifted) - alpha) ** 2).sum(1) for m in grid])
    place, each = cost.argmin(0), np.arange(len(tau))
    return grid[place, each], cost[place, each]


def _slope(
    errors: Callable[[np.ndarray], np.ndarray], x: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """Half the gradient of the sum of squares, by differences that stay within the bounds."""
    slope, at = np.zeros_like(x), errors(x)
    for i in range(len(x)):
        ends = [x.copy(), x.copy()]
        ends[0][i], ends[1][i] = max(x[i] - 1e-6, lower[i]), min(x[i] + 1e-6, upper[i])
        slope[i] = at @ (errors(ends[1]) - errors(ends[0])) / (ends[1][i] - ends[0][i])
    return slope
