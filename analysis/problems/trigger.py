"""The problem of a trigger: attend where the query says so, and else to nothing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from analysis.problems.base import Block, Fitted, Measure, Problem, Training, stack_members
from ssa_theory.losses import squared_distance
from ssa_theory.mechanism import Form, Inputs, Layer, Parameters, Tokens
from ssa_theory.seeds import Stream, member_generator
from tasks.trigger import TriggerSample, TriggerTask

Batch = tuple[Tensor, Tensor, Tensor]
"""Queries, keys, targets of the samples of a step."""


@dataclass(frozen=True)
class TriggerProblem(Problem):
    """Attend from the query to L tokens and answer their mean, or zero, by the output.

    batch_size: fresh samples a step. held_out: contexts a seed, each evaluated with both queries.

    >>> TriggerProblem(batch_size=8).form.values
    True
    """

    task: TriggerTask = field(default_factory=TriggerTask)
    batch_size: int = 32
    held_out: int = 512

    name: ClassVar[str] = "trigger"
    measures: ClassVar[Mapping[str, Measure]] = {
        "risk": Measure((), "E||target - output||^2 over the seed's held-out contexts"),
        "triggered_risk": Measure((), "risk of the queries with the trigger"),
        "silent_risk": Measure((), "risk of the queries without it, the output's square"),
        "silent_mass": Measure(
            (),
            "mean sum of the rows over the tokens, without the trigger: what neither a sink, the "
            "anchor nor an unnormalised row withholds",
        ),
    }

    @property
    def form(self) -> Form:
        return Form(self.task.dim, query_dim=2, values=True)

    def bytes_per_seed(self, training: Training) -> int:
        size = (self.task.keys + 2) * self.task.dim
        samples = training.total_steps * self.batch_size
        return 16 * samples * size + 64 * self.held_out * size

    def block(self, seeds: Sequence[int], training: Training, device: torch.device) -> Block:
        count, drawn = training.total_steps * self.batch_size, []
        for seed in seeds:
            one = self.task.sample(count, member_generator(seed, Stream.DATA))
            arrays = _queries(one.triggered), *self._keys_and_target(one)
            drawn.append([a.astype(training.dtype) for a in arrays])
        tested = [self._tested(s) for s in seeds]
        keys = [self.task.tokens(t.content) for t in tested]
        target = [self.task.target(t.content, np.full(self.held_out, True)) for t in tested]
        query, tokens, wanted = (stack_members(list(a), device) for a in zip(*drawn, strict=True))
        held_out = (stack_members(arrays, device) for arrays in (keys, target))
        return TriggerBlock(seeds, device, self, (query, tokens, wanted), *held_out)

    def describe(self, seeds: Sequence[int]) -> xr.Dataset:
        """Exact risks, and, of the same estimates, those on each seed's held-out contexts."""
        square = np.array([(self._tested(s).content.mean(1) ** 2).sum(1).mean() for s in seeds])
        p, of_all = self.task.probability, np.ones(len(seeds))
        values = {
            "bayes": (0 * of_all, "risk of the target itself, which the inputs determine"),
            "zero": (self.task.zero_risk * of_all, "risk of zero, the best constant"),
            "floor": (
                self.task.floor * of_all,
                "least risk of softmax without sink, gate or anchor, scores and values linear",
            ),
            "held_out_zero": (p * square, "zero on the seed's held-out contexts"),
            "held_out_floor": (
                p * (1 - p) * square,
                "risk there of uniform rows with the value map p I, which attains the floor",
            ),
        }
        return xr.Dataset(
            {k: ("seed", v, {"description": about}) for k, (v, about) in values.items()},
            coords={"seed": list(seeds)},
        )

    def inputs(self, query: Tensor, keys: Tensor) -> Inputs:
        """What a layer sees."""
        return Inputs(Tokens(query), Tokens(keys), count=float(self.task.keys))

    def _tested(self, seed: int) -> TriggerSample:
        return self.task.sample(self.held_out, member_generator(seed, Stream.EVALUATION))

    def _keys_and_target(self, sample: TriggerSample) -> tuple[np.ndarray, np.ndarray]:
        target = self.task.target(sample.content, sample.triggered)
        return self.task.tokens(sample.content), target


@dataclass(frozen=True)
class TriggerBlock(Block):
    """Members with their training data, and held-out keys with their targets under the trigger."""

    problem: TriggerProblem
    data: Batch
    keys: Tensor
    target: Tensor

    def batches(self, training: Training) -> Iterator[Batch]:
        return zip(*(d.split(self.problem.batch_size) for d in self.data), strict=True)

    def loss(self, layer: Layer, parameters: Parameters, batch: Batch) -> Tensor:
        query, keys, target = batch
        return squared_distance(layer.output(parameters, self.problem.inputs(query, keys)), target)

    def evaluate(self, layer: Layer, fitted: Fitted) -> dict[str, Tensor]:
        """Of both queries on every context."""
        task, count = self.problem.task, len(self.keys)
        risks, parameters = [], fitted.parameters
        mass = self.target.new_zeros(())
        for triggered, target in ((True, self.target), (False, torch.zeros_like(self.target))):
            query = torch.from_numpy(_queries(np.full(count, triggered))).to(self.device)
            inputs = self.problem.inputs(
                query.unsqueeze(-1).expand(-1, -1, self.keys.shape[-1]), self.keys
            )
            risks.append(squared_distance(layer.output(parameters, inputs), target))
            mass = layer.rows(parameters, inputs)[:, task.anchor :].sum(1).mean(0)
        p = task.probability
        return {
            "risk": p * risks[0] + (1 - p) * risks[1],
            "triggered_risk": risks[0],
            "silent_risk": risks[1],
            "silent_mass": mass,
        }


def _queries(triggered: np.ndarray) -> np.ndarray:
    """(1, 0) with the trigger, (0, 1) without."""
    return np.eye(2)[np.where(triggered, 0, 1)]
