"""What a text can be taken apart into: letters, characters as a reader sees them, bytes, words, tokens."""

import abc
import re
import unicodedata
from typing import ClassVar

SPACE = " "
_JOINERS = {0x200C: None, 0x200D: None, 0x00AD: None}  # within words, and no part of a letter
_APOSTROPHES = "'\u2019"


class Alphabet(abc.ABC):
    """One way to take a text apart. title: what the symbols are, in sentences. of_letters: whether
    letters can be folded in it.
    """

    title: ClassVar[str]
    of_letters: ClassVar[bool] = True

    @abc.abstractmethod
    def symbols(self, text: str) -> list[str]:
        """The symbols of a piece of text, in order; `SPACE` for what stands between others."""

    def cut(self, text: str, place: int) -> int:
        """The first place from here on where no symbol is cut: here behind white space."""
        space = re.compile(r"\s").search(text, place)
        return space.end() if space else len(text)

    def name_of(self, symbol: str) -> str:
        """What a symbol is called."""
        return symbol

    def notes(self, text: str, folded: bool) -> list[str]:
        """Sentences of what was folded and left out of a whole text."""
        return []


class Letters(Alphabet):
    """A letter with its marks, small and capital alike; a run of all other characters is a space."""

    title = "letters"

    def symbols(self, text: str) -> list[str]:
        return _clusters(_letters(text))

    def cut(self, text: str, place: int) -> int:
        return _between_clusters(text, place)

    def name_of(self, symbol: str) -> str:
        return "_" if symbol == SPACE else symbol

    def notes(self, text: str, folded: bool) -> list[str]:
        characters = set(text)
        marked = sum(
            unicodedata.decomposition(c) != "" or _is_mark(c) for c in characters if _counts(c)
        )
        others = sum(map(text.count, (c for c in characters if not _counts(c))))
        notes = (
            ["capitals read as small letters"] if any(c != c.casefold() for c in characters) else []
        )
        if marked:
            notes.append("letters without their marks" if folded else "letters with their marks")
        if others:
            notes.append(f"{others:,} other characters read as _ (a run as one)")
        return notes


class Graphemes(Alphabet):
    """What a reader takes for one character: a letter or sign with all that belongs to it, small and
    capital apart; a run of white space is one.
    """

    title = "characters"

    def symbols(self, text: str) -> list[str]:
        whole = re.sub(r"\s+", SPACE, unicodedata.normalize("NFC", text))
        return _clusters(whole, "\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f", joined=True)

    def cut(self, text: str, place: int) -> int:
        return _between_clusters(text, place)

    def name_of(self, symbol: str) -> str:
        return "\u2423" if symbol == SPACE else symbol


class Bytes(Alphabet):
    """The bytes of a text in UTF-8, called by their ASCII character or number."""

    title, of_letters = "bytes", False

    def symbols(self, text: str) -> list[str]:
        return list(text.encode("utf-8", "surrogatepass").decode("latin-1"))

    def cut(self, text: str, place: int) -> int:
        return place

    def name_of(self, symbol: str) -> str:
        return symbol if "!" <= symbol <= "~" else f"0x{ord(symbol):02x}"


class Words(Alphabet):
    """Runs of letters with their marks, and of apostrophes within them, small and capital alike."""

    title = "words"

    def symbols(self, text: str) -> list[str]:
        words = _letters(text, keep=_APOSTROPHES).replace("\u2019", "'").split()
        return [word for word in (word.strip("'") for word in words) if word]

    def notes(self, text: str, folded: bool) -> list[str]:
        return ["capitals read as small letters", "what is no letter left out"]


class Tokens(Alphabet):
    """What stands between white space, as it is."""

    title, of_letters = "tokens", False

    def symbols(self, text: str) -> list[str]:
        return text.split()


ALPHABETS: dict[str, Alphabet] = {
    "letters": Letters(),
    "graphemes": Graphemes(),
    "bytes": Bytes(),
    "words": Words(),
    "tokens": Tokens(),
}


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def _counts(character: str) -> bool:
    """Whether a character is of a letter."""
    return character.isalpha() or _is_mark(character) or ord(character) in _JOINERS


def _letters(text: str, keep: str = "") -> str:
    """The text in small letters, with one space for every run of anything else but `keep`."""
    small = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    others = {ord(c): SPACE for c in set(small) if not _counts(c) and c not in keep}
    return re.sub(r" {2,}", SPACE, small.translate(others | _JOINERS))


def _between_clusters(text: str, place: int) -> int:
    """The first place from here on behind which no mark, joiner, part of a Korean syllable or of an
    emoji stands, so that nothing is cut.
    """
    while place < len(text) and (_binds(text[place]) or ord(text[place - 1]) in _JOINERS):
        place += 1
    return place


def _binds(character: str) -> bool:
    code = ord(character)
    return (
        _is_mark(character)
        or code in _JOINERS
        or 0x1160 <= code < 0x1200
        or 0x1F1E6 <= code < 0x1F200
        or 0x1F3FB <= code < 0x1F400
        or 0xE0020 <= code < 0xE0080
    )


def _clusters(text: str, further: str = "", joined: bool = False) -> list[str]:
    """Characters with the marks behind them; a mark behind a space is part of nothing.

    further: more characters that belong to those before. joined: a joiner and flags of two letters
    bind, too.
    """
    marks = "".join(sorted(c for c in set(text) if _is_mark(c)))
    bind = f"[{re.escape(marks)}{further}]" if marks or further else ""
    if joined:
        flags = "[\U0001f1e6-\U0001f1ff]"
        pattern = rf"\ |{flags}{flags}|.(?:{bind}|\u200d.)*"
    elif bind:
        text = re.sub(rf"(^|\ ){bind}+", r"\1", text)
        pattern = rf"\ |.{bind}*"
    else:
        return list(text)
    return re.findall(pattern, text, re.DOTALL)
