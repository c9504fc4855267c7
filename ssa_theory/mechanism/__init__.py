"""What an attention layer is: one description of its parts, one layer that wears them, one
registry.
"""

from ssa_theory.mechanism.layer import Inputs, Layer, Tokens
from ssa_theory.mechanism.load import file_of, known, mechanism
from ssa_theory.mechanism.mechanism import VANILLA, Look, Mechanism, Shift
from ssa_theory.mechanism.parts import Form, Generators, Misfit, Parameters, Part, Role, View
from ssa_theory.mechanism.registry import MECHANISMS

__all__ = [
    "MECHANISMS",
    "VANILLA",
    "Form",
    "Generators",
    "Inputs",
    "Layer",
    "Look",
    "Mechanism",
    "Misfit",
    "Parameters",
    "Part",
    "Role",
    "Shift",
    "Tokens",
    "View",
    "file_of",
    "known",
    "mechanism",
]
