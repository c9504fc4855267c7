"""What blocks of data share: drawn once, whatever is trained on it."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

Value = TypeVar("Value")


def by_seed(seeds: Sequence[int], draw: Callable[[int], Value]) -> list[Value]:
    """What is drawn for each of the seeds: once, however often a seed stands.

    >>> by_seed([3, 1, 3], lambda seed: seed**2)
    [9, 1, 9]
    """
    drawn = {seed: draw(seed) for seed in dict.fromkeys(seeds)}
    return [drawn[seed] for seed in seeds]


class Memory:
    """The last two values of each name, with what they were made for: data that problems share, of
    the seeds that tune and of those that are reported, are drawn once.
    """

    def __init__(self) -> None:
        self._kept: dict[str, list[tuple[Hashable, Any]]] = {}

    def get(self, name: str, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, made where neither of the last two was its own."""
        kept = self._kept.setdefault(name, [])
        for one, value in kept:
            if one == key:
                return value
        del kept[:-1]  # the memory of the older one is free for the new
        kept.append((key, make()))
        return kept[-1][1]
