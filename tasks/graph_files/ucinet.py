"""UCINET's .dl, for which none of the libraries in use has a reader."""

import re
from collections.abc import Callable, Iterator

from tasks.graph_files.format import GraphFormat, Parsed, RawFile, check_size, edge_graph, is_number

_KEY = re.compile(r"(?i)\b(n|nr|nc|nm|format|diagonal)\s*=\s*([\w-]+)")
_PART = re.compile(
    r"(?im)^[^\S\n]*((?:row |column |col |matrix )?labels(?: embedded)?|data)[^\S\n]*:?[^\S\n]*"
)
_WORD = re.compile(r'"([^"]*)"|([^\s,]+)')
_Edge = tuple[int, int, dict[str, str]]


class UCINET(GraphFormat):
    """DL in the formats fullmatrix, lowerhalf, edgelist1 and nodelist1, labels embedded or not.

    A lower half is undirected; the others say of each pair i -> j by themselves.
    """

    name, title, suffixes = "ucinet", "UCINET DL", (".dl",)

    def begins(self, head: str) -> bool:
        return re.match(r"(?i)\s*dl\b[\s,]*(n|nr|nm|format)\s*=", head) is not None

    def read(self, file: RawFile) -> Parsed:
        head, *parts = _PART.split(file.text)
        if not head.strip().lower().startswith("dl"):
            raise ValueError("it does not begin with dl")
        settings = {key.lower(): value.lower() for key, value in _KEY.findall(head)}
        sections = dict(zip([p.lower() for p in parts[::2]], parts[1::2], strict=True))
        if {"nr", "nc"} & set(settings) or settings.get("nm", "1") != "1":
            raise ValueError("it holds several matrices, or one between two kinds of nodes")
        if "data" not in sections or not settings.get("n", "").isdigit():
            raise ValueError("it has no number of nodes n=..., or no part data:")
        count, form = int(settings["n"]), settings.get("format", "fullmatrix")
        check_size(count)
        if form not in _READERS:
            raise ValueError(f"its format is {form}, not one of {', '.join(_READERS)}")
        embedded = any(name.endswith("embedded") for name in sections)
        labels = _words(sections.get("labels", ""))
        rows = [row for row in map(_words, sections["data"].split("\n")) if row]
        labels, edges = _READERS[form](rows, count, labels, embedded, settings)
        if len(labels) not in (0, count):
            raise ValueError(f"it has {len(labels)} labels for {count} nodes")
        graph = edge_graph(edges, range(count), directed=form != "lowerhalf")
        for node, label in enumerate(labels):
            graph.nodes[node]["label"] = label
        weight = "weight" if any(data for *_, data in edges) else None
        return Parsed(graph, weight=weight)


def _words(text: str) -> list[str]:
    return [quoted or plain for quoted, plain in _WORD.findall(text)]


def _matrix(
    rows: list[list[str]], count: int, labels: list[str], embedded: bool, settings: dict[str, str]
) -> tuple[list[str], list[_Edge]]:
    half = settings.get("format") == "lowerhalf"
    if embedded:
        labels, rows = rows[0], [row[1:] for row in rows[1:]]
    values = iter([value for row in rows for value in row])
    edges = []
    diagonal = settings.get("diagonal") != "absent"
    for i in range(count):
        for j in range(i + 1 if half else count):
            if i == j and not diagonal:
                continue
            value = next(values, None)
            if value is None or not is_number(value):
                raise ValueError(f"its matrix has {value!r} in row {i + 1}, no number")
            if float(value):
                edges.append((i, j, {"weight": value}))
    if next(values, None) is not None:
        raise ValueError("its matrix has more numbers than n says")
    return labels, edges


def _lists(targets: Callable[[list[str]], Iterator[tuple[str, dict[str, str]]]]) -> Callable:
    def read(
        rows: list[list[str]],
        count: int,
        labels: list[str],
        embedded: bool,
        settings: dict[str, str],
    ) -> tuple[list[str], list[_Edge]]:
        named = [(row[0], other, data) for row in rows for other, data in targets(row)]
        if embedded:
            ends = [row[0] for row in rows] + [other for _, other, _ in named]
            labels = list(dict.fromkeys([*labels, *ends]))
            number = {label: place for place, label in enumerate(labels)}
        else:
            number = {str(place + 1): place for place in range(count)}
        for u, v, _ in named:
            if u not in number or v not in number:
                raise ValueError(f"a line joins {u} and {v}, which are not both nodes")
        return labels, [(number[u], number[v], data) for u, v, data in named]

    return read


def _one_target(row: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    if len(row) not in (2, 3):
        raise ValueError(f"the line {' '.join(row)!r:.40} has {len(row)} fields, not 2 or 3")
    yield row[1], {"weight": row[2]} if len(row) == 3 else {}


def _many_targets(row: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    yield from ((other, {}) for other in row[1:])


_READERS = {
    "fullmatrix": _matrix,
    "lowerhalf": _matrix,
    "edgelist1": _lists(_one_target),
    "nodelist1": _lists(_many_targets),
}
