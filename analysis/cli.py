"""The command line: list, run, plot, claims, verify, bench."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field, make_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Display
from rich.table import Table
from rich.text import Text

from analysis.bench.bench import bench, stored_at
from analysis.bench.config import BenchConfig
from analysis.bench.tables import notes, tables
from analysis.claims.claim import Claim
from analysis.experiments import EXPERIMENTS, Experiment, Preset
from analysis.experiments.base import PRESETS, Progress
from analysis.properties.verify import Outcome, VerifyConfig, verify
from analysis.report.report import read_stored, write_report
from analysis.run.cluster import run_jobs
from analysis.run.runner import execute, is_unchanged, present
from analysis.store.config import ExperimentConfig, TrainingConfig
from ssa_theory.mechanism import MECHANISMS

USAGE = """\
usage: ssa-theory COMMAND ...

  list                        the experiments and their questions
  mechanisms                  what attention can wear: formulas, sources, parameters
  run NAME ... | all          run, store, draw, test the claims; `run NAME --help` lists every setting
  plot NAME ... | all         redraw figures and claims from stored results, without training
  claims                      the ledger: every claim with its verdict, from what is stored
  verify                      try the theory's properties on fresh random cases, for as long as you like
  bench                       how fast ensembles train here, beside their peers

  ssa-theory run graph twins
  ssa-theory run graph --preset smoke --seeds 16 --device cpu --out results
  ssa-theory run graph --dim 4 --steps 200 --family erdos-renyi
  ssa-theory run graph --family letters --text-file my_novel.txt
  ssa-theory run graph --mechanisms vanilla ssa ./mine.py:MINE

`run` and `plot` end with the report, index.html in the folder of the results.
"""
_OUT = Annotated[Path, tyro.conf.arg(help="folder of the results; each experiment has its own below it")]
_LONGEST_SENTENCE = 400
_FLAGS = (tyro.conf.FlagCreatePairsOff,)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 for a violated property, 2 for bad input, 130 after Ctrl-C."""
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    code = 0
    try:
        if command in ("-h", "--help"):
            print(USAGE)
        elif command not in _COMMANDS:
            raise ValueError(f"unknown command {command!r}: choose one of {', '.join(_COMMANDS)}")
        else:
            code = _COMMANDS[command](rest) or 0
        sys.stdout.flush()  # here, where a failure is told of
    except ValidationError as error:
        _fail(_explain(error))
        return 2
    except BrokenPipeError:  # the reader of the output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still flushes at its end
        return 1  # as rich does
    except (ValueError, MemoryError, OSError) as error:
        _fail(str(error) or type(error).__name__)
        return 2
    except torch.OutOfMemoryError as error:
        _fail(f"the device ran out of memory ({str(error).splitlines()[0]}): use fewer seeds, or --device cpu")
        return 2
    except KeyboardInterrupt:
        _fail("stopped; what was finished is kept, run the same command to go on")
        return 130
    return code


def _fail(sentence: str) -> None:
    """One line on standard error; of a long one, such as quotes hundreds of values, its rule and its remedy."""
    line = " ".join(sentence.split())
    if len(line) > _LONGEST_SENTENCE:
        line = f"{line[: _LONGEST_SENTENCE - 150]} ... {line[-140:]}"
    print(f"ssa-theory: {line}", file=sys.stderr)


def _explain(error: ValidationError) -> str:
    """Pydantic's findings as one sentence each."""
    sentences = []
    for found in error.errors():
        name = ".".join(str(part) for part in found["loc"])
        if found["type"] == "value_error" and "ctx" in found:
            sentences.append(str(found["ctx"]["error"]))
        else:
            rule = found["msg"].replace("Input should", "must").replace("must be", "must be", 1)
            sentences.append(
                f"{name} {rule[0].lower() + rule[1:]}, got {found['input']!r}: change --{name.replace('_', '-')}"
            )
    return "; ".join(sentences)


def _names(arguments: Sequence[str]) -> tuple[list[Experiment], list[str]]:
    """The experiments named before the first flag, and the flags."""
    split = next((i for i, a in enumerate(arguments) if a.startswith("-")), len(arguments))
    names, flags = list(arguments[:split]), list(arguments[split:])
    if names == ["all"]:
        names = list(EXPERIMENTS)
    for name in names:
        if name not in EXPERIMENTS:
            raise ValueError(f"unknown experiment {name!r}: choose from {', '.join(EXPERIMENTS)}, or all")
    if not names and not {"-h", "--help"} & set(flags):
        raise ValueError(f"no experiment was named: choose from {', '.join(EXPERIMENTS)}, or all")
    return [EXPERIMENTS[name] for name in dict.fromkeys(names)], flags


def _list(arguments: Sequence[str]) -> None:
    tyro.cli(make_dataclass("List", []), args=list(arguments), prog="ssa-theory list")
    table = Table("experiment", "question", box=None, pad_edge=False)
    for experiment in EXPERIMENTS.values():
        table.add_row(experiment.name, experiment.question)
    _print(table)


def _mechanisms(arguments: Sequence[str]) -> None:
    tyro.cli(
        make_dataclass("Mechanisms", []),
        args=list(arguments),
        prog="ssa-theory mechanisms",
        description="What attention can wear. s is the score q . k of vanilla attention, n the number of keys.",
    )
    table = Table("mechanism", "formula", "source", box=None, pad_edge=False)
    for one in MECHANISMS.values():
        table.add_row(one.name, Text(one.formula), Text(one.source))
    _print(table)
    print("joined by +, as in sparsemax+ssa-query; one of your own: PATH.py:NAME, as in ./mine.py:MINE")


def _run(arguments: Sequence[str]) -> None:
    experiments, flags = _names(arguments)
    if not experiments:
        print(USAGE)
        return
    # Every experiment's flags are checked before the first one trains.
    plans = [
        (experiment, _parse_run(experiment, _flags_of(experiment, experiments, flags))) for experiment in experiments
    ]
    common = plans[0][1]
    jobs = [(experiment, options.config, options.out.absolute(), options.fresh) for experiment, options in plans]
    # No worker is started for what is stored already.
    stored = [job for job in jobs if not common.fresh and is_unchanged(*job[:3])]
    to_train = [job for job in jobs if job not in stored]
    # The workers share the blocks of a single experiment; several experiments are shared out whole.
    alone, here = (1, None), stored
    if len(to_train) == 1:
        alone, here, to_train = (common.workers, common.scheduler), [*stored, *to_train], []
    if common.workers > 1:
        to_train.reverse()  # those that take longest come last: begun last, one of them would leave a core idle
    with _progress() as progress:
        for part, workers, scheduler in ((here, 1, None), (to_train, common.workers, common.scheduler)):
            calls = [(*job, *alone) for job in part]
            done = run_jobs(_run_one, calls, workers, scheduler, progress)
            for name, seconds, claims, trained in done:
                how = f"run in {seconds:.0f} s" if trained else "unchanged, not run again"
                _print_claims(claims, f"{name}: {how}, in {common.out / name}")
    _print_report(common.out)


def _run_one(
    experiment: Experiment,
    config: ExperimentConfig,
    out: Path,
    fresh: bool,
    workers: int,
    scheduler: str | None,
    progress: Progress,
) -> tuple[str, float, list[Claim], bool]:
    """What is printed of one experiment: name, seconds, claims, and whether it was trained now."""
    name = experiment.name
    start = time.perf_counter()
    _, claims, trained = execute(
        experiment, config, out, fresh, lambda about, total: progress(f"{name}: {about}", total), workers, scheduler
    )
    return name, time.perf_counter() - start, claims, trained


def _flags_of(experiment: Experiment, experiments: Sequence[Experiment], flags: Sequence[str]) -> list[str]:
    """The flags without those that only others of the named experiments have, of the ones that most have in common.

    So `run all --device cpu` runs what has no device, too; a flag that no experiment named has is refused as any unknown one.
    """
    elsewhere = {
        name for other in experiments for name in other.config.model_fields if name in TrainingConfig.model_fields
    }
    theirs = elsewhere - set(experiment.config.model_fields)
    kept, own = [], True
    for word in flags:
        if word.startswith("--"):
            name = word.split("=")[0].removeprefix("--").removeprefix("no-").replace("-", "_")
            own = name not in theirs
        if own:
            kept.append(word)
    return kept


def _parse_run(experiment: Experiment, flags: Sequence[str]) -> Any:
    """Every config field is a flag, from its type; its default comes from the preset."""
    preset = next((b for a, b in pairwise(flags) if a == "--preset"), "paper")
    preset = next((a.split("=", 1)[1] for a in flags if a.startswith("--preset=")), preset)
    config = experiment.preset(preset if preset in PRESETS else "paper")  # tyro refuses an unknown one below
    kinds = [
        ("config", Annotated[experiment.config, tyro.conf.arg(name="")], config),
        (
            "preset",
            Annotated[Preset, tyro.conf.arg(help="defaults: smoke (seconds), paper (64+ seeds), large")],
            "paper",
        ),
        ("out", _OUT, Path("results")),
        ("fresh", Annotated[bool, tyro.conf.arg(help="run even if the stored result is unchanged")], False),
        (
            "workers",
            Annotated[int, tyro.conf.arg(help="processes that share the experiments, or the blocks of one")],
            1,
        ),
        (
            "scheduler",
            Annotated[str | None, tyro.conf.arg(help="address of a running Dask cluster, such as tcp://host:8786")],
            None,
        ),
    ]
    options = make_dataclass("Run", [(name, kind, field(default=value)) for name, kind, value in kinds])
    prog = f"ssa-theory run {experiment.name}"
    return tyro.cli(options, args=list(flags), prog=prog, description=experiment.question, config=_FLAGS)


def _plot(arguments: Sequence[str]) -> None:
    experiments, flags = _names(arguments)
    options = tyro.cli(
        make_dataclass("Plot", [("out", _OUT, field(default=Path("results")))]),
        args=flags,
        prog="ssa-theory plot NAME ...",
        description="Redraw figures and claims from stored results, without training.",
    )
    with _progress() as progress:
        for experiment in experiments:
            _, claims = present(experiment, options.out, progress)
            _print_claims(claims, f"{experiment.name}: redrawn in {options.out / experiment.name}")
    _print_report(options.out)


def _claims(arguments: Sequence[str]) -> None:
    options = tyro.cli(
        make_dataclass("Claims", [("out", _OUT, field(default=Path("results")))]),
        args=list(arguments),
        prog="ssa-theory claims",
        description="Print the ledger of the stored results: every test by topic, p-values corrected over all of them, then "
        "one line a topic. The exit code is 0 whatever the verdicts are.",
    )
    entries, sections = read_stored(EXPERIMENTS, options.out)
    if not any(entry.claims for entry in entries):
        raise ValueError(
            f"there are no stored claims in {options.out}: run an experiment, or choose its folder with --out"
        )
    for entry in entries:
        if entry.claims:
            _print_claims(entry.claims, f"{entry.topic.sentence} ({entry.topic.source})")
            print()
    table = Table(
        "verdict", "estimate [95 % interval]", "tests +/-/?", "claim", title="Ledger", title_justify="left", box=None
    )
    for entry in entries:
        counts = "/".join(str(n) for n in entry.counts.values())
        found = "" if entry.claim is None else str(entry.claim.estimate)
        table.add_row(entry.verdict or "not run", found, counts, entry.topic.sentence)
    _print(table)
    for section in sections:
        if section.missing:
            print(f"{section.experiment.name}: {section.missing}")


def _print_report(out: Path) -> None:
    print(f"report: {write_report(EXPERIMENTS, out)}")


def _verify(arguments: Sequence[str]) -> int:
    options = make_dataclass(
        "Verify", [("config", Annotated[VerifyConfig, tyro.conf.arg(name="")], field(default=VerifyConfig()))]
    )
    config = tyro.cli(
        options, args=list(arguments), prog="ssa-theory verify", description=VerifyConfig.__doc__, config=_FLAGS
    ).config
    properties, seed = config.properties, config.first_seed
    outcomes = {p.name: Outcome(p) for p in properties}
    try:
        with _progress() as progress:
            for outcome in verify(config.seconds, seed, properties, progress):
                outcomes[outcome.property.name] = outcome
    finally:  # after Ctrl-C too
        table = Table("cases survived", "verdict", "property", "what holds", box=None, title_justify="left")
        for o in outcomes.values():
            table.add_row(f"{o.cases:,}", o.verdict, o.property.name, Text(o.property.sentence))
        _print(table)
        found = ((o.property.name, o.counterexample) for o in outcomes.values())
        violated = [(name, against) for name, against in found if against is not None]
        for name, against in violated:
            print(f"{name} is violated: {against}")
            print(f"  again: ssa-theory verify --only {name} --seed {against.seed}")
        cases = sum(o.cases for o in outcomes.values())
        print(f"{len(outcomes)} properties, {cases:,} cases, {len(violated)} violated (from seed {seed})")
    return 1 if violated else 0


def _bench(arguments: Sequence[str]) -> int:
    options = make_dataclass(
        "Bench",
        [
            ("config", Annotated[BenchConfig, tyro.conf.arg(name="")], field(default=BenchConfig())),
            ("out", _OUT, field(default=Path("results"))),
        ],
    )
    options = tyro.cli(
        options, args=list(arguments), prog="ssa-theory bench", description=BenchConfig.__doc__, config=_FLAGS
    )

    def tell(line: str) -> None:
        if not sys.stderr.isatty():  # where there is a display, it says so
            print(line, file=sys.stderr, flush=True)

    with _progress() as progress:
        report = bench(options.config, options.out, progress, tell)
    for table in tables(report):
        _print(table)
        print()
    for note in notes(report):
        print(note)
    if "stopped" in report:
        _fail(
            f"stopped; what was measured is kept in {stored_at(report, options.out)}, the same command measures it all anew"
        )
        return 130
    return 0


def _print_claims(claims: Sequence[Claim], title: str) -> None:
    columns = ("verdict", "estimate [95 % interval]", "holds if", "seeds", "test", "claim")
    table = Table(*columns, title=title, title_justify="left", box=None)
    for claim in claims:
        seeds = f"{claim.estimate.seeds}/{claim.asked}"
        rule = f"{claim.relation} {claim.threshold:g}"
        table.add_row(claim.verdict, str(claim.estimate), rule, seeds, claim.id, claim.sentence)
    _print(table)


def _print(table: Table) -> None:
    """To standard output; unwrapped where that is not a terminal."""
    Console(width=None if sys.stdout.isatty() else 220).print(table)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A progress display on standard error; a finished bar makes room."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    # Where standard output is no terminal it must not pass through the display, which writes to standard error.
    console, both = Console(stderr=True), sys.stdout.isatty()
    with Display(*columns, console=console, redirect_stdout=both) as display:

        def start(description: str, total: int) -> Callable[[int], None]:
            task = display.add_task(description, total=total)

            def advance(finished: int) -> None:
                display.advance(task, finished)
                if display.tasks and all(t.finished for t in display.tasks if t.id == task):
                    display.update(task, visible=False)

            return advance

        yield start


_COMMANDS: dict[str, Callable[[Sequence[str]], int | None]] = {
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
