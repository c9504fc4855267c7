"""All connected simple graphs on 1 to 8 nodes, and the paper's law of the next token on them."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import networkx as nx
import numpy as np
from jaxtyping import Bool, Float, Int

LARGEST = 8
_DIGEST = "fdb02b7e95bf7af792bbc15f1c3e961d5bf2edf04abf7ad14e34b109fd383b88"


@cache
def connected_graphs(nodes: int = LARGEST) -> Bool[np.ndarray, "graph {nodes} {nodes}"]:
    """The adjacency matrices of all connected simple graphs on `nodes` nodes, one of each
    isomorphism class, by number of edges.

    There are 1, 1, 2, 6, 21, 112, 853 and 11,117 of them for 1 to 8 nodes (OEIS A001349). The array
    is shared by all callers and cannot be written to. `tasks.data.make_connected` makes the file.

    Raises ValueError for a number of nodes that is not 1 to 8, and for a file that is not the one
    this code was written for.

    >>> connected_graphs(3).sum((1, 2)).tolist()
    [4, 6]
    """
    if not 1 <= nodes <= LARGEST:
        raise ValueError(
            f"all connected graphs are at hand for 1 to {LARGEST} nodes, got {nodes}: choose one of"
            " these, or a random family"
        )
    content = files("tasks").joinpath("data/connected.g6").read_bytes()
    if hashlib.sha256(content).hexdigest() != _DIGEST:
        raise ValueError(
            "tasks/data/connected.g6 must be the file that this version came with, got one of"
            f" {len(content)} other bytes: make it again with python -m tasks.data.make_connected"
        )
    lines = [line[1:] for line in content.split() if line[0] == 63 + nodes]
    second, first = np.tril_indices(nodes, -1)  # graph6's order: (0, 1), (0, 2), (1, 2), (0, 3), ..
    sixes = np.frombuffer(b"".join(lines), dtype=np.uint8).reshape(len(lines), -(-len(first) // 6))
    bits = np.unpackbits(sixes[..., None] - np.uint8(63), axis=2)[..., 2:].reshape(len(lines), -1)
    graphs = np.zeros((len(lines), nodes, nodes), dtype=bool)
    graphs[:, first, second] = graphs[:, second, first] = bits[:, : len(first)]
    graphs.flags.writeable = False
    return graphs


def adjacency_matrix(graph: nx.Graph) -> Bool[np.ndarray, "node node"]:
    """The adjacency matrix of a user's graph, its nodes in the graph's own order.

    Raises ValueError for a graph that is directed, has parallel edges, self-loops or weights other
    than 1, or is not connected: it is not of the paper's family.

    >>> adjacency_matrix(nx.path_graph(3)).astype(int).tolist()
    [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    """
    if graph.is_directed():
        raise ValueError(
            "the paper's graphs are undirected, got a directed one: call its to_undirected()"
        )
    if graph.is_multigraph():
        raise ValueError(
            "the paper's graphs have at most one edge between two nodes, got a multigraph: turn it"
            " into an nx.Graph"
        )
    for first, second, weight in graph.edges.data("weight", default=1):
        if weight != 1:
            raise ValueError(
                f"the paper's graphs have no weights, got {weight} between nodes {first} and"
                f" {second}: drop the attribute, or build the task with MarkovGraphTask.from_graph"
            )
    if len(graph) == 0:
        raise ValueError("a graph needs at least 1 node, got none: add nodes")
    adjacency = nx.to_numpy_array(graph, dtype=np.dtype(bool))
    _check(adjacency, tuple(graph))
    return adjacency


def neighbour_law(
    adjacency: Bool[np.ndarray, "*graph node node"],
) -> Float[np.ndarray, "*graph node node"]:
    """P* = (A + I) / row sum: the next token is uniform over the node itself and its neighbours.

    Source: the graph experiment of arXiv 2411.12892. Takes one graph or a batch of them. Raises
    ValueError for a matrix that is not symmetric, has self-loops, or is of a graph that is not
    connected.

    >>> neighbour_law(np.array([[False, True], [True, False]])).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    nodes = adjacency.shape[-1]
    _check(adjacency, tuple(range(nodes)))
    closed = adjacency | np.eye(nodes, dtype=bool)
    return closed / closed.sum(-1, keepdims=True)


@dataclass(frozen=True, eq=False)
class GraphFacts:
    """What may explain how much a query temperature gains on a graph, for a batch of graphs.

    entropy_spread: the standard deviation over the nodes of the entropy of their rows of P*, in
    nats; with deg_i neighbours that entropy is log(1 + deg_i). degree_classes: how many different
    degrees there are. density: the share of the pairs of nodes that are edges; 0 for a single node.
    """

    entropy_spread: Float[np.ndarray, " graph"]
    degree_classes: Int[np.ndarray, " graph"]
    density: Float[np.ndarray, " graph"]

    @classmethod
    def of(cls, adjacency: Bool[np.ndarray, "graph node node"]) -> "GraphFacts":
        """The facts of simple graphs.

        >>> path = np.array([[[False, True, False], [True, False, True], [False, True, False]]])
        >>> facts = GraphFacts.of(path)
        >>> facts.degree_classes.tolist(), facts.density.round(3).tolist()
        ([2], [0.667])
        """
        degree = np.sort(adjacency.sum(2), axis=1)
        nodes = degree.shape[1]
        return cls(
            entropy_spread=np.log1p(degree).std(1),
            degree_classes=1 + (np.diff(degree, axis=1) > 0).sum(1),
            density=degree.sum(1) / max(1, nodes * (nodes - 1)),
        )


def _check(adjacency: Bool[np.ndarray, "*graph node node"], labels: tuple) -> None:
    """Raises ValueError, with the first fault, unless all graphs are simple and connected."""
    turned = adjacency.swapaxes(-1, -2)
    nodes = len(labels)
    loops = adjacency & np.eye(nodes, dtype=bool)
    reached = (adjacency | np.eye(nodes, dtype=bool)).astype(np.float32)
    for _ in range(nodes.bit_length()):  # paths of up to 2^k edges after k squarings
        reached = np.minimum(reached @ reached, 1)
    for rule, got, where, remedy in (
        ("undirected", "a one-way edge", adjacency & ~turned, "add the edge back"),
        ("simple", "a self-loop", loops, "drop it, as P* brings its own"),
        ("connected", "no path", reached == 0, "join them, or keep one component"),
    ):
        if where.any():
            *_, first, second = np.argwhere(where)[0]
            raise ValueError(
                f"the paper's graphs are {rule}, got {got} from node {labels[first]} to node"
                f" {labels[second]}: {remedy}"
            )
