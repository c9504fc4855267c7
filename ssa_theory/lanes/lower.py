"""From a recorded loss and its gradient, operations of whole tensors, to a lane program.

What depends on no parameter and no batch is known before the steps and is a constant of theirs. The
model axis is carried through every operation: it is never guessed from a size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ssa_theory.lanes.program import Dtype, Index, Node, Program, Source, Stride, Unsupported
from ssa_theory.lanes.record import Operation, Record, Value

Read = Callable[[Mapping[int, Tensor]], Tensor]
"""A constant from what is known in a record."""


@dataclass(frozen=True)
class Laned:
    """A recorded tensor whose axis `lane` is the model axis; node is what remains without it."""

    node: Node
    lane: int

    @property
    def rank(self) -> int:
        """With the model axis."""
        return len(self.node.shape) + 1


@dataclass(frozen=True, eq=False)
class Known:
    """A tensor that depends on no parameter and no batch.

    tensor: as it is in this record. read: the same in another one with equal operations. fixed:
    whether its numbers, too, are equal there; else nothing but its form may be looked at.
    """

    tensor: Tensor
    read: Read
    fixed: bool = True

    @classmethod
    def of(cls, tensor: Tensor) -> "Known":
        """One that is the same wherever."""
        return cls(tensor, lambda _: tensor)

    def then(self, change: Callable[[Tensor], Tensor]) -> "Known":
        """What is made of it."""
        read = self.read
        return Known(change(self.tensor), lambda known: change(read(known)), self.fixed)


Argument = Laned | Known | float | int
Rule = Callable[["Lowering", Operation, Sequence[Any]], Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register how operations become nodes."""

    def register(made: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, made))
        return made

    return register


@dataclass(frozen=True)
class Stored:
    """A constant as it stands in memory, (..., member), and where each axis of what is read of it is:
    lane, the model's; shape, of the others; own, those of them along which it varies.
    """

    tensor: Tensor
    lane: int
    shape: tuple[int, ...]
    own: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor, right: int) -> "Stored":
        """Of a tensor whose model axis is the right-th from the right; once, whatever views of it are
        read.
        """
        lane = tensor.ndim - right
        if lane < 0:
            shape = (1,) + (1,) * (right - 1 - tensor.ndim) + tensor.shape
            lane, tensor = 0, tensor.reshape(shape)
        if tensor.shape[lane] > 1 and tensor.stride(lane) == 0:
            tensor = tensor.narrow(lane, 0, 1)
        free = [k for k in range(tensor.ndim) if k != lane]
        varies = [k for k in free if tensor.shape[k] > 1 and tensor.stride(k)]
        varies.sort(key=lambda k: -tensor.stride(k))
        shape = tuple(tensor.shape[k] for k in free)
        for k in free:
            tensor = tensor if k in varies else tensor.narrow(k, 0, min(1, tensor.shape[k]))
        stored = tensor.permute(*varies, *(k for k in free if k not in varies), lane)
        stored = stored.reshape(*(tensor.shape[k] for k in varies), tensor.shape[lane])
        return cls(stored, lane, shape, tuple(free.index(k) for k in varies))


@dataclass
class Lowering:
    """One record as a program.

    members: M, the size of the model axis in the record. dtype: of training. constants: tensors that
    the program reads, as they stand in memory: (..., member) where they vary with the model.
    """

    members: int
    dtype: torch.dtype
    program: Program = field(default_factory=Program)
    constants: list[Read] = field(default_factory=list)
    distinct: set[Node] = field(default_factory=set)
    """Indices that are all different along the axis in question, such as a sort's."""
    exponentials: dict[Node, Node] = field(default_factory=dict)
    """e to the power of a node, where it is there already: a softmax is, of its logarithm."""
    _known: dict[tuple[Known, int], Laned] = field(default_factory=dict)
    _stored: dict[tuple, int] = field(default_factory=dict)

    def outputs(self, record: Record) -> list[Node]:
        """The loss and its gradient, each with the model axis last."""
        values: dict[int, Any] = {
            n: Known(t, _reader(n), n in record.fixed) for n, t in record.known.items()
        }
        given = [*self._parameters(record), *self._batch(record)]
        values |= dict(enumerate(given))
        for operation in record.operations:
            try:
                made = self._operation(operation, values)
            except Unsupported as reason:  # of what may not be needed, such as the models' sum
                made = (reason,) * len(operation.made)
            values |= zip(operation.made, made, strict=True)
        return [self._output(values[n]) for n in record.results]

    def _parameters(self, record: Record) -> list[Laned]:
        return [
            self._given(Source(shape[:-1], "real", "parameter", number, True))
            for number, (shape, _) in enumerate(record.parameters)
        ]

    def _batch(self, record: Record) -> list[Laned]:
        for shape, _ in record.batch:
            if not shape or shape[-1] not in (1, self.members):
                raise Unsupported(f"a batch of shape {shape}, whose last axis is not the model's")
        return [
            self._given(Source(shape[:-1], self.dtype_of(dtype), "batch", number, shape[-1] > 1))
            for number, (shape, dtype) in enumerate(record.batch)
        ]

    def _given(self, source: Source) -> Laned:
        return Laned(self.program.add(source), len(source.shape))

    def _operation(self, operation: Operation, values: Mapping[int, Any]) -> tuple:
        def read(part: Any) -> Any:
            if isinstance(part, Value):
                value = values[part.number]
                if isinstance(value, Unsupported):
                    raise value
                return value
            if isinstance(part, dict):
                return {name: read(p) for name, p in part.items()}
            return [read(p) for p in part] if isinstance(part, tuple) else part

        if operation.name not in RULES:
            raise Unsupported(f"the operation {operation.name}")
        given = replace(operation, options=read(operation.options))
        made = RULES[operation.name](self, given, read(operation.args))
        return made if isinstance(made, tuple) else (made,)

    def _output(self, value: Argument | Unsupported) -> Node:
        if isinstance(value, Unsupported):
            raise value
        laned = self.laned(value, 1) if not isinstance(value, Laned) else value
        if laned.lane != laned.rank - 1:
            raise Unsupported("a result whose last axis is not the model's")
        return laned.node

    def laned(self, value: Argument, right: int, dtype: Dtype | None = None) -> Laned:
        """A value whose model axis is the right-th from the right."""
        if isinstance(value, Laned):
            if value.rank - value.lane != right:
                raise Unsupported("two tensors whose model axes do not meet")
            made = value
        elif isinstance(value, Known):
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

    def _constant(self, value: Known, right: int) -> Laned:
        if (value, right) not in self._known:
            self._known[value, right] = self._new_constant(value, right)
        return self._known[value, right]

    def _new_constant(self, value: Known, right: int) -> Laned:
        stored = Stored.of(value.tensor, right)
        tensor, dtype = stored.tensor, self.dtype_of(value.tensor.dtype)
        if tensor.shape[-1] not in (1, self.members):
            raise Unsupported(
                f"an axis of {tensor.shape[-1]} where the model axis has {self.members}"
            )
        if value.fixed and tensor.numel() == 1:
            number = self.program.scalar(tensor.item(), dtype)
            return Laned(self.program.expand(number, stored.shape), stored.lane)
        key = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if key not in self._stored:
            self._stored[key] = len(self.constants)
            self.constants.append(value.then(lambda t: Stored.of(t, right).tensor).read)
        shape, number = tuple(tensor.shape[:-1]), self._stored[key]
        source = self.program.add(Source(shape, dtype, "constant", number, tensor.shape[-1] > 1))
        index = [Index((Stride(k),)) for k in stored.own]
        return Laned(self.program.view(source, stored.shape, index), stored.lane)

    def dtype_of(self, dtype: torch.dtype) -> Dtype:
        """Of a recorded tensor in a program."""
        if dtype == torch.bool:
            return "mask"
        if dtype in (torch.int64, torch.int32):
            return "int"
        return "real"

    def dtype_made(self, operation: Operation) -> Dtype:
        """Of what an operation returns. All real numbers have the precision of training; one that
        asks for more than that is refused.
        """
        dtype = operation.dtype
        assert dtype is not None
        if dtype.is_floating_point and dtype.itemsize > self.dtype.itemsize:
            raise Unsupported(f"{dtype} in a training in {self.dtype}")
        return self.dtype_of(dtype)

    def arguments(
        self, args: Sequence[Argument], dtype: Dtype | None = "real"
    ) -> tuple[list[Node], int]:
        """What an operation takes, and where the model axis stands from the right: as many axes are
        behind it in each, so that without it they align as they did. dtype: None as they are.
        """
        right = next(a.rank - a.lane for a in args if isinstance(a, Laned))
        return [self.laned(a, right, dtype).node for a in args], right

    def elementwise(
        self,
        operation: Operation,
        code: str,
        args: Sequence[Argument],
        dtype: Dtype | None = "real",
        costly: bool = False,
    ) -> Laned:
        """A map of broadcast arguments of a dtype; None as they are."""
        nodes, right = self.arguments(args, dtype)
        made = self.program.map(code, *nodes, dtype=self.dtype_made(operation), costly=costly)
        return Laned(made, len(made.shape) + 1 - right)


def _reader(number: int) -> Read:
    return lambda known: known[number]
