"""What of a lane program is stored, where, and in which slices: everything that a chunk of models
needs at a step should stay in the caches nearest to the core.

A long axis, such as that of the samples, over which nothing but sums are taken, is cut into slices:
what stands before the sums is then held for one slice at a time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ssa_theory.lanes.program import (
    Concatenate,
    Gather,
    Map,
    Node,
    Reduce,
    Scalar,
    Scatter,
    Source,
    View,
)

ROOM = 640  # vectors of 64 bytes: about a first-level cache
_LONGEST = 24  # operations of one expression
Axis = tuple[Node, int]


def needed(outputs: Sequence[Node], nodes: Sequence[Node]) -> list[Node]:
    """What the outputs are computed from, in order."""
    wanted = set(outputs)
    for node in reversed(nodes):
        if node in wanted:
            wanted.update(node.inputs)
    return [n for n in nodes if n in wanted]


def stored_nodes(outputs: Sequence[Node], nodes: Sequence[Node]) -> set[Node]:
    """The nodes that get a buffer; the others are written into the expressions of their users."""
    users: dict[Node, list[Node]] = {n: [] for n in nodes}
    for node in nodes:
        for given in dict.fromkeys(node.inputs):
            users[given].append(node)
    stored = {n for n in outputs if not isinstance(n, Source | Scalar)}
    uses: dict[Node, int] = {}
    forced: dict[Node, bool] = {}
    for node in reversed(nodes):
        uses[node] = sum(1 if u in stored else uses[u] for u in users[node])
        forced[node] = any(
            (isinstance(u, View) and (math.prod(u.shape) > math.prod(node.shape) or forced[u]))
            or (isinstance(u, Gather) and u.of is node)
            or isinstance(u, Scatter)
            for u in users[node]
        )
        if isinstance(node, Reduce | Gather | Scatter):
            stored.add(node)
        elif isinstance(node, Map | Concatenate):
            costly = isinstance(node, Map) and node.costly
            if costly or uses[node] > 1 or forced[node]:
                stored.add(node)
    size: dict[Node, int] = {}
    for node in nodes:
        size[node] = 1 + sum(0 if n in stored else size[n] for n in node.inputs)
        if size[node] > _LONGEST and isinstance(node, Map):
            stored.add(node)
    return stored


class Axes:
    """Which axes of the nodes run together, by the axis that stands for them; those that are read
    out of order, or taken apart, are not to be cut.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._over: dict[Axis, Axis] = {}
        self._pinned: set[Axis] = set()
        for node in nodes:
            self._join(node)

    def of(self, axis: Axis) -> Axis:
        """The axis that stands for all that run with it."""
        while axis in self._over:
            axis = self._over[axis]
        return axis

    def candidates(self, nodes: Sequence[Node]) -> list[Axis]:
        """Those that may be cut."""
        pinned = {self.of(a) for a in self._pinned}
        heads = {self.of((n, k)): None for n in nodes for k, size in enumerate(n.shape) if size > 1}
        return [a for a in heads if a not in pinned]

    def _unite(self, first: Axis, second: Axis) -> None:
        first, second = self.of(first), self.of(second)
        if first != second:
            self._over[first] = second

    def _join(self, node: Node) -> None:
        if isinstance(node, Map):
            for given in node.inputs:
                for k in range(len(given.shape)):
                    self._unite((given, k), (node, k))
        elif isinstance(node, View):
            for k, index in enumerate(node.index):
                if index.axis is not None and node.shape[index.axis] == node.of.shape[k]:
                    self._unite((node.of, k), (node, index.axis))
                elif node.of.shape[k] > 1:
                    self._pinned.add((node.of, k))
                    self._pinned.update((node, part.axis) for part in index.parts)
        elif isinstance(node, Reduce):
            left = [k for k in range(len(node.of.shape)) if k not in node.axes]
            for k, own in enumerate(left):
                self._unite((node.of, own), (node, k))
        elif isinstance(node, Gather | Scatter):
            for k in range(len(node.shape)):
                if k != node.axis:
                    self._unite((node, k), (node.of, k))
                    self._unite((node, k), (node.at, k))
            loose = node.of if isinstance(node, Gather) else node
            self._unite(
                (node.at, node.axis), (node if isinstance(node, Gather) else node.of, node.axis)
            )
            self._pinned.add((loose, node.axis))
        elif isinstance(node, Concatenate):
            self._pinned.add((node, node.axis))
            for part in node.parts:
                self._pinned.add((part, node.axis))
                for k in range(len(node.shape)):
                    if k != node.axis:
                        self._unite((part, k), (node, k))


@dataclass(frozen=True)
class Plan:
    """How a program is computed.

    outputs: loss and gradients. nodes: what is needed, in order. stored: those with a buffer.
    axes, cut: the axis that is cut into slices of `width`; None for none.
    """

    outputs: list[Node]
    nodes: list[Node]
    stored: set[Node]
    axes: Axes
    cut: Axis | None = None
    width: int = 0
    _on: dict[Node, tuple[int, ...]] = field(default_factory=dict)

    @cached_property
    def slices(self) -> int:
        """How many; 1 where nothing is cut."""
        return 1 if self.cut is None else self.cut[0].shape[self.cut[1]] // self.width

    def cut_axes(self, node: Node) -> tuple[int, ...]:
        """The axes of a node that are cut."""
        if self.cut is None:
            return ()
        if node not in self._on:
            own = range(len(node.shape))
            self._on[node] = tuple(k for k in own if self.axes.of((node, k)) == self.cut)
        return self._on[node]

    def shape(self, node: Node) -> tuple[int, ...]:
        """Of what is held at once."""
        cut = self.cut_axes(node)
        return tuple(self.width if k in cut else n for k, n in enumerate(node.shape))

    def sums_slices(self, node: Node) -> bool:
        """Whether a node is a sum over the axis that is cut."""
        if isinstance(node, Reduce):
            return any(k in node.axes for k in self.cut_axes(node.of))
        return isinstance(node, Scatter) and node.axis in self.cut_axes(node.of)

    @cached_property
    def phases(self) -> tuple[list[Node], list[Node], list[Node]] | None:
        """What is stored before, in and after the slices; None where a sum over slices is needed
        in a slice, or cannot be taken slice by slice.
        """
        after: set[Node] = set()
        parts: tuple[list[Node], list[Node], list[Node]] = ([], [], [])
        for node in self.nodes:
            inside = bool(self.cut_axes(node)) or self.sums_slices(node)
            late = any(n in after for n in node.inputs)
            if inside and (late or len(self.cut_axes(node)) > 1):
                return None
            if isinstance(node, Reduce) and self.sums_slices(node) and node.by != "sum":
                return None
            if late or self.sums_slices(node):
                after.add(node)
            if node in self.stored:
                parts[1 if inside else 2 if late else 0].append(node)
        if any(self.cut_axes(n) for n in self.outputs):
            return None
        return parts

    @cached_property
    def buffers(self) -> dict[Node, int]:
        """The slot of each stored node; its slot is free again when its last user has read it."""
        before, during, after = self.phases or ([], [], [])
        sequence = [*before, *during, *after]
        place = {n: t for t, n in enumerate(sequence)}
        end = len(sequence)
        last: dict[Node, int] = {}
        for node in reversed(self.nodes):  # users first
            reads = place[node] if node in self.stored else last.get(node, 0)
            if node in self.outputs:
                last[node] = end
            for given in node.inputs:
                last[given] = max(last.get(given, 0), reads)
        first_in, last_in = len(before), len(before) + len(during)
        slots: list[tuple[int, str, int]] = []  # size, type, free from
        slot: dict[Node, int] = {}
        for t, node in enumerate(sequence):
            until = last[node]
            inside = first_in <= t < last_in
            if t < first_in <= until < last_in:
                until = last_in  # read in every slice
            start = t
            if inside and self.sums_slices(node):
                start = first_in  # zeroed before the first
                until = max(until, last_in)
            size, kind = math.prod(self.shape(node)), "V" if node.dtype == "real" else "I"
            free = [
                k
                for k, (room, own, since) in enumerate(slots)
                if own == kind and since < start and room >= size
            ]
            best = min(free, key=lambda k: slots[k][0], default=len(slots))
            if best == len(slots):
                slots.append((size, kind, until))
            else:
                slots[best] = (slots[best][0], kind, until)
            slot[node] = best
        self.slots.extend((size, kind) for size, kind, _ in slots)
        return slot

    slots: list[tuple[int, str]] = field(default_factory=list)

    @cached_property
    def size(self) -> int:
        """Numbers a model that are held at once."""
        assert self.buffers is not None
        return sum(size for size, _ in self.slots)


def plan(outputs: Sequence[Node], nodes: Sequence[Node], room: int = ROOM) -> Plan:
    """The program, uncut where it fits into the room (numbers a model); else cut along the axis,
    and into the fewest slices, with which it fits; else as small as can be.
    """
    wanted = needed(outputs, nodes)
    stored, axes = stored_nodes(outputs, wanted), Axes(wanted)
    whole = Plan(list(outputs), wanted, stored, axes)
    if whole.size <= room:
        return whole
    best = whole
    for cut in axes.candidates(wanted):
        length = cut[0].shape[cut[1]]
        for width in (w for w in range(length - 1, 0, -1) if length % w == 0):
            own = Plan(list(outputs), wanted, stored, axes, cut, width)
            if own.phases is None:
                break
            if (
                own.size < best.size
                if best.size > room
                else room >= own.size and own.slices < best.slices
            ):
                best = own
            if own.size <= room:
                break
    return best
