"""An order of a large graph's nodes in which its matrix shows what belongs together."""

import networkx as nx
import numpy as np


def by_community(matrix: np.ndarray) -> np.ndarray:
    """The nodes of a transition matrix (node, next), community by community, the largest first, and
    in each those first that are led to most.

    Communities are those of Blondel et al. (2008), by steps in either direction.

    >>> blocks = np.kron(np.eye(2), np.full((3, 3), 1 / 3))
    >>> mixed = [0, 3, 1, 4, 2, 5]
    >>> [mixed[i] for i in by_community(blocks[np.ix_(mixed, mixed)])]
    [0, 1, 2, 3, 4, 5]
    """
    graph = nx.from_numpy_array(matrix + matrix.T)
    visits = matrix.sum(0)
    communities = nx.community.louvain_communities(graph, seed=0)
    communities.sort(key=lambda nodes: (-len(nodes), min(nodes)))
    ordered = [
        node for nodes in communities for node in sorted(nodes, key=lambda n: (-visits[n], n))
    ]
    return np.array(ordered)
