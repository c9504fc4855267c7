"""What the tests of several experiments ask of claims."""

from collections.abc import Sequence

from analysis.claims.claim import Check, Claim, Outcome, Test, checks_of, tests_of
from analysis.claims.registry import registry
from analysis.claims.rule import judge_cells, outcome

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
