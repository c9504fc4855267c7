"""Commands that only tell something start at once: they import nothing heavy, and what they say is
what the registries hold.
"""

import json
import subprocess
import sys

import pytest

from analysis.catalogue import experiments, mechanisms
from analysis.claims.builder import Lines
from analysis.experiments import EXPERIMENTS, PLACES
from analysis.store.claims import load_evidence, result_path
from ssa_theory.mechanism import MECHANISMS
from tests.analysis.evidence import store

HEAVY = "torch matplotlib xarray pandas dask distributed networkx h5py scipy.stats entmax jinja2"
IMPORTED = """
import json, sys
from analysis.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
print(json.dumps([code, list(sys.modules)]), file=sys.stderr)
"""


@pytest.fixture
def out(tmp_path):
    """A folder with claims: a check that fails."""
    lines = Lines("graph", 64)
    lines.check("sum", "it is less", "sum", "<", 0.5, 1)
    store("graph", lines.claims, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--help"], "usage: ssa-theory COMMAND"),
        (["list"], "les-miserables"),
        (["mechanisms"], "softmax(c s)"),
        (["claims", "--out", "{out}"], "it is less"),
        (["claims", "error", "--out", "{out}"], "A query temperature lowers the error"),
        (["claims", "--help"], "the verdict of every topic"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_only_tells_something_imports_nothing_heavy(out, arguments, says):
    words = [word.format(out=out) for word in arguments]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *words], capture_output=True, text=True, check=True
    )
    code, modules = json.loads(done.stderr)
    assert says in done.stdout
    assert code == 0
    assert not set(HEAVY.split()) & set(modules)


def test_the_lists_are_those_of_the_registries():
    assert mechanisms() == [[m.name, m.formula, m.source] for m in MECHANISMS.values()]
    assert experiments() == [[e.name, e.question] for e in EXPERIMENTS.values()]
    assert [name for name, _ in experiments()] == list(PLACES) == list(EXPERIMENTS)


def test_claims_of_another_result_are_not_shown(out):
    assert [c.id for c in load_evidence("graph", out).claims] == ["graph-sum"]
    result_path("graph", out).write_bytes(b"other numbers")
    with pytest.raises(ValueError, match="are not of the result beside them"):
        load_evidence("graph", out)
    with pytest.raises(ValueError, match="not run: `ssa-theory run twins` makes it"):
        load_evidence("twins", out)
