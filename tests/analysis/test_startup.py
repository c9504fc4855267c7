"""Commands that only tell something start at once: they import nothing heavy, and what they say is
what the registries hold.
"""

import json
import subprocess
import sys

import pytest

from analysis.catalogue import experiments, mechanisms
from analysis.claims.claim import Claim
from analysis.claims.statistics import Estimate
from analysis.experiments import EXPERIMENTS, PLACES
from analysis.store.claims import load_claims, result_path, save_claims
from analysis.store.files import file_digest
from ssa_theory.mechanism import MECHANISMS

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
    """A folder with the claims of a result, which is never opened."""
    result = result_path("graph", tmp_path)
    result.parent.mkdir()
    result.write_bytes(b"numbers")
    half = Estimate(0.5, 0.4, 0.6, 64, "t")
    claim = Claim("graph-l1-ssa", "it is less", "paper", "mean", "<", 1.0, half, 64, topic="error")
    save_claims([claim], result, {"source": "code", "result": file_digest(result)})
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--help"], "usage: ssa-theory COMMAND"),
        (["list"], "les-miserables"),
        (["mechanisms"], "softmax(c s)"),
        (["claims", "--out", "{out}"], "it is less"),
        (["claims", "--help"], "p-values corrected over all"),
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
    assert [c.id for c in load_claims("graph", out)] == ["graph-l1-ssa"]
    result_path("graph", out).write_bytes(b"other numbers")
    with pytest.raises(ValueError, match="are not of the result beside them"):
        load_claims("graph", out)
    with pytest.raises(ValueError, match="not run: `ssa-theory run twins` makes it"):
        load_claims("twins", out)
