"""What the README shows is what happens: its Python runs, and its commands are understood."""

import ast
import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from analysis.cli import main
from ssa_theory import Mechanism

TEXT = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
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


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """A folder with the files that the command lines name: the example's mechanism, and a text."""
    text = []
    for node in ast.parse(PYTHON[0]).body:
        line = ast.unparse(node)
        if line.startswith(("from ssa_theory", "MINE =")):
            text.append(line)
    (tmp_path / "mine.py").write_text("\n".join(text))
    (tmp_path / "my_novel.txt").write_text("It was the best of times.")
    monkeypatch.chdir(tmp_path)
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


def test_a_stored_result_is_read_as_printed(mine, quick_figures):
    flags = ["--preset", "smoke", "--seeds", "2", "--steps", "4", "--control-steps", "0"]
    assert main(["run", "graph", *flags]) == 0
    (block,) = [text for text in PYTHON if "open_dataset" in text]
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    result = names["result"]
    assert all(variable.attrs.get("description") for variable in result.data_vars.values())
    result.close()


def test_own_graphs_and_texts_are_read_as_printed(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    (block,) = [text for text in PYTHON if "GraphReading" in text]
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["task"].labels == ("a", "b", "c", "d")
    last = eval(block.strip().splitlines()[-1], names)
    assert last == ("60", "64", "67")


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
        assert set(trained) == set(takewhile(lambda w: not w.startswith("-"), words[1:]))
    assert not list(mine.glob("results"))
