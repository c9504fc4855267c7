"""GEXF, by networkx's reader after all that is not nodes, edges and their values is left out."""

from collections import Counter
from io import StringIO
from xml.etree.ElementTree import Element, SubElement

import networkx as nx

from tasks.graph_files.format import GraphFileError, GraphFormat, Parsed, RawFile
from tasks.graph_files.trees import (
    add_defaults,
    check_ends,
    children,
    local,
    only_graph,
    read_tree,
    write_tree,
)

_SPACE = "http://www.gexf.net/1.2draft"
_TYPES = {"integer", "long", "float", "double", "boolean", "string"}
_TIMES = {"start", "end", "startopen", "endopen", "timestamp", "timestamps", "intervals"}


class GEXF(GraphFormat):
    """GEXF 1.1 to 1.3. A dynamic graph counts as if all that it ever holds were there at once.

    Where only some edges go one way, the graph is directed and the others go both ways.
    """

    name, title, suffixes = "gexf", "GEXF", (".gexf",)

    def begins(self, head: str) -> bool:
        return "<gexf" in head

    def read(self, file: RawFile) -> Parsed:
        root, notices = read_tree(file), []
        graph = only_graph(root)
        nodes = [e for e in graph.iter() if local(e) == "node"]
        edges = [e for e in graph.iter() if local(e) == "edge"]
        check_ends(edges, nodes)
        timed = graph.get("mode") == "dynamic" or any(
            _TIMES & set(e.attrib) or children(e, "spells", "slices") for e in (*nodes, *edges)
        )
        if timed:
            notices.append("it is dynamic: all that it ever holds counts as there at once")
        default = graph.get("defaultedgetype", "undirected")
        edge_types = [edge.get("type", default) for edge in edges]
        if unknown := set(edge_types) - {"directed", "undirected", "mutual"}:
            raise ValueError(f"an edge has the type {unknown.pop()!r}")
        directed = "directed" in edge_types
        plain = Element("gexf", {"xmlns": _SPACE})
        body = SubElement(plain, "graph", defaultedgetype="directed" if directed else "undirected")
        names = _copy_attributes(graph, body)
        place = SubElement(body, "nodes")
        for node in nodes:
            new = SubElement(place, "node", id=node.get("id", ""), label=node.get("label", ""))
            _copy_values(node, new, names)
        place = SubElement(body, "edges")
        for edge, edge_type in zip(edges, edge_types, strict=True):
            mutual = (
                directed and edge_type != "directed" and edge.get("source") != edge.get("target")
            )
            kept = {k: edge.get(k, "") for k in ("source", "target", "weight") if k in edge.attrib}
            new = SubElement(place, "edge", kept | ({"type": "mutual"} if mutual else {}))
            _copy_values(edge, new, names)
        read = nx.read_gexf(StringIO(write_tree(plain)))
        add_defaults(read)
        return Parsed(read, notices=notices)


def _copy_attributes(graph: Element, body: Element) -> dict[str, str]:
    """Declarations of static attributes, of types that the reader knows; their titles by id."""
    names = {}
    for group in children(graph, "attributes"):
        if group.get("class") not in ("node", "edge"):
            continue
        copy = SubElement(body, "attributes", {"class": group.get("class", ""), "mode": "static"})
        for one in children(group, "attribute"):
            key, type_name = one.get("id", ""), one.get("type", "")
            title = one.get("title") or key
            names[key] = title
            declared = {
                "id": key,
                "title": title,
                "type": type_name if type_name in _TYPES else "string",
            }
            new = SubElement(copy, "attribute", declared)
            for default in children(one, "default"):
                SubElement(new, "default").text = (default.text or "").strip()
    return names


def _copy_values(element: Element, new: Element, names: dict[str, str]) -> None:
    """The values of an element. Raises GraphFileError for a weight that changes in time."""
    values = [v for group in children(element, "attvalues") for v in children(group, "attvalue")]
    pairs = [(v.get("for") or v.get("id", ""), v.get("value", "").strip()) for v in values]
    times = Counter(key for key, _ in pairs)
    for key, count in times.items():
        title = names.get(key, key)
        if count > 1 and new.tag == "edge" and title.lower() in ("weight", "value"):
            raise GraphFileError(
                f"has an edge whose {title} changes in time: export one moment as a static graph"
            )
    if pairs:
        place = SubElement(new, "attvalues")
        for key, value in pairs:
            if times[key] == 1:
                SubElement(place, "attvalue", {"for": key, "value": value})
