"""Next-token prediction on a Markov chain, with its exact Bayes predictor."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import networkx as nx
import numpy as np
from jaxtyping import Float, Int
from scipy.sparse.csgraph import connected_components
from scipy.special import entr

from tasks.graph_files import AS_IT_SAYS, GraphReading, read_graph
from tasks.labels import storable
from tasks.matrices import numbers_and_names
from tasks.prompts import Prompts
from tasks.sampling import check_count, invert
from tasks.texts import AS_LETTERS, TextReading, bigrams

RowWeights = Literal["uniform", "stationary"]


@dataclass(frozen=True, eq=False)
class MarkovGraphTask:
    """A Markov chain on the nodes of a graph: predict the next node from the current one.

    `vocabulary` context: the model sees every token once, and the Bayes prediction is the row P*_i.
    `prompt` context: the model sees a prompt X whose last token is i. Targets follow the
    context-conditioned chain P(j | X) = m_j P*_ij / sum_k m_k P*_ik, m_j the count of j in X (Ildiz
    et al., arXiv 2402.13512), which is also the Bayes prediction.

    Fields: transition_matrix (node, next), row-stochastic, float64; labels, one name per node.
    Raises ValueError for a matrix that is not square, finite, non-negative and row-stochastic, and
    for two labels that are the same.

    >>> task = MarkovGraphTask.from_matrix([[0.0, 1.0], [0.5, 0.5]])
    >>> task.stationary_distribution.round(3).tolist(), round(task.entropy_rate, 4)
    ([0.333, 0.667], 0.4621)
    """

    transition_matrix: Float[np.ndarray, "node node"]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        matrix = self.transition_matrix
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] < 2:
            raise ValueError(
                "a transition matrix must be square with at least 2 nodes, got shape"
                f" {matrix.shape}: give one row and one column per node"
            )
        if len(self.labels) != len(matrix):
            raise ValueError(
                f"got {len(self.labels)} labels for {len(matrix)} nodes: give one label per node"
            )
        storable(self.labels)
        _check_weights(matrix, self.labels)
        sums = matrix.sum(1)
        worst = int(np.argmax(np.abs(sums - 1)))
        if abs(sums[worst] - 1) > 1e-8:
            raise ValueError(
                f"rows of a transition matrix must sum to 1, but row {self.labels[worst]} sums to"
                f" {sums[worst]:.12g}: divide each row by its sum, or build the task with from_graph"
            )

    @classmethod
    def from_matrix(
        cls, matrix: object, labels: Sequence[object] | None = None
    ) -> "MarkovGraphTask":
        """The chain of a row-stochastic matrix P*: nested lists, an array, or a table of pandas, of
        which the rows name the nodes (see `tasks.matrices`).
        """
        return cls(*numbers_and_names(matrix, labels))

    @classmethod
    def from_graph(cls, graph: nx.Graph, weight: str = "weight") -> "MarkovGraphTask":
        """The random walk on a graph: P*_ij proportional to the weight of edge i -> j (1 where it
        has none).

        Undirected edges go both ways; parallel edges add up. Raises ValueError for negative or
        non-finite weights and for a node without out-neighbours.
        """
        labels = tuple(str(node) for node in graph)
        try:
            dtype = np.dtype(np.float64)
            weights, least = (
                nx.to_numpy_array(graph, weight=weight, multigraph_weight=join, dtype=dtype)
                for join in (sum, min)
            )
        except (TypeError, ValueError, nx.NetworkXError) as error:
            raise ValueError(
                f"edge weights must be numbers ({error}): mend attribute {weight!r}"
            ) from error
        if len(labels) < 2:
            raise ValueError(
                f"a graph needs at least 2 nodes to have transitions, got {len(labels)}: add nodes"
            )
        _check_weights(weights, labels)
        _check_weights(least, labels)  # where edges are parallel, their sum hides a negative weight
        largest = weights.max(1, keepdims=True)
        for label, most in zip(labels, largest[:, 0], strict=True):
            if most == 0:
                raise ValueError(
                    f"every node needs an out-neighbour, but node {label} has none: add an edge (a"
                    " self-loop, say) or drop it"
                )
        scaled = weights / largest  # the sum of the weights themselves may be above all numbers
        return cls(scaled / scaled.sum(1, keepdims=True), labels)

    @classmethod
    def from_file(cls, path: str | Path, reading: GraphReading = AS_IT_SAYS) -> "MarkovGraphTask":
        """The random walk on the graph of a file in any known format (see `tasks.read_graph`)."""
        return cls.from_graph(read_graph(path, reading).graph)

    @classmethod
    def from_text(cls, text: str, reading: TextReading = AS_LETTERS) -> "MarkovGraphTask":
        """The chain of a text's letters or other symbols (see `tasks.bigrams`)."""
        transitions = bigrams(text, reading)
        return cls(transitions.matrix, transitions.symbols)

    @property
    def nodes(self) -> int:
        """K, the number of nodes (tokens)."""
        return len(self.transition_matrix)

    @cached_property
    def out_degree(self) -> Int[np.ndarray, " node"]:
        """The number of out-neighbours of each node."""
        return (self.transition_matrix > 0).sum(1)

    @cached_property
    def row_entropy(self) -> Float[np.ndarray, " node"]:
        """Entropy of each row in nats: -sum_j P*_ij log P*_ij."""
        return entr(self.transition_matrix).sum(1)

    @cached_property
    def stationary_distribution(self) -> Float[np.ndarray, " node"]:
        """pi = pi P*, the left Perron vector; zero on transient nodes.

        Found by the elimination of Grassmann, Taksar and Heyman (1985), which never subtracts:
        every entry, however small, is non-negative and accurate to a few roundings.

        Raises ValueError where it is not unique, that is with more than one closed class of nodes.
        """
        p = self.transition_matrix
        classes, label = connected_components(p > 0, directed=True, connection="strong")
        closed = [c for c in range(classes) if not (p[label == c][:, label != c] > 0).any()]
        if len(closed) > 1:
            names = [self.labels[int(np.argmax(label == c))] for c in closed[:2]]
            raise ValueError(
                f"the chain has no unique stationary distribution: nodes {names[0]} and {names[1]}"
                " lie in different closed classes; connect them, or weight the rows uniformly"
            )
        member = label == closed[0]
        inner = p[np.ix_(member, member)]
        # Leave node `last` out: its visits lead where it leads.
        for last in range(len(inner) - 1, 0, -1):
            inner[:last, last] /= inner[last, :last].sum()
            inner[:last, :last] += np.outer(inner[:last, last], inner[last, :last])
        visits = np.ones(len(inner))  # the share of each node in the visits to nodes 0..node
        for node in range(1, len(inner)):
            visits[node] = visits[:node] @ inner[:node, node]
            visits[: node + 1] /= visits[: node + 1].sum()
        pi = np.zeros(self.nodes)
        pi[member] = visits
        return pi

    @cached_property
    def entropy_rate(self) -> float:
        """H* = -sum_i pi_i sum_j P*_ij log P*_ij in nats: the Bayes cross-entropy of the stationary
        chain.
        """
        return float(self.stationary_distribution @ self.row_entropy)

    def row_weights(self, weighting: RowWeights) -> Float[np.ndarray, " node"]:
        """The weight of each row in a loss: 1/K, or pi. Raises ValueError for another name, or
        where pi is not unique.
        """
        if weighting == "uniform":
            return np.full(self.nodes, 1 / self.nodes)
        if weighting == "stationary":
            return self.stationary_distribution
        raise ValueError(f"unknown row weighting {weighting!r}: choose uniform or stationary")

    def bayes_predictive(self, prompts: Prompts | None = None) -> Float[np.ndarray, "row node"]:
        """The Bayes prediction: P* row by row, or, given prompts, P(j | X) = m_j P*_ij / sum_k m_k
        P*_ik for each.

        Raises ValueError for a prompt in which no neighbour of the last token occurs: it has no
        next token.
        """
        if prompts is None:
            return self.transition_matrix.copy()
        mass = prompts.counts(self.nodes) * self.transition_matrix[prompts.query]
        total = mass.sum(1, keepdims=True)
        if (total == 0).any():
            raise ValueError(
                f"prompt {int(np.argmin(total))} holds no neighbour of its last token, so nothing"
                " can follow it: draw prompts with sample_prompts, or leave it out"
            )
        return mass / total

    def sample_transitions(
        self, count: int, generator: np.random.Generator, weighting: RowWeights = "uniform"
    ) -> tuple[Int[np.ndarray, " {count}"], Int[np.ndarray, " {count}"]]:
        """Independent transitions (i, j): i from the row weights, j from P*_i. Uses two uniforms
        each.
        """
        check_count(count, "transitions")
        uniform = generator.random((count, 2))
        current = invert(np.cumsum(self.row_weights(weighting)), uniform[:, 0])
        return current, invert(np.cumsum(self.transition_matrix, 1)[current], uniform[:, 1])

    def prompt_acceptance(self, length: int, weighting: RowWeights = "uniform") -> float:
        """The probability that independent tokens make a valid prompt, one that holds a neighbour
        of its last token.
        """
        return float(self.row_weights(weighting) @ self._acceptance(length, weighting)[0])

    def sample_prompts(
        self,
        count: int,
        length: int,
        generator: np.random.Generator,
        weighting: RowWeights = "uniform",
    ) -> Prompts:
        """Prompts of independent tokens drawn by the row weights, given that the last has a
        neighbour among them.

        The conditional law is sampled directly, by the place of the first neighbour, so nothing is
        rejected and every prompt uses exactly length + 2 uniforms. `prompt_acceptance` is the
        probability of the condition.

        Raises ValueError for count < 1, length < 1, or where no valid prompt exists.
        """
        check_count(count, "prompts")
        weights = self.row_weights(weighting)
        accept, neighbour_mass = self._acceptance(length, weighting)
        if not (weights * accept).sum() > 0:
            raise ValueError(
                f"no prompt of length {length} can hold a neighbour of its last token: use longer"
                " prompts"
            )
        uniform = generator.random((count, length + 2))
        query = invert(np.cumsum(weights * accept), uniform[:, 0])
        neighbours = self.transition_matrix[query] > 0
        # Where the last token is its own neighbour there is no condition on the rest.
        looped = neighbours[np.arange(count), query]
        # The first neighbour stands at place t with probability p (1-p)^(t-1) / (1 -
        # (1-p)^(length-1)).
        p = neighbour_mass[query]
        with np.errstate(divide="ignore", invalid="ignore"):
            first = np.ceil(np.log1p(-uniform[:, 1] * accept[query]) / np.log1p(-p))
        first = np.where(looped, 0, np.clip(np.nan_to_num(first, nan=1.0), 1, max(1, length - 1)))
        tokens = np.empty((count, length), dtype=np.int64)
        tokens[:, -1] = query
        inside = np.cumsum(weights * neighbours, 1)
        outside = np.cumsum(weights * ~neighbours, 1)
        everything = np.broadcast_to(np.cumsum(weights), inside.shape)
        for place in range(1, length):
            not_after = np.where((first == place)[:, None], inside, outside)
            place_law = np.where((place > first)[:, None], everything, not_after)
            tokens[:, place - 1] = invert(place_law, uniform[:, place + 1])
        prompts = Prompts(tokens, np.zeros(count, dtype=np.int64))
        target = invert(np.cumsum(self.bayes_predictive(prompts), 1), uniform[:, -1])
        return Prompts(tokens, target)

    def _acceptance(
        self, length: int, weighting: RowWeights
    ) -> tuple[Float[np.ndarray, " node"], Float[np.ndarray, " node"]]:
        """P(a prompt is valid | its last token), and the mass of that token's neighbours."""
        if length < 1:
            raise ValueError(
                f"a prompt needs at least 1 token, got length {length}: choose length >= 1"
            )
        neighbours = self.transition_matrix > 0
        mass = np.minimum(neighbours @ self.row_weights(weighting), 1.0)
        return np.where(np.diag(neighbours), 1.0, 1 - (1 - mass) ** (length - 1)), mass


def _check_weights(weights: np.ndarray, labels: Sequence[str]) -> None:
    for rule, broken in (("finite", ~np.isfinite(weights)), ("non-negative", weights < 0)):
        if broken.any():
            row, column = np.argwhere(broken)[0]
            raise ValueError(
                f"transition weights must be {rule}, got {weights[row, column]} from node"
                f" {labels[row]} to node {labels[column]}: mend that weight"
            )
