"""A text as a language model reads it: numbered symbols, a part to train on and one to validate on."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from tasks.alphabets import ALPHABETS
from tasks.texts import AS_LETTERS, OTHER, TextReading, symbol_codes

MOST_SYMBOLS = 65_536


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text in numbers.

    training, validation: symbols in the order of the text, the last part for validation. symbols:
    their names; the last is `OTHER` where rare ones are joined. notes: sentences of what was read.
    """

    training: Int[np.ndarray, " train"]
    validation: Int[np.ndarray, " valid"]
    symbols: tuple[str, ...]
    notes: list[str] = field(default_factory=list)

    @cached_property
    def log_frequency(self) -> Float[np.ndarray, " symbol"]:
        """log((c + 1) / sum (c + 1)), c how often a symbol occurs in the training part."""
        count = np.bincount(self.training, minlength=len(self.symbols)) + 1.0
        return np.log(count / count.sum())


def corpus(text: str, reading: TextReading = AS_LETTERS, validation_share: float = 0.1) -> Corpus:
    """The symbols of a text by frequency, the most frequent first, split in two.

    Raises ValueError for a share outside (0, 1), a text of fewer than two different symbols or of
    more than 65,536, and one that leaves a part empty.

    >>> read = corpus("abba abba aba", validation_share=0.25)
    >>> read.symbols, read.training.tolist(), read.validation.tolist()
    (('a', 'b', '_'), [0, 1, 1, 0, 2, 0, 1, 1, 0, 2], [0, 1, 0])
    """
    if not 0 < validation_share < 1:
        raise ValueError(
            f"validation_share must lie in (0, 1), got {validation_share}: choose a share"
        )
    codes, names = symbol_codes(text, reading)
    alphabet, count = ALPHABETS[reading.alphabet], np.bincount(codes, minlength=len(names))
    # By name where equally frequent, so that the order of the text does not matter.
    order = sorted(range(len(names)), key=lambda i: (-count[i], names[i]))
    kept = order[: reading.top]
    if len(kept) > MOST_SYMBOLS:
        raise ValueError(
            f"a text of {len(kept)} different {alphabet.title} is too varied, above "
            f"{MOST_SYMBOLS}: set top (--top) to keep the most frequent"
        )
    symbols = [alphabet.name_of(names[i]) for i in kept]
    notes = [f"{len(codes):,} {alphabet.title}, {len(names):,} different"]
    if len(kept) < len(order):
        rest = len(codes) - int(count[kept].sum())
        notes.append(
            f"{len(order) - len(kept):,} of them, {rest / len(codes):.2%}, read as {OTHER}"
        )
        symbols.append(OTHER)
    place = np.full(len(names), len(kept), np.int64)
    place[kept] = np.arange(len(kept))
    numbers, first = place[codes], len(codes) - int(validation_share * len(codes))
    if len(symbols) < 2 or not 0 < first < len(codes):
        raise ValueError(
            f"a text of {len(codes)} {alphabet.title}, {len(symbols)} different, is too short to "
            "train and validate on: give a longer text"
        )
    return Corpus(numbers[:first], numbers[first:], tuple(symbols), notes)
