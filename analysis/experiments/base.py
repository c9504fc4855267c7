"""What an experiment is."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import xarray as xr
from matplotlib.figure import Figure

from analysis.claims.claim import Claim
from analysis.draw.figures import letter_panels
from analysis.progress import Progress, silent
from analysis.store.config import ExperimentConfig, seeded_config
from analysis.store.dependencies import Definition
from analysis.store.dimensions import described

Preset = Literal["smoke", "paper", "large"]
PRESETS: tuple[Preset, ...] = get_args(Preset)


_FREE = {"seeds", "first_seed", "block_seeds", "device", "compile", "dtype"}


def _as_trained(config: ExperimentConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    return dataset


def join_blocks(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """The blocks as one, along `seed`. Raises ValueError where what seeds share differs."""
    if len(parts) == 1:
        return parts[0]
    joined = xr.concat(
        parts,
        "seed",
        data_vars="minimal",
        coords="minimal",
        compat="equals",
        join="exact",
        combine_attrs="drop",
    )
    for name, variable in joined.variables.items():  # what a variable is does not depend on seeds
        variable.attrs.update(parts[0][name].attrs)
    return joined


@dataclass(frozen=True)
class Units:
    """How a run is cut that is not cut by seeds.

    of: the config of each unit. join: the parts of a config's units as one. A unit's file is named
    by its settings and kept: another run with the same unit takes it from there.
    """

    of: Callable[[Any], Sequence[ExperimentConfig]]
    join: Callable[[Any, Sequence[xr.Dataset]], xr.Dataset]


@dataclass(frozen=True)
class Experiment:
    """One question with its config, its training, its figure and its claims. Adding an experiment
    is adding one of these.

    train(config, progress) returns the labelled numbers of the config's seeds, along `seed`; a
    seed's numbers do not depend on the others, so a long run is cut into blocks of
    seeds_per_block(config) seeds, each a unit of work with a file of its own. summarise(config,
    dataset, progress) adds to the joined blocks what is said of all seeds together. By default all
    seeds are one block and nothing is added. draw(config, result) is the figure, without training
    or statistics; judge(config, result) the claims, each with its verdict. caption: what the
    figure's panels show, whatever the result. presets: what each preset changes from the config's
    defaults. units: how else than by seeds a run is cut. dimensions: what those of its result are
    that no other has. Raises ValueError for a name that is none of a folder.
    """

    name: str
    question: str
    caption: str
    config: type[ExperimentConfig]
    train: Callable[[Any, Progress], xr.Dataset]
    draw: Callable[[Any, xr.Dataset], Figure]
    judge: Callable[[Any, xr.Dataset], list[Claim]]
    seeds_per_block: Callable[[Any], int] | None = None
    summarise: Callable[[Any, xr.Dataset, Progress], xr.Dataset] = _as_trained
    presets: Mapping[Preset, Mapping[str, object]] = field(default_factory=dict)
    units: Units | None = None
    dimensions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.+=,-]*", self.name):
            raise ValueError(
                "an experiment's name stands for its folder and must be made of letters, digits and "
                f". _ + = , -, got {self.name!r:.60}: rename it"
            )

    def preset(self, name: str) -> ExperimentConfig:
        """The config of a preset. Raises ValueError for an unknown one."""
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
        return self.config(**self.presets.get(name, {}))

    def is_declared(self, config: ExperimentConfig) -> bool:
        """Whether a config has the settings that the registry of topics is about: those of the
        preset `paper` or `large`, but for how many seeds, which, and how they are computed.
        """
        own = config.model_dump(exclude=_FREE)
        return any(own == self.preset(p).model_dump(exclude=_FREE) for p in ("paper", "large"))

    def blocks(self, config: ExperimentConfig) -> list[ExperimentConfig]:
        """The config of each block. Raises ValueError where a single seed is too large for this
        machine, or blocks are asked for where there are none.
        """
        if self.units is not None:
            return list(self.units.of(config))
        if self.seeds_per_block is None:
            if requested := getattr(config, "block_seeds", None):
                raise ValueError(
                    f"{self.name} takes all seeds together, got block_seeds={requested}: drop block_seeds"
                )
            return [config]
        size = self.seeds_per_block(config)
        seeded = seeded_config(config)
        seeds = seeded.seed_range
        starts = range(0, len(seeds), size)
        return [seeded.of_seeds(seeds[start : start + size]) for start in starts]

    def join(
        self, config: ExperimentConfig, parts: Sequence[xr.Dataset], progress: Progress = silent
    ) -> xr.Dataset:
        """The result of all blocks. What does not depend on seeds must be the same in all of them."""
        joined = join_blocks(parts) if self.units is None else self.units.join(config, parts)
        return described(self.summarise(config, joined, progress), self.dimensions)

    def data_code(self) -> tuple[object, ...]:
        """What a result depends on, for `code_digest` and `definitions`."""
        units = (join_blocks,) if self.units is None else (self.units.of, self.units.join)
        functions = (self.train, self.summarise, self.seeds_per_block, *units)
        return (
            *(f for f in functions if f is not None),
            self.config,
            Definition("analysis.store.results", "FORMAT"),
        )

    def presentation_code(self) -> tuple[object, ...]:
        """What figure and claims depend on: the same, `draw`, `judge`, and how a figure is written."""
        return (
            *self.data_code(),
            self.draw,
            self.judge,
            Definition("analysis.draw.figures", "save_figure"),
        )

    def config_of(self, dataset: xr.Dataset) -> ExperimentConfig:
        """The config inside a result. Raises ValueError where this version does not write it so."""
        name, text = (dataset.attrs.get(key) for key in ("experiment", "config"))
        try:
            config = None if text is None else self.config.model_validate_json(text)
        except ValueError:  # pydantic's, with a paragraph for every field
            config = None
        if str(name) != self.name or config is None or config.model_dump_json() != text:
            raise ValueError(
                f"a result of experiment {name!r:.40} with config {text!r:.80} is not one of {self.name}"
            )
        return config

    def plot(self, dataset: xr.Dataset) -> Figure:
        """The figure of a result. Raises ValueError as `config_of`, KeyError for what it lacks."""
        figure = self.draw(self.config_of(dataset), dataset)
        letter_panels(figure)
        return figure

    def claims(self, dataset: xr.Dataset) -> list[Claim]:
        """The claims of a result. Raises as `plot`."""
        return self.judge(self.config_of(dataset), dataset)

    def run(self, config: ExperimentConfig, progress: Progress = silent) -> xr.Dataset:
        """The whole result, computed block by block in this process and kept in memory."""
        dataset = self.join(
            config, [self.train(part, progress) for part in self.blocks(config)], progress
        )
        return dataset.assign_attrs(experiment=self.name, config=config.model_dump_json())
