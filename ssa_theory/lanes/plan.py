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
    Index,
    Indexed,
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
        if isinstance(node, Reduce | Indexed):
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
        head = axis
        while head in self._over:
            head = self._over[head]
        while axis != head:  # shorter ways for the next time
            self._over[axis], axis = head, self._over[axis]
        return head

    def candidates(self, nodes: Sequence[Node]) -> dict[Axis, int]:
        """Those that may be cut, and into how many parts at most."""
        pinned = {self.of(a) for a in self._pinned}
        least: dict[Axis, int] = {}
        for node in nodes:
            for k, size in enumerate(node.shape):
                head = self.of((node, k))
                if size > 1 and head not in pinned:
                    least[head] = min(size, least.get(head, size))
        return least

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
                leading = _leading(node, k, index)
                if leading is not None:
                    self._unite((node.of, k), (node, leading))
                elif node.of.shape[k] > 1:
                    self._pinned.add((node.of, k))
                # An inner digit of an axis is the same in every slice.
                outer = (p.axis for p in index.parts if p.axis != leading and not p.mod)
                self._pinned.update((node, axis) for axis in outer)
        elif isinstance(node, Reduce):
            left = [k for k in range(len(node.of.shape)) if k not in node.axes]
            for k, own in enumerate(left):
                self._unite((node.of, own), (node, k))
        elif isinstance(node, Indexed):
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


def _leading(view: View, axis: int, index: Index) -> int | None:
    """The axis of a view that runs with one of its input: the same one, or the outermost of those
    that are one axis there, or the one of which it is the outermost.
    """
    if not index.parts or index.offset:
        return None
    first = index.parts[0]
    sizes = math.prod(view.shape[p.axis] for p in index.parts)
    whole = sizes == view.of.shape[axis] * first.div and not any(p.mod for p in index.parts)
    if whole and (len(index.parts) == 1 or first.div == 1):
        return first.axis
    return None


@dataclass(frozen=True)
class Plan:
    """How a program is computed.

    outputs: loss and gradients. nodes: what is needed, in order. stored: those with a buffer.
    axes, cut: the axis that is cut into so many slices; None for none.
    """

    outputs: list[Node]
    nodes: list[Node]
    stored: set[Node]
    axes: Axes
    cut: Axis | None = None
    slices: int = 1
    _on: dict[Node, tuple[int, ...]] = field(default_factory=dict)

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
        return tuple(n // self.slices if k in cut else n for k, n in enumerate(node.shape))

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
    def _allocated(self) -> tuple[dict[Node, int], list[tuple[int, str]]]:
        """The slot of each stored node, free again when its last user has read it; and the slots."""
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
            size, type_name = math.prod(self.shape(node)), "V" if node.dtype == "real" else "I"
            free = [
                k
                for k, (room, own, since) in enumerate(slots)
                if own == type_name and since < start and room >= size
            ]
            best = min(free, key=lambda k: slots[k][0], default=len(slots))
            if best == len(slots):
                slots.append((size, type_name, until))
            else:
                slots[best] = (slots[best][0], type_name, until)
            slot[node] = best
        return slot, [(size, type_name) for size, type_name, _ in slots]

    @property
    def buffers(self) -> dict[Node, int]:
        """The slot of each stored node."""
        return self._allocated[0]

    @property
    def slots(self) -> list[tuple[int, str]]:
        """Size and type of each."""
        return self._allocated[1]

    @cached_property
    def size(self) -> int:
        """Numbers a model that are held at once: the buffers, and what a slice reads of the data."""
        read = (n for n in self.nodes if isinstance(n, Source) and n.varies and self.cut_axes(n))
        return sum(size for size, _ in self.slots) + sum(math.prod(self.shape(n)) for n in read)


def plan(outputs: Sequence[Node], nodes: Sequence[Node]) -> Plan:
    """The program, uncut where it fits into ROOM; else cut along the axis, and into the
    fewest slices, with which it fits; else as small as can be.
    """
    wanted = needed(outputs, nodes)
    stored, axes = stored_nodes(outputs, wanted), Axes(wanted)
    whole = Plan(list(outputs), wanted, stored, axes)
    if whole.size <= ROOM:
        return whole
    best = whole
    for cut, length in axes.candidates(wanted).items():
        for slices in (n for n in range(2, length + 1) if length % n == 0):
            own = Plan(list(outputs), wanted, stored, axes, cut, slices)
            if own.phases is None:
                break
            if _rank(own) < _rank(best):
                best = own
            if own.size <= ROOM:
                break
    return best


def _rank(plan: Plan) -> tuple[int, int]:
    """What fits comes first, then few slices, else a small size."""
    return (0, plan.slices) if plan.size <= ROOM else (1, plan.size)
