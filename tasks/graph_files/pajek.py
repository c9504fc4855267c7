"""Pajek's .net: networkx's reader takes lists of arcs for arcs, and joins nodes of the same label."""

import re
import shlex
from collections.abc import Iterator

from tasks.graph_files.format import GraphFormat, Parsed, RawFile, check_size, edge_graph, is_number

_SECTION = re.compile(r"\*\s*(\w+)(.*)")
_EDGE_SECTIONS = {"arcs", "edges", "arcslist", "edgeslist", "matrix"}


class Pajek(GraphFormat):
    """Vertices with or without labels; arcs, edges, lists of both, matrices; signed weights.

    Where there are arcs and edges, the graph is directed and its edges go both ways.
    """

    name, title, suffixes = "pajek", "Pajek", (".net", ".paj")

    def begins(self, head: str) -> bool:
        return re.match(r"(?i)\s*(%.*\s+)*\*\s*(vertices|network|arcs|edges)", head) is not None

    def read(self, file: RawFile) -> Parsed:
        nodes: dict[int, str] = {}
        arcs: list[tuple[int, int, dict[str, str]]] = []
        edges: list[tuple[int, int, dict[str, str]]] = []
        count, networks = 0, 0
        for section, about, rows in _sections(file.text):
            if section == "network":
                networks += 1
            elif section == "vertices":
                sizes = [int(word) for word in about.split()]
                if count or len(sizes) != 1:
                    raise ValueError("it holds several networks, or one of two kinds of vertices")
                count = sizes[0]
                check_size(count)
                nodes = {int(row[0]): row[1] for row in rows if len(row) > 1}
                if nodes and not 1 <= min(nodes) <= max(nodes) <= count:
                    raise ValueError(f"a vertex has a number outside 1 to {count}")
            elif section in _EDGE_SECTIONS:
                ends = edges if section.startswith("edges") else arcs
                ends += _edges(section, rows)
        if networks > 1:
            raise ValueError(f"it holds {networks} networks")
        for u, v, _ in (*arcs, *edges):
            if not (1 <= u <= count and 1 <= v <= count):
                raise ValueError(f"a line joins {u} and {v}, outside 1 to {count}")
        back = [(v, u, data) for u, v, data in edges if u != v] if arcs else []
        directed = bool(arcs)
        graph = edge_graph([*arcs, *edges, *back], range(1, count + 1), directed)
        for node, label in nodes.items():
            graph.nodes[node]["label"] = label
        return Parsed(graph, weight="weight")


def _sections(text: str) -> Iterator[tuple[str, str, list[list[str]]]]:
    """Name, rest of the line, and rows of words of every section."""
    name, about, rows = "", "", []
    for line in text.split("\n"):
        match = _SECTION.match(line.strip())
        if match:
            if name:
                yield name, about, rows
            name, about, rows = match[1].lower(), match[2], []
        elif line.strip() and not line.lstrip().startswith("%"):
            if not name:
                raise ValueError(f"it begins with {line.strip()!r:.40}, no section")
            words = shlex.shlex(line, posix=True)
            words.whitespace_split, words.commenters, words.quotes, words.escape = True, "", '"', ""
            rows.append(list(words))
    if name:
        yield name, about, rows


def _edges(section: str, rows: list[list[str]]) -> Iterator[tuple[int, int, dict[str, str]]]:
    if section == "matrix":
        for i, row in enumerate(rows, start=1):
            for j, value in enumerate(row, start=1):
                if float(value):
                    yield i, j, {"weight": value}
    elif section.endswith("list"):
        for first, *others in rows:
            for other in others:
                yield int(first), int(other), {}
    else:
        for u, v, *rest in rows:
            yield int(u), int(v), {"weight": rest[0]} if rest and is_number(rest[0]) else {}
