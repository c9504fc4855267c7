"""Texts: files as people have them (tests/data/texts), their symbols, and their transitions."""

import itertools
import random
import re
import tomllib
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks import MarkovGraphTask, TextReading, bigrams, default_text, read_text
from tasks.alphabets import ALPHABETS

FOLDED = TextReading(fold_marks=True)
FOLDER = Path(__file__).parents[1] / "data" / "texts"
FILES: dict[str, dict[str, Any]] = tomllib.loads(
    (FOLDER / "expected.toml").read_text(encoding="utf-8")
)


def test_the_table_is_of_the_files() -> None:
    assert set(FILES) == {p.name for p in FOLDER.iterdir()} - {"expected.toml"}
    assert len(FILES) >= 40


@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_its_symbols(name: str) -> None:
    about = FILES[name]
    reading = TextReading(**about.get("reading", {}))
    if "error" in about:
        with pytest.raises(ValueError) as caught:
            bigrams(read_text(FOLDER / name, reading)[0], reading)
        assert about["error"] in str(caught.value)
        assert "\n" not in str(caught.value)
        return
    text, told = read_text(FOLDER / name, reading)
    found = bigrams(text, reading)
    assert sorted(found.symbols) == sorted(about["symbols"])
    for words in about.get("says", ()):
        assert words in "; ".join([*found.notes, *told])
    if "after" in about:
        row = found.matrix[found.symbols.index(about["after"])]
        expected = {symbol: float(Fraction(share)) for symbol, share in about["row"].items()}
        given = {s: p for s, p in zip(found.symbols, row.tolist(), strict=True) if p}
        assert given == pytest.approx(expected)


@pytest.mark.parametrize("alphabet", ["letters", "graphemes", "bytes", "words", "tokens"])
def test_a_text_in_pieces_is_the_text(alphabet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random.Random(0)
    letters = [
        "a",
        "B",
        "e\u0301",
        "\u00df",
        " ",
        "  ",
        "\n",
        ",",
        "\u304b\u3099",
        "\u0915\u093f",
        "1",
    ]
    text = "".join(generator.choice(letters) for _ in range(4000))
    whole = bigrams(text, TextReading(alphabet=alphabet))
    monkeypatch.setattr("tasks.texts._CHUNK", 7)
    parts = bigrams(text, TextReading(alphabet=alphabet))
    assert parts.symbols == whole.symbols
    np.testing.assert_array_equal(parts.matrix, whole.matrix)
    assert set(ALPHABETS) == {"letters", "graphemes", "bytes", "words", "tokens"}


def test_the_rest_counts_as_one_symbol() -> None:
    text = "aaaabbbcc d"
    found = bigrams(text, TextReading(top=2))
    assert found.symbols == ("a", "b", "(other)")
    expected = [[3 / 4, 1 / 4, 0], [0, 2 / 3, 1 / 3], [1 / 4, 0, 3 / 4]]
    np.testing.assert_allclose(found.matrix, expected)
    assert bigrams(text, TextReading(top=9)).symbols == bigrams(text).symbols


def test_a_text_of_too_many_symbols_asks_for_fewer() -> None:
    text = " ".join(map(str, range(5000)))
    with pytest.raises(ValueError, match=r"5000 different tokens is too varied, above 4096: set t"):
        bigrams(text, TextReading(alphabet="tokens"))
    assert len(bigrams(text, TextReading(alphabet="tokens", top=10)).symbols) == 11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top": 0}, "top must be at least 1, got 0"),
        ({"alphabet": "bytes", "fold_marks": True}, "fold_marks does nothing to bytes: drop it"),
    ],
)
def test_bad_settings(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TextReading(**arguments)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "gone.txt", "No such file")):
        with pytest.raises(ValueError, match=f"cannot read the text file .*{why}"):
            read_text(path)


# Bigrams


def reference_bigrams(text: str) -> dict[tuple[str, str], int]:
    """Count successors letter by letter, for texts of ASCII and a few accented letters."""
    plain = text.lower().translate(str.maketrans("äéñ", "aen"))
    words = re.sub(r"[^a-z]+", "_", plain)
    if len(words) > 1 and words[0] == words[-1] == "_":
        words = words[:-1]  # read as a circle, the two runs are one
    return Counter((words[i], words[(i + 1) % len(words)]) for i in range(len(words)))


@given(st.text(alphabet="abcABé ñÄ.,1\n", max_size=60))
def test_bigrams_by_brute_force(text: str) -> None:
    counts = reference_bigrams(text) if text else {}
    symbols = tuple(sorted({first for first, _ in counts}, key=lambda s: (s != "_", s)))
    if len(symbols) < 2:
        with pytest.raises(ValueError, match="at least 2 different symbols"):
            bigrams(text, FOLDED)
        return
    found = bigrams(text, FOLDED)
    matrix = found.matrix
    assert found.symbols == symbols
    table = np.array(
        [[counts.get(pair, 0) for pair in itertools.product([a], symbols)] for a in symbols],
        dtype=float,
    )
    np.testing.assert_allclose(matrix, table / table.sum(1, keepdims=True), rtol=1e-15)


@given(st.text(alphabet="abcdé ,", min_size=2, max_size=80))
def test_a_circular_text_is_stationary_at_its_own_frequencies(text: str) -> None:
    counts = reference_bigrams(text)
    frequency = Counter()
    for (symbol, _), times in counts.items():
        frequency[symbol] += times
    assume(len(frequency) >= 2)
    task = MarkovGraphTask.from_text(text, FOLDED)
    expected = np.array([frequency[symbol] for symbol in task.labels]) / frequency.total()
    np.testing.assert_allclose(task.stationary_distribution, expected, atol=1e-13)


@pytest.mark.parametrize(
    ("text", "kept", "folded"),
    [
        ("Été", "té", "et"),
        ("e\u0301e t", "_eté", "_et"),  # the accent as a character of its own
        ("Straße", "aerst", "aerst"),
        ("Python™ x", "_hnoptxy", "_hmnoptxy"),
        ("\ufb01x", "fix", "fix"),  # the ligature fi
        ("ℌh x", "_hxℌ", "_hx"),
        ("ab\u200bc-d", "_abcd", "_abcd"),
        ("мир Мирй", "_иймр", "_имр"),
    ],
)
def test_letters_keep_their_marks_unless_they_are_folded(text: str, kept: str, folded: str) -> None:
    assert "".join(bigrams(text).symbols) == kept
    assert "".join(bigrams(text, FOLDED).symbols) == folded


def test_runs_of_other_characters_are_one_space() -> None:
    for text in ("a b", " a  b", "a, b!", "...a 1 b...", "a\n\nb\t"):
        found = bigrams(text)
        matrix, symbols = found.matrix, found.symbols
        open_end = text[-1].isalpha() and text[0].isalpha()
        assert symbols == ("_", "a", "b")
        assert matrix.tolist() == [
            [0, 0, 1] if open_end else [0, 0.5, 0.5],
            [1, 0, 0],
            [0, 1, 0] if open_end else [1, 0, 0],
        ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"got 0 \(no letter\): give a longer text"),
        ("\u0301", r"got 0 \(no letter\)"),
        ("60 64", r"got 1 \(_\): give a longer text, or choose another alphabet \(--alphabet\)"),
        ("x", r"got 1 \(x\): give a longer text"),
        ("aAa", r"got 1 \(a\)"),
        ("123 ...", r"got 1 \(_\)"),
    ],
)
def test_empty_and_one_letter_texts(text: str, message: str) -> None:
    with pytest.raises(
        ValueError, match=f"at least 2 different symbols to have transitions, {message}"
    ):
        MarkovGraphTask.from_text(text)


def test_the_default_text_is_python_prose_in_27_symbols() -> None:
    text = default_text()
    assert len(text) > 300_000
    assert text == default_text()
    task = MarkovGraphTask.from_text(text)
    assert task.labels == tuple("_abcdefghijklmnopqrstuvwxyz")
    q, u = task.labels.index("q"), task.labels.index("u")
    assert task.transition_matrix[q, u] > 0.9
    assert (
        1.5 < task.entropy_rate < 2.7
    )  # English letters given one letter: about 3.3 bits, 2.3 nats
