"""The problem of a Markov graph: learn its transition matrix P* as attention rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor

from analysis.problems.base import Problem, Training, stack_members
from analysis.problems.rows import (
    ROW_BASELINES,
    ROW_MEASURES,
    LossScore,
    RowBlock,
    draw_embeddings,
    require_counts,
    require_exponential,
    row_baselines,
)
from analysis.problems.sources import GraphSource
from ssa_theory.losses import Queries
from ssa_theory.mechanism import Form, Inputs, Layer, Mechanism, Tokens
from ssa_theory.seeds import Stream, member_generator
from tasks import MarkovGraphTask
from tasks.labels import storable
from tasks.markov import RowWeights
from tasks.prompts import Prompts

EVALUATION_PROMPTS = 512
_CPU = torch.device("cpu")
_CHUNK = 25  # steps of sampled data drawn at once: bounds memory, does not change the data


@dataclass(frozen=True)
class GraphProblem(GraphSource, Problem):
    """Predict the next node of a Markov chain on a graph; each seed has its own embeddings.

    context: keys are all tokens once, or the tokens of a sampled prompt. loss: the exact
    expectation over the next token, or sampled ones. score: of the loss, see `RowBlock`.
    row_weights: of each row in the loss; the law of the tokens of a prompt. dim: d, by default 4.
    similarity: strength of the component common to all embeddings. position: whether position
    terms act, one learned scale as all queries see the same n. log_frequency: whether every token
    carries the logarithm of its stationary probability, centred.

    >>> import networkx as nx
    >>> GraphProblem(dim=2, graph=nx.cycle_graph(5)).size, GraphProblem(nodes=12).size
    (5, 12)
    """

    dim: int = 4
    similarity: float = 0.0
    context: Literal["vocabulary", "prompt"] = "vocabulary"
    loss: Literal["exact", "sampled"] = "exact"
    score: LossScore = "log"
    prompt_length: int = 16
    batch_size: int = 64
    row_weights: RowWeights = "uniform"
    position: bool = False
    log_frequency: bool = False

    name: ClassVar[str] = "graph"
    measures = ROW_MEASURES
    tracked: ClassVar = {"weight_norm": "norm", "effective_weight": "norm"}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_read()

    @property
    def objective(self) -> str:
        return "final_gap" if self.score == "log" else "brier_gap"

    @property
    def sampled(self) -> bool:
        """Whether training draws data at every step."""
        return self.context == "prompt" or self.loss == "sampled"

    @property
    def keys(self) -> int:
        """n, the number of keys that every query sees."""
        return self.prompt_length if self.context == "prompt" else self.size

    @property
    def form(self) -> Form:
        return Form(
            self.dim,
            position=self.position,
            labels={"token": self.size, "degree": self.size + 1},
            features=frozenset({"query", "key"}) if self.log_frequency else frozenset(),
        )

    def layer(self, mechanism: Mechanism) -> Layer:
        layer = super().layer(mechanism)
        if self.context == "prompt":
            return require_counts(layer, "keys that stand once (context vocabulary)")
        if self.score == "log":
            return require_exponential(
                layer, "the Brier score, as its rows have exact zeros (score brier)"
            )
        return layer

    def bytes_per_seed(self, training: Training) -> int:
        nodes = self.size
        queries, data = nodes, 0
        if self.sampled:
            held = EVALUATION_PROMPTS if self.context == "prompt" else 0
            queries = max(self.batch_size, held)
            data = _CHUNK * self.batch_size * (self.prompt_length + 3 * nodes)
        return 8 * (8 * nodes * (nodes + queries) + data)

    def block(self, seeds: Sequence[int], training: Training, device: torch.device) -> RowBlock:
        tasks = self.tasks(seeds)
        inputs, target, weight = self.upload(tasks, seeds, device)
        if self.context == "prompt":
            generators = [member_generator(s, Stream.EVALUATION) for s in seeds]
            held_out = [
                t.sample_prompts(EVALUATION_PROMPTS, self.keys, g, self.row_weights)
                for t, g in zip(tasks, generators, strict=True)
            ]
            evaluation = _prompt_queries(*_upload(held_out, device), target, "exact")
        else:
            evaluation = Queries(target, weight)
        block = RowBlock(seeds, device, inputs, target, evaluation, training, self.score)
        if not self.sampled:
            return block
        working = target.to(training.torch_dtype)
        return replace(block, sampled=lambda: self._batches(tasks, seeds, working, training))

    def upload(
        self, tasks: Sequence[MarkovGraphTask], seeds: Sequence[int], device: torch.device
    ) -> tuple[Inputs, Tensor, Tensor]:
        """The vocabulary as queries and keys, the target rows, and their weights, in float64."""
        vector = draw_embeddings(seeds, tasks[0].nodes, self.dim, device, self.similarity)
        degree = stack_members([t.out_degree for t in tasks], device)
        weight = stack_members([t.row_weights(self.row_weights) for t in tasks], device)
        feature = None
        if self.log_frequency:
            frequency = stack_members([t.stationary_distribution for t in tasks], device).log()
            feature = frequency - frequency.mean(0)
        tokens = Tokens(vector, feature, {"degree": degree})
        target = stack_members([t.transition_matrix for t in tasks], device)
        return Inputs(tokens, tokens, count=float(self.keys)), target, weight

    def describe(self, seeds: Sequence[int]) -> xr.Dataset:
        tasks = self.tasks(seeds)
        prompt = self.context == "prompt"
        pi = np.stack([self._stationary(t) for t in tasks])
        entropy = np.stack([t.row_entropy for t in tasks])
        weights = np.stack([t.row_weights(self.row_weights) for t in tasks])
        acceptance = [
            t.prompt_acceptance(self.prompt_length, self.row_weights) if prompt else np.nan
            for t in tasks
        ]
        values = {
            "transition_matrix": np.stack([t.transition_matrix for t in tasks]),
            "stationary_distribution": pi,
            "out_degree": np.stack([t.out_degree for t in tasks]),
            "row_entropy": entropy,
            "conditional_entropy": (weights * entropy).sum(1),
            "entropy_rate": (pi * entropy).sum(1),
            "prompt_acceptance": np.array(acceptance),
        }
        if not prompt:
            drawn = draw_embeddings(seeds, self.size, self.dim, _CPU, self.similarity)
            values |= row_baselines(drawn, values["transition_matrix"], weights)
        dims = ("seed", "node", "next")
        labels = list(storable(tasks[0].labels))
        dataset = xr.Dataset(
            {
                name: (dims[: values[name].ndim], values[name], {"description": about})
                for name, about in (_TASK | ROW_BASELINES).items()
                if name in values
            },
            coords={"seed": list(seeds), "node": labels, "next": labels},
        )
        if self.understood:
            about = {"description": "what the user's file was understood to say"}
            dataset["understood"] = ((), self.understood, about)
        return dataset

    def _stationary(self, task: MarkovGraphTask) -> np.ndarray:
        try:
            return task.stationary_distribution
        except ValueError:
            if self.row_weights == "stationary":
                raise
            return np.full(task.nodes, np.nan)

    def _batches(
        self,
        tasks: Sequence[MarkovGraphTask],
        seeds: Sequence[int],
        target: Tensor,
        training: Training,
    ) -> Iterator[Queries]:
        """The training data, step by step: each member's own stream, the same in any block."""
        generators = [member_generator(s, Stream.DATA) for s in seeds]
        batch, steps = self.batch_size, training.total_steps
        for start in range(0, steps, _CHUNK):
            count = min(_CHUNK, steps - start) * batch
            drawn = []
            for task, generator in zip(tasks, generators, strict=True):
                if self.context == "prompt":
                    drawn.append(
                        task.sample_prompts(count, self.prompt_length, generator, self.row_weights)
                    )
                else:
                    current, following = task.sample_transitions(count, generator, self.row_weights)
                    drawn.append(Prompts(current[:, None], following))
            tokens, following = _upload(drawn, target.device)
            for first in range(0, count, batch):
                part = slice(first, first + batch)
                if self.context == "prompt":
                    yield _prompt_queries(tokens[part], following[part], target, self.loss)
                else:
                    yield _transition_queries(tokens[part], following[part], target)


_TASK = {
    "transition_matrix": "P*, the true transition matrix (probability)",
    "conditional_entropy": "H* under the loss's row weights: the Bayes cross-entropy (nats)",
    "entropy_rate": "H* under the stationary distribution (nats); NaN where that is not unique",
    "stationary_distribution": "pi (probability); NaN where it is not unique",
    "out_degree": "number of out-neighbours",
    "row_entropy": "entropy of each row of P* (nats)",
    "prompt_acceptance": "probability that independent tokens make a valid prompt; NaN in the "
    "vocabulary context",
}


def _upload(prompts: Sequence[Prompts], device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens (prompt, length, member) and next tokens (prompt, member)."""
    return (
        stack_members([p.tokens for p in prompts], device),
        stack_members([p.target for p in prompts], device),
    )


def _transition_queries(tokens: Tensor, following: Tensor, target: Tensor) -> Queries:
    """Queries from the last token with a sampled answer, in the dtype of `target`."""
    answer = F.one_hot(following, target.shape[1]).movedim(-1, 1).to(target.dtype)
    return Queries(answer, torch.full_like(answer[:, 0], 1 / len(tokens)), tokens[:, -1])


def _prompt_queries(tokens: Tensor, following: Tensor, target: Tensor, loss: str) -> Queries:
    """Queries with their counts m; the answer is P(j | X) = m_j P*_ij / sum, or the sampled token."""
    sampled = _transition_queries(tokens, following, target)
    ones = torch.ones_like(tokens, dtype=target.dtype)
    counts = torch.zeros_like(sampled.target).scatter_add_(1, tokens, ones)
    sampled = replace(sampled, counts=counts)
    if loss == "sampled":
        return sampled
    assert sampled.node is not None
    mass = counts * target.gather(0, sampled.node.unsqueeze(1).expand(counts.shape))
    return replace(sampled, target=mass / mass.sum(1, keepdim=True))
