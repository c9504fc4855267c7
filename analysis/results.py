"""Stored results: files appear whole or not at all, and carry config, versions and device inside."""

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path

import torch
import xarray as xr

from analysis.config import ExperimentConfig

FORMAT = 1
_PACKAGES = ("ssa-theory", "torch", "numpy", "scipy", "networkx", "xarray")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk, then rename it into place."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def prepare_folder(folder: Path) -> None:
    """Create a result folder and make sure that it can be written, before any time is spent on training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"cannot write results to {folder} ({error.strerror}): choose a writable folder with --out"
        ) from error


@cache
def source_digest() -> str:
    """A fingerprint of the three packages' source, by which a stored result knows whether the code has changed."""
    root = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for package in ("ssa_theory", "tasks", "analysis"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def provenance(
    name: str, config: ExperimentConfig, device: torch.device, wall_seconds: float
) -> dict[str, str | float]:
    """The attributes of a result: netCDF knows neither None nor dicts, so config and versions are JSON strings."""
    versions = {"python": platform.python_version()} | {p: metadata.version(p) for p in _PACKAGES}
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    return {
        "experiment": name,
        "format": FORMAT,
        "config": config.model_dump_json(),
        "versions": json.dumps(versions),
        "source": source_digest(),
        "device": f"{device.type} ({hardware})",
        "threads": torch.get_num_threads(),
        "wall_seconds": round(wall_seconds, 2),
    }


def save(dataset: xr.Dataset, path: Path) -> None:
    """Write a dataset as netCDF 4, whole."""
    write_whole(path, lambda temporary: dataset.to_netcdf(temporary, engine="h5netcdf"))


def load(path: Path) -> xr.Dataset:
    """Read a stored result into memory. Raises ValueError for a missing, damaged or foreign file."""
    if not path.is_file():
        raise ValueError(
            f"there is no stored result at {path}: run the experiment first, or choose its folder with --out"
        )
    try:
        with xr.open_dataset(path, engine="h5netcdf") as dataset:
            dataset.load()
    except Exception as error:  # h5py and xarray raise many kinds for a damaged file
        raise ValueError(
            f"the stored result {path} is damaged or truncated ({' '.join(str(error).split())[:80]}): "
            "run the experiment again with --fresh"
        ) from error
    if dataset.attrs.get("format") != FORMAT:
        raise ValueError(
            f"the file {path} is not a result of format {FORMAT} (it says {dataset.attrs.get('format')}): "
            "run the experiment again with --fresh"
        )
    return dataset


def is_current(path: Path, config: ExperimentConfig) -> bool:
    """Whether the stored result was made by this config and this source, so that it can be used as it is."""
    if not path.is_file():
        return False
    try:
        attrs = load(path).attrs
    except ValueError:
        return False
    return attrs["config"] == config.model_dump_json() and attrs["source"] == source_digest()
