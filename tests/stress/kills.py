"""Kill runs at random moments, go on with them, and see that nothing is lost, half-written or
different.

    .venv/bin/python tests/stress/kills.py --kills 100

A case is a command of several small blocks of seeds. Its undisturbed run tells how long it takes
and what every block holds. Then it is killed (SIGKILL; now and then SIGTERM, or SIGINT as by
Ctrl-C) at a random moment within that time and given again, until a run reaches its end. After each
kill all stored files are read: a block is the undisturbed run's, bit for bit, or it is corrupt; one
that was there before is there still, or its result is, or it is lost. A result at the end of a
series must be the undisturbed run's in all but its attributes, which tell of time.

A run is a process forked from this one, which has imported everything and started no thread: it
begins at once, in a process group of its own. With workers a kill takes the whole group, or one
worker, or the main process, whose workers then outlive it. The exit code is 1 if anything was
corrupt, lost or unequal, or a run failed by itself.
"""

import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

os.environ["OMP_NUM_THREADS"] = "1"  # inherited by workers

import distributed.nanny
import matplotlib.backends.backend_agg
import matplotlib.backends.backend_pdf
import matplotlib.backends.backend_svg  # noqa: F401
import torch._dynamo
import tyro
import xarray as xr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import analysis.commands.run
import analysis.run.runner
from analysis.cli import main as ssa_theory
from analysis.experiments import EXPERIMENTS
from analysis.store.results import load

COMMANDS = {
    "graph": "graph --seeds 6 --steps 30 --control-steps 30 --mechanisms vanilla ssa "
    "--learning-rates 0.06 --block-seeds 2",
    "phase": (
        "phase --preset smoke --seeds 6 --steps 30 60 --families graded small-world --mechanisms"
        " vanilla ssa --block-seeds 2"
    ),
    "retrieval": "retrieval --preset smoke --seeds 12 --block-seeds 2",
    "twins": "twins --preset smoke --seeds 8 --block-seeds 2",
    "two experiments": (
        "retrieval length --seeds 6 --steps 30 --cooldown-steps 10 --held-out 8 --block-seeds 2"
    ),
    "graph, workers": (
        "graph --seeds 6 --steps 30 --control-steps 30 --mechanisms vanilla ssa "
        "--learning-rates 0.06 --block-seeds 2"
        " --workers 2"
    ),
    "retrieval, workers": "retrieval --preset smoke --seeds 12 --block-seeds 2 --workers 2",
}
STAGES = (
    "before the first block",
    "between blocks",
    "after the last block",
    "while drawing",
    "while reporting",
)
_SERIES = 5  # kills at most before a series may end undisturbed
_PATIENCE = 300.0  # seconds after which a run hangs
_ENDS = {".svg": b"</svg>", ".pdf": b"%%EOF", ".png": b"IEND\xaeB`\x82", ".html": b"</html>"}
_LINES = ".csv"
"""Ends with a line."""


@dataclass
class Case:
    """A command with its undisturbed run, and what its kills have come to.

    workers: whether blocks go to other processes. blocks: the undisturbed run's, by file below the
    folder of results. results: likewise. seconds: the undisturbed run takes. stages: how many kills
    hit each. failed: sentences.
    """

    name: str
    command: list[str]
    blocks: dict[str, xr.Dataset]
    results: dict[str, xr.Dataset]
    seconds: float
    kills: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    corrupt: int = 0
    lost: int = 0
    unequal: int = 0
    compared: int = 0
    leftovers: int = 0
    failed: list[str] = field(default_factory=list)

    @property
    def workers(self) -> bool:
        return "--workers" in self.command

    @property
    def sound(self) -> bool:
        return not (self.corrupt or self.lost or self.unequal or self.failed)


def main(
    kills: Annotated[int, tyro.conf.arg(help="how many runs to kill, over all cases")] = 100,
    seed: Annotated[int, tyro.conf.arg(help="of the moments, signals and victims")] = 0,
    cases: Annotated[
        tuple[str, ...], tyro.conf.arg(help="names of the cases; default: all")
    ] = tuple(COMMANDS),
) -> int:
    """Kill runs at random moments and check what they leave; returns the exit code."""
    for name in cases:
        if name not in COMMANDS:
            print(
                f"unknown case {name!r}: choose from {', '.join(map(repr, COMMANDS))}",
                file=sys.stderr,
            )
            return 2
    start, draw = time.monotonic(), random.Random(seed)
    list(EXPERIMENTS.values())  # imports them
    torch.set_num_threads(1)
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    # The display's own thread must not be there when a process is forked, so it is refreshed by
    # hand.
    display = Progress(*columns, console=console, auto_refresh=False)
    with tempfile.TemporaryDirectory() as scratch, display:
        task = display.add_task("undisturbed runs", total=kills)
        display.refresh()
        known = {
            name: undisturbed(name, Path(scratch) / "undisturbed" / str(i))
            for i, name in enumerate(cases)
        }
        series = 0
        while (done := sum(case.kills for case in known.values())) < kills:
            # A run with workers starts processes that import everything: it gets fewer of the
            # kills.
            case = min(known.values(), key=lambda c: (c.kills + 1) * (4 if c.workers else 1))
            display.update(task, description=f"kills, {case.name}", completed=done)
            display.refresh()
            folder = Path(scratch) / f"series-{series}"
            kill_repeatedly(case, folder, min(draw.randint(1, _SERIES), kills - done), draw)
            shutil.rmtree(folder, ignore_errors=True)
            series += 1
        display.update(task, description="kills", completed=kills)
        display.refresh()
    report(list(known.values()), series, time.monotonic() - start)
    return 0 if all(case.sound for case in known.values()) else 1


def undisturbed(name: str, folder: Path) -> Case:
    """Run a case to its end in one process, and keep its blocks."""
    command = COMMANDS[name].split()
    alone = command[: command.index("--workers")] if "--workers" in command else command
    folder.mkdir(parents=True)

    def keep_blocks() -> None:
        analysis.run.runner.forget_blocks = lambda blocks: None

    start = time.monotonic()
    run = Run([*alone, "--out", str(folder)], folder.with_suffix(".log"), keep_blocks)
    if (code := run.wait(_PATIENCE)) != 0:
        raise SystemExit(
            f"the undisturbed run of {name!r} ended with {code}: {run.log.read_text()[-500:]}"
        )
    seconds = time.monotonic() - start
    blocks = {
        str(p.relative_to(folder)): load(p).drop_attrs() for p in folder.glob("*/blocks/*.nc")
    }
    results = {str(p.relative_to(folder)): load(p).drop_attrs() for p in folder.glob("*/result.nc")}
    if alone is not command:  # how long it takes is measured with the workers
        start, again = time.monotonic(), folder.with_name(folder.name + "-workers")
        run = Run([*command, "--out", str(again)], folder.with_suffix(".log"))
        if (code := run.wait(_PATIENCE)) != 0:
            raise SystemExit(
                f"the undisturbed run of {name!r} ended with {code}: {run.log.read_text()[-500:]}"
            )
        seconds = time.monotonic() - start
    if len(blocks) < 3 * len(results):
        raise SystemExit(f"the case {name!r} has only {len(blocks)} blocks: choose smaller ones")
    return Case(name, command, blocks, results, seconds)


class Run:
    """`ssa-theory run` in a forked process that leads a group of its own; what it prints goes to
    `log`.
    """

    def __init__(
        self, arguments: list[str], log: Path, prepare: Callable[[], None] = lambda: None
    ) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid:  # both do it, so that it is done whoever comes first
            os.setpgid(self.pid, self.pid)
        else:
            code = 70
            try:
                os.setpgid(0, 0)
                file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                for standard in (1, 2):
                    os.dup2(file, standard)
                prepare()
                code = ssa_theory(["run", *arguments])
                sys.stdout.flush()
                sys.stderr.flush()
            except SystemExit as stop:
                code = stop.code
            except BaseException as error:
                os.write(2, f"\nTraceback: {error!r}\n".encode())
            finally:
                os._exit(code)

    def wait(self, seconds: float) -> int | None:
        """The exit code, negative for a signal; None where the run goes on for longer."""
        end = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                return None
            time.sleep(0.002)

    def workers(self) -> list[int]:
        """Processes that the run has started and that do its blocks, or will."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    if parent == self.pid and b"spawn_main" in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
                except (OSError, ValueError, IndexError):  # gone meanwhile
                    continue
        return found

    def end_group(self) -> None:
        """Kill whatever is left of the process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def kill_repeatedly(case: Case, folder: Path, kills: int, draw: random.Random) -> None:
    """One series: kill a run, give the command again, ... and compare the result of the run that
    reaches its end.
    """
    command, seen, runs = [*case.command, "--out", str(folder / "results")], set(), []
    try:
        while True:
            share = len(seen) / len(case.blocks)
            # Drawing takes longer than the training of these small blocks, at which half of the
            # kills aim.
            latest = case.seconds * (1 - 0.6 * share) * draw.choice((1.0, 0.4))
            moment = draw.uniform(0, latest) if kills > 0 else _PATIENCE
            runs.append(run := Run(command, folder / f"{len(runs)}.log"))
            code = run.wait(moment)
            if code is None and kills > 0:
                kills -= 1
                case.kills += 1
                case.stages[_stage(case, folder / "results")] += 1
                code = _kill(case, run, draw)
            elif code is None:
                case.failed.append(f"a run did not end in {_PATIENCE:.0f} s")
                run.end_group()
                return
            text = run.log.read_text(errors="replace")
            # Ctrl-C is lost where it meets Python amid a destructor, which Python reports and goes
            # on.
            _, traceback, trace = re.sub(
                r"(?s)Exception ignored in.*?KeyboardInterrupt", "", text
            ).partition("Traceback")
            # A worker killed before it was ready ends the run with a sentence.
            sentence = code == 2 and "workers could not be started" in text
            if traceback or not (sentence or code in (0, 130, -signal.SIGKILL, -signal.SIGTERM)):
                case.failed.append(
                    f"a run ended with {code}: {' '.join((trace or text).split())[-500:]}"
                )
                return
            _check(case, folder / "results", seen)
            if code == 0:
                break
    finally:
        for run in runs:
            run.end_group()
    for name, expected in case.results.items():
        case.compared += 1
        path = folder / "results" / name
        case.unequal += not (path.is_file() and load(path).drop_attrs().identical(expected))
    case.leftovers += sum(
        p.is_file() and p.suffix != ".lock" and p.name.startswith(".")
        for p in (folder / "results").rglob("*")
    )


def _kill(case: Case, run: Run, draw: random.Random) -> int | None:
    """Send a signal to the run or a part of it; the exit code of what follows."""
    kind = draw.choices((signal.SIGKILL, signal.SIGTERM, signal.SIGINT), (8, 1, 1))[0]
    victim = draw.choice(("group", "worker", "main")) if case.workers else "group"
    workers = run.workers()
    if victim == "worker" and workers:  # it is replaced, and the run goes on
        with suppress(ProcessLookupError):
            os.kill(draw.choice(workers), signal.SIGKILL)
        code = run.wait(_PATIENCE)
    elif victim == "main":
        os.kill(run.pid, kind)
        code = run.wait(60)
    else:
        os.killpg(run.pid, kind)
        code = run.wait(60)
    if code is None:
        run.end_group()
        code = run.wait(60)
        case.failed.append(f"a run went on for a minute after {kind.name} to the {victim}")
    return code


def _stage(case: Case, folder: Path) -> str:
    """What the run was at, by the files that it has stored of its last experiment, as well as can
    be told from outside.
    """
    last = list(case.results)[-1].split("/")[0]
    last = next((n.split("/")[0] for n in case.results if not (folder / n).is_file()), last)
    blocks = [name for name in case.blocks if name.startswith(f"{last}/")]
    stored = sum((folder / name).is_file() for name in blocks)
    if (folder / last / "claims.json").is_file():
        return STAGES[4]
    if (folder / last / "result.nc").is_file():
        return STAGES[3]
    return STAGES[0] if not stored else STAGES[2] if stored == len(blocks) else STAGES[1]


def _check(case: Case, folder: Path, seen: set[str]) -> None:
    """Read all that is stored. seen: the blocks that were there before; those that are there now
    join them.
    """
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        name = str(path.relative_to(folder))
        expected = case.blocks.get(name, case.results.get(name))
        try:
            content = path.read_bytes()
            if path.suffix == ".nc":
                whole = expected is not None and load(path).drop_attrs().identical(expected)
            elif path.suffix == ".json":
                whole = "claims" in json.loads(content)
            elif path.suffix == _LINES:
                whole = content.endswith(b"\n")
            else:
                whole = path.suffix in _ENDS and content.rstrip().endswith(_ENDS[path.suffix])
        except FileNotFoundError:  # a block that a worker which outlives its run has just replaced
            continue
        except (ValueError, KeyError):
            whole = False
        if not whole:
            case.corrupt += 1
            case.failed.append(f"{name} is not whole ({path.stat().st_size} bytes)")
    for name in case.blocks:
        if (folder / name).is_file():
            seen.add(name)
        elif name in seen and not (folder / name.split("/")[0] / "result.nc").is_file():
            case.lost += 1
            seen.discard(name)


def report(cases: list[Case], series: int, seconds: float) -> None:
    """Print the table and the summary."""
    table = Table(
        "case", "kills", *STAGES, "corrupt files", "lost blocks", "unequal results", box=None
    )
    for case in cases:
        numbers = [case.kills, *(case.stages[s] for s in STAGES), case.corrupt, case.lost]
        table.add_row(case.name, *map(str, numbers), f"{case.unequal} of {case.compared}")
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    for case in cases:
        for sentence in case.failed:
            print(f"{case.name}: {sentence}")
    kills, corrupt, lost, unequal, left = (
        sum(getattr(c, name) for c in cases)
        for name in ("kills", "corrupt", "lost", "unequal", "leftovers")
    )
    print(
        f"{kills} kills in {series} series: {corrupt} corrupt files, {lost} lost blocks, {unequal}"
        f" unequal results, {sum(len(c.failed) for c in cases)} failures; {left} hidden temporary"
        f" files left; {seconds:.0f} s"
    )


if __name__ == "__main__":
    distributed.nanny  # noqa: B018  # imported here so that a fork with workers need not
    sys.exit(tyro.cli(main, description=__doc__))
