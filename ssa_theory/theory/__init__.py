"""Closed forms of the theory: what a temperature does to rows, and to the norm of the weights.

rows       entropy of a row, its derivative in tau, and majorisation
norms      what norm a transition matrix costs, with and without a temperature per token
dilution   how much attention needles keep as the context grows
critical   which temperature lets the largest of n scores win, by counting gaps
expected   exact expectations of a row with random distractors
paper      the SSA paper's statements: what is claimed, what is true, and where it fails
"""

from ssa_theory.theory.norms import MinimalNorm, minimal_norm, norm_lower_bound
from ssa_theory.theory.paper import Statement, statements
from ssa_theory.theory.rows import entropy, entropy_derivative, majorises

__all__ = [
    "MinimalNorm",
    "Statement",
    "entropy",
    "entropy_derivative",
    "majorises",
    "minimal_norm",
    "norm_lower_bound",
    "statements",
]
