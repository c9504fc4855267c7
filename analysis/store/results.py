"""Stored results, which carry config, versions and device inside."""

import hashlib
import io
import json
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from analysis.claims.registry import registry
from analysis.store.config import ExperimentConfig
from analysis.store.files import file_digest, write_whole

FORMAT = 2
_PACKAGES = ("ssa-theory", "torch", "numpy", "scipy", "networkx", "xarray")


@cache
def revision() -> tuple[str, str]:
    """The git revision of this source, and whether files that git tracks or would track differ from
    it: yes or no.

    Both are `unknown` outside a git checkout. The fingerprint of the source says what was run in
    any case.
    """
    git = ["git", "-C", str(Path(__file__).parents[2])]
    try:
        head, status = (
            subprocess.run(
                [*git, *command], capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown", "unknown"
    return head, "yes" if status else "no"


@cache
def versions() -> str:
    """The versions of Python and of the packages that numbers depend on, as JSON."""
    return json.dumps(
        {"python": platform.python_version()} | {p: metadata.version(p) for p in _PACKAGES}
    )


def provenance(
    name: str, config: ExperimentConfig, device: torch.device, source: str
) -> dict[str, str | float]:
    """How a result is made, in attributes for it; to be taken before it is made, as the user's
    files may change.

    source: the fingerprint of the code that makes it, as of `code_digest`.
    """
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    return {
        "experiment": name,
        "format": FORMAT,
        **_origin(config, source),
        "registry": json.dumps(registry().hashes()),
        "revision": revision()[0],
        "uncommitted_changes": revision()[1],
        "device": f"{device.type} ({hardware})",
        "threads": torch.get_num_threads(),
    }


def _origin(config: ExperimentConfig, source: str) -> dict[str, str]:
    """What must be the same for a stored result to be used again. NetCDF knows neither None nor
    dicts, so most are JSON.

    inputs: a fingerprint of the content of each file that the config names, which may change behind
    its name.
    """
    return {
        "config": config.model_dump_json(),
        "inputs": json.dumps({name: _content(path) for name, path in config.files().items()}),
        "versions": versions(),
        "source": source,
    }


def _content(path: Path) -> str:
    """The file's fingerprint; none of one that cannot be read, which is refused where it is read."""
    try:
        return file_digest(path) if path.is_file() else ""
    except OSError:
        return ""


def save(dataset: xr.Dataset, path: Path) -> None:
    """Write a dataset as netCDF 4, whole, sealed with a checksum at its end, which readers of
    netCDF pass over.
    """
    import dask.config  # slow to import, which a command that stores nothing need not wait for

    # Made in memory: the HDF5 library may crash where it writes to a full disk. On a worker xarray
    # would ask the whole cluster for a lock on what it takes for a file.
    with dask.config.set(scheduler="synchronous"):
        content = memoryview(dataset.to_netcdf(engine="h5netcdf"))

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(content)
            file.write(_seal(content))

    write_whole(path, write)


def _seal(content: bytes | memoryview) -> bytes:
    return b"ssa-theory sha256 " + hashlib.sha256(content).digest()


def load(path: Path) -> xr.Dataset:
    """Read a stored result into memory. Raises ValueError for a missing, damaged or foreign file."""
    if not path.is_file():
        raise ValueError(
            f"there is no stored result at {path}: run the experiment first, or choose its folder"
            " with --out"
        )
    try:
        # Before the HDF5 library sees it, for which a damaged file may be anything, such as one
        # that never ends.
        content = memoryview(path.read_bytes())
        size = len(content) - len(_seal(b""))
        if size < 0 or content[size:] != _seal(content[:size]):
            raise ValueError("it is not what was stored, or an older version stored it")
        dataset = _decoded(content[:size], bytes(content[size:])).copy()
    except Exception as error:  # h5py and xarray raise many kinds for a damaged file
        raise ValueError(
            f"the stored result {path} is damaged or truncated"
            f" ({' '.join(str(error).split())[:80]}): run the experiment again with --fresh"
        ) from error
    version = dataset.attrs.get("format")
    if version != FORMAT:
        known = isinstance(version, int | np.integer)
        age = ("an older" if version < FORMAT else "a newer") if known else "no"
        raise ValueError(
            f"the file {path} is of {age} result format ({version}, this version reads {FORMAT}): "
            "run the experiment again with --fresh, or use the version that wrote it"
        )
    return dataset


_DECODED: dict[bytes, xr.Dataset] = {}
"""The last two by their seal: one command asks several times for what it has just stored or found."""


def _decoded(content: memoryview, seal: bytes) -> xr.Dataset:
    if seal not in _DECODED:
        while len(_DECODED) > 1:
            del _DECODED[next(iter(_DECODED))]
        with xr.open_dataset(io.BytesIO(content), engine="h5netcdf") as dataset:
            _DECODED[seal] = dataset.load()
    return _DECODED[seal]


def load_current(path: Path, config: ExperimentConfig, source: str) -> xr.Dataset | None:
    """The stored result if what made it is as it is now, so that it can be used; else None.

    That is the config, the files it names, the fingerprint of the source, and the versions of
    Python and of the packages.
    """
    if not path.is_file():
        return None
    try:
        dataset = load(path)
    except ValueError:
        return None
    same = all(
        str(dataset.attrs.get(key)) == value for key, value in _origin(config, source).items()
    )
    return dataset if same else None
