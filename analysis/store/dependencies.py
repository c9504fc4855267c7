"""What a function or class of this project depends on, definition by definition, read from the
source: by it a stored result knows whether the code that made it has changed.

A node is a top-level definition of a module: a function, a class, or the names of an assignment. It
leads to the definitions of all names that it uses from outside itself, through the imports of its
module and its own, however a package hands them on. All other statements of a module that is
reached, such as bare calls and conditions, count too. What is found out while a program runs, as
`getattr` with a computed name, is not seen.
"""

import hashlib
import inspect
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from types import CodeType
from typing import NamedTuple

from analysis.store.source import Import, Module, Reference, Statement, parsed

PACKAGES = ("ssa_theory", "tasks", "analysis")


class Definition(NamedTuple):
    """A top-level name of a module; the name is empty for the statements that define none, and `*`
    for the whole module.
    """

    module: str
    name: str


class Project:
    """The source of the packages below a folder, read as it is needed."""

    def __init__(self, root: Path, packages: Sequence[str] = PACKAGES) -> None:
        self.root, self.packages = root, tuple(packages)
        self._modules: dict[str, Module | None] = {}
        self._targets: dict[Reference, frozenset[Definition]] = {}

    def module(self, name: str) -> Module | None:
        """The parsed module; None for one that is not of this project."""
        if name not in self._modules:
            base = self.root.joinpath(*name.split("."))
            ours = name.split(".")[0] in self.packages
            files = [
                p for p in (base.with_suffix(".py"), base / "__init__.py") if ours and p.is_file()
            ]
            self._modules[name] = (
                parsed(name, files[0].name == "__init__.py", files[0].read_text(encoding="utf-8"))
                if files
                else None
            )
        return self._modules[name]

    def knows(self, definition: Definition) -> bool:
        """Whether the project's source has this definition."""
        module = self.module(definition.module)
        return module is not None and definition.name in module.definitions

    def targets(self, reference: Reference) -> frozenset[Definition]:
        """What a reference is, and the modules that hand it on; a whole module where nothing says
        what of it is used.
        """
        if reference not in self._targets:
            self._targets[reference] = frozenset(self._follow(*reference))
        return self._targets[reference]

    def _follow(self, bound: Import, path: Sequence[str]) -> set[Definition]:
        module, name, rest = bound.module, bound.name, list(path)
        passed: set[Definition] = set()
        while (source := self.module(module)) is not None:
            if name is None and not rest:
                return passed | {Definition(module, "*")}
            if name is None:
                name = rest.pop(0)
            if name in source.definitions:
                return passed | {Definition(module, name)}
            if Definition(module, name) in passed:  # modules that import it from each other
                return passed
            passed.add(Definition(module, name))  # if its other statements bind it, they count
            if name in source.imports:
                module, name = source.imports[name]
            elif self.module(f"{module}.{name}") is not None:
                module, name = f"{module}.{name}", None
            else:
                star = next((s for s in source.stars if self._has(s, name)), None)
                if star is None:  # a built-in, or bound by a statement that counts anyway
                    return passed
                module = star
        return passed

    def _has(self, module: str, name: str) -> bool:
        source = self.module(module)
        return source is not None and (name in source.definitions or name in source.imports)

    def closure(self, starts: Iterable[Definition]) -> frozenset[Definition]:
        """All that the definitions lead to, themselves included. Raises ValueError for one that the
        source does not have.
        """
        ahead, reached = list(starts), set()
        for start in ahead:
            if not self.knows(start):
                raise ValueError(
                    f"there is no top-level definition {start.name!r} in module {start.module!r}:"
                    " name one that the source has"
                )
        while ahead:
            definition = ahead.pop()
            if definition in reached:
                continue
            reached.add(definition)
            for statement in self._statements(definition):
                for reference in statement.references:
                    ahead += self.targets(reference)
            # A module runs as a whole when it is imported, and its packages with it.
            parts = accumulate(
                definition.module.split("."), lambda package, part: f"{package}.{part}"
            )
            ahead += [Definition(name, "") for name in parts]
        return frozenset(d for d in reached if self._statements(d))

    def _statements(self, definition: Definition) -> list[Statement]:
        module = self.module(definition.module)
        if module is None:
            return []
        if definition.name == "*":
            return [
                s for statements in module.definitions.values() for s in statements
            ] + module.others
        return (
            module.others if definition.name == "" else module.definitions.get(definition.name, [])
        )

    def sources(self, closure: Iterable[Definition]) -> dict[str, list[str]]:
        """By module, the sorted texts of the definitions, each once."""
        texts = defaultdict(set)
        for definition in closure:
            texts[definition.module] |= {
                statement.source for statement in self._statements(definition)
            }
        return {module: sorted(texts[module]) for module in sorted(texts)}

    def digest(
        self, starts: Iterable[Definition], files: Iterable[Path] = (), whole: bool = False
    ) -> str:
        """A fingerprint of all that the definitions lead to and of further files; `whole`: of all
        of the project's source.
        """
        digest = hashlib.sha256()
        if whole:
            paths = [
                path for package in self.packages for path in (self.root / package).rglob("*.py")
            ]
            for path in sorted(paths):
                digest.update(
                    repr((path.relative_to(self.root).as_posix(), path.read_bytes())).encode()
                )
        digest.update(repr(list(self.sources(self.closure(starts)).items())).encode())
        for path in sorted(set(files)):
            digest.update(repr(path.read_bytes()).encode())
        return digest.hexdigest()[:16]


@cache
def _project() -> Project:
    """This project as it is on disk when its source is first asked for."""
    return Project(Path(__file__).parents[2])


@cache
def code_digest(*objects: object, files: tuple[Path, ...] | None = None) -> str:
    """A fingerprint of functions, classes and `Definition`s with all that they lead to; computed
    once a process.

    Of what is defined outside the project, as in a notebook, nobody knows what it leads to: then
    the whole project counts, and the source of the file that defines it, where there is one. files:
    these, for objects that came from another process by value.
    """
    project, places = _project(), [_place(thing) for thing in objects]
    starts = [place for place in places if project.knows(place)]
    own = outside_files(*objects) if files is None else files
    return project.digest(starts, own, whole=len(starts) < len(places))


def outside_files(*objects: object) -> tuple[Path, ...]:
    """The files that define those of the objects that are not this project's."""
    outside = [thing for thing in objects if not _project().knows(_place(thing))]
    return tuple(path for thing in outside for path in _file(thing))


def definitions(*objects: object) -> frozenset[Definition]:
    """All that functions, classes and `Definition`s of this project lead to. Raises ValueError for
    others.
    """
    return _project().closure(_place(thing) for thing in objects)


def sources(closure: Iterable[Definition]) -> dict[str, list[str]]:
    """By module, the texts of this project's definitions."""
    return _project().sources(closure)


def _place(thing: object) -> Definition:
    """The top-level definition that holds a function or class."""
    if isinstance(thing, Definition):
        return thing
    name = getattr(thing, "__qualname__", type(thing).__qualname__)
    return Definition(getattr(thing, "__module__", None) or "", name.split(".")[0])


def _file(thing: object) -> list[Path]:
    """The file that defines a function or class, if there is one.

    A function says so itself, but for one that travelled here by value; a class by its functions,
    or by its module, if that is not `__main__`, which is another one on a worker.
    """
    members = [inspect.unwrap(thing)] if callable(thing) else []
    members += (
        [getattr(member, "fget", member) for member in vars(thing).values()]
        if isinstance(thing, type)
        else []
    )
    codes = [c for m in members if isinstance(c := getattr(m, "__code__", None), CodeType)]
    path = codes[0].co_filename if codes else None
    if path is None and _place(thing).module != "__main__":
        path = getattr(sys.modules.get(_place(thing).module), "__file__", None)
    return [Path(path)] if path and Path(path).is_file() else []
