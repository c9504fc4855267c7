"""How experiments train: the settings that they have in common, and the cells of what is trained."""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import xarray as xr
from pydantic import Field

from analysis.experiments.base import Progress
from analysis.experiments.mechanisms import Mechanisms, chosen
from analysis.problems.base import Problem, Training
from analysis.problems.sizes import block_size
from analysis.problems.train import train_all
from analysis.problems.tuning import tuning_steps
from analysis.store.config import TrainingConfig
from ssa_theory.device import resolve_device
from ssa_theory.mechanism import Mechanism

AnyProblem = TypeVar("AnyProblem", bound=Problem, covariant=True)
LearningRates = Annotated[
    tuple[Annotated[float, Field(gt=0)], ...],
    Field(
        description="step sizes, ascending: each mechanism is trained at the best of them, tuned on "
        "seeds that are not reported; a single one is not tuned"
    ),
]
Starts = Annotated[
    tuple[Annotated[float, Field(gt=0)], ...],
    Field(
        description="factors on the initial query-key weights, ascending: each mechanism starts from "
        "the best of them, tuned together with its step size; by default from 0.3, 1 and 3 where step "
        "sizes are tuned, else from 1"
    ),
]
RATES = (0.02, 0.06, 0.2, 0.6)
"""The grid of every experiment that tunes."""
STARTS = (0.3, 1.0, 3.0)
"""Of those that tune where training starts, too: what a constant scale of the logits would change."""
QUICK = {"seeds": 4, "learning_rates": (0.06,)}
"""What most presets `smoke` change: few seeds, and nothing to tune."""
Steps = Annotated[
    int, Field(ge=1, le=1_000_000, description="training steps at the full step size")
]
CooldownSteps = Annotated[
    int, Field(ge=0, le=1_000_000, description="further steps at a tenth of the step size")
]


@dataclass(frozen=True)
class Cell(Generic[AnyProblem]):
    """A problem, how one trains on it, which mechanisms, the steps to record, and the problem on
    which rates are tuned (see `train_all`).
    """

    name: str
    problem: AnyProblem
    training: Training
    mechanisms: Sequence[Mechanism]
    record: Sequence[int] | None = None
    tune_on: Problem | None = None


class TunedConfig(TrainingConfig):
    """Of an experiment that trains every mechanism at its best rate."""

    learning_rates: LearningRates = RATES

    def check(self) -> None:
        self.require_ascending("learning_rates", 0, 1e38)

    def training_of(self, steps: int, cooldown_steps: int = 0) -> Training:
        """How one trains for so many steps, at the largest of the rates."""
        precision = {"dtype": self.dtype, "compile": self.compiled}
        return Training(steps, max(self.learning_rates), cooldown_steps, **precision)

    @property
    def adam(self) -> str:
        """The optimiser as a figure names it."""
        rates = [f"{rate:g}" for rate in self.learning_rates]
        return f"adam {rates[0]}" if len(rates) == 1 else f"adam at the best of {', '.join(rates)}"


class CellsConfig(TunedConfig):
    """Of one that trains mechanisms on problems, each of which they can wear."""

    @property
    @abc.abstractmethod
    def cells(self) -> Sequence[Cell[Problem]]:
        """What is trained, in order."""

    def check(self) -> None:
        super().check()
        for cell in self.cells:
            for mechanism in cell.mechanisms:
                cell.problem.layer(mechanism)


class CooldownConfig(CellsConfig):
    """Of one that trains all models at the full step size, then at a tenth of it."""

    steps: Steps = 200
    cooldown_steps: CooldownSteps = 50

    @property
    def training(self) -> Training:
        """How every model is trained, but for its rate."""
        return self.training_of(self.steps, self.cooldown_steps)


def cells_per_block(config: CellsConfig) -> int:
    """How many seeds are trained at a time, by the memory of one in the largest cell."""
    return block_size(config, max(c.problem.bytes_per_seed(c.training) for c in config.cells))


def train_cells(config: CellsConfig, progress: Progress) -> list[xr.Dataset]:
    """What `train_all` returns of each cell."""
    cells, device = config.cells, resolve_device(config.device)
    models = sum(len(c.mechanisms) for c in cells)
    total = sum(len(c.mechanisms) * steps_of(c.training, config.learning_rates) for c in cells)
    advance = progress(f"training {config.seeds} seeds x {models} models", total)
    return [
        train_all(
            cell.problem,
            cell.mechanisms,
            config.seed_range,
            cell.training,
            device,
            rates=config.learning_rates,
            tune_on=cell.tune_on,
            record=cell.record,
            progress=advance,
        )
        for cell in cells
    ]


def steps_of(training: Training, *grid: Sequence[float]) -> int:
    """Of a mechanism: to tune it, where there is a choice, and as it is trained then."""
    return tuning_steps(training, *grid) + training.total_steps


def train_cell(config: CellsConfig, progress: Progress) -> xr.Dataset:
    """That of the only cell."""
    (dataset,) = train_cells(config, progress)
    return dataset


def join_cells(
    config: CellsConfig, parts: Sequence[xr.Dataset], dim: str, **options: Any
) -> xr.Dataset:
    """The parts of cells as one, along a dimension with their names; options: of `xr.concat`."""
    names = xr.DataArray([c.name for c in config.cells], dims=dim, name=dim)
    return xr.concat(parts, names, **options)


class SweptConfig(CooldownConfig):
    """Of one that trains mechanisms at a default setting, and some of them at others as well."""

    mechanisms: Mechanisms
    swept_mechanisms: Mechanisms

    @property
    @abc.abstractmethod
    def problems(self) -> Mapping[str, Problem]:
        """By the name of the setting, the default first."""

    def check(self) -> None:
        own, swept = ([m.name for m in chosen(n)] for n in (self.mechanisms, self.swept_mechanisms))
        if missing := [name for name in swept if name not in own]:
            raise ValueError(
                f"swept_mechanisms must be among mechanisms, got {missing}: add them to "
                "mechanisms, or drop them"
            )
        super().check()

    @property
    def cells(self) -> list[Cell[Problem]]:
        """Every setting."""
        every, swept = chosen(self.mechanisms), chosen(self.swept_mechanisms)
        return [
            Cell(name, problem, self.training, swept if place else every, ())
            for place, (name, problem) in enumerate(self.problems.items())
        ]


_ABSENT = dict.fromkeys(("diverged", "longer_settled"), False)
"""The truth values of what is not trained."""


def join_settings(config: SweptConfig, parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """The parts of settings as one, along `setting`; NaN where a mechanism is not trained."""
    names = [m.name for m in chosen(config.mechanisms)]
    whole = [part.reindex(mechanism=names, fill_value=_ABSENT) for part in parts]
    dataset = join_cells(config, whole, "setting", data_vars="all", compat="equals")
    return dataset.transpose("mechanism", "seed", "setting", ...)
