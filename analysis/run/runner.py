"""Run an experiment into its folder: result first, then figure and claims, each file whole."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xarray as xr
from filelock import FileLock, Timeout

from analysis.claims.claim import Claim
from analysis.draw.figures import FORMATS, save_figure
from analysis.experiments.base import Experiment, Progress, silent
from analysis.run.blocks import forget_blocks, made_and_stored, run_blocks
from analysis.store.config import ExperimentConfig
from analysis.store.dependencies import code_digest
from analysis.store.results import (
    UNFINISHED,
    file_digest,
    load,
    load_current,
    prepare_folder,
    write_whole,
)


def execute(
    experiment: Experiment,
    config: ExperimentConfig,
    out: Path,
    fresh: bool = False,
    progress: Progress = silent,
    workers: int = 1,
    scheduler: str | None = None,
    place: str = "",
) -> tuple[xr.Dataset, list[Claim], bool]:
    """Train, store, draw and claim; what was made by this very config, source and result is left as
    it is.

    workers, scheduler: who trains the blocks of seeds, as in `analysis.run.cluster.run_jobs`. A run
    that was cut off goes on with the blocks that it lacks. Of two processes with the same
    experiment and folder the second waits for the first.

    place: the name of the folder, by default the experiment's.

    Of an experiment defined outside the packages its file counts, and all of theirs; where it has
    none, as in a notebook, a change of its code is not seen: set `fresh`. Returns the result, its
    claims, and whether it was trained now. Files: out/NAME/result.nc, figure.svg, .pdf and .png,
    and claims.json. Raises ValueError for a folder that cannot be written, before any training.
    """
    path = result_path(place or experiment.name, out)
    source = code_digest(*experiment.data_code())
    if path.is_dir():
        raise ValueError(
            f"there is a folder where the result belongs, {path}: move it away, or choose another"
            " with --out"
        )
    with _alone_in(path.parent, progress):
        dataset = None if fresh else load_current(path, config, source)
        trained = dataset is None
        if trained:
            blocks = path.with_name("blocks")
            if fresh:
                forget_blocks(blocks)
            dataset = made_and_stored(
                experiment,
                config,
                path,
                lambda: run_blocks(experiment, config, blocks, workers, scheduler, progress),
            )
            forget_blocks(blocks)
        elif _made_from(path) == _stamp(path, experiment) and all(
            path.with_name(f"figure.{suffix}").is_file() for suffix in FORMATS
        ):
            return dataset, load_claims(place or experiment.name, out), False
        try:
            return *_present(experiment, path), trained
        except ValueError as error:
            if not trained:
                raise
            raise ValueError(
                f"the result is trained and kept in {path}, but {' '.join(str(error).split())}"
            ) from error


@contextmanager
def _alone_in(folder: Path, progress: Progress) -> Iterator[None]:
    """Make the folder and hold its lock, which the system takes back from a process that ends,
    however it ends.

    What killed processes left unfinished in the folder is deleted: nobody works on it any more.
    Raises ValueError for a folder that cannot be written.
    """
    prepare_folder(folder)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        advance = progress(f"waiting for another process that works in {folder}", 1)
        lock.acquire()
        advance(1)
    try:
        for left in folder.rglob(f"{UNFINISHED}*"):
            left.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def is_unchanged(
    experiment: Experiment, config: ExperimentConfig, out: Path, place: str = ""
) -> bool:
    """Whether `execute` would find the result, made by this very config and source, and not train."""
    source = code_digest(*experiment.data_code())
    return load_current(result_path(place or experiment.name, out), config, source) is not None


def present(
    experiment: Experiment, out: Path, progress: Progress = silent, place: str = ""
) -> tuple[xr.Dataset, list[Claim]]:
    """Draw the figure and write the claims of the stored result, without training. Raises
    ValueError where there is none.
    """
    path = result_path(place or experiment.name, out)
    if not path.parent.is_dir():
        load(path)  # says so
    with _alone_in(path.parent, progress):
        return _present(experiment, path)


def _present(experiment: Experiment, path: Path) -> tuple[xr.Dataset, list[Claim]]:
    dataset = load(path)
    try:
        claims = experiment.claims(dataset)
        save_figure(experiment.plot(dataset), path.parent)
    except OSError:  # of the disk
        raise
    except (
        Exception
    ) as error:  # a file that was sealed anew may hold anything, and each part fails in its own way
        raise ValueError(
            f"the stored result {path} cannot be drawn ({type(error).__name__}:"
            f" {' '.join(str(error).split())[:200]}): it was made by another version of this code,"
            f" or changed since, run `ssa-theory run {experiment.name} --fresh`"
        ) from error
    # Written last: where claims.json says what it was made from, the figure is of the same.
    records = [claim.to_dict() for claim in claims]
    stored = {
        "made_from": _stamp(path, experiment),
        "fingerprint": _fingerprint(records),
        "claims": records,
    }
    text = json.dumps(stored, indent=1) + "\n"
    write_whole(_claims_path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return dataset, claims


def load_claims(name: str, out: Path) -> list[Claim]:
    """The stored claims of an experiment; none where it was not run. Raises ValueError for a
    damaged file.
    """
    path = _claims_path(result_path(name, out))
    return [Claim.from_dict(record) for record in _read(path)["claims"]] if path.is_file() else []


def result_path(name: str, out: Path) -> Path:
    """Where an experiment's result is stored."""
    return out / name / "result.nc"


def _claims_path(path: Path) -> Path:
    return path.with_name("claims.json")


def _stamp(path: Path, experiment: Experiment) -> dict[str, str]:
    """What figure and claims depend on."""
    return {"source": code_digest(*experiment.presentation_code()), "result": file_digest(path)}


def _made_from(path: Path) -> dict[str, str] | None:
    try:
        return _read(_claims_path(path))["made_from"]
    except (OSError, ValueError):
        return None


def _fingerprint(records: list[Any]) -> str:
    """Of stored claims, the same before writing and after reading."""
    return hashlib.sha256(json.dumps(records).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not {"made_from", "claims"} <= set(record):
            raise ValueError("it lacks its parts")
        if record.get("fingerprint") != _fingerprint(record["claims"]):
            raise ValueError("its content is not what was stored")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"the stored claims {path} are damaged ({error}): redraw them with `ssa-theory plot`"
        ) from error
    return record
