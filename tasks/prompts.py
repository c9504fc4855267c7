"""Sampled prompts on a Markov chain."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True, eq=False)
class Prompts:
    """Sampled prompts; the last token of each is the query.

    tokens (prompt, length) are node indices; target (prompt,) is the next token, drawn from P(j |
    X).

    >>> prompts = Prompts(np.array([[0, 1, 1]]), np.array([0]))
    >>> prompts.query.tolist(), prompts.counts(3).tolist()
    ([1], [[1, 2, 0]])
    """

    tokens: Int[np.ndarray, "prompt length"]
    target: Int[np.ndarray, " prompt"]

    @property
    def query(self) -> Int[np.ndarray, " prompt"]:
        """The last token, from which the model attends."""
        return self.tokens[:, -1]

    def counts(self, nodes: int) -> Int[np.ndarray, "prompt {nodes}"]:
        """m_j, how often token j occurs in each prompt (the last token included)."""
        counts = np.zeros((len(self.tokens), nodes), dtype=np.int64)
        np.add.at(counts, (np.arange(len(self.tokens))[:, None], self.tokens), 1)
        return counts
