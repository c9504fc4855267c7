"""The experiments that a command names, and the flags of a run."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import BaseModel, create_model

from analysis.experiments import APART, EXPERIMENTS, PLACES
from analysis.experiments.base import PRESETS, Experiment, Preset
from analysis.parse import OUT, parse
from analysis.store.config import TrainingConfig
from analysis.terminal import nearest
from ssa_theory.mechanism import file_of
from ssa_theory.mechanism.load import variable_of_file

_RUN = {
    "preset": (Preset, "paper", "defaults: smoke (seconds), paper (64+ seeds), large"),
    "out": OUT,
    "name": (str, "", "of a folder of its own for this run: NAME@... in the folder of the results"),
    "fresh": (bool, False, "run even if the stored result is unchanged"),
    "workers": (int, 1, "processes that share the experiments, or the blocks of one"),
    "scheduler": (
        str | None,
        None,
        "address of a running Dask cluster, such as tcp://host:8786",
    ),
}


COMMON = {"preset", "out", "fresh", "workers", "seeds", "device", "mechanisms", "dim", "steps"}
COMMON |= {"family", "graph_file", "text_file", "learning_rates"}
"""What `--help` shows of a run's flags; `--help-all` shows all."""


def parse_run(experiment: Experiment, flags: Sequence[str]) -> Any:
    """The flags of a run; the defaults of the config's fields come from the preset."""
    preset = next((b for a, b in pairwise(flags) if a == "--preset"), "paper")
    preset = next((a.split("=", 1)[1] for a in flags if a.startswith("--preset=")), preset)
    known = preset if preset in PRESETS else "paper"  # an unknown one is refused below
    command, config = f"run {experiment.name}", experiment.preset(known)
    if {"-h", "--help"} & set(flags):
        about = f"{experiment.question} The most common settings; `--help-all` shows all."
        some = {name: flag for name, flag in _RUN.items() if name in COMMON}
        return parse(command, ["--help"], about, _common(config), **some)
    if "--help-all" in flags:
        flags = ["--help"]
    return parse(command, flags, experiment.question, config, **_RUN)


def _common(config: BaseModel) -> BaseModel:
    """A config of which the help shows the most common fields only."""
    hidden: Any = {
        name: (Annotated[info.annotation, tyro.conf.Suppress], info)
        for name, info in type(config).model_fields.items()
        if name not in COMMON
    }
    shown: Any = create_model(type(config).__name__, __base__=type(config), **hidden)
    return shown.model_construct(**dict(config))


def named(arguments: Sequence[str]) -> tuple[list[Experiment], list[str]]:
    """The experiments named before the first flag, and the flags.

    Raises ValueError for an unknown one, and for none, unless help is what is wanted.
    """
    split = next((i for i, a in enumerate(arguments) if a.startswith("-")), len(arguments))
    names, flags = list(arguments[:split]), list(arguments[split:])
    if names == ["all"]:
        names = [name for name in EXPERIMENTS if name not in APART]
    choice = f"choose from {', '.join(PLACES)}, all, or PATH.py:NAME for one of your own"
    for name in names:
        if (file := file_of(name)) is not None:
            EXPERIMENTS[name] = _of_file(name, file)
        elif name not in EXPERIMENTS:
            question = nearest(name, [*EXPERIMENTS, "all"])
            raise ValueError(f"unknown experiment {name!r}{question or ':'} {choice}")
    if not names and not {"-h", "--help", "--help-all"} & set(flags):
        raise ValueError(f"no experiment was named: {choice}")
    return [EXPERIMENTS[name] for name in dict.fromkeys(names)], flags


def _of_file(name: str, file: Path) -> Experiment:
    """An experiment of the user's own. Raises ValueError where it is called like one of these."""
    experiment = variable_of_file(name, file, Experiment)
    if experiment.name in PLACES:
        raise ValueError(
            f"the experiment {name.rpartition(':')[2]} of {file} has the name of another, "
            f"{experiment.name!r}: rename it"
        )
    return experiment


def flags_of(
    experiment: Experiment, experiments: Sequence[Experiment], flags: Sequence[str]
) -> list[str]:
    """The flags without those that only others of the named experiments have, of the ones that most
    have in common.

    So `run all --device cpu` runs what has no device, too; a flag that no experiment named has is
    refused as any unknown one.
    """
    elsewhere = {
        name
        for other in experiments
        for name in other.config.model_fields
        if name in TrainingConfig.model_fields
    }
    theirs = elsewhere - set(experiment.config.model_fields)
    kept, own = [], True
    for word in flags:
        if word.startswith("--"):
            name = word.split("=")[0].removeprefix("--").removeprefix("no-").replace("-", "_")
            own = name not in theirs
        if own:
            kept.append(word)
    return kept
