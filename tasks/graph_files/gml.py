"""GML, by networkx's reader."""

import re
from typing import Any

import networkx as nx

from tasks.graph_files.format import GraphFormat, Parsed, RawFile

_GRAPH = re.compile(r"(?im)^([^\"#\n]*\bgraph\s*\[)")
_SCIENTIFIC = re.compile(r"(?m)^(\s*\w+\s+[+-]?\d+)([eE][+-]?\d+)\s*$")


class GML(GraphFormat):
    """GML of networkx, igraph, yEd, and of Newman's collection: with or without labels."""

    name, title, suffixes = "gml", "GML", (".gml",)

    def begins(self, head: str) -> bool:
        start = re.sub(r"(?m)^\s*#.*$", "", head).strip()
        known = re.match(r"(?i)(creator|version|comment|directed|graph\b)", start)
        return known is not None and re.search(r"(?im)^[^\"\n{]*\bgraph\s*\[", start) is not None

    def read(self, file: RawFile) -> Parsed:
        # Whole numbers with an exponent, as R writes them, are no numbers to the reader.
        text = _SCIENTIFIC.sub(r"\1.0\2", file.text)
        # Files with parallel edges do not always say so.
        text = _GRAPH.sub(r"\1 multigraph 1", text, count=1)
        no_label: Any = None  # nodes are their ids; stubs take it for an error
        return Parsed(nx.parse_gml(text.split("\n"), label=no_label))
