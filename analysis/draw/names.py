"""Names in figures, drawn as they are: without mathematics, in fonts that have their letters."""

import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Any

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

_LONGEST = 20  # characters of a name that a figure has room for
_OWN = "DejaVu Sans"  # comes with matplotlib


class Names:
    """The names of a figure's nodes.

    shown: each as it is drawn: cut where it is long, and `#` with its place where no font of this
    machine has its letters. notice: a sentence about the latter, or nothing.
    """

    def __init__(self, names: Iterable[object]) -> None:
        cut = [_cut(str(name)) for name in names]
        self.families, missing = _families(frozenset("".join(cut)))
        self.shown = [
            f"#{place}" if missing & set(name) else name for place, name in enumerate(cut)
        ]
        strange = sum(bool(missing & set(name)) for name in cut)
        self.notice = (
            f"{strange} names with letters that no font here has are shown as # and their place"
            if strange
            else ""
        )

    def literal(self, texts: Iterable[Text]) -> None:
        """Let texts with names be drawn as they are."""
        for text in texts:
            text.set(**self.style)

    @property
    def style(self) -> dict[str, Any]:
        """The same as keywords of a text."""
        return {"parse_math": False, "fontfamily": self.families}


def drawable(text: str) -> str:
    """A text of which matplotlib's own font has every letter: U+FFFD stands for the others."""
    missing = _families(frozenset(text))[1] | frozenset(c for c in text if not c.isprintable())
    return "".join("\ufffd" if c in missing else c for c in text)


def _cut(name: str) -> str:
    """A long name's beginning, not ending between a letter and its marks."""
    if len(name) <= _LONGEST:
        return name
    end = _LONGEST - 1
    while end > 1 and unicodedata.combining(name[end]):
        end -= 1
    return f"{name[:end]}\u2026"


@cache
def _families(characters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Fonts that together have these characters, as far as this machine has any, and what lacks."""
    own = font_manager.findfont(_OWN)
    families, missing = [_OWN], frozenset(c for c in characters if not _has(own, c))
    every = font_manager.fontManager.ttflist if missing else []
    # matplotlib's font of last resort has a box for every letter, which nobody can read.
    fonts = [font for font in every if not font.name.startswith("Last Resort")]
    for font in sorted(fonts, key=lambda f: (f.style != "normal", f.weight != 400, f.name)):
        covered = {c for c in missing if _has(font.fname, c)}
        if covered:
            families.append(font.name)
            missing -= covered
        if not missing:
            break
    return families, missing


def _has(path: str, character: str) -> bool:
    """Whether a font has a character, and can draw it."""
    font = _font(path)
    if font is None or not font.get_char_index(ord(character)):
        return False
    try:
        font.load_char(ord(character))
    except RuntimeError:  # a picture of fixed size, as in fonts of emoji
        return False
    return True


@cache
def _font(path: str) -> FT2Font | None:
    try:
        font = FT2Font(path)
        font.set_size(10, 72)
    except (OSError, RuntimeError):
        return None
    return font
