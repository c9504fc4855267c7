"""No code asks a mechanism for its name: what it does is in its parts."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssa_theory.mechanism import MECHANISMS, VANILLA

ROOT = Path(__file__).parents[2]
EXEMPT = {f"ssa_theory/mechanism/{name}.py" for name in ("registry", "ssa", "mechanism")}
"""The registry itself, and where the peer of all comparisons has its constant."""
OTHERS = {("tasks/denoising_risk.py", "threshold"), ("analysis/properties/paper.py", "asentmax")}
"""Names of other things: an estimator, a family of schedules."""
STILL_WRITTEN = {
    "analysis/experiments/twins.py",
    "analysis/problems/twins.py",
    "analysis/properties/mechanism.py",
}
"""Files that write the peer of all comparisons as a string, not as `VANILLA`: to be emptied."""
_CALLED = {"name", "variant", "mechanism", "normalizer", "schedule", "v", "n", "m"}


def _pieces() -> set[str]:
    """Beginnings, ends and words of names."""
    words = [name.split("-") for name in MECHANISMS]
    return {
        "-".join(w[i:j]) for w in words for i in range(len(w)) for j in range(i + 1, len(w) + 1)
    }


def _texts(node: ast.expr) -> set[str]:
    """The strings that an expression compares with: itself, or what a literal of several holds."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return {text for item in node.elts for text in _texts(item)}
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return {node.value} if is_text else set()


def _named(node: ast.expr) -> bool:
    """Whether an expression looks like the name of a mechanism."""
    if isinstance(node, ast.Call) and node.args:
        return _named(node.args[0])  # str(name)
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name in _CALLED


def asked(source: str) -> Iterator[tuple[int, str]]:
    """Where a text tests a string against names of the registry, or parts of them: line, string."""
    pieces = _pieces()
    for node in ast.walk(ast.parse(source)):
        found: set[str] = set()
        match node:
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                operands = [left, *comparators]
                for (a, b), op in zip(zip(operands, comparators, strict=False), ops, strict=True):
                    if isinstance(op, ast.Eq | ast.NotEq):
                        found |= (_texts(a) | _texts(b)) & set(MECHANISMS)
                    elif isinstance(op, ast.In | ast.NotIn):
                        found |= _texts(b) & set(MECHANISMS)
                        known = set(MECHANISMS) | (pieces if _named(b) else set())
                        found |= {t for t in _texts(a) if t.strip("-") in known}
            case ast.Call(func=ast.Attribute(attr="startswith" | "endswith", value=value)):
                known = set(MECHANISMS) | (pieces if _named(value) else set())
                for argument in node.args:
                    found |= {t for t in _texts(argument) if t.strip("-") in known}
            case ast.MatchValue(value=value):
                found |= _texts(value) & set(MECHANISMS)
        yield from ((node.lineno, text) for text in sorted(found))


def vanilla(source: str) -> Iterator[tuple[int, str]]:
    """Where a text writes the name of vanilla attention."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and node.value == VANILLA:
            yield node.lineno, VANILLA


def files() -> dict[str, str]:
    found = {}
    for package in ("ssa_theory", "tasks", "analysis"):
        for path in sorted((ROOT / package).rglob("*.py")):
            found[path.relative_to(ROOT).as_posix()] = path.read_text()
    return {k: v for k, v in found.items() if k not in EXEMPT}


def test_no_file_asks_for_a_name() -> None:
    found = {
        path: [place for place in asked(text) if (path, place[1]) not in OTHERS]
        for path, text in files().items()
    }
    places = {path: at for path, at in found.items() if at}
    assert not places, "ask what the mechanism's parts are"


def test_the_peer_of_all_comparisons_is_a_constant() -> None:
    found = {path: at for path, text in files().items() if (at := list(vanilla(text)))}
    assert not {k: v for k, v in found.items() if k not in STILL_WRITTEN}, "import VANILLA"
    assert not STILL_WRITTEN - set(found), "these no longer write it: take them off the list"


@pytest.mark.parametrize(
    "source",
    [
        'v == "vanilla"',
        '"ssa" != v',
        'v in ("other", "ssa")',
        'v not in {"ssa"}',
        'v.startswith("ssa")',
        'x.name.startswith(("a", "value-"))',
        'variant.endswith("-mlp")',
        '"value" in variant',
        '"value" in str(v)',
        '"ssa" in rows',
        'a < b == "rela"',
        'match v:\n    case "sink":\n        pass',
        'match v:\n    case "other" | "sink":\n        pass',
    ],
)
def test_the_search_finds_them(source: str) -> None:
    assert len(list(asked(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        'role == "value"',
        '"value" in roles',
        'path.startswith("a")',
        'f("ssa")',
        '"""ssa"""',
        "a == b",
    ],
)
def test_the_search_leaves_the_rest(source: str) -> None:
    assert not list(asked(source))
