"""The experiments, by name, in the order of the report."""

from analysis.experiments.ablation import ABLATION
from analysis.experiments.base import PRESETS, Experiment, Preset
from analysis.experiments.basis_denoise import BASIS_DENOISE
from analysis.experiments.convergence import CONVERGENCE
from analysis.experiments.denoise import DENOISE
from analysis.experiments.dilution import DILUTION
from analysis.experiments.graph import GRAPH, LES_MISERABLES, LETTERS
from analysis.experiments.hierarchy import HIERARCHY
from analysis.experiments.imbalance import IMBALANCE
from analysis.experiments.length import LENGTH
from analysis.experiments.normalizers import NORMALIZERS
from analysis.experiments.norms import NORMS
from analysis.experiments.overhead import OVERHEAD
from analysis.experiments.paper_graph import PAPER_GRAPH
from analysis.experiments.paper_theory import PAPER_THEORY
from analysis.experiments.phase import PHASE
from analysis.experiments.retrieval import RETRIEVAL
from analysis.experiments.twins import TWINS

EXPERIMENTS: dict[str, Experiment] = {
    e.name: e
    for e in (
        GRAPH,
        LETTERS,
        LES_MISERABLES,
        PAPER_THEORY,
        PAPER_GRAPH,
        HIERARCHY,
        NORMS,
        CONVERGENCE,
        TWINS,
        DENOISE,
        BASIS_DENOISE,
        RETRIEVAL,
        LENGTH,
        DILUTION,
        IMBALANCE,
        ABLATION,
        NORMALIZERS,
        PHASE,
        OVERHEAD,
    )
}

__all__ = ["EXPERIMENTS", "PRESETS", "Experiment", "Preset"]
