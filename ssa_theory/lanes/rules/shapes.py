"""Views, parts, and tensors put together."""

import math
from collections.abc import Sequence
from typing import Any

from ssa_theory.lanes.lower import Argument, Known, Laned, Lowering, rule
from ssa_theory.lanes.program import Concatenate, Index, Node, Stride, Unsupported
from ssa_theory.lanes.record import Operation
from ssa_theory.lanes.rules.axes import free, right_of, without


@rule("alias", "clone", "detach", "contiguous", "lift_fresh_copy")
def _same(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    return args[0]


@rule("copy")
def _written(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    right, rank = right_of(*args[:2]), len(operation.shape)
    of = lower.laned(args[1], right, lower.dtype_made(operation)).node
    shape = without(operation.shape, rank - right)
    return Laned(lower.program.expand(of, shape), rank - right)


@rule("_to_copy")
def _converted(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    return lower.laned(args[0], args[0].rank - args[0].lane, lower.dtype_made(operation))


@rule("expand", "unsqueeze", "squeeze", "view", "_unsafe_view")
def _shaped(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    value, shape = args[0], operation.shape
    name = operation.name
    if name == "expand":
        lane = len(shape) - (value.rank - value.lane)
        return Laned(lower.program.expand(value.node, without(shape, lane)), lane)
    before = math.prod(value.node.shape[: value.lane])
    lanes = [
        k
        for k, n in enumerate(shape)
        if math.prod(shape[:k]) == before
        and math.prod(shape[k + 1 :]) == math.prod(value.node.shape[value.lane :])
        and n in (1, lower.members)
    ]
    if name == "unsqueeze":
        at = args[1] % len(shape)
        lanes = [value.lane + (at <= value.lane)]
    if name == "squeeze":
        gone = [d % value.rank for d in ([args[1]] if isinstance(args[1], int) else args[1])]
        gone = [d for d in gone if d != value.lane and _without_one(value, d)]
        lanes = [value.lane - sum(d < value.lane for d in gone)]
    if not lanes or not (lanes[0] < len(shape)) or shape[lanes[0]] not in (1, lower.members):
        raise Unsupported("a view that mixes the model axis with another")
    return Laned(lower.program.reshape(value.node, without(shape, lanes[0])), lanes[0])


def _without_one(value: Laned, dim: int) -> bool:
    return value.node.shape[free(dim, value.lane)] == 1


@rule("permute")
def _permuted(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    value, order = args[0], [d % args[0].rank for d in args[1]]
    left = [free(d, value.lane) for d in order if d != value.lane]
    index = [Index((Stride(left.index(k)),)) for k in range(len(left))]
    shape = tuple(value.node.shape[k] for k in left)
    return Laned(lower.program.view(value.node, shape, index), order.index(value.lane))


@rule("slice", "select")
def _part(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    value, dim = args[0], (args[1] if len(args) > 1 else 0) % args[0].rank
    if dim == value.lane:
        raise Unsupported("a part of the models")
    axis, shape = free(dim, value.lane), value.node.shape
    index = [Index((Stride(k),)) for k in range(len(shape))]
    if operation.name == "select":
        index = [Index((Stride(k - (k > axis)),)) for k in range(len(shape))]
        index[axis] = Index(offset=args[2] % shape[axis])
        made = lower.program.view(value.node, shape[:axis] + shape[axis + 1 :], index)
        return Laned(made, value.lane - (dim < value.lane))
    first, step = slice(*args[2:4]).indices(shape[axis])[0], args[4] if len(args) > 4 else 1
    size = operation.shape[dim]
    index[axis] = Index((Stride(axis, step),), first)
    new = (*shape[:axis], size, *shape[axis + 1 :])
    return Laned(lower.program.view(value.node, new, index), value.lane)


@rule("cat")
def _joined(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    rank = len(operation.shape)
    dim = (args[1] if len(args) > 1 else 0) % rank
    nodes, right = lower.arguments(args[0], lower.dtype_made(operation))
    return Laned(_concatenated(lower, nodes, free(dim, rank - right)), rank - right)


@rule("slice_scatter", "select_scatter")
def _into(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    rank = len(operation.shape)
    dim = args[2] % rank
    (whole, part), right = lower.arguments(
        [args[0], _raised(lower, args[1], dim) if operation.name == "select_scatter" else args[1]],
        lower.dtype_made(operation),
    )
    axis = free(dim, rank - right)
    size = whole.shape[axis]
    if operation.name == "select_scatter":
        first = args[3] % size
        last, step = first + 1, 1
    else:
        first, last, step = slice(*[*args[3:6], None, None, None][:3]).indices(size)
    if step != 1:
        raise Unsupported("writing every other entry")
    pieces = [_cut(lower, whole, axis, 0, first), part, _cut(lower, whole, axis, last, size)]
    return Laned(_concatenated(lower, [p for p in pieces if p.shape[axis]], axis), rank - right)


def _raised(lower: Lowering, value: Argument, dim: int) -> Argument:
    """With an axis of length 1 at `dim`, as a selected part lost it."""
    if isinstance(value, Known):
        return value.then(lambda t: t.unsqueeze(dim))
    assert isinstance(value, Laned)
    lane = value.lane + (dim <= value.lane)
    axis, shape = free(dim, lane), value.node.shape
    return Laned(lower.program.reshape(value.node, (*shape[:axis], 1, *shape[axis:])), lane)


def _cut(lower: Lowering, of: Node, axis: int, first: int, last: int) -> Node:
    index = [Index((Stride(k),)) for k in range(len(of.shape))]
    index[axis] = Index((Stride(axis),), first)
    return lower.program.view(of, (*of.shape[:axis], last - first, *of.shape[axis + 1 :]), index)


def _concatenated(lower: Lowering, parts: Sequence[Node], axis: int) -> Node:
    if len(parts) == 1:
        return parts[0]
    size = sum(p.shape[axis] for p in parts)
    shape = (*parts[0].shape[:axis], size, *parts[0].shape[axis + 1 :])
    return lower.program.add(Concatenate(shape, parts[0].dtype, tuple(parts), axis))
