"""The probes' logits: laws, seeds, and streaming in any number of parts."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tasks.dilution import LAWS, DilutionProbe, Law


def _probe(law: Law, needles: int = 2) -> DilutionProbe:
    return DilutionProbe(law, needles, 3.0, 0.0 if law == "equal" else 1.5)


@pytest.mark.parametrize("law", LAWS)
def test_the_needles_come_first_and_stand_out_by_the_gap(law: Law) -> None:
    rows = _probe(law).sample(7, 5, np.random.default_rng(0))
    assert rows.shape == (5, 7)
    assert (rows[:, :2] == 3.0).all()
    assert (rows[:, 2:] != 3.0).all()


@pytest.mark.parametrize("law", LAWS)
def test_a_row_may_be_needles_only(law: Law) -> None:
    assert _probe(law, 4).sample(4, 3, np.random.default_rng(0)).tolist() == [[3.0] * 4] * 3


def test_distractors_follow_their_law() -> None:
    draw = {law: _probe(law).distractors(20_000, np.random.default_rng(1)) for law in LAWS}
    assert (draw["equal"] == 0).all()
    assert np.abs(draw["bounded"]).max() <= 1.5
    assert stats.kstest(draw["bounded"], stats.uniform(-1.5, 3).cdf).pvalue > 1e-3
    assert stats.kstest(draw["gaussian"], stats.norm(scale=1.5).cdf).pvalue > 1e-3


@pytest.mark.parametrize("law", ["bounded", "gaussian"])
def test_a_seed_names_the_logits(law: Law) -> None:
    first, again, other = (_probe(law).sample(9, 4, np.random.default_rng(s)) for s in (5, 5, 6))
    assert (first == again).all()
    assert not (first[:, 2:] == other[:, 2:]).any()


@given(st.sampled_from(LAWS), st.lists(st.integers(0, 700), min_size=1, max_size=6))
def test_streaming_in_parts_gives_the_same_logits(law: Law, parts: list[int]) -> None:
    generator, whole = np.random.default_rng(2), np.random.default_rng(2)
    streamed = np.concatenate([_probe(law).distractors(part, generator) for part in parts])
    assert (streamed == _probe(law).distractors(sum(parts), whole)).all()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: DilutionProbe("cubic", 1, 1.0),
            "unknown law of distractors 'cubic': choose one of equal, bounded, gaus",
        ),
        (lambda: DilutionProbe("equal", 0, 1.0), "at least 1 needle, got 0: choose"),
        (lambda: DilutionProbe("equal", 1, np.inf), "the gap must be finite, got inf: give"),
        (
            lambda: DilutionProbe("equal", 1, 1.0, 0.5),
            "equal distractors have no spread, got 0.5: drop",
        ),
        (
            lambda: DilutionProbe("bounded", 1, 1.0),
            "bounded distractors need a positive and finite spread, got 0.0",
        ),
        (
            lambda: DilutionProbe("gaussian", 1, 1.0, np.nan),
            "gaussian distractors need a positive and finite spread",
        ),
        (
            lambda: _probe("equal").sample(1, 1, np.random.default_rng(0)),
            "at least their number 2, got 1: use longer",
        ),
        (lambda: _probe("equal").sample(5, 0, np.random.default_rng(0)), "at least 1, got 0: ask"),
        (
            lambda: _probe("equal").distractors(-1, np.random.default_rng(0)),
            "at least 0, got -1: ask",
        ),
    ],
)
def test_bad_input_is_refused_with_the_rule(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
