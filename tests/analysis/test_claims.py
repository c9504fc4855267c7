"""Tests and checks as records, how an experiment writes them, and how they are said and drawn."""

import json
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from analysis.claims.builder import Lines
from analysis.claims.claim import Check, Test, checks_of, from_dict, to_dict
from analysis.claims.claim import tests_of as of_tests  # pytest would take it for a test
from analysis.claims.ledger import Entry, as_record
from analysis.claims.registry import Measure, Registry, parse, registry
from analysis.claims.rule import judge_cells, outcome, verdict, when
from analysis.claims.statistics import EXACT, Estimate, exact, mean, prediction
from analysis.claims.words import amount, effect_of, effects_of
from analysis.report.forest import forest

RNG = np.random.default_rng(0)
HALF = np.exp(-np.log(2) + 0.01 * RNG.normal(size=64))
"""About half of ONE, seed by seed."""
ONE = np.ones(64)


def own_registry(**topic) -> Registry:
    """Of one topic, with a measure that wants less, one that wants more, and one of a single number."""
    measures = {
        "error": {"says": "error", "favours": "smaller", "floor": 1e-3},
        "share": {"says": "share", "favours": "larger"},
        "slope": {"says": "slope", "favours": "larger", "single": True},
    }
    votes = {
        "sentence": "It counts votes.",
        "source": "nobody",
        "measures": ["error"],
        "factors": {"voters": ["3", "5"], "kinds": ["a", "b"]},
    }
    return parse({"measures": measures, "topics": {"votes": votes | topic}})


CELL = {"voters": "3", "kinds": "a"}


def lines(**topic) -> Lines:
    return Lines("mine", 64, own_registry(**topic))


# Records


TEST = Test(
    "mine-votes", "votes", CELL, "error", "error", mean(np.log(HALF)), 64, {"first": mean(HALF)}
)
CHECK = Check("mine-sum", "Rows sum to 1.", "nobody", "the worst", "<", 1e-9, exact(1e-12, 64), 64)


@pytest.mark.parametrize("claim", [TEST, CHECK], ids=["test", "check"])
@pytest.mark.parametrize(
    "estimate",
    [mean(HALF), mean(HALF[:1]), mean(np.full(3, np.nan)), prediction(HALF), exact(2, 64)],
    ids=lambda e: e.method,
)
def test_a_stored_claim_comes_back(claim, estimate):
    """And JSON has no NaN: what is not finite is null."""
    number = "effect" if isinstance(claim, Test) else "estimate"
    claim = replace(claim, parts={"first": estimate}, **{number: estimate})
    text = json.dumps(to_dict(claim), allow_nan=False)
    again = from_dict(json.loads(text))
    assert type(again) is type(claim)
    assert repr(again) == repr(claim)  # NaN is not equal to itself
    assert (json.loads(text)[number]["low"] is None) == np.isnan(estimate.low)


@pytest.mark.parametrize(
    "damage",
    [
        {"effect": None},
        {"effect": {"value": 1.0}},
        {"effect": to_dict(TEST)["effect"] | {"value": "much"}},
        {"effect": to_dict(TEST)["effect"] | {"value": 10**400}},
        {"parts": 3},
        {"parts": {"first": []}},
        {"kind": "guess"},
        {"kind": []},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_damaged_record_is_one_sentence(damage):
    assert from_dict(to_dict(TEST)) == TEST
    with pytest.raises(ValueError, match=r"a stored claim is damaged .*: run `ssa-theory plot`"):
        from_dict(to_dict(TEST) | damage)


@pytest.mark.parametrize("record", [None, [], 3, "ab", {}, {"kind": "test"}], ids=str)
def test_what_is_no_record_is_one_sentence(record):
    with pytest.raises(ValueError, match="a stored claim is damaged"):
        from_dict(record)


@pytest.mark.parametrize(
    ("relation", "low", "high", "wanted"),
    [
        ("<", 0.4, 0.6, "passed"),
        ("<", 1.0, 1.2, "failed"),
        ("<", 0.9, 1.1, "open"),
        ("<", 0.9, 1.0, "open"),
        (">", 1.1, 1.2, "passed"),
        (">", 0.4, 1.0, "failed"),
        (">", 1.0, 1.2, "open"),
        ("<", np.nan, np.nan, "open"),
    ],
)
def test_a_check_passes_by_its_whole_interval(relation, low, high, wanted):
    estimate = Estimate((low + high) / 2, low, high, 64, "bootstrap-t")
    check = replace(CHECK, relation=relation, threshold=1.0, estimate=estimate)
    assert check.passed == wanted


def test_seeds_that_diverged_or_never_were_are_lost():
    values = np.where(np.arange(60) < 6, np.nan, 0.5)
    assert replace(TEST, effect=mean(values)).lost == pytest.approx(10 / 64)
    assert TEST.lost == 0


# Lines


def test_a_comparison_is_the_log_ratio_signed_by_the_measure():
    of = lines(measures=["error", "share"])
    of.compare("votes", CELL, "error", {"mine": HALF, "yours": ONE}, {"best": exact(0.1, 64)})
    of.compare("votes", CELL, "share", {"mine": HALF, "yours": ONE})
    less, more = of.claims
    assert less.effect.value == pytest.approx(-np.log(HALF).mean())
    assert more.effect.value == pytest.approx(np.log(HALF).mean())
    level = 1 - 0.05 / 8  # of four cells and two measures
    assert less.effect == mean(-np.log(HALF), level)
    assert less.parts == {"mine": mean(HALF), "yours": mean(ONE), "best": exact(0.1, 64)}
    assert (less.id, less.topic, less.cell) == ("mine-votes-3-a-error", "votes", CELL)
    assert less.statistic == "mine against yours: error"
    assert (less.requested_seeds, less.lost) == (64, 0)


def test_what_is_below_the_floor_counts_as_it_and_what_diverged_is_lost():
    of = lines()
    of.compare("votes", CELL, "error", {"mine": np.full(64, 1e-9), "yours": ONE})
    of.compare(
        "votes",
        CELL | {"kinds": "b"},
        "error",
        {"mine": np.append(HALF[:60], [np.nan] * 4), "yours": ONE},
    )
    first, second = of.claims
    assert first.effect.value == pytest.approx(np.log(1e3))
    assert second.effect.value == pytest.approx(-np.log(HALF[:60]).mean())
    assert second.lost == 4 / 64


def test_a_single_number_is_its_mean():
    of = lines(measures=["slope"])
    of.single("votes", CELL, "slope", HALF)
    (test,) = of.claims
    assert test.effect == mean(HALF, 1 - 0.05 / 4)
    assert (test.statistic, test.parts) == ("slope", {})


def test_what_no_chance_is_in_is_exact():
    of = lines(measures=["error", "slope"])
    of.exactly("votes", CELL, "error", (1, 4), "least errors")
    of.exactly("votes", CELL, "slope", -1, "sign")
    pair, single = of.claims
    assert pair.effect == exact(np.log(4), 64)
    assert single.effect == exact(-1, 64)
    assert [outcome(of.registry.topics["votes"], t) for t in (pair, single)] == ["benefit", "harm"]
    assert pair.statistic == "least errors"


def test_a_check_takes_an_estimate_or_a_number():
    of = lines()
    of.check("sum", "Rows sum to 1.", "the worst", "<", 1e-9, 1e-12)
    of.check("mean", "Near.", "mean", ">", 0, mean(HALF), {"part": mean(ONE)}, "Euler")
    number, estimate = of.claims
    assert (number.id, number.estimate, number.passed) == ("mine-sum", exact(1e-12, 64), "passed")
    assert number.source == "this project"
    assert (estimate.estimate, estimate.parts) == (mean(HALF), {"part": mean(ONE)})
    assert estimate.source == "Euler"
    assert (of_tests(of.claims), checks_of(of.claims)) == ([], of.claims)


def test_a_topic_of_any_instance_has_the_interval_of_a_new_one_and_the_share_of_gains():
    """A gain of less than the margin is none; the level is .95 however many cells there are."""
    of = lines(instance="town")
    yours = np.where(np.arange(64) < 16, HALF / 0.96, 1.0)  # 16 gains of 4 %
    yours[-1] = np.nan
    of.compare("votes", CELL, "error", {"mine": HALF, "yours": yours})
    (test,) = of.claims
    assert test.effect == prediction(np.log(yours) - np.log(HALF), 0.95)
    share = test.parts["share of towns with a gain of 5 %"]
    assert (share.value, share.seeds) == (pytest.approx(47 / 63), 63)


@pytest.mark.parametrize(
    ("write", "rule"),
    [
        (
            lambda of: of.compare("vote", CELL, "error", {"a": HALF, "b": ONE}),
            "unknown topic 'vote': choose one of votes",
        ),
        (
            lambda of: of.exactly("xyz", CELL, "slope", 1.0, ""),
            "unknown topic 'xyz': choose one of votes",
        ),
        (
            lambda of: of.compare("votes", CELL, "eror", {"a": HALF, "b": ONE}),
            "unknown measure 'eror': choose one of error",
        ),
        (
            lambda of: of.single("votes", CELL, "error", HALF),
            "measure error is of a pair a model, got one number: give a pair",
        ),
        (
            lambda of: of.compare("votes", CELL, "slope", {"a": HALF, "b": ONE}),
            "measure slope is of one number a model, got a pair: give one number",
        ),
        (
            lambda of: of.exactly("votes", CELL, "slope", (1.0, 2.0), ""),
            "measure slope is of one number",
        ),
        (
            lambda of: of.compare("votes", {"voters": "3"}, "error", {"a": HALF, "b": ONE}),
            "a cell of topic votes has a level of voters, kinds, got voters: name a level of each",
        ),
        (
            lambda of: of.single("votes", CELL | {"town": "x"}, "slope", HALF),
            "got voters, kinds, town",
        ),
    ],
)
def test_what_the_registry_does_not_declare_is_refused(write, rule):
    of = lines()
    with pytest.raises(ValueError, match=rule):
        write(of)
    assert not of.claims


def test_two_claims_of_one_name_are_refused():
    of = lines()
    of.compare("votes", CELL, "error", {"mine": HALF, "yours": ONE})
    of.compare("votes", CELL | {"kinds": "c"}, "error", {"mine": HALF, "yours": ONE})
    with pytest.raises(ValueError, match="two claims are called mine-votes-3-a-error"):
        of.compare("votes", CELL, "error", {"mine": ONE, "yours": HALF})
    of.check("sum", "", "", "<", 1, 0)
    with pytest.raises(ValueError, match="two claims are called mine-sum"):
        of.check("sum", "", "", "<", 1, 0)
    assert len(of.claims) == 3


def test_an_experiment_of_the_users_own_is_judged_by_its_own_registry():
    of = lines()
    topic = of.registry.topics["votes"]
    for voters, kinds in topic.cells:
        pair = (HALF, ONE) if voters == "3" else (ONE, HALF)
        cell = {"voters": voters, "kinds": kinds}
        of.compare("votes", cell, "error", dict(zip(("mine", "yours"), pair, strict=True)))
    cells = judge_cells(topic, of_tests(of.claims))
    assert verdict(cells) == "mixed"
    assert when(topic, cells) == "holds where voters is 3; fails where voters is 5"
    assert "votes" not in registry().topics


# Words


SMALLER = Measure(says="error", favours="smaller")
LARGER = Measure(says="mass", favours="larger")
SINGLE = Measure(says="slope", favours="larger", single=True)


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (0.76, "24 % less"),
        (1.24, "24 % more"),
        (2.9, "190 % more"),
        (3.5, "3.5 times"),
        (1 / 3.5, "1/3.5"),
        (1.004, "the same"),
        (958, "960 times"),
        (1 / 18_200, "1/18,000"),
        (2e6, "over 1,000,000 times"),
        (1e-300, "under 1/1,000,000"),
        (np.inf, "over 1,000,000 times"),
        (0.0, "under 1/1,000,000"),
        (np.nan, "undefined"),
    ],
)
def test_an_effect_is_said_of_the_first_of_the_pair(ratio, said):
    """Whichever way the sentence wants it."""
    with np.errstate(divide="ignore"):
        log = float(np.log(ratio))
    assert amount(-log, SMALLER) == said
    assert amount(log, LARGER) == said


def test_a_single_number_is_said_as_it_is():
    assert amount(-0.1234, SINGLE) == "-0.123"
    assert amount(0.1234, Measure(says="", favours="smaller", single=True)) == "-0.123"


def _error(value: float, low: float, high: float, method: str = "bootstrap-t") -> Test:
    """A test of the registry's topic and measure."""
    estimate = Estimate(-np.log(value), -np.log(high), -np.log(low), 64, method)
    return Test("x", "extrapolation", {}, "excess", "", estimate, 64)


def test_an_effect_is_said_with_its_interval():
    assert effect_of(_error(0.76, 0.7, 0.82)) == "24 % less (18 % less to 30 % less)"
    assert effect_of(_error(0.76, np.nan, np.nan)) == "24 % less"
    assert effect_of(_error(0.76, 0.76, 0.76, EXACT)) == "24 % less"


def entry(topic: str, *effects: Estimate) -> Entry:
    """A topic of the registry with effects in its first cells."""
    of = registry().topics[topic]
    tests = [
        Test(
            f"x-{i}",
            topic,
            dict(zip(of.factors, cell, strict=True)),
            of.measures[0],
            "",
            effect,
            64,
        )
        for i, (cell, effect) in enumerate(zip(of.cells, effects, strict=False))
    ]
    return Entry(of, judge_cells(of, tests))


def test_effects_of_a_topic_are_its_median_and_range():
    ratios = (0.5, 0.8, 1.25)
    said = effects_of(entry("extrapolation", *(mean(-np.log(r) * ONE) for r in ratios)))
    assert said == "error above Bayes: 20 % less (25 % more to 50 % less)"
    assert (
        effects_of(entry("extrapolation", mean(ONE * np.log(2)))) == "error above Bayes: 50 % less"
    )
    assert effects_of(entry("extrapolation")) == ""
    assert effects_of(entry("order", mean(HALF)))
    assert effects_of(entry("paper-theory", exact(1, 1), exact(-1, 1))) == ""  # yes or no


def test_a_topic_as_a_record_has_every_cell_and_no_nan():
    one = entry("extrapolation", mean(-np.log(HALF)), mean(HALF[:1]))
    record = json.loads(json.dumps(as_record([one], [CHECK]), allow_nan=False))
    (topic,) = record["topics"]
    assert (topic["name"], topic["verdict"], topic["when"]) == (
        "extrapolation",
        one.verdict,
        one.when,
    )
    assert [c["length"] for c in topic["cells"]] == [
        "256",
        "256",
        "512",
        "512",
        "1024",
        "1024",
        "2048",
        "2048",
    ]
    first, second, *rest = (c["tests"]["excess"] for c in topic["cells"])
    assert (first["outcome"], first["effect"]["seeds"]) == ("benefit", 64)
    assert (second["outcome"], second["effect"]["low"]) == ("missing", None)
    assert rest == [{"outcome": "missing"}] * 6
    assert record["checks"][0]["passed"] == "passed"


# The forest plot


def drawn(tests) -> ElementTree.Element:
    return ElementTree.fromstring(forest(registry().topics["extrapolation"], tests))


def test_a_forest_shows_every_outcome_in_order():
    """Four shapes; what is missing, or undefined, is not drawn; far effects stand at the edge."""
    ratios = {"harm": 1e30, "equivalent": 1.0, "unresolved": 0.97, "benefit": 1e-30}
    tests = [(_error(r, 0.9 * r, 1.1 * r), name) for name, r in ratios.items()]
    tests += [(_error(0.5, 0.4, 0.6), "missing"), (_error(np.nan, np.nan, np.nan), "unresolved")]
    svg = drawn(tests[::-1])
    rows = svg.findall("g")
    said = [row.find("title").text.split(": ")[-1] for row in rows]
    assert said == ["harm", "equivalent", "unresolved", "benefit"]
    assert len({(row[1].tag, row[1].get("d", "").split("m")[-1]) for row in rows}) == 4
    assert svg.get("aria-label") == "4 tests: 1 harm, 1 equivalent, 1 unresolved, 1 benefit"
    width = float(svg.get("viewBox").split()[2])
    places = [float(p.get("d")[1:].split()[0]) for p in svg.findall("path")]
    assert all(0 <= place <= width for place in places)
    benefit, harm = float(rows[-1][1].get("cx")), float(rows[0][1].get("d")[1:].split()[0])
    assert 0 < harm < width / 2 < benefit < width
    intervals = [p for p in svg.findall("path") if "H" in p.get("d")]
    assert len(intervals) == 4


def test_a_forest_without_an_interval_has_a_mark_alone():
    svg = drawn([(_error(0.5, np.nan, np.nan), "benefit")])
    assert len(svg.findall("g")) == 1
    assert not [p for p in svg.findall("path") if "H" in p.get("d")]


def test_a_forest_escapes_what_it_says():
    test = replace(_error(0.5, 0.4, 0.6), cell={"length": '<b> & "x"'})
    (row,) = drawn([(test, "benefit")]).findall("g")
    assert row.find("title").text == '<b> & "x", excess: benefit'


def test_a_forest_without_tests_is_empty():
    topic = registry().topics["extrapolation"]
    assert forest(topic, []) == forest(topic, [(_error(0.5, 0.4, 0.6), "missing")]) == ""
