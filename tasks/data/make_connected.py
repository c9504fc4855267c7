"""Writes `connected.g6`: every connected simple graph on 1 to 8 nodes once, a graph6 line each.

    python -m tasks.data.make_connected

Every connected graph on n + 1 nodes has a node whose removal leaves it connected, so all of them
arise where a node is joined, in every way, to each connected graph on n nodes. One graph of each
isomorphism class is kept: the one whose graph6 bits are the smallest among all orders of its nodes
that keep to an order of classes of nodes, which numbers of walks tell apart. Lines are in
the order of nodes, edges and bits. Format: https://users.cecs.anu.edu.au/~bdm/data/formats.txt.
"""

import itertools
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

FILE = Path(__file__).with_name("connected.g6")
LARGEST = 8
_BLOCK = 2**22  # bits held at once


def graph6(largest: int = LARGEST) -> bytes:
    """The lines of all connected graphs on 1 to `largest` nodes."""
    lines, graphs = [], np.zeros((1, 1, 1), dtype=bool)
    for nodes in range(1, largest + 1):
        if nodes > 1:
            graphs = _one_of_each(_with_a_node_more(graphs))
        for bits in graphs[:, *_pairs(nodes)]:
            padded = np.zeros((-(-len(bits) // 6), 6), dtype=np.int64)
            padded.flat[: len(bits)] = bits
            lines.append(bytes([63 + nodes, *(63 + padded @ 2 ** np.arange(6)[::-1])]))
    return b"\n".join(lines) + b"\n"


def _pairs(nodes: int) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """The pairs of nodes in graph6's order: (0, 1), (0, 2), (1, 2), (0, 3), ..."""
    second, first = np.tril_indices(nodes, -1)
    return first, second


def _with_a_node_more(
    graphs: Bool[np.ndarray, "graph node node"],
) -> Bool[np.ndarray, "larger more more"]:
    """Each graph with one more node, joined to each non-empty set of the others."""
    count, nodes = graphs.shape[:2]
    sets = np.arange(1, 2**nodes)[:, None] >> np.arange(nodes) & 1 == 1
    larger = np.zeros((count, len(sets), nodes + 1, nodes + 1), dtype=bool)
    larger[..., :-1, :-1] = graphs[:, None]
    larger[..., -1, :-1] = larger[..., :-1, -1] = sets
    return larger.reshape(-1, nodes + 1, nodes + 1)


def _one_of_each(
    graphs: Bool[np.ndarray, "graph node node"],
) -> Bool[np.ndarray, "class node node"]:
    """One graph of each isomorphism class, by number of edges and bits."""
    nodes = graphs.shape[1]
    graphs, starts = _by_walks(graphs)
    first, second = _pairs(nodes)
    places = np.arange(len(first))[::-1]
    smallest = np.empty(len(graphs), dtype=np.int64)
    patterns, pattern = np.unique(starts, axis=0, return_inverse=True)
    for number, start in enumerate(patterns):
        orders = _orders(start)
        members = np.flatnonzero(pattern == number)
        rows = max(1, _BLOCK // orders.size // nodes)
        for block in np.split(members, range(rows, len(members), rows)):
            bits = graphs[block[:, None, None], orders[:, first], orders[:, second]]
            smallest[block] = (bits @ 2**places).min(1)
    keys = np.unique(smallest)
    bits = (keys[:, None] >> places & 1).astype(bool)
    bits = bits[np.argsort(bits.sum(1), kind="stable")]
    kept = np.zeros((len(keys), nodes, nodes), dtype=bool)
    kept[:, first, second] = kept[:, second, first] = bits
    return kept


def _by_walks(
    graphs: Bool[np.ndarray, "graph node node"],
) -> tuple[Bool[np.ndarray, "graph node node"], Bool[np.ndarray, "graph node"]]:
    """The graphs with their nodes in the order of their classes, and where a class starts.

    Two nodes are of one class where, for every length up to that number of nodes, equally many
    walks start from them, and equally many of these return.
    """
    count, nodes = graphs.shape[:2]
    steps = graphs.astype(np.int64)
    walks, numbers = steps, []
    for _ in range(nodes):
        numbers += [walks.sum(2), np.diagonal(walks, axis1=1, axis2=2)]
        walks = walks @ steps
    table = np.stack(numbers, axis=2).reshape(count * nodes, -1)
    classes = np.unique(table, axis=0, return_inverse=True)[1].reshape(count, nodes)
    order = np.argsort(classes, axis=1, kind="stable")
    classes = np.take_along_axis(classes, order, 1)
    starts = np.diff(classes, axis=1, prepend=-1) > 0
    return graphs[np.arange(count)[:, None, None], order[:, :, None], order[:, None]], starts


def _orders(starts: Bool[np.ndarray, " node"]) -> Int[np.ndarray, "order node"]:
    """Every order of the nodes that leaves each of them in its class."""
    classes = np.split(np.arange(len(starts)), np.flatnonzero(starts)[1:])
    within = (list(itertools.permutations(c.tolist())) for c in classes)
    return np.array([sum(parts, ()) for parts in itertools.product(*within)])


if __name__ == "__main__":
    FILE.write_bytes(graph6())
