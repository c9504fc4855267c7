"""Texts as chains of symbols: which symbols a text is made of, and how often one follows another."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from tasks.alphabets import ALPHABETS, SPACE, Alphabet
from tasks.decoding import decode, file_bytes

AlphabetName = Literal["letters", "graphemes", "bytes", "words", "tokens"]
OTHER = "(other)"
MOST_SYMBOLS = 4096
_CHUNK = 2**20  # characters that are taken apart at a time
_START = re.compile(r"^\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG.*$", re.MULTILINE)
_END = re.compile(r"^\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG.*$", re.MULTILINE)
_FASTA = (".fa", ".fasta", ".fna", ".faa")


@dataclass(frozen=True)
class TextReading:
    """How a text becomes symbols.

    alphabet: `letters` (with their marks, capital or not; all else is a space), `graphemes` (what a
    reader takes for one character), `bytes` of UTF-8, `words`, or `tokens` between white space. top:
    keep so many of the most frequent symbols, and take the rest for one. fold_marks: take letters
    for those that they are made from, without marks. licence: keep the lines of Project Gutenberg
    around its texts.

    Raises ValueError for an unknown alphabet, top < 1, or marks of what has none.

    >>> bigrams("Tick, tock", TextReading(alphabet="words")).symbols
    ('tick', 'tock')
    """

    alphabet: AlphabetName = "letters"
    top: int | None = None
    fold_marks: bool = False
    licence: bool = False

    def __post_init__(self) -> None:
        if self.alphabet not in ALPHABETS:
            raise ValueError(
                f"unknown alphabet {self.alphabet!r}: choose one of "
                f"{', '.join(get_args(AlphabetName))}"
            )
        if self.top is not None and self.top < 1:
            raise ValueError(f"top must be at least 1, got {self.top}: choose a larger number")
        if self.fold_marks and not ALPHABETS[self.alphabet].of_letters:
            raise ValueError(
                f"fold_marks does nothing to {self.alphabet}: drop it, or choose another alphabet"
            )


AS_LETTERS = TextReading()


@dataclass(frozen=True, eq=False)
class Bigrams:
    """The transitions of a text.

    matrix: P*, the share of each symbol among the successors of another. symbols: their names.
    notes: sentences of what was kept, folded and left out.
    """

    matrix: Float[np.ndarray, "symbol symbol"]
    symbols: tuple[str, ...]
    notes: list[str] = field(default_factory=list)


def read_text(path: str | Path, reading: TextReading = AS_LETTERS) -> tuple[str, list[str]]:
    """The text of a file, also packed with gzip, and sentences of what was left out of it.

    Headers of FASTA files are left out, and so are the lines around a text of Project Gutenberg
    unless `licence` is set. Raises ValueError for a file that is missing or no text.

    >>> read_text("tests/data/texts/english.txt")[0][:8]
    'A cab, a'
    """
    path = Path(path)
    text, notice = decode(file_bytes(path, "text file"), "text file", path)
    notes = [notice] if notice else []
    start, end = _START.search(text), _END.search(text)
    if start and end and start.end() < end.start() and not reading.licence:
        text = text[start.end() : end.start()]
        notes.append("lines of Project Gutenberg before and after the text left out")
    if Path(path.name.lower().removesuffix(".gz")).suffix in _FASTA:
        text, headers = re.subn(r"(?m)^[>;].*$", "", text)
        # A sequence goes on in the next line.
        text = re.sub(r"\s+", "", text) if reading.alphabet != "tokens" else text
        notes.append(f"{headers} headers left out")
    return text, notes


def default_text() -> str:
    """The prose of Python's documentation (`pydoc_data.topics`), which changes a little between its
    versions.

    >>> len(default_text()) > 100_000
    True
    """
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def bigrams(text: str, reading: TextReading = AS_LETTERS) -> Bigrams:
    """How often each symbol of a text follows another.

    The text is read as a circle (its end leads to its start): every symbol then has a successor,
    and the stationary distribution is exactly the frequency of the symbols. It is taken apart piece
    by piece, in a few bytes a symbol.

    Raises ValueError for a text of fewer than two different symbols, or of more than 4096.

    >>> transitions = bigrams("Abba!")
    >>> transitions.symbols, transitions.matrix.tolist()
    (('_', 'a', 'b'), [[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]])
    """
    alphabet = ALPHABETS[reading.alphabet]
    codes, names = symbol_codes(text, reading)
    codes = _without_runs(codes, names.index(SPACE) if SPACE in names else None)
    notes = [f"{len(codes):,} {alphabet.title}, {len(names):,} different"]
    notes += alphabet.notes(text, reading.fold_marks)
    return _counted(codes, names, reading, notes)


def symbol_codes(
    text: str, reading: TextReading = AS_LETTERS
) -> tuple[Int[np.ndarray, " text"], list[str]]:
    """The symbols of a text in order, each as its place in a list of the different ones.

    >>> codes, names = symbol_codes("Abba!")
    >>> codes.tolist(), names
    ([1, 2, 2, 1, 0], [' ', 'a', 'b'])
    """
    alphabet = ALPHABETS[reading.alphabet]
    number: dict[str, int] = {}
    parts = [np.zeros(0, np.int32)]
    for piece in _pieces(_folded(text) if reading.fold_marks else text, alphabet):
        symbols = alphabet.symbols(piece)
        for symbol in sorted(set(symbols) - set(number)):
            number[symbol] = len(number)
        parts.append(np.fromiter(map(number.__getitem__, symbols), np.int32, len(symbols)))
    return np.concatenate(parts), list(number)


def _folded(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(c for c in decomposed if not unicodedata.combining(c))


def _pieces(text: str, alphabet: Alphabet) -> Iterator[str]:
    """The text in pieces that end between two symbols."""
    start = 0
    while start < len(text):
        end = alphabet.cut(text, min(len(text), start + _CHUNK))
        yield text[start:end]
        start = end


def _without_runs(codes: Int[np.ndarray, " text"], space: int | None) -> Int[np.ndarray, " circle"]:
    """A space at the end of a piece and at the start of the next are one, also around the circle."""
    if space is None or not len(codes):
        return codes
    again = (codes == space) & (np.roll(codes, 1) == space)
    again[0] &= len(codes) > 1
    return codes[~again]


def _counted(
    codes: Int[np.ndarray, " circle"],
    names: Sequence[str],
    reading: TextReading,
    notes: list[str],
) -> Bigrams:
    counts = np.bincount(codes, minlength=len(names))
    present = sorted((i for i in range(len(names)) if counts[i]), key=lambda i: names[i])
    kept = present
    if reading.top is not None and reading.top < len(present):
        most = sorted(present, key=lambda i: (-counts[i], names[i]))[: reading.top]
        kept = sorted(most, key=lambda i: names[i])
        rest = len(codes) - int(counts[kept].sum())
        share = f"{len(present) - len(kept):,} of them, {rest / len(codes):.2%} of the text"
        notes = [*notes, f"{share}, read as {OTHER}"]
    if len(kept) > MOST_SYMBOLS:
        raise ValueError(
            f"a text of {len(kept)} different {ALPHABETS[reading.alphabet].title} is too varied, "
            f"above {MOST_SYMBOLS}: set top (--top) to keep the most frequent"
        )
    symbols = [ALPHABETS[reading.alphabet].name_of(names[i]) for i in kept]
    if len(kept) < len(present):
        symbols.append(OTHER)
    if len(symbols) < 2:
        about = "".join(symbols) or f"no {ALPHABETS[reading.alphabet].title.removesuffix('s')}"
        raise ValueError(
            f"a text needs at least 2 different symbols to have transitions, got {len(symbols)} "
            f"({about}): give a longer text, or choose another alphabet (--alphabet)"
        )
    place = np.full(len(names), len(kept), dtype=np.int64)
    place[kept] = np.arange(len(kept))
    size = len(symbols)
    pairs = np.zeros(size * size, dtype=np.int64)
    for start in range(0, len(codes), _CHUNK):
        now = place[codes[start : start + _CHUNK]]
        following = place[np.take(codes, range(start + 1, start + 1 + len(now)), mode="wrap")]
        pairs += np.bincount(now * size + following, minlength=size * size)
    matrix = pairs.reshape(size, size).astype(np.float64)
    return Bigrams(matrix / matrix.sum(1, keepdims=True), tuple(symbols), notes)
