"""The problem of a single location, where vanilla attention is Bayes: nothing can beat it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from analysis.problems.base import Block, Fitted, Measure, Problem, Training, stack_members
from analysis.problems.memory import by_seed
from ssa_theory.mechanism import Form, Inputs, Layer, Parameters, Tokens
from ssa_theory.seeds import Stream, member_generator
from tasks.location import LocationSample, LocationTask

Batch = tuple[Tensor, Tensor]
"""Tokens and answers of the samples of a step."""


@dataclass(frozen=True)
class LocationProblem(Problem):
    """Attend from a learned constant to L tokens and answer by the output's second coordinate.

    batch_size: fresh samples a step. held_out: samples a seed, on which location and noise are
    integrated out by the exact posterior.

    >>> LocationProblem(batch_size=8).form.constant_query
    True
    """

    task: LocationTask = field(default_factory=LocationTask)
    batch_size: int = 32
    held_out: int = 512

    name: ClassVar[str] = "location"
    measures: ClassVar[Mapping[str, Measure]] = {
        "risk": Measure(
            (), "Var(y | X) + (E[y | X] - y_hat)^2, mean over the seed's held-out samples"
        ),
        "excess": Measure((), "risk above Bayes, (E[y | X] - y_hat)^2 of the same"),
    }

    @property
    def form(self) -> Form:
        return Form(self.task.dim, constant_query=True, values=True)

    def bytes_per_seed(self, training: Training) -> int:
        size = self.task.length * self.task.dim + 1
        return 16 * training.total_steps * self.batch_size * size + 64 * self.held_out * size

    def block(self, seeds: Sequence[int], training: Training, device: torch.device) -> Block:
        count = training.total_steps * self.batch_size
        drawn = by_seed(seeds, lambda s: self.task.sample(count, member_generator(s, Stream.DATA)))
        tested = by_seed(seeds, self._tested)
        return LocationBlock(
            seeds,
            device,
            self,
            (
                stack_members([d.tokens.astype(training.dtype) for d in drawn], device),
                stack_members([d.target.astype(training.dtype) for d in drawn], device),
            ),
            stack_members([t.tokens for t in tested], device),
            stack_members([self.task.bayes(t.tokens) for t in tested], device),
            stack_members([self.task.variance(t.tokens) for t in tested], device),
        )

    def describe(self, seeds: Sequence[int]) -> xr.Dataset:
        tested, of_all = [self._tested(s).tokens for s in seeds], np.ones(len(seeds))
        apart = [(t[:, :, 1].mean(1) - self.task.bayes(t)) ** 2 for t in tested]
        bayes = np.array([self.task.variance(t).mean() for t in tested])
        values = {
            "bayes": (bayes, "risk of E[y | X] on the seed's held-out samples"),
            "naive": (bayes + np.mean(apart, axis=1), "risk of the mean token on the same"),
            "zero": (self.task.zero_risk * of_all, "risk of zero, the best constant"),
            "oracle": (self.task.oracle_risk * of_all, "risk of one who knows the location"),
        }
        return xr.Dataset(
            {k: ("seed", v, {"description": about}) for k, (v, about) in values.items()},
            coords={"seed": list(seeds)},
        )

    def inputs(self, tokens: Tensor) -> Inputs:
        """What a layer sees."""
        return Inputs(keys=Tokens(tokens), count=float(self.task.length))

    def _tested(self, seed: int) -> LocationSample:
        return self.task.sample(self.held_out, member_generator(seed, Stream.EVALUATION))


@dataclass(frozen=True)
class LocationBlock(Block):
    """Members with their training data, and held-out tokens with mean and variance of the answer."""

    problem: LocationProblem
    data: Batch
    tokens: Tensor
    bayes: Tensor
    variance: Tensor

    def batches(self, training: Training) -> Iterator[Batch]:
        return zip(*(d.split(self.problem.batch_size) for d in self.data), strict=True)

    def answer(self, layer: Layer, parameters: Parameters, tokens: Tensor) -> Tensor:
        """y_hat of every sample (sample, member)."""
        return layer.output(parameters, self.problem.inputs(tokens))[:, 1]

    def loss(self, layer: Layer, parameters: Parameters, batch: Batch) -> Tensor:
        tokens, target = batch
        return (self.answer(layer, parameters, tokens) - target).square().mean(0)

    def evaluate(self, layer: Layer, fitted: Fitted) -> dict[str, Tensor]:
        apart = self.answer(layer, fitted.parameters, self.tokens) - self.bayes
        excess = apart.square().mean(0)
        return {"excess": excess, "risk": excess + self.variance.mean(0)}
