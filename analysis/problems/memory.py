"""What blocks of data share: drawn once, whatever is trained on it."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Value = TypeVar("Value")


class Memory:
    """The last value of each name, with what it was made for: shared data are drawn once."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Hashable, Any]] = {}

    def get(self, name: str, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, made where the last one was another's."""
        if name not in self._kept or self._kept[name][0] != key:
            self._kept.pop(name, None)  # the memory of the old one is free for the new
            self._kept[name] = (key, make())
        return self._kept[name][1]
