"""A module holds one thing: none is long."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
LONGEST = 300


def test_no_module_has_more_than_300_lines() -> None:
    paths = [
        p for package in ("ssa_theory", "tasks", "analysis") for p in (ROOT / package).rglob("*.py")
    ]
    assert len(paths) > 100
    lines = {p.relative_to(ROOT).as_posix(): len(p.read_text().splitlines()) for p in paths}
    long = {path: count for path, count in lines.items() if count > LONGEST}
    assert not long, "move one concept into a module of its own"
