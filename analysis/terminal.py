"""What the command line prints: tables, progress, and the one sentence of a failure."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Display
from rich.table import Table
from rich.text import Text

from analysis.claims.claim import Claim
from analysis.claims.ledger import Entry
from analysis.experiments.base import Experiment, Progress
from analysis.properties.verify import Outcome
from ssa_theory.mechanism import Mechanism

_LONGEST_SENTENCE = 400


def fail(sentence: str) -> None:
    """One line on standard error; of a long one, such as quotes hundreds of values, its rule and
    its remedy.
    """
    line = " ".join(sentence.split())
    if len(line) > _LONGEST_SENTENCE:
        line = f"{line[: _LONGEST_SENTENCE - 150]} ... {line[-140:]}"
    print(f"ssa-theory: {line}", file=sys.stderr)


def explain(error: ValidationError) -> str:
    """Pydantic's errors as one sentence each."""
    sentences = []
    for one in error.errors():
        name = ".".join(str(part) for part in one["loc"])
        if one["type"] == "value_error" and "ctx" in one:
            sentences.append(str(one["ctx"]["error"]))
        else:
            rule = one["msg"].replace("Input should", "must")
            sentences.append(
                f"{name} {rule[0].lower() + rule[1:]}, got {one['input']!r}: change "
                f"--{name.replace('_', '-')}"
            )
    return "; ".join(sentences)


def print_table(table: Table) -> None:
    """To standard output; unwrapped where that is not a terminal."""
    Console(width=None if sys.stdout.isatty() else 220).print(table)


def print_experiments(experiments: Mapping[str, Experiment]) -> None:
    """Their names and questions."""
    table = Table("experiment", "question", box=None, pad_edge=False)
    for experiment in experiments.values():
        table.add_row(experiment.name, experiment.question)
    print_table(table)


def print_mechanisms(mechanisms: Mapping[str, Mechanism]) -> None:
    """Their names, formulas and sources."""
    table = Table("mechanism", "formula", "source", box=None, pad_edge=False)
    for one in mechanisms.values():
        table.add_row(one.name, Text(one.formula), Text(one.source))
    print_table(table)
    print(
        "joined by +, as in sparsemax+ssa-query; one of your own: PATH.py:NAME, as in "
        "./mine.py:MINE"
    )


def print_claims(claims: Sequence[Claim], title: str) -> None:
    """One line a claim."""
    columns = ("verdict", "estimate [95 % interval]", "holds if", "seeds", "test", "claim")
    table = Table(*columns, title=title, title_justify="left", box=None)
    for claim in claims:
        seeds = f"{claim.estimate.seeds}/{claim.requested_seeds}"
        rule = f"{claim.relation} {claim.threshold:g}"
        table.add_row(claim.verdict, str(claim.estimate), rule, seeds, claim.id, claim.sentence)
    print_table(table)


def print_ledger(entries: Sequence[Entry]) -> None:
    """Every test by topic, then one line a topic."""
    for entry in entries:
        if entry.claims:
            print_claims(entry.claims, f"{entry.topic.sentence} ({entry.topic.source})")
            print()
    columns = ("verdict", "estimate [95 % interval]", "tests +/-/?", "claim")
    table = Table(*columns, title="Ledger", title_justify="left", box=None)
    for entry in entries:
        counts = "/".join(str(n) for n in entry.counts.values())
        estimate = "" if entry.claim is None else str(entry.claim.estimate)
        table.add_row(entry.verdict or "not run", estimate, counts, entry.topic.sentence)
    print_table(table)


def print_outcomes(outcomes: Sequence[Outcome], seed: int) -> int:
    """What `verify` tried, from this seed on; returns how many properties are violated."""
    columns = ("cases survived", "verdict", "property", "what holds")
    table = Table(*columns, box=None, title_justify="left")
    for o in outcomes:
        table.add_row(f"{o.cases:,}", o.verdict, o.property.name, Text(o.property.sentence))
    print_table(table)
    violations = ((o.property.name, o.counterexample) for o in outcomes)
    violated = [(name, against) for name, against in violations if against is not None]
    for name, against in violated:
        print(f"{name} is violated: {against}")
        print(f"  again: ssa-theory verify --only {name} --seed {against.seed}")
    cases = sum(o.cases for o in outcomes)
    print(
        f"{len(outcomes)} properties, {cases:,} cases, {len(violated)} violated (from seed {seed})"
    )
    return len(violated)


@contextmanager
def progress_display() -> Iterator[Progress]:
    """A progress display on standard error; a finished bar makes room."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Where standard output is no terminal it must not pass through the display, which writes to
    # standard error.
    console, redirect = Console(stderr=True), sys.stdout.isatty()
    with Display(*columns, console=console, redirect_stdout=redirect) as display:

        def start(description: str, total: int) -> Callable[[int], None]:
            task = display.add_task(description, total=total)

            def advance(finished: int) -> None:
                display.advance(task, finished)
                if display.tasks and all(t.finished for t in display.tasks if t.id == task):
                    display.update(task, visible=False)

            return advance

        yield start
