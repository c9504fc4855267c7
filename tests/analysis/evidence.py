"""What several tests ask of claims, or store of them."""

from collections.abc import Sequence
from pathlib import Path

from analysis.claims.claim import Check, Claim, Outcome, Test, checks_of, tests_of
from analysis.claims.ledger import Evidence
from analysis.claims.registry import registry
from analysis.claims.rule import judge_cells, outcome
from analysis.store.claims import result_path, save_claims
from analysis.store.files import file_digest

Place = tuple[str, ...]


def found(claims: Sequence[Claim], topic: str) -> dict[Place, Test]:
    """The tests of a topic by their cell, in the order of its factors, and their measure where it
    has several.
    """
    of, tests = registry().topics[topic], {}
    for test in tests_of(claims):
        if test.topic == topic:
            assert set(test.cell) == set(of.factors), test.id
            cell = tuple(test.cell[factor] for factor in of.factors)
            place = cell if len(of.measures) == 1 else (*cell, test.measure)
            assert place not in tests, test.id
            tests[place] = test
    return tests


def outcomes(claims: Sequence[Claim]) -> dict[str, Outcome]:
    """What each test says, by its id."""
    return {test.id: said(test) for test in tests_of(claims)}


def said(test: Test) -> Outcome:
    """What it says of its topic."""
    return outcome(registry().topics[test.topic], test)


def missing(claims: Sequence[Claim], *topics: str) -> list[tuple[str, Place]]:
    """The declared cells of topics without a test of each measure."""
    tests = tests_of(claims)
    assert {test.topic for test in tests} == set(topics)
    return [
        (name, judged.cell)
        for name in topics
        for judged in judge_cells(registry().topics[name], tests)
        if None in judged.tests.values()
    ]


def checks(claims: Sequence[Claim]) -> dict[str, Check]:
    """By id."""
    return {check.id: check for check in checks_of(claims)}


def store(name: str, claims: Sequence[Claim], out: Path) -> None:
    """The claims of an experiment beside a result that is never opened."""
    result = result_path(name, out)
    result.parent.mkdir(parents=True)
    result.write_bytes(b"numbers")
    origin = {"source": "code", "result": file_digest(result)}
    save_claims(Evidence(tuple(claims)), result, origin)
