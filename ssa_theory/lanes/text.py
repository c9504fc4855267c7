"""Numbers and places in C++."""

import math
from collections.abc import Sequence

from ssa_theory.lanes.program import Index, Scalar

Places = Sequence[str]
"""What stands for the index of each axis."""


def flat(shape: Sequence[int], at: Places) -> str:
    """The place in memory."""
    made = ""
    for n, i in zip(shape, at, strict=True):
        if n == 1 and i == "0":
            continue
        made = i if not made or made == "0" else f"({made}*{n}+{i})"
    return made or "0"


def position(index: Index, at: Places) -> str:
    """Where a view reads along one axis."""
    terms = []
    for part in index.parts:
        term = at[part.axis]
        if term == "0":
            continue
        if part.div != 1:
            term = f"({term}/{part.div})"
        if part.mod:
            term = f"({term}%{part.mod})"
        terms.append(f"{term}*{part.times}" if part.times != 1 else term)
    if index.offset or not terms:
        terms.append(str(index.offset))
    return terms[0] if len(terms) == 1 else f"({'+'.join(terms)})"


def literal(node: Scalar) -> str:
    """A number, in every lane."""
    value = node.value
    if node.dtype != "real":
        return f"ibc({int(value) if node.dtype == 'int' else -int(value != 0)})"
    if math.isnan(value):
        return "bc(NAN)"
    if math.isinf(value):
        return "bc(INFINITY)" if value > 0 else "bc(-INFINITY)"
    return f"bc({value!r})"
