"""The problem of the paper's graph experiment, over every graph that it could have drawn."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int, UInt
from torch import Tensor

from analysis.problems.base import Measure, Problem, Training, stack_members
from analysis.problems.heads import Head, RowHead
from analysis.problems.rows import ROW_MEASURES, RowBlock, draw_embeddings, require_exponential
from ssa_theory.losses import Queries
from ssa_theory.mechanism import Form, Layer, Mechanism, Tokens
from ssa_theory.seeds import Stream, member_generator
from tasks.small_graphs import GraphFacts, connected_graphs, neighbour_law

_KEPT = ("cross_entropy_gap", "l1_error", "weight_norm", "inverse_temperature", "underflow")


@dataclass(frozen=True)
class SmallGraphProblem(Problem):
    """Predict the next token on a connected simple graph: uniform over the node and its neighbours.

    The set-up of arXiv 2411.12892, Fig. 3 and Table 1; every token is a key once. Seed s is graph
    number order(s mod G) of all G connected graphs on `nodes` nodes (11,117 for 8), in an order
    that is random and the same for everyone: any run of G seeds has each graph once, and fewer are
    a sample without replacement. Each seed has its own embeddings.

    nodes: K. dim: d. head: what predicts. labels: `exact` for the expected loss; `sampled` for the
    frequencies of batch_size labels a step, the query uniform.
    """

    nodes: int = 8
    dim: int = 8
    head: Head = field(default_factory=RowHead)
    labels: Literal["exact", "sampled"] = "exact"
    batch_size: int = 64

    name: ClassVar[str] = "small-graph"
    measures = {name: ROW_MEASURES[name] for name in _KEPT} | {
        "map_l1": Measure((), "mean over rows of the L1 distance between the attention map and P*"),
        "final_gap": Measure((), "cross-entropy above Bayes after training (nats)"),
        "effective_weight": Measure((), "mean over tokens of tau_i ||W||_2"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self.head.require(self.nodes, self.dim)

    @property
    def objective(self) -> str:
        return "final_gap"

    @property
    def form(self) -> Form:
        labels = {"token": self.nodes, "degree": self.nodes}
        return Form(self.dim, values=self.head.values, labels=labels)

    def layer(self, mechanism: Mechanism) -> Layer:
        layer = super().layer(mechanism)
        if self.head.values:
            return layer
        return require_exponential(layer, "another head: exact zeros make this one's loss infinite")

    def graphs(self, seeds: Sequence[int]) -> Int[np.ndarray, " seed"]:
        """The number of each seed's graph in `tasks.small_graphs.connected_graphs`."""
        order = _order(self.nodes)
        return order[np.asarray(seeds, dtype=np.uint64) % len(order)]

    def describe(self, seeds: Sequence[int]) -> xr.Dataset:
        number = self.graphs(seeds)
        facts = GraphFacts.of(connected_graphs(self.nodes)[number])
        values = {
            "graph": (number, "number of the graph among all connected ones of this size"),
            "entropy_spread": (facts.entropy_spread, "standard deviation of row entropies (nats)"),
            "degree_classes": (facts.degree_classes, "how many different degrees the graph has"),
            "density": (facts.density, "edges over pairs of nodes"),
            "bayes": (self._law(seeds)[1].mean(1), "Bayes cross-entropy H* (nats)"),
        }
        return xr.Dataset(
            {k: ("seed", v, {"description": about}) for k, (v, about) in values.items()},
            coords={"seed": list(seeds)},
        ).assign(degree=(("seed", "node"), self._degrees(seeds), {"description": "neighbours"}))

    def bytes_per_seed(self, training: Training) -> int:
        data = training.total_steps * self.nodes**2 if self.labels == "sampled" else 0
        return 8 * self.nodes * (4 * self.nodes + 3 * self.nodes * self.dim) // 4 + data

    def block(self, seeds: Sequence[int], training: Training, device: torch.device) -> RowBlock:
        law, _ = self._law(seeds)
        target = stack_members(list(law), device)
        degree = stack_members(list(self._degrees(seeds)), device)
        vector = draw_embeddings(seeds, self.nodes, self.dim, device)
        tokens = Tokens(vector, None, {"degree": degree})
        block = RowBlock.of_vocabulary(seeds, tokens, target, training, head=self.head)
        if self.labels == "exact":
            return block
        drawn: list[Tensor] = []  # the same for every mechanism

        def sampled() -> Iterator[Queries]:
            if not drawn:
                counts = self._labels(law, seeds, training.total_steps)
                drawn.append(torch.from_numpy(counts).to(device))
            for counts in drawn[0]:
                number = counts.to(training.torch_dtype)
                times = number.sum(1)  # of a query that was not drawn 0: it may have any target
                yield Queries(number / times.clamp(min=1).unsqueeze(1), times / self.batch_size)

        return replace(block, sampled=sampled)

    def _degrees(self, seeds: Sequence[int]) -> Int[np.ndarray, "seed node"]:
        return connected_graphs(self.nodes)[self.graphs(seeds)].sum(2)

    def _law(
        self, seeds: Sequence[int]
    ) -> tuple[Float[np.ndarray, "seed node node"], Float[np.ndarray, "seed node"]]:
        """P* of each seed, and the entropy of its rows."""
        return (
            neighbour_law(connected_graphs(self.nodes)[self.graphs(seeds)]),
            np.log1p(self._degrees(seeds)),
        )

    def _labels(
        self, law: Float[np.ndarray, "seed node node"], seeds: Sequence[int], steps: int
    ) -> UInt[np.ndarray, "step node next seed"]:
        """How often each pair of query and label was drawn at each step."""
        nodes, size = self.nodes, (steps, self.batch_size)
        counts = np.empty((len(seeds), steps, nodes, nodes), dtype=np.min_scalar_type(size[1]))
        place = nodes * nodes * np.arange(steps)[:, None]
        for own, row, seed in zip(counts, law, seeds, strict=True):
            generator = member_generator(seed, Stream.DATA)
            query = generator.integers(nodes, size=size)
            candidates = np.argsort(row == 0, axis=1, kind="stable")  # the possible labels first
            many = (row > 0).sum(1)
            label = candidates[query, (generator.random(size) * many[query]).astype(int)]
            drawn = np.bincount((place + nodes * query + label).ravel(), minlength=own.size)
            own[:] = drawn.reshape(own.shape)
        return np.ascontiguousarray(np.moveaxis(counts, 0, -1))


@cache
def _order(nodes: int) -> Any:
    """A random order of all graphs, the same for everyone."""
    return member_generator(0, Stream.GRAPH).permutation(len(connected_graphs(nodes)))
