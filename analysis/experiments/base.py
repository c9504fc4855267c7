"""What an experiment is, and how it tells of its progress."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import xarray as xr
from matplotlib.figure import Figure

from analysis.claims import Claim
from analysis.config import ExperimentConfig

Preset = Literal["smoke", "paper", "large"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
Progress = Callable[[str, int], Callable[[int], None]]
"""progress(description, total) starts a task and returns the function to tell of finished work."""


def silent(description: str, total: int) -> Callable[[int], None]:
    """No progress display."""
    return lambda finished: None


@dataclass(frozen=True)
class Experiment:
    """One question with its config, its run, its figure and its claims. Adding an experiment is adding one of these.

    run(config, progress) returns the labelled result; plot(result) a figure, without training or statistics;
    claims(result) the ledger lines. caption: what the figure's panels show, whatever the result. presets: what each
    preset changes from the config's defaults.
    """

    name: str
    question: str
    caption: str
    config: type[ExperimentConfig]
    run: Callable[[Any, Progress], xr.Dataset]
    plot: Callable[[xr.Dataset], Figure]
    claims: Callable[[xr.Dataset], list[Claim]]
    presets: Mapping[Preset, Mapping[str, object]] = field(default_factory=dict)

    def preset(self, name: str) -> ExperimentConfig:
        """The config of a preset. Raises ValueError for an unknown one."""
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
        return self.config(**self.presets.get(name, {}))
