"""Data-generating processes with their exact Bayes-optimal baselines."""

from tasks.basis_denoising import BasisDenoisingTask
from tasks.denoising import DenoisingTask
from tasks.dilution import DilutionProbe
from tasks.embeddings import unit_embeddings
from tasks.families import FAMILIES, graph_from_family, graph_from_file, text_from_file
from tasks.kernel_regression import KernelRegressionTask
from tasks.markov import MarkovGraphTask, Prompts
from tasks.retrieval import NoisyRetrievalTask
from tasks.small_graphs import GraphFacts, adjacency_matrix, connected_graphs, neighbour_law
from tasks.twins import TwinTokenTask

__all__ = [
    "FAMILIES",
    "BasisDenoisingTask",
    "DenoisingTask",
    "DilutionProbe",
    "GraphFacts",
    "KernelRegressionTask",
    "MarkovGraphTask",
    "NoisyRetrievalTask",
    "Prompts",
    "TwinTokenTask",
    "adjacency_matrix",
    "connected_graphs",
    "graph_from_family",
    "graph_from_file",
    "neighbour_law",
    "text_from_file",
    "unit_embeddings",
]
