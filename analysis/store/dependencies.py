"""What a function or class of this project depends on, definition by definition, read from the
source: by it a stored result knows whether the code that made it has changed.

A node is a top-level definition of a module: a function, a class, or the names of an assignment. It
leads to the definitions of all names that it uses from outside itself, through the imports of its
module and its own, however a package hands them on. All other statements of a module that is
reached, such as bare calls and conditions, count too. What is found out while a program runs, as
`getattr` with a computed name, is not seen.
"""

import ast
import hashlib
import inspect
import symtable
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property
from importlib.util import resolve_name
from itertools import accumulate
from pathlib import Path
from types import CodeType
from typing import NamedTuple

PACKAGES = ("ssa_theory", "tasks", "analysis")


class Definition(NamedTuple):
    """A top-level name of a module; the name is empty for the statements that define none, and `*`
    for the whole module.
    """

    module: str
    name: str


class _Import(NamedTuple):
    """What an import binds to a name: a module, or a name of it, which may be a module too."""

    module: str
    name: str | None = None


class _Statement:
    """A top-level statement and what it uses."""

    def __init__(self, node: ast.stmt, lines: Sequence[str], module: "_Module") -> None:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        self.source = "\n".join(lines[first - 1 : node.end_lineno])
        self._node, self._module = node, module

    @cached_property
    def uses(self) -> frozenset[Definition]:
        """What of the project the statement uses, each where it is defined."""
        own = dict(_imports(ast.walk(self._node), self._module))
        names = set(own) | _globals(symtable.symtable(self.source, "statement", "exec"))
        chains = defaultdict(set)  # of attributes, by the name that they begin with
        inner: set[int] = set()
        for node in ast.walk(self._node):
            path, base = [], node
            while isinstance(base, ast.Attribute):
                path.insert(0, base.attr)
                base = base.value
            if (
                isinstance(base, ast.Name)
                and isinstance(base.ctx, ast.Load)
                and id(base) not in inner
            ):
                inner.add(id(base))  # `walk` meets the longest chain first
                chains[base.id].add(tuple(path))
        found = set()
        for name in names:
            bound = (
                own.get(name) or self._module.imports.get(name) or _Import(self._module.name, name)
            )
            for path in chains[name] or {()}:
                found |= self._module.project.follow(bound, path)
        return frozenset(found)


class _Module:
    """A parsed module: its definitions, what its imports bind, and its other statements."""

    def __init__(self, project: "Project", name: str, path: Path) -> None:
        self.project, self.name, self.is_package = project, name, path.name == "__init__.py"
        text = path.read_text(encoding="utf-8")
        lines = text.split("\n")
        self.definitions: dict[str, list[_Statement]] = defaultdict(list)
        self.others: list[_Statement] = []
        self.imports: dict[str, _Import] = {}
        self.stars: list[str] = []
        for node in ast.parse(text).body:
            for alias, bound in _imports([node], self):
                if alias == "*":
                    self.stars.append(bound.module)
                else:
                    self.imports[alias] = bound
            if isinstance(node, ast.Import | ast.ImportFrom) or _is_text(node):
                continue
            statement, names = _Statement(node, lines, self), _defined(node)
            for defined in names:
                self.definitions[defined].append(statement)
            if not names:
                self.others.append(statement)


class Project:
    """The source of the packages below a folder, read as it is needed."""

    def __init__(self, root: Path, packages: Sequence[str] = PACKAGES) -> None:
        self.root, self.packages = root, tuple(packages)
        self._modules: dict[str, _Module | None] = {}

    def module(self, name: str) -> _Module | None:
        """The parsed module; None for one that is not of this project."""
        if name not in self._modules:
            base = self.root.joinpath(*name.split("."))
            ours = name.split(".")[0] in self.packages
            files = [
                p for p in (base.with_suffix(".py"), base / "__init__.py") if ours and p.is_file()
            ]
            self._modules[name] = _Module(self, name, files[0]) if files else None
        return self._modules[name]

    def knows(self, definition: Definition) -> bool:
        """Whether the project's source has this definition."""
        module = self.module(definition.module)
        return module is not None and definition.name in module.definitions

    def follow(self, bound: _Import, path: Sequence[str]) -> set[Definition]:
        """What `bound.path` is, and the modules that hand it on; a whole module where nothing says
        what of it is used.
        """
        module, name, rest = bound.module, bound.name, list(path)
        passed: set[Definition] = set()
        while (here := self.module(module)) is not None:
            if name is None and not rest:
                return passed | {Definition(module, "*")}
            if name is None:
                name = rest.pop(0)
            if name in here.definitions:
                return passed | {Definition(module, name)}
            if Definition(module, name) in passed:  # modules that import it from each other
                return passed
            passed.add(Definition(module, name))  # if its other statements bind it, they count
            if name in here.imports:
                module, name = here.imports[name]
            elif self.module(f"{module}.{name}") is not None:
                module, name = f"{module}.{name}", None
            else:
                star = next((s for s in here.stars if self._has(s, name)), None)
                if star is None:  # a built-in, or bound by a statement that counts anyway
                    return passed
                module = star
        return passed

    def _has(self, module: str, name: str) -> bool:
        there = self.module(module)
        return there is not None and (name in there.definitions or name in there.imports)

    def closure(self, starts: Iterable[Definition]) -> frozenset[Definition]:
        """All that the definitions lead to, themselves included. Raises ValueError for one that the
        source does not have.
        """
        ahead, found = list(starts), set()
        for start in ahead:
            if not self.knows(start):
                raise ValueError(
                    f"there is no top-level definition {start.name!r} in module {start.module!r}:"
                    " name one that the source has"
                )
        while ahead:
            definition = ahead.pop()
            if definition in found:
                continue
            found.add(definition)
            for statement in self._statements(definition):
                ahead += statement.uses
            # A module runs as a whole when it is imported, and its packages with it.
            parts = accumulate(
                definition.module.split("."), lambda package, part: f"{package}.{part}"
            )
            ahead += [Definition(name, "") for name in parts]
        return frozenset(d for d in found if self._statements(d))

    def _statements(self, definition: Definition) -> list[_Statement]:
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


def _is_text(node: ast.stmt) -> bool:
    """Whether a statement is a bare text or number, such as a docstring, which does nothing."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _defined(node: ast.stmt) -> set[str]:
    """The names that a top-level statement defines; none for one that does more than that."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign | ast.AugAssign):
        targets = [node.target]
    else:
        return set()
    parts = [part for target in targets for part in _parts(target)]
    names = [part.id for part in parts if isinstance(part, ast.Name)]
    return set(names) if len(names) == len(parts) else set()


def _parts(target: ast.expr) -> Iterator[ast.expr]:
    """The targets of a possibly nested tuple."""
    if isinstance(target, ast.Tuple | ast.List):
        for element in target.elts:
            yield from _parts(element)
    elif isinstance(target, ast.Starred):
        yield from _parts(target.value)
    else:
        yield target


def _imports(nodes: Iterable[ast.AST], module: _Module) -> Iterator[tuple[str, _Import]]:
    """The names that import statements bind, and to what; the name `*` for all of a module."""
    package = module.name if module.is_package else module.name.rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                # Without `as`, the name is the outermost package, through which attributes lead.
                yield (
                    alias.asname or alias.name.split(".")[0],
                    _Import(alias.name if alias.asname else alias.name.split(".")[0]),
                )
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                yield (
                    alias.asname or alias.name,
                    _Import(source, None if alias.name == "*" else alias.name),
                )


def _globals(table: symtable.SymbolTable) -> set[str]:
    """The names that a statement takes from its module, or from the built-ins; not the local ones
    of its functions.
    """
    outermost = table.get_type() == "module"
    own = {
        s.get_name()
        for s in table.get_symbols()
        if s.is_referenced() and (outermost or s.is_global())
    }
    if table.get_type() == "class":  # whose names are looked up in the module before they are bound
        own |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and s.is_assigned()}
    return own.union(*(_globals(child) for child in table.get_children()))


@cache
def _project() -> Project:
    """This project as it is on disk when its source is first asked for."""
    return Project(Path(__file__).parents[2])


@cache
def code_digest(*objects: object) -> str:
    """A fingerprint of functions, classes and `Definition`s with all that they lead to; computed
    once a process.

    Of what is defined outside the project, as in a notebook, nobody knows what it leads to: then
    the whole project counts, and the source of the file that defines it, where there is one.
    """
    project, starts, files, whole = _project(), [], [], False
    for thing in objects:
        place = _place(thing)
        if project.knows(place):
            starts.append(place)
        else:
            whole = True
            files += _file(thing)
    return project.digest(starts, files, whole)


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

    A function says so itself, on a worker too, to which it may have travelled by value; a class by
    its functions, or by its module, if that is not `__main__`, which is another one there.
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
