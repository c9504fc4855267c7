"""Operations on each entry."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from ssa_theory.lanes.lower import Known, Laned, Lowering, rule
from ssa_theory.lanes.program import Dtype, Map, Node, Program, Reduce, Unsupported, View
from ssa_theory.lanes.record import Operation

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
    "log1p": "vlog(bc(1) + {0})",
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
def _elementwise(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    name = operation.name
    dtype = lower.dtype_made(operation)
    if name in _CHEAP:
        return lower.elementwise(operation, _CHEAP[name], args, dtype)
    if name == "div" and not isinstance(args[1], Laned):  # a product, by a number known now
        by = args[1]
        inverse = (
            by.then(torch.reciprocal)
            if isinstance(by, Known) and by.tensor.is_floating_point()
            else None
        )
        if isinstance(by, int | float) and by:
            inverse = 1 / by
        if inverse is not None:
            return lower.elementwise(operation, "({0}*{1})", [args[0], inverse])
    code = _COSTLY[name]
    if name == "exp" and _less_its_most(args[0].node):
        code = "vexp_falling({0})"
    return lower.elementwise(operation, code, args, "real", costly=True)


def _less_its_most(node: Node) -> bool:
    """Whether it is x - max x, which is at most 0."""
    if not isinstance(node, Map) or node.code != "({0} - {1})":
        return False
    whole, most = node.args
    while isinstance(most, View):
        most = most.of
    return isinstance(most, Reduce) and most.by == "max" and most.of is whole


def normal_parts(program: Program, x: Node) -> tuple[Node, Node]:
    """erf(x / sqrt 2) and e^(-x^2 / 2), of which gelu and its slope are made: the same nodes in both."""
    square = program.map("({0}*{1}*{1})", program.scalar(-0.5), x)
    density = program.map("vexp_falling({0})", square, costly=True)
    inner = program.map("({0}*{1})", x, program.scalar(math.sqrt(0.5)))
    return program.map("verf({0}, {1})", inner, density, costly=True), density


@rule("gelu")
def _gelu(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    """x Phi(x), Phi the normal distribution."""
    if operation.options.get("approximate", "none") != "none":
        raise Unsupported("gelu by tanh")
    lower.dtype_made(operation)
    program, x = lower.program, args[0].node
    erf, _ = normal_parts(program, x)
    half = program.map("({0}*{1})", x, program.scalar(0.5))
    made = program.map("({0}*{1})", half, program.map("({0} + {1})", erf, program.scalar(1)))
    return Laned(made, args[0].lane)


@rule("add", "sub", "rsub")
def _sum_of_two(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    name = operation.name
    first, second = (args[1], args[0]) if name == "rsub" else (args[0], args[1])
    sign, alpha = "+" if name == "add" else "-", operation.options.get("alpha", 1)
    if alpha != 1:
        raise Unsupported(f"{name} with alpha {alpha}")
    return lower.elementwise(
        operation, f"({{0}} {sign} {{1}})", [first, second], lower.dtype_made(operation)
    )


@rule(*_COMPARED)
def _compared(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    sign = _COMPARED[operation.name]
    dtypes = {a.node.dtype for a in args if isinstance(a, Laned)}
    dtypes |= {lower.dtype_of(a.tensor.dtype) for a in args if isinstance(a, Known)}
    common: Dtype = "real" if "real" in dtypes else "int" if "int" in dtypes else "mask"
    return lower.elementwise(operation, f"({{0}} {sign} {{1}})", args, common)


@rule(*_MASKS)
def _of_masks(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    return lower.elementwise(operation, _MASKS[operation.name], args, "mask")


@rule("where")
def _where(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    right = next(a.rank - a.lane for a in args if isinstance(a, Laned))
    mask = lower.laned(args[0], right, "mask")
    dtype = lower.dtype_made(operation)
    rest = [lower.laned(a, right, dtype) for a in args[1:]]
    return lower.elementwise(operation, "({0} ? {1} : {2})", [mask, *rest], None)


@rule("clamp")
def _clamp(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    made: Laned = args[0]
    bounds: list[Any] = [*args[1:], None, None]
    low: Any = operation.options.get("min", bounds[0])
    high: Any = operation.options.get("max", bounds[1])
    if low is not None:
        made = lower.elementwise(operation, "({0} < {1} ? {1} : {0})", [made, low])
    if high is not None:
        made = lower.elementwise(operation, "({0} > {1} ? {1} : {0})", [made, high])
    return made


@rule("pow")
def _power(lower: Lowering, operation: Operation, args: Sequence[Any]) -> Laned:
    base, exponent = args[:2]
    if isinstance(exponent, int | float):
        exact = {1: "({0})", 2: "({0}*{0})", 3: "({0}*{0}*{0})"}
        if exponent in exact:
            return lower.elementwise(operation, exact[exponent], [base])
        roots = {0.5: "vsqrt({0})", -1: "vdiv(bc(1), {0})", -0.5: "vdiv(bc(1), vsqrt({0}))"}
        if exponent in roots:
            return lower.elementwise(operation, roots[exponent], [base], "real", costly=True)
    return lower.elementwise(operation, "vpow({0}, {1})", [base, exponent], "real", costly=True)
