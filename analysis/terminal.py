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

from analysis.claims.claim import Claim, Test, checks_of, tests_of
from analysis.claims.ledger import Entry, Ledger
from analysis.claims.registry import registry
from analysis.claims.rule import outcome
from analysis.claims.words import effect_of, effects_of
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
    """One line a test, by topic and cell, and one a check."""
    topics = registry().topics
    if tests := tests_of(claims):
        columns = ("outcome", "effect (interval)", "seeds", "topic", "cell", "measure")
        table = Table(*columns, title=title, title_justify="left", box=None)
        for test in tests:
            known = test.topic in topics
            said = outcome(topics[test.topic], test) if known else "no topic of the registry"
            effect = effect_of(test) if known else str(test.effect)
            cell = ", ".join(test.cell.values())
            table.add_row(said, effect, _seeds(test), test.topic, Text(cell), test.measure)
        print_table(table)
    if checks := checks_of(claims):
        columns = ("check", "estimate [95 % interval]", "passes if", "seeds", "what")
        table = Table(*columns, title=None if tests else title, title_justify="left", box=None)
        for check in checks:
            seeds = f"{check.estimate.seeds}/{check.requested_seeds}"
            rule = f"{check.relation} {check.threshold:g}"
            table.add_row(check.passed, str(check.estimate), rule, seeds, Text(check.sentence))
        print_table(table)


def print_topics(found: Ledger) -> None:
    """One line a topic: verdict, sentence, and when."""
    table = Table("verdict", "topic", "claim", "when", "effects over cells", box=None)
    for entry in found.entries:
        verdict = f"{entry.verdict} (post hoc)" if entry.post_hoc else entry.verdict
        sentence, when = Text(entry.topic.sentence), Text(entry.when)
        table.add_row(verdict, entry.topic.name, sentence, when, Text(effects_of(entry)))
    print_table(table)
    passed = sum(check.passed == "passed" for check in found.checks)
    print(f"the instrument: {passed} of {len(found.checks)} checks passed")
    for check in (c for c in found.checks if c.passed != "passed"):
        print(f"  {check.passed}: {check.sentence} ({check.id}: {check.estimate})")
    print("every cell of a topic: ssa-theory claims TOPIC")


def print_topic(entry: Entry) -> None:
    """A topic with all of its cells."""
    topic = entry.topic
    print(f"{topic.sentence} ({topic.source})")
    print(f"{entry.verdict}: {entry.when}")
    table = Table(*topic.factors, "measure", "outcome", "effect (interval)", "seeds", box=None)
    for cell in entry.cells:
        for name, test in cell.tests.items():
            told = ("not run", "") if test is None else (effect_of(test), _seeds(test))
            table.add_row(*map(Text, cell.cell), name, cell.outcomes[name], *told)
    for test in entry.outside:
        levels = [Text(test.cell.get(factor, "")) for factor in topic.factors]
        table.add_row(*levels, test.measure, "outside", effect_of(test), _seeds(test))
    print_table(table)


def _seeds(test: Test) -> str:
    return f"{test.effect.seeds}/{test.requested_seeds}"


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
