"""Blocks of seeds: the units of work of a run, each stored as soon as it is done and never done
again.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from analysis.experiments.base import Experiment, Progress, silent
from analysis.run.cluster import run_jobs
from analysis.store.config import ExperimentConfig, seeded_config
from analysis.store.dependencies import code_digest, outside_files
from analysis.store.files import prepare_folder
from analysis.store.results import load_current, provenance, save
from ssa_theory import resolve_device

_OTHER = (
    "blocks were trained with another version of this code or of its packages, or from other files,"
    " than are here: give all workers the same, leave files as they are during a run, and run the"
    " same command again"
)


def run_blocks(
    experiment: Experiment,
    config: ExperimentConfig,
    folder: Path,
    workers: int,
    scheduler: str | None,
    progress: Progress,
    others: Sequence[Path] = (),
) -> xr.Dataset:
    """The result of all blocks, of which those that `folder` holds, made as they would be now, are
    not trained again; nor are those that `others` hold, which are left as they are.

    workers, scheduler: who trains the others, as in `run_jobs`. A run of one block stores no file
    for it: it is the result. Raises ValueError where workers have other code, packages or files
    than this process.
    """
    parts, outside = experiment.blocks(config), outside_files(*experiment.data_code())
    if len(parts) == 1:
        here = _provenance(experiment, config)
        jobs = [(experiment, parts[0], outside)]
        (whole,) = run_jobs(_train, jobs, 1, scheduler, progress)
        dataset, trained = whole
        if any(trained[key] != here[key] for key in ("source", "versions", "inputs")):
            raise ValueError(_OTHER)
        return experiment.join(config, [dataset], progress).assign_attrs(trained)
    prepare_folder(folder)
    source = code_digest(*experiment.data_code())
    paths = [folder / _file_of(experiment, part) for part in parts]
    finished = [
        next(
            (d for f in (folder, *others) if (d := load_current(f / path.name, part, source))), None
        )
        for part, path in zip(parts, paths, strict=True)
    ]
    to_do = [
        (experiment, part, path, outside)
        for part, path, done in zip(parts, paths, finished, strict=True)
        if done is None
    ]
    longest = len(seeded_config(parts[0]).seed_range)
    what = "blocks of up to" if experiment.units is None else "units of"
    advance = progress(f"{len(parts)} {what} {longest} seeds", len(parts))
    advance(len(parts) - len(to_do))
    for _ in run_jobs(_run_block, to_do, workers, scheduler, progress):
        advance(1)
    loaded = [
        load_current(path, part, source) if done is None else done
        for part, path, done in zip(parts, paths, finished, strict=True)
    ]
    datasets = [dataset for dataset in loaded if dataset is not None]
    if len(datasets) < len(loaded):
        raise ValueError(_OTHER)
    return experiment.join(config, datasets, progress).assign_attrs(_trained_by(datasets))


def _train(
    experiment: Experiment, config: ExperimentConfig, outside: tuple[Path, ...], progress: Progress
) -> tuple[xr.Dataset, dict[str, Any]]:
    """The only block, and how it was made, as whoever trains it sees it."""
    about = _provenance(experiment, config, outside)
    return experiment.train(config, progress), about


def _provenance(
    experiment: Experiment, config: ExperimentConfig, outside: tuple[Path, ...] | None = None
) -> dict[str, Any]:
    """outside: of `outside_files`, for an experiment that came from another process."""
    # What trains nothing has no device to choose.
    device = resolve_device(getattr(config, "device", "cpu"))
    source = code_digest(*experiment.data_code(), files=outside)
    return provenance(experiment.name, config, device, source)


def _file_of(experiment: Experiment, part: ExperimentConfig) -> str:
    """The name of a block's file: its seeds, or, of a unit, a fingerprint of its settings."""
    if experiment.units is not None:
        return f"{hashlib.sha256(part.model_dump_json().encode()).hexdigest()[:16]}.nc"
    seeds = seeded_config(part).seed_range
    return f"seeds-{seeds[0]}-to-{seeds[-1]}.nc"


def _trained_by(blocks: Sequence[xr.Dataset]) -> dict[str, Any]:
    """Where the blocks of a result were trained: what they have in common, or all that there is,
    and the sum of their times.
    """
    keys = ("revision", "uncommitted_changes", "device", "threads")
    distinct = {key: list(dict.fromkeys(block.attrs[key] for block in blocks)) for key in keys}
    common = {
        key: values[0] if len(values) == 1 else ", ".join(map(str, values))
        for key, values in distinct.items()
    }
    return common | {
        "blocks": len(blocks),
        "block_seconds": round(sum(b.attrs["wall_seconds"] for b in blocks), 2),
    }


def _run_block(
    experiment: Experiment,
    part: ExperimentConfig,
    path: Path,
    outside: tuple[Path, ...],
    progress: Progress,
) -> None:
    """Train one block and store it as a result of its own. Units are many and small: none of them
    shows its progress.
    """
    first = seeded_config(part).seed_range[0]

    def own(about: str, total: int) -> Callable[[int], None]:
        return progress(f"{about}, from seed {first}", total)

    shown = own if experiment.units is None else silent
    made_and_stored(experiment, part, path, lambda: experiment.train(part, shown), outside)


def made_and_stored(
    experiment: Experiment,
    config: ExperimentConfig,
    path: Path,
    make: Callable[[], xr.Dataset],
    outside: tuple[Path, ...] | None = None,
) -> xr.Dataset:
    """What `make` returns, with its provenance and the seconds that it took, as it is stored at
    `path`.
    """
    about = _provenance(experiment, config, outside)
    start = time.perf_counter()
    dataset = make()
    # What the dataset says itself, of the processes that trained its blocks, is nearer the truth.
    dataset.attrs = about | {"wall_seconds": round(time.perf_counter() - start, 2)} | dataset.attrs
    save(dataset, path)
    return dataset


def forget_blocks(folder: Path) -> None:
    """Delete the files of blocks, once their result is stored or a fresh one is asked for."""
    shutil.rmtree(folder, ignore_errors=True)
