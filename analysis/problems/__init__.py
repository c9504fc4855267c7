"""Tasks made trainable, and the one way to compare mechanisms on them."""

from analysis.problems.base import Block, Fitted, Measure, Problem, Training, fit, train_all
from analysis.problems.compare import compare
from analysis.problems.graph import GraphProblem

__all__ = [
    "Block",
    "Fitted",
    "GraphProblem",
    "Measure",
    "Problem",
    "Training",
    "compare",
    "fit",
    "train_all",
]
