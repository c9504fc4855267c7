"""The rule that turns tests into verdicts: pure functions of a topic and its tests.

A test's interval is compared with the topic's margin; a cell needs every primary measure; a topic
counts its cells. No test decides alone, none can be left out without being missed, and what the
registry does not declare decides nothing.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from analysis.claims.claim import Outcome, Test
from analysis.claims.registry import Cell, Topic
from analysis.claims.statistics import EXACT, FEWEST

Side = Literal["benefit", "harm", "equivalent", "unresolved"]
Status = Literal["holds", "fails", "open", "missing"]
STATUSES: tuple[Status, ...] = get_args(Status)
Verdict = Literal[
    "supported", "partly supported", "mixed", "inconclusive", "not supported", "incomplete"
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""From the best for a topic to the worst: `incomplete` is no verdict."""
MOST_LOST = 0.05
"""A test that lost a larger share of its seeds counts as missing."""


def outcome(topic: Topic, test: Test | None) -> Outcome:
    """What one test says of the topic's sentence.

    `benefit` where the interval of the effect lies above the margin, `harm` below its negative,
    `equivalent` within, else `unresolved`. Where the sentence is that something is reached, the
    margin is allowed for: `benefit` above its negative, `harm` below. Fewer than `FEWEST` seeds
    resolve nothing. `missing` without a test, or where it lost more than `MOST_LOST` of its seeds.
    """
    if test is None or test.lost > MOST_LOST or math.isnan(test.effect.value):
        return "missing"
    effect, delta = test.effect, topic.delta
    if effect.method != EXACT and effect.seeds < FEWEST:
        return "unresolved"
    if topic.reaches:
        return (
            "benefit" if effect.low > -delta else "harm" if effect.high < -delta else "unresolved"
        )
    return side(effect.low, effect.high, delta)


def side(low: float, high: float, delta: float) -> Side:
    """On which side of a margin an interval lies; `unresolved` where it crosses one, or is NaN."""
    if low > delta:
        return "benefit"
    if high < -delta:
        return "harm"
    return "equivalent" if -delta < low and high < delta else "unresolved"


@dataclass(frozen=True)
class JudgedCell:
    """A cell of the scope with its test of each primary measure, None where there is none."""

    cell: Cell
    tests: Mapping[str, Test | None]
    outcomes: Mapping[str, Outcome]

    @property
    def status(self) -> Status:
        """`fails` with one harm or equivalence, `missing` with one test missing, `holds` where every
        measure benefits, else `open`.
        """
        of = set(self.outcomes.values())
        if of & {"harm", "equivalent"}:
            return "fails"
        if "missing" in of:
            return "missing"
        return "holds" if of == {"benefit"} else "open"


def cell_of(topic: Topic, test: Test) -> Cell | None:
    """Where in the declared scope a test stands; None outside of it."""
    if test.topic != topic.name or test.measure not in topic.measures:
        return None
    if set(test.cell) != set(topic.factors):
        return None
    cell = tuple(test.cell[factor] for factor in topic.factors)
    return cell if cell in topic.cells else None


def judge_cells(topic: Topic, tests: Sequence[Test]) -> tuple[JudgedCell, ...]:
    """Every declared cell with what there is of it.

    Two tests of one cell and measure are one test: that which favours the sentence less.
    """
    there: dict[tuple[Cell, str], Test] = {}
    for test in tests:
        cell = cell_of(topic, test)
        if cell is None:
            continue
        key = (cell, test.measure)
        there[key] = test if key not in there else min(there[key], test, key=_favour)
    return tuple(
        _judged(topic, cell, {m: there.get((cell, m)) for m in topic.measures})
        for cell in topic.cells
    )


def _judged(topic: Topic, cell: Cell, tests: Mapping[str, Test | None]) -> JudgedCell:
    return JudgedCell(cell, tests, {m: outcome(topic, t) for m, t in tests.items()})


def _favour(test: Test) -> tuple[bool, float]:
    """How much a test favours its sentence; one that counts as missing favours it least."""
    return (test.lost <= MOST_LOST and not math.isnan(test.effect.value), test.effect.low)


def verdict(cells: Sequence[JudgedCell]) -> Verdict:
    """`supported` (every cell holds), `not supported` (none holds, some fail), `mixed` (some hold,
    some fail), `partly supported` (some hold, the rest is open), `inconclusive` (all open).

    With a missing cell, and none that fails, it is `incomplete`: nothing good is said of a topic
    whose scope was not run.
    """
    statuses = [cell.status for cell in cells]
    holds, fails = statuses.count("holds"), statuses.count("fails")
    if holds and fails:
        return "mixed"
    if fails:
        return "not supported"
    if "missing" in statuses:
        return "incomplete"
    if holds == len(statuses):
        return "supported"
    return "partly supported" if holds else "inconclusive"


def on_edge(topic: Topic, cells: Sequence[JudgedCell]) -> bool:
    """Whether the verdict becomes another one when a single test moves, either way, by sqrt(2) halves
    of its interval: as far as two estimates of other seeds each may lie apart.
    """
    unmoved = verdict(cells)
    for place, cell in enumerate(cells):
        for name, test in cell.tests.items():
            for other in [] if test is None else [_moved(test, way) for way in (-1, 1)]:
                moved = _judged(topic, cell.cell, {**cell.tests, name: other})
                others = [*cells[:place], moved, *cells[place + 1 :]]
                if moved.status != cell.status and verdict(others) != unmoved:
                    return True
    return False


def _moved(test: Test, way: int) -> Test:
    effect = test.effect
    by = way * (effect.high - effect.low) / math.sqrt(2)
    ends = {"value": effect.value + by, "low": effect.low + by, "high": effect.high + by}
    return replace(test, effect=replace(effect, **ends))


def when(topic: Topic, cells: Sequence[JudgedCell]) -> str:
    """Where the sentence holds and where it fails, by the fewest factors that separate the two. A
    predicate, to follow "It".

    One factor, else two, whose levels never have both a holding and a failing cell. Open and missing
    cells separate nothing; they are counted.
    """
    by = {s: [c.cell for c in cells if c.status == s] for s in STATUSES}
    rest = [
        f"{len(by[s])} of {len(cells)} {_cells(len(cells))} {s}"
        for s in ("open", "missing")
        if by[s] and len(by[s]) < len(cells)
    ]
    if not by["holds"] and not by["fails"]:
        unresolved = " or ".join(s for s in ("open", "missing") if by[s])
        return f"is not resolved: all {len(cells)} {_cells(len(cells))} {unresolved}"
    if not by["holds"] or not by["fails"]:
        (status,) = (s for s in ("holds", "fails") if by[s])
        where = f"in all {len(cells)} {_cells(len(cells))}"
        if rest:
            where = f"in {len(by[status])} of {len(cells)} {_cells(len(cells))}"
        return "; ".join([f"{status} {where}", *rest])
    names = list(topic.factors)
    for size in (1, 2):
        for chosen in itertools.combinations(range(len(names)), size):
            parts = {s: {tuple(c[i] for i in chosen) for c in by[s]} for s in ("holds", "fails")}
            if not parts["holds"] & parts["fails"]:
                factors = [names[i] for i in chosen]
                clauses = [f"{s} where {_levels(topic, factors, parts[s])}" for s in parts]
                return "; ".join(clauses + rest)
    counts = f"holds in {len(by['holds'])} and fails in {len(by['fails'])} of {len(cells)} cells"
    return "; ".join([f"{counts}, which no two factors separate", *rest])


def _cells(count: int) -> str:
    return "cell" if count == 1 else "cells"


def _levels(topic: Topic, factors: Sequence[str], parts: set[tuple[str, ...]]) -> str:
    """`factor is a, b`, or for two factors each pair, in the order of the levels."""
    order = [topic.factors[factor] for factor in factors]
    ordered = [p for p in itertools.product(*order) if p in parts]
    if len(factors) == 1:
        return f"{factors[0]} is {_listed([p[0] for p in ordered])}"
    first: dict[tuple[str, ...], list[str]] = {}
    for level in order[0]:  # levels of the first factor that meet the same of the second
        same = tuple(b for a, b in ordered if a == level)
        if same:
            first.setdefault(same, []).append(level)
    return " or ".join(
        f"{factors[0]} is {_listed(levels)} and {factors[1]} {_listed(list(same))}"
        for same, levels in first.items()
    )


def _listed(levels: Sequence[str]) -> str:
    return levels[0] if len(levels) == 1 else f"{', '.join(levels[:-1])} or {levels[-1]}"
