"""The statements of the SSA paper on cases of their own, as corrected where they need it."""

from typing import Any

import numpy as np
from scipy.special import expit, log_softmax

from analysis.properties.base import (
    EPS,
    Choice,
    Integer,
    Number,
    applies,
    at_most,
    collect,
    equal,
    exact,
    states,
)
from ssa_theory.theory.paper import (
    FAMILIES,
    POSITIVE,
    SIGNED,
    VANILLA,
    Imbalance,
    SparseScores,
    Temperatures,
    TwoTokens,
    always_consistent,
    best_schedule,
    consistent,
    consistent_by_search,
    first_contradiction,
    largest_weight_bound,
    least_loss,
    reachable_ratios,
    specificity_bound,
    specificity_norm,
)

_EXPRESSIVITY = "SSA paper: Lemma 1, Proposition 1"
_IMBALANCE = "SSA paper: Proposition 2"
_MAP = {
    "log_odds": Number(-9.0, 9.0, 0.0),
    "accuracy": Number(0.001, 1.0, 1.0),
    "rho": Number(-0.98, 0.98, 0.0),
}
_TEMPERATURES = Choice((VANILLA, POSITIVE, SIGNED, Temperatures(2.0)))
_COSINE = Number(-0.95, 0.95, 0.0)
_QUICK = Choice(tuple(name for name in FAMILIES if name != "asentmax"))


def _two_tokens(log_odds: float, accuracy: float, rho: float) -> tuple[TwoTokens, float]:
    """The map, and how far rounding carries a norm: through E^-1 twice."""
    gamma = float(expit(log_odds))
    task = TwoTokens(gamma, accuracy * min(gamma, 1 - gamma) / 2, rho)
    return task, 64 * EPS / (1 - rho**2)


@states(_EXPRESSIVITY, **_MAP, temperatures=_TEMPERATURES)
def paper_least_map(
    generator: np.random.Generator,
    log_odds: float,
    accuracy: float,
    rho: float,
    temperatures: Temperatures,
) -> None:
    """The map of least norm meets both rows of [[1 - gamma, gamma], [0, 1]] within eps with
    admitted temperatures, and a general solver's norm is no smaller and no larger.
    """
    task, rounding = _two_tokens(log_odds, accuracy, rho)
    least = task.least(temperatures)
    tau, embeddings = least.inverse_temperature, task.embeddings
    logits = tau[:, None] * (embeddings @ least.weight @ embeddings.T)
    target = np.array([[1 - task.gamma, task.gamma], [0.0, 1.0]])
    error = np.abs(np.exp(log_softmax(logits, 1)) - target)
    at_most(error, task.eps, rounding * np.abs(logits).max() / np.abs(tau).min(), "error of a row")
    norm = float(np.linalg.norm(least.weight, 2))
    equal(norm, least.norm, rounding * norm, "spectral norm, and the closed form")
    at_most(np.abs(tau), 1.0, 4 * EPS, "size of a temperature")
    at_most(1 / temperatures.ratio, np.abs(tau) * (1 + 8 * EPS), 0.0, "least size")
    exact(all(sign in temperatures.signs for sign in np.sign(tau)), "signs are admitted")
    equal(task.solved_norm(temperatures), norm, 1e-7 * norm, "norm by a general solver")


@states(_EXPRESSIVITY, **_MAP, dim=Integer(2, 5), log_tau=Number(-2.0, 2.0, 0.0))
def paper_expressivity_bounds(
    generator: np.random.Generator,
    log_odds: float,
    accuracy: float,
    rho: float,
    dim: int,
    log_tau: float,
) -> None:
    """No W that meets the map within eps, and no W with temperatures, has a smaller effective norm
    than the exact minimum, which is at least sqrt(2) times Proposition 1's bound.
    """
    task, rounding = _two_tokens(log_odds, accuracy, rho)
    low, high, least = task.log_odds
    rotation = np.linalg.qr(generator.standard_normal((dim, dim)))[0]
    embeddings = task.embeddings @ rotation[:2]
    odds = np.array([generator.uniform(low, high), -least - generator.exponential()])
    shifts = generator.standard_normal(2)
    signs = generator.choice([-1.0, 1.0], 2)
    for tau, temperatures in (
        (np.ones(2), VANILLA),
        (np.exp([log_tau, 0.0]), POSITIVE),
        (signs * np.exp([log_tau, 0.0]), SIGNED),
    ):
        inverse = np.linalg.pinv(embeddings)
        outside = np.eye(dim) - inverse @ embeddings
        logits = np.stack([odds / tau + shifts, shifts], 1)
        weight = inverse @ logits @ inverse.T + outside @ generator.standard_normal((dim, dim))
        norm = float(np.abs(tau).max() * np.linalg.norm(weight, 2))
        at_most(task.least(temperatures).norm, norm, rounding * norm, "least norm, and another")
    vanilla = task.least(VANILLA).norm
    bound = np.sqrt(2) * task.lower_bound
    at_most(bound, vanilla, rounding * vanilla, "sqrt(2) times the bound")
    at_most(task.least(POSITIVE).norm, vanilla, rounding * vanilla, "norm with temperatures")
    signed = task.least(SIGNED).norm
    at_most(signed, task.least(POSITIVE).norm, rounding * vanilla, "norm with either sign")
    at_most(least / task.distance, signed, rounding * signed, "norm of the sharp row alone")


@states(_EXPRESSIVITY, dim=Integer(2, 6), rho=_COSINE, length=Number(0.2, 3.0, 1.0))
def paper_specificity(generator: np.random.Generator, dim: int, rho: float, length: float) -> None:
    """A W that treats two queries with the specificities L_a >= L_b has at least the norm of Lemma
    1, and for unit queries at least the exact least norm.
    """
    weight = generator.standard_normal((dim, dim))
    rotation = np.linalg.qr(generator.standard_normal((dim, dim)))[0][:2]
    pair = np.array([[1.0, 0.0], [rho, np.sqrt(1 - rho**2)]]) @ rotation
    norm = float(np.linalg.norm(weight, 2))
    slack = 64 * dim * EPS * norm / (1 - rho**2)
    blunt, sharp = sorted(np.linalg.norm(pair @ weight, axis=1).tolist())
    bound = specificity_bound(sharp, blunt, float(np.linalg.norm(pair[0] - pair[1])))
    at_most(bound, specificity_norm(sharp, blunt, rho), slack, "bound, and the least norm")
    at_most(specificity_norm(sharp, blunt, rho), norm, slack, "least norm, and that of W")
    pair = pair * np.array([[length], [1.0]])
    blunt, sharp = sorted(np.linalg.norm(pair @ weight, axis=1).tolist())
    bound = specificity_bound(sharp, blunt, float(np.linalg.norm(pair[0] - pair[1])))
    at_most(bound, norm, slack * length, "bound for queries of any length")


@states(
    "SSA paper: dilution",
    length=Integer(1, 60),
    dim=Integer(1, 6),
    log_norm=Number(-3.0, 3.0, 0.0),
)
def paper_dilution(generator: np.random.Generator, length: int, dim: int, log_norm: float) -> None:
    """No softmax weight over L unit keys exceeds 1 / (1 + (L - 1) exp(-2 ||W||)), which a key
    opposite to all others attains.
    """
    weight = generator.standard_normal((dim, dim))
    norm = float(np.exp(log_norm))
    weight *= norm / np.linalg.norm(weight, 2)
    rows = generator.standard_normal((length + 1, dim))
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    bound, slack = largest_weight_bound(length, norm), 16 * (dim + length) * EPS * (1 + norm)
    largest = np.exp(log_softmax(rows[0] @ weight @ rows[1:].T).max())
    at_most(largest, bound, slack * bound, "largest weight")
    left, _, right = np.linalg.svd(weight)
    keys = right[0] * np.append(1.0, -np.ones(length - 1))[:, None]
    tight = np.exp(log_softmax(left[:, 0] @ weight @ keys.T)[0])
    equal(tight, bound, slack * bound, "weight of a key opposite to all others")


_SEQUENCE = {
    "length": Integer(2, 80),
    "share": Number(0.05, 0.95, 0.5),
    "alpha": Number(0.05, 0.95, 0.5),
    "cosine": _COSINE,
}


def _sequence(
    generator: np.random.Generator, length: int, share: float, alpha: float, cosine: float
) -> Imbalance:
    is_a = generator.random(length) < share
    is_a[:2] = generator.permutation([True, False])
    return Imbalance.of_tokens(is_a, alpha, cosine)


@states(_IMBALANCE, **_SEQUENCE)
def paper_zero_loss(generator: np.random.Generator, **law: Any) -> None:
    """The schedule log kappa_n + log(alpha / (1 - alpha)) has no loss with both margins at one, nor
    has any multiple of it with the margins divided.
    """
    task = _sequence(generator, **law)
    factor = float(np.exp(generator.uniform(-3, 3)))
    slack = (16 * EPS * (1 + np.abs(task.log_odds).max())) ** 2
    loss = task.loss(factor * task.log_odds, np.full(2, 1 / factor))
    equal(loss, 0.0, slack, "loss of the schedule")


@states(_IMBALANCE, **_SEQUENCE, family=_QUICK)
def paper_best_schedule(generator: np.random.Generator, family: str, **law: Any) -> None:
    """No parameters and margins of a schedule's family have a smaller loss than its best, which is
    a stationary point.
    """
    task = _sequence(generator, **law)
    own = FAMILIES[family]
    best = best_schedule(task, own)
    slack = 1e-12 + 1e-9 * best.loss
    loss = task.loss(best.inverse_temperature, best.margins)
    equal(loss, best.loss, slack, "loss of the best schedule, and the loss it says")
    at_most(best.loss, best.grid_loss, slack, "best loss, and the grid's")
    at_most(best.gradient, 1e-5, 0.0, "gradient")
    for _ in range(20):
        theta = np.array([generator.uniform(grid[0], grid[-1]) for grid in own.grid])
        tau = own.schedule(task.count, theta)
        scale = generator.choice([1e-3, 0.1, 1.0]) * generator.standard_normal(2)
        near = best.margins * np.linalg.norm(best.inverse_temperature) / np.linalg.norm(tau)
        for margins in (near + scale, near * (1 + scale)):
            at_most(best.loss, task.loss(tau, margins), slack, "best loss, and another")


@states(_IMBALANCE, length=Integer(1, 120), late_ratio=Integer(1, 8))
def paper_hypotheses(generator: np.random.Generator, length: int, late_ratio: int) -> None:
    """A sequence meets the hypotheses of the converse where the inequality of counts says so; from
    some length on none does, or one of every length.
    """
    valid = consistent_by_search(length, late_ratio)
    exact(consistent(length, late_ratio) == valid, "inequality and search agree")
    exact(not valid or length < first_contradiction(late_ratio), "no length beyond")
    exact(valid or length < always_consistent(late_ratio), "every length beyond")
    is_a = generator.random(3 * length) < generator.uniform(0, 1)
    is_a[0] = True
    first, last = np.sort(generator.integers(1, 3 * length + 1, 2))
    ratio = [(n - is_a[:n].sum()) / is_a[:n].sum() for n in (first, last)]
    low, high = reachable_ratios(float(ratio[0]), last / first)
    slack = 16 * EPS * (1 + ratio[1])
    at_most(low, ratio[1], slack, "least ratio that can be reached")
    at_most(ratio[1], high, slack, "ratio, and the largest that can be reached")


@states(_IMBALANCE, length=Integer(5, 24), late_ratio=Choice((3, 4, 2)))
def paper_converse(generator: np.random.Generator, length: int, late_ratio: int) -> None:
    """No sequence that meets the hypotheses of the converse, and no two margins, have a loss below
    the certified least one, which its own sequence attains.
    """
    applies(consistent(length, late_ratio))
    least = least_loss(length, late_ratio, 1e-3)
    constant = np.ones(length)
    own = Imbalance.of_tokens(least.is_a).loss(constant, least.margins) / 2
    equal(own, least.upper, 64 * EPS, "loss of the best sequence")
    exact(_valid(least.is_a, late_ratio), "the best sequence meets the hypotheses")
    is_a = least.is_a.copy()
    for _ in range(30):
        i = int(generator.integers(length - 1))
        other = is_a.copy()
        other[i : i + 2] = other[[i + 1, i]]
        is_a = other if _valid(other, late_ratio) else is_a
        margins = least.margins + 0.2 * generator.standard_normal(2)
        loss = Imbalance.of_tokens(is_a).loss(constant, margins) / 2
        at_most(least.lower, loss, 0.0, "certified least loss, and another")


def _valid(is_a: np.ndarray, late_ratio: int) -> bool:
    """Whether a sequence meets the hypotheses, position by position."""
    length, a = len(is_a), np.cumsum(is_a)
    n = np.arange(1, length + 1)
    early, late, b = (4 * n >= length) & (2 * n <= length), 4 * n >= 3 * length, n - a
    balanced = (a <= b) & (b <= 2 * a) & (a > 0)
    return bool(balanced[early].all() and ((b >= late_ratio * a) & (a > 0))[late].all())


@states(
    "SSA paper: Lemma 2",
    high=Integer(1, 30),
    low=Integer(1, 200),
    kept=Number(0.0, 1.0, 0.5),
    slope=Number(0.0, 2.0, 0.5),
    gap=Number(0.1, 4.0, 1.0),
)
def paper_kept_share(
    generator: np.random.Generator, high: int, low: int, kept: float, slope: float, gap: float
) -> None:
    """A temperature 1 + alpha log n gives the largest weight that keeping the share s + (1 - s)
    n^(-alpha gamma) of two-level scores gives, s the share of high ones.
    """
    n = high + low
    scores = SparseScores(n, slope, gap, float(-np.log(high / n) / np.log(n)))
    tau, rest = float(1 + slope * np.log(n)), round(kept * low)
    rows = (
        (tau, low, scores.log_largest_weight(1.0, tau)),
        (1.0, rest, scores.log_largest_weight((high + rest) / n, 1.0)),
    )
    slack = 64 * n * EPS
    for temperature, count, weight in rows:
        row = temperature * np.append(np.full(high, gap), np.zeros(count))
        equal(weight, log_softmax(row)[0], slack, "log of the largest weight")
    reached = scores.log_largest_weight(scores.kept_share, 1.0)
    equal(reached, rows[0][2], slack, "log of the largest weight at the kept share")
    equal(scores.solved_share, scores.kept_share, 1e-9, "share by root finding")


PROPERTIES = collect(globals())
