"""The property suite: every property holds on fixed cases, and a wrong one is reported with a small
counterexample.
"""

import itertools
import math
import time

import numpy as np
import pytest
from pydantic import ValidationError

from analysis.properties import PROPERTIES, Property
from analysis.properties.base import (
    Choice,
    Inapplicable,
    Integer,
    Number,
    Row,
    Violation,
    applies,
    at_most,
    equal,
    exact,
    states,
)
from analysis.properties.verify import Counterexample, Trial, VerifyConfig, smallest, verify

SEED = 20_241_119
# Two quadratures a case, or a global search.
SLOW = {
    "risks-are-ordered": 6,
    "norms-without-information": 6,
    "paper-best-schedule": 30,
    "paper-converse": 30,
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_every_property_holds_on_fixed_cases(name: str) -> None:
    trial, wanted = Trial(PROPERTIES[name], SEED), SLOW.get(name, 100)
    trial.go_on(cases=wanted)
    assert trial.outcome.counterexample is None, str(trial.outcome.counterexample)
    assert (trial.outcome.cases, trial.outcome.verdict) == (wanted, "holds")


def test_every_property_says_what_it_claims() -> None:
    assert len(PROPERTIES) >= 15
    for name, found in PROPERTIES.items():
        assert found.name == name
        assert found.sentence.endswith(".")
        assert "\n" not in found.sentence
        assert 25 < len(found.sentence) < 300
        assert len(found.source) > 10
        assert found.spaces


@states(
    "a wrong claim",
    size=Integer(1, 40),
    scale=Number(-3.0, 3.0, 0.0),
    kind=Choice(("a", "b")),
    row=Row(1, 9),
)
def wrong_claim(
    generator: np.random.Generator, size: int, scale: float, kind: str, row: tuple[float, ...]
) -> None:
    """Fails where size >= 7, scale > 1.25, kind is b and the row has two entries above one half."""
    applies(size != 8)
    above = sum(x > 0.5 for x in row)
    bad = size >= 7 and scale > 1.25 and kind == "b" and above >= 2
    at_most(above if bad else 0, 1, 0.0, "entries")


def first_violation(seed: int = 3) -> tuple[Trial, Counterexample]:
    trial = Trial(wrong_claim, seed)
    trial.go_on(cases=5_000)
    assert trial.outcome.verdict == "violated"
    return trial, trial.outcome.counterexample


def test_a_wrong_property_is_reported_with_a_small_counterexample_and_its_seed() -> None:
    trial, found = first_violation()
    assert trial.outcome.cases > 3  # it survived some
    assert (found.arguments["size"], found.arguments["kind"]) == (7, "b")
    assert 1.25 < found.arguments["scale"] <= 2
    assert found.arguments["row"] == (1.0, 1.0)
    assert str(found) == (
        "entries: 2 should be at most 1, rounding allows 0; at size=7, scale="
        f"{found.arguments['scale']!r}, kind='b', row=(1.0, 1.0), seed={found.seed}"
    )
    assert found.seed != 3
    again = Trial(wrong_claim, found.seed)
    again.go_on(cases=1)
    assert again.outcome.cases == 0  # the first case of that seed is the one that was met
    assert again.outcome.counterexample == found


def test_a_seed_names_the_cases_whatever_the_turns() -> None:
    met: list[tuple] = []

    @states("a probe", x=Number(0.0, 1.0), n=Integer(0, 10**6))
    def probe(generator: np.random.Generator, x: float, n: int) -> None:
        """Holds."""
        met.append((x, n, generator.random()))

    def cases(*turns: int, seed: int = 5) -> list[tuple]:
        met.clear()
        trial = Trial(probe, seed)
        for turn in turns:
            trial.go_on(cases=turn)
        return list(met)

    whole = cases(60)
    assert whole == cases(10, 1, 49)
    assert len({n for _, n, _ in whole}) == len({r for *_, r in whole}) == 60
    assert not set(whole) & set(cases(60, seed=6))
    x, _, own = np.array(whole).T
    assert (
        abs(np.corrcoef(x, own)[0, 1]) < 0.5
    )  # arguments and the case's own numbers are different streams


def test_cases_without_a_say_are_not_counted() -> None:
    @states("a probe", n=Integer(0, 9))
    def probe(generator: np.random.Generator, n: int) -> None:
        """Says something about even numbers only."""
        met.append(n)
        applies(n % 2 == 0)

    met: list[int] = []
    trial = Trial(probe, 0)
    trial.go_on(cases=30)
    assert trial.outcome.cases == sum(n % 2 == 0 for n in met) == 30 < len(met)


def test_any_error_of_the_code_is_a_violation() -> None:
    @states("a probe", n=Integer(0, 9))
    def probe(generator: np.random.Generator, n: int) -> None:
        """Divides by zero."""
        _ = 1 / (n - n)

    trial = Trial(probe, 0)
    trial.go_on(cases=5)
    assert (
        str(trial.outcome.counterexample) == "ZeroDivisionError: division by zero; at n=0, seed=0"
    )


def test_shrinking_ends_at_its_time() -> None:
    @states("a probe", n=Integer(0, 10**9))
    def probe(generator: np.random.Generator, n: int) -> None:
        """Always violated, slowly."""
        time.sleep(0.05)
        exact(False, "never")

    found = smallest(probe, Counterexample(0, {"n": 10**9}, "never: not so"), seconds=0.0)
    assert found.arguments == {"n": 10**9}
    assert smallest(probe, found, seconds=5.0).arguments == {"n": 0}


def sleeper(name: str, seconds: float, wrong: bool = False) -> Property:
    def check(generator: np.random.Generator, n: int) -> None:
        time.sleep(seconds)
        exact(not wrong, "it holds")

    return Property(name, "A sentence.", "a source", {"n": Integer(0, 9)}, check)


def test_time_is_kept_and_shared() -> None:
    told: list[tuple[str, int]] = []

    def progress(description: str, total: int):
        told.append((description, total))
        return lambda finished: told.append(("", finished))

    properties = [
        sleeper("fast", 0.001),
        sleeper("slow", 0.06),
        sleeper("wrong", 0.001, wrong=True),
    ]
    start = time.monotonic()
    outcomes = {o.property.name: o for o in verify(1.2, 0, properties, progress)}
    spent = time.monotonic() - start
    assert 1.2 <= spent < 1.2 + 3
    assert outcomes["wrong"].verdict == "violated"
    assert outcomes["wrong"].cases == 0
    assert outcomes["fast"].seconds == pytest.approx(outcomes["slow"].seconds, abs=0.25)
    assert outcomes["fast"].cases > 5 * outcomes["slow"].cases > 0
    assert told[0] == ("verify", 1)
    assert sum(finished for _, finished in told[1:]) == 1


def test_every_property_gets_a_turn_and_all_violated_ends_early() -> None:
    names = [
        o.property.name for o in itertools.islice(verify(30.0, 0, list(PROPERTIES.values())), 2)
    ]
    assert names == list(PROPERTIES)[:2]
    start = time.monotonic()
    (outcome,) = verify(30.0, 0, [sleeper("wrong", 0.0, wrong=True)])
    assert outcome.counterexample.seed == 0
    assert time.monotonic() - start < 5


SPACES = [
    Integer(-2, 9),
    Number(-3.0, 4.0, 1.0),
    Number(0.5, 4.0),
    Choice((None, "a", "b")),
    Row(2, 5),
]


@pytest.mark.parametrize("space", SPACES, ids=lambda s: type(s).__name__)
def test_spaces_shrink_to_their_simplest_value_within_themselves(space: object) -> None:
    """Whatever simpler values a check accepts, shrinking ends; where it accepts all, at the
    simplest of the space.
    """
    generator, drawn = np.random.default_rng(0), []
    for _ in range(20):
        value, steps = space.draw(generator), 0
        drawn.append(value)
        while simpler := list(space.simpler(value)):
            assert value not in simpler
            value, steps = simpler[generator.integers(len(simpler))], steps + 1
            assert steps < 200
            if isinstance(space, Integer | Number):
                assert space.low <= value <= space.high
        simplest = {
            Integer: getattr(space, "low", None),
            Number: getattr(space, "simplest", None) or getattr(space, "low", None),
            Choice: None,
            Row: (0.0, 0.0),
        }
        assert value == simplest[type(space)]
    assert len(set(drawn)) >= 3


def test_rows_hold_ties_and_all_lengths() -> None:
    generator = np.random.default_rng(1)
    rows = [Row(2, 5).draw(generator) for _ in range(200)]
    assert {len(row) for row in rows} == {2, 3, 4, 5}
    assert 20 < sum(len(set(row)) < len(row) for row in rows) < 150
    assert all(-1 <= x <= 1 for row in rows for x in row)


@pytest.mark.parametrize("found", [1.1, math.nan, [1.0, math.nan], [0.0, 1.1]])
def test_comparisons_see_nan_and_the_worst_entry(found: float | list[float]) -> None:
    what = "nan" if math.isnan(np.sum(found)) else "1.1"
    with pytest.raises(Violation, match=f"it: {what} should be at most 1, rounding allows 0.05"):
        at_most(found, 1.0, 0.05, "it")
    with pytest.raises(Violation, match=f"it: {what} should be 1, rounding allows 0.05"):
        equal(np.where(np.asarray(found) == 0, 1.0, found), 1.0, 0.05, "it")
    at_most([-5.0, 1.04], 1.0, 0.05, "it")
    equal([0.96, 1.04], 1.0, 0.05, "it")
    for slack in (0.0, math.nan):
        with pytest.raises(Violation):
            equal(1.04, 1.0, slack, "it")


def test_exact_and_applies() -> None:
    exact(np.bool_(True), "so")
    with pytest.raises(Violation, match="so: not so"):
        exact(False, "so")
    applies(True)
    with pytest.raises(Inapplicable):
        applies(False)


def test_config() -> None:
    assert VerifyConfig().properties == list(PROPERTIES.values())
    assert [
        p.name for p in VerifyConfig(only=("majorisation", "schedules", "majorisation")).properties
    ] == [
        "majorisation",
        "schedules",
    ]
    assert VerifyConfig(seed=0).first_seed == 0
    assert len({VerifyConfig().first_seed for _ in range(5)}) > 1
    with pytest.raises(ValueError, match="unknown property 'entropy': choose from majorisation, "):
        _ = VerifyConfig(only=("entropy",)).properties
    for wrong in ({"seconds": 0.0}, {"seconds": math.inf}, {"seed": -1}, {"second": 3.0}):
        with pytest.raises(ValidationError):
            VerifyConfig(**wrong)
