"""The paper's statements on norms, on cases: Lemma 1, Proposition 1 and the dilution bound."""

import math
from collections.abc import Iterator

import numpy as np

from ssa_theory.theory.paper.expressivity import (
    POSITIVE,
    SIGNED,
    VANILLA,
    TwoTokens,
    attained_weight,
    dilution_norm,
    largest_weight_bound,
    specificity_bound,
    specificity_norm,
)
from ssa_theory.theory.paper.statement import PAPER, ROUNDING, Statement, Status, at_least


def lemma_1() -> Statement:
    """Telling a sharp from a blunt query costs norm."""
    margins = {}
    for rho in np.linspace(-0.99, 0.99, 67).tolist():
        for blunt in np.linspace(0, 1, 21).tolist():
            bound = specificity_bound(1.0, blunt, math.sqrt(2 - 2 * rho))
            margins[rho, blunt] = specificity_norm(1.0, blunt, rho) - bound
    (rho, blunt), least = min(margins.items(), key=lambda item: item[1])
    ratio = specificity_norm(1.0, 0.0, 0.99) * math.sqrt(2 - 2 * 0.99)
    wrong = least < -ROUNDING
    return Statement(
        "lemma-1",
        f"{PAPER}, Lemma 1",
        "A W with ||W^T a|| >= L_a and ||W^T b|| <= L_b has ||W|| >= (L_a - L_b) / ||a - b||; a "
        "query temperature needs max(L_a, L_b) only.",
        "fails" if wrong else "holds",
        f"The exact least norm exceeds the bound by {at_least(least)} or more for unit "
        f"queries with L_a = 1; for L_b = 0 and a.b = 0.99 it is {ratio:.4f} times the bound.",
        len(margins),
        {"rho": rho, "blunt": blunt} if wrong else None,
        {"least_margin": least, "ratio": ratio},
    )


def lower_bound() -> Statement:
    """Proposition 1's bound on vanilla attention."""
    ratios = {t: t.least(VANILLA).norm / t.lower_bound for t in _maps() if t.lower_bound > 0}
    least = min(ratios, key=lambda t: ratios[t])
    wrong = [t for t in ratios if ratios[t] < 1 - ROUNDING]
    return Statement(
        "prop-1-lower-bound",
        f"{PAPER}, Proposition 1",
        "Vanilla attention that meets [[1 - gamma, gamma], [0, 1]] within eps has ||W|| >= (log(1 "
        "/ (4 eps)) - G) / (||e1 - e2|| sqrt(2 - 2 rho^2)).",
        "fails" if wrong else "holds",
        f"The exact minimum is at least {at_least(ratios[least])} times the bound wherever that is "
        "positive.",
        len(ratios),
        _arguments(wrong[0]) if wrong else None,
        {"least_ratio": ratios[least]},
    )


def converse_bound() -> Statement:
    """Proposition 1's norm that is enough for SSA."""
    maps = list(_maps())
    excess = {t: t.least(SIGNED).norm / t.converse_bound for t in maps}
    wrong = [t for t in maps if excess[t] > 1 + ROUNDING]
    numbers = {"share_wrong": len(wrong) / len(maps), "largest_ratio": max(excess.values())}
    example = None
    if wrong:
        numbers |= {"claimed": wrong[0].converse_bound, "minimum": wrong[0].least(SIGNED).norm}
        example = _arguments(wrong[0]) | {k: numbers[k] for k in ("claimed", "minimum")}
    return Statement(
        "prop-1-converse",
        f"{PAPER}, Proposition 1",
        "SSA meets the same map within eps at the effective norm max(log(1 / eps), G / sqrt(1 - "
        "rho^2)) / ||e1 - e2||.",
        "fails" if wrong else "holds",
        f"The exact minimum, temperatures of either sign allowed, exceeds it in {len(wrong)} of "
        f"{len(maps)} cases, by a factor of up to {numbers['largest_ratio']:.4f}.",
        len(maps),
        example,
        numbers,
    )


def free_of_rho() -> Statement:
    """Proposition 1's message: a query temperature takes out the factor 1 / sqrt(1 - rho^2)."""
    near, cases, growth = 1 - 1e-8, list(_maps((0.9,))), {}
    for temperatures in (POSITIVE, SIGNED):
        for t in cases:
            late = TwoTokens(t.gamma, t.eps, near)
            scaled = [m.least(temperatures).norm * m.distance for m in (t, late)]
            growth[temperatures, t] = scaled[1] / scaled[0]
    bad = {s: [t for t in cases if growth[s, t] > 10] for s in (POSITIVE, SIGNED)}
    status: Status = "fails" if bad[SIGNED] else "holds as corrected" if bad[POSITIVE] else "holds"
    blunt = max((t.gamma for t in bad[POSITIVE]), default=0.0)
    numbers = {
        "positive_growth": max(growth[POSITIVE, t] for t in cases),
        "signed_growth": max(growth[SIGNED, t] for t in cases),
        "largest_gamma": blunt,
    }
    return Statement(
        "prop-1-free-of-rho",
        f"{PAPER}, Proposition 1",
        "With a query temperature the norm, times ||e1 - e2||, does not grow as the tokens become "
        "alike (rho to 1).",
        status,
        "From rho = 0.9 to 1 - 1e-8 it grows by a factor of up to "
        f"{numbers['positive_growth']:.3g} with positive temperatures, for gamma up to {blunt:g}, "
        f"and of up to {numbers['signed_growth']:.3g} with temperatures of either sign. SSA's own "
        "is positive.",
        2 * len(cases),
        _arguments(bad[POSITIVE][0]) if bad[POSITIVE] else None,
        numbers,
    )


def dilution() -> Statement:
    """No weight survives a long context at a bounded norm."""
    rng, worst, cases = np.random.default_rng(0), -math.inf, 300
    for _ in range(cases):
        length, dim = int(rng.integers(1, 60)), int(rng.integers(1, 6))
        rows = rng.standard_normal((length + 1, dim))
        rows /= np.linalg.norm(rows, axis=1)[:, None]
        weight = rng.standard_normal((dim, dim)) * rng.exponential(2)
        odds = rows[0] @ weight @ rows[1:].T
        largest = 1 / np.exp(odds - odds.max()).sum()
        bound = largest_weight_bound(length, float(np.linalg.norm(weight, 2)))
        worst = max(worst, float(largest) - bound)
    length, norm = 1000, 3.0
    tight = attained_weight(length, norm) / largest_weight_bound(length, norm)
    needed = dilution_norm(length, 0.5)
    numbers = {"largest_excess": worst, "tight_ratio": tight, "norm_for_half": needed}
    return Statement(
        "dilution",
        f"{PAPER}, section 4.2",
        "No softmax weight over L unit keys exceeds 1 / (1 + (L - 1) e^(-2 ||W||)), so that the "
        "norm has to grow like log(L) / 2.",
        "fails" if worst > ROUNDING else "holds",
        f"No random W exceeds it, and one key against {length - 1} opposite ones attains "
        f"{tight:.6f} of "
        f"it; a weight of 1/2 among {length} keys needs ||W|| >= {needed:.4f}, log(L) / 2 = "
        f"{math.log(length) / 2:.4f}.",
        cases,
        {"excess": worst} if worst > ROUNDING else None,
        numbers,
    )


def _maps(rhos: tuple[float, ...] = ()) -> Iterator[TwoTokens]:
    """Proposition 1's map on round numbers, the simplest first."""
    rhos = rhos or (0.0, *(s * r / 10 for r in range(1, 10) for s in (1, -1)), 0.99, -0.99)
    for rho in rhos:
        for eps in (0.05, 0.02, 0.01, 0.001, 1e-4):
            for tenths in range(1, 10):
                gamma = tenths / 10
                if eps <= min(gamma, 1 - gamma) / 2:
                    yield TwoTokens(gamma, eps, rho)


def _arguments(case: TwoTokens) -> dict[str, float]:
    return {"gamma": case.gamma, "eps": case.eps, "rho": case.rho}
