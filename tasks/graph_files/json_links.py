"""Nodes and links in JSON, by networkx's reader."""

import json
from typing import Any

import networkx as nx

from tasks.graph_files.format import GraphFormat, Parsed, RawFile


class NodeLink(GraphFormat):
    """Node-link JSON: networkx's, and d3's `{"nodes": [...], "links": [...]}`.

    The ends of a link are ids of nodes or, where nodes have none or no end is one, places in the
    list of nodes. Without a key `directed` the file does not say whether links go both ways.
    """

    name, title, suffixes = "json", "node-link JSON", (".json",)

    def begins(self, head: str) -> bool:
        return head.lstrip().startswith("{")

    def read(self, file: RawFile) -> Parsed:
        data = json.loads(file.text)
        keys = [key for key in ("links", "edges") if isinstance(data, dict) and key in data]
        if len(keys) != 1 or "nodes" not in data:
            raise ValueError("it has no lists `nodes` and `links` (or `edges`)")
        nodes, links = data["nodes"], [dict(link) for link in data[keys[0]]]
        ids = [node.get("id", place) for place, node in enumerate(nodes)]
        if len(set(ids)) < len(ids):
            raise ValueError("two nodes have the same id")
        self._name_ends(links, ids)
        for link in links:
            link.pop("key", None)  # links of the same key would replace each other
        direction = data.get("directed")
        whole = {"directed": direction is not False, "multigraph": True, "nodes": nodes}
        graph = nx.node_link_graph(whole | {"links": links}, edges="links")
        return Parsed(graph, stated=direction is not None)

    def _name_ends(self, links: list[dict[str, Any]], ids: list[Any]) -> None:
        """Replace places by ids, in place. Raises ValueError for an end that is neither."""
        ends = [link[end] for link in links for end in ("source", "target")]
        known = set(ids)
        if all(end in known for end in ends):
            return
        places = range(len(ids))
        for link in links:
            for end in ("source", "target"):
                place = link[end]
                if isinstance(place, bool) or not isinstance(place, int) or place not in places:
                    raise ValueError(f"a link has the {end} {place!r}, which is no node")
                link[end] = ids[place]
