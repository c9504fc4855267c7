"""Training steps compiled with the model axis as the vector lane."""

from ssa_theory.lanes.kernel import Kernel, Moments, Optimizer
from ssa_theory.lanes.program import Unsupported
from ssa_theory.lanes.trace import leaves, signature

__all__ = ["Kernel", "Moments", "Optimizer", "Unsupported", "leaves", "signature"]
