"""Adjacency lists and matrices as text, and which of these, or of edge lists, a file is."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tasks.graph_files.edges import EdgeList, ends_are_names, header, named_columns
from tasks.graph_files.format import (
    GraphFileError,
    GraphFormat,
    Parsed,
    RawFile,
    edge_graph,
    is_number,
)
from tasks.graph_files.lists import matrix_graph
from tasks.graph_files.rows import Rows, split_rows

_CERTAIN = 4  # rows of as many numbers are no edge list by chance


class Adjacency(GraphFormat):
    """A node and its neighbours a line; it is open whether edges go both ways."""

    name, title, suffixes = "adjacency", "adjacency list", (".adjlist",)

    def read(self, file: RawFile) -> Parsed:
        rows = split_rows(file.text).fields
        if any(not field for row in rows for field in row):
            raise ValueError("it has empty names")
        edges = [(row[0], other, {}) for row in rows for other in row[1:]]
        return Parsed(edge_graph(edges, [row[0] for row in rows]), stated=False)


class TextMatrix(GraphFormat):
    """A square matrix as text, with names of the nodes in a first line and column, or without."""

    name, title, suffixes = "matrix", "matrix", ()

    def read(self, file: RawFile) -> Parsed:
        square = _square(split_rows(file.text))
        if square is None:
            raise ValueError("its lines are no square matrix of numbers with the same names")
        parsed = matrix_graph(np.array([[float(x) for x in row] for row in square.values]))
        for node, label in enumerate(square.labels):
            parsed.graph.nodes[node]["label"] = label
        return parsed


class _Square(NamedTuple):
    values: Sequence[Sequence[str]]
    labels: Sequence[str]
    certain: bool


def _square(rows: Rows) -> _Square | None:
    """The lines as a matrix, or None. certain: nothing else looks like it."""
    fields = rows.fields
    first, rest = (fields[0], fields[1:]) if fields else ((), ())

    def numbers(lines: Sequence[Sequence[str]], width: int) -> bool:
        return all(len(line) == width and all(map(is_number, line)) for line in lines)

    if fields and numbers(fields, len(fields)):
        certain = len(fields) >= _CERTAIN or not ends_are_names(fields)
        return _Square(fields, (), certain)
    names, inner = [row[0] for row in rest if row], [row[1:] for row in rest]
    if rest and list(first[-len(rest) :]) == names and numbers(inner, len(rest)):
        return _Square(inner, names, True)
    if rest and len(first) == len(rest) == len(set(first)) and numbers(rest, len(rest)):
        return _Square(rest, first, len(rest) >= _CERTAIN or not ends_are_names(rest))
    return None


def table_format(file: RawFile) -> GraphFormat:
    """Which kind of table a text is. Raises GraphFileError where it can be several, or is none."""
    rows = split_rows(file.text)
    if not rows.fields:
        raise GraphFileError("holds no edge: give lines of 'source target [weight]'")
    if file.text.rstrip().endswith("}"):
        return EdgeList()
    named = header(rows)
    stated = rows.directed is not None
    square = None if stated or named_columns(rows.fields[0]) else _square(rows)
    if square and square.certain:
        return TextMatrix()
    lines = rows.fields[1:] if named is not None else rows.fields
    widths = {len(row) for row in lines}
    edges = min(widths) >= 2 and (len(widths) == 1 or widths == {2, 3} or named is not None)
    nodes = [row[0] for row in lines]
    lists = len(set(nodes)) == len(nodes) and named is None and not stated
    lists = lists and max(widths) > 2 and {f for row in lines for f in row} <= set(nodes)
    possible: list[GraphFormat] = [
        form
        for form, fits in ((EdgeList(), edges), (Adjacency(), lists), (TextMatrix(), square))
        if fits
    ]
    if len(possible) == 1:
        return possible[0]
    names = [form.name for form in possible]
    if possible:
        raise GraphFileError(
            f"can be read as {' or '.join(f.title for f in possible)}: set graph_format "
            f"(--graph-format) to {' or '.join(names)}"
        )
    raise GraphFileError(
        f"is no table that is known: its lines have {min(rows.widths)} to {max(rows.widths)} fields, "
        "those of an edge list 2 or 3; set graph_format (--graph-format) if it is another format"
    )
