"""`ssa-theory bench`: how fast ensembles train here, beside their peers."""

import sys
from collections.abc import Sequence

from rich.console import Console

from analysis.bench.bench import bench, stored_at
from analysis.bench.config import BenchConfig
from analysis.bench.tables import notes, tables
from analysis.parse import OUT, parse
from analysis.progress import progress_display
from analysis.terminal import fail


def main(arguments: Sequence[str]) -> int:
    options = parse("bench", arguments, BenchConfig.__doc__, BenchConfig(), out=OUT)

    def log(line: str) -> None:
        if not sys.stderr.isatty():  # where there is a display, it says so
            print(line, file=sys.stderr, flush=True)

    with progress_display() as progress:
        report = bench(options.config, options.out, progress, log)
    console = Console(width=None if sys.stdout.isatty() else 220)  # where it is none, unwrapped
    for table in tables(report):
        console.print(table)
        print()
    for note in notes(report):
        print(note)
    if "stopped" in report:
        path = stored_at(report, options.out)
        fail(f"stopped; what was measured is kept in {path}, the same command measures it all anew")
        return 130
    return 0
