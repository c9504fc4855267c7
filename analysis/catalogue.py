"""What `list` and `mechanisms` print. It is read from the source: to import an experiment or a
mechanism is to import torch, which takes seconds.

An entry is a call such as `Mechanism("scaled", "softmax(c s)", f"{_OURS}: a control", ...)`. Only
its texts are evaluated, with the constants and functions that they use.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from analysis.experiments import PLACES
from analysis.store.dependencies import Project

_PROJECT = Project(Path(__file__).parents[1])


def experiments() -> list[list[str]]:
    """Name and question of each experiment, in the order of the report."""
    places = (place.split(".") for place in PLACES.values())
    return [
        row
        for module, variable in places
        for row in _rows(f"analysis.experiments.{module}", variable, ("name", "question"))
    ]


def mechanisms() -> list[list[str]]:
    """Name, formula and source of each mechanism of the registry."""
    return _rows("ssa_theory.mechanism.registry", "_ENTRIES", ("name", "formula", "source"))


class Names(dict[str, object]):
    """The global names of a module of the project, each defined when it is used."""

    def __init__(self, module: str) -> None:
        super().__init__()
        source = _PROJECT.module(module)
        if source is None:
            raise ValueError(f"this project has no module {module!r}: name one that it has")
        self.source = source

    def place(self, name: str) -> tuple["Names", str]:
        """The module that defines a name, and what it calls it."""
        if name in self.source.definitions:
            return self, name
        module, original = self.source.imports[name]
        return Names(module).place(original or "")

    def __missing__(self, name: str) -> object:
        """Of a built-in name Python hears a KeyError, and looks on."""
        names, original = self.place(name)
        if names is not self:
            return names[original]
        for statement in self.source.definitions[name]:
            exec(statement.source, self)
        return dict.__getitem__(self, name)


def _rows(module: str, variable: str, fields: Sequence[str]) -> list[list[str]]:
    """The texts of the entries in a variable; fields: their names, in the order of arguments."""
    rows = []
    for names, call in _entries(Names(module), ast.Name(variable)):
        given = dict(zip(fields, call.args, strict=False))
        given |= {k.arg: k.value for k in call.keywords if k.arg is not None}
        texts = (ast.unparse(given[field]) for field in fields)
        rows.append([str(eval(text, names)) for text in texts])
    return rows


def _entries(names: Names, node: ast.AST) -> Iterator[tuple[Names, ast.Call]]:
    """The calls in a tuple, and in the variables that it unpacks, each with its module's names."""
    if isinstance(node, ast.Call):
        yield names, node
    elif isinstance(node, ast.Tuple):
        for element in node.elts:
            yield from _entries(names, element)
    elif isinstance(node, ast.Starred | ast.Assign | ast.AnnAssign) and node.value is not None:
        yield from _entries(names, node.value)
    elif isinstance(node, ast.Name):
        there, variable = names.place(node.id)
        for statement in there.source.definitions[variable]:
            yield from _entries(there, statement.node)
    else:
        raise ValueError(
            f"an entry of a registry must be a call, got {ast.unparse(node)!r:.80} in"
            f" {names.source.name}: write it as one"
        )
