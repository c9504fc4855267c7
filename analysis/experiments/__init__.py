"""The experiments, by name, in the order in which they run."""

from analysis.experiments.base import PRESETS, Experiment, Preset
from analysis.experiments.graph import GRAPH, LES_MISERABLES, LETTERS
from analysis.experiments.twins import TWINS

EXPERIMENTS: dict[str, Experiment] = {e.name: e for e in (GRAPH, LETTERS, LES_MISERABLES, TWINS)}

__all__ = ["EXPERIMENTS", "PRESETS", "Experiment", "Preset"]
