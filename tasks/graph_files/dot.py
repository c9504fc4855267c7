"""Graphviz' DOT. networkx's reader needs another package for it, and leaves out subgraphs."""

import re
from collections.abc import Iterator
from itertools import pairwise

from tasks.graph_files.format import GraphFileError, GraphFormat, Parsed, RawFile, edge_graph

_COMMENT = r"/\*.*?\*/|//[^\n]*|(?m:^)#[^\n]*"
_TOKEN = re.compile(
    rf'(?P<skip>\s+|{_COMMENT})|(?P<text>"(?:[^"\\]|\\.)*")|(?P<edge>->|--)|(?P<sign>[{{}}\[\];,=:+])'
    r"|(?P<word>-?(?:\.\d+|\d+(?:\.\d*)?)(?![\w.])|[^\W\d]\w*)|(?P<html><)",
    re.DOTALL,
)
_Token = tuple[str, str]
_Attributes = dict[str, str]
_END = ("end", "")


class DOT(GraphFormat):
    """DOT with subgraphs, ports, chains of edges and default values; a label names a node."""

    name, title, suffixes = "dot", "DOT", (".dot", ".gv")

    def begins(self, head: str) -> bool:
        code = re.sub(_COMMENT, "", head, flags=re.DOTALL).strip()
        return re.match(r"(?is)(strict\s+)?(di)?graph\b[^\[{\n]*\{", code) is not None

    def read(self, file: RawFile) -> Parsed:
        grammar = _Grammar(list(_tokens(file.text)))
        grammar.graph()
        graph = edge_graph(grammar.edges, grammar.nodes, grammar.directed)
        for node, attributes in grammar.nodes.items():
            label = attributes.get("label", "\\N")
            if "\\N" not in label and not label.startswith("<"):
                graph.nodes[node]["label"] = label
        return Parsed(graph)


def _tokens(text: str) -> Iterator[_Token]:
    """Type and text of every token. Raises ValueError for what is none."""
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise ValueError(f"{text[place : place + 20]!r} is no DOT")
        token_type, place = str(match.lastgroup), match.end()
        if token_type == "html":
            depth, start = 1, place - 1
            while depth:
                if place == len(text):
                    raise ValueError("a text in < > does not end")
                depth += {"<": 1, ">": -1}.get(text[place], 0)
                place += 1
            yield "html", text[start:place]
        elif token_type == "text":
            yield token_type, match[0][1:-1].replace('\\"', '"').replace("\\\n", "")
        elif token_type != "skip":
            yield token_type, match[0]


class _Grammar:
    """A graph's statements, read into nodes and edges."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens, self.place = tokens, 0
        self.directed = self.strict = False
        self.nodes: dict[str, _Attributes] = {}
        self.edges: list[tuple[str, str, _Attributes]] = []

    def graph(self) -> None:
        """The whole file."""
        self.strict = bool(self.keyword("strict"))
        self.directed = bool(self.keyword("digraph"))
        if not self.directed and not self.keyword("graph"):
            raise ValueError(f"it begins with {self.next[1]!r:.20}, not with graph or digraph")
        if self.next[0] in ("word", "text", "html"):
            self.identifier()
        self.block({}, {})
        if self.next != _END:
            raise GraphFileError("holds more than one graph: give a file with one")
        if self.strict:  # an edge that is written again changes the first
            once: dict[tuple[str, str], _Attributes] = {}
            for u, v, data in self.edges:
                pair = (u, v) if self.directed or (v, u) not in once else (v, u)
                once[pair] = once.get(pair, {}) | data
            self.edges = [(u, v, data) for (u, v), data in once.items()]

    @property
    def next(self) -> _Token:
        """The token that is read next."""
        return self.tokens[self.place] if self.place < len(self.tokens) else _END

    def keyword(self, *words: str) -> str:
        """The next token if it is one of these words, which is then passed."""
        token_type, text = self.next
        if token_type != "word" or text.lower() not in words:
            return ""
        self.place += 1
        return text.lower()

    def sign(self, *signs: str) -> str:
        """The same of signs."""
        token_type, text = self.next
        if token_type not in ("sign", "edge") or text not in signs:
            return ""
        self.place += 1
        return text

    def require(self, sign: str) -> None:
        """Pass a sign. Raises ValueError for anything else."""
        if not self.sign(sign):
            raise ValueError(f"{self.next[1] or 'the end'!r:.20} stands where {sign} should")

    def identifier(self) -> str:
        """A name or value; texts may be joined by +."""
        token_type, text = self.next
        if token_type not in ("word", "text", "html"):
            raise ValueError(f"{text or 'the end'!r:.20} stands where a name should")
        self.place += 1
        while token_type == "text" and self.sign("+"):
            text += self.identifier()
        return text

    def attributes(self) -> _Attributes:
        """Those in brackets, if any."""
        attributes = {}
        while self.sign("["):
            while not self.sign("]"):
                key = self.identifier()
                attributes[key] = self.identifier() if self.sign("=") else "true"
                self.sign(";", ",")
        return attributes

    def block(self, node: _Attributes, edge: _Attributes) -> list[str]:
        """The statements between braces, with the defaults around them; returns its nodes."""
        node, edge = dict(node), dict(edge)
        members: list[str] = []
        self.require("{")
        while not self.sign("}"):
            members += self.statement(node, edge)
            self.sign(";", ",")
        return members

    def statement(self, node: _Attributes, edge: _Attributes) -> list[str]:
        """One statement; defaults are changed in place. Returns the nodes that it names."""
        default = self.keyword("graph", "node", "edge")
        if default:
            {"graph": {}, "node": node, "edge": edge}[default].update(self.attributes())
            return []
        ends, chain = [self.end(node, edge)], False
        if self.sign("="):
            self.identifier()
            return []
        while sign := self.sign("->", "--"):
            if (sign == "->") != self.directed:
                raise ValueError(f"a {'digraph' if self.directed else 'graph'} has an edge {sign}")
            ends.append(self.end(node, edge))
            chain = True
        attributes = self.attributes()
        for members in ends:
            for name in members:
                self.nodes.setdefault(name, dict(node))
        for first, second in pairwise(ends):
            self.edges += [(u, v, edge | attributes) for u in first for v in second]
        if not chain and len(ends[0]) == 1:
            self.nodes[ends[0][0]].update(attributes)
        return [name for members in ends for name in members]

    def end(self, node: _Attributes, edge: _Attributes) -> list[str]:
        """A node, or the nodes of a subgraph."""
        if self.keyword("subgraph") and self.next != ("sign", "{"):
            self.identifier()
        if self.next == ("sign", "{"):
            return list(dict.fromkeys(self.block(node, edge)))
        name = self.identifier()
        while self.sign(":"):
            self.identifier()
        return [name]
