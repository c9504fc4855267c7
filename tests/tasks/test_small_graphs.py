"""All small connected graphs: complete, each once, by certificates that their maker does not use."""

import itertools
import math
from importlib.resources import files

import networkx as nx
import numpy as np
import pytest

from tasks import GraphFacts, MarkovGraphTask, adjacency_matrix, connected_graphs, neighbour_law
from tasks.data.make_connected import FILE, graph6

CONNECTED = (1, 1, 2, 6, 21, 112, 853, 11117)  # OEIS A001349
LABELLED = (1, 1, 4, 38, 728, 26704, 1866256, 251548592)  # OEIS A001187
SIZES = range(1, 9)


def certificates(graphs: np.ndarray) -> np.ndarray:
    """A number for each graph that its isomorphism class determines (arithmetic modulo 2^64).

    Pairs of nodes are coloured by what they are, and then twice by the colours of all triangles
    over them, as in the two-dimensional algorithm of Weisfeiler and Leman.
    """
    nodes = graphs.shape[1]
    colours = np.where(np.eye(nodes, dtype=bool), 3, graphs + 1).astype(np.uint64)

    def mixed(x: np.ndarray) -> np.ndarray:
        x = (x ^ (x >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
        return (x ^ (x >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)

    for _ in range(2):
        over = mixed(
            colours[:, :, None, :] * np.uint64(5)
            + colours.swapaxes(1, 2)[:, None] * np.uint64(11) * colours[:, :, None, :]
        )
        colours = mixed(colours + mixed(over).sum(3))
    return mixed(colours).sum((1, 2))


def automorphisms(graphs: np.ndarray) -> np.ndarray:
    """How many relabellings leave each graph as it is, by laying node after node onto another."""
    nodes = graphs.shape[1]
    graph, images = np.arange(len(graphs)), np.zeros((len(graphs), 0), dtype=int)
    for node in range(nodes):
        graph, image = np.repeat(graph, nodes), np.tile(np.arange(nodes), len(graph))
        images = np.repeat(images, nodes, axis=0)
        fits = (images != image[:, None]).all(1)
        for earlier in range(node):
            fits &= graphs[graph, node, earlier] == graphs[graph, image, images[:, earlier]]
        graph, images = graph[fits], np.column_stack([images, image])[fits]
    return np.bincount(graph, minlength=len(graphs))


# The graphs


def test_a_certificate_survives_relabelling() -> None:
    graphs, order = connected_graphs(6), np.array([3, 0, 5, 1, 4, 2])
    np.testing.assert_array_equal(certificates(graphs), certificates(graphs[:, order][:, :, order]))


@pytest.mark.parametrize("nodes", SIZES)
def test_every_connected_graph_is_there_once(nodes: int) -> None:
    """As many as there are, no two alike, and of as many labellings as connected graphs have."""
    graphs = connected_graphs(nodes)
    assert graphs.shape == (CONNECTED[nodes - 1], nodes, nodes)
    assert (graphs == graphs.swapaxes(1, 2)).all()
    assert not np.diagonal(graphs, axis1=1, axis2=2).any()
    distance_at_most = np.linalg.matrix_power((graphs | np.eye(nodes, dtype=bool)).astype(int), 8)
    assert (distance_at_most > 0).all()
    assert len(np.unique(certificates(graphs))) == len(graphs)
    labellings = math.factorial(nodes) // automorphisms(graphs)
    assert labellings.sum() == LABELLED[nodes - 1]


@pytest.mark.parametrize("nodes", range(1, 7))
def test_they_are_those_of_the_atlas(nodes: int) -> None:
    left = [g for g in nx.graph_atlas_g() if len(g) == nodes and nx.is_connected(g)]
    for adjacency in connected_graphs(nodes):
        graph = nx.from_numpy_array(adjacency)
        twins = [g for g in left if nx.is_isomorphic(g, graph)]
        assert len(twins) == 1
        left.remove(twins[0])
    assert not left


def test_the_decoder_reads_what_networkx_reads() -> None:
    lines = FILE.read_bytes().split()
    for nodes in SIZES:
        own = [line for line in lines if line[0] == 63 + nodes]
        graphs = connected_graphs(nodes)
        for place in np.unique(np.linspace(0, len(own) - 1, 60).astype(int)):
            expected = nx.to_numpy_array(nx.from_graph6_bytes(own[place]))
            np.testing.assert_array_equal(graphs[place], expected)


def test_the_committed_file_is_what_its_script_makes_and_part_of_the_package() -> None:
    content = files("tasks").joinpath("data/connected.g6").read_bytes()
    assert content == FILE.read_bytes()
    made = graph6(7)
    assert content.startswith(made)
    assert len(made.split()) == sum(CONNECTED[:7])
    edges = [g.sum() for nodes in SIZES for g in connected_graphs(nodes)]
    steps = np.cumsum(CONNECTED)[:-1] - 1
    assert set(np.flatnonzero(np.diff(edges) < 0)) <= set(steps.tolist())  # by number of edges


def test_the_graphs_are_shared_and_cannot_be_changed() -> None:
    assert connected_graphs(8) is connected_graphs(8)
    with pytest.raises(ValueError, match="read-only"):
        connected_graphs(8)[0, 0, 1] = True


@pytest.mark.parametrize("nodes", [0, 9, -1])
def test_other_sizes_are_refused(nodes: int) -> None:
    with pytest.raises(ValueError, match=rf"1 to 8 nodes, got {nodes}: choose one of these, or a"):
        connected_graphs(nodes)


def test_another_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.small_graphs._DIGEST", "0" * 64)
    connected_graphs.cache_clear()
    with pytest.raises(ValueError, match=r"must be the file .* got one of 83610 other bytes: make"):
        connected_graphs(5)


# The law


def test_the_law_is_uniform_over_a_node_and_its_neighbours() -> None:
    graphs = connected_graphs(5)
    law = neighbour_law(graphs)
    for adjacency, matrix in zip(graphs, law, strict=True):
        for i, j in itertools.product(range(5), repeat=2):
            near = {i, *nx.from_numpy_array(adjacency).neighbors(i)}
            assert matrix[i, j] == (1 / len(near) if j in near else 0)
    np.testing.assert_array_equal(neighbour_law(graphs[7]), law[7])


def test_facts_by_loops() -> None:
    graphs = connected_graphs(6)
    facts = GraphFacts.of(graphs)
    law = neighbour_law(graphs)
    for place, adjacency in enumerate(graphs):
        graph = nx.from_numpy_array(adjacency)
        entropy = MarkovGraphTask.from_matrix(law[place]).row_entropy
        spread = math.sqrt(sum((h - entropy.mean()) ** 2 for h in entropy) / 6)
        assert facts.entropy_spread[place] == pytest.approx(spread, abs=1e-12)
        assert facts.degree_classes[place] == len({d for _, d in graph.degree()})
        assert facts.density[place] == pytest.approx(nx.density(graph), rel=1e-14)


def test_facts_of_extreme_graphs() -> None:
    """The complete graph has nothing to tell apart, a star two kinds of nodes."""
    facts = GraphFacts.of(connected_graphs(8))
    assert (facts.entropy_spread[-1], facts.degree_classes[-1], facts.density[-1]) == (0, 1, 1)
    star = GraphFacts.of(adjacency_matrix(nx.star_graph(7))[None])
    share = math.sqrt(7) / 8  # the deviation of one in eight
    assert star.entropy_spread[0] == pytest.approx(share * math.log(8 / 2), rel=1e-12)
    assert (star.degree_classes[0], star.density[0]) == (2, 0.25)
    single = GraphFacts.of(connected_graphs(1))
    assert (single.entropy_spread[0], single.degree_classes[0], single.density[0]) == (0, 1, 0)
    assert facts.degree_classes.max() == 7  # two nodes of a simple graph share a degree


# A user's graph


def test_a_users_graph_keeps_its_order() -> None:
    graph = nx.Graph([("c", "a"), ("a", "b")])
    expected = [[False, True, False], [True, False, True], [False, True, False]]
    assert adjacency_matrix(graph).tolist() == expected
    graph.edges["c", "a"]["weight"] = 1.0
    assert adjacency_matrix(graph).tolist() == expected
    assert adjacency_matrix(nx.path_graph(300)).sum() == 2 * 299


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (nx.DiGraph([(0, 1)]), r"undirected, got a directed one: call its to_undirected\(\)"),
        (nx.MultiGraph([(0, 1)]), "at most one edge between two nodes, got a multigraph: turn"),
        (nx.Graph([(0, 1), (1, 1)]), "simple, got a self-loop from node 1 to node 1: drop it"),
        (nx.Graph([("a", "b"), ("c", "d")]), "connected, got no path from node a to node c: join"),
        (nx.Graph(), "at least 1 node, got none: add nodes"),
        (
            nx.Graph([("a", "b", {"weight": 2})]),
            "no weights, got 2 between nodes a and b: drop the attribute",
        ),
    ],
)
def test_a_graph_that_is_not_of_the_family(graph: nx.Graph, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adjacency_matrix(graph)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([(0, 1), (1, 2), (2, 1)], "undirected, got a one-way edge from node 0 to node 1: add the"),
        ([(0, 1), (1, 0), (2, 2)], "simple, got a self-loop from node 2 to node 2: drop it"),
        ([(0, 1), (1, 0)], "connected, got no path from node 0 to node 2: join them, or keep one"),
    ],
)
def test_a_matrix_that_is_not_of_the_family(edges: list, message: str) -> None:
    adjacency = np.zeros((2, 3, 3), dtype=bool)
    adjacency[0] = connected_graphs(3)[0]
    adjacency[1][tuple(np.transpose(edges))] = True
    with pytest.raises(ValueError, match=message):
        neighbour_law(adjacency)
