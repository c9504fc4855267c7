"""The mutation check kills what is tested, and tells what is not."""

import os
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).with_name("mutants.py")
EMBEDDINGS = Path(__file__).parents[1] / "tasks" / "test_embeddings.py"

CODE = '''
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Line:
    slope: float

    @cached_property
    def double(self) -> float:
        return self.slope * 2

    def at(self, x: float) -> float:
        """The value, 1 + slope x."""
        if x < 0 - 5:
            raise ValueError(f"got {x - 1}")
        return 1 + self.slope * x


def untested(x: float) -> float:
    return x - 3
'''

TESTS = """
from broken import Line

LINE = Line(3.0)


def test_at() -> None:
    assert LINE.at(2.0) == 7


def test_double() -> None:
    assert LINE.double == 6


def test_double_of_an_instance_that_keeps_it() -> None:
    assert LINE.double == 6
"""


def test_what_is_tested_is_killed_and_what_is_not_survives(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(CODE)
    (tmp_path / "test_broken.py").write_text(TESTS)
    modules, tests = ("broken", "tasks.embeddings"), ("test_broken.py", str(EMBEDDINGS))
    command = [sys.executable, str(TOOL), "--modules", *modules, "--tests", *tests, "--cases", "0"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "COLUMNS": "120"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 1, done.stdout + done.stderr
    said = done.stdout.splitlines()
    survived = sorted(line.split(": ", 2)[2] for line in said if line.startswith("survived: "))
    assert survived == ["x - 3 -> x + 3", "x - 3 -> x - 4"]
    # Killed: * and 2 of double; +, * and 1 of at. The argument check is left out.
    (row,) = (line.split() for line in said if line.split()[:1] == ["broken"])
    assert row == ["broken", "7", "0", "5", "0", "2"]
    (row,) = (line.split() for line in said if line.split()[:1] == ["tasks.embeddings"])
    assert int(row[1]) > 4
    assert row[1:] == [row[1], "0", str(int(row[1]) - 1), "1", "0"]  # one is equivalent
