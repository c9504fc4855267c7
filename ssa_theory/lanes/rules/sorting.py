"""Sorted rows. Ranks are counted, which for the short rows of a lane is as fast as sorting."""

from collections.abc import Sequence
from typing import Any

import torch

from ssa_theory.lanes.lower import Known, Laned, Lowering, rule
from ssa_theory.lanes.program import Index, Node, Scatter, Stride, Unsupported
from ssa_theory.lanes.record import Operation
from ssa_theory.lanes.rules.axes import free, right_of, without


@rule("max", "min")
def _largest(
    lower: Lowering, operation: Operation, args: Sequence[Any]
) -> tuple[Laned, Unsupported]:
    """The values along an axis; nobody has asked for their places yet."""
    value, dim = args[0], args[1] % args[0].rank
    if dim == value.lane:
        raise Unsupported("a largest value over the models")
    keep = len(args) > 2 and bool(args[2])
    by = "max" if operation.name == "max" else "min"
    made = lower.program.reduce(value.node, [free(dim, value.lane)], by, keep)
    lane = value.lane - (0 if keep else dim < value.lane)
    return Laned(made, lane), Unsupported("the place of a largest value")


@rule("sort", "topk")
def _sorted(lower: Lowering, operation: Operation, args: Sequence[Any]) -> tuple[Laned, Laned]:
    """sorted_k = sum_i x_i [rank_i = k], rank_i = #{j: x_j before x_i}; equal ones in their order."""
    value = args[0]
    if operation.name == "sort":
        dim, descending = (*args[1:], *(-1, False)[len(args) - 1 :])
        count = value.node.shape[free(dim % value.rank, value.lane)]
    else:
        count, dim, descending = (*args[1:4], *(-1, True)[len(args) - 2 :])
    dim %= value.rank
    if dim == value.lane:
        raise Unsupported("sorted models")
    program, axis, x = lower.program, free(dim, value.lane), value.node
    size = x.shape[axis]
    own, other = _beside(lower, x, axis, 0), _beside(lower, x, axis, 1)
    first = _places(lower, x, axis, 0), _places(lower, x, axis, 1)
    before = program.map("({0} > {1})" if descending else "({0} < {1})", other, own, dtype="mask")
    equal = program.map("({0} == {1})", other, own, dtype="mask")
    earlier = program.map("({0} < {1})", first[1], first[0], dtype="mask")
    ahead = program.map("-({0} | ({1} & {2}))", before, equal, earlier, dtype="int")
    rank = program.reduce(ahead, [axis + 1], "sum", False)
    places = program.expand(
        program.view(_numbers(lower, size), _along(x, axis), [Index((Stride(axis),))]), x.shape
    )
    values = program.add(Scatter(x.shape, "real", x, rank, axis))
    indices = program.add(Scatter(x.shape, "int", places, rank, axis))
    lower.distinct.add(indices)
    made = [_first(lower, n, axis, count) for n in (values, indices)]
    lower.distinct.add(made[1])
    return Laned(made[0], value.lane), Laned(made[1], value.lane)


@rule("cumsum")
def _cumulated(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    """out_i = sum of x_j over j <= i."""
    value, dim = args[0], args[1] % args[0].rank
    if dim == value.lane:
        raise Unsupported("a sum over the models")
    program, axis = lower.program, free(dim, value.lane)
    x = lower.laned(value, value.rank - value.lane, lower.dtype_made(operation)).node
    i, j = _places(lower, x, axis, 0), _places(lower, x, axis, 1)
    upto = program.map("({0} <= {1})", j, i, dtype="mask")
    zero = "bc(0)" if x.dtype == "real" else "ibc(0)"
    term = program.map(f"({{0}} ? {{1}} : {zero})", upto, _beside(lower, x, axis, 1), dtype=x.dtype)
    return Laned(program.reduce(term, [axis + 1], "sum", False), value.lane)


@rule("scatter")
def _put(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    """Entries written at distinct places, such as a sort's."""
    base, dim, at, value = args[0], args[1] % len(operation.shape), args[2], args[3]
    dtype = lower.dtype_made(operation)
    right, rank = right_of(base, at, value), len(operation.shape)
    if not (isinstance(at, Laned) and at.node in lower.distinct):
        raise Unsupported("entries written at places that may be equal")
    shape = without(operation.shape, rank - right)
    places, of = at.node, lower.program.expand(lower.laned(value, right, dtype).node, at.node.shape)
    start, axis = lower.laned(base, right, dtype).node, free(dim, rank - right)
    one = lower.program.expand(lower.program.scalar(1), of.shape)
    written = lower.program.add(Scatter(shape, "real", one, places, axis))
    put = lower.program.add(Scatter(shape, dtype, of, places, axis))
    made = lower.program.map("({0} != bc(0) ? {1} : {2})", written, put, start, dtype=dtype)
    return Laned(made, rank - right)


def _beside(lower: Lowering, x: Node, axis: int, which: int) -> Node:
    """x_i (which 0) or x_j (1) with axes i, j at and after `axis`."""
    size = x.shape[axis]
    shape = (*x.shape[:axis], size, size, *x.shape[axis + 1 :])
    index = [Index((Stride(k + (k > axis)),)) for k in range(len(x.shape))]
    index[axis] = Index((Stride(axis + which),))
    return lower.program.view(x, shape, index)


def _places(lower: Lowering, x: Node, axis: int, which: int) -> Node:
    """The numbers i (which 0) or j (1) in the shape of `_beside`."""
    size = x.shape[axis]
    shape = (*x.shape[:axis], size, size, *x.shape[axis + 1 :])
    return lower.program.view(_numbers(lower, size), shape, [Index((Stride(axis + which),))])


def _along(x: Node, axis: int) -> tuple[int, ...]:
    return tuple(n if k == axis else 1 for k, n in enumerate(x.shape))


def _numbers(lower: Lowering, size: int) -> Node:
    """0, 1, ..., the same for all models."""
    return lower.laned(Known.of(torch.arange(size).unsqueeze(-1)), 1).node


def _first(lower: Lowering, x: Node, axis: int, count: int) -> Node:
    index = [Index((Stride(k),)) for k in range(len(x.shape))]
    return lower.program.view(x, (*x.shape[:axis], count, *x.shape[axis + 1 :]), index)
