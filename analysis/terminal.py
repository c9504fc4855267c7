"""What the command line prints: columns, and the one sentence of a failure."""

import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

from pydantic import ValidationError

_LONGEST_SENTENCE = 400


def fail(sentence: str) -> None:
    """One line on standard error; of a long one, such as quotes hundreds of values, its rule and
    its remedy.
    """
    line = " ".join(sentence.split())
    if len(line) > _LONGEST_SENTENCE:
        line = f"{line[: _LONGEST_SENTENCE - 150]} ... {line[-140:]}"
    print(f"ssa-theory: {line}", file=sys.stderr)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print a warning as its sentence, without the line of code that it comes from."""
    before = warnings.formatwarning

    def sentence(message: Warning | str, *_: object) -> str:
        return f"ssa-theory: {' '.join(str(message).split())}\n"

    warnings.formatwarning = sentence
    try:
        yield
    finally:
        warnings.formatwarning = before


def nearest(word: str, among: Iterable[str]) -> str:
    """A question after the name that was meant, or nothing."""
    near = get_close_matches(word, list(among), 1)
    return f", did you mean {near[0]}?" if near else ""


def explain(error: ValidationError, flags: bool = True) -> str:
    """Pydantic's errors as one sentence each. flags: whether to name what is to be changed as a
    flag, or as an argument.
    """
    sentences = []
    for one in error.errors():
        name = ".".join(str(part) for part in one["loc"])
        if one["type"] == "value_error" and "ctx" in one:
            sentences.append(str(one["ctx"]["error"]))
        else:
            rule = one["msg"].replace("Input should", "must")
            field = str(one["loc"][0]) if one["loc"] else name  # of a list, not the item
            change = f"--{field.replace('_', '-')}" if flags else field
            rule = rule[0].lower() + rule[1:]
            sentences.append(f"{name} {rule}, got {one['input']!r}: change {change}")
    return "; ".join(sentences)


def print_rows(
    heads: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None
) -> None:
    """Text in columns to standard output; on a terminal the last column is wrapped.

    Not by rich, which takes a millisecond a row: a ledger has a thousand.
    """
    table = [heads, *rows]
    widths = [2 + max(map(len, column)) for column in list(zip(*table, strict=True))[:-1]]
    left, width = sum(widths), sys.maxsize
    if sys.stdout.isatty():
        width = max(left + 40, shutil.get_terminal_size().columns)
    lines = [] if title is None else [title]
    for *cells, last in table:
        start = "".join(cell.ljust(size) for cell, size in zip(cells, widths, strict=True))
        wrapped = textwrap.wrap(last, width - left, break_long_words=False, break_on_hyphens=False)
        lines.append(start + f"\n{' ' * left}".join(wrapped))
    print("\n".join(lines))
