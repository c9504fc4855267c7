"""Verdicts from estimates with known answers."""

import json
from dataclasses import replace

import numpy as np
import pytest

from analysis.claims import Claim
from analysis.statistics import Estimate, mean

BASE = Claim("id", "sentence", "source", "statistic", "<", 1.0, Estimate(0.5, 0.4, 0.6, 64, "BCa bootstrap"), 64)


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
    claim = replace(BASE, estimate=mean(np.array([0.1])), parts={"vanilla": mean(np.array([np.nan]))})
    record = json.loads(json.dumps(claim.to_dict(), allow_nan=False))
    assert record["verdict"] == "inconclusive"
    assert record["estimate"]["low"] is None
    assert record["note"] == "computed on 1 of the 64 seeds asked for"
    assert "note" not in BASE.to_dict()
