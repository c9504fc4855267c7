"""Data-generating processes with their exact Bayes-optimal baselines."""

from tasks.embeddings import unit_embeddings
from tasks.families import FAMILIES, PYTHON_PROSE, graph_from_family, graph_from_file, text_from_file
from tasks.markov import MarkovGraphTask, Prompts
from tasks.twins import TwinTokenTask

__all__ = [
    "FAMILIES",
    "PYTHON_PROSE",
    "MarkovGraphTask",
    "Prompts",
    "TwinTokenTask",
    "graph_from_family",
    "graph_from_file",
    "text_from_file",
    "unit_embeddings",
]
