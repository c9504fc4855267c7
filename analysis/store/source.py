"""Python source, parsed: the top-level statements of a module, what they define, and the names that
they take from outside themselves.
"""

import ast
import symtable
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property
from importlib.util import resolve_name
from typing import NamedTuple


class Import(NamedTuple):
    """What an import binds to a name: a module, or a name of it, which may be a module too."""

    module: str
    name: str | None = None


class Reference(NamedTuple):
    """What a statement uses: the attributes `path` of what a name is bound to."""

    bound: Import
    path: tuple[str, ...]


class Statement:
    """A top-level statement and what it uses."""

    def __init__(self, node: ast.stmt, lines: Sequence[str], module: "Module") -> None:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        self.source = "\n".join(lines[first - 1 : node.end_lineno])
        self.node, self._module = node, module

    @cached_property
    def references(self) -> frozenset[Reference]:
        """What the statement takes from outside itself."""
        nodes = list(ast.walk(self.node))
        own = dict(_imports(nodes, self._module))
        names = set(own) | _globals(symtable.symtable(self.source, "statement", "exec"))
        chains = defaultdict(set)  # of attributes, by the name that they begin with
        inner: set[int] = set()
        for node in nodes:
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
        references = set()
        for name in names:
            bound = (
                own.get(name) or self._module.imports.get(name) or Import(self._module.name, name)
            )
            references |= {Reference(bound, path) for path in chains[name] or {()}}
        return frozenset(references)


class Module:
    """A parsed module: its definitions, what its imports bind, and its other statements."""

    def __init__(self, name: str, is_package: bool, text: str) -> None:
        self.name, self.is_package = name, is_package
        lines = text.split("\n")
        self.definitions: dict[str, list[Statement]] = defaultdict(list)
        self.others: list[Statement] = []
        self.imports: dict[str, Import] = {}
        self.stars: list[str] = []
        for node in ast.parse(text).body:
            for alias, bound in _imports([node], self):
                if alias == "*":
                    self.stars.append(bound.module)
                else:
                    self.imports[alias] = bound
            if isinstance(node, ast.Import | ast.ImportFrom) or _is_text(node):
                continue
            statement, names = Statement(node, lines, self), _defined(node)
            for defined in names:
                self.definitions[defined].append(statement)
            if not names:
                self.others.append(statement)


@cache
def parsed(name: str, is_package: bool, text: str) -> Module:
    """The module of this text; of the same text the same one."""
    return Module(name, is_package, text)


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


def _imports(nodes: Iterable[ast.AST], module: Module) -> Iterator[tuple[str, Import]]:
    """The names that import statements bind, and to what; the name `*` for all of a module."""
    package = module.name if module.is_package else module.name.rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                # Without `as`, the name is the outermost package, through which attributes lead.
                yield (
                    alias.asname or alias.name.split(".")[0],
                    Import(alias.name if alias.asname else alias.name.split(".")[0]),
                )
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                yield (
                    alias.asname or alias.name,
                    Import(source, None if alias.name == "*" else alias.name),
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
