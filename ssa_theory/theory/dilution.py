"""Closed-form dilution: how much attention m needles keep among n keys at inverse temperature tau.

At a fixed tau their share falls as 1/n, and a tau that grows like log n holds it (arXiv 2411.12892,
position temperature).

Every needle has the logit g, the gap over distractors that are centred at 0, and the n - m
distractors are (a) all equal, (b) bounded in [-B, B], or (c) independent Gaussians with standard
deviation s. With the distractors' partition function Z = sum_j exp(tau z_j), the needles together
hold the mass sigmoid(tau g + log m - log Z), so log Z decides everything:

    equal       log Z = log(n - m)                         exact
    bounded     |log Z - log(n - m)| <= tau B              certified bounds
    Gaussian    E log Z <= log(n - m) + tau^2 s^2 / 2      while tau s <= sqrt(2 log(n - m)), and
                E log Z <= tau s sqrt(2 log(n - m))        beyond (frozen): bounds, exact as n grows

The last is Derrida's random-energy model (1981). `expected_row` integrates the exact finite-n
expectations for (c), and for (b) with uniform distractors. Lengths and inverse temperatures may be
arrays that broadcast; everything is float64.

The tau from which on the largest of any scores wins, predicted by counting its gaps before there is
a softmax, is that of `ssa_theory.theory.critical`; its functions are handed on here.
"""

import numpy as np
from jaxtyping import Float
from scipy.special import entr, expit, logit

from ssa_theory.theory.critical import critical_scaling as critical_scaling
from ssa_theory.theory.critical import measured_critical as measured_critical
from ssa_theory.theory.critical import predicted_critical as predicted_critical
from ssa_theory.theory.expected import ExpectedRow as ExpectedRow
from ssa_theory.theory.expected import Values, check_spread, checked_tau
from ssa_theory.theory.expected import expected_row as expected_row


def equal_needle_mass(
    length: Values, inverse_temperature: Values, needles: int, gap: float
) -> Float[np.ndarray, "..."]:
    """Exact mass on m needles among equal distractors: p = m e^(tau g) / (m e^(tau g) + n - m).

    length: n >= m keys, needles included; inverse_temperature: tau >= 0; gap: g, in logits. Raises
    ValueError otherwise.
    """
    n, tau = _checked(length, inverse_temperature, needles, gap)
    return _array(expit(_log_odds(tau, needles, gap, _log(n - needles))))


def equal_entropy(
    length: Values, inverse_temperature: Values, needles: int, gap: float
) -> Float[np.ndarray, "..."]:
    """Exact entropy in nats: H = h(p) + p log m + (1 - p) log(n - m), h the binary entropy.

    p is the mass on the needles. exp(H) is the effective support. Arguments and errors as in
    `equal_needle_mass`.
    """
    n, tau = _checked(length, inverse_temperature, needles, gap)
    rest = _log(n - needles)
    return _row_entropy(_log_odds(tau, needles, gap, rest), needles, rest)


def equal_critical_inverse_temperature(
    length: Values, mass: float, needles: int, gap: float
) -> Float[np.ndarray, "..."]:
    """Exact: the tau at which m needles hold `mass` among equal distractors, [log((n - m)/m) +
    logit(mass)] / g.

    0 where they hold it at every tau >= 0. Raises ValueError for a mass outside (0, 1), a gap that
    is not positive, or n < m.
    """
    return _array(np.maximum(_wanted(length, mass, needles, gap), 0) / gap)


def bounded_needle_mass(
    length: Values, inverse_temperature: Values, needles: int, gap: float, bound: float
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Certified (lower, upper) bounds of the mass on m needles among any distractors in [-B, B].

    Both are attained: all distractors at B, all at -B. bound: B >= 0; else as in
    `equal_needle_mass`.
    """
    n, tau = _checked(length, inverse_temperature, needles, gap)
    check_spread(bound, "bound")
    rest = _log(n - needles)
    lower, upper = (expit(_log_odds(tau, needles, gap - edge, rest)) for edge in (bound, -bound))
    return _array(lower), _array(upper)


def bounded_entropy_bound(
    length: Values, inverse_temperature: Values, gap: float, bound: float
) -> Float[np.ndarray, "..."]:
    """Certified lower bound of the row's entropy in nats: H >= log n - w tau, and H >= 0.

    w is the width of the interval that holds all logits: 2 B where the needles' g lies in [-B, B],
    else B + |g|. No weight exceeds exp(w tau) / n, hence the bound; exp of it bounds the effective
    support from below.
    """
    n, tau = _checked(length, inverse_temperature, 1, gap)
    check_spread(bound, "bound")
    return _array(np.maximum(np.log(n) - (bound + max(bound, abs(gap))) * tau, 0))


def bounded_largest_weight(
    length: Values, inverse_temperature: Values, gap: float, bound: float
) -> Float[np.ndarray, "..."]:
    """Certified upper bound of every single weight: min(1, exp(w tau) / n), w as in
    `bounded_entropy_bound`.
    """
    return _array(np.exp(-bounded_entropy_bound(length, inverse_temperature, gap, bound)))


def bounded_critical_inverse_temperature(
    length: Values, mass: float, needles: int, gap: float, bound: float
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Certified (necessary, sufficient): the least tau >= 0 at which m needles hold `mass` lies
    between the two.

    With a = log((n - m)/m) + logit(mass) these are a / (g + B) and a / (g - B); the latter is
    infinite for g <= B, where some distractors in [-B, B] defeat the needles at every temperature,
    and both are 0 for a <= 0.
    """
    check_spread(bound, "bound")
    wanted = np.maximum(_wanted(length, mass, needles, gap), 0)
    sufficient = wanted / (gap - bound) if gap > bound else np.where(wanted > 0, np.inf, 0.0)
    return _array(wanted / (gap + bound)), _array(sufficient)


def gaussian_freezing(count: Values, deviation: float) -> Float[np.ndarray, "..."]:
    """tau_c = sqrt(2 log N) / s: beyond it the few largest of N Gaussian logits hold all of the
    distractors' weight.
    """
    count = _count(count)
    check_spread(deviation, "deviation", zero=False)
    return _array(np.sqrt(2 * np.log(np.maximum(count, 1))) / deviation)


def gaussian_log_partition(
    count: Values, inverse_temperature: Values, deviation: float
) -> Float[np.ndarray, "..."]:
    """Random-energy model of log sum_j exp(tau z_j) over N = count Gaussian logits; -inf for N = 0.

    log N + tau^2 s^2 / 2 up to the freezing tau_c = sqrt(2 log N) / s, and tau s sqrt(2 log N)
    beyond; value and slope are continuous there. Asymptotically exact (relative to log N, at fixed
    tau / tau_c), exact at tau = 0, and at every finite N an upper bound of the expectation: by
    Jensen below tau_c, and beyond it because log Z / tau falls with tau.
    """
    log_count, tau = _log(_count(count)), checked_tau(inverse_temperature)
    check_spread(deviation, "deviation")
    x, edge = tau * deviation, np.sqrt(2 * np.maximum(log_count, 0))
    return np.where((x <= edge) | np.isneginf(log_count), log_count + x**2 / 2, x * edge)


def gaussian_needle_mass(
    length: Values, inverse_temperature: Values, needles: int, gap: float, deviation: float
) -> Float[np.ndarray, "..."]:
    """Asymptotic (random-energy model): sigmoid(tau g + log m - log Z) among n - m Gaussian
    distractors.

    Its log-odds never exceed the expected log-odds, since the model's log Z is an upper bound.
    """
    n, tau = _checked(length, inverse_temperature, needles, gap)
    return _array(
        expit(_log_odds(tau, needles, gap, gaussian_log_partition(n - needles, tau, deviation)))
    )


def gaussian_entropy(
    length: Values, inverse_temperature: Values, needles: int, gap: float, deviation: float
) -> Float[np.ndarray, "..."]:
    """Asymptotic (random-energy model), in nats: the distractors' own entropy is log(n - m) - tau^2
    s^2 / 2, frozen 0.
    """
    n, tau = _checked(length, inverse_temperature, needles, gap)
    odds = _log_odds(tau, needles, gap, gaussian_log_partition(n - needles, tau, deviation))
    log_count = np.log(np.maximum(n - needles, 1))
    return _row_entropy(odds, needles, np.maximum(log_count - (tau * deviation) ** 2 / 2, 0))


def gaussian_critical_inverse_temperature(
    length: Values, mass: float, needles: int, gap: float, deviation: float
) -> Float[np.ndarray, "..."]:
    """Asymptotic (random-energy model): the least tau >= 0 at which m needles hold `mass`; infinite
    where there is none.

    With a = log((n - m)/m) + logit(mass) it is [g - sqrt(g^2 - 2 a s^2)] / s^2 where that lies
    below the freezing tau_c; else, in the frozen phase, [logit(mass) - log m] / (g - s sqrt(2 log(n
    - m))), if the gap exceeds the largest distractor s sqrt(2 log(n - m)). A needle below that
    level is lost at every temperature (m = 1, mass >= 1/2).
    """
    check_spread(deviation, "deviation", zero=False)
    wanted = np.maximum(_wanted(length, mass, needles, gap), 0)
    count = np.asarray(length, np.float64) - needles
    freezing = gaussian_freezing(count, deviation)
    root = gap**2 - 2 * wanted * deviation**2
    # 2 a / (g + sqrt(.)) is the smaller root of the quadratic, without its cancellation.
    liquid = np.where(root >= 0, 2 * wanted / (gap + np.sqrt(np.maximum(root, 0))), np.inf)
    lead = gap - deviation**2 * freezing
    with np.errstate(divide="ignore", invalid="ignore"):
        frozen = np.where(lead > 0, (logit(mass) - np.log(needles)) / lead, np.inf)
    return np.where(liquid <= freezing, liquid, frozen)


def _log_odds(tau: Values, needles: int, gap: float, log_partition: Values) -> Values:
    """log of the needles' mass over the distractors' mass; +inf without distractors."""
    return tau * gap + np.log(needles) - log_partition


def _row_entropy(
    log_odds: Values, needles: int, distractor_entropy: Values
) -> Float[np.ndarray, "..."]:
    """h(p) + p log m + (1 - p) H_distractors."""
    p, q = expit(log_odds), expit(-log_odds)
    return _array(entr(p) + entr(q) + p * np.log(needles) + q * np.maximum(distractor_entropy, 0))


def _wanted(length: Values, mass: float, needles: int, gap: float) -> Values:
    """log((n - m)/m) + logit(mass): the log-odds that temperature has to add."""
    if not 0 < mass < 1:
        raise ValueError(
            f"the wanted mass must lie strictly between 0 and 1, got {mass}: choose 0.5, say"
        )
    if not gap > 0:
        raise ValueError(
            f"the gap must be positive for a temperature to help the needles, got {gap}: raise it"
        )
    n, _ = _checked(length, 0.0, needles, gap)
    return _log(n - needles) - np.log(needles) + logit(mass)


def _checked(
    length: Values, inverse_temperature: Values, needles: int, gap: float
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """(n, tau) in float64, or a ValueError."""
    if needles < 1:
        raise ValueError(f"a probe needs at least 1 needle, got {needles}: choose needles >= 1")
    n = np.asarray(length, np.float64)
    if not (np.isfinite(n).all() and (n >= needles).all()):
        raise ValueError(
            f"the length counts the needles and must be at least their number {needles}, "
            f"got {n.min():g}: use longer rows"
        )
    if not np.isfinite(gap):
        raise ValueError(
            f"the gap must be finite, got {gap}: give the needles' logit over the mean distractor"
        )
    return n, checked_tau(inverse_temperature)


def _count(count: Values) -> Float[np.ndarray, "..."]:
    count = np.asarray(count, np.float64)
    if not (np.isfinite(count).all() and (count >= 0).all()):
        raise ValueError(
            f"the number of distractors must be finite and at least 0, got {count.min()}: add keys"
        )
    return count


def _log(count: Values) -> Float[np.ndarray, "..."]:
    """log, with log 0 = -inf and no warning."""
    with np.errstate(divide="ignore"):
        return _array(np.log(count))


def _array(value: Values) -> Float[np.ndarray, "..."]:
    """numpy returns scalars for arrays without axes; the annotations promise arrays."""
    return np.asarray(value, np.float64)
