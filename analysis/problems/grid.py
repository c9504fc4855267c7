"""Problems of one shape, trained in one program: a seed has a member in each."""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xarray as xr

from analysis.problems.base import Block, Measure, Problem, Training
from ssa_theory.mechanism import Form, Layer, Mechanism


class GridProblem(Problem):
    """A problem that trains beside others of its kind, whose tensors have the same shapes."""

    def block(self, seeds: Sequence[int], training: Training, device: torch.device) -> Block:
        return self.block_at([(seed, self) for seed in seeds], training, device)

    @abc.abstractmethod
    def block_at(
        self, members: Sequence[tuple[int, Any]], training: Training, device: torch.device
    ) -> Block:
        """The data of members (seed, problem), all problems of this kind and shape."""


@dataclass(frozen=True)
class Grid(Problem):
    """Several problems as one, along a dimension.

    dim: its name. labels: of the problems along it. problems: of one kind and shape, in order.
    """

    dim: str
    labels: tuple[float | str, ...]
    problems: tuple[GridProblem, ...]

    name = "grid"

    @property
    def measures(self) -> Mapping[str, Measure]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of each problem."""
        return self.problems[0].measures

    @property
    def tracked(self) -> Mapping[str, str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of each problem."""
        return self.problems[0].tracked

    @property
    def members(self) -> Mapping[str, Sequence[float | str]]:
        return {self.dim: list(self.labels)}

    @property
    def form(self) -> Form:
        return self.problems[0].form

    @property
    def objective(self) -> str:
        return self.problems[0].objective

    def layer(self, mechanism: Mechanism) -> Layer:
        return self.problems[0].layer(mechanism)

    def bytes_per_seed(self, training: Training) -> int:
        return sum(problem.bytes_per_seed(training) for problem in self.problems)

    def block(self, seeds: Sequence[int], training: Training, device: torch.device) -> Block:
        members = [(seed, problem) for seed in seeds for problem in self.problems]
        return self.problems[0].block_at(members, training, device)

    def describe(self, seeds: Sequence[int]) -> xr.Dataset:
        label = xr.DataArray(list(self.labels), dims=self.dim, name=self.dim)
        each = xr.concat([problem.describe(seeds) for problem in self.problems], label)
        return each.transpose("seed", self.dim, ...)

    def coordinates(self, training: Training) -> dict[str, Any]:
        return self.problems[0].coordinates(training)
