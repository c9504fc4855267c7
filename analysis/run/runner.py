"""Run an experiment into its folder: result first, then figure and claims, each file whole."""

import glob
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xarray as xr
from filelock import FileLock, Timeout

from analysis.claims.claim import Claim
from analysis.claims.ledger import Evidence
from analysis.claims.registry import registry
from analysis.draw.figures import FILES, save_figure
from analysis.experiments.base import Experiment, Progress, silent
from analysis.run.blocks import forget_blocks, made_and_stored, run_blocks
from analysis.store.claims import load_evidence, made_from, result_path, save_claims
from analysis.store.config import ExperimentConfig
from analysis.store.dependencies import code_digest
from analysis.store.files import UNFINISHED, file_digest, prepare_folder
from analysis.store.results import load, load_current


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
    claims, and whether it was trained now. Files: out/NAME/result.nc, figure.svg, .pdf and .png
    with its numbers in figure.csv, and claims.json. Raises ValueError for a folder that cannot be
    written, before any training.
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
            others = [] if fresh else _units_elsewhere(experiment, blocks, out)
            if fresh:
                forget_blocks(blocks)
            dataset = made_and_stored(
                experiment,
                config,
                path,
                lambda: run_blocks(
                    experiment, config, blocks, workers, scheduler, progress, others
                ),
            )
            if experiment.units is None:
                forget_blocks(blocks)
        elif made_from(path) == _stamp(path, experiment) and all(
            path.with_name(name).is_file() for name in FILES
        ):
            claims = load_evidence(place or experiment.name, out).claims
            return dataset, list(claims), False
        try:
            return *_present(experiment, path), trained
        except ValueError as error:
            if not trained:
                raise
            raise ValueError(
                f"the result is trained and kept in {path}, but {' '.join(str(error).split())}"
            ) from error


def _units_elsewhere(experiment: Experiment, blocks: Path, out: Path) -> list[Path]:
    """Folders of units that other runs of the experiment left below `out`."""
    if experiment.units is None:
        return []
    folders = (out / experiment.name, *sorted(out.glob(f"{glob.escape(experiment.name)}@*")))
    return [own for folder in folders if (own := folder / "blocks").is_dir() and own != blocks]


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
        hashes = dict(json.loads(dataset.attrs["registry"]))
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
    # Written last: where they say what they were made from, the figure is of the same.
    declared = experiment.is_declared(experiment.config_of(dataset))
    save_claims(Evidence(tuple(claims), hashes, declared), path, _stamp(path, experiment))
    return dataset, claims


def _stamp(path: Path, experiment: Experiment) -> dict[str, str]:
    """What figure and claims depend on."""
    topics = hashlib.sha256(registry().model_dump_json().encode()).hexdigest()[:12]
    return {
        "source": code_digest(*experiment.presentation_code()),
        "result": file_digest(path),
        "registry": topics,
    }
