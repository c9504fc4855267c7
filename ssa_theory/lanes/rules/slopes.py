"""What the gradients of operations are made of. Torch could take them apart itself, but imports for
seconds to do so.
"""

import math
from collections.abc import Sequence
from typing import Any

from ssa_theory.lanes.lower import Laned, Lowering, rule
from ssa_theory.lanes.program import Unsupported
from ssa_theory.lanes.record import Operation
from ssa_theory.lanes.rules.axes import free, right_of
from ssa_theory.lanes.rules.elementwise import normal_parts


@rule("tanh_backward")
def _of_tanh(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    """g (1 - y^2)."""
    return lower.elementwise(operation, "({0}*(1 - {1}*{1}))", args[:2])


@rule("sigmoid_backward")
def _of_sigmoid(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    """g y (1 - y)."""
    return lower.elementwise(operation, "({0}*({1}*(1 - {1})))", args[:2])


@rule("threshold_backward")
def _of_threshold(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    """g where x is above the threshold."""
    return lower.elementwise(operation, "({1} <= {2} ? bc(0) : {0})", args[:3])


@rule("gelu_backward")
def _of_gelu(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    """g (Phi(x) + x phi(x)), Phi and phi the normal distribution and its density."""
    if operation.options.get("approximate", "none") != "none":
        raise Unsupported("gelu by tanh")
    program = lower.program
    (slope, x), right = lower.arguments(args[:2], lower.dtype_made(operation))
    erf, density = normal_parts(program, x)
    below = program.map("({0}*({1} + 1))", program.scalar(0.5), erf)
    moved = program.map("({0}*{1}*{2})", program.scalar((2 * math.pi) ** -0.5), x, density)
    made = program.map("({0}*({1} + {2}))", slope, below, moved)
    return Laned(made, len(made.shape) + 1 - right)


@rule("_softmax_backward_data", "_log_softmax_backward_data")
def _of_softmax(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    """g y - y sum g y of y the softmax; g - e^y sum g of y its logarithm."""
    right, rank = right_of(*args[:2]), len(operation.shape)
    dim = args[2] % rank
    if dim == rank - right:
        raise Unsupported("a softmax over the models")
    (slope, y), _ = lower.arguments(args[:2], lower.dtype_made(operation))
    program, axis = lower.program, free(dim, rank - right)
    if operation.name == "_softmax_backward_data":
        slope = program.map("({0}*{1})", slope, y)
    else:
        y = lower.exponentials.get(y) or program.map("vexp_falling({0})", y, costly=True)
    total = program.reduce(slope, [axis], "sum", True)
    return Laned(program.map("({0} - {1}*{2})", slope, y, total), rank - right)
