"""Where a run is stored: a result of other data or settings is never overwritten."""

import hashlib
import re
from pathlib import Path

from analysis.experiments.base import PRESETS, Experiment
from analysis.store.claims import result_path
from analysis.store.config import ExperimentConfig
from analysis.store.results import load

_HOW = {"device", "compile", "block_seeds"}
"""Settings of how a result is computed, which change it by rounding at most."""
_LONGEST = 60
_RANKS = ("smoke", "large", "paper")


def place_of(experiment: Experiment, config: ExperimentConfig, out: Path, name: str = "") -> str:
    """The name of a run's folder below `out`.

    It is the experiment's, with `@name` where a name is given, or with `@` and what differs where
    the experiment's folder holds a result of other data or settings. Only where that result is of
    no preset, or of a lesser one, and this run is of a better, the stored one makes way: see
    `make_way`. Raises ValueError for a name that is none of a folder.
    """
    if name:
        if not re.fullmatch(r"[\w.+=,-]+", name):
            raise ValueError(
                f"name must be made of letters, digits and . _ + = , -, got {name!r:.60}: choose "
                "another"
            )
        return f"{experiment.name}@{name}"
    stored = _stored(experiment, out)
    if stored is None or not _differing(config, stored):
        return experiment.name
    if _rank(experiment, config) > _rank(experiment, stored):
        return experiment.name
    return f"{experiment.name}@{_said(_differing(config, stored))}"


def make_way(experiment: Experiment, config: ExperimentConfig, out: Path) -> Path | None:
    """Move a stored result of lesser rank out of the way of a run; its new folder, or None."""
    stored = _stored(experiment, out)
    if stored is None or not _differing(config, stored):
        return None
    folder = result_path(experiment.name, out).parent
    name = f"{experiment.name}@{_said(_differing(stored, config))}"
    ways = (folder.with_name(f"{name}{again}") for again in ("", *(f"-{i}" for i in range(2, 999))))
    way = next(path for path in ways if not path.exists())
    folder.rename(way)
    return way


def _stored(experiment: Experiment, out: Path) -> ExperimentConfig | None:
    """The settings of the result in the experiment's own folder; None where none can be read."""
    path = result_path(experiment.name, out)
    try:
        return experiment.config_of(load(path)) if path.is_file() else None
    except (ValueError, OSError):
        return None


def _differing(config: ExperimentConfig, other: ExperimentConfig) -> dict[str, object]:
    """The settings of the first that the second has not."""
    return {
        name: value for name, value in config if name not in _HOW and value != getattr(other, name)
    }


def _rank(experiment: Experiment, config: ExperimentConfig) -> int:
    """How good a claim to the experiment's own folder: that of the best preset that it is of."""
    equal = [p for p in PRESETS if not _differing(config, experiment.preset(p))]
    return max((1 + _RANKS.index(preset) for preset in equal), default=0)


def _said(settings: dict[str, object]) -> str:
    """Settings as the name of a folder."""
    words = [f"{name}={_short(value)}" for name, value in settings.items()]
    said = re.sub(r"[^\w.+=,-]", "_", ",".join(words))
    if len(said) <= _LONGEST:
        return said
    digest = hashlib.sha256(repr(settings).encode()).hexdigest()[:8]
    return f"{said[: _LONGEST - 9]}-{digest}"


def _short(value: object) -> str:
    if isinstance(value, Path):
        return value.stem
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
