"""Dilution: how much attention needles keep among distractors."""

import numpy as np
from scipy.special import log_softmax

from analysis.properties.base import (
    EPS,
    Integer,
    Number,
    Row,
    at_most,
    collect,
    equal,
    exact,
    states,
)
from ssa_theory.theory import dilution as theory

_SOURCE = "SSA paper: dilution; random-energy model (Derrida 1981)"
_NEEDLES, _GAP = Integer(1, 5), Number(-3.0, 8.0, 1.0)


def _row(
    needles: int, gap: float, distractors: np.ndarray, tau: float
) -> tuple[float, float, float]:
    """(needle mass, entropy, largest weight) of the explicit row."""
    log_p = log_softmax(tau * np.concatenate([np.full(needles, gap), distractors]))
    return (
        float(np.exp(log_p[:needles]).sum()),
        float(-(np.exp(log_p) * log_p).sum()),
        float(np.exp(log_p.max())),
    )


def _rounding(n: int, logit: float) -> float:
    """How far rounding moves a log-weight of one of n keys whose logits reach `logit`: eight
    roundings, and one a key.
    """
    return EPS * (8 * (1 + logit + np.log(n)) + n)


@states(_SOURCE, needles=_NEEDLES, rest=Integer(1, 60), tau=Number(0.0, 30.0, 1.0), gap=_GAP)
def equal_needles(
    generator: np.random.Generator, needles: int, rest: int, tau: float, gap: float
) -> None:
    """Among n - m equal distractors, m needles of gap g hold the mass m exp(tau g) / (m exp(tau g)
    + n - m).
    """
    n = needles + rest
    mass, entropy, _ = _row(needles, gap, np.zeros(rest), tau)
    slack = _rounding(n, tau * abs(gap))
    equal(theory.equal_needle_mass(n, tau, needles, gap), mass, slack * mass, "mass on the needles")
    equal(theory.equal_entropy(n, tau, needles, gap), entropy, slack * (1 + np.log(n)), "entropy")


@states(
    _SOURCE,
    needles=_NEEDLES,
    rest=Integer(1, 10**6),
    mass=Number(0.01, 0.99, 0.5),
    gap=Number(0.1, 8.0, 1.0),
)
def equal_critical_temperature(
    generator: np.random.Generator, needles: int, rest: int, mass: float, gap: float
) -> None:
    """Needles hold the mass p among equal distractors exactly at tau = [log((n - m)/m) + logit p] /
    g.
    """
    n = needles + rest
    tau = float(theory.equal_critical_inverse_temperature(n, mass, needles, gap))
    reached = float(theory.equal_needle_mass(n, tau, needles, gap))
    slack = 16 * EPS * (1 + tau * gap + np.log(n))
    at_most(mass, reached, slack, "wanted mass, and mass reached")
    if tau > 0:
        equal(reached, mass, slack, "mass reached")


_BOUNDED = {
    "needles": _NEEDLES,
    "gap": _GAP,
    "bound": Number(0.0, 3.0, 1.0),
    "tau": Number(0.0, 20.0, 1.0),
    "distractors": Row(1, 40),
}


@states(_SOURCE, **_BOUNDED)
def bounded_logits(
    generator: np.random.Generator,
    needles: int,
    gap: float,
    bound: float,
    tau: float,
    distractors: tuple[float, ...],
) -> None:
    """With logits in [-B, B] no weight exceeds exp(2 B tau) / n and H >= log n - 2 B tau; the mass
    on needles lies between that among distractors all at B and all at -B.
    """
    z = bound * np.array(distractors)
    n = needles + len(z)
    mass, entropy, largest = _row(needles, gap, z, tau)
    slack = _rounding(n, tau * max(bound, abs(gap)))
    lower, upper = theory.bounded_needle_mass(n, tau, needles, gap, bound)
    at_most(lower, mass, slack, "lower bound of the needles' mass")
    at_most(mass, upper, slack, "mass on the needles")
    at_most(
        theory.bounded_entropy_bound(n, tau, gap, bound),
        entropy,
        slack * (1 + np.log(n)),
        "bound of the entropy",
    )
    at_most(largest, theory.bounded_largest_weight(n, tau, gap, bound), slack, "largest weight")
    reach = max(bound, abs(gap))  # the whole row in [-B, B]
    at_most(
        np.log(n) - 2 * reach * tau,
        entropy,
        slack * (1 + np.log(n)),
        "log n - 2 B tau, and the entropy",
    )
    at_most(np.log(largest), 2 * reach * tau - np.log(n), slack, "log of the largest weight")


@states(_SOURCE, **_BOUNDED | {"gap": Number(0.1, 8.0, 1.0), "mass": Number(0.05, 0.95, 0.5)})
def bounded_critical_temperature(
    generator: np.random.Generator,
    needles: int,
    gap: float,
    bound: float,
    tau: float,
    distractors: tuple[float, ...],
    mass: float,
) -> None:
    """With a = log((n - m)/m) + logit p, needles among distractors in [-B, B] hold less than p
    below tau = a/(g + B), and at least p from a/(g - B) on.
    """
    z = bound * np.array(distractors)
    n = needles + len(z)
    necessary, sufficient = theory.bounded_critical_inverse_temperature(
        n, mass, needles, gap, bound
    )
    exact(necessary <= sufficient, "the necessary temperature is at most the sufficient one")
    share = tau / 20
    if necessary > 0:
        below = float(necessary) * share
        reached = _row(needles, gap, z, below)[0]
        at_most(
            reached,
            mass,
            _rounding(n, below * (gap + bound)),
            "mass below the necessary temperature",
        )
    if sufficient < 1e6:
        above = float(sufficient) * (1 + share)
        reached = _row(needles, gap, z, above)[0]
        at_most(
            mass,
            reached,
            _rounding(n, above * (gap + bound)),
            "wanted mass, above the sufficient temperature",
        )


@states(
    _SOURCE,
    log_count=Number(0.0, 9.0, 0.0),
    tau=Number(0.0, 6.0, 1.0),
    deviation=Number(0.1, 1.0, 1.0),
    gap=_GAP,
)
def random_energy_bound(
    generator: np.random.Generator, log_count: float, tau: float, deviation: float, gap: float
) -> None:
    """The random-energy model's log-partition is an upper bound of its expectation at every number
    of Gaussian distractors, and a lower bound of a needle's expected log-odds.
    """
    count = round(np.exp(log_count))
    expected = theory.expected_row("gaussian", deviation, count, tau)
    model = float(theory.gaussian_log_partition(count, tau, deviation))
    slack = 1e-10 * (1 + abs(model))  # ten times the quadrature's own error
    at_most(expected.log_partition, model, slack, "expected log-partition")
    at_most(
        np.log(count), expected.log_partition, slack, "log N, the partition's lower bound by Jensen"
    )
    p = float(theory.gaussian_needle_mass(count + 1, tau, 1, gap, deviation))
    odds = tau * gap - expected.log_partition
    at_most(p, 1 / (1 + np.exp(-odds)), slack, "mass on a needle in the model")


@states(
    _SOURCE,
    needles=_NEEDLES,
    rest=Integer(2, 10**6),
    mass=Number(0.05, 0.95, 0.5),
    gap=Number(0.2, 8.0, 1.0),
    deviation=Number(0.1, 3.0, 1.0),
)
def random_energy_critical_temperature(
    generator: np.random.Generator,
    needles: int,
    rest: int,
    mass: float,
    gap: float,
    deviation: float,
) -> None:
    """In the random-energy model needles first hold the mass p where the gap outruns the
    distractors' log-partition, or never, beyond freezing.
    """
    n, edge = needles + rest, np.sqrt(2 * np.log(rest))
    tau = float(theory.gaussian_critical_inverse_temperature(n, mass, needles, gap, deviation))
    if tau == 0:
        at_most(mass, needles / n, 8 * EPS * mass, "wanted mass, at tau = 0")
        return
    last = min(tau, 60 * float(theory.gaussian_freezing(rest, deviation)))

    def slack(t: np.ndarray | float) -> np.ndarray | float:
        # Of a mass: roundings of the log-odds' terms, a quarter of which it moves.
        return 32 * EPS * (1 + np.log(n) + t * (gap + deviation * edge))

    grid = np.linspace(0, last, 400)[:-1]
    reached = theory.gaussian_needle_mass(n, grid, needles, gap, deviation)
    at_most(reached, mass, slack(grid), "mass below the critical temperature")
    if np.isfinite(tau):
        equal(
            theory.gaussian_needle_mass(n, tau, needles, gap, deviation),
            mass,
            slack(tau),
            "mass at the critical one",
        )


PROPERTIES = collect(globals())
