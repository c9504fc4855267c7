"""Graph files: which format a file is of, what it says, and the graph of it."""

import re
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import networkx as nx

from tasks.decoding import UndecodableError, file_bytes
from tasks.graph_files.dot import DOT
from tasks.graph_files.edges import EdgeList
from tasks.graph_files.format import GraphFileError, GraphFormat, RawFile
from tasks.graph_files.gexf import GEXF
from tasks.graph_files.gml import GML
from tasks.graph_files.graphml import GraphML
from tasks.graph_files.json_links import NodeLink
from tasks.graph_files.lists import LGL, NCOL, Graph6, Numpy
from tasks.graph_files.matrix_market import MatrixMarket
from tasks.graph_files.pajek import Pajek
from tasks.graph_files.settle import AS_IT_SAYS, GraphReading, settle
from tasks.graph_files.tables import Adjacency, TextMatrix, table_format
from tasks.graph_files.ucinet import UCINET
from tasks.labels import storable

FORMATS = {
    form.name: form
    for form in (
        GraphML(),
        GEXF(),
        GML(),
        Pajek(),
        UCINET(),
        NodeLink(),
        DOT(),
        MatrixMarket(),
        Numpy(),
        Graph6(),
        NCOL(),
        LGL(),
        EdgeList(),
        Adjacency(),
        TextMatrix(),
    )
}
"""Every format by its name, as `--graph-format` takes it."""
_HEAD = 8192
_LONGEST_WORD = 60
_LABELS = ("label", "name")


@dataclass(frozen=True, eq=False)
class GraphFile:
    """A graph as it was read. graph: its nodes are names, its edges have a `weight`. understood: in
    one sentence, the file's format and content and all that was decided or left out.
    """

    graph: nx.Graph
    understood: str


def read_graph(path: str | Path, reading: GraphReading = AS_IT_SAYS) -> GraphFile:
    """The graph of a file in any of `FORMATS`, also packed with gzip.

    The content decides about the format, or else the suffix; without either a text is an edge list,
    an adjacency list or a matrix. Node attributes `label` or `name` name the nodes where they are
    all different.

    Raises ValueError for a file that is missing, malformed, or can be read in more than one way.

    >>> read_graph("tests/data/graphs/tail.edges", GraphReading(undirected=True)).understood
    'tail.edges: edge list, 4 nodes, 4 undirected edges without weights'
    """
    path = Path(path)
    if reading.graph_format not in (None, *FORMATS):
        raise ValueError(
            f"unknown graph format {reading.graph_format!r}: choose one of {', '.join(FORMATS)}"
        )
    return _read(path, file_bytes(path, "graph file"), reading)


@lru_cache(maxsize=2)  # a run asks several times
def _read(path: Path, content: bytes, reading: GraphReading) -> GraphFile:
    file, title = RawFile(path, content), "graph"
    try:
        form = FORMATS[reading.graph_format] if reading.graph_format else _format_of(file)
        title = form.title
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a reader only warns of is checked here
            parsed = form.read(file)
        settled = settle(parsed, reading)
        graph, naming = _stored(*_named(settled.graph))
    except UndecodableError:
        raise
    except GraphFileError as error:
        raise ValueError(f"the graph file {path} {_one_line(error)}") from error
    except RecursionError as error:
        raise ValueError(f"the graph file {path} is nested too deeply: flatten it") from error
    except Exception as error:  # every reader has kinds of its own, all meaning the same
        about = _one_line(error) or type(error).__name__
        about = f"{type(error).__name__} {about}" if isinstance(error, KeyError) else about
        raise ValueError(
            f"the graph file {path} is malformed as {title} ({about:.200}): mend it, or set "
            "graph_format (--graph-format) if it is of another format"
        ) from error
    decoded = [file.decoded[1]] if "decoded" in vars(file) and file.decoded[1] else []
    notes = "; ".join([*settled.notes, *naming, *parsed.notices, *decoded])
    return GraphFile(graph, f"{path.name}: {title}, {notes}")


def _one_line(error: Exception) -> str:
    """An error's sentence, with long names cut."""
    line = " ".join(str(error).split())
    return re.sub(rf"(\S{{{_LONGEST_WORD}}})\S+", "\\1\u2026", line)


def _format_of(file: RawFile) -> GraphFormat:
    """By content, then by suffix, then as one of the tables."""
    head = _head(file)
    for form in FORMATS.values():
        if form.begins(head):
            return form
    for form in FORMATS.values():
        if file.suffix in form.suffixes:
            return form
    if head.lstrip().startswith("<"):
        raise GraphFileError("is neither GraphML nor GEXF: give one of these")
    return table_format(file)


def _head(file: RawFile) -> str:
    """The first characters, whatever the file is."""
    content = file.content[:_HEAD]
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "ignore")
    return content.decode("latin-1").removeprefix("\xef\xbb\xbf")


def _named(graph: nx.Graph) -> tuple[nx.Graph, list[str]]:
    """The graph with names for nodes, from an attribute where that tells all nodes apart."""
    for attribute in _LABELS:
        given = {
            n: str(label) for n, label in graph.nodes(data=attribute) if label not in (None, "")
        }
        if not given:
            continue
        names = {node: given.get(node, str(node)) for node in graph}
        if len(set(names.values())) == len(graph):
            return nx.relabel_nodes(graph, names), []
        plain, _ = _named(_without(graph, attribute))
        return plain, [f"{attribute}s that occur twice name no nodes"]
    names = {node: str(node) for node in graph}
    if len(set(names.values())) < len(graph):
        raise GraphFileError("has nodes of the same name, such as 1 and '1': rename them")
    return nx.relabel_nodes(graph, names), []


def _stored(graph: nx.Graph, notes: list[str]) -> tuple[nx.Graph, list[str]]:
    """The graph with names that can be stored. Raises GraphFileError where they are then alike."""
    try:
        names = dict(zip(graph, storable(graph), strict=True))
    except ValueError as error:
        raise GraphFileError(f"has names that cannot be stored: {error}") from error
    changed = sum(old != new for old, new in names.items())
    if changed:
        notes = [*notes, f"control characters in {changed} names are shown as pictures"]
    return nx.relabel_nodes(graph, names), notes


def _without(graph: nx.Graph, attribute: str) -> nx.Graph:
    plain = graph.copy()
    for _, data in plain.nodes(data=True):
        data.pop(attribute, None)
    return plain
