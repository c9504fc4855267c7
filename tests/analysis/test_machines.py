"""Commands do their work on machines of other habits: without a home, git, UTF-8 or room."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLUMNS = 60
PLAIN = {"LC_ALL": "C", "NO_COLOR": "1", "COLUMNS": f"{COLUMNS}", "PATH": "/nonexistent"}
"""The whole environment: no HOME, and no git and compiler on the PATH."""
OWN = """
import xarray as xr
from analysis.draw.figures import new_figure
from analysis.experiments.base import Experiment
from analysis.store.config import SeededConfig
from ssa_theory import train

class OwnConfig(SeededConfig):
    "Own."

def draw(config, result):
    figure = new_figure(2.0, 2.0)
    figure.subplots().plot(result["x"].values)
    return figure

def trained(config, progress):
    import torch
    loss = lambda own, batch: (own["x"] - 1).square()
    done = train(loss, {"x": torch.zeros(config.seeds)}, steps=5, learning_rate=0.1, compile=True)
    return xr.Dataset({"x": ("seed", done.parameters["x"].numpy())})

OWN = Experiment("own", "\u00bfWho?", "Own.", OwnConfig, trained, draw, lambda *_: [])
"""

WITHOUT = """
import os, signal, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("resource", "fcntl", "pwd", "grp", "termios"):
            raise ImportError(f"no {name}")

sys.meta_path.insert(0, Missing())
for name in ("resource", "fcntl", "pwd", "grp", "termios"):
    sys.modules.pop(name, None)
for place, names in (
    (os, ("sysconf", "sched_getaffinity", "sched_setaffinity", "fork")),
    (signal, ("SIGALRM", "SIGKILL", "SIGSTOP", "pthread_sigmask", "alarm")),
):
    for name in names:
        if hasattr(place, name):
            delattr(place, name)

from analysis.cli import main
from analysis.bench.bench import bench  # what it measures with is of Unix in part
from analysis.problems.sizes import check_result_fits

check_result_fits(10**6)
sys.exit(main(sys.argv[1:]))
"""
"""What only Unix has is taken away, as far as that can be."""


def command(folder: Path, *words: str, code: Path = ROOT, **environment: str) -> str:
    """What Python prints, given these words; it has to end well."""
    done = subprocess.run(
        [sys.executable, "-B", *words],
        cwd=folder,
        env={"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode() + done.stderr.decode()


@pytest.mark.parametrize(
    ("environment", "arguments", "says"),
    [
        ({"HOME": "/nonexistent"}, ["list"], "les-miserables"),
        ({"LC_ALL": "C"}, ["mechanisms"], "softmax(c s)"),
        (PLAIN, ["claims", "--help"], "verdict of every topic"),
    ],
    ids=["no home", "no UTF-8", "nothing"],
)
def test_what_only_tells_something(tmp_path, environment, arguments, says):
    text = command(tmp_path, "-m", "analysis.cli", *arguments, **environment)
    assert says in text
    assert "\033" not in text
    boxed = [line for line in text.splitlines() if line.startswith(("\u2502", "\u256d", "|", "+"))]
    assert all(len(line) <= COLUMNS for line in boxed)


def test_a_run_where_everything_is_missing(tmp_path):
    """No home, git or compiler, ASCII for an encoding, folders with blanks and accents, a checkout
    that cannot be written, and a system that is no Unix.
    """
    code, folder = tmp_path / "the c\u00f6de", tmp_path / "my \u00fcbungen"
    for package in ("analysis", "ssa_theory", "tasks"):
        shutil.copytree(
            ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    before = {path: path.stat().st_mtime_ns for path in code.rglob("*")}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    folder.mkdir()
    (folder / "own.py").write_text(OWN, encoding="utf-8")
    out = "all r\u00e9sults"
    words = ["run", "./own.py:OWN", "--out", out]
    text = command(folder, "-c", WITHOUT, *words, code=code, **PLAIN)
    assert "own: run in" in text
    uncompiled = "ssa-theory: training goes on uncompiled"
    assert [line.startswith(uncompiled) for line in text.splitlines()].count(True) == 1
    assert {path: path.stat().st_mtime_ns for path in code.rglob("*")} == before
    made = {path.name for path in (folder / out / "own").iterdir()}
    assert made >= {"result.nc", "figure.svg", "figure.csv", "claims.json"}
    page = (folder / out / "index.html").read_text(encoding="utf-8")
    assert "\u00bfWho?" in page
    assert "unknown" in page  # the revision
    for path in before:
        path.chmod(0o755 if path.is_dir() else 0o644)
