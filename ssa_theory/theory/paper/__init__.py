"""The statements of the SSA paper (arXiv 2411.12892), made exact.

expressivity   Lemma 1, Proposition 1 and the dilution bound: least norms beside the printed bounds
imbalance      Proposition 2: its zero-loss schedule, and the least loss of any other schedule
schedules      the families of those other schedules
converse       Proposition 2's converse: whether its hypotheses can hold, and the least loss there
long_converse  the same for all long sequences at once, by an inequality
sparsity       Lemma 2: the share of scores that a temperature keeps
statements()   all of them as records with a computed status
"""

from collections.abc import Callable

from ssa_theory.theory.paper.converse import (
    LeastLoss,
    consistent,
    consistent_by_search,
    count_limits,
    first_contradiction,
    least_loss,
    reachable_ratios,
)
from ssa_theory.theory.paper.expressivity import (
    POSITIVE,
    SIGNED,
    VANILLA,
    LeastMap,
    Temperatures,
    TwoTokens,
    attained_weight,
    dilution_norm,
    largest_weight_bound,
    specificity_bound,
    specificity_norm,
)
from ssa_theory.theory.paper.imbalance import BestSchedule, Imbalance, best_schedule
from ssa_theory.theory.paper.long_converse import Windows, always_consistent, long_loss_bound
from ssa_theory.theory.paper.norm_statements import (
    converse_bound,
    dilution,
    free_of_rho,
    lemma_1,
    lower_bound,
)
from ssa_theory.theory.paper.position_statements import (
    lemma_2,
    printed_converse,
    relaxed_converse,
    suppression,
    zero_loss,
)
from ssa_theory.theory.paper.schedules import FAMILIES, Family, llama4, yarn
from ssa_theory.theory.paper.sparsity import SparseScores
from ssa_theory.theory.paper.statement import Statement

__all__ = [
    "FAMILIES",
    "POSITIVE",
    "SIGNED",
    "VANILLA",
    "BestSchedule",
    "Family",
    "Imbalance",
    "LeastLoss",
    "LeastMap",
    "SparseScores",
    "Statement",
    "Temperatures",
    "TwoTokens",
    "Windows",
    "always_consistent",
    "attained_weight",
    "best_schedule",
    "consistent",
    "consistent_by_search",
    "count_limits",
    "dilution_norm",
    "first_contradiction",
    "largest_weight_bound",
    "least_loss",
    "llama4",
    "long_loss_bound",
    "reachable_ratios",
    "specificity_bound",
    "specificity_norm",
    "statements",
    "yarn",
]

_STATEMENTS: tuple[Callable[[], Statement], ...] = (
    lemma_1,
    lower_bound,
    converse_bound,
    free_of_rho,
    dilution,
    zero_loss,
    printed_converse,
    relaxed_converse,
    lemma_2,
    suppression,
)


def statements() -> tuple[Statement, ...]:
    """The statements of the paper, each tried on its cases: some seconds."""
    return tuple(statement() for statement in _STATEMENTS)
