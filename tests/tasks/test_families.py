"""Graph families."""

import math
import random
from collections import Counter

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tasks import FAMILIES, MarkovGraphTask, graph_from_family

FALSE_ALARM = 1e-6
RANDOM = ("erdos-renyi", "barabasi-albert", "small-world", "stochastic-blocks")


def edges(graph: nx.Graph) -> set[tuple[int, int]]:
    return set(graph.edges())


# Families


@given(st.integers(2, 40))
def test_the_ring_runs_from_one_neighbour_to_all(nodes: int) -> None:
    graph = graph_from_family("graded", nodes)
    degrees = [graph.out_degree(i) for i in range(nodes)]
    assert list(graph) == list(range(nodes))
    assert degrees == sorted(degrees)
    assert (degrees[0], degrees[-1]) == (1, nodes)
    assert degrees == [round(nodes ** (i / (nodes - 1))) for i in range(nodes)]
    for i in range(nodes):
        assert set(graph.successors(i)) == {(i + k) % nodes for k in range(1, degrees[i] + 1)}
    assert nx.is_strongly_connected(graph)


def test_the_default_ring_is_that_of_the_design() -> None:
    assert [d for _, d in graph_from_family("graded").out_degree()] == [1, 1, 2, 2, 3, 4, 6, 8]


@given(
    st.sampled_from(RANDOM),
    st.integers(2, 24),
    st.floats(0.01, 1),
    st.integers(0, 2**32),
)
def test_random_families_leave_no_node_without_out_neighbours(
    family: str, nodes: int, share: float, seed: int
) -> None:
    graph = graph_from_family(family, nodes, share * (nodes - 1), np.random.default_rng(seed))
    assert graph.is_directed()
    assert sorted(graph) == list(range(nodes))
    assert min(d for _, d in graph.out_degree()) >= 1
    assert nx.number_of_selfloops(graph) == 0
    task = MarkovGraphTask.from_graph(graph)
    assert task.nodes == nodes
    np.testing.assert_allclose(
        task.transition_matrix.max(1), 1 / task.out_degree
    )  # uniform over out-neighbours


def test_erdos_renyi_has_the_mean_degree_asked_for() -> None:
    nodes, mean_degree, draws = 20, 8.0, 60
    generator = np.random.default_rng(0)
    graphs = [graph_from_family("erdos-renyi", nodes, mean_degree, generator) for _ in range(draws)]
    present = sum(g.number_of_edges() for g in graphs)
    pairs = draws * nodes * (nodes - 1)
    assert stats.binomtest(present, pairs, mean_degree / (nodes - 1)).pvalue > FALSE_ALARM
    one_way = sum((j, i) not in edges(g) for g in graphs for i, j in edges(g))
    assert one_way / present == pytest.approx(
        1 - mean_degree / (nodes - 1), abs=0.03
    )  # directions are independent
    assert graph_from_family("erdos-renyi", 5, 4.0, generator).number_of_edges() == 20


def test_a_lonely_node_gets_one_uniform_neighbour() -> None:
    """At a mean degree of almost nothing every edge is one of those added."""
    nodes, draws = 5, 2000
    generator = np.random.default_rng(1)
    counts = np.zeros((nodes, nodes))
    for _ in range(draws):
        graph = graph_from_family("erdos-renyi", nodes, 1e-9, generator)
        assert [d for _, d in graph.out_degree()] == [1] * nodes
        counts[tuple(np.transpose(list(graph.edges())))] += 1
    assert np.diag(counts).sum() == 0
    assert stats.chisquare(counts[~np.eye(nodes, dtype=bool)]).pvalue > FALSE_ALARM


@pytest.mark.parametrize(("nodes", "mean_degree", "new"), [(20, 6.0, 3), (9, 1.0, 1), (12, 4.0, 2)])
def test_barabasi_albert(nodes: int, mean_degree: float, new: int) -> None:
    graph = graph_from_family("barabasi-albert", nodes, mean_degree, np.random.default_rng(2))
    assert graph.number_of_edges() == 2 * new * (nodes - new)
    assert edges(graph) == {(j, i) for i, j in edges(graph)}
    assert nx.is_strongly_connected(graph)


@pytest.mark.parametrize(
    ("nodes", "mean_degree", "near"), [(20, 4.0, 4), (20, 5.9, 6), (9, 1.0, 2), (6, 5.0, 4)]
)
def test_small_world(nodes: int, mean_degree: float, near: int) -> None:
    graph = graph_from_family("small-world", nodes, mean_degree, np.random.default_rng(3))
    assert graph.number_of_edges() == nodes * near
    assert edges(graph) == {(j, i) for i, j in edges(graph)}
    if nodes == 20:
        lattice = {(i, (i + k) % nodes) for i in range(nodes) for k in range(1, near // 2 + 1)}
        rewired = len(lattice - edges(graph)) / len(lattice)
        assert 0.05 < rewired < 0.6  # rewired with probability 0.3


def test_stochastic_blocks() -> None:
    nodes, mean_degree, draws = 20, 5.0, 80
    generator = np.random.default_rng(4)
    inside = across = 0
    for _ in range(draws):
        graph = graph_from_family("stochastic-blocks", nodes, mean_degree, generator)
        for i, j in edges(graph):
            inside += (i < nodes // 2) == (j < nodes // 2)
            across += (i < nodes // 2) != (j < nodes // 2)
    assert (inside + across) / (draws * nodes) == pytest.approx(mean_degree, rel=0.05)
    assert inside / (inside + across) == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("nodes", [2, 4, 8])
def test_the_papers_family_draws_all_connected_graphs_alike(nodes: int) -> None:
    generator, draws = np.random.default_rng(5), 600
    counts = Counter()
    for _ in range(draws):
        graph = graph_from_family("paper", nodes, generator=generator)
        assert list(graph) == list(range(nodes))
        task = MarkovGraphTask.from_graph(graph)
        assert edges(graph) == {(j, i) for i, j in edges(graph)}
        assert nx.is_strongly_connected(graph)
        np.testing.assert_allclose(task.transition_matrix.max(1), 1 / task.out_degree)
        assert (np.diag(task.transition_matrix) > 0).all()
        counts[frozenset(edges(graph))] += 1
    classes = {2: 1, 4: 6, 8: 11117}[nodes]
    if nodes == 8:  # repeats among draws with replacement: a birthday count
        assert abs(draws - len(counts) - draws**2 / (2 * classes)) < 6 * math.sqrt(16)
    else:
        assert len(counts) == classes
    if nodes == 4:
        assert stats.chisquare(list(counts.values())).pvalue > FALSE_ALARM


def test_real_graphs() -> None:
    karate = MarkovGraphTask.from_graph(graph_from_family("karate-club"))
    assert karate.nodes == 34
    assert karate.out_degree.sum() == 2 * 78
    weights = nx.karate_club_graph()[0]
    total = sum(edge["weight"] for edge in weights.values())
    assert karate.transition_matrix[0, 1] == weights[1]["weight"] / total
    miserables = MarkovGraphTask.from_graph(graph_from_family("les-miserables"))
    assert miserables.nodes == 77
    assert miserables.out_degree.sum() == 2 * 254
    assert "Valjean" in miserables.labels
    valjean, javert = (miserables.labels.index(name) for name in ("Valjean", "Javert"))
    assert miserables.transition_matrix[valjean, javert] == pytest.approx(
        17 / 158
    )  # 17 of his 158 shared chapters
    for task in (
        karate,
        miserables,
    ):  # an undirected graph's stationary mass is each node's share of the weight
        assert (task.stationary_distribution > 0).all()


@given(st.sampled_from(RANDOM), st.integers(0, 2**32))
def test_random_families_are_functions_of_their_generator(family: str, seed: int) -> None:
    before = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002 (to see that nobody touches it)
    first, again, other = (
        edges(graph_from_family(family, 12, 4.0, np.random.default_rng(s)))
        for s in (seed, seed, seed + 1)
    )
    assert first == again
    assert first != other
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_every_family_has_a_default() -> None:
    for family in FAMILIES:
        graph = graph_from_family(
            family, generator=np.random.default_rng(0) if family in (*RANDOM, "paper") else None
        )
        assert len(graph) == {"karate-club": 34, "les-miserables": 77}.get(family, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"family": "torus"}, "unknown graph family 'torus': choose one of graded, erdos-renyi"),
        (
            {"family": "karate-club", "nodes": 34},
            "karate-club has a fixed number of nodes, got nodes=34: leave",
        ),
        (
            {"family": "les-miserables", "mean_degree": 3.0},
            "les-miserables has fixed degrees, got mean_degree=3.0",
        ),
        (
            {"family": "graded", "mean_degree": 2.0},
            "graded has fixed degrees, got mean_degree=2.0: leave it out",
        ),
        (
            {"family": "paper", "mean_degree": 2.0},
            "paper has fixed degrees, got mean_degree=2.0: leave it out",
        ),
        ({"family": "paper", "nodes": 3}, "paper is random and got no generator: pass a numpy"),
        (
            {"family": "paper", "nodes": 9, "generator": np.random.default_rng(0)},
            "at hand for 1 to 8 nodes, got 9: choose one of these, or a random family",
        ),
        (
            {"family": "graded", "nodes": 1},
            "at least 2 nodes to have transitions, got 1: choose nodes >= 2",
        ),
        (
            {"family": "small-world", "nodes": 8, "mean_degree": 8.0},
            r"\(0, nodes - 1\] = \(0, 7\], got 8.0: choose",
        ),
        (
            {"family": "erdos-renyi", "nodes": 8, "mean_degree": 0.0},
            r"\(0, nodes - 1\] = \(0, 7\], got 0.0",
        ),
        (
            {"family": "erdos-renyi", "mean_degree": float("nan")},
            r"mean_degree must lie in .* got nan",
        ),
        (
            {"family": "barabasi-albert"},
            "family barabasi-albert is random and got no generator: pass a numpy",
        ),
    ],
)
def test_bad_family_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        graph_from_family(**arguments)
