"""The experiments, by name, in the order in which they run."""

from analysis.experiments.base import PRESETS, Experiment, Preset
from analysis.experiments.denoise import DENOISE
from analysis.experiments.dilution import DILUTION
from analysis.experiments.graph import GRAPH, LES_MISERABLES, LETTERS
from analysis.experiments.length import LENGTH
from analysis.experiments.retrieval import RETRIEVAL
from analysis.experiments.twins import TWINS

EXPERIMENTS: dict[str, Experiment] = {
    e.name: e for e in (GRAPH, LETTERS, LES_MISERABLES, TWINS, DENOISE, RETRIEVAL, LENGTH, DILUTION)
}

__all__ = ["EXPERIMENTS", "PRESETS", "Experiment", "Preset"]
