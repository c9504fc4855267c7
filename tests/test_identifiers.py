"""An identifier says what it stands for: some words say nothing, and name nothing here."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORDS = {"asked", "both", "found", "kind", "kinds", "told"}
"""What was found, of which kind, told to whom: each is a match, a dtype, a note, a verdict, ..."""


def _named(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of what a node names: a variable, attribute, parameter, function or class."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            yield node.lineno, name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield node.lineno, name
        case ast.arg(arg=name):
            yield node.lineno, name
        case ast.alias(asname=str(name)):
            yield node.lineno, name
        case ast.ExceptHandler(name=str(name)):
            yield node.lineno, name
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield node.lineno, name
        case ast.MatchMapping(rest=str(name)):
            yield node.lineno, name


def empty(source: str) -> Iterator[tuple[int, str]]:
    """Where a text names something by one of the words: line, name."""
    for node in ast.walk(ast.parse(source)):
        yield from ((line, name) for line, name in _named(node) if name.strip("_").lower() in WORDS)


def test_names_say_what_they_stand_for() -> None:
    paths = [
        path
        for package in ("ssa_theory", "tasks", "analysis")
        for path in sorted((ROOT / package).rglob("*.py"))
    ]
    assert len(paths) > 100
    places = [
        f"{path.relative_to(ROOT).as_posix()}:{line}: {name}"
        for path in paths
        for line, name in sorted(empty(path.read_text(encoding="utf-8")))
    ]
    assert not places, "name what it is: a match, a dtype, notes, a verdict, ..."


@pytest.mark.parametrize(
    "source",
    [
        "found = 1",
        "_FOUND: int = 1",
        "a, (b, *kind) = c",
        "if (told := f()): pass",
        "[x for both in y]",
        "self._asked = 1",
        "for kinds in a: pass",
        "def told(): pass",
        "async def _told(): pass",
        "class Kind: pass",
        "def f(a, /, b, *, kind=0): pass",
        "def f(*found, **a): pass",
        "lambda kind: 0",
        "import a as both",
        "try: pass\nexcept E as found: pass",
        "with a as found: pass",
        "match a:\n    case [x, *found]: pass",
        "match a:\n    case {'b': found}: pass",
        "match a:\n    case {'b': x, **found}: pass",
    ],
)
def test_the_search_finds_them(source: str) -> None:
    assert len(list(empty(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "np.argsort(a, kind='stable')",
        "if a.dtype.kind == 'f': pass",
        "a['kind'] = 1",
        "print(found)",
        "both_seen = 1",
        '"""found, told"""',
    ],
)
def test_the_search_leaves_the_rest(source: str) -> None:
    assert not list(empty(source))
