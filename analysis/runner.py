"""Run an experiment into its folder: result first, then claims and figure, each file whole."""

import json
import time
from pathlib import Path

import xarray as xr

from analysis.config import ExperimentConfig
from analysis.experiments.base import Experiment, Progress, silent
from analysis.figures import save_figure
from analysis.results import is_current, load, prepare_folder, provenance, save, write_whole
from ssa_theory import resolve_device


def execute(
    experiment: Experiment,
    config: ExperimentConfig,
    out: Path,
    fresh: bool = False,
    progress: Progress = silent,
) -> tuple[xr.Dataset, bool]:
    """Train (unless the stored result was made by this very config and source), store, claim and draw.

    Returns the result and whether it was trained now. Files: out/NAME/result.nc, claims.json, figure.svg, .pdf and .png.
    Raises ValueError for a folder that cannot be written, before any training.
    """
    folder = out / experiment.name
    prepare_folder(folder)
    path = folder / "result.nc"
    trained = fresh or not is_current(path, config)
    if trained:
        start = time.perf_counter()
        dataset = experiment.run(config, progress)
        seconds = time.perf_counter() - start
        dataset.attrs |= provenance(experiment.name, config, resolve_device(config.device), seconds)
        save(dataset, path)
    present(experiment, out)
    return load(path), trained


def present(experiment: Experiment, out: Path) -> None:
    """Write claims and figure of the stored result, without training. Raises ValueError where there is none."""
    folder = out / experiment.name
    dataset = load(folder / "result.nc")
    prepare_folder(folder)
    ledger = json.dumps([c.to_dict() for c in experiment.claims(dataset)], indent=1) + "\n"
    write_whole(folder / "claims.json", lambda path: path.write_text(ledger, encoding="utf-8"))
    save_figure(experiment.plot(dataset), folder)
