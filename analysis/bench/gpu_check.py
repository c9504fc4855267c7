"""`make gpu-check`: on a machine with a GPU the tests that need one, and the benchmark on it, as one
file for the repository.
"""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from analysis.bench.bench import bench
from analysis.bench.config import BenchConfig
from analysis.bench.tables import all_rows, notes
from analysis.progress import silent
from analysis.store.files import write_whole
from analysis.terminal import fail

_ROOT = Path(__file__).parents[2]
_TESTS = (sys.executable, "-m", "pytest", "-q", "-m", "cuda", "tests")


def main(file: Path, out: Path) -> int:
    """Test, measure, and write the file; the exit code of the tests. Raises ValueError where there
    is no GPU.
    """
    if not torch.cuda.is_available():
        raise ValueError(
            "make gpu-check needs a GPU, and torch sees none: run it where there is one, with a torch "
            "that is built for CUDA"
        )
    tests = subprocess.run(_TESTS, cwd=_ROOT, capture_output=True, text=True, check=False)
    print(tests.stdout, end="", flush=True)
    report = bench(BenchConfig(device="cuda"), out, silent, lambda line: print(line, flush=True))
    outcome = tests.stdout.strip().rpartition("\n")[-1].strip("= ")
    text = document(report, outcome)
    write_whole(file, lambda path: path.write_text(text, encoding="utf-8"))
    print(f"written: {file}")
    return tests.returncode


def document(report: dict[str, Any], outcome: str) -> str:
    """Card, versions, what the tests said, and the benchmark's tables, in Markdown."""
    versions = ", ".join(f"{k} {v}" for k, v in json.loads(report["versions"]).items())
    parts = [
        "# On a GPU",
        f"Made by `make gpu-check` on {report['device']}, of revision {report['revision']} "
        f"(uncommitted changes: {report['uncommitted_changes']}), with {versions}.",
        f"Tests that need a GPU (`pytest -m cuda`): {outcome}.",
        *(_markdown(*table) for table in all_rows(report)),
        "\n".join(f"- {note}" for note in notes(report)),
    ]
    return "\n\n".join(parts) + "\n"


def _markdown(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    table, file = Table(*columns, box=box.MARKDOWN), io.StringIO()
    for row in rows:
        table.add_row(*row)
    Console(file=file, width=1000).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().strip().splitlines())


if __name__ == "__main__":
    try:
        sys.exit(main(_ROOT / "gpu-check.md", _ROOT / "results"))
    except ValueError as error:
        fail(str(error))
        sys.exit(2)
