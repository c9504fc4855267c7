"""Tasks made trainable, and the one way to compare mechanisms on them."""

from analysis.problems.base import Block, Fitted, Measure, Problem, Training, fit
from analysis.problems.compare import compare
from analysis.problems.denoise import DenoiseProblem
from analysis.problems.graph import GraphProblem
from analysis.problems.kernel_regression import KernelRegressionProblem
from analysis.problems.location import LocationProblem
from analysis.problems.retrieval import RetrievalProblem
from analysis.problems.train import train_all
from analysis.problems.trigger import TriggerProblem

__all__ = [
    "Block",
    "DenoiseProblem",
    "Fitted",
    "GraphProblem",
    "KernelRegressionProblem",
    "LocationProblem",
    "Measure",
    "Problem",
    "RetrievalProblem",
    "Training",
    "TriggerProblem",
    "compare",
    "fit",
    "train_all",
]
