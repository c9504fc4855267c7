"""How the operations of a traced loss and its gradient become nodes of a lane program."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, fx

from ssa_theory.lanes.lower import Laned, Lowering, Value, opname, rule
from ssa_theory.lanes.program import (
    Concatenate,
    Dtype,
    Gather,
    Index,
    Node,
    Scatter,
    Shape,
    Stride,
    Unsupported,
)

_CHEAP = {
    "mul": "({0}*{1})",
    "neg": "(-{0})",
    "abs": "vabs({0})",
    "relu": "({0} < 0 ? bc(0) : {0})",
    "sign": "(({0} > 0 ? bc(1) : bc(0)) - ({0} < 0 ? bc(1) : bc(0)))",
    "maximum": "vmax({0}, {1})",
    "minimum": "vmin({0}, {1})",
}
_COSTLY = {
    "div": "vdiv({0}, {1})",
    "exp": "vexp({0})",
    "log": "vlog({0})",
    "tanh": "vtanh({0})",
    "sigmoid": "vsigmoid({0})",
    "erf": "verf({0})",
    "sqrt": "vsqrt({0})",
    "reciprocal": "vdiv(bc(1), {0})",
    "rsqrt": "vdiv(bc(1), vsqrt({0}))",
}
_COMPARED = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "eq": "==", "ne": "!="}
_MASKS = {"logical_and": "({0} & {1})", "logical_or": "({0} | {1})", "logical_not": "(~{0})"}
_MASKS |= {"bitwise_and": "({0} & {1})", "bitwise_or": "({0} | {1})", "bitwise_not": "(~{0})"}


@rule(*_CHEAP, *_COSTLY)
def _elementwise(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    name = opname(node)
    dtype = lower.traced_dtype(node)
    if name in _CHEAP:
        return lower.elementwise(node, _CHEAP[name], args, dtype)
    if name == "div" and not isinstance(args[1], Laned):  # a product, by a number known now
        by = args[1]
        inverse = 1 / by if isinstance(by, Tensor) and by.is_floating_point() else None
        if isinstance(by, int | float) and by:
            inverse = 1 / by
        if inverse is not None:
            return lower.elementwise(node, "({0}*{1})", [args[0], inverse])
    return lower.elementwise(node, _COSTLY[name], args, "real", costly=True)


@rule("gelu")
def _gelu(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    """x Phi(x), Phi the normal distribution."""
    if node.kwargs.get("approximate", "none") != "none":
        raise Unsupported("gelu by tanh")
    lower.traced_dtype(node)
    program, x = lower.program, args[0].node
    inner = program.map("({0}*{1})", x, program.scalar(math.sqrt(0.5)))
    erf = program.map("verf({0})", inner, costly=True)
    half = program.map("({0}*{1})", x, program.scalar(0.5))
    made = program.map("({0}*{1})", half, program.map("({0} + {1})", erf, program.scalar(1)))
    return Laned(made, args[0].lane)


@rule("add", "sub", "rsub")
def _sum_of_two(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    name = opname(node)
    first, second = (args[1], args[0]) if name == "rsub" else (args[0], args[1])
    sign, alpha = "+" if name == "add" else "-", node.kwargs.get("alpha", 1)
    if alpha != 1:
        raise Unsupported(f"{name} with alpha {alpha}")
    return lower.elementwise(
        node, f"({{0}} {sign} {{1}})", [first, second], lower.traced_dtype(node)
    )


@rule(*_COMPARED)
def _compared(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    sign = _COMPARED[opname(node)]
    kinds = {a.node.dtype for a in args if isinstance(a, Laned)}
    kinds |= {lower.dtype_of(a.dtype) for a in args if isinstance(a, Tensor)}
    common: Dtype = "real" if "real" in kinds else "int" if "int" in kinds else "mask"
    return lower.elementwise(node, f"({{0}} {sign} {{1}})", args, common)


@rule(*_MASKS)
def _of_masks(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    return lower.elementwise(node, _MASKS[opname(node)], args, "mask")


@rule("where")
def _where(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    right = next(a.rank - a.lane for a in args if isinstance(a, Laned))
    mask = lower.laned(args[0], right, "mask")
    kind = lower.traced_dtype(node)
    rest = [lower.laned(a, right, kind) for a in args[1:]]
    return lower.elementwise(node, "({0} ? {1} : {2})", [mask, *rest], None)


@rule("clamp")
def _clamp(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    made: Laned = args[0]
    bounds: list[Any] = [*args[1:], None, None]
    low: Any = node.kwargs.get("min", bounds[0])
    high: Any = node.kwargs.get("max", bounds[1])
    if low is not None:
        made = lower.elementwise(node, "({0} < {1} ? {1} : {0})", [made, low])
    if high is not None:
        made = lower.elementwise(node, "({0} > {1} ? {1} : {0})", [made, high])
    return made


@rule("pow")
def _power(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    base, exponent = args[:2]
    if isinstance(exponent, int | float):
        exact = {1: "({0})", 2: "({0}*{0})", 3: "({0}*{0}*{0})"}
        if exponent in exact:
            return lower.elementwise(node, exact[exponent], [base])
        roots = {0.5: "vsqrt({0})", -1: "vdiv(bc(1), {0})", -0.5: "vdiv(bc(1), vsqrt({0}))"}
        if exponent in roots:
            return lower.elementwise(node, roots[exponent], [base], "real", costly=True)
    return lower.elementwise(node, "vpow({0}, {1})", [base, exponent], "real", costly=True)


@rule("sum", "mean", "amax", "amin")
def _reduced(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    name = opname(node)
    value, dims = args[0], args[1] if len(args) > 1 else None
    rank = value.rank
    axes = {d % rank for d in (dims if dims else range(rank))}
    if value.lane in axes:
        raise Unsupported(f"a {name} over the models")
    keep = bool(args[2]) if len(args) > 2 else False
    kind = lower.traced_dtype(node)
    inner = lower.laned(value, rank - value.lane, kind).node
    by: Literal["sum", "max", "min"] = "sum"
    if name != "mean" and name != "sum":
        by = "max" if name == "amax" else "min"
    free = [_free(d, value.lane) for d in axes]
    made = lower.program.reduce(inner, free, by, keep)
    if name == "mean":
        count = math.prod(inner.shape[k] for k in free)
        made = lower.program.map("({0}*{1})", made, lower.program.scalar(1 / count))
    return Laned(made, value.lane - (0 if keep else sum(d < value.lane for d in axes)))


@rule("_softmax", "_log_softmax")
def _softmax(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    value, dim = args[0], args[1] % args[0].rank
    if dim == value.lane:
        raise Unsupported("a softmax over the models")
    program, axis = lower.program, _free(dim, value.lane)
    lower.traced_dtype(node)
    top = program.reduce(value.node, [axis], "max", True)
    shifted = program.map("({0} - {1})", value.node, top)
    grown = program.map("vexp({0})", shifted, costly=True)
    total = program.reduce(grown, [axis], "sum", True)
    if opname(node) == "_log_softmax":
        log = program.map("vlog({0})", total, costly=True)
        return Laned(program.map("({0} - {1})", shifted, log), value.lane)
    inverse = program.map("vdiv(bc(1), {0})", total, costly=True)
    return Laned(program.map("({0}*{1})", grown, inverse), value.lane)


@rule("bmm")
def _batched_product(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    (x, y), right = lower.arguments(args[:2], lower.traced_dtype(node))
    if right != 3:
        raise Unsupported("a batched product whose batch is not the model axis")
    (n, k), m = x.shape, y.shape[1]
    left = lower.program.view(x, (n, k, m), [Index((Stride(0),)), Index((Stride(1),))])
    back = lower.program.view(y, (n, k, m), [Index((Stride(1),)), Index((Stride(2),))])
    product = lower.program.map("({0}*{1})", left, back)
    return Laned(lower.program.reduce(product, [1], "sum", False), 0)


@rule("alias", "clone", "detach", "contiguous", "lift_fresh_copy")
def _same(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    return args[0]


@rule("copy")
def _written(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    right, rank = _right(*args[:2]), node.meta["val"].ndim
    of = lower.laned(args[1], right, lower.traced_dtype(node)).node
    shape = _without(tuple(node.meta["val"].shape), rank - right)
    return Laned(lower.program.expand(of, shape), rank - right)


@rule("_to_copy")
def _converted(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    return lower.laned(args[0], args[0].rank - args[0].lane, lower.traced_dtype(node))


@rule("expand", "unsqueeze", "squeeze", "view", "_unsafe_view")
def _shaped(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    value, shape = args[0], tuple(node.meta["val"].shape)
    name = opname(node)
    if name == "expand":
        lane = len(shape) - (value.rank - value.lane)
        return Laned(lower.program.expand(value.node, _without(shape, lane)), lane)
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
    return Laned(lower.program.reshape(value.node, _without(shape, lanes[0])), lanes[0])


def _without_one(value: Laned, dim: int) -> bool:
    return value.node.shape[_free(dim, value.lane)] == 1


@rule("permute")
def _permuted(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    value, order = args[0], [d % args[0].rank for d in args[1]]
    free = [_free(d, value.lane) for d in order if d != value.lane]
    index = [Index((Stride(free.index(k)),)) for k in range(len(free))]
    shape = tuple(value.node.shape[k] for k in free)
    return Laned(lower.program.view(value.node, shape, index), order.index(value.lane))


@rule("slice", "select")
def _part(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    value, dim = args[0], (args[1] if len(args) > 1 else 0) % args[0].rank
    if dim == value.lane:
        raise Unsupported("a part of the models")
    axis, shape = _free(dim, value.lane), value.node.shape
    index = [Index((Stride(k),)) for k in range(len(shape))]
    if opname(node) == "select":
        index = [Index((Stride(k - (k > axis)),)) for k in range(len(shape))]
        index[axis] = Index(offset=args[2] % shape[axis])
        made = lower.program.view(value.node, shape[:axis] + shape[axis + 1 :], index)
        return Laned(made, value.lane - (dim < value.lane))
    first, step = slice(*args[2:4]).indices(shape[axis])[0], args[4] if len(args) > 4 else 1
    size = node.meta["val"].shape[dim]
    index[axis] = Index((Stride(axis, step),), first)
    new = (*shape[:axis], size, *shape[axis + 1 :])
    return Laned(lower.program.view(value.node, new, index), value.lane)


@rule("cat")
def _joined(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    rank = node.meta["val"].ndim
    dim = (args[1] if len(args) > 1 else 0) % rank
    nodes, right = lower.arguments(args[0], lower.traced_dtype(node))
    return Laned(_concatenated(lower, nodes, _free(dim, rank - right)), rank - right)


@rule("slice_scatter", "select_scatter")
def _into(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    rank = node.meta["val"].ndim
    dim = args[2] % rank
    (whole, part), right = lower.arguments(
        [args[0], _raised(lower, args[1], dim) if opname(node) == "select_scatter" else args[1]],
        lower.traced_dtype(node),
    )
    axis = _free(dim, rank - right)
    size = whole.shape[axis]
    if opname(node) == "select_scatter":
        first = args[3] % size
        last, step = first + 1, 1
    else:
        first, last, step = slice(*[*args[3:6], None, None, None][:3]).indices(size)
    if step != 1:
        raise Unsupported("writing every other entry")
    pieces = [_cut(lower, whole, axis, 0, first), part, _cut(lower, whole, axis, last, size)]
    return Laned(_concatenated(lower, [p for p in pieces if p.shape[axis]], axis), rank - right)


def _raised(lower: Lowering, value: Value, dim: int) -> Value:
    """With an axis of length 1 at `dim`, as a selected part lost it."""
    if isinstance(value, Tensor):
        return value.unsqueeze(dim)
    assert isinstance(value, Laned)
    lane = value.lane + (dim <= value.lane)
    axis, shape = _free(dim, lane), value.node.shape
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


@rule("gather")
def _gathered(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    value, dim, at = args[0], args[1] % node.meta["val"].ndim, args[2]
    (of,), right = lower.arguments([value, at], None)[0][:1], _right(value, at)
    places = lower.laned(at, right, "int").node
    rank = node.meta["val"].ndim
    if dim == rank - right:
        raise Unsupported("a gather over the models")
    axis = _free(dim, rank - right)
    of = lower.program.expand(of, (*places.shape[:axis], of.shape[axis], *places.shape[axis + 1 :]))
    made = Gather(places.shape, of.dtype, of, places, axis)
    return Laned(lower.program.add(made), rank - right)


@rule("scatter_add")
def _scattered(lower: Lowering, node: fx.Node, args: Sequence[Any]) -> Laned:
    base, dim, at, value = args[0], args[1] % node.meta["val"].ndim, args[2], args[3]
    kind = lower.traced_dtype(node)
    right = _right(base, at, value)
    rank = node.meta["val"].ndim
    if dim == rank - right:
        raise Unsupported("a scatter over the models")
    axis = _free(dim, rank - right)
    places, of = lower.laned(at, right, "int").node, lower.laned(value, right, kind).node
    shape = _without(tuple(node.meta["val"].shape), rank - right)
    sizes = [n for k, n in enumerate(shape) if k != axis]
    if sizes != [n for k, n in enumerate(places.shape) if k != axis] or of.shape != places.shape:
        raise Unsupported("a scatter into a part of a tensor")
    made: Node = lower.program.add(Scatter(shape, kind, of, places, axis))
    if not (isinstance(base, Tensor) and not base.any()):
        start = lower.laned(base, right, kind).node
        made = lower.program.map("({0} + {1})", start, made)
    return Laned(made, rank - right)


def _right(*args: Value) -> int:
    """Where the model axis stands from the right."""
    return next(a.rank - a.lane for a in args if isinstance(a, Laned))


def _free(dim: int, lane: int) -> int:
    """The number of an axis without the model axis."""
    return dim - (dim > lane)


def _without(shape: Shape, lane: int) -> Shape:
    return shape[:lane] + shape[lane + 1 :]
