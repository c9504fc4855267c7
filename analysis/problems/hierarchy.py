"""The problem of a hierarchical vocabulary: what follows is the query or a token below it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from torch import Tensor

from analysis.problems.base import Fitted, Measure, Problem, Training, restarted, stack_members
from analysis.problems.heads import Head, RowHead
from analysis.problems.measures import SMALLEST_TAU, singular_values
from analysis.problems.memory import by_seed
from analysis.problems.rows import RowBlock, draw_embeddings, require_counts, require_exponential
from ssa_theory.losses import Queries, query_logits
from ssa_theory.mechanism import Form, Layer, Mechanism, Misfit, Parameters, Tokens
from ssa_theory.seeds import Stream, member_generator
from tasks.hierarchy import HierarchyTask

Context = Literal["vocabulary", "prompt"]
_FLOOR_PROMPTS = 2**14


@dataclass(frozen=True)
class HierarchyProblem(Problem):
    """Predict the next token of a tree of tokens; each seed has its own embeddings and prompts.

    The set-up of arXiv 2411.12892, appendix E; the law is that of `HierarchyTask`. Every loss is
    the expectation over the next token.

    branching: k. depth: D, levels below the root. dim: d. head: what predicts. context: keys are
    all tokens once, each token being the query equally often; or the tokens of a prompt, whose last
    is the query. Of prompts: prompt_length tokens each; pool batches of batch_size, used over and
    over in training; held_out others to evaluate on, the same for every mechanism.
    """

    branching: int = 2
    depth: int = 2
    dim: int = 3
    head: Head = field(default_factory=RowHead)
    context: Context = "vocabulary"
    prompt_length: int = 8
    batch_size: int = 16
    pool: int = 32
    held_out: int = 256

    name: ClassVar[str] = "hierarchy"
    measures: ClassVar[Mapping[str, Measure]] = {
        "map_l1": Measure(
            (),
            "mean over queries of the L1 distance between the attention, summed over equal tokens, "
            "and the Bayes prediction",
        ),
        "tv": Measure(
            (), "mean over queries of the total variation between prediction and Bayes prediction"
        ),
        "final_gap": Measure((), "cross-entropy above Bayes after training (nats)"),
        "weight_norm": Measure((), "spectral norm ||W||_2 of the trained W"),
        "level_temperature": Measure(
            ("level",),
            "temperature 1 / tau, geometric mean over the tokens of a level; 0 is the root",
        ),
        "parameters": Measure((), "how many numbers a model learns, its head's included"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        self.head.require(self.task.nodes, self.dim)

    @property
    def tree(self) -> str:
        """Its name: branching k and depth D."""
        return f"k{self.branching}-D{self.depth}"

    @cached_property
    def task(self) -> HierarchyTask:
        """The law, the same for every seed."""
        return HierarchyTask(self.branching, self.depth)

    @property
    def objective(self) -> str:
        return "final_gap"

    @property
    def form(self) -> Form:
        return Form(self.dim, values=self.head.values, labels={"token": self.task.nodes})

    def layer(self, mechanism: Mechanism) -> Layer:
        layer = super().layer(mechanism)
        if self.context == "vocabulary" and self.head.values:
            return layer
        if layer.mechanism.gate is not None:
            raise Misfit(f"mechanism {mechanism.name} needs no gate here: take context vocabulary")
        require = require_counts if self.context == "prompt" else require_exponential
        return require(layer, "context vocabulary and a head with a classifier")

    def coordinates(self, training: Training) -> dict[str, Any]:
        return super().coordinates(training) | {"level": np.arange(self.depth + 1)}

    def bytes_per_seed(self, training: Training) -> int:
        nodes, held = self.task.nodes, 0
        queries = nodes
        if self.context == "prompt":
            queries = max(self.batch_size, self.held_out)
            held = 3 * nodes * self.batch_size * self.pool
        return 8 * (8 * queries * (nodes + self.dim) + 4 * nodes * (nodes + self.dim) + held)

    def describe(self, seeds: Sequence[int]) -> xr.Dataset:
        law = self._laws(seeds)[2] if self.context == "prompt" else self.task.bayes_predictive()
        entropy = -(law * np.log(np.where(law > 0, law, 1))).sum(-1).mean(-1)
        values = np.broadcast_to(entropy, len(seeds))
        about = {"description": "Bayes cross-entropy H* of the queries evaluated on (nats)"}
        return xr.Dataset({"bayes": ("seed", values, about)}, coords={"seed": list(seeds)})

    def block(
        self, seeds: Sequence[int], training: Training, device: torch.device
    ) -> "HierarchyBlock":
        tokens = Tokens(draw_embeddings(seeds, self.task.nodes, self.dim, device))
        target = stack_members([self.task.bayes_predictive()] * len(seeds), device)
        level = torch.from_numpy(self.task.level).to(device)
        keys = self.prompt_length if self.context == "prompt" else None
        block = HierarchyBlock.of_vocabulary(
            seeds, tokens, target, training, keys=keys, head=self.head, level=level
        )
        if self.context == "vocabulary":
            return block
        pool = self._queries(seeds, self.batch_size * self.pool, Stream.DATA, device)
        pool = pool.to(training.torch_dtype)
        batches = [_part(pool, i, self.batch_size) for i in range(self.pool)]
        return replace(
            block,
            evaluation=self._queries(seeds, self.held_out, Stream.EVALUATION, device),
            sampled=lambda: restarted(batches, training),
        )

    def floor(self) -> float:
        """map_l1 of the rows that minimise the expected loss of the row head, over all scores.

        In a prompt p_j is m_j e^z_qj over its sum, but the law counts equal tokens once: no scores
        reach it. Tokens below q are exchangeable and the loss is convex in z, so the best scores
        are one number b for q, 0 for all below, and minus infinity elsewhere: a minimisation in b
        for each level. The mean is over 2^14 prompts. In the vocabulary context 0; NaN of another
        head, whose loss does not fix the map.
        """
        if self.head.values:
            return np.nan
        if self.context == "vocabulary":
            return 0.0
        return _floor(self.task, self.prompt_length)

    def _laws(
        self, seeds: Sequence[int], count: int | None = None, stream: Stream = Stream.EVALUATION
    ) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, "seed prompt next"]]:
        """Queries, counts and Bayes prediction of each seed's prompts; by default the held-out."""
        count = self.held_out if count is None else count

        def of(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            generator = member_generator(seed, stream)
            drawn = self.task.sample_prompts(count, self.prompt_length, generator)
            law = self.task.bayes_predictive(drawn)
            return drawn.query, drawn.counts(self.task.nodes), law

        query, counts, law = map(np.stack, zip(*by_seed(seeds, of), strict=True))
        return query, counts, law

    def _queries(
        self, seeds: Sequence[int], count: int, stream: Stream, device: torch.device
    ) -> Queries:
        node, counts, law = (
            stack_members(list(part), device) for part in self._laws(seeds, count, stream)
        )
        return Queries(law, torch.full_like(law[:, 0], 1 / count), node, counts.to(law.dtype))


@dataclass(frozen=True)
class HierarchyBlock(RowBlock):
    """Members that each predict in a tree. level: of each token."""

    level: Tensor = field(default_factory=lambda: torch.empty(0))

    def maps(self, layer: Layer, parameters: Parameters) -> Tensor:
        """The attention of every query evaluated, summed over equal tokens (query, next, member)."""
        if self.evaluation.counts is None:
            return layer.prediction(parameters, self.inputs)
        return query_logits(layer.scores(parameters, self.inputs), self.evaluation).softmax(1)

    def evaluate(self, layer: Layer, fitted: Fitted) -> dict[str, Tensor]:
        final, queries = fitted.parameters, self.evaluation
        prediction = self.head.query_logits(layer, final, self.inputs, queries).softmax(1)
        tau = layer.inverse_temperature("query", final, self.inputs)
        log_temperature = -tau.clamp(min=SMALLEST_TAU).log().expand(len(self.level), -1)
        levels = [log_temperature[self.level == n].mean(0) for n in self.level.unique()]
        number = sum(v[..., 0].numel() for v in final.values())
        return {
            "map_l1": _apart(self.maps(layer, final), queries),
            "tv": _apart(prediction, queries) / 2,
            "final_gap": self.recorded(layer, final)["cross_entropy_gap"],
            "weight_norm": singular_values(final["weight"])[0],
            "level_temperature": torch.stack(levels).exp(),
            "parameters": torch.full_like(tau[0], number),
        }


@cache
def _floor(task: HierarchyTask, length: int) -> float:
    prompts = task.sample_prompts(_FLOOR_PROMPTS, length, member_generator(0, Stream.EVALUATION))
    law, counts = task.bayes_predictive(prompts), prompts.counts(task.nodes)
    level, row = task.level[prompts.query], np.arange(_FLOOR_PROMPTS)
    own, own_law = counts[row, prompts.query], law[row, prompts.query]
    others = np.where(law > 0, counts, 0).sum(1) - own
    best = np.zeros(task.depth + 1)
    for n in range(task.depth):  # a leaf has nothing below

        def loss(b: float, n: int = n) -> float:
            return float(np.mean((np.log(own * np.exp(b) + others) - own_law * b)[level == n]))

        optimum: Any = minimize_scalar(loss, bounds=(-20, 20), method="bounded")
        best[n] = optimum.x
    weight = np.where(law > 0, counts, 0.0)
    weight[row, prompts.query] *= np.exp(best[level])
    return float(np.abs(weight / weight.sum(1, keepdims=True) - law).sum(1).mean())


def _part(queries: Queries, place: int, size: int) -> Queries:
    """One batch of a pool."""
    part = slice(place * size, (place + 1) * size)
    assert queries.node is not None
    assert queries.counts is not None
    return Queries(
        queries.target[part].contiguous(),
        torch.full_like(queries.weight[part], 1 / size),
        queries.node[part].contiguous(),
        queries.counts[part].contiguous(),
    )


def _apart(rows: Tensor, queries: Queries) -> Tensor:
    """The mean over queries of their L1 distance from the target (member,)."""
    return (queries.weight * (rows - queries.target).abs().sum(1)).sum(0)
