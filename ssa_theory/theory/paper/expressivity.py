"""What norm a sharp and a blunt query cost: Lemma 1, Proposition 1 and the dilution bound of arXiv
2411.12892, each with the exact minimum beside the printed bound.

A query e_i attends to keys e_j with logits tau_i e_i^T W e_j. The norm that counts is the effective
one, max_i |tau_i| times the spectral norm ||W||; it is ||W|| for vanilla attention, where every tau
is 1.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import logit, softmax

from ssa_theory.theory.dilution import bounded_needle_mass


def specificity_bound(sharp: float, blunt: float, distance: float) -> float:
    """Lemma 1: ||W|| >= (L_a - L_b) / ||a - b|| where ||W^T a|| >= L_a and ||W^T b|| <= L_b.

    sharp: L_a; blunt: L_b; distance: ||a - b||. By the triangle inequality, for any a and b. Raises
    ValueError unless L_a >= L_b >= 0 and the distance is positive.
    """
    _check_specificities(sharp, blunt)
    if not distance > 0:
        raise ValueError(
            f"the distance of the queries must be positive, got {distance}: use two queries"
        )
    return (sharp - blunt) / distance


def specificity_norm(sharp: float, blunt: float, rho: float) -> float:
    """The least ||W|| of Lemma 1 for unit queries a and b with a.b = rho:

        sqrt((L_a^2 + s^2 - 2 rho L_a s) / (1 - rho^2)),    s = rho L_a clipped to [-L_b, L_b].

    With u the direction of W^T a any W is at least as long as W u, which has to meet a at L_a or
    more and b within L_b; the shortest such vector is a least-squares solution, and W = y u^T
    attains it. SSA needs an effective norm of L_a only: W = L_a I, tau_a = 1, tau_b = L_b / L_a.
    Arguments and errors as in `specificity_bound`, and for rho outside (-1, 1).
    """
    _check_specificities(sharp, blunt)
    _check_rho(rho)
    share = min(max(rho * sharp, -blunt), blunt)
    return math.sqrt((sharp**2 + share**2 - 2 * rho * sharp * share) / (1 - rho**2))


@final
@dataclass(frozen=True)
class Temperatures:
    """Which inverse temperatures queries may have: signs times a number in [1 / ratio, 1].

    ratio: the largest over the smallest, 1 for vanilla attention; signs: 1, or 1 and -1.
    """

    ratio: float = 1.0
    signs: tuple[int, ...] = (1,)

    def reach(self, low: float, high: float) -> Iterator[tuple[int, float, float]]:
        """(sign, least, largest): the values of e.z with sign tau e.z in [low, high] for some
        admitted tau.
        """
        low = low * self.ratio if low < 0 else low
        high = high * self.ratio if high > 0 else high
        for sign in self.signs:
            least, largest = sorted((sign * low, sign * high))
            yield sign, least, largest


VANILLA = Temperatures()
POSITIVE = Temperatures(math.inf)
SIGNED = Temperatures(math.inf, (1, -1))


@final
@dataclass(frozen=True, eq=False)
class LeastMap:
    """A W of least effective norm. weight: W; inverse_temperature: tau by query, of size at most 1;
    norm: ||W||.
    """

    weight: Float[np.ndarray, "2 2"]
    inverse_temperature: Float[np.ndarray, " 2"]
    norm: float


@final
@dataclass(frozen=True)
class TwoTokens:
    """Proposition 1's map: two unit tokens with e1.e2 = rho, and the transitions [[1 - gamma,
    gamma], [0, 1]], to be met within eps in every entry.

    gamma: in (0, 1); eps: 0 < eps <= min(gamma, 1 - gamma) / 2; rho: in (-1, 1). Raises ValueError
    otherwise.
    """

    gamma: float
    eps: float
    rho: float

    def __post_init__(self) -> None:
        if not 0 < self.gamma < 1:
            raise ValueError(f"gamma must be in (0, 1), got {self.gamma}: it is a probability")
        if not 0 < self.eps <= min(self.gamma, 1 - self.gamma) / 2:
            raise ValueError(
                f"eps must be positive and at most min(gamma, 1 - gamma) / 2 = "
                f"{min(self.gamma, 1 - self.gamma) / 2:g}, got {self.eps}: choose a smaller error"
            )
        _check_rho(self.rho)

    @property
    def embeddings(self) -> Float[np.ndarray, "2 2"]:
        """e1 and e2, as rows."""
        return np.array([[1.0, 0.0], [self.rho, math.sqrt((1 - self.rho) * (1 + self.rho))]])

    @property
    def distance(self) -> float:
        """||e1 - e2||."""
        return math.sqrt(2 - 2 * self.rho)

    @property
    def log_odds(self) -> tuple[float, float, float]:
        """(low, high, least): the first row's log-odds of token 1 lie in [low, high], and the
        second row's log-odds of token 2 are at least `least`, which no edge of [low, high] exceeds.
        """
        stay = 1 - self.gamma
        return (
            float(logit(stay - self.eps)),
            float(logit(stay + self.eps)),
            math.log1p(-self.eps) - math.log(self.eps),
        )

    @property
    def lower_bound(self) -> float:
        """The printed bound: ||W|| >= (log(1 / (4 eps)) - G) / (||e1 - e2|| sqrt(2 - 2 rho^2)), G =
        |log((1 - gamma) / gamma)|.
        """
        return (-math.log(4 * self.eps) - self._sharpness) / (
            self.distance * math.sqrt(2 - 2 * self.rho**2)
        )

    @property
    def converse_bound(self) -> float:
        """The effective norm that is printed as enough for SSA: max(log(1 / eps), G / sqrt(1 -
        rho^2)) / ||e1 - e2||.
        """
        blunt = self._sharpness / math.sqrt(1 - self.rho**2)
        return max(-math.log(self.eps), blunt) / self.distance

    @property
    def _sharpness(self) -> float:
        return abs(float(logit(self.gamma)))

    def least(self, temperatures: Temperatures = VANILLA) -> LeastMap:
        """The exact minimum: ||W|| = sqrt((g1^2 + g2^2 + 2 rho g1 g2) / (1 - rho^2)) / ||e1 - e2||.

        Only z = W (e1 - e2) decides the rows, so that ||W|| >= ||z|| / ||e1 - e2||, and W = z (e1 -
        e2)^T / ||e1 - e2||^2 attains it. g1 = e1.z lies where the first row's log-odds are met by
        an admitted temperature, g2 = -e2.z at its least value, and ||z||^2 is convex in both: g1 is
        -rho g2, or the admitted value next to it. A common sign of both temperatures is a sign of
        W, so the second is positive.
        """
        low, high, least = self.log_odds
        choices = []
        for sign, smallest, largest in temperatures.reach(low, high):
            first = min(max(-self.rho * least, smallest), largest)
            squared = (first**2 + least**2 + 2 * self.rho * first * least) / (1 - self.rho**2)
            odds = min(max(sign * first, low), high)
            choices.append((squared, first, odds / first if first else float(sign)))
        squared, first, tau = min(choices)
        embeddings = self.embeddings
        weight = np.outer(
            np.linalg.solve(embeddings, [first, -least]), (embeddings[0] - embeddings[1])
        )
        return LeastMap(
            weight / self.distance**2, np.array([tau, 1.0]), math.sqrt(squared) / self.distance
        )

    def solved_norm(self, temperatures: Temperatures = VANILLA) -> float:
        """The same minimum by a general solver: the spectral norm over all of W and u1 = 1 /
        |tau_1|, the log-odds as linear constraints, by sequential quadratic programming for each
        sign of tau_1.
        """
        (first, second), (low, high, least) = self.embeddings, self.log_odds
        apart = first - second

        def spectral(x: np.ndarray) -> tuple[float, np.ndarray]:
            left, values, right = np.linalg.svd(x[:4].reshape(2, 2))
            return values[0], np.append(np.outer(left[:, 0], right[0]), 0.0)

        norms = []
        for sign in temperatures.signs:
            row = sign * np.outer(first, apart).ravel()
            rules = np.array(
                [[*row, -low], [*-row, high], [*-np.outer(second, apart).ravel(), 0.0]]
            )
            slack = np.array([0.0, 0.0, least])
            solution = minimize(
                spectral,
                np.append(np.eye(2), 1.0),
                jac=True,
                method="SLSQP",
                bounds=[(None, None)] * 4 + [(1.0, temperatures.ratio)],
                constraints={
                    "type": "ineq",
                    "fun": lambda x, a=rules, c=slack: a @ x - c,
                    "jac": lambda x, a=rules: a,
                },
                options={"ftol": 1e-15},
            )
            norms.append(spectral(solution.x)[0])
        return float(min(norms))


def largest_weight_bound(length: int, norm: float) -> float:
    """The dilution bound: for a unit query no softmax weight over L unit keys exceeds

        1 / (1 + (L - 1) e^(-2 ||W||)).

    `attained_weight` attains it. Raises ValueError for L < 1 or a negative norm.
    """
    return float(bounded_needle_mass(length, 1.0, 1, norm, norm)[1])


def attained_weight(length: int, norm: float) -> float:
    """The largest weight of the case that attains the dilution bound, from its scores: a query and
    a key u, L - 1 keys -u, and W = ||W|| u u^T.
    """
    return float(softmax(norm * np.append(1.0, -np.ones(length - 1)))[0])


def dilution_norm(length: int, weight: float) -> float:
    """The least ||W|| that lets a key among L hold `weight`: (log(L - 1) + logit(weight)) / 2, and
    0 for weight <= 1 / L.

    Raises ValueError for L < 2 or a weight outside (0, 1).
    """
    if not length >= 2:
        raise ValueError(f"dilution needs at least 2 keys, got {length}: use longer rows")
    if not 0 < weight < 1:
        raise ValueError(f"the weight must be in (0, 1), got {weight}: choose 0.5, say")
    return max(0.0, (math.log(length - 1) + float(logit(weight))) / 2)


def _check_specificities(sharp: float, blunt: float) -> None:
    if not math.inf > sharp >= blunt >= 0:
        raise ValueError(
            f"specificities must be finite with sharp >= blunt >= 0, got {sharp} and {blunt}: "
            "name the sharper query first"
        )


def _check_rho(rho: float) -> None:
    if not -1 < rho < 1:
        raise ValueError(
            f"rho must be in (-1, 1), got {rho}: the two tokens must be linearly independent"
        )
