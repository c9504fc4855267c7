"""Verdicts from estimates with known answers."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from analysis.claims.claim import FALSE_DISCOVERY_RATE, Claim, correct
from analysis.claims.statistics import Estimate, mean

BASE = Claim(
    "id",
    "sentence",
    "source",
    "statistic",
    "<",
    1.0,
    Estimate(0.5, 0.4, 0.6, 64, "BCa bootstrap"),
    64,
    topic="error",
)


@pytest.mark.parametrize(
    ("relation", "low", "high", "verdict"),
    [
        ("<", 0.4, 0.6, "supported"),
        ("<", 1.1, 1.2, "not supported"),
        ("<", 0.9, 1.1, "inconclusive"),
        ("<", 0.9, 1.0, "inconclusive"),
        ("<", 1.0, 1.2, "not supported"),
        (">", 1.1, 1.2, "supported"),
        (">", 0.4, 0.6, "not supported"),
        (">", 0.9, 1.1, "inconclusive"),
        (">", 1.0, 1.2, "inconclusive"),
        ("<", np.nan, np.nan, "inconclusive"),
    ],
)
def test_verdict_is_computed_from_the_interval(relation, low, high, verdict):
    estimate = Estimate(0.5 * (low + high), low, high, 64, "t")
    assert replace(BASE, relation=relation, estimate=estimate).verdict == verdict


def test_one_seed_is_inconclusive():
    assert replace(BASE, estimate=mean(np.array([0.1]))).verdict == "inconclusive"


def test_constant_data_are_conclusive():
    assert replace(BASE, estimate=mean(np.full(20, 0.1))).verdict == "supported"
    assert replace(BASE, estimate=mean(np.full(20, 1.0))).verdict == "not supported"


def test_json_holds_the_verdict_and_no_nan():
    claim = replace(
        BASE, estimate=mean(np.array([0.1])), parts={"vanilla": mean(np.array([np.nan]))}
    )
    record = json.loads(json.dumps(claim.to_dict(), allow_nan=False))
    assert "pseudo" not in record["estimate"]
    assert record["verdict"] == "inconclusive"
    assert record["estimate"]["low"] is None
    assert record["note"] == "computed on 1 of the 64 requested seeds"
    assert BASE.to_dict()["note"] == ""


@pytest.mark.parametrize(
    "values", [np.linspace(0.2, 0.9, 20), np.array([0.1]), np.array([np.nan] * 3)], ids=len
)
def test_a_stored_claim_comes_back(values):
    claim = replace(BASE, estimate=mean(values), parts={"vanilla": mean(values + 1)})
    again = Claim.from_dict(json.loads(json.dumps(claim.to_dict())))
    assert again.to_dict() == claim.to_dict()
    assert (again.p_value, again.verdict) == (claim.p_value, claim.verdict)


@pytest.mark.parametrize(
    "damage", [{"estimate": None}, {"parts": 3}, {"surprise": 1}, {"estimate": {"value": 1.0}}]
)
def test_a_damaged_claim_is_one_sentence(damage):
    with pytest.raises(ValueError, match="a stored claim is damaged"):
        Claim.from_dict(BASE.to_dict() | damage)


def test_an_exact_count_has_no_p_value_and_keeps_its_verdict():
    (again,) = correct([BASE])
    assert again.p_value is None
    assert again.corrected_p_value is None
    assert again.verdict == "supported"


def test_correction_against_the_textbook_rule():
    """Benjamini and Hochberg: the k smallest are discoveries, k the largest with p_(k) <= k q / m."""
    rng = np.random.default_rng(0)
    shifts = np.concatenate([np.zeros(30), np.linspace(0.1, 0.8, 20)])
    claims = [
        replace(BASE, id=str(i), estimate=mean(1 - s + rng.normal(size=40)))
        for i, s in enumerate(shifts)
    ]
    p = np.array([c.p_value for c in claims])
    fits = np.sort(p) <= np.arange(1, 51) / 50 * FALSE_DISCOVERY_RATE
    k = np.flatnonzero(fits).max() + 1
    corrected = correct(claims)
    adjusted = [c.corrected_p_value for c in corrected]
    assert adjusted == pytest.approx(false_discovery_control(p))
    discovered = {c.id for c in corrected if c.corrected_p_value <= FALSE_DISCOVERY_RATE}
    assert discovered == {str(i) for i in np.argsort(p)[:k]}
    assert 0 < len(discovered) < 50
    lost = [
        c.id
        for a, c in zip(claims, corrected, strict=True)
        if a.verdict != "inconclusive" and c.verdict == "inconclusive"
    ]
    assert lost  # an interval alone would have called these
    assert not set(lost) & discovered
