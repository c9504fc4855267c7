"""Claims and the ledger on a terminal."""

from collections.abc import Sequence

from analysis.claims.claim import Check, Claim, Test, checks_of, tests_of
from analysis.claims.ledger import Entry, Ledger
from analysis.claims.registry import registry
from analysis.claims.rule import outcome
from analysis.claims.words import effect_of, effects_of
from analysis.terminal import print_rows


def print_claims(claims: Sequence[Claim], title: str) -> None:
    """One line a test, by topic and cell, and one a check; without any the title."""
    if tests := tests_of(claims):
        heads = ("outcome", "effect (interval)", "seeds", "topic", "measure", "cell")
        print_rows(heads, [_row(test) for test in tests], title)
    if checks := checks_of(claims):
        heads = ("check", "estimate [95 % interval]", "passes if", "seeds", "what")
        print_rows(heads, [_check_row(check) for check in checks], None if tests else title)
    if not claims:
        print(title)


def _row(test: Test) -> tuple[str, ...]:
    said, effect = "not in the registry", str(test.effect)
    if registry().declares(test.topic, test.measure):
        said, effect = outcome(registry().topics[test.topic], test), effect_of(test)
    return said, effect, _seeds(test), test.topic, test.measure, ", ".join(test.cell.values())


def _check_row(check: Check) -> tuple[str, ...]:
    seeds = f"{check.estimate.seeds}/{check.requested_seeds}"
    rule = f"{check.relation} {check.threshold:g}"
    return check.passed, str(check.estimate), rule, seeds, check.sentence


def print_topics(ledger: Ledger) -> None:
    """One line a topic: verdict, sentence, and when."""
    rows = []
    for entry in ledger.entries:
        rows.append(
            (entry.verdict_with_notes, entry.topic.name, f"{entry.topic.sentence} It {entry.when}.")
        )
    print_rows(("verdict", "topic", "claim, and when"), rows)
    passed = sum(check.passed == "passed" for check in ledger.checks)
    print(f"the instrument: {passed} of {len(ledger.checks)} checks passed")
    for check in (c for c in ledger.checks if c.passed != "passed"):
        print(f"  {check.passed}: {check.sentence} ({check.id}: {check.estimate})")
    print("every cell of a topic: ssa-theory claims TOPIC")


def print_differences(entries: Sequence[Entry], there: Ledger) -> None:
    """The topics of another verdict there, and how many cells of each are of another status."""
    rows = []
    for entry in entries:
        other = there.entry(entry.topic.name)
        if other.verdict != entry.verdict:
            pairs = zip(entry.cells, other.cells, strict=True)
            cells = sum(a.status != b.status for a, b in pairs)
            rows.append(
                (
                    entry.topic.name,
                    entry.verdict_with_notes,
                    other.verdict_with_notes,
                    f"{cells}/{len(entry.cells)}",
                )
            )
    if rows:
        print_rows(("topic", "here", "there", "cells that differ"), rows)
    print(f"{len(rows)} of {len(entries)} verdicts differ")


def print_topic(entry: Entry) -> None:
    """A topic with all of its cells."""
    topic = entry.topic
    print(f"{topic.sentence} ({topic.source})")
    print(f"{entry.verdict_with_notes}: {entry.when}")
    if effects := effects_of(entry):
        print(f"median over cells (least to most): {effects}")
    rows = []
    for cell in entry.cells:
        for name, test in cell.tests.items():
            effect, seeds = ("not run", "") if test is None else (effect_of(test), _seeds(test))
            rows.append((*cell.cell, name, cell.outcomes[name], effect, seeds))
    for test in entry.outside:
        levels = [test.cell.get(factor, "") for factor in topic.factors]
        rows.append((*levels, test.measure, "outside", effect_of(test), _seeds(test)))
    print_rows((*topic.factors, "measure", "outcome", "effect (interval)", "seeds"), rows)


def _seeds(test: Test) -> str:
    return f"{test.effect.seeds}/{test.requested_seeds}"
