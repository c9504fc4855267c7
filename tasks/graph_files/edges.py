"""Edge lists: two names a line, and whatever columns stand beside them."""

import re
from collections.abc import Sequence
from typing import Any

import networkx as nx

from tasks.graph_files.format import GraphFormat, Parsed, RawFile, edge_graph, is_number
from tasks.graph_files.rows import Rows, counts, split_rows

_SOURCES = {"source", "src", "from", "fromnodeid", "tail", "sender", "start", "node1", "node_1"}
_TARGETS = {"target", "tgt", "dst", "dest", "destination", "to", "tonodeid", "head", "receiver"}
_TARGETS |= {"end", "node2", "node_2"}
_ONE_WAY = {"directed": True, "undirected": False}
_DATA = re.compile(r"\{.*\}\s*$")
_EARLY, _LATE = 1e8, 1e13
"""Whole numbers between these may be seconds or milliseconds since 1970."""


class EdgeList(GraphFormat):
    """An edge a line: `source target`, `source target weight`, or columns named by a header.

    A header's columns are found by their names (source or from, target or to); its column Type says
    Directed or Undirected, as Gephi's does. Without a header the third of three columns is the
    weight, unless it may be something else. Lines may end with a dictionary, as networkx's do.
    Unless a column or a comment says so, it is open whether edges go both ways.
    """

    name, title, suffixes = "edges", "edge list", (".edges", ".edgelist", "out.")

    def read(self, file: RawFile) -> Parsed:
        lines = [line for line in file.text.split("\n") if line.strip() and line.strip()[0] != "#"]
        if lines and all(_DATA.search(line) for line in lines):
            separator = "," if all("," in _DATA.sub("", line) for line in lines) else None
            graph = nx.parse_edgelist(
                lines, data=True, create_using=nx.MultiDiGraph, delimiter=separator
            )
            return Parsed(graph, stated=False)
        rows = split_rows(file.text)
        head = header(rows)
        return _unnamed(rows) if head is None else _named(rows, head)


def named_columns(line: Sequence[str]) -> tuple[int, int] | None:
    """The columns that a header calls source and target, or None where it does not."""
    names = [field.lower().replace(" ", "").replace("_", "") for field in line]
    sources = [i for i, name in enumerate(names) if name in _SOURCES]
    targets = [i for i, name in enumerate(names) if name in _TARGETS]
    return (sources[0], targets[0]) if sources and targets else None


def header(rows: Rows) -> tuple[int, int] | None:
    """The columns of source and target where the first line is a header, else None.

    It is one where it names both, or where a column holds numbers in all lines but the first, and
    the names of the first line occur in no other.
    """
    if len(rows.fields) < 2:
        return None
    first, rest = rows.fields[0], rows.fields[1:]
    later = counts(rest)
    if named_columns(first) is not None:
        return named_columns(first)
    if len(first) < 2 or any(field in later for field in first):
        return None
    for column, name in enumerate(first):
        below = [row[column] for row in rest if column < len(row)]
        if below and not is_number(name) and all(map(is_number, below)):
            return 0, 1
    return None


def _named(rows: Rows, columns: tuple[int, int]) -> Parsed:
    """By a header's columns."""
    names, (source, target) = rows.fields[0], columns
    type_column = next((i for i, name in enumerate(names) if name.lower() == "type"), None)
    edges: list[tuple[str, str, dict[str, Any]]] = []
    one_way = []
    for number, row in zip(rows.numbers[1:], rows.fields[1:], strict=True):
        if not max(columns) < len(row) <= len(names):
            raise ValueError(f"line {number} has {len(row)} fields, the header {len(names)}")
        _require_names(number, row[source], row[target])
        data = {
            name: value
            for column, (name, value) in enumerate(zip(names, row, strict=False))
            if column not in columns and value and name
        }
        edges.append((row[source], row[target], data))
        direction = (
            row[type_column].lower() if type_column is not None and type_column < len(row) else None
        )
        one_way.append(rows.directed if direction is None else _ONE_WAY.get(direction))
    if None in one_way:
        return Parsed(edge_graph(edges), stated=False)
    if not any(one_way):
        return Parsed(edge_graph(edges, directed=False))
    back = [
        (v, u, data)
        for (u, v, data), directed in zip(edges, one_way, strict=True)
        if not directed and u != v
    ]
    return Parsed(edge_graph([*edges, *back]))


def _unnamed(rows: Rows) -> Parsed:
    """By position. What may be a weight and may be something else is left to the user."""
    widths = rows.widths
    if (widths not in ({2}, {2, 3}) and len(widths) > 1) or min(widths, default=2) < 2:
        place = min(range(len(rows.fields)), key=lambda i: len(rows.fields[i]))
        raise ValueError(
            f"line {rows.numbers[place]} has {len(rows.fields[place])} field(s), where others have "
            f"{max(widths)}"
        )
    edges = []
    for number, row in zip(rows.numbers, rows.fields, strict=True):
        _require_names(number, *row[:2])
        data = {str(column): value for column, value in enumerate(row[2:], start=3) if value}
        edges.append((row[0], row[1], data))
    weight, unclear = _weight(rows)
    notices = []
    occur = counts(rows.fields)
    first = rows.fields[0][:2] if rows.fields else ()
    if len(rows.fields) > 2 and first and all(occur[name] == 1 for name in first):
        notices.append(
            f"the names of the first line, {' and '.join(first)}, occur in no other: if it is a "
            "header, begin it with #"
        )
    directed = rows.directed is not False
    return Parsed(
        edge_graph(edges, directed=directed), rows.directed is not None, weight, notices, unclear
    )


def _weight(rows: Rows) -> tuple[str | None, str]:
    """The column of the weights, and, where that is not clear, why."""
    width = max(rows.widths, default=2)
    if width == 2 or rows.weighted is False:
        return None, ""
    third = [row[2] for row in rows.fields if len(row) > 2]
    words = [value for value in third if not is_number(value)]
    if rows.weighted:
        return "3", ""
    if width > 3:
        columns = ", ".join(map(str, range(3, width + 1)))
        return None, f"has {width} columns and no header: choose one of {columns}"
    if words:
        return None, f"has {words[0]!r:.40} in its third column, which is no number: choose another"
    if all(_is_time(value) for value in third):
        return None, f"has {third[0]} in its third column, a weight or a time: choose 3"
    return "3", ""


def _is_time(value: str) -> bool:
    return value.isdigit() and _EARLY <= float(value) <= _LATE


def _require_names(number: int, *names: str) -> None:
    if not all(names):
        raise ValueError(f"line {number} has an empty name")


def ends_are_names(fields: Sequence[Sequence[str]]) -> bool:
    """Whether the first two columns can name nodes: decimal fractions do not."""
    return not any("." in field and is_number(field) for row in fields for field in row[:2])
