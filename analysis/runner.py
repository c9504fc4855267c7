"""Run an experiment into its folder: result first, then figure and claims, each file whole."""

import json
import time
from pathlib import Path
from typing import Any

import xarray as xr

from analysis.claims import Claim
from analysis.config import ExperimentConfig
from analysis.experiments.base import Experiment, Progress, silent
from analysis.figures import FORMATS, save_figure
from analysis.results import (
    file_digest,
    load,
    load_current,
    prepare_folder,
    provenance,
    save,
    source_digest,
    write_whole,
)
from ssa_theory import resolve_device


def execute(
    experiment: Experiment, config: ExperimentConfig, out: Path, fresh: bool = False, progress: Progress = silent
) -> tuple[xr.Dataset, list[Claim], bool]:
    """Train, store, draw and claim; what was made by this very config, source and result is left as it is.

    The source is that of the installed packages: for an experiment defined elsewhere, in a notebook say, set `fresh`.
    Returns the result, its claims, and whether it was trained now. Files: out/NAME/result.nc, figure.svg, .pdf and .png, and
    claims.json. Raises ValueError for a folder that cannot be written, before any training.
    """
    path, module = result_path(experiment.name, out), experiment.run.__module__
    prepare_folder(path.parent)
    dataset = None if fresh else load_current(path, config, module)
    trained = dataset is None
    if trained:
        start = time.perf_counter()
        dataset = experiment.run(config, progress)
        seconds = time.perf_counter() - start
        dataset.attrs |= provenance(experiment.name, config, resolve_device(config.device), seconds, module)
        save(dataset, path)
    elif _made_from(path) == _stamp(path, module) and all(
        path.with_name(f"figure.{kind}").is_file() for kind in FORMATS
    ):
        return dataset, load_claims(experiment.name, out), False
    return *present(experiment, out), trained


def is_unchanged(experiment: Experiment, config: ExperimentConfig, out: Path) -> bool:
    """Whether `execute` would find the result, made by this very config and source, and not train."""
    return load_current(result_path(experiment.name, out), config, experiment.run.__module__) is not None


def present(experiment: Experiment, out: Path) -> tuple[xr.Dataset, list[Claim]]:
    """Draw the figure and write the claims of the stored result, without training. Raises ValueError where there is none."""
    path = result_path(experiment.name, out)
    dataset = load(path)
    prepare_folder(path.parent)
    try:
        save_figure(experiment.plot(dataset), path.parent)
        claims = experiment.claims(dataset)
    except KeyError as error:
        if dataset.attrs["source"] == source_digest(experiment.run.__module__):
            raise
        raise ValueError(
            f"the stored result {path} was made by another version of this code and lacks what is drawn now ({error}): "
            f"run `ssa-theory run {experiment.name}`"
        ) from error
    # Written last: where claims.json says what it was made from, the figure is of the same.
    text = (
        json.dumps(
            {"made_from": _stamp(path, experiment.run.__module__), "claims": [c.to_dict() for c in claims]}, indent=1
        )
        + "\n"
    )
    write_whole(_claims_path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return dataset, claims


def load_claims(name: str, out: Path) -> list[Claim]:
    """The stored claims of an experiment; none where it was not run. Raises ValueError for a damaged file."""
    path = _claims_path(result_path(name, out))
    return [Claim.from_dict(record) for record in _read(path)["claims"]] if path.is_file() else []


def result_path(name: str, out: Path) -> Path:
    """Where an experiment's result is stored."""
    return out / name / "result.nc"


def _claims_path(path: Path) -> Path:
    return path.with_name("claims.json")


def _stamp(path: Path, module: str) -> dict[str, str]:
    """What figure and claims depend on."""
    return {"source": source_digest(module, presentation=True), "result": file_digest(path)}


def _made_from(path: Path) -> dict[str, str] | None:
    try:
        return _read(_claims_path(path))["made_from"]
    except (OSError, ValueError):
        return None


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not {"made_from", "claims"} <= set(record):
            raise ValueError("it lacks its parts")
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"the stored claims {path} are damaged ({error}): redraw them with `ssa-theory plot`"
        ) from error
    return record
