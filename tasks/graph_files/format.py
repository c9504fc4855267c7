"""What a graph format is: how a file is known to be of it, and how it is read."""

import abc
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import networkx as nx

from tasks.decoding import decode

MOST_NODES = 2**20


class GraphFileError(ValueError):
    """A sentence for the user about a file that can be read in more than one way, or in none."""


@dataclass(frozen=True, eq=False)
class RawFile:
    """A file's name and bytes, unpacked."""

    path: Path
    content: bytes

    @cached_property
    def decoded(self) -> tuple[str, str]:
        """Its text, and a notice about the encoding, or none. Raises ValueError for binary files."""
        return decode(self.content, "graph file", self.path)

    @property
    def text(self) -> str:
        """Its text."""
        return self.decoded[0]

    @property
    def suffix(self) -> str:
        """Of the name without `.gz`, in lower case, with its dot; a name `out.x` ends as KONECT's do."""
        name = self.path.name.lower().removesuffix(".gz")
        return "out." if name.startswith("out.") else Path(name).suffix


@dataclass(frozen=True, eq=False)
class Parsed:
    """What a file says, before anything is decided.

    graph: nodes and edges with all their attributes, parallel edges kept apart; a directed one in
    the order of the file where the file does not say whether edges go both ways. stated: whether
    it says so. weight: the attribute that the format itself makes the weight. notices: what was
    left out or had to be found out. unclear: why the user has to choose the weight, or nothing.
    """

    graph: nx.Graph
    stated: bool = True
    weight: str | None = None
    notices: list[str] = field(default_factory=list)
    unclear: str = ""


class GraphFormat(abc.ABC):
    """One format. name: of the flag; title: of sentences; suffixes: of files, in lower case."""

    name: ClassVar[str]
    title: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()

    def begins(self, head: str) -> bool:
        """Whether a file that begins like this is of this format and of no other."""
        return False

    @abc.abstractmethod
    def read(self, file: RawFile) -> Parsed:
        """The file's graph. Any exception means that the file is malformed."""


def edge_graph(
    edges: Iterable[tuple[Hashable, Hashable, dict[str, Any]]],
    nodes: Iterable[Hashable] = (),
    directed: bool = True,
) -> nx.MultiGraph:
    """The graph of edges with attributes, in their order, and of nodes before them."""
    graph = nx.MultiDiGraph() if directed else nx.MultiGraph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from(edges)
    return graph


def check_size(nodes: int) -> None:
    """Raise GraphFileError for more nodes than any reader should begin to make."""
    if nodes > MOST_NODES:
        raise GraphFileError(f"names {nodes} nodes, above {MOST_NODES}: take a part of it")


def is_number(text: str) -> bool:
    """Whether a text is one number, as written in files."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text
