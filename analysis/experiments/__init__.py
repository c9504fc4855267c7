"""The experiments, by name, in the order of the report."""

from collections import UserDict
from importlib import import_module
from typing import Any

PLACES = {
    "graph": "graph.GRAPH",
    "letters": "graph.LETTERS",
    "les-miserables": "graph.LES_MISERABLES",
    "paper-theory": "paper_theory.PAPER_THEORY",
    "paper-graph": "paper_graph.PAPER_GRAPH",
    "hierarchy": "hierarchy.HIERARCHY",
    "norms": "norms.NORMS",
    "convergence": "convergence.CONVERGENCE",
    "twins": "twins.TWINS",
    "denoise": "denoise.DENOISE",
    "basis-denoise": "basis_denoise.BASIS_DENOISE",
    "retrieval": "retrieval.RETRIEVAL",
    "length": "length.LENGTH",
    "dilution": "dilution.DILUTION",
    "critical": "critical.CRITICAL",
    "imbalance": "imbalance.IMBALANCE",
    "ablation": "ablation.ABLATION",
    "normalizers": "normalizers.NORMALIZERS",
    "phase": "phase.PHASE",
    "atlas": "atlas.ATLAS",
    "overhead": "overhead.OVERHEAD",
    "language": "language.LANGUAGE",
}
"""Where each experiment is defined: module of this package, and variable."""
APART = frozenset({"language"})
"""Those that `run all` leaves out, as they take minutes more: run them by name."""

LONGEST = (
    *("hierarchy", "atlas", "basis-denoise", "denoise"),
    *("normalizers", "length", "ablation", "paper-graph"),
)
"""Those that take longest at the preset `paper`: begun last, they leave other processes idle."""


class Experiments(UserDict[str, Any]):
    """By name, the `Experiment`, or its place as in `PLACES`, which is imported when the experiment
    is asked for: so a command that needs only the names need not wait for torch.
    """

    def __getitem__(self, name: str) -> Any:
        if isinstance(place := self.data[name], str):
            module, variable = place.split(".")
            self.data[name] = getattr(import_module(f"{__name__}.{module}"), variable)
        return self.data[name]


EXPERIMENTS = Experiments(PLACES)

__all__ = ["APART", "EXPERIMENTS", "LONGEST", "PLACES"]
