"""Mechanisms by what a user writes: a name, names joined by `+`, or a variable in a Python file."""

import difflib
import runpy
from functools import cache
from pathlib import Path
from typing import TypeVar

from ssa_theory.mechanism.mechanism import Mechanism
from ssa_theory.mechanism.registry import MECHANISMS


def mechanism(name: str | Mechanism) -> Mechanism:
    """The mechanism of a name, such as `ssa`, `sparsemax+ssa-query`, or `./mine.py:MINE` for one of
    the user's own; a mechanism is itself.

    Raises ValueError for an unknown name, with the nearest ones, for a file that cannot be run or
    holds no such mechanism, for mechanisms that cannot be joined, and for what is no mechanism.

    >>> mechanism("ssmax+sink").name
    'ssmax+sink'
    """
    if isinstance(name, Mechanism):
        return name
    if not isinstance(name, str):
        raise ValueError(
            f"a mechanism is named or composed, got {name!r:.60}: write Mechanism('mine', "
            "query=...), or give the name of one"
        )
    file = file_of(name)
    if file is not None:
        return _from_file(name, file, file.stat().st_mtime_ns if file.is_file() else 0)
    parts = name.split("+")
    for part in parts:
        if part not in MECHANISMS:
            near = difflib.get_close_matches(part, MECHANISMS, 3, 0.5) or list(MECHANISMS)[:4]
            raise ValueError(
                f"unknown mechanism {part!r}: did you mean {', '.join(near)}? `ssa-theory mechanisms` "
                "lists all, and PATH.py:NAME takes one from a file"
            )
    joined = MECHANISMS[parts[0]]
    for part in parts[1:]:
        joined = joined.with_parts_of(MECHANISMS[part])
    return joined


def known(name: str) -> Mechanism:
    """The mechanism that calls itself so: of the registry, joined of it, or read from a file
    before.

    Raises ValueError where there is none.

    >>> known("vanilla").name
    'vanilla'
    """
    return _FROM_FILES[name] if name in _FROM_FILES else mechanism(name)


Wanted = TypeVar("Wanted")
_FROM_FILES: dict[str, Mechanism] = {}


def file_of(name: str) -> Path | None:
    """The Python file that a mechanism comes from, of `PATH.py:NAME`; None for a name.

    >>> file_of("./mine.py:MINE"), file_of("ssa")
    (PosixPath('mine.py'), None)
    """
    path, colon, _ = name.rpartition(":")
    return Path(path) if colon and path.endswith(".py") else None


@cache
def _from_file(name: str, path: Path, changed: int) -> Mechanism:
    """changed: when the file was; a later version is read anew."""
    chosen = variable_of_file(name, path, Mechanism)
    if chosen.name in MECHANISMS:
        raise ValueError(
            f"the mechanism {name.rpartition(':')[2]} of {path} has a name of the registry, "
            f"{chosen.name!r}: rename it"
        )
    _FROM_FILES[chosen.name] = chosen
    return chosen


def variable_of_file(name: str, path: Path, wanted: type[Wanted]) -> Wanted:
    """The variable of a Python file that `PATH.py:NAME` names, of a class.

    Raises ValueError for a file that is missing or cannot be run, and where it holds no such one.
    """
    variable, title = name.rpartition(":")[2], wanted.__name__
    if not path.is_file():
        raise ValueError(
            f"there is no file {path} for {title.lower()} {name!r}: give PATH.py:NAME of a "
            "file that exists"
        )
    try:
        module = runpy.run_path(str(path), run_name=f"{title.lower()}_{path.stem}")
    except (Exception, SystemExit) as error:  # the user's code may fail in any way
        raise ValueError(
            f"the {title.lower()} file {path} fails with {type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}: mend the file"
        ) from error
    chosen = module.get(variable)
    if not isinstance(chosen, wanted):
        others = [k for k, v in module.items() if isinstance(v, wanted)]
        has = f"it holds {', '.join(others)}" if others else f"it holds no {title}"
        raise ValueError(
            f"the file {path} has no {title} named {variable!r} ({has}): name one, or "
            f"write {variable} = {title}(...)"
        )
    return chosen
