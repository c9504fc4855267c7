"""Names of nodes as they can be stored and drawn: a file or a program may give them any characters."""

import unicodedata
from collections import Counter
from collections.abc import Iterable

_TURNS = {*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F}
"""Characters that only turn the direction of what follows, beyond their name."""


def storable(names: Iterable[str]) -> tuple[str, ...]:
    """The names with a picture for each control character, and U+FFFD for what no text can hold.

    Raises ValueError where two names are then the same.

    >>> storable(["a", "b\\0", "two\\nlines"])
    ('a', 'b␀', 'two␊lines')
    """
    shown = tuple("".join(map(_shown, name)) for name in names)
    twice = [name for name, count in Counter(shown).items() if count > 1]
    if twice:
        raise ValueError(
            f"names of nodes must differ, got {twice[0]!r:.60} twice: rename one of the nodes"
        )
    return shown


def _shown(character: str) -> str:
    code, category = ord(character), unicodedata.category(character)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return "\ufffd" if category in ("Cc", "Cs") or code in _TURNS else character
