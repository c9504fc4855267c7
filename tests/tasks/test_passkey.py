"""A passkey in text: where it stands, what it is, and what chance makes of it."""

import numpy as np
import pytest

from tasks import Passkey
from tasks.passkey import CHANCE, DIGITS

KEY = Passkey(20, tuple(range(10, 20)))


def test_a_key_stands_once_in_the_text_and_again_at_its_end() -> None:
    filler = np.random.default_rng(0).integers(0, 10, (4000, 15))
    shown = KEY.hidden(filler, np.random.default_rng(1))
    first = (shown == KEY.mark).argmax(1)
    assert set(first) == {0, 1, 2, 3}  # all places with room before the end
    assert np.bincount(first).min() > 900
    rows = np.arange(len(shown))[:, None]
    digits = shown[rows, first[:, None] + 1 + np.arange(DIGITS)]
    np.testing.assert_array_equal(shown[:, -DIGITS:], digits)
    assert (shown[:, -DIGITS - 1] == KEY.mark).all()
    # Uniform and independent: a guess, whatever it is of, is right by chance.
    assert (digits == 13).mean() == pytest.approx(CHANCE, abs=0.01)
    assert (digits[:, 1:] == digits[:, :-1]).mean() == pytest.approx(CHANCE, abs=0.01)
    kept = np.ones(shown.shape, bool)
    kept[rows, first[:, None] + np.arange(DIGITS + 1)] = False
    kept[:, -DIGITS - 1 :] = False
    np.testing.assert_array_equal(shown[kept], filler[kept])
    assert filler.max() < 10  # the text itself is left as it was


def test_a_window_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="take 12 symbols, got windows of 11: lengthen"):
        KEY.hidden(np.zeros((1, 11), int), np.random.default_rng(0))
