"""What a seed names: a model's graph, embeddings, initialisation and data, whatever else is trained
beside it.
"""

from enum import IntEnum
from typing import Any

import numpy as np


class Stream(IntEnum):
    """The independent random streams of one seed. The numbers are part of every stored result:
    append, never renumber.

    >>> member_generator(0, Stream.DATA) is member_generator(0, Stream.GRAPH)
    False
    """

    GRAPH = 0
    EMBEDDING = 1
    PARAMETER = 2
    DATA = 3
    EVALUATION = 4


class _Key(np.random.bit_generator.ISeedSequence):
    """The key itself as what seeds Philox. Philox(key=...) gives the same numbers, but first asks
    the system for entropy.
    """

    def __init__(self, seed: int, stream: Stream) -> None:
        self.key = np.array([seed, int(stream)], dtype=np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> np.ndarray:
        return self.key


def member_generator(seed: int, stream: Stream) -> np.random.Generator:
    """The generator of one stream of one seed: Philox with the key (seed, stream).

    Philox is counter-based, so distinct keys give independent streams and no other member can shift
    this one. Random numbers are drawn on the host and moved to the device: CPU and GPU see the same
    bits.

    Raises ValueError for a seed outside [0, 2^64).

    >>> bool(member_generator(3, Stream.DATA).random() == member_generator(3, Stream.DATA).random())
    True
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"a seed must lie in [0, 2^64), got {seed}: choose a non-negative integer")
    key = _Key(seed, stream)
    # numpy's hints forget that a bit generator takes any ISeedSequence.
    return np.random.Generator(np.random.Philox(key))  # pyright: ignore[reportArgumentType]
