"""A passkey in filler text: what a model must remember of long ago (arXiv 2305.16300)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

DIGITS = 5
SYMBOLS = 11
"""A mark, and ten digits."""
_PIECE = DIGITS + 1
SHORTEST = 2 * _PIECE
"""The shortest window with the key and its repetition."""
CHANCE = 0.1
"""The share of digits that is right without a look at the key: it is uniform, so no law of the text
helps. Of whole keys it is CHANCE ** DIGITS."""


@dataclass(frozen=True)
class Passkey:
    """mark, digits: their numbers in the vocabulary.

    A window is a piece of text in which a mark and five uniform digits stand at a uniform place; it
    ends with the mark and the same digits, which are to be predicted.

    >>> key = Passkey(0, tuple(range(1, 11)))
    >>> shown = key.hidden(np.full((1, 14), 11), np.random.default_rng(0))[0]
    >>> shown.tolist()
    [0, 9, 7, 6, 3, 4, 11, 11, 0, 9, 7, 6, 3, 4]
    """

    mark: int
    digits: tuple[int, ...]

    def hidden(
        self, filler: Int[np.ndarray, "window length"], generator: np.random.Generator
    ) -> Int[np.ndarray, "window length"]:
        """Pieces of text with a key each, their last symbols lost to it. Raises ValueError for
        windows shorter than `SHORTEST`.
        """
        count, length = filler.shape
        if length < SHORTEST:
            raise ValueError(
                f"a passkey and its repetition take {SHORTEST} symbols, got windows of {length}: "
                "lengthen the context"
            )
        drawn = generator.integers(len(self.digits), size=(count, DIGITS))
        start = generator.integers(length - SHORTEST + 1, size=count)
        piece = np.full((count, _PIECE), self.mark)
        piece[:, 1:] = np.asarray(self.digits)[drawn]
        shown = filler.copy()
        shown[np.arange(count)[:, None], start[:, None] + np.arange(_PIECE)] = piece
        shown[:, -_PIECE:] = piece
        return shown
