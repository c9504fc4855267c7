"""What configs have in common: every one its rules, a random experiment its seeds, and one that
trains how it trains.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssa_theory.mechanism import file_of

Own = TypeVar("Own", bound="ExperimentConfig")
Config = TypeVar("Config", bound="SeededConfig")


class Dataclass(Protocol):
    """What has fields."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Built = TypeVar("Built", bound=Dataclass)


class ExperimentConfig(BaseModel):
    """Frozen, rejects unknown keys, and is stored inside the result that it produced. A field is a
    flag, and does something.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="after")
    def _checked(self: Own) -> Own:
        self.check()
        return self

    def check(self) -> None:
        """Raise ValueError where settings do not go together; by default all do."""

    def notes(self) -> list[str]:
        """What the user is told before anything is trained, such as what was understood of a file.

        Raises ValueError for what would fail later.
        """
        return []

    def files(self) -> dict[str, Path]:
        """The user's files that the settings name: by field, and mechanisms of the user's own by
        themselves.
        """
        named = {name: value for name, value in self if isinstance(value, Path)}
        listed = [
            item
            for _, value in self
            if isinstance(value, tuple)
            for item in value
            if isinstance(item, str)
        ]
        return named | {item: path for item in listed if (path := file_of(item)) is not None}

    def build(
        self, dataclass_type: type[Built], others: Mapping[str, Any] = MappingProxyType({})
    ) -> Built:
        """A dataclass of the settings that have the names of its fields, and of `others`."""
        own = {f: getattr(self, f) for f in dataclass_type.__dataclass_fields__ if hasattr(self, f)}
        return dataclass_type(**{**own, **others})

    def require_distinct(self, *names: str) -> None:
        """Raise ValueError where one of these fields is empty or lists a value twice."""
        for name in names:
            values = getattr(self, name)
            if len(set(values)) != len(values) or not values:
                raise ValueError(
                    f"{name} must be different and at least one, got {values}: list each once"
                )

    def require_ascending(self, name: str, least: int, most: float | int) -> None:
        """Raise ValueError where a field's values do not ascend within bounds."""
        values = getattr(self, name)
        ascending = values and list(values) == sorted(set(values))
        if not ascending or not least <= values[0] <= values[-1] <= most:
            raise ValueError(
                f"{name} must ascend and lie in [{least}, {most}], got {values}: sort and bound "
                "them"
            )

    def require_listed(self, name: str, among: str) -> None:
        """Raise ValueError where a field's value is not one of those of another."""
        value, values = getattr(self, name), getattr(self, among)
        if value not in values:
            raise ValueError(
                f"{name} must be one of the {among} {values}, got {value}: choose one of them"
            )


class SeededConfig(ExperimentConfig):
    """Of what is random, and computed with tensors."""

    seeds: int = Field(
        default=64,
        ge=1,
        le=10_000_000,
        description="number of seeds; a seed names task, initialisation and data",
    )
    first_seed: int = Field(
        default=0,
        ge=0,
        lt=2**62,  # far from those that learning rates are tuned on
        description="the seeds are first_seed, first_seed + 1, ...",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where to compute; auto takes CUDA where there is one"
    )

    def of_seeds(self: Config, seeds: range) -> Config:
        """The same settings for some of the seeds. What is checked of all seeds need not hold for a
        few: nothing is checked.
        """
        return self.model_copy(update={"first_seed": seeds.start, "seeds": len(seeds)})

    @property
    def seed_range(self) -> range:
        """The seeds themselves."""
        return range(self.first_seed, self.first_seed + self.seeds)


def seeded_config(config: ExperimentConfig) -> SeededConfig:
    """The config itself, of an experiment with seeds. Raises TypeError for one without."""
    if not isinstance(config, SeededConfig):
        raise TypeError(f"{type(config).__name__} names no seeds: derive it from SeededConfig")
    return config


class TrainingConfig(SeededConfig):
    """Of what trains ensembles of models, block by block."""

    dtype: Literal["float32", "float64"] = Field(
        default="float32", description="precision of training (evaluation is in float64)"
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="auto",
        description=(
            "compile the training step: about a second for each mechanism and shape, once a machine,"
            " then several times as fast; auto: where that pays"
        ),
    )

    @property
    def compiled(self) -> bool | None:
        """Whether training is compiled; None where that pays."""
        return {"auto": None, "on": True, "off": False}[self.compile]

    block_seeds: int | None = Field(
        default=None,
        ge=1,
        description=(
            "seeds trained and stored at a time; by default what suits the device's cache and"
            " memory"
        ),
    )
