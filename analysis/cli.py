"""The command line: list, mechanisms, run, plot, claims, verify, bench."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from analysis.bench.bench import bench, stored_at
from analysis.bench.config import BenchConfig
from analysis.bench.tables import notes, tables
from analysis.claims.claim import Claim
from analysis.experiments import EXPERIMENTS, Experiment
from analysis.experiments.base import Progress
from analysis.flags import OUT, flags_of, named, nearest, parse, parse_run
from analysis.properties.verify import Outcome, VerifyConfig, verify
from analysis.report.report import read_stored, write_report
from analysis.run.cluster import run_jobs
from analysis.run.places import make_way, place_of
from analysis.run.runner import execute, is_unchanged, present
from analysis.store.config import ExperimentConfig
from analysis.terminal import (
    explain,
    fail,
    print_claims,
    print_experiments,
    print_ledger,
    print_mechanisms,
    print_outcomes,
    print_table,
    progress_display,
)
from ssa_theory.mechanism import MECHANISMS

START = """\
Three things to do:

  ssa-theory demo                        train attention on a real graph, and draw what it learned (20 s)
  ssa-theory list                        the experiments and their questions
  ssa-theory run graph --preset smoke    one of them, small; without --preset smoke in full

`ssa-theory --help` shows every command, `ssa-theory run NAME --help` the settings of an experiment.
"""
USAGE = """\
usage: ssa-theory COMMAND ...

  demo                        a small run on a real graph, in 20 seconds
  list                        the experiments and their questions
  mechanisms                  what attention can wear: formulas, sources, parameters
  run NAME ... | all          run, store, draw, test the claims; `run NAME --help` has the flags
  plot NAME ... | all         redraw figures and claims from stored results, without training
  claims                      the ledger: every claim with its verdict, from what is stored
  verify                      try the theory's properties on fresh random cases, as long as you like
  bench                       how fast ensembles train here, beside their peers

  ssa-theory run graph twins
  ssa-theory run graph --preset smoke --seeds 16 --device cpu --out results
  ssa-theory run graph --dim 4 --steps 200 --family erdos-renyi
  ssa-theory run graph --family letters --text-file my_novel.txt
  ssa-theory run graph --family file --graph-file my_network.gml
  ssa-theory run graph --mechanisms vanilla ssa ./mine.py:MINE

`run` and `plot` end with the report, index.html in the folder of the results.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 for a violated property, 2 for bad input, 130
    after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command, *rest = given or [""]
    code = 0
    try:
        if not given:
            print(START, end="")
        elif command == "--version":
            print(f"ssa-theory {metadata.version('ssa-theory')}")
        elif command in ("-h", "--help"):
            print(USAGE)
        elif command not in _COMMANDS:
            question = nearest(command, _COMMANDS) or ":"
            choice = f"choose one of {', '.join(_COMMANDS)}"
            raise ValueError(f"unknown command {command!r}{question} {choice}")
        else:
            code = _COMMANDS[command](rest) or 0
        sys.stdout.flush()  # here, where a failure is reported
    except ValidationError as error:
        fail(explain(error))
        return 2
    except BrokenPipeError:  # the reader of the output, such as `head`, has enough
        # For what Python still flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1  # as rich does
    except (ValueError, MemoryError, OSError) as error:
        fail(str(error) or type(error).__name__)
        return 2
    except torch.OutOfMemoryError as error:
        about = str(error).splitlines()[0]
        fail(f"the device ran out of memory ({about}): use fewer seeds, or --device cpu")
        return 2
    except KeyboardInterrupt:
        fail("stopped; what was finished is kept, run the same command to go on")
        return 130
    return code


def _demo(arguments: Sequence[str]) -> None:
    about = (
        "Train vanilla and selective attention on the friendships of a karate club, 34 people "
        "(Zachary 1977), and draw what they learned."
    )
    options = parse("demo", arguments, about, out=OUT)
    _run([*_DEMO, "--out", str(options.out)])
    print(f"picture: {options.out / 'graph@demo' / 'figure.png'}")


def _list(arguments: Sequence[str]) -> None:
    parse("list", arguments)
    print_experiments(EXPERIMENTS)


def _mechanisms(arguments: Sequence[str]) -> None:
    about = (
        "What attention can wear. s = q . k is the score of vanilla attention, n the number of "
        "keys that a query sees."
    )
    parse("mechanisms", arguments, about)
    print_mechanisms(MECHANISMS)


def _run(arguments: Sequence[str]) -> None:
    experiments, flags = named(arguments)
    if not experiments:
        print(USAGE)
        return
    # Every experiment's flags are checked before the first one trains.
    plans = [(e, parse_run(e, flags_of(e, experiments, flags))) for e in experiments]
    for experiment, options in plans:
        for note in options.config.notes():
            print(f"{experiment.name}: {note}", flush=True)
    common = plans[0][1]
    jobs = [
        (experiment, options.config, options.out.absolute(), _place(experiment, options))
        for experiment, options in plans
    ]
    # No worker is started for what is stored already.
    stored = [job for job in jobs if not common.fresh and is_unchanged(*job)]
    to_train = [job for job in jobs if job not in stored]
    # The workers share the blocks of a single experiment; several experiments are shared out whole.
    alone, local = (1, None), stored
    if len(to_train) == 1:
        alone, local, to_train = (common.workers, common.scheduler), [*stored, *to_train], []
    if common.workers > 1:
        # Those that take longest come last: begun last, one of them would leave a core idle.
        to_train.reverse()
    with progress_display() as progress:
        for part, workers, scheduler in (
            (local, 1, None),
            (to_train, common.workers, common.scheduler),
        ):
            calls = [(*job, common.fresh, *alone) for job in part]
            for place, seconds, claims, trained in run_jobs(
                _run_one, calls, workers, scheduler, progress
            ):
                how = f"run in {seconds:.0f} s" if trained else "unchanged, not run again"
                print_claims(claims, f"{place}: {how}, in {common.out / place}")
    _print_report(common.out)


def _run_one(
    experiment: Experiment,
    config: ExperimentConfig,
    out: Path,
    place: str,
    fresh: bool,
    workers: int,
    scheduler: str | None,
    progress: Progress,
) -> tuple[str, float, list[Claim], bool]:
    """What is printed of one experiment: folder, seconds, claims, and whether it was trained now."""
    start = time.perf_counter()
    _, claims, trained = execute(
        experiment,
        config,
        out,
        fresh,
        lambda about, total: progress(f"{place}: {about}", total),
        workers,
        scheduler,
        place,
    )
    return place, time.perf_counter() - start, claims, trained


def _place(experiment: Experiment, options: Any) -> str:
    """The folder of a run; says where a stored result stays or makes way."""
    place = place_of(experiment, options.config, options.out, options.name)
    if place != experiment.name and not options.name:
        print(
            f"{experiment.name}: {options.out / experiment.name} holds a result of other data or "
            f"settings and stays; this run goes to {options.out / place}",
            flush=True,
        )
    if place == experiment.name:
        way = make_way(experiment, options.config, options.out)
        if way is not None:
            print(f"{experiment.name}: the result that was stored is now in {way}", flush=True)
    return place


def _plot(arguments: Sequence[str]) -> None:
    experiments, flags = named(arguments)
    about = "Redraw figures and claims from stored results, without training."
    options = parse(
        "plot NAME ...", flags, about, out=OUT, name=(str, "", "of the run's own folder")
    )
    with progress_display() as progress:
        for experiment in experiments:
            place = f"{experiment.name}@{options.name}" if options.name else experiment.name
            _, claims = present(experiment, options.out, progress, place)
            print_claims(claims, f"{place}: redrawn in {options.out / place}")
    _print_report(options.out)


def _claims(arguments: Sequence[str]) -> None:
    about = (
        "Print the ledger of the stored results: every test by topic, p-values corrected over all "
        "of them, then one line a topic. The exit code is 0 whatever the verdicts are."
    )
    options = parse("claims", arguments, about, out=OUT)
    entries, sections = read_stored(EXPERIMENTS, options.out)
    if not any(entry.claims for entry in entries):
        raise ValueError(
            f"there are no stored claims in {options.out}: run an experiment, or choose its folder "
            "with --out"
        )
    print_ledger(entries)
    for section in sections:
        if about := section.missing or section.left_out:
            print(f"{section.experiment.name}: {about}")
    for path in sorted(options.out.glob("*@*/result.nc")):
        print(f"{path.parent.name}: left out of the ledger, as a run of its own data or settings")


def _print_report(out: Path) -> None:
    print(f"report: {write_report(EXPERIMENTS, out)}")


def _verify(arguments: Sequence[str]) -> int:
    config = parse("verify", arguments, VerifyConfig.__doc__, VerifyConfig()).config
    properties, seed = config.properties, config.first_seed
    outcomes = {p.name: Outcome(p) for p in properties}
    try:
        with progress_display() as progress:
            for outcome in verify(config.seconds, seed, properties, progress):
                outcomes[outcome.property.name] = outcome
    finally:  # after Ctrl-C too
        violated = print_outcomes(list(outcomes.values()), seed)
    return 1 if violated else 0


def _bench(arguments: Sequence[str]) -> int:
    options = parse("bench", arguments, BenchConfig.__doc__, BenchConfig(), out=OUT)

    def log(line: str) -> None:
        if not sys.stderr.isatty():  # where there is a display, it says so
            print(line, file=sys.stderr, flush=True)

    with progress_display() as progress:
        report = bench(options.config, options.out, progress, log)
    for table in tables(report):
        print_table(table)
        print()
    for note in notes(report):
        print(note)
    if "stopped" in report:
        path = stored_at(report, options.out)
        fail(f"stopped; what was measured is kept in {path}, the same command measures it all anew")
        return 130
    return 0


_DEMO = [
    "graph",
    "--name",
    "demo",
    "--family",
    "karate-club",
    "--seeds",
    "8",
    "--dim",
    "8",
    "--control-steps",
    "0",
]
_COMMANDS: dict[str, Callable[[Sequence[str]], int | None]] = {
    "demo": _demo,
    "list": _list,
    "mechanisms": _mechanisms,
    "run": _run,
    "plot": _plot,
    "claims": _claims,
    "verify": _verify,
    "bench": _bench,
}

if __name__ == "__main__":
    sys.exit(main())
