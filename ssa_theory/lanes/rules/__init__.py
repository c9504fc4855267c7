"""How the operations of a recorded loss and its gradient become nodes of a lane program."""

from ssa_theory.lanes.rules import elementwise, shapes, slopes, sorting, sums  # noqa: F401, which registers them
