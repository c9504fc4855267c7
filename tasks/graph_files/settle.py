"""From what a file says to the graph of a random walk: every choice is made by the file, or by the
user, and told.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal, get_args

import networkx as nx

from tasks.graph_files.format import GraphFileError, Parsed, is_number

Sinks = Literal["error", "drop", "self-loop"]
Negative = Literal["error", "absolute"]
Edge = tuple[Hashable, Hashable, float]
NO_WEIGHT = "none"
_WEIGHTS = ("weight", "value")
_NUMBERS = ("id", "key", "label")
_MOST_NODES = 16_384


@dataclass(frozen=True)
class GraphReading:
    """How a graph file is to be read, where the file itself leaves it open.

    graph_format: the name of a format; None finds it out. directed, undirected: whether an edge
    leads from its first node to its second only, or both ways. weight: the attribute or column of
    the weights, or `none`. sinks: what is done with nodes that lead nowhere: an error, dropped (and
    what then leads nowhere, too), or given an edge to themselves. largest_component: keep only the
    largest set of nodes that can all reach each other. negative: an error, or the absolute value
    of negative weights.

    Raises ValueError for directed and undirected at once, and for another word of sinks or negative.

    >>> GraphReading(undirected=True, weight="none").sinks
    'error'
    """

    graph_format: str | None = None
    directed: bool = False
    undirected: bool = False
    weight: str | None = None
    sinks: Sinks = "error"
    largest_component: bool = False
    negative: Negative = "error"

    def __post_init__(self) -> None:
        if self.directed and self.undirected:
            raise ValueError("edges are directed or undirected, and both are set: drop one")
        for name, words in (("sinks", get_args(Sinks)), ("negative", get_args(Negative))):
            if (value := getattr(self, name)) not in words:
                raise ValueError(
                    f"{name} must be one of {', '.join(words)}, got {value!r:.60}: choose one"
                )


AS_IT_SAYS = GraphReading()


@dataclass
class Settled:
    """A graph with the attribute `weight`, without parallel edges, and sentences of how it came."""

    graph: nx.Graph
    notes: list[str] = field(default_factory=list)


def settle(parsed: Parsed, reading: GraphReading) -> Settled:
    """Decide weights and directions, add up parallel edges, drop what is to be dropped.

    Raises GraphFileError where that needs a choice that neither file nor user made.
    """
    name = _weight_name(parsed, reading)
    edges, missing = _weighted(parsed.graph, name)
    negative = [edge for edge in edges if edge[2] < 0]
    if negative and reading.negative == "error":
        u, v, weight = negative[0]
        raise GraphFileError(
            f"has {len(negative)} negative weight(s), such as {weight:g} from {u} to {v}: set "
            "negative (--negative) to absolute, or weight (--weight) to none"
        )
    edges = [(u, v, abs(weight)) for u, v, weight in edges]
    directed = _directed(parsed, reading, edges)
    graph = (nx.DiGraph if directed else nx.Graph)()
    graph.add_nodes_from(parsed.graph.nodes(data=True))
    zeros, parallel = 0, 0
    for u, v, weight in edges:
        if weight == 0:
            zeros += 1
        elif graph.has_edge(u, v):
            graph[u][v]["weight"] += weight
            parallel += 1
        else:
            graph.add_edge(u, v, weight=weight)
    loops = nx.number_of_selfloops(graph)
    by = "without weights" if name is None else f"weighted by {name!r}"
    notes = [
        f"{graph.number_of_nodes()} nodes, {graph.number_of_edges()} "
        f"{'directed' if directed else 'undirected'} edges {by}"
    ]
    notes += [
        sentence
        for count, sentence in (
            (missing, f"{missing} without a weight count 1"),
            (len(negative), f"{len(negative)} negative weights taken absolute"),
            (zeros, f"{zeros} of weight 0 left out"),
            (parallel, f"{parallel} parallel ones added up"),
            (loops, f"{loops} self-loops"),
        )
        if count
    ]
    if unused := [n for n in _numeric(parsed.graph) if n != name]:
        notes.append(f"not used as weights: {', '.join(unused)}")
    if parsed.stated and parsed.graph.is_directed() and reading.undirected:
        notes.append("directed in the file, both ways as asked for")
    graph = _connected(graph, reading, notes)
    return Settled(_without_sinks(graph, reading, notes), notes)


def _weight_name(parsed: Parsed, reading: GraphReading) -> str | None:
    """The attribute of the weights, or None for a graph without."""
    names = {name: None for *_, data in parsed.graph.edges(data=True) for name in data}
    if reading.weight == NO_WEIGHT:
        return None
    if reading.weight is not None:
        if reading.weight not in names:
            known = ", ".join(map(str, names)) or "nothing"
            raise GraphFileError(
                f"has no edge with {reading.weight!r}, but with {known}: set weight (--weight) to "
                "one of these, or to none"
            )
        return reading.weight
    if parsed.unclear:
        raise GraphFileError(f"{parsed.unclear} or none as weight (--weight)")
    likely = [name for name in names if str(name).lower() in _WEIGHTS]
    if parsed.weight is not None and parsed.weight in names:
        return parsed.weight
    if len(likely) > 1:
        raise GraphFileError(
            f"has edges with {' and '.join(map(repr, likely))}: choose one, or none, as weight "
            "(--weight)"
        )
    return likely[0] if likely else None


def _numeric(graph: nx.Graph) -> list[str]:
    """The attributes that could be weights: numbers that are no edge's number."""
    names = [
        str(name)
        for *_, data in graph.edges(data=True)
        for name, value in data.items()
        if isinstance(value, int | float | str) and not isinstance(value, bool)
        if is_number(str(value)) and str(name).lower() not in _NUMBERS
    ]
    return list(dict.fromkeys(names))


def _weighted(graph: nx.Graph, name: str | None) -> tuple[list[Edge], int]:
    """Edges with their weights, in order, and how many lack one and count 1."""
    edges, missing = [], 0
    for u, v, data in graph.edges(data=True):
        value = None if name is None else data.get(name)
        if value is None or value == "":
            missing += name is not None
            value = 1.0
        try:
            if isinstance(value, bool):
                raise ValueError("a truth value")
            weight = float(value)
        except (TypeError, ValueError) as error:
            raise GraphFileError(
                f"has {name} {value!r:.40} from {u} to {v}, which is no number: set weight "
                "(--weight) to another attribute, or to none"
            ) from error
        if not math.isfinite(weight):
            raise GraphFileError(
                f"has weights, which must be finite, got {weight} from {u} to {v}: mend that weight"
            )
        edges.append((u, v, weight))
    return edges, missing


def _directed(parsed: Parsed, reading: GraphReading, edges: list[Edge]) -> bool:
    if parsed.stated:
        if reading.directed and not parsed.graph.is_directed():
            raise GraphFileError("says that its edges go both ways: drop directed (--directed)")
        return parsed.graph.is_directed() and not reading.undirected
    if reading.directed or reading.undirected:
        return reading.directed
    total: dict[tuple[Hashable, Hashable], float] = {}
    for u, v, weight in edges:
        total[u, v] = total.get((u, v), 0.0) + weight
    one_way = sum(total.get((v, u)) != weight for (u, v), weight in total.items())
    if one_way:
        raise GraphFileError(
            f"does not say whether its edges go both ways, and {one_way} of {len(total)} are not "
            "listed in both: set directed or undirected (--directed, --undirected)"
        )
    return True


def _connected(graph: nx.Graph, reading: GraphReading, notes: list[str]) -> nx.Graph:
    if reading.largest_component and len(graph):
        one_way = isinstance(graph, nx.DiGraph)
        parts = (
            nx.strongly_connected_components(graph) if one_way else nx.connected_components(graph)
        )
        kept = max(parts, key=len)
        notes.append(f"the largest component: {len(graph) - len(kept)} nodes dropped")
        graph = graph.subgraph(n for n in graph if n in kept).copy()
    return graph


def _without_sinks(graph: nx.Graph, reading: GraphReading, notes: list[str]) -> nx.Graph:
    graph = graph.copy()
    degree = graph.out_degree if isinstance(graph, nx.DiGraph) else graph.degree
    sinks = [node for node, count in list(degree()) if count == 0]
    if sinks and reading.sinks == "error":
        raise GraphFileError(
            f"has {len(sinks)} nodes that lead nowhere, such as {_name(graph, sinks[0])}: set "
            "sinks (--sinks) to drop or self-loop"
        )
    if sinks and reading.sinks == "self-loop":
        graph.add_edges_from((node, node, {"weight": 1.0}) for node in sinks)
        notes.append(f"{len(sinks)} nodes that lead nowhere lead to themselves")
    elif sinks:
        before = len(graph)
        while sinks:
            ahead = {n for s in sinks for n in _before(graph, s)} - set(sinks)
            graph.remove_nodes_from(sinks)
            sinks = [node for node in ahead if degree(node) == 0]
        notes.append(f"{before - len(graph)} nodes that lead nowhere dropped")
    if len(graph) < 2:
        raise GraphFileError(f"leaves {len(graph)} nodes with edges: a walk needs at least 2")
    if len(graph) > _MOST_NODES:
        raise GraphFileError(
            f"has {len(graph)} nodes, and P* is a matrix of at most {_MOST_NODES} rows: take a "
            "part of it"
        )
    return graph


def _before(graph: nx.Graph, node: Hashable) -> list[Hashable]:
    """The nodes that lead to one."""
    return list(graph.predecessors(node) if isinstance(graph, nx.DiGraph) else graph[node])


def _name(graph: nx.Graph, node: Hashable) -> str:
    return str(graph.nodes[node].get("label", node))
