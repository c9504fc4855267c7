"""Run an experiment into its folder: result first, then claims and figure, each file whole."""

import json
import time
from pathlib import Path

import xarray as xr

from analysis.claims import Claim
from analysis.config import ExperimentConfig
from analysis.experiments.base import Experiment, Progress, silent
from analysis.figures import save_figure
from analysis.results import is_current, load, prepare_folder, provenance, save, write_whole
from ssa_theory import resolve_device


def execute(
    experiment: Experiment, config: ExperimentConfig, out: Path, fresh: bool = False, progress: Progress = silent
) -> tuple[xr.Dataset, list[Claim], bool]:
    """Train (unless the stored result was made by this very config and source), store, claim and draw.

    Returns the result, its claims, and whether it was trained now. Files: out/NAME/result.nc, claims.json, figure.svg, .pdf
    and .png. Raises ValueError for a folder that cannot be written, before any training.
    """
    path = result_path(experiment, out)
    prepare_folder(path.parent)
    trained = fresh or not is_current(path, config)
    if trained:
        start = time.perf_counter()
        dataset = experiment.run(config, progress)
        seconds = time.perf_counter() - start
        dataset.attrs |= provenance(experiment.name, config, resolve_device(config.device), seconds)
        save(dataset, path)
    return *present(experiment, out), trained


def present(experiment: Experiment, out: Path) -> tuple[xr.Dataset, list[Claim]]:
    """Write claims and figure of the stored result, without training. Raises ValueError where there is none."""
    path = result_path(experiment, out)
    dataset = load(path)
    prepare_folder(path.parent)
    claims = experiment.claims(dataset)
    ledger = json.dumps([c.to_dict() for c in claims], indent=1) + "\n"
    write_whole(path.with_name("claims.json"), lambda temporary: temporary.write_text(ledger, encoding="utf-8"))
    save_figure(experiment.plot(dataset), path.parent)
    return dataset, claims


def result_path(experiment: Experiment, out: Path) -> Path:
    """Where an experiment's result is stored."""
    return out / experiment.name / "result.nc"
