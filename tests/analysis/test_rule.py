"""The rule of verdicts on synthetic ledgers: what it says, and that a hostile hand cannot better it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.claims.claim import Test
from analysis.claims.ledger import Evidence, ledger_of
from analysis.claims.registry import Registry, Topic, parse
from analysis.claims.rule import VERDICTS, judge_cells, outcome, verdict, when
from analysis.claims.statistics import EXACT, Estimate

MEASURES = {
    "error": {"says": "error", "favours": "smaller"},
    "loss": {"says": "loss", "favours": "smaller"},
}


def _registry(**topic) -> Registry:
    own = {
        "sentence": "It helps.",
        "source": "nobody",
        "measures": ["error", "loss"],
        "factors": {"dim": ["low", "high"], "graph": ["a", "b", "c"]},
    } | topic
    return parse({"measures": MEASURES, "topics": {"help": own}})


REGISTRY = _registry()
TOPIC = REGISTRY.topics["help"]
EFFECT = {
    "benefit": (0.3, 0.2, 0.4),
    "harm": (-0.3, -0.4, -0.2),
    "equivalent": (0.0, -0.02, 0.02),
    "unresolved": (0.1, -0.2, 0.4),
}


def _test(cell, measure, kind, seeds=64, of=64, name="x") -> Test:
    value, low, high = EFFECT[kind]
    at = dict(zip(TOPIC.factors, cell, strict=True))
    estimate = Estimate(value, low, high, seeds, "bootstrap-t")
    return Test(f"{name}-{'-'.join(cell)}-{measure}", "help", at, measure, "", estimate, of)


def _ledger(kinds) -> list[Test]:
    """All tests of the scope, of the kind that each cell has."""
    return [
        _test(cell, measure, kind)
        for cell, kind in zip(TOPIC.cells, kinds, strict=True)
        for measure in TOPIC.measures
        if kind != "missing"
    ]


def _verdict(tests, topic: Topic = TOPIC) -> str:
    return verdict(judge_cells(topic, tests))


@pytest.mark.parametrize(
    ("value", "low", "high", "wanted"),
    [
        (0.1, 0.0514, 0.2, "benefit"),
        (0.1, 0.0512, 0.2, "unresolved"),
        (-0.1, -0.2, -0.0514, "harm"),
        (0.0, -0.0512, 0.0512, "equivalent"),
        (0.0, -0.0514, 0.0512, "unresolved"),
        (0.05, 0.03, 0.06, "unresolved"),
        (np.nan, np.nan, np.nan, "missing"),
        (0.1, np.nan, np.nan, "unresolved"),
    ],
)
def test_outcome_by_interval_and_margin(value, low, high, wanted):
    """The margin of 5 % is log(1 / .95) = .05129 on the scale of log ratios."""
    test = replace(
        _test(TOPIC.cells[0], "error", "benefit"), effect=Estimate(value, low, high, 64, "")
    )
    assert outcome(TOPIC, test) == wanted


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [(-0.05, 0.0, "benefit"), (-0.2, -0.06, "harm"), (-0.06, -0.04, "unresolved")],
)
def test_what_is_reached_may_fall_short_by_the_margin(low, high, wanted):
    topic = _registry(reaches=True).topics["help"]
    effect = Estimate((low + high) / 2, low, high, 64, "")
    assert outcome(topic, replace(_test(TOPIC.cells[0], "error", "harm"), effect=effect)) == wanted


def test_few_or_lost_seeds_resolve_nothing():
    cell = TOPIC.cells[0]
    assert outcome(TOPIC, None) == "missing"
    assert outcome(TOPIC, _test(cell, "error", "benefit", seeds=5, of=5)) == "unresolved"
    assert outcome(TOPIC, _test(cell, "error", "benefit", seeds=6, of=6)) == "benefit"
    assert outcome(TOPIC, _test(cell, "error", "benefit", seeds=61, of=64)) == "benefit"
    assert outcome(TOPIC, _test(cell, "error", "benefit", seeds=60, of=64)) == "missing"
    assert outcome(TOPIC, _test(cell, "error", "benefit", seeds=57, of=60)) == "benefit"  # 5 %
    counted = Estimate(0.3, 0.3, 0.3, 1, EXACT)
    exact = replace(_test(cell, "error", "benefit"), effect=counted, requested_seeds=1)
    assert outcome(TOPIC, exact) == "benefit"


@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [
        (["benefit"] * 6, "supported"),
        (["benefit"] * 5 + ["unresolved"], "partly supported"),
        (["benefit"] * 5 + ["equivalent"], "mixed"),
        (["harm", "benefit"] + ["missing"] * 4, "mixed"),
        (["unresolved"] * 6, "inconclusive"),
        (["harm"] + ["unresolved"] * 5, "not supported"),
        (["equivalent"] * 6, "not supported"),
        (["benefit"] * 5 + ["missing"], "incomplete"),
        (["missing"] * 6, "incomplete"),
    ],
)
def test_verdict_counts_cells(kinds, wanted):
    assert _verdict(_ledger(kinds)) == wanted


def test_a_cell_needs_every_measure():
    cell, *rest = TOPIC.cells
    others = [_test(c, m, "benefit") for c in rest for m in TOPIC.measures]
    own = [_test(cell, "error", "benefit")]
    assert _verdict([*others, *own]) == "incomplete"
    assert _verdict([*others, *own, _test(cell, "loss", "unresolved")]) == "partly supported"
    assert _verdict([*others, *own, _test(cell, "loss", "equivalent")]) == "mixed"


KINDS = ("benefit", "harm", "equivalent", "unresolved", "missing")
RANK = {name: rank for rank, name in enumerate(reversed(VERDICTS))}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(KINDS), min_size=6, max_size=6), st.data())
def test_no_manipulation_of_tests_improves_a_verdict(kinds, data):
    """Deleting a test, duplicating one, adding easy ones outside of the scope, a better duplicate,
    one seed that fails: none gives a better verdict.
    """
    tests = _ledger(kinds)
    before = RANK[_verdict(tests)]
    for i in range(len(tests)):
        assert RANK[_verdict(tests[:i] + tests[i + 1 :])] <= before
    if not tests:
        return
    one = data.draw(st.sampled_from(tests))
    assert RANK[_verdict([*tests, one])] == before
    better = replace(one, id="again", effect=Estimate(9.0, 8.0, 10.0, 64, ""))
    assert RANK[_verdict([*tests, better])] <= before
    assert RANK[_verdict([better, *tests])] <= before
    easy = [
        replace(better, cell=one.cell | {"graph": "an easy one"}),
        replace(better, measure="another"),
        replace(better, cell=one.cell | {"another factor": "x"}),
        replace(better, topic="another"),
    ]
    assert RANK[_verdict([*tests, *easy])] == before


@pytest.mark.parametrize("kind", ["benefit", "harm", "equivalent"])
def test_a_swapped_polarity_does_not_improve(kind):
    """The sign of every effect turned: what held fails, what was equivalent stays so."""
    tests = _ledger([kind] * 6)
    turned = []
    for test in tests:
        e = test.effect
        turned.append(replace(test, effect=replace(e, value=-e.value, low=-e.high, high=-e.low)))
    wanted = {"benefit": "not supported", "harm": "supported", "equivalent": "not supported"}
    assert _verdict(turned) == wanted[kind]


def test_intervals_of_a_topic_are_of_the_declared_number_of_tests():
    assert TOPIC.level == 1 - 0.05 / 12
    assert _registry(instance="graph").topics["help"].level == 0.95


def _by(rule) -> list[Test]:
    return _ledger([rule(dim, graph) for dim, graph in TOPIC.cells])


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        (lambda d, g: "benefit", "holds in all 6 cells"),
        (lambda d, g: "unresolved", "is not resolved: all 6 cells open"),
        (
            lambda d, g: "benefit" if d == "low" else "harm",
            "holds where dim is low; fails where dim is high",
        ),
        (
            lambda d, g: "harm" if g == "b" else "benefit",
            "holds where graph is a or c; fails where graph is b",
        ),
        (
            lambda d, g: "harm" if g == "b" and d == "high" else "benefit",
            "holds where dim is low and graph a, b or c or dim is high and graph a or c; fails "
            "where dim is high and graph b",
        ),
        (
            lambda d, g: "unresolved" if g == "c" else "benefit",
            "holds in 4 of 6 cells; 2 of 6 cells open",
        ),
        (
            lambda d, g: "missing" if g == "c" else "benefit" if d == "low" else "harm",
            "holds where dim is low; fails where dim is high; 2 of 6 cells missing",
        ),
    ],
)
def test_when_names_the_fewest_factors(rule, wanted):
    assert when(TOPIC, judge_cells(TOPIC, _by(rule))) == wanted


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(KINDS[:4]), min_size=6, max_size=6))
def test_when_is_true_of_every_resolved_cell(kinds):
    """Where one factor separates, each of its levels has holding or failing cells only; checked by
    going through all cells.
    """
    cells = judge_cells(TOPIC, _ledger(kinds))
    sentence = when(TOPIC, cells)
    of = {c.cell: c.status for c in cells if c.status in ("holds", "fails")}
    separating = [
        factor
        for i, factor in enumerate(TOPIC.factors)
        if all(of[a] == of[b] for a, b in itertools.combinations(of, 2) if a[i] == b[i])
    ]
    if set(of.values()) == {"holds", "fails"}:
        named = [
            f
            for f in TOPIC.factors
            if f"holds where {f} is" in sentence and " and " not in sentence
        ]
        assert named == separating[:1]


def test_a_result_of_another_registry_is_post_hoc():
    tests = _ledger(["benefit"] * 6)

    def post_hoc(*hashes):
        half = (tuple(tests[:6]), tuple(tests[6:]))
        found = [Evidence(c, h) for c, h in zip(half, hashes, strict=True)]
        return ledger_of(found, REGISTRY).entries[0].post_hoc

    now = {"help": TOPIC.hash}
    assert not post_hoc(now, None)
    assert post_hoc(now, {"help": "of yesterday"})
    assert post_hoc({}, now)


@pytest.mark.parametrize(
    ("kinds", "low", "edge"),
    [
        (["benefit"] * 6, 0.2, False),  # to .06 when moved, above the margin
        (["benefit"] * 6, 0.19, True),  # to .04
        (["benefit"] * 6, None, False),  # exact: nothing moves it
        (["harm"] * 3 + ["benefit"] * 3, 0.1, False),  # mixed, whatever one cell says
        (["harm"] * 5 + ["benefit"], 0.1, True),  # the only cell that holds
        (["unresolved"] * 6, 0.1, True),  # the only one that is resolved: partly, or inconclusive
        (["missing"] * 6, 0.2, False),
    ],
)
def test_a_verdict_that_one_test_may_change_is_on_the_edge(kinds, low, edge):
    """The last cell's error has the interval low .. .4; any other is far from the margin."""
    far = {"benefit": (0.4, 0.3, 0.5), "harm": (-0.4, -0.5, -0.3), "unresolved": (0.0, -0.2, 0.2)}
    tests = []
    for test in _ledger(kinds):
        kind = kinds[TOPIC.cells.index(tuple(test.cell.values()))]
        tests.append(replace(test, effect=Estimate(*far[kind], 64, "bootstrap-t")))
    if tests:
        ends = (0.3, 0.3, 0.3) if low is None else ((low + 0.4) / 2, low, 0.4)
        method = EXACT if low is None else "bootstrap-t"
        tests[-2:] = [replace(t, effect=Estimate(*ends, 64, method)) for t in tests[-2:]]
    entry = ledger_of([Evidence(tuple(tests))], REGISTRY).entries[0]
    assert entry.on_edge == edge
    assert (entry.verdict_with_notes == f"{entry.verdict} (on the edge)") == edge


def test_every_word_of_a_topic_counts_in_its_hash():
    hashes = {_registry().topics["help"].hash}
    changes = (
        {"sentence": "It helps a lot."},
        {"margin": 0.04},
        {"measures": ["error"]},
        {"reaches": True},
        {"factors": {"dim": ["low"], "graph": ["a", "b", "c"]}},
        {"without": [{"graph": ["a"]}]},
    )
    for change in changes:
        hashes.add(_registry(**change).topics["help"].hash)
    assert len(hashes) == 1 + len(changes)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"without": [{"graph": ["d"]}]}, "which it does not have"),
        ({"without": [{"dim": ["low", "high"]}]}, "leaves out all of its cells"),
        ({"measures": ["unheard of"]}, "unknown measure"),
        ({"measures": []}, "needs a measure"),
        ({"factors": {"dim": []}}, "needs a measure, and a level"),
        ({"margin": 1.5}, "less than 1"),
        ({"decided_by": "one test"}, "Extra inputs"),
    ],
)
def test_a_wrong_registry_is_refused(change, rule):
    with pytest.raises(ValueError, match=rule):
        _registry(**change)


def test_entries_outside_of_the_scope_are_kept_apart():
    tests = _ledger(["benefit"] * 6)
    beyond = replace(tests[0], id="beyond", cell=tests[0].cell | {"graph": "d"})
    foreign = replace(tests[0], id="foreign", topic="nobody's")
    found = ledger_of([Evidence((*tests, beyond, foreign))], REGISTRY)
    assert found.entries[0].outside == (beyond,)
    assert found.unknown == (foreign,)
    assert found.entry("help").verdict == "supported"
    with pytest.raises(ValueError, match="unknown topic 'halp': choose one of help"):
        found.entry("halp")
    other = ledger_of([Evidence(tuple(tests), declared=False)], REGISTRY).entry("help")
    assert (other.verdict, len(other.outside)) == ("incomplete", len(tests))
