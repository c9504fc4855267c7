"""A hierarchy of tokens: what follows is the current token or something more special."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from tasks.markov import MarkovGraphTask
from tasks.prompts import Prompts
from tasks.sampling import check_count, invert

LARGEST = 4096


@dataclass(frozen=True)
class HierarchyTask:
    """The next token is uniform over the query and those of its descendants in a tree that occur in
    the context.

    The tree is complete: each token above the last level has `branching` children, k, and there are
    `depth` levels, D, below the root; N = 1 + k + .. + k^D tokens. They are numbered level by
    level: the root is 0, the children of i are k i + 1 to k i + k. Source: the hierarchical
    vocabulary of arXiv 2411.12892, appendix E.

    `vocabulary` context: every token once, so that the Bayes prediction is the row P*_q, uniform
    over the whole subtree of q (`chain`). `prompt` context: sampled tokens, the last being the
    query q. Its Bayes prediction is uniform over the different tokens of the prompt in the subtree
    of q: one that occurs twice counts once, unlike in `MarkovGraphTask`. As q itself occurs, every
    prompt has a next token.

    Raises ValueError for branching < 1, depth < 1, or more than 4096 tokens.

    >>> task = HierarchyTask(branching=2, depth=1)
    >>> task.chain.transition_matrix.round(3).tolist()
    [[0.333, 0.333, 0.333], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    >>> task.bayes_predictive(Prompts(np.array([[1, 1, 0]]), np.array([0]))).tolist()
    [[0.5, 0.5, 0.0]]
    """

    branching: int = 2
    depth: int = 2

    def __post_init__(self) -> None:
        for name, size in (("branching", self.branching), ("depth", self.depth)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}: choose {name} >= 1")
        # A level brings a token or more: the first comparison spares huge powers.
        if self.depth >= LARGEST or self.nodes > LARGEST:
            raise ValueError(
                f"a hierarchy has at most {LARGEST} tokens, got branching {self.branching} and"
                f" depth {self.depth}: choose a smaller tree"
            )

    @property
    def nodes(self) -> int:
        """N = 1 + k + .. + k^D, the number of tokens."""
        return sum(self.branching**level for level in range(self.depth + 1))

    @cached_property
    def level(self) -> Int[np.ndarray, " node"]:
        """How many steps each token is below the root."""
        return np.repeat(
            np.arange(self.depth + 1), [self.branching**n for n in range(self.depth + 1)]
        )

    @cached_property
    def below(self) -> Bool[np.ndarray, "node node"]:
        """Whether the second token is the first or one of its descendants."""
        token = ancestor = np.arange(self.nodes)
        below = np.zeros((self.nodes, self.nodes), dtype=bool)
        for _ in range(self.depth + 1):
            below[ancestor, token] = True
            ancestor = np.maximum((ancestor - 1) // self.branching, 0)  # the root is above all
        return below

    @cached_property
    def chain(self) -> MarkovGraphTask:
        """The chain of the vocabulary context, P*_qj = 1 / |subtree of q| for j in that subtree.

        Every token of the last level leads to itself alone: there is no unique stationary
        distribution, and rows are to be weighted uniformly.
        """
        return MarkovGraphTask.from_matrix(self.below / self.below.sum(1, keepdims=True))

    @property
    def entropy_by_level(self) -> Float[np.ndarray, " level"]:
        """The entropy of a row of P* by the level l of its token, in nats: log(1 + k + .. +
        k^(D - l)).
        """
        subtree = np.cumsum([float(self.branching**height) for height in range(self.depth + 1)])
        return np.log(subtree[::-1])

    def bayes_predictive(self, prompts: Prompts | None = None) -> Float[np.ndarray, "row node"]:
        """The Bayes prediction: P* row by row, or, given prompts, uniform over the different tokens
        of each that are in the subtree of its last.
        """
        if prompts is None:
            return self.chain.bayes_predictive()
        possible = self.below[prompts.query] & (prompts.counts(self.nodes) > 0)
        return possible / possible.sum(1, keepdims=True)

    def sample_prompts(self, count: int, length: int, generator: np.random.Generator) -> Prompts:
        """Prompts of independent, uniform tokens, each with a next token. A prompt uses length + 1
        uniforms.

        Raises ValueError for count < 1 or length < 1.
        """
        check_count(count, "prompts")
        if length < 1:
            raise ValueError(
                f"a prompt needs at least 1 token, got length {length}: choose length >= 1"
            )
        uniform = generator.random((count, length + 1))
        tokens = (uniform[:, :-1] * self.nodes).astype(np.int64)
        law = self.bayes_predictive(Prompts(tokens, tokens[:, -1]))
        return Prompts(tokens, invert(np.cumsum(law, 1), uniform[:, -1]))
