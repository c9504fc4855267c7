"""From a plan to C++: one function in which the model axis is the lane of a vector.

A chunk of as many models as a vector has lanes stands outermost, steps inside, so that a chunk
lives in the caches nearest to the core for all its steps.
"""

import itertools
import math
from collections.abc import Callable, Sequence

from ssa_theory.lanes.build import registers
from ssa_theory.lanes.plan import Plan
from ssa_theory.lanes.program import (
    Concatenate,
    Gather,
    Map,
    Node,
    Reduce,
    Scalar,
    Scatter,
    Shape,
    Source,
    View,
)
from ssa_theory.lanes.text import Places, flat, literal, position

_AT_ONCE = 4  # additions that wait for nothing
_UNROLLED = 16  # operations of a loop written out: more are not faster and compile longer
_COSTLY = 12  # operations that a function such as exp counts as
_COMPARED = 16  # entries up to which an entry is chosen by comparing, else by its address


class Emitter:
    """The lines of a step's loss and gradient."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.lines: list[str] = []

    def body(self) -> list[str]:
        """Everything but the optimiser."""
        phases = self.plan.phases
        assert phases is not None
        before, during, after = phases
        for node in before:
            self._store(node)
        if during:
            for node in during:
                if self.plan.sums_slices(node):
                    size = math.prod(node.shape)
                    zero, name = self._zero(node), self.name(node)
                    self.lines.append(f"for (int i = 0; i < {size}; i++) {name}[i] = {zero};")
            self.lines.append(f"for (int slice = 0; slice < {self.plan.slices}; slice++) {{")
            for node in during:
                self._store(node)
            self.lines.append("}")
        for node in after:
            self._store(node)
        return self.lines

    def name(self, node: Node) -> str:
        """Of a stored node's buffer."""
        return f"t{self.plan.buffers[node]}"

    def load(self, node: Node, at: Places) -> str:
        """An expression for the number at a place, of every lane."""
        if node in self.plan.stored:
            return f"{self.name(node)}[{flat(self.plan.shape(node), at)}]"
        return self._value(node, at)

    def _given(self, node: Source, at: Places) -> str:
        cut = self.plan.cut_axes(node)
        held = self.plan.shape(node)
        places = [f"(slice*{held[k]}+{i})" if k in cut else i for k, i in enumerate(at)]
        name = f"{node.role[0]}{node.number}[{flat(node.shape, places)}]"
        if node.varies:
            return name
        template = {"real": "bc({})", "int": "ibc({})", "mask": "(ibc({}) != 0)"}[node.dtype]
        return template.format(name)

    def _of_parts(self, node: Concatenate, at: Places) -> str:
        start, made = 0, ""
        ends = list(itertools.accumulate(p.shape[node.axis] for p in node.parts))
        for part, end in zip(node.parts, ends, strict=True):
            own = list(at)
            own[node.axis] = f"({at[node.axis]}-{start})" if start else at[node.axis]
            there = self.load(part, own)
            made += there if end == ends[-1] else f"({at[node.axis]} < {end} ? {there} : "
            start = end
        return made + ")" * (len(node.parts) - 1)

    def _store(self, node: Node) -> None:
        if isinstance(node, Reduce):
            self._reduced(node)
        elif isinstance(node, Scatter):
            self._scattered(node)
        else:
            shape = self.plan.shape(node)
            weight = _COSTLY if isinstance(node, Map) and node.costly else 1
            self._loops(shape, "i", weight, lambda at: self._write(node, at, self._value(node, at)))

    def _write(self, node: Node, at: Places, value: str) -> None:
        self.lines.append(f"{self.name(node)}[{flat(self.plan.shape(node), at)}] = {value};")

    def _value(self, node: Node, at: Places) -> str:
        if isinstance(node, Source):
            return self._given(node, at)
        if isinstance(node, Scalar):
            return literal(node)
        if isinstance(node, View):
            return self.load(node.of, [position(i, at) for i in node.index])
        if isinstance(node, Map):
            return node.code.format(*(self.load(a, at) for a in node.args))
        if isinstance(node, Concatenate):
            return self._of_parts(node, at)
        assert isinstance(node, Gather)
        index, axis = self.load(node.at, at), node.axis
        shape = self.plan.shape(node.of)
        if shape[axis] <= _COMPARED or node.of not in self.plan.stored:
            made = self.load(node.of, [*at[:axis], "0", *at[axis + 1 :]])
            for k in range(1, shape[axis]):
                own = self.load(node.of, [*at[:axis], str(k), *at[axis + 1 :]])
                made = f"({index} == {k} ? {own} : {made})"
            return made
        first = flat(shape, [*at[:axis], "0", *at[axis + 1 :]])
        return f"pick({self.name(node.of)} + {first}, {index}, {math.prod(shape[axis + 1 :])})"

    def _scattered(self, node: Scatter) -> None:
        shape, axis = self.plan.shape(node), node.axis
        length = self.plan.shape(node.of)[axis]
        add = self.plan.sums_slices(node)
        if shape[axis] <= _COMPARED:

            def term(out: Places, place: Places) -> str:
                at = [*out[:axis], place[0], *out[axis + 1 :]]
                there = self.load(node.at, at)
                return f"({there} == {out[axis]} ? {self.load(node.of, at)} : {self._zero(node)})"

            self._sum(node, [length], term, "{0} += {1};", self._zero(node), [set()], add)
            return
        if not add:
            self._loops(shape, "i", 1, lambda at: self._write(node, at, self._zero(node)))
        stride = math.prod(shape[axis + 1 :])

        def put(at: Places) -> None:
            first = flat(shape, [*at[:axis], "0", *at[axis + 1 :]])
            index, value = self.load(node.at, at), self.load(node.of, at)
            self.lines.append(f"put({self.name(node)} + {first}, {index}, {stride}, {value});")

        self._loops(self.plan.shape(node.of), "i", 1, put)

    def _reduced(self, node: Reduce) -> None:
        left = [k for k in range(len(node.of.shape)) if k not in node.axes]
        held = self.plan.shape(node.of)

        def term(out: Places, place: Places) -> str:
            at = [""] * len(held)
            for k, i in zip(left, out, strict=True):
                at[k] = i
            for k, i in zip(node.axes, place, strict=True):
                at[k] = i
            return self.load(node.of, at)

        combine = {
            "sum": "{0} += {1};",
            "max": "{0} = vmax({0}, {1});",
            "min": "{0} = vmin({0}, {1});",
        }
        start = {"max": "bc(-INFINITY)", "min": "bc(INFINITY)"}.get(node.by, self._zero(node))
        reads = self._reads(
            node.of, [{left.index(k)} if k in left else set() for k in range(len(held))]
        )
        over = [held[k] for k in node.axes]
        self._sum(node, over, term, combine[node.by], start, reads, self.plan.sums_slices(node))

    def _reads(self, node: Node, axes: Sequence[set[int]]) -> list[set[int]]:
        """For each number that an expression reads, the output's axes on which it depends."""
        if node in self.plan.stored or isinstance(node, Source):
            return [set().union(*axes)]
        if isinstance(node, View):
            inner = [set().union(*(axes[p.axis] for p in i.parts)) for i in node.index]
            return self._reads(node.of, inner)
        return [r for given in node.inputs for r in self._reads(given, axes if given.shape else [])]

    def _sum(
        self,
        node: Node,
        over: Shape | list[int],
        term: Callable[[Places, Places], str],
        combine: str,
        start: str,
        reads: Sequence[set[int]],
        add: bool,
    ) -> None:
        """A reduction, several outputs at once in registers, or several parts of a long one, as an
        addition waits for the one before it. add: to what the buffer holds.
        """
        shape = self.plan.shape(node)
        tile = _tile(shape, reads, registers() // 2)
        cells = list(itertools.product(*(range(t) for t in tile)))
        parts = math.gcd(over[-1] if over else 1, max(1, _AT_ONCE // len(cells)))
        shorter = [*over[:-1], over[-1] // parts] if parts > 1 else over
        type_name = "V" if node.dtype == "real" else "I"

        def places(outer: Places, cell: Sequence[int]) -> list[str]:
            return [
                (str(x) if n == t else f"({i}*{t}+{x})") if t > 1 else i
                for i, t, x, n in zip(outer, tile, cell, shape, strict=True)
            ]

        def of_tile(outer: Places) -> None:
            self.lines.append("{")
            for c in range(len(cells) * parts):
                self.lines.append(f"{type_name} a{c} = {start};")

            def inner(place: Places) -> None:
                for part, (c, cell) in itertools.product(range(parts), enumerate(cells)):
                    at = place
                    if parts > 1:
                        at = [*place[:-1], f"({place[-1]}*{parts}+{part})"]
                    own = f"a{c + part * len(cells)}"
                    self.lines.append(combine.format(own, term(places(outer, cell), at)))

            self._loops(shorter, "r", len(cells) * parts, inner)
            for half in (parts >> k for k in range(1, parts.bit_length())):
                for c in range(half * len(cells)):
                    self.lines.append(combine.format(f"a{c}", f"a{c + half * len(cells)}"))
            for c, cell in enumerate(cells):
                place = flat(shape, places(outer, cell))
                self.lines.append(f"{self.name(node)}[{place}] {'+=' if add else '='} a{c};")
            self.lines.append("}")

        outer = [n // t for n, t in zip(shape, tile, strict=True)]
        self._loops(outer, "o", _UNROLLED, of_tile)

    def _loops(
        self, shape: Sequence[int], prefix: str, weight: int, body: Callable[[Places], None]
    ) -> None:
        """body within loops over a shape; the inner ones are written out while they are short.

        weight: operations of the body. Loops of one pass are not written.
        """
        at = [f"{prefix}{k}" if n > 1 else "0" for k, n in enumerate(shape)]
        total, unrolled = weight, {}
        for k in reversed(range(len(shape))):
            total *= shape[k]
            unrolled[k] = total <= _UNROLLED
        loops = [k for k, n in enumerate(shape) if n != 1]
        for k in loops:
            if unrolled[k]:
                self.lines.append(f'_Pragma("GCC unroll {_UNROLLED}")')
            self.lines.append(f"for (int {at[k]} = 0; {at[k]} < {shape[k]}; {at[k]}++) {{")
        body(at)
        self.lines.append("}" * len(loops))

    @staticmethod
    def _zero(node: Node) -> str:
        return "V{}" if node.dtype == "real" else "I{}"


def update(plan: Plan, shapes: Sequence[Shape], optimizer: str) -> list[str]:
    """The optimiser's lines, after `Emitter.body`."""
    emitter = Emitter(plan)
    step = "adam(p{0}[{2}], m{0}[{2}], v{0}[{2}], {1}, rate, root);"
    if optimizer == "sgd":
        step = "p{0}[{2}] -= rate*{1};"
    for k, (shape, slope) in enumerate(zip(shapes, plan.outputs[1:], strict=True)):

        def moved(at: Places, k: int = k, shape: Shape = shape, slope: Node = slope) -> None:
            line = step.format(k, emitter.load(slope, at), flat(shape, at))
            emitter.lines.append(line)

        emitter._loops(shape, "i", 8, moved)
    return emitter.lines


def _tile(shape: Sequence[int], reads: Sequence[set[int]], most: int) -> list[int]:
    """How many outputs of each axis to sum at once, each in a register, so that a number that is read
    serves many.
    """
    best, least = [1] * len(shape), math.inf
    choices = [[t for t in range(1, most + 1) if n % t == 0] for n in shape]

    def try_all(k: int, tile: list[int], room: int) -> None:
        nonlocal best, least
        if k < 0:
            count = math.prod(tile)
            cost = sum(math.prod(tile[a] for a in own) for own in reads) / count + 2 / count
            if cost < least:
                best, least = list(tile), cost
            return
        for t in choices[k]:
            if t <= room:
                tile[k] = t
                try_all(k - 1, tile, room // t)
        tile[k] = 1

    try_all(len(shape) - 1, [1] * len(shape), most)
    return best
