"""What experiments have in common that learn the transition matrices of several chains: the graded
graph, the letters of English, and the control with d = K.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import torch
import xarray as xr
from pydantic import Field

from analysis.experiments.base import Progress
from analysis.experiments.mechanisms import ComparedMechanisms, chosen
from analysis.experiments.settings import Cell, CellsConfig, join_cells, steps_of
from analysis.problems.graph import GraphProblem
from ssa_theory.device import resolve_device
from ssa_theory.mechanism import VANILLA

Config = TypeVar("Config", bound="ChainsConfig")
Chain = Cell[GraphProblem]
"""A chain to learn."""
_problem = cache(GraphProblem)  # reads its text once


class ChainsConfig(CellsConfig):
    """Of an experiment that compares mechanisms on the graded graph and on letters."""

    nodes: int = Field(8, ge=2, le=512, description="number of nodes K of the graded graph")
    dim: int = Field(4, ge=1, le=512, description="embedding dimension d on the graded graph")
    steps: int = Field(200, ge=1, le=1_000_000, description="training steps on the graded graph")
    letters_dim: int = Field(
        12, ge=1, le=512, description="embedding dimension d on the letters of English text"
    )
    letters_steps: int = Field(
        250, ge=0, le=1_000_000, description="training steps on the letters; 0: skip them"
    )
    mechanisms: ComparedMechanisms = Field(
        (VANILLA, "ssa", "ssa-free"), description="mechanisms to train; vanilla is the peer"
    )

    @property
    def cells(self) -> list[Chain]:
        """The settings that are trained on."""
        cells = [self.chain("graded", _problem(nodes=self.nodes, dim=self.dim), self.steps)]
        if self.letters_steps:
            letters = _problem("letters", dim=self.letters_dim)
            cells.append(self.chain("letters", letters, self.letters_steps))
        return cells

    def control(self, steps: int) -> Chain:
        """The graded graph with d = K: vanilla attention has what it needs."""
        return self.chain("control", _problem(nodes=self.nodes, dim=self.nodes), steps)

    def chain(self, name: str, problem: GraphProblem, steps: int) -> Chain:
        """With all mechanisms."""
        return Cell(name, problem, self.training_of(steps), chosen(self.mechanisms))


def train_settings(
    config: Config,
    progress: Progress,
    train: Callable[[Config, Chain, torch.device, Callable[[int], None]], xr.Dataset],
    blank: Mapping[str, str] | None = None,
    tuned: Sequence[float] = (),
) -> xr.Dataset:
    """What `train` returns of each setting, as one, along `setting`.

    tuned: the rates from which it chooses by `tune`. blank: by variable, what fills up settings of
    fewer tokens, where that is not NaN.
    """
    device, cells, models = resolve_device(config.device), config.cells, config.mechanisms
    total = sum(steps_of(c.training, tuned) for c in cells) * len(models)
    advance = progress(f"training {config.seeds} seeds x {len(models)} mechanisms", total)
    parts = [train(config, cell, device, advance) for cell in cells]
    fill: dict[str, Any] = {} if blank is None else {"fill_value": dict(blank)}
    return join_cells(config, parts, "setting", join="outer", **fill)
