"""The ledger: every topic of the registry with its cells, verdict and *when*, and the instrument's
checks apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from analysis.claims.claim import Check, Claim, Test, checks_of, tests_of, to_dict
from analysis.claims.registry import Registry, Topic, of_name
from analysis.claims.rule import (
    JudgedCell,
    Verdict,
    cell_of,
    judge_cells,
    on_edge,
    verdict,
    when,
)


@dataclass(frozen=True)
class Entry:
    """A topic with its evidence.

    cells: the declared scope, judged. outside: tests of the topic that its scope does not declare;
    they are shown and decide nothing. post_hoc: whether some result is older than the topic's
    present form.
    """

    topic: Topic
    cells: tuple[JudgedCell, ...]
    outside: tuple[Test, ...] = ()
    post_hoc: bool = False

    @property
    def verdict(self) -> Verdict:
        """By the rule."""
        return verdict(self.cells)

    @cached_property
    def on_edge(self) -> bool:
        """Whether other seeds may give another verdict."""
        return on_edge(self.topic, self.cells)

    @property
    def notes(self) -> list[str]:
        """What a reader has to know of the verdict."""
        notes = {"on the edge": self.on_edge, "post hoc": self.post_hoc}
        return [note for note, holds in notes.items() if holds]

    @property
    def verdict_with_notes(self) -> str:
        """The verdict with its notes."""
        return f"{self.verdict} ({', '.join(self.notes)})" if self.notes else self.verdict

    @property
    def when(self) -> str:
        """Where the sentence holds and where it fails."""
        return when(self.topic, self.cells)

    @property
    def tests(self) -> list[Test]:
        """Those of the scope, as far as they are there."""
        return [t for cell in self.cells for t in cell.tests.values() if t is not None]


@dataclass(frozen=True)
class Ledger:
    """entries: by topic, in the registry's order. checks: the instrument. unknown: tests of which the
    registry does not declare topic or measure, such as of an experiment of the user's own.
    """

    entries: tuple[Entry, ...]
    checks: tuple[Check, ...]
    unknown: tuple[Test, ...] = ()

    def entry(self, topic: str) -> Entry:
        """That of a topic. Raises ValueError for an unknown one, with the nearest names."""
        return of_name("topic", topic, {entry.topic.name: entry for entry in self.entries})


@dataclass(frozen=True)
class Evidence:
    """The claims of one result.

    hashes: by topic, those of the registry under which it was made; None for that of this version.
    declared: whether it was made with the settings that the registry is about, those of the preset
    `paper` or `large`; if not, its tests stand outside of every scope.
    """

    claims: tuple[Claim, ...]
    hashes: Mapping[str, str] | None = None
    declared: bool = True


def ledger_of(evidence: Sequence[Evidence], registry: Registry) -> Ledger:
    """All claims by topic."""
    every = [(one, test) for one in evidence for test in tests_of(one.claims)]
    tests = [(one, test) for one, test in every if registry.declares(test.topic, test.measure)]
    entries = []
    for topic in registry.topics.values():
        inside, outside, post_hoc = [], [], False
        for one, test in tests:
            if test.topic != topic.name:
                continue
            if one.declared and cell_of(topic, test) is not None:
                inside.append(test)
                post_hoc |= one.hashes is not None and one.hashes.get(topic.name) != topic.hash
            else:
                outside.append(test)
        entries.append(Entry(topic, judge_cells(topic, inside), tuple(outside), post_hoc))
    checks = [check for one in evidence for check in checks_of(one.claims)]
    unknown = [t for _, t in every if not registry.declares(t.topic, t.measure)]
    return Ledger(tuple(entries), tuple(checks), tuple(unknown))


def as_record(entries: Sequence[Entry], checks: Sequence[Check]) -> dict[str, Any]:
    """Topics with their verdicts and cells, and checks, for JSON."""
    return {
        "topics": [
            entry.topic.model_dump(exclude={"without"})
            | {"verdict": entry.verdict, "on_edge": entry.on_edge, "when": entry.when}
            | {"post_hoc": entry.post_hoc}
            | {"cells": [_cell_record(entry.topic, cell) for cell in entry.cells]}
            | {"outside": [to_dict(test) for test in entry.outside]}
            for entry in entries
        ],
        "checks": [to_dict(check) | {"passed": check.passed} for check in checks],
    }


def _cell_record(topic: Topic, cell: JudgedCell) -> dict[str, Any]:
    tests = {
        name: {"outcome": cell.outcomes[name]} | ({} if test is None else to_dict(test))
        for name, test in cell.tests.items()
    }
    return dict(zip(topic.factors, cell.cell, strict=True)) | {
        "status": cell.status,
        "tests": tests,
    }
