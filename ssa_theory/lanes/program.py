"""A training step as a small program: what remains of loss and gradient when the model axis is the
lane.

A node is a tensor without the model axis: one number a model and index. Nodes are made once each,
so that equal computations are shared, and stand in the order in which they can be computed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Dtype = Literal["real", "int", "mask"]
Role = Literal["parameter", "constant", "batch"]
Shape = tuple[int, ...]


class Unsupported(NotImplementedError):
    """A loss that cannot be written as a lane program; the message names what is in the way."""


@dataclass(frozen=True)
class Stride:
    """A part of an index: ((i_axis // div) % mod) * times; mod 0 is none."""

    axis: int
    times: int = 1
    div: int = 1
    mod: int = 0


@dataclass(frozen=True)
class Index:
    """Where a view reads along one axis of its input: the sum of parts, plus offset."""

    parts: tuple[Stride, ...] = ()
    offset: int = 0

    @property
    def axis(self) -> int | None:
        """The axis of the view that this is, unchanged; None where it is anything else."""
        if (
            len(self.parts) == 1
            and self.offset == 0
            and self.parts[0] == Stride(self.parts[0].axis)
        ):
            return self.parts[0].axis
        return None


@dataclass(frozen=True, eq=False)
class Node:
    """A tensor (*shape,) of each model."""

    shape: Shape
    dtype: Dtype

    @property
    def inputs(self) -> tuple["Node", ...]:
        """What it is computed from."""
        return ()


@dataclass(frozen=True, eq=False)
class Source(Node):
    """What the step is given: the number-th tensor of its role. varies: with the model."""

    role: Role
    number: int
    varies: bool


@dataclass(frozen=True, eq=False)
class Scalar(Node):
    """One number."""

    value: float


@dataclass(frozen=True, eq=False)
class Map(Node):
    """Elementwise: code, a C++ expression of {0}, {1}, ..., each of this shape or a scalar.

    costly: whether it is worth a buffer of its own, so that it is computed once.
    """

    code: str
    args: tuple[Node, ...]
    costly: bool = False

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.args


@dataclass(frozen=True, eq=False)
class View(Node):
    """The input, read elsewhere: an index for each of its axes."""

    of: Node
    index: tuple[Index, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.of,)


@dataclass(frozen=True, eq=False)
class Reduce(Node):
    """Over some axes, which are gone after."""

    of: Node
    axes: tuple[int, ...]
    by: Literal["sum", "max", "min"]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.of,)


@dataclass(frozen=True, eq=False)
class Indexed(Node):
    """A tensor `of` and indices `at` along an axis."""

    of: Node
    at: Node
    axis: int

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.of, self.at)


@dataclass(frozen=True, eq=False)
class Gather(Indexed):
    """out[.., i, ..] = of[.., at[.., i, ..], ..] along the axis."""


@dataclass(frozen=True, eq=False)
class Scatter(Indexed):
    """out[.., k, ..] = the sum of of[.., i, ..] over i with at[.., i, ..] = k along the axis."""


@dataclass(frozen=True, eq=False)
class Concatenate(Node):
    """The parts, one after the other along the axis."""

    parts: tuple[Node, ...]
    axis: int

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.parts


N = TypeVar("N", bound=Node)


class Program:
    """Nodes in the order in which they can be computed, each once."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._made: dict[tuple, Node] = {}

    def add(self, node: N) -> N:
        """The node, or the equal one that is there."""
        key = (
            type(node),
            *(id(v) if isinstance(v, Node) else _key(v) for v in vars(node).values()),
        )
        if key not in self._made:
            self._made[key] = node
            self.nodes.append(node)
        return self._made[key]  # type: ignore[return-value]

    def scalar(self, value: float | int, dtype: Dtype = "real") -> Scalar:
        """A number."""
        return self.add(Scalar((), dtype, float(value)))

    def map(self, code: str, *args: Node, dtype: Dtype = "real", costly: bool = False) -> Node:
        """Elementwise over arguments of one shape, once broadcast."""
        shape = broadcast_shape([a.shape for a in args])
        fitted = tuple(a if isinstance(a, Scalar) else self.expand(a, shape) for a in args)
        return self.add(Map(shape, dtype, code, fitted, costly))

    def reduce(
        self, of: Node, axes: Sequence[int], by: Literal["sum", "max", "min"], keep: bool
    ) -> Node:
        """Over the axes; of length 1 after, where kept."""
        left = [k for k in range(len(of.shape)) if k not in axes]
        shape = tuple(of.shape[k] for k in left)
        node: Node = of
        if axes:
            node = self.add(Reduce(shape, of.dtype, of, tuple(sorted(axes)), by))
        if not keep:
            return node
        kept = tuple(1 if k in axes else n for k, n in enumerate(of.shape))
        return self.view(node, kept, [Index((Stride(k),)) for k in left])

    def view(self, of: Node, shape: Shape, index: Sequence[Index]) -> Node:
        """Reads elsewhere; the input itself where that is everywhere the same."""
        if shape == of.shape and all(
            i.axis == k or n == 1 for k, (i, n) in enumerate(zip(index, shape, strict=True))
        ):
            return of
        return self.add(View(shape, of.dtype, of, tuple(index)))

    def expand(self, of: Node, shape: Shape) -> Node:
        """Broadcast, aligned at the last axis."""
        if isinstance(of, Scalar):
            return self.add(View(shape, of.dtype, of, ())) if shape else of
        lead = len(shape) - len(of.shape)
        index = [Index((Stride(lead + k),)) if n != 1 else Index() for k, n in enumerate(of.shape)]
        return self.view(of, shape, index)

    def reshape(self, of: Node, shape: Shape) -> Node:
        """The same numbers in the same order."""
        try:
            return self.view(of, shape, _regroup(of.shape, shape))
        except Unsupported:  # by way of one axis
            flat = (math.prod(of.shape),)
            line = self.view(of, flat, _regroup(of.shape, flat))
            return self.view(line, shape, _regroup(flat, shape))


def broadcast_shape(shapes: Sequence[Shape]) -> Shape:
    """The common shape, aligned at the last axis."""
    rank = max((len(s) for s in shapes), default=0)
    filled = [(1,) * (rank - len(s)) + tuple(s) for s in shapes]
    return tuple(max(sizes) if 0 not in sizes else 0 for sizes in zip(*filled, strict=True))


def _regroup(before: Shape, after: Shape) -> list[Index]:
    """For each axis before, where it is read from the axes after: groups of equal size alone."""
    index: list[Index] = []
    a = b = 0
    old = [(k, n) for k, n in enumerate(before)]
    while a < len(old):
        if before[a] == 1:
            index.append(Index())
            a += 1
            continue
        first, size = a, before[a]
        while b < len(after) and after[b] == 1:
            b += 1
        start, total = b, after[b]
        while size != total:
            if size < total:
                a += 1
                size *= before[a]
            else:
                b += 1
                total *= after[b]
        index += _group(before[first : a + 1], start, after[start : b + 1])
        a, b = a + 1, b + 1
    return index


def _group(before: Shape, start: int, after: Shape) -> list[Index]:
    """The axes of one group: its flat index, taken apart."""
    if len(before) == len(after) == 1:
        return [Index((Stride(start),))]
    if sum(n > 1 for n in after) == 1:  # one axis becomes many
        axis = start + next(k for k, n in enumerate(after) if n > 1)
        index, div = [], 1
        for k in reversed(range(len(before))):
            index.append(Index((Stride(axis, 1, div, before[k] if k else 0),)))
            div *= before[k]
        return index[::-1]
    if sum(n > 1 for n in before) == 1:  # many become one
        parts, times = [], 1
        for k in reversed(range(len(after))):
            if after[k] > 1:
                parts.append(Stride(start + k, times))
            times *= after[k]
        whole = Index(tuple(reversed(parts)))
        return [whole if n > 1 else Index() for n in before]
    raise Unsupported(f"a view of {before} as {after}")


def _key(value: object) -> object:
    """What tells attributes apart: nodes by identity, numbers by their digits."""
    if isinstance(value, tuple):
        return tuple(id(v) if isinstance(v, Node) else v for v in value)
    return repr(value) if isinstance(value, float) else value
