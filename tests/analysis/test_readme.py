"""What the README shows is what happens: its Python runs, and its commands are understood."""

import ast
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace

import pytest

from analysis.cli import _COMMANDS, main
from analysis.experiments import EXPERIMENTS, PLACES
from analysis.flags import flags_of, parse_run
from analysis.flags import named as named_experiments
from ssa_theory import Mechanism

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
MAKEFILE = README.with_name("Makefile").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
WITH_HELP = ("list", "mechanisms", "claims", "bench")
"""Commands that would do all their work if they had no `--help`."""


def commands() -> Iterator[list[str]]:
    """The arguments of every command line: of indented blocks, and of code within a sentence."""
    lines = re.findall(r"^    ssa-theory (.*)$", TEXT, re.MULTILINE)
    lines += re.findall(r"`ssa-theory ([^`]*)`", TEXT)
    for line in lines:
        yield shlex.split(line, comments=True)


COMMANDS = list(commands())
_VOTES = """
from dataclasses import replace
from analysis.experiments import EXPERIMENTS
VOTES = replace(EXPERIMENTS["twins"], name="votes")
"""
"""An experiment in a file."""


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """A folder with the files that the command lines name: the example's mechanism, and a text."""
    text = []
    for node in ast.parse(PYTHON[0]).body:
        line = ast.unparse(node)
        if line.startswith(("from ssa_theory", "MINE =")):
            text.append(line)
    (tmp_path / "mine.py").write_text("\n".join(text))
    (tmp_path / "votes.py").write_text(_VOTES)
    (tmp_path / "my_novel.txt").write_text("It was the best of times.")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(EXPERIMENTS, "data", dict(EXPERIMENTS.data))  # it is added there
    return tmp_path


def test_the_example_runs_as_printed():
    names: dict = {}
    exec(compile(PYTHON[0], "README.md", "exec"), names)
    assert tuple(names["layer"](names["torch"].randn(8, 100, 64)).shape) == (8, 100, 64)
    assert isinstance(names["MINE"], Mechanism)
    result = names["result"]
    assert result["mechanism"].values.tolist() == ["vanilla", "scaled", "ssa", "mine"]
    assert result.sizes["seed"] == 64
    assert result["l1_error"].dims == ("mechanism", "seed")
    assert (result["cross_entropy_gap"].isel(step=-1).mean("seed") > 0).all()
    assert result["inverse_temperature"].sel(mechanism="ssa", seed=3).dims == ("node",)


def test_own_graphs_and_texts_are_read_as_printed(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    (block,) = [text for text in PYTHON if "GraphReading" in text]
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["task"].labels == ("a", "b", "c", "d")
    last = eval(block.strip().splitlines()[-1], names)
    assert last == ("60", "64", "67")


SMALL = ["--preset", "smoke", "--seeds", "2", "--steps", "3", "--learning-rates", "0.06"]
"""What is put in place of a run's own preset, seeds and steps, so that it takes a second: a single
rate is not tuned.
"""


def shortened(words: list[str]) -> list[str]:
    """A command of the README with `SMALL` in place of what it says of these flags."""
    kept, flags = [], iter(words)
    for word in flags:
        if word in SMALL[::2]:
            next(flags)
        else:
            kept.append(word)
    return [*kept, *SMALL]


def test_the_five_minutes_in_their_order(mine, capsys, quick_figures, monkeypatch):
    """All in one folder, as printed but for `SMALL`, with one report, at the end of `plot`; then
    the result is read as printed. `demo`, `verify` and `bench` have tests that run them.
    """
    monkeypatch.setattr("analysis.commands.run.write_report", lambda experiments, out: out)
    section = TEXT.split("## Five minutes")[1].split("## ")[0]
    lines = re.findall(r"^    ssa-theory (.*)$", section, re.MULTILINE)
    done = Counter()
    for words in (shlex.split(line, comments=True) for line in lines):
        if words[0] not in ("demo", "verify", "bench"):
            assert main(shortened(words) if words[0] == "run" else words) == 0, words
            done[words[0]] += 1
    assert done == {"list": 1, "mechanisms": 1, "run": 5, "plot": 1, "claims": 2}
    places = {path.parent.name for path in mine.glob("results/*/result.nc")}
    assert {"graph", "twins"} < places
    for apart in ("mechanisms=vanilla+ssa", "family=erdos-renyi", "text_file=my_novel"):
        assert any(apart in name for name in places), places
    assert "left out, as a run of its own data or settings" in capsys.readouterr().out
    assert (mine / "results/index.html").is_file()
    (block,) = [text for text in PYTHON if "open_dataset" in text]
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    with names["result"] as result:
        assert all(variable.attrs.get("description") for variable in result.variables.values())


def test_the_two_commands_are_those_of_the_makefile():
    """What `make` would do: its work is that of the tests that run every experiment, and of CI."""
    named = re.findall(r"^    make (\w+)", TEXT, re.MULTILINE)
    assert named[:2] == ["figures", "test"]
    for target in named:
        plan = subprocess.run(
            ["make", "--dry-run", target], cwd=README.parent, capture_output=True, text=True
        )
        assert plan.returncode == 0, plan.stderr
        for line in plan.stdout.splitlines():
            program, *words = shlex.split(line, comments=True) or [""]
            if program.endswith("/ssa-theory") and words[0] == "run":
                experiments, flags = named_experiments(words[1:])
                assert len(experiments) > 10 or [e.name for e in experiments] == [target]
                assert parse_run(experiments[0], flags_of(experiments[0], experiments, flags))


def test_without_make_the_same_is_installed():
    (install,) = re.findall(r"^    \.venv/bin/(pip install .*)$", TEXT, re.MULTILINE)
    (recipe,) = re.findall(r"\(BIN\)/(pip install .*\[dev\]')$", MAKEFILE, re.MULTILINE)
    assert set(install.split()) == set(recipe.split()) - {"--quiet", "--disable-pip-version-check"}
    (run,) = re.findall(r"^    \.venv/bin/ssa-theory (.*)$", TEXT, re.MULTILINE)
    assert run.split() == ["run", "all", "--preset", "paper", "--out", "results"]


def test_completion_as_printed():
    (line,) = re.findall(r"^    (complete .*)$", TEXT, re.MULTILINE)
    own = f'ssa-theory() {{ "{sys.executable}" -m analysis.cli "$@"; }}'
    told = subprocess.run(
        ["bash", "-c", f"{own}\n{line}\ncomplete -p ssa-theory"],
        cwd=README.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    words = told.stdout.split("'")[1].split()
    assert set(words) == {*_COMMANDS, "all", *PLACES}


def test_the_cluster_is_started_as_printed(monkeypatch):
    """Where dask-jobqueue, which needs SLURM, is one of Dask's own clusters in this process."""
    (block,) = [text for text in PYTHON if "SLURMCluster" in text]
    asked = {}

    class Cluster:
        scheduler_address = "tcp://10.0.0.1:8786"

        def __init__(self, **settings):
            asked.update(settings)

        def scale(self, jobs):
            asked["jobs"] = jobs

    monkeypatch.setitem(sys.modules, "dask_jobqueue", SimpleNamespace(SLURMCluster=Cluster))
    monkeypatch.setattr("builtins.input", lambda question: "")
    exec(compile(block, "README.md", "exec"), {})
    assert (asked["jobs"], asked["processes"]) == (8, 16)
    (script,) = asked["job_script_prologue"]
    shown = subprocess.run(
        ["bash", "-c", f'{script}; echo "$DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ast.literal_eval(shown.stdout) == {"MALLOC_TRIM_THRESHOLD_": 134217728}


def test_every_block_of_python_is_run_by_a_test():
    assert [text.split("\n")[0] for text in PYTHON] == [
        "import torch",
        "from tasks import GraphReading, MarkovGraphTask, TextReading",
        "from dask_jobqueue import SLURMCluster",
        "import xarray as xr",
    ]


def test_the_readme_has_every_command():
    assert {words[0] for words in COMMANDS} == {
        "demo",
        "list",
        "mechanisms",
        "run",
        "plot",
        "claims",
        "verify",
        "bench",
    }


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_line_is_understood(words, mine, monkeypatch, capsys):
    """All of it but the work."""
    trained = []

    def plan(job, arguments, *others):
        trained.extend(one[0].name for one in arguments)
        return iter(())

    monkeypatch.setattr("analysis.commands.run.run_jobs", plan)
    monkeypatch.setattr("analysis.commands.run.is_unchanged", lambda *job: False)
    monkeypatch.setattr("analysis.commands.plot.present", lambda *job: (None, []))
    monkeypatch.setattr("analysis.commands.verify.verify", lambda *settings: iter(()))
    for command in ("run", "plot"):
        monkeypatch.setattr(
            f"analysis.commands.{command}.write_report", lambda experiments, out: out
        )
    if words[0] in WITH_HELP:
        with pytest.raises(SystemExit) as stop:
            main([*words, "--help"])
        assert stop.value.code == 0
    else:
        assert main(words) == 0
    if words[0] == "run":
        named = takewhile(lambda w: not w.startswith("-"), words[1:])
        assert set(trained) == {EXPERIMENTS[name].name for name in named}
    assert not list(mine.glob("results"))


NAMED = r"\b(ssa|selective|temperatures?|vanilla|sinks?|gates?|gating|scaled?|softmax|schedules?)\b"
COMPARED = (
    r"\b(lower|lowers|better|less|smaller|more|faster|larger|fewer|worse|beats?|improves?|helps?|"
    r"suppress\w*|outperforms?)\b"
)


def compared(text: str) -> list[str]:
    """The sentences that say how a mechanism fares, outside of generated blocks, code and questions."""
    prose = re.sub(r"<!-- (\w+): generated.*?<!-- end of \1 -->|```.*?```", "", text, flags=re.S)
    prose = re.sub(r"^    .*$", "", prose, flags=re.MULTILINE)
    sentences = [" ".join(s.split()) for s in re.split(r"(?<=[.!?:])\s+", prose)]
    found = [s for s in sentences if re.search(NAMED, s, re.I) and re.search(COMPARED, s, re.I)]
    return [s for s in found if not s.endswith("?") and " whether " not in s]


def test_only_generated_text_says_how_a_mechanism_fares():
    """A sentence written by hand would stay when its verdict changes."""
    assert compared(TEXT) == []
    assert compared(
        "SSA lowers it. With a temperature the error is\nlower: so. Is SSA better?"
    ) == ["SSA lowers it.", "With a temperature the error is lower:"]
