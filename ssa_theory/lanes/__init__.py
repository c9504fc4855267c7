"""Training steps compiled with the model axis as the vector lane."""

from ssa_theory.lanes.kernel import Kernel, Optimizer
from ssa_theory.lanes.program import Unsupported
from ssa_theory.lanes.record import Loss, Parameters, Watch, gradients, leaves, signature

__all__ = [
    "Kernel",
    "Loss",
    "Optimizer",
    "Parameters",
    "Unsupported",
    "Watch",
    "gradients",
    "leaves",
    "signature",
]
