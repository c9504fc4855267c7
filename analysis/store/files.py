"""Files that appear whole or not at all."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

UNFINISHED = ".unfinished-"  # how the names of temporary files begin, which a kill may leave behind


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk, then rename it into place.

    Raises OSError where that fails, as on a full disk; then `path` is what it was.
    """
    temporary = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=UNFINISHED, suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise OSError(
            f"cannot write {path} ({error.strerror or error}): make room, or choose another folder"
            " with --out; what is finished is kept"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable: without it a power cut may take the file back. Where folders cannot be
    synced, do nothing.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def prepare_folder(folder: Path) -> None:
    """Create a result folder and make sure that it can be written, before any time is spent on
    training.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="."):  # hidden, as a kill may leave it
            pass
    except (OSError, RecursionError) as error:  # the latter for a path of a thousand folders
        raise ValueError(
            f"cannot write results to {folder} ({getattr(error, 'strerror', None) or error}):"
            " choose a writable folder with --out"
        ) from error


def file_digest(path: Path) -> str:
    """A fingerprint of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
