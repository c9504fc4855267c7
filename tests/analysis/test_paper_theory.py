"""The experiment on the paper's statements, and the paper's table."""

import numpy as np
import pytest

from analysis.claims.claim import Claim
from analysis.claims.statistics import Estimate
from analysis.experiments import EXPERIMENTS
from analysis.experiments.paper_theory import PAPER_THEORY, PaperTheoryConfig
from analysis.report.paper import PAPER, Row, paper_table
from analysis.run.runner import execute
from ssa_theory.theory.paper import statements


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


def test_every_statement_is_a_claim_with_its_computed_status(executed):
    _, result, claims, _ = executed
    every = {s.name: s for s in statements()}
    assert [c.id for c in claims] == [f"paper-theory-{name}" for name in every]
    for claim, statement in zip(claims, every.values(), strict=True):
        assert claim.verdict == ("supported" if statement.status == "holds" else "not supported")
        assert claim.statistic.startswith(f"{statement.status}. ")
        assert claim.estimate.method == f"exact: {statement.status}"
        if statement.status != "holds":
            key = next(iter(statement.counter_example))
            assert f"{key} = " in claim.statistic
    assert set(result["statement_status"].values) > {"holds", "fails"}


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


def claim(name: str, low: float, high: float, how: str = "t") -> Claim:
    estimate = Estimate((low + high) / 2, low, high, 9, how)
    return Claim(name, "said", "paper", "what", "<", 1.0, estimate, 9, topic="order")


def test_the_status_of_a_row_is_computed_from_its_test():
    rows = [Row("here", "this", "so", name) for name in ("a", "b", "c", "d", "e")]
    rows.append(Row("Fig. 4", "that", "a language model"))
    claims = [claim("a", 0.5, 0.7), claim("b", 1.2, 1.4), claim("c", 0.5, 1.4)]
    claims.append(claim("d", 0.0, 0.0, "exact: holds as corrected"))
    lines = paper_table(claims, rows)
    wanted = ["holds", "fails", "open", "holds as corrected", "not run", "out of scope"]
    assert [line.status for line in lines] == wanted
    assert lines[0].ours == "0.6 [0.5, 0.7], holds if < 1"


def test_every_row_names_a_test_of_an_experiment_or_says_why_not():
    for row in PAPER:
        if row.claim:
            assert any(row.claim.startswith(f"{name}-") for name in EXPERIMENTS)
        else:
            assert "language model" in row.form
    assert 3 <= sum(row.telling for row in PAPER) <= 5


def test_rows_about_statements_name_existing_ones():
    names = {f"paper-theory-{s.name}" for s in statements()}
    named = {row.claim for row in PAPER if row.claim.startswith("paper-theory-")}
    assert named <= names
