"""What the two formats in XML have in common: their trees."""

import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import networkx as nx

from tasks.graph_files.format import GraphFileError, RawFile


def read_tree(file: RawFile) -> Element:
    """The root; where the bytes are not of the encoding that the file declares, the encoding is
    found out.
    """
    try:
        return ElementTree.fromstring(file.content)
    except ElementTree.ParseError:
        text, notice = file.decoded
        if not notice:
            raise
        return ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", text))


def write_tree(root: Element) -> str:
    """The tree as text, for a reader."""
    return ElementTree.tostring(root, encoding="unicode")


def local(element: Element) -> str:
    """A tag without its namespace; nothing for a comment."""
    return element.tag.rsplit("}", 1)[-1] if isinstance(element.tag, str) else ""


def children(element: Element, *tags: str) -> list[Element]:
    """Those of some tags."""
    return [child for child in element if local(child) in tags]


def only_graph(root: Element) -> Element:
    """The only graph of a file. Raises GraphFileError for several or none."""
    graphs = children(root, "graph")
    if len(graphs) != 1:
        raise GraphFileError(f"holds {len(graphs)} graphs: give a file with one")
    return graphs[0]


def add_defaults(graph: nx.Graph) -> None:
    """Give edges and nodes the values that the file declares for those without, which networkx's
    readers keep apart.
    """
    for place, owners in (("edge_default", graph.edges), ("node_default", graph.nodes)):
        for name, value in graph.graph.get(place, {}).items():
            for *_, data in owners(data=True):
                data.setdefault(name, value)


def check_ends(edges: list[Element], nodes: list[Element]) -> None:
    """Raise ValueError for an edge to a node that is not listed, or a node listed twice."""
    names = [node.get("id") for node in nodes]
    known = set(names)
    if len(known) < len(names) or None in known:
        raise ValueError("its nodes have no ids, or the same twice")
    for edge in edges:
        for end in ("source", "target"):
            if edge.get(end) not in known:
                raise ValueError(f"an edge has the {end} {edge.get(end)!r}, which is no node")
