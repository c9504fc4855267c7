"""Names of nodes: what is stored of them, and that they stay apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import MarkovGraphTask
from tasks.labels import storable


@given(st.lists(st.text(max_size=8), unique=True, max_size=6))
def test_names_are_text_without_control_characters(names: list[str]) -> None:
    try:
        shown = storable(names)
    except ValueError:
        assert any(not name.isprintable() for name in names)
        return
    assert len(set(shown)) == len(names)
    for before, after in zip(names, shown, strict=True):
        after.encode("utf-8")
        assert len(after) == len(before)
        assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in after)
        kept = [(b, a) for b, a in zip(before, after, strict=True) if b.isprintable()]
        assert all(a == b for b, a in kept)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("nul\0", "nul\u2400"),
        ("a\tb", "a\u2409b"),
        ("\x7f", "\u2421"),
        ("\x85", "\ufffd"),
        ("\ud800", "\ufffd"),
        ("\u202eright", "\ufffdright"),
        ("$x^2_i$", "$x^2_i$"),
        ("שלום", "שלום"),
        ("한국😀", "한국😀"),
    ],
)
def test_what_stands_for_what(name: str, shown: str) -> None:
    assert storable([name, "other"]) == (shown, "other")


@pytest.mark.parametrize("labels", [("a", "a"), ("a\0", "a\u2400")])
def test_names_must_differ(labels: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"names of nodes must differ, got 'a.?' twice: rename"):
        MarkovGraphTask.from_matrix(np.eye(2), labels)
