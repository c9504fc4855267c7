"""Named families of graphs, and real graphs."""

from typing import Literal, get_args

import networkx as nx
import numpy as np

from tasks.small_graphs import connected_graphs

RandomFamily = Literal[
    "graded", "erdos-renyi", "barabasi-albert", "small-world", "stochastic-blocks"
]
PaperFamily = Literal["paper"]
RealFamily = Literal["karate-club", "les-miserables"]
FAMILIES: tuple[str, ...] = get_args(RandomFamily) + get_args(PaperFamily) + get_args(RealFamily)


def graph_from_family(
    family: str,
    nodes: int | None = None,
    mean_degree: float | None = None,
    generator: np.random.Generator | None = None,
) -> nx.Graph:
    """A graph of a named family.

    - `graded`: node i leads to the next k_i nodes of a directed ring; k_i = round(nodes^(i / (nodes
      - 1))) runs from 1 to all, so that a few nodes are far more specific than the others. Not
      random.
    - `erdos-renyi`: directed, each edge present with probability mean_degree / (nodes - 1).
    - `barabasi-albert`: undirected, each new node brings mean_degree / 2 edges.
    - `small-world`: Watts-Strogatz with mean_degree neighbours, rewired with probability 0.3.
    - `stochastic-blocks`: undirected, two blocks, nine in ten expected edges within a block.
    - `paper`: the graphs of arXiv 2411.12892, uniform over all connected simple graphs on 2 to 8
      nodes (11,117 on 8), every node with a self-loop, so that a walk goes on uniformly from a node
      to itself and its neighbours.
    - `karate-club`, `les-miserables`: networkx's real graphs with their weights.

    A node that a random family leaves without out-neighbours gets one uniformly random
    out-neighbour. Random families default to 8 nodes of mean degree 3 (rounded to an even number
    where the family asks for it) and need a generator; real graphs take neither nodes nor
    mean_degree, graded and paper no mean_degree.

    Raises ValueError for an unknown family, an argument that the family does not take, or sizes out
    of range.

    >>> [d for _, d in graph_from_family("graded").out_degree()]
    [1, 1, 2, 2, 3, 4, 6, 8]
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown graph family {family!r}: choose one of {', '.join(FAMILIES)}")
    if family in get_args(RealFamily) and nodes is not None:
        raise ValueError(
            f"the graph {family} has a fixed number of nodes, got nodes={nodes}: leave nodes out"
        )
    if family in (*get_args(RealFamily), "graded", "paper") and mean_degree is not None:
        raise ValueError(
            f"the graph {family} has fixed degrees, got mean_degree={mean_degree}: leave it out"
        )
    if family == "karate-club":
        return nx.karate_club_graph()
    if family == "les-miserables":
        return nx.les_miserables_graph()
    nodes = 8 if nodes is None else nodes
    if nodes < 2:
        raise ValueError(
            f"a graph needs at least 2 nodes to have transitions, got {nodes}: choose nodes >= 2"
        )
    if family == "graded":
        return _graded(nodes)
    mean_degree = 3.0 if mean_degree is None else mean_degree
    if family != "paper" and not 0 < mean_degree <= nodes - 1:
        raise ValueError(
            f"mean_degree must lie in (0, nodes - 1] = (0, {nodes - 1}], got {mean_degree}: choose"
            " a value in that range"
        )
    if generator is None:
        raise ValueError(
            f"the family {family} is random and got no generator: pass a numpy Generator"
        )
    if family == "paper":
        return _paper(nodes, generator)
    if family == "erdos-renyi":
        graph = nx.gnp_random_graph(nodes, mean_degree / (nodes - 1), seed=generator, directed=True)
    elif family == "barabasi-albert":
        graph = nx.barabasi_albert_graph(nodes, max(1, round(mean_degree / 2)), seed=generator)
    elif family == "small-world":
        graph = nx.watts_strogatz_graph(
            nodes, max(2, 2 * round(mean_degree / 2)), 0.3, seed=generator
        )
    else:
        graph = _two_blocks(nodes, mean_degree, generator)
    graph = graph.to_directed()
    for node, degree in list(graph.out_degree()):
        if degree == 0:
            graph.add_edge(node, (node + 1 + int(generator.integers(nodes - 1))) % nodes)
    return graph


def _graded(nodes: int) -> nx.DiGraph:
    degrees = np.rint(nodes ** np.linspace(0, 1, nodes)).astype(int)
    return nx.DiGraph(
        (i, (i + step) % nodes) for i in range(nodes) for step in range(1, degrees[i] + 1)
    )


def _paper(nodes: int, generator: np.random.Generator) -> nx.DiGraph:
    graphs = connected_graphs(nodes)
    drawn = graphs[generator.integers(len(graphs))] | np.eye(nodes, dtype=bool)
    graph = nx.empty_graph(nodes, create_using=nx.DiGraph)
    graph.add_edges_from(np.argwhere(drawn).tolist())
    return graph


def _two_blocks(nodes: int, mean_degree: float, generator: np.random.Generator) -> nx.Graph:
    sizes = [nodes // 2, nodes - nodes // 2]
    inside = min(1.0, 0.9 * mean_degree / max(1, nodes / 2 - 1))
    across = min(1.0, 0.1 * mean_degree / (nodes / 2))
    return nx.stochastic_block_model(sizes, [[inside, across], [across, inside]], seed=generator)
