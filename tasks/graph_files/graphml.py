"""GraphML, by networkx's reader after its tree is put into the form that this reader knows."""

from xml.etree.ElementTree import Element

import networkx as nx

from tasks.graph_files.format import GraphFormat, Parsed, RawFile
from tasks.graph_files.trees import (
    add_defaults,
    check_ends,
    children,
    local,
    only_graph,
    read_tree,
    write_tree,
)

_SPACE = "http://graphml.graphdrawing.org/xmlns"
_YED = "http://www.yworks.com"
_ONE_WAY = {"true": True, "false": False}


class GraphML(GraphFormat):
    """GraphML of networkx, igraph, Gephi, Neo4j, yEd and yFiles.

    Nodes of nested graphs count as nodes; ports are passed over. Where only some edges go one way,
    the graph is directed and the others go both ways. Declared default values count.
    """

    name, title, suffixes = "graphml", "GraphML", (".graphml",)

    def begins(self, head: str) -> bool:
        return "<graphml" in head

    def read(self, file: RawFile) -> Parsed:
        root, notices = read_tree(file), []
        for element in root.iter():
            if isinstance(element.tag, str) and _YED not in element.tag:
                element.tag = f"{{{_SPACE}}}{local(element)}"
        graph = only_graph(root)
        keys = _complete_keys(root)
        nodes = [element for element in graph.iter() if local(element) == "node"]
        edges = [element for element in graph.iter() if local(element) == "edge"]
        check_ends(edges, nodes)
        nested, ports = _nested(nodes), _without_ports([*nodes, *edges])
        for data in [d for e in (graph, *nodes, *edges) for d in children(e, "data")]:
            data.text = (data.text or "").strip()
            if data.get("key") not in keys:
                raise ValueError(f"data has the key {data.get('key')!r}, which is not declared")
        stated = _direct(graph, edges)
        read = nx.parse_graphml(write_tree(root), force_multigraph=True)
        add_defaults(read)
        if nested:
            notices.append(f"the nodes of {nested} nested graph(s) count as nodes")
        if ports:
            notices.append(f"{ports} port(s) were passed over")
        return Parsed(read, stated, notices=notices)


def _complete_keys(root: Element) -> set[str | None]:
    """The ids of the declared keys, each given the name and type that it may lack."""
    keys = children(root, "key")
    for key in keys:
        if key.get("yfiles.type") is None:
            key.set("attr.name", key.get("attr.name") or key.get("id", ""))
            key.set("attr.type", key.get("attr.type") or "string")
        for default in children(key, "default"):
            default.text = (default.text or "").strip()
            if len(default) or not default.text:  # of yFiles' own, such as styles
                key.remove(default)
    return {key.get("id") for key in keys}


def _nested(nodes: list[Element]) -> int:
    """Mark nodes that hold a graph as networkx expects it; returns how many there are."""
    groups = [node for node in nodes if children(node, "graph")]
    for node in groups:
        node.set("yfiles.foldertype", "group")
    return len(groups)


def _without_ports(elements: list[Element]) -> int:
    ports = [(element, port) for element in elements for port in children(element, "port")]
    for element, port in ports:
        element.remove(port)
    return len(ports)


def _direct(graph: Element, edges: list[Element]) -> bool:
    """Make all edges of one kind, in place; returns whether the file says of which."""
    parent = {child: element for element in graph.iter() for child in element}

    def one_way(edge: Element) -> bool | None:
        """As the edge says, or the graph around it; None where nobody does."""
        default = parent[edge].get("edgedefault", graph.get("edgedefault"))
        by_default = {"directed": True, "undirected": False, None: None}[default]
        return by_default if edge.get("directed") is None else _ONE_WAY[edge.get("directed", "")]

    edges_directed = [one_way(edge) for edge in edges]
    stated = None not in edges_directed
    directed = any(edges_directed) or not stated
    for edge, edge_directed in zip(edges, edges_directed, strict=True):
        edge.attrib.pop("directed", None)
        edge.attrib.pop("id", None)  # edges of the same id would replace each other
        source, target = edge.get("source", ""), edge.get("target", "")
        if directed and edge_directed is False and source != target:
            back = Element(edge.tag, {"source": target, "target": source})
            back.extend(list(edge))
            parent[edge].append(back)
    for element in [graph, *(e for e in graph.iter() if local(e) == "graph")]:
        element.set("edgedefault", "directed" if directed else "undirected")
    return stated
