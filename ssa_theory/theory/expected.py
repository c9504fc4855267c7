"""Exact expectations of one attention row among random distractors, at every number of keys."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Values = np.ndarray | float | int
"""A number, or an array of them."""

_TAIL = 9.0  # standard deviations: P(|x| > 9) = 2e-19, lost in rounding even among a million keys
# Of the trapezoid rule in log t: its error is exp(-pi^2 / step) = 7e-18 for these integrands.
_STEP = 0.25


@dataclass(frozen=True, eq=False)
class ExpectedRow:
    """Expectations over the distractors of one attention row.

    needle_mass: E p, the probability that a key drawn by attention is a needle.
    needle_mass_deviation: the standard deviation of p. log_partition: E log of the whole row's
    partition function. entropy: E H in nats.
    """

    needle_mass: float
    needle_mass_deviation: float
    log_partition: float
    entropy: float


def expected_row(
    law: str,
    spread: float,
    count: int,
    inverse_temperature: float,
    needles: int = 0,
    gap: float = 0.0,
) -> ExpectedRow:
    """Of m needles among `count` = N independent distractors: exact, to quadrature's 1e-11.

    law: uniform on [-spread, spread], or Gaussian with standard deviation `spread`. With A = m
    e^(tau g), y = t e^(tau z) and the Laplace transform psi(t) = E e^(-y) of one distractor's term,
    all follow from F(t) = e^(-t A) psi(t)^N = E e^(-t Z):

        E p = int A F dt       E p^2 = int A^2 t F dt
        E log Z = int [e^(-t) - F] dt / t   (Frullani)
        E <z> = g E p + N int e^(-t A) psi^(N-1) E[z y e^(-y)] dt / t
        E H = E log Z - tau E <z>

    by the trapezoid rule in log t. Raises ValueError for an unknown law, spread <= 0, N < 0, m < 0,
    N + m < 1, or tau that is negative, not finite, or above 300 / spread (the grid grows with its
    square).
    """
    if law not in ("uniform", "gaussian"):
        raise ValueError(f"unknown law {law!r}: choose uniform or gaussian")
    check_spread(spread, "spread", zero=False)
    tau = float(checked_tau(inverse_temperature))
    if tau * spread > 300:
        raise ValueError(
            f"the quadrature needs tau * spread <= 300, got {tau * spread:g}: lower tau, or use "
            "the random-energy model"
        )
    if count < 0 or needles < 0 or count + needles < 1:
        raise ValueError(
            f"a row needs keys, and no negative number of them, got {count} distractors and "
            f"{needles} needles: add keys"
        )
    x = tau * spread
    if law == "gaussian":
        node = np.arange(-_TAIL, _TAIL, min(_STEP, _STEP / max(x, 1e-9)))
        weight, reach = np.exp(-(node**2) / 2), _TAIL
    else:
        node, weight = np.polynomial.legendre.leggauss(int(64 + 4 * x))
        reach = 1.0
    weight, z = weight / weight.sum(), spread * node
    log_needles = np.log(needles) + tau * gap if needles else -np.inf
    largest = np.logaddexp(log_needles, (np.log(count) if count else -np.inf) + reach * x)
    smallest = log_needles if needles else -reach * x
    # e^-42 and exp(-e^4) are below rounding.
    grid = np.arange(-max(largest, 0) - 42, max(-smallest, 0) + 4.25, _STEP)
    missing, pull = np.empty_like(grid), np.empty_like(grid)
    parts = 1 + len(grid) * len(z) // 2**20  # bounds memory
    for part in np.array_split(np.arange(len(grid)), parts):
        y = np.exp(np.minimum(grid[part, None] + tau * z, 700))
        missing[part] = -np.expm1(-y) @ weight  # 1 - psi
        pull[part] = (y * np.exp(-y)) @ (weight * z)
    log_psi = np.log1p(-np.minimum(missing, 1 - 2**-53))
    a = np.exp(np.minimum(grid + log_needles, 300))  # its square must be finite
    transform = np.exp(count * log_psi - a)
    mass, square = _STEP * (a * transform).sum(), _STEP * (a**2 * transform).sum()
    log_partition = _STEP * (np.exp(-np.exp(np.minimum(grid, 700))) - transform).sum()
    mean_logit = gap * mass + count * _STEP * (np.exp((count - 1) * log_psi - a) * pull).sum()
    return ExpectedRow(
        float(mass),
        float(np.sqrt(max(square - mass**2, 0))),
        float(log_partition),
        float(log_partition - tau * mean_logit),
    )


def checked_tau(inverse_temperature: Values) -> Float[np.ndarray, "..."]:
    """tau in float64. Raises ValueError for one that is negative or not finite."""
    tau = np.asarray(inverse_temperature, np.float64)
    if not (np.isfinite(tau).all() and (tau >= 0).all()):
        raise ValueError(
            f"inverse temperatures must be finite and at least 0, got {tau.min()}: choose tau >= 0"
        )
    return tau


def check_spread(spread: float, name: str, zero: bool = True) -> None:
    """Raise ValueError for a spread that is negative, not finite, or 0 where that is no spread."""
    if not (np.isfinite(spread) and (spread > 0 or (zero and spread == 0))):
        rule = "finite and at least 0" if zero else "positive and finite"
        raise ValueError(
            f"the {name} of the distractors must be {rule}, got {spread}: "
            "choose a value in that range"
        )
