"""Where axes are, with the model axis and without it."""

from ssa_theory.lanes.lower import Argument, Laned
from ssa_theory.lanes.program import Shape


def right_of(*args: Argument) -> int:
    """Where the model axis stands from the right."""
    return next(a.rank - a.lane for a in args if isinstance(a, Laned))


def free(dim: int, lane: int) -> int:
    """The number of an axis without the model axis."""
    return dim - (dim > lane)


def without(shape: Shape, lane: int) -> Shape:
    return shape[:lane] + shape[lane + 1 :]
