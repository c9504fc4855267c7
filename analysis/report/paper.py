"""The paper's table: what the paper says, its number beside ours, and a status that is computed from
the cells of our topics.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.claims.ledger import Entry, Ledger
from analysis.claims.registry import registry
from analysis.claims.rule import JudgedCell, Status
from analysis.claims.words import amount, effect_of
from analysis.report.paper_rows import PAPER, Row


@dataclass(frozen=True)
class Line:
    """A row with its result. ours: our effect with its interval. status: `holds`, `holds as
    corrected`, `fails`, `vacuous`, `mixed`, `open`, `not run` or `out of scope`.
    """

    row: Row
    status: str
    ours: str = ""


def paper_table(ledger: Ledger, rows: tuple[Row, ...] = PAPER) -> list[Line]:
    """Every row with its status, computed from the cells that it means."""
    entries = {entry.topic.name: entry for entry in ledger.entries}
    return [
        _line(row, entries[row.topic]) if row.topic else Line(row, "out of scope") for row in rows
    ]


def _line(row: Row, entry: Entry) -> Line:
    meant = cells_at(entry, row.at)
    statuses: list[Status] = [cell.status for cell in meant]
    if "missing" in statuses:
        return Line(row, "not run")
    if row.topic == STATEMENTS:  # its status is computed with it
        (test,) = (t for cell in meant for t in cell.tests.values() if t is not None)
        status, _, truth = test.statistic.partition(". ")
        return Line(row, status, truth)
    return Line(row, _together(statuses), _ours(meant))


STATEMENTS = "paper-theory"


def cells_at(entry: Entry, at: Mapping[str, str]) -> list[JudgedCell]:
    """The cells of a topic with these levels. Raises ValueError where there are none."""
    factors = list(entry.topic.factors)
    meant = [
        cell
        for cell in entry.cells
        if all(cell.cell[factors.index(factor)] == level for factor, level in at.items())
    ]
    if not meant:
        raise ValueError(f"topic {entry.topic.name} declares no cell with {dict(at)}")
    return meant


def _together(statuses: list[Status]) -> str:
    """One word for cells that were all run."""
    of = set(statuses)
    if len(of) == 1:
        return statuses[0]
    return (
        "mixed" if {"holds", "fails"} <= of else f"{'holds' if 'holds' in of else 'fails'} in part"
    )


def _ours(cells: list[JudgedCell]) -> str:
    """One effect with its interval, or the median and the range of several."""
    tests = [t for cell in cells for t in cell.tests.values() if t is not None]
    if len(tests) == 1:
        return effect_of(tests[0])
    measure = registry().measures[tests[0].measure]
    values = [t.effect.value for t in tests if t.measure == tests[0].measure]
    median, least, most = (
        amount(v, measure) for v in (float(np.median(values)), min(values), max(values))
    )
    return f"{median} ({least} to {most} over {len(values)} cells)"
