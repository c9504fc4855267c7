"""What a workload is: where a block of models starts, what data it is given, and its loss."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from analysis.bench.losses import Loss
from analysis.bench.operations import Work
from analysis.problems.base import Training
from ssa_theory.mechanism.parts import Generators
from ssa_theory.seeds import Stream, member_generator

LEARNING_RATE = 0.05  # of Adam
Arrays = dict[str, Tensor]
Make = Callable[[Sequence[int], torch.device, torch.dtype, int], "Start"]


@dataclass(frozen=True)
class Start:
    """Where a block of models starts.

    parameters and own: initial parameters and data of each model, (..., member). shared: data that
    all have in common. batches: of each step in turn, over and over, (..., member); they stand in
    place of data of the same name. loss(parameters, batch): of the ensemble, one value a member.
    """

    parameters: Arrays
    own: Arrays
    shared: Arrays
    batches: Sequence[Arrays]
    loss: Callable[[Arrays, Arrays], Tensor]

    @property
    def members(self) -> int:
        """The number of models."""
        return next(iter(self.parameters.values())).shape[-1]


@dataclass(frozen=True)
class Workload:
    """One loss on one kind of data.

    make(seeds, device, dtype, batches) gives the start of one model a seed, with so many batches:
    with one the data stay the same. loss: of one model. steps: of one training, at most: a heavy
    one is timed by fewer. work: of a model's step. activations: numbers that a step keeps of one
    model between forward and backward; they size the blocks.
    """

    name: str
    about: str
    steps: int
    work: Work
    activations: int
    make: Make
    loss: Loss

    def bytes_per_member(self, dtype: torch.dtype) -> int:
        """What a training step touches of one model: data, activations, and parameters with their
        gradient and Adam's two moments.
        """
        start = self.make([0], torch.device("cpu"), dtype, 1)
        parameters = 4 * sum(p.numel() for p in start.parameters.values())
        data = sum(d.nbytes for d in (start.own | start.batches[0]).values())
        return data + dtype.itemsize * (parameters + self.activations)

    def batch_bytes(self, dtype: torch.dtype) -> int:
        """Of the data that a model is given anew at each step."""
        start = self.make([0], torch.device("cpu"), dtype, 2)
        return sum(d.nbytes for d in start.batches[1].values())


def stack(arrays: Sequence[np.ndarray], device: torch.device, dtype: torch.dtype) -> Tensor:
    """One array a member to (..., member); whole numbers stay whole."""
    stacked = torch.from_numpy(np.stack(arrays, axis=-1))
    return stacked.to(device, dtype if stacked.is_floating_point() else None)


def split(pool: Arrays, batches: int) -> list[Arrays]:
    """The data of all steps, by step."""
    parts = {k: v.chunk(batches) for k, v in pool.items()}
    return [{k: v[i] for k, v in parts.items()} for i in range(batches)]


def training(batches: int, dtype: torch.dtype) -> Training:
    """Of so many steps."""
    precision = "float64" if dtype == torch.float64 else "float32"
    return Training(batches, LEARNING_RATE, dtype=precision)


def initial(
    draw: Callable[[Generators], Arrays],
    seeds: Sequence[int],
    device: torch.device,
    dtype: torch.dtype,
) -> Arrays:
    """The parameters of each seed's model."""
    drawn = draw([member_generator(s, Stream.PARAMETER) for s in seeds])
    return {k: v.to(device, dtype) for k, v in drawn.items()}
