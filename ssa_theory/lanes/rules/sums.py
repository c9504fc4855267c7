"""Reductions, softmax and products of matrices; entries taken and put by index."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from ssa_theory.lanes.lower import Known, Laned, Lowering, rule
from ssa_theory.lanes.program import Gather, Index, Node, Scatter, Stride, Unsupported
from ssa_theory.lanes.record import Operation
from ssa_theory.lanes.rules.axes import free, right_of, without


@rule("sum", "mean", "amax", "amin")
def _reduced(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    name = operation.name
    value, dims = args[0], args[1] if len(args) > 1 else None
    rank = value.rank
    axes = {d % rank for d in (dims if dims else range(rank))}
    if value.lane in axes:
        raise Unsupported(f"a {name} over the models")
    keep = bool(args[2]) if len(args) > 2 else False
    dtype = lower.dtype_made(operation)
    inner = lower.laned(value, rank - value.lane, dtype).node
    by: Literal["sum", "max", "min"] = "sum"
    if name != "mean" and name != "sum":
        by = "max" if name == "amax" else "min"
    gone = [free(d, value.lane) for d in axes]
    made = lower.program.reduce(inner, gone, by, keep)
    if name == "mean":
        count = math.prod(inner.shape[k] for k in gone)
        made = lower.program.map("({0}*{1})", made, lower.program.scalar(1 / count))
    return Laned(made, value.lane - (0 if keep else sum(d < value.lane for d in axes)))


@rule("_softmax", "_log_softmax")
def _softmax(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    value, dim = args[0], args[1] % args[0].rank
    if dim == value.lane:
        raise Unsupported("a softmax over the models")
    program, axis = lower.program, free(dim, value.lane)
    lower.dtype_made(operation)
    top = program.reduce(value.node, [axis], "max", True)
    shifted = program.map("({0} - {1})", value.node, top)
    grown = program.map("vexp_falling({0})", shifted, costly=True)
    total = program.reduce(grown, [axis], "sum", True)
    inverse = program.map("vdiv(bc(1), {0})", total, costly=True)
    made = program.map("({0}*{1})", grown, inverse)
    if operation.name == "_log_softmax":
        log = program.map("vlog({0})", total, costly=True)
        exponential, made = made, program.map("({0} - {1})", shifted, log)
        lower.exponentials[made] = exponential
    return Laned(made, value.lane)


@rule("bmm")
def _batched_product(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    (x, y), right = lower.arguments(args[:2], lower.dtype_made(operation))
    if right != 3:
        raise Unsupported("a batched product whose batch is not the model axis")
    (n, k), m = x.shape, y.shape[1]
    left = lower.program.view(x, (n, k, m), [Index((Stride(0),)), Index((Stride(1),))])
    back = lower.program.view(y, (n, k, m), [Index((Stride(1),)), Index((Stride(2),))])
    product = lower.program.map("({0}*{1})", left, back)
    return Laned(lower.program.reduce(product, [1], "sum", False), 0)


@rule("baddbmm")
def _product_beside(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    """A batched product added to something."""
    if any(operation.options.get(factor, 1) != 1 for factor in ("alpha", "beta")):
        raise Unsupported("a batched product with factors")
    product = _batched_product(lower, operation, args[1:])
    return lower.elementwise(operation, "({0} + {1})", [args[0], product])


@rule("gather")
def _gathered(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    value, dim, at = args[0], args[1] % len(operation.shape), args[2]
    (of,), right = lower.arguments([value, at], None)[0][:1], right_of(value, at)
    places = lower.laned(at, right, "int").node
    rank = len(operation.shape)
    if dim == rank - right:
        raise Unsupported("a gather over the models")
    axis = free(dim, rank - right)
    of = lower.program.expand(of, (*places.shape[:axis], of.shape[axis], *places.shape[axis + 1 :]))
    made = Gather(places.shape, of.dtype, of, places, axis)
    return Laned(lower.program.add(made), rank - right)


@rule("scatter_add")
def _scattered(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    base, dim, at, value = args[0], args[1] % len(operation.shape), args[2], args[3]
    dtype = lower.dtype_made(operation)
    right = right_of(base, at, value)
    rank = len(operation.shape)
    if dim == rank - right:
        raise Unsupported("a scatter over the models")
    axis = free(dim, rank - right)
    places, of = lower.laned(at, right, "int").node, lower.laned(value, right, dtype).node
    shape = without(operation.shape, rank - right)
    sizes = [n for k, n in enumerate(shape) if k != axis]
    if sizes != [n for k, n in enumerate(places.shape) if k != axis] or of.shape != places.shape:
        raise Unsupported("a scatter into a part of a tensor")
    made: Node = lower.program.add(Scatter(shape, dtype, of, places, axis))
    if not (isinstance(base, Known) and base.fixed and not base.tensor.any()):
        start = lower.laned(base, right, dtype).node
        made = lower.program.map("({0} + {1})", start, made)
    return Laned(made, rank - right)
