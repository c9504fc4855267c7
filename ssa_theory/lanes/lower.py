"""From a traced loss and its gradient, operations of whole tensors, to a lane program.

What depends on no parameter and no batch is computed here, once. The model axis is carried through
every operation: it is never guessed from a size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate

from ssa_theory.lanes.program import Dtype, Index, Node, Program, Source, Stride, Unsupported


@dataclass(frozen=True)
class Laned:
    """A traced tensor whose axis `lane` is the model axis; node is what remains without it."""

    node: Node
    lane: int

    @property
    def rank(self) -> int:
        """With the model axis."""
        return len(self.node.shape) + 1


Value = Laned | Tensor | float | int
Rule = Callable[["Lowering", fx.Node, Sequence[Any]], Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register how operations become nodes."""

    def register(made: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, made))
        return made

    return register


def opname(node: fx.Node) -> str:
    """Of an operation; one in place is what it writes."""
    target = node.target
    return str(getattr(target, "_opname", getattr(target, "__name__", target))).rstrip("_")


def _own_alone(node: fx.Node) -> None:
    """Raise Unsupported where an operation in place may be seen by another name, or is lasting."""
    written = node.args[0]
    assert isinstance(written, fx.Node)
    views = {"alias", "view", "expand", "permute", "unsqueeze", "squeeze", "slice", "select"}
    if written.op != "call_function" or any(opname(u) in views for u in written.users):
        raise Unsupported(f"{node.target} of a tensor with another name")


@dataclass
class Lowering:
    """One traced graph as a program.

    members: M, the size of the model axis in the trace. dtype: of training. constants: tensors that
    the program reads, as they stand in memory: (..., member) where they vary with the model.
    """

    members: int
    dtype: torch.dtype
    program: Program = field(default_factory=Program)
    constants: list[Tensor] = field(default_factory=list)
    distinct: set[Node] = field(default_factory=set)
    """Indices that are all different along the axis in question, such as a sort's."""
    _known: dict[tuple[int, int], Laned] = field(default_factory=dict)
    _stored: dict[tuple, int] = field(default_factory=dict)
    _kept: list[Tensor] = field(default_factory=list)

    def graph(self, graph: fx.GraphModule, given: Sequence[Laned]) -> list[Node]:
        """The outputs, each with the model axis last; given: the placeholders, in order."""
        values: dict[fx.Node, Any] = {}
        placeholders = iter(given)

        def value(argument: Any) -> Any:
            return fx.map_arg(argument, lambda n: values[n])

        for node in graph.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(placeholders)
            elif node.op == "get_attr":
                values[node] = getattr(graph, node.target).detach()
            elif node.op == "output":
                return [self._output(v) for v in value(node.args)[0]]
            else:
                try:
                    values[node] = self._operation(node, value(node.args), value(node.kwargs))
                except Unsupported as reason:  # of what may not be needed, such as the models' sum
                    values[node] = reason
        raise AssertionError("a traced graph has an output")

    def _operation(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        name = opname(node)
        if name == "getitem":
            entry = args[0] if isinstance(args[0], Unsupported) else args[0][args[1]]
            if isinstance(entry, Unsupported):
                raise entry
            return entry
        own: list[Any] = []
        map_aggregate((args, kwargs), own.append)
        laned = [a for a in own if isinstance(a, Laned)]
        missing = [a for a in own if isinstance(a, Unsupported)]
        if name == "full_like":  # what it is like does not matter
            like = node.meta["val"]
            return torch.full(like.shape, args[1], dtype=like.dtype)
        if missing:
            raise missing[0]
        if str(getattr(node.target, "_opname", "")).endswith("_"):
            _own_alone(node)
        if not laned:
            with torch.no_grad():
                return node.target(*args, **kwargs)  # type: ignore[operator]
        if name not in RULES:
            raise Unsupported(f"the operation {name}")
        return RULES[name](self, node, args)

    def _output(self, value: Value | Unsupported) -> Node:
        if isinstance(value, Unsupported):
            raise value
        laned = self.laned(value, 1) if not isinstance(value, Laned) else value
        if laned.lane != laned.rank - 1:
            raise Unsupported("a result whose last axis is not the model's")
        return laned.node

    def laned(self, value: Value, right: int, dtype: Dtype | None = None) -> Laned:
        """A value whose model axis is the right-th from the right."""
        if isinstance(value, Laned):
            if value.rank - value.lane != right:
                raise Unsupported("two tensors whose model axes do not meet")
            made = value
        elif isinstance(value, Tensor):
            made = self._constant(value, right)
        else:
            return Laned(self.program.scalar(value, dtype or "real"), 0)
        if dtype is None or made.node.dtype == dtype:
            return made
        return Laned(self._as(made.node, dtype), made.lane)

    def _as(self, node: Node, dtype: Dtype) -> Node:
        if node.dtype == dtype:
            return node
        code = {
            ("mask", "real"): "({0} ? bc(1) : bc(0))",
            ("mask", "int"): "(-({0}))",
            ("int", "real"): "__builtin_convertvector({0}, V)",
            ("real", "mask"): "({0} != bc(0))",
            ("int", "mask"): "({0} != 0)",
        }.get((node.dtype, dtype))
        if code is None:
            raise Unsupported(f"{node.dtype} as {dtype}")
        return self.program.map(code, node, dtype=dtype)

    def _constant(self, value: Tensor, right: int) -> Laned:
        key = (id(value), right)
        if key not in self._known:
            self._kept.append(value)
            self._known[key] = self._new_constant(value, right)
        return self._known[key]

    def _new_constant(self, value: Tensor, right: int) -> Laned:
        lane = value.ndim - right
        if lane < 0:
            lane, value = 0, value.reshape((1,) + (1,) * (right - 1 - value.ndim) + value.shape)
        size = value.shape[lane]
        if size not in (1, self.members):
            raise Unsupported(f"an axis of {size} where the model axis has {self.members}")
        if size > 1 and value.stride(lane) == 0:
            value, size = value.narrow(lane, 0, 1), 1
        free = [k for k in range(value.ndim) if k != lane]
        shape = tuple(value.shape[k] for k in free)
        if size == 1 and value.numel() == 1:
            number = self.program.scalar(value.item(), self.dtype_of(value.dtype))
            return Laned(self.program.expand(number, shape), lane)
        # As it stands in memory, once, whatever views of it are read.
        own = sorted(
            (k for k in free if value.shape[k] > 1 and value.stride(k)),
            key=lambda k: -value.stride(k),
        )
        for k in free:
            value = value if k in own else value.narrow(k, 0, min(1, value.shape[k]))
        stored = value.permute(
            *own, *(k for k in range(value.ndim) if k not in own and k != lane), lane
        )
        stored = stored.reshape(*(value.shape[k] for k in own), size)
        key = (stored.data_ptr(), stored.dtype, tuple(stored.shape), stored.stride())
        if key not in self._stored:
            self._stored[key] = len(self.constants)
            self.constants.append(stored)
        node = Source(
            tuple(stored.shape[:-1]),
            self.dtype_of(value.dtype),
            "constant",
            self._stored[key],
            size > 1,
        )
        index = [Index((Stride(free.index(k)),)) for k in own]
        return Laned(self.program.view(self.program.add(node), shape, index), lane)

    def dtype_of(self, dtype: torch.dtype) -> Dtype:
        """Of a traced tensor in a program."""
        if dtype == torch.bool:
            return "mask"
        if dtype in (torch.int64, torch.int32):
            return "int"
        return "real"

    def traced_dtype(self, node: fx.Node) -> Dtype:
        """Of what an operation returns. All real numbers have the precision of training; one that
        asks for more than that is refused.
        """
        dtype = node.meta["val"].dtype
        if dtype.is_floating_point and dtype.itemsize > self.dtype.itemsize:
            raise Unsupported(f"{dtype} in a training in {self.dtype}")
        return self.dtype_of(dtype)

    def arguments(
        self, args: Sequence[Value], dtype: Dtype | None = "real"
    ) -> tuple[list[Node], int]:
        """What an operation takes, and where the model axis stands from the right: as many axes are
        behind it in each, so that without it they align as they did. dtype: None as they are.
        """
        right = next(a.rank - a.lane for a in args if isinstance(a, Laned))
        return [self.laned(a, right, dtype).node for a in args], right

    def elementwise(
        self,
        node: fx.Node,
        code: str,
        args: Sequence[Value],
        dtype: Dtype | None = "real",
        costly: bool = False,
    ) -> Laned:
        """A map of broadcast arguments of a dtype; None as they are."""
        nodes, right = self.arguments(args, dtype)
        made = self.program.map(code, *nodes, dtype=self.traced_dtype(node), costly=costly)
        return Laned(made, len(made.shape) + 1 - right)
