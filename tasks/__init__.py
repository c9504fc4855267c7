"""Data-generating processes with their exact Bayes-optimal baselines."""

from tasks.basis_denoising import BasisDenoisingTask
from tasks.corpus import Corpus, corpus
from tasks.denoising import DenoisingTask
from tasks.dilution import DilutionProbe
from tasks.embeddings import unit_embeddings
from tasks.families import FAMILIES, graph_from_family
from tasks.graph_files import GraphFile, GraphReading, read_graph
from tasks.hierarchy import HierarchyTask
from tasks.imbalance import (
    ConstantImbalance,
    ImbalanceTask,
    PowerImbalance,
    TwoTokenSequences,
    bernoulli_sequences,
    tracking_sequence,
)
from tasks.kernel_regression import KernelRegressionTask
from tasks.location import LocationTask
from tasks.markov import MarkovGraphTask
from tasks.passkey import Passkey
from tasks.prompts import Prompts
from tasks.retrieval import NoisyRetrievalTask
from tasks.small_graphs import GraphFacts, adjacency_matrix, connected_graphs, neighbour_law
from tasks.texts import Bigrams, TextReading, bigrams, default_text, read_text
from tasks.trigger import TriggerTask
from tasks.twins import TwinTokenTask

__all__ = [
    "FAMILIES",
    "BasisDenoisingTask",
    "Bigrams",
    "ConstantImbalance",
    "Corpus",
    "DenoisingTask",
    "DilutionProbe",
    "GraphFacts",
    "GraphFile",
    "GraphReading",
    "HierarchyTask",
    "ImbalanceTask",
    "KernelRegressionTask",
    "LocationTask",
    "MarkovGraphTask",
    "NoisyRetrievalTask",
    "Passkey",
    "PowerImbalance",
    "Prompts",
    "TextReading",
    "TriggerTask",
    "TwinTokenTask",
    "TwoTokenSequences",
    "adjacency_matrix",
    "bernoulli_sequences",
    "bigrams",
    "connected_graphs",
    "corpus",
    "default_text",
    "graph_from_family",
    "neighbour_law",
    "read_graph",
    "read_text",
    "tracking_sequence",
    "unit_embeddings",
]
