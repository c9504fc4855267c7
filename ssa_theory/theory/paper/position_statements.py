"""The paper's statements on positions and sparsity, tried on cases: Proposition 2, Lemma 2, and the
least inverse temperature.
"""

import math
from collections.abc import Mapping
from functools import cache

import numpy as np
from scipy.special import expit

from ssa_theory.theory.paper.converse import (
    LATE_RATIO,
    LeastLoss,
    consistent,
    consistent_by_search,
    count_limits,
    first_contradiction,
    least_loss,
    reachable_ratios,
)
from ssa_theory.theory.paper.imbalance import Imbalance
from ssa_theory.theory.paper.long_converse import always_consistent, long_loss_bound
from ssa_theory.theory.paper.sparsity import SparseScores
from ssa_theory.theory.paper.statement import PAPER, ROUNDING, Statement, Status, at_least

_LOSS = 1 / 500
"""The printed bound of the converse of Proposition 2."""
_SEARCHED = 80
"""Lengths up to this are searched; inequalities decide beyond."""


def zero_loss() -> Statement:
    """Proposition 2's schedule."""
    rng, worst, negative, cases = np.random.default_rng(0), 0.0, 0, 200
    for _ in range(cases):
        is_a = rng.random(int(rng.integers(2, 200))) < rng.uniform(0.05, 0.95)
        is_a[:2] = rng.permutation([True, False])
        task = Imbalance.of_tokens(is_a, float(rng.uniform(0.05, 0.95)), float(rng.uniform(-1, 1)))
        worst = max(worst, task.loss(task.log_odds, np.ones(2)))
        negative += bool((task.log_odds[task.balanced] < 0).any())
    return Statement(
        "prop-2-zero-loss",
        f"{PAPER}, Proposition 2",
        "For linearly independent a and b the schedule tau_n = log kappa_n + log(alpha / (1 - "
        "alpha)) reaches zero loss.",
        "fails" if worst > ROUNDING else "holds",
        f"The largest loss of {cases} random sequences is {worst:.2g}; {negative} of them need a "
        "negative tau somewhere, kappa_n < (1 - alpha) / alpha.",
        cases,
        {"loss": worst} if worst > ROUNDING else None,
        {"largest_loss": worst, "negative": negative},
    )


@cache
def _least_losses(late_ratio: int, longest: int) -> Mapping[int, LeastLoss]:
    """By the lengths that a search finds to meet the hypotheses."""
    valid = [n for n in range(1, longest + 1) if consistent_by_search(n, late_ratio)]
    return {n: least_loss(n, late_ratio, 5e-4) for n in valid}


def _converse(name: str, late_ratio: int) -> Statement:
    """The converse of Proposition 2 for one late ratio."""
    beyond, always = first_contradiction(late_ratio), always_consistent(late_ratio)
    lengths, least = range(1, _SEARCHED + 1), _least_losses(late_ratio, _SEARCHED)
    valid = list(least)
    agree = all(consistent(n, late_ratio) == (n in valid) for n in lengths)
    # The loss is ||a - b||^2 times this, and ||a - b||^2 = 2 for orthogonal tokens.
    shortest, lowest = valid[0], min(2 * own.lower for own in least.values())
    distance = _LOSS / least[shortest].upper
    empty = agree and beyond <= _SEARCHED + 1
    longer = math.inf if empty else 2 * long_loss_bound(_SEARCHED + 1, late_ratio)
    decided = empty or (agree and always <= _SEARCHED + 1)
    holds = decided and min(lowest, longer) > _LOSS
    status: Status = "fails" if not holds else "vacuous" if empty else "holds as corrected"
    numbers = {
        "valid_lengths": len(valid),
        "least_orthogonal_loss": lowest,
        "distance_squared": distance,
        "largest_late_ratio": reachable_ratios(2.0)[1],
        "first_contradiction": beyond,
        "always_consistent": always,
        "long_orthogonal_loss": longer,
    }
    if empty:
        count_at_half, count_late = count_limits(int(beyond), late_ratio)
        example = {
            "length": beyond,
            "least_count_at_half": count_at_half,
            "most_count_late": count_late,
        }
        where = (
            f"no sequence of any length from {beyond:g} on, and below for the lengths "
            f"{', '.join(map(str, valid))} alone"
        )
        there = ""
    else:
        example = {"length": shortest, "distance_squared": distance, "loss": _LOSS}
        never = ", ".join(str(n) for n in lengths if n not in valid)
        where = (
            f"every length but {never}: by search up to {_SEARCHED}, and from {always:g} on by an "
            "inequality of counts"
        )
        there = f" up to {_SEARCHED} tokens, by another inequality above {longer:.6f} beyond"
    return Statement(
        name,
        f"{PAPER}, Proposition 2",
        f"With kappa_n in [1, 2] on [L/4, L/2] and at least {late_ratio} from 3L/4 on, alpha = 1/2 "
        "and one temperature, every W has a loss above 1/500.",
        status,
        f"The hypotheses hold for {where}. For orthogonal tokens the least loss over all such "
        f"sequences and all W is above {at_least(lowest)}{there}. It is proportional to ||a - "
        f"b||^2: at length {shortest} it is 1/500 at ||a - b||^2 = {distance:.3f}, and less below.",
        len(lengths),
        example,
        numbers,
    )


def printed_converse() -> Statement:
    """The converse of Proposition 2 with its printed ratios."""
    return _converse("prop-2-converse", LATE_RATIO)


def relaxed_converse() -> Statement:
    """The converse of Proposition 2 with the largest whole ratio that long sequences can reach."""
    return _converse("prop-2-converse-relaxed", int(reachable_ratios(2.0)[1]))


def lemma_2() -> Statement:
    """A temperature as a sparsity."""
    cases = [
        SparseScores(n, slope, gap, power)
        for n in (10, 100, 1000, 10**4)
        for slope in (0.1, 0.5, 1.0)
        for gap in (0.5, 1.0, 2.0)
        for power in (0.3, 0.7, 1.0)
    ]
    printed = [s for s in cases if abs(s.printed_share / s.solved_share - 1) > 1e-9]
    corrected = max(abs(s.kept_share / s.solved_share - 1) for s in cases)
    status: Status = (
        "holds" if not printed else "holds as corrected" if corrected < 1e-9 else "fails"
    )
    example = SparseScores(1000, 0.5, 1.0, 0.7)
    numbers = {
        "exact": example.solved_share,
        "corrected": example.kept_share,
        "printed": example.printed_share,
        "largest_error": corrected,
    }
    return Statement(
        "lemma-2",
        f"{PAPER}, Lemma 2",
        "tau = 1 + alpha log n gives the largest weight that keeping the share n^(-alpha gamma) / "
        "(1 - n^-p) + n^-p of the scores gives.",
        status,
        "The share is (1 - n^-p) n^(-alpha gamma) + n^-p: at n = 1000, alpha = 0.5, gamma = 1, p = "
        "0.7 "
        f"it is {numbers['corrected']:.6f}, by root finding {numbers['exact']:.6f}, against the "
        f"printed {numbers['printed']:.6f}.",
        len(cases),
        vars(printed[0]) | {"exact": printed[0].solved_share, "printed": printed[0].printed_share}
        if printed
        else None,
        numbers,
    )


def suppression() -> Statement:
    """What the smallest inverse temperature is."""
    lengths, slope = (2, 10, 100, 1000), float(expit(0.0))
    least = {n: math.tanh(-20.0) + 1 + slope * math.log(n) for n in lengths}
    wrong = [n for n in lengths if least[n] > 1e-6]
    return Statement(
        "suppression",
        f"{PAPER}, value temperature",
        "A token term near -1 makes tau = tanh(f) + 1 + sigmoid(alpha) log n vanish, and a token "
        "with it.",
        "fails" if wrong else "holds",
        f"With alpha = 0 the least tau is {least[2]:.4f} at n = 2 and {least[1000]:.4f} at n = "
        "1000: sigmoid(alpha) log n stays.",
        len(lengths),
        {"length": wrong[0], "alpha": 0.0, "tau": least[wrong[0]]} if wrong else None,
        {"at_2": least[2], "at_1000": least[1000]},
    )
