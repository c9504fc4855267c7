"""The problem of basis vectors in noise: which direction do the tokens share?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from analysis.problems.base import Block, Fitted, Measure, Problem, Training, stack_members
from analysis.problems.memory import Memory, by_seed
from ssa_theory.losses import squared_distance
from ssa_theory.mechanism import Form, Inputs, Layer, Parameters, Tokens
from ssa_theory.seeds import Stream, member_generator
from tasks.basis_denoising import BasisDenoisingTask, BasisTokens

BASELINES = {
    "bayes": "risk of the exact Bayes act, the best unit vector given the tokens",
    "naive": "risk of the direction of the mean token",
    "threshold": "risk of the direction of the mean of the tokens with a coordinate of at least 1/2",
    "oracle": "risk of the direction of the mean of the tokens that carry the signal, which are "
    "known to it",
}
"""Exact baselines by seed, means over its held-out samples."""
_PEAKS = np.linspace(0, 2, 21)


class SharedDraws:
    """The training inputs that were drawn last: they serve every noise."""

    def __init__(self) -> None:
        self._memory = Memory()

    def of(self, task: BasisDenoisingTask, count: int, seeds: Sequence[int]) -> list[BasisTokens]:
        """So many inputs of each seed, of whatever noise."""

        def drawn(seed: int) -> BasisTokens:
            return task.sample(count, member_generator(seed, Stream.DATA))

        law = replace(task, noise=1.0), count, tuple(seeds)
        return self._memory.get("inputs", law, lambda: by_seed(seeds, drawn))


@dataclass(frozen=True)
class BasisDenoiseProblem(Problem):
    """Attend from the last token to all L and answer y = e_q by the direction of the output o:

        loss = E||y - o / ||o|| ||^2.

    batch_size: fresh samples a step. held_out: samples a seed, on which the label is integrated
    out by the exact posterior. draws: shared by problems that differ in their noise.
    """

    task: BasisDenoisingTask = field(default_factory=BasisDenoisingTask)
    batch_size: int = 32
    held_out: int = 256
    draws: SharedDraws = field(default_factory=SharedDraws, compare=False, repr=False)

    name: ClassVar[str] = "basis-denoise"
    measures: ClassVar[Mapping[str, Measure]] = {
        "risk": Measure((), "E||y - o / ||o|| ||^2 given the seed's held-out tokens"),
        "gate_by_peak": Measure(
            ("peak",),
            "mean learned tau_v of held-out tokens by their largest coordinate, over the mean tau_v "
            "of the tokens that carry the signal; NaN without a value temperature, and where a seed "
            "has no such token",
        ),
        "filler_gate": Measure(
            (),
            "mean learned tau_v of fillers over that of the tokens that carry the signal; NaN "
            "without a value temperature",
        ),
    }

    @property
    def form(self) -> Form:
        return Form(self.task.dim, values=True, position=True, trained_length=self.task.length)

    def bytes_per_seed(self, training: Training) -> int:
        samples = training.total_steps * self.batch_size
        data = samples * (self.task.length + 1) * self.task.dim
        return 16 * data + 32 * self.held_out * self.task.length * (4 * self.task.dim + 1)

    def block(self, seeds: Sequence[int], training: Training, device: torch.device) -> Block:
        drawn = self.draws.of(self.task, training.total_steps * self.batch_size, seeds)
        tokens = [d.at(self.task.noise).tokens.astype(training.dtype) for d in drawn]
        target = [np.eye(self.task.dim, dtype=training.dtype)[d.label] for d in drawn]
        data = stack_members(tokens, device), stack_members(target, device)
        tested = self._held_out(seeds)
        return BasisDenoiseBlock(
            seeds,
            device,
            self,
            data,
            stack_members([t.tokens for t in tested], device),
            stack_members([t.relevant for t in tested], device),
            stack_members([self.task.posterior(t.tokens) for t in tested], device),
        )

    def describe(self, seeds: Sequence[int]) -> xr.Dataset:
        errors = [self.task.errors(tested) for tested in self._held_out(seeds)]
        exact = {
            name: ("seed", np.array([e[name].mean() for e in errors]), {"description": about})
            for name, about in BASELINES.items()
        }
        return xr.Dataset(exact, coords={"seed": list(seeds)})

    def coordinates(self, training: Training) -> dict[str, Any]:
        return super().coordinates(training) | {"peak": (_PEAKS[1:] + _PEAKS[:-1]) / 2}

    def _held_out(self, seeds: Sequence[int]) -> list[BasisTokens]:
        def drawn(seed: int) -> BasisTokens:
            return self.task.sample(self.held_out, member_generator(seed, Stream.EVALUATION))

        return by_seed(seeds, drawn)


@dataclass(frozen=True)
class BasisDenoiseBlock(Block):
    """Members with training data (tokens, targets), held-out tokens, and what is known of them."""

    problem: BasisDenoiseProblem
    data: tuple[Tensor, Tensor]
    tokens: Tensor
    relevant: Tensor
    posterior: Tensor

    def batches(self, training: Training) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(*(d.split(self.problem.batch_size) for d in self.data), strict=True)

    def loss(self, layer: Layer, parameters: Parameters, batch: tuple[Tensor, Tensor]) -> Tensor:
        tokens, target = batch
        return squared_distance(direction(layer.output(parameters, _inputs(tokens))), target)

    def evaluate(self, layer: Layer, fitted: Fitted) -> dict[str, Tensor]:
        """Given the tokens the risk of a unit vector u is 2 - 2 p . u, p the posterior."""
        inputs = _inputs(self.tokens)
        u = direction(layer.output(fitted.parameters, inputs))
        gates = self._gates(layer, fitted.parameters, inputs)
        return {"risk": 2 - 2 * (self.posterior * u).sum(1).mean(0)} | gates

    def _gates(self, layer: Layer, parameters: Parameters, inputs: Inputs) -> dict[str, Tensor]:
        peak = self.tokens.amax(2)
        if layer.mechanism.value is None:
            none = peak.new_full((len(_PEAKS) - 1, peak.shape[-1]), torch.nan)
            return {"gate_by_peak": none, "filler_gate": none[0]}
        tau = layer.inverse_temperature("value", parameters, inputs).expand_as(peak)

        def mean(chosen: Tensor) -> Tensor:
            return torch.where(chosen, tau, 0.0).sum((0, 1)) / chosen.sum((0, 1))

        signal = mean(self.relevant)
        bins = [(peak >= a) & (peak < b) for a, b in pairwise(_PEAKS.tolist())]
        by_peak = torch.stack([mean(b) for b in bins]) / signal
        return {"gate_by_peak": by_peak, "filler_gate": mean(~self.relevant) / signal}


def direction(output: Float[Tensor, "sample dim member"]) -> Float[Tensor, "sample dim member"]:
    """o / ||o||; zero, which has no direction, becomes (1, .., 1) / sqrt(dim), the best guess
    without a token, and has no gradient.
    """
    square = output.square().sum(1, keepdim=True)
    zero = square == 0
    safe = torch.where(zero, 1.0, square)  # the gradient of sqrt at 0 would be NaN
    return torch.where(zero, output.shape[1] ** -0.5, output / safe.sqrt())


def _inputs(tokens: Float[Tensor, "sample length dim member"]) -> Inputs:
    return Inputs(Tokens(tokens[:, -1]), Tokens(tokens), count=float(tokens.shape[1]))
