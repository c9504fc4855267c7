"""What experiments have in common that learn the transition matrices of several chains: the graded
graph, the letters of English, and the control with d = K.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
import xarray as xr
from pydantic import Field, model_validator

from analysis.experiments.base import Progress
from analysis.experiments.mechanisms import ComparedMechanisms, chosen
from analysis.problems.base import Training
from analysis.problems.graph import GraphProblem
from analysis.store.config import TrainingConfig
from ssa_theory.ensemble import resolve_device

Config = TypeVar("Config", bound="ChainsConfig")
_problem = cache(GraphProblem)  # reads its text once


@dataclass(frozen=True)
class Setting:
    """A chain to learn, and for how many steps."""

    name: str
    problem: GraphProblem
    steps: int


class ChainsConfig(TrainingConfig):
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
        ("vanilla", "ssa", "ssa-free"), description="mechanisms to train; vanilla is the peer"
    )

    @model_validator(mode="after")
    def _wearable(self) -> "ChainsConfig":
        for setting in self.settings:
            for mechanism in chosen(self.mechanisms):
                setting.problem.layer(mechanism)
        return self

    @property
    def settings(self) -> list[Setting]:
        """What is trained on."""
        settings = [Setting("graded", _problem(nodes=self.nodes, dim=self.dim), self.steps)]
        if self.letters_steps:
            letters = _problem("letters", dim=self.letters_dim)
            settings.append(Setting("letters", letters, self.letters_steps))
        return settings

    def control(self, steps: int) -> Setting:
        """The graded graph with d = K: vanilla attention has what it needs."""
        return Setting("control", _problem(nodes=self.nodes, dim=self.nodes), steps)

    def training(self, setting: Setting, learning_rate: float) -> Training:
        """How every model of a setting is trained."""
        return Training(setting.steps, learning_rate, dtype=self.dtype, compile=self.compile)


def train_settings(
    config: Config,
    progress: Progress,
    train: Callable[[Config, Setting, torch.device, Callable[[int], None]], xr.Dataset],
    blank: Mapping[str, str] | None = None,
) -> xr.Dataset:
    """What `train` returns of each setting, as one, along `setting`.

    blank: by variable, what fills up settings of fewer tokens, where that is not NaN.
    """
    device, settings, models = resolve_device(config.device), config.settings, config.mechanisms
    total = sum(s.steps for s in settings) * len(models)
    advance = progress(f"training {config.seeds} seeds x {len(models)} mechanisms", total)
    parts = [train(config, setting, device, advance) for setting in settings]
    names = xr.DataArray([s.name for s in settings], dims="setting", name="setting")
    fill: dict[str, Any] = {} if blank is None else {"fill_value": dict(blank)}
    return xr.concat(parts, dim=names, join="outer", **fill)
