"""What a problem is: a task made trainable. Adding one is adding one of these beside its task.

Problem   the task with its settings: the form of its layers, its baselines, its memory
Block     the data of a block of members on the device: their loss, batches, and exact evaluation
fit       the one way in which all models are trained
"""

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice
from types import UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from analysis.problems.soundness import with_models_apart, with_sound_rows
from ssa_theory.ensemble import train
from ssa_theory.mechanism import Form, Layer, Mechanism, Parameters
from ssa_theory.mechanism.parts import Generators
from ssa_theory.seeds import Stream, member_generator

Item = TypeVar("Item")
Variable = tuple[tuple[str, ...], np.ndarray, dict[str, str]]
"""Dimensions, values and attributes, as xarray takes them."""


@dataclass(frozen=True)
class Measure:
    """A number of a trained model: its dimensions after (mechanism, seed), and what it is.

    >>> Measure((), "mean squared error").about
    'mean squared error'
    """

    dims: tuple[str, ...]
    about: str


@dataclass(frozen=True)
class Training:
    """How every model of a comparison is trained.

    steps at the full learning rate, then cooldown_steps at a tenth of it: at a constant step size
    Adam leaves the models in the noise of their batches. dtype: precision of training; evaluation
    is in float64. compile: a step as one function; None where it pays. shared: steps of the other
    trainings that have this one's step, and share what it costs to compile.

    >>> Training(200, 0.05, cooldown_steps=50).total_steps
    250
    """

    steps: int
    learning_rate: float
    cooldown_steps: int = 0
    optimizer: Literal["adam", "sgd"] = "adam"
    dtype: Literal["float32", "float64"] = "float32"
    compile: bool | None = False
    shared: int = 0

    @property
    def total_steps(self) -> int:
        """With the cooldown."""
        return self.steps + self.cooldown_steps

    def at(self, learning_rate: float) -> "Training":
        """The same at another rate."""
        return replace(self, learning_rate=learning_rate)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The precision of training."""
        return getattr(torch, self.dtype)


@dataclass(frozen=True)
class Fitted:
    """A trained block of members.

    parameters: in float64, zero where a member diverged (a singular value decomposition refuses
    NaN). history: what was recorded, (record, ..., member). diverged: members whose loss was ever
    not finite: their numbers mean nothing. unmoved: members of which no parameter has changed.
    """

    parameters: Parameters
    history: dict[str, Tensor]
    diverged: Tensor
    unmoved: Tensor

    def by_member(self, values: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Numbers (..., member) as arrays (member, ...); NaN where a member diverged.

        Truth values stay: they are what guards count.
        """
        kept = {
            name: v if v.dtype == torch.bool else torch.where(self.diverged, torch.nan, v)
            for name, v in values.items()
        }
        return {name: np.moveaxis(v.cpu().numpy(), -1, 0) for name, v in kept.items()}


@dataclass(frozen=True)
class Block(abc.ABC):
    """The data of a block of members, on the device. Members are named by their seeds."""

    seeds: Sequence[int]
    device: torch.device

    def initial_parameters(self, layer: Layer, generators: Generators) -> Parameters:
        """Of every member, from its own generator: the layer's, and what stands on top of it."""
        return layer.initial_parameters(generators)

    @abc.abstractmethod
    def loss(self, layer: Layer, parameters: Parameters, batch: Any) -> Tensor:
        """Of every member, in the precision of training."""

    def batches(self, training: Training) -> Iterator[Any] | None:
        """One a step, the cooldown's included; None for a loss without data."""
        return None

    def recorded(self, layer: Layer, parameters: Parameters) -> dict[str, Tensor]:
        """What is measured at the recorded steps, of parameters in float64."""
        return {}

    def loss_of(self, recorded: Mapping[str, Tensor]) -> Tensor | None:
        """The exact loss among what `recorded` returned; None where it is not."""
        return None

    @abc.abstractmethod
    def evaluate(self, layer: Layer, fitted: Fitted) -> dict[str, Tensor]:
        """What is measured after training, (..., member)."""


class Problem(abc.ABC):
    """A task with its settings, made trainable.

    name: of the problem. measures: what `recorded` and `evaluate` of its blocks return, by name.
    tracked: positive ones, a number a member, that tuning stores beside the objective; and as which
    measure of the registry.
    """

    name: ClassVar[str]
    measures: ClassVar[Mapping[str, Measure]]
    tracked: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        """Raise ValueError for a setting that is none of those that there are."""
        try:
            hints = get_type_hints(type(self))
        except NameError:  # of a problem that is defined within a function
            return
        for name, hint in hints.items():
            value, choices = getattr(self, name, None), _choices(hint)
            if choices and value not in choices:
                among = ", ".join(map(str, choices))
                raise ValueError(f"{name} must be one of {among}, got {value!r:.60}: choose one")

    @property
    def members(self) -> Mapping[str, Sequence[float | str]]:
        """The dimensions of a seed's members with their labels; by default it is a single one."""
        return {}

    @property
    @abc.abstractmethod
    def form(self) -> Form:
        """The form of its layers."""

    @abc.abstractmethod
    def block(self, seeds: Sequence[int], training: Training, device: torch.device) -> Block:
        """The data of one member a seed; a seed may stand more than once."""

    @abc.abstractmethod
    def bytes_per_seed(self, training: Training) -> int:
        """Everything that is held of one seed while it trains, counted generously."""

    @property
    def objective(self) -> str:
        """The measure that tuning minimises, averaged over its dimensions: by default the first."""
        return next(iter(self.measures))

    @property
    def for_tuning(self) -> "Problem":
        """The problem on which rates are tuned: itself, without what goes beyond the training."""
        return self

    def layer(self, mechanism: Mechanism) -> Layer:
        """The layer that wears a mechanism. Raises Misfit where the problem cannot wear it."""
        layer = with_sound_rows(Layer(mechanism, self.form))
        return with_models_apart(self, layer, Training(1, 0.1, dtype="float64"))

    def describe(self, seeds: Sequence[int]) -> xr.Dataset:
        """Task and exact baselines by seed, which need no training."""
        return xr.Dataset(coords={"seed": list(seeds)})

    def summarise(self, dataset: xr.Dataset) -> xr.Dataset:
        """Add the baselines that all seeds of a dataset decide together; by default there are none.

        dataset: what `train_all` returned, blocks of seeds joined. Not called by `train_all`, as a
        seed's numbers must not depend on the seeds that are trained beside it.
        """
        return dataset

    def coordinates(self, training: Training) -> dict[str, Any]:
        """The labels of the dimensions of its measures."""
        return {"step": record_steps(training.steps)}


def fit(
    block: Block,
    layer: Layer,
    training: Training,
    rates: Sequence[float] | None = None,
    starts: Sequence[float] | None = None,
    *,
    record: Sequence[int] = (),
    measure: Callable[[Parameters], dict[str, Tensor]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Fitted:
    """Train one model a member of the block.

    rates, starts: for each member a factor on the learning rate, and on the initial query-key
    weights, where the layer has them. record: steps, within the first stage, at
    which the block's `recorded`, or `measure` of parameters in training's precision, is stored.

    >>> from analysis.problems import GraphProblem
    >>> from ssa_theory.mechanism import mechanism
    >>> problem, training = GraphProblem(dim=3), Training(5, 0.05)
    >>> block = problem.block([0, 1], training, torch.device("cpu"))
    >>> fit(block, problem.layer(mechanism("vanilla")), training).parameters["weight"].shape
    torch.Size([3, 3, 2])
    """
    generators = [member_generator(s, Stream.PARAMETER) for s in block.seeds]
    drawn = block.initial_parameters(layer, generators)
    if starts is not None and "weight" in drawn:
        drawn["weight"] = drawn["weight"] * torch.tensor(starts, dtype=torch.float64)
    initial = {k: v.to(block.device) for k, v in drawn.items()}
    start = {k: v.to(training.torch_dtype) for k, v in initial.items()}

    def loss(parameters: Parameters, batch: Any) -> Tensor:
        return block.loss(layer, parameters, batch)

    def recorded(parameters: Parameters) -> dict[str, Tensor]:
        return block.recorded(layer.evaluated, {k: v.double() for k, v in parameters.items()})

    trained = train(
        loss,
        initial,
        steps=training.steps,
        cooldown_steps=training.cooldown_steps,
        learning_rate=training.learning_rate,
        optimizer=training.optimizer,
        compile=training.compile,
        batches=block.batches(training),
        measure=recorded if measure is None else measure,
        record=record,
        progress=progress,
        rates=rates,
        shared=training.shared,
        dtype=training.torch_dtype,
    )
    parameters, diverged = trained.parameters, trained.diverged
    same = [(v == start[k]).reshape(-1, v.shape[-1]).all(0) for k, v in parameters.items()]
    final = {k: torch.where(diverged, 0.0, v.double()) for k, v in parameters.items()}
    unmoved = torch.stack(same).all(0) if same else torch.ones_like(diverged)
    return Fitted(final, trained.history, diverged, unmoved)


def _choices(hint: Any) -> tuple[Any, ...]:
    """The values of a type that is made of literals alone."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        parts = [_choices(part) for part in get_args(hint)]
        return tuple(chain(*parts)) if all(parts) else ()
    return ()


DIVERGED = {
    "diverged": Measure(
        (), "whether the loss was ever not finite; the model's other numbers are NaN"
    )
}


def record_steps(steps: int) -> np.ndarray:
    """At most 41 evenly spaced steps, the initialisation (0) and the last among them."""
    return np.unique(np.rint(np.linspace(0, steps, 41)).astype(int))


def stack_members(arrays: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """One array per member to one tensor (..., member) on the device."""
    return torch.from_numpy(np.stack(arrays, axis=-1)).to(device)


def restarted(pool: Sequence[Item], training: Training) -> Iterator[Item]:
    """The items of a pool, over and over, one a step, anew in the cooldown."""
    return chain(*(islice(cycle(pool), n) for n in (training.steps, training.cooldown_steps)))
