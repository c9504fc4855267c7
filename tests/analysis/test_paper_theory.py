"""The experiment on the paper's statements, and the paper's table."""

import numpy as np
import pytest

from analysis.claims.claim import Test
from analysis.claims.ledger import Evidence, ledger_of
from analysis.claims.registry import registry
from analysis.claims.statistics import EXACT, Estimate
from analysis.experiments.paper_theory import PAPER_THEORY, PaperTheoryConfig
from analysis.report.paper import PAPER, Row, paper_table
from analysis.run.runner import execute
from ssa_theory.theory.paper import statements
from tests.analysis.evidence import found, missing, said


@pytest.fixture(scope="module")
def executed(tmp_path_factory, undrawn):
    folder = tmp_path_factory.mktemp("out")
    with undrawn():
        return folder, *execute(PAPER_THEORY, PaperTheoryConfig(length=12), folder)


def test_closed_forms_meet_their_second_computations(executed):
    result = executed[1]
    closed = result["least_norm"].interp(rho=result["rho_solved"].values)
    assert np.allclose(closed, result["solved_norm"], rtol=1e-6)
    assert np.allclose(result["kept_share"], result["solved_share"], rtol=1e-9)
    assert np.allclose(result["largest_weight"], result["attained_weight"], rtol=1e-12)


def test_every_statement_is_a_test_with_its_computed_status(executed):
    _, result, claims, _ = executed
    tests, every = found(claims, "paper-theory"), {s.name: s for s in statements()}
    assert list(tests) == [(name,) for name in every]
    assert len(tests) == len(claims)
    assert missing(claims, "paper-theory") == []
    for (name,), test in tests.items():
        statement = every[name]
        assert said(test) == ("benefit" if statement.status == "holds" else "harm")
        assert test.statistic.startswith(f"{statement.status}. {statement.truth}")
        assert test.effect.method == EXACT
        if statement.status != "holds":
            key = next(iter(statement.counter_example))
            assert f"{key} = " in test.statistic
    assert set(result["statement_status"].values) > {"holds", "fails"}


def test_a_change_of_status_is_a_change_of_the_test(executed):
    result = executed[1].copy(deep=True)
    assert result["statement_status"][0] == "holds"
    result["statement_status"][0] = "vacuous"
    test = found(PAPER_THEORY.judge(PaperTheoryConfig(), result), "paper-theory")["lemma-1",]
    assert said(test) == "harm"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gammas": (0.3,)}, "each gamma needs an eps, got 1 and 2"),
        ({"gammas": (1.2, 0.3)}, "gamma must be in"),
        ({"errors": (0.2, 0.01)}, "eps must be positive and at most"),
        ({"norms": (1.0, 1.0)}, "must be different"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PaperTheoryConfig(**settings)


def table(claims, rows=PAPER):
    return paper_table(ledger_of([Evidence(tuple(claims))], registry()), rows)


def test_a_row_about_a_statement_has_its_status(executed):
    every = {s.name: s for s in statements()}
    lines = [line for line in table(executed[2]) if line.row.topic == "paper-theory"]
    for line in lines:
        statement = every[line.row.at["statement"]]
        assert line.status == statement.status
        assert line.ours.startswith(statement.truth)
    assert {line.status for line in lines} > {"holds", "fails"}
    others = {line.status for line in table(executed[2]) if line.row.topic != "paper-theory"}
    assert others == {"not run"}


@pytest.mark.parametrize(
    ("effects", "wanted"),
    [
        ((0.3, 0.3, 0.3, 0.3), "holds"),
        ((-0.3, -0.3, -0.3, -0.3), "fails"),
        ((0.3, 0.3, 0.3, -0.3), "mixed"),
        ((0.3, 0.3, 0.3, 0.05), "holds in part"),
        ((-0.3, 0.05, 0.05, 0.05), "fails in part"),
        ((0.05, 0.05, 0.05, 0.05), "open"),
        ((0.3, 0.3, 0.3), "not run"),
    ],
)
def test_the_status_of_a_row_is_computed_from_its_cells(effects, wanted):
    """Those against the learned constant; the others are missing."""
    tests = [
        Test(
            f"test-{length}",
            "extrapolation",
            {"length": length, "against": "learned constant"},
            "excess",
            "",
            Estimate(effect, effect - 0.1, effect + 0.1, 64, "bootstrap-t"),
            64,
        )
        for length, effect in zip(("256", "512", "1024", "2048"), effects, strict=False)
    ]
    row = Row("here", "this", "so", "extrapolation", {"against": "learned constant"})
    (line,) = table(tests, (row,))
    assert line.status == wanted
    with pytest.raises(ValueError, match="declares no cell"):
        table(tests, (Row("here", "this", "so", "extrapolation", {"length": "3"}),))


def test_every_row_names_declared_cells_or_says_why_not():
    for line in table([]):
        if line.row.topic:
            assert line.status == "not run"  # its cells exist, else an error
        else:
            assert "language model" in line.row.form
    assert 3 <= sum(row.telling for row in PAPER) <= 5
