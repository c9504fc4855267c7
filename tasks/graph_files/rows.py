"""Lines of fields: what separates them, which are comments, and what the comments say."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from tasks.graph_files.format import GraphFileError

_KONECT = re.compile(r"^%\s*(sym|asym|bip)\s+(\w+)\s*$", re.MULTILINE)
_SNAP = re.compile(r"^#\s*(undirected|directed)\s+graph", re.MULTILINE | re.IGNORECASE)
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_DIRECTIONS = {"sym": False, "asym": True, "undirected": False, "directed": True}


@dataclass(frozen=True)
class Rows:
    """The lines of a file as fields, without comments and empty lines.

    fields: by line. numbers: of the lines in the file, from 1. directed: what a comment of SNAP's or
    KONECT's kind says, or None. weighted: what KONECT's says of the third column, or None.
    """

    fields: Sequence[Sequence[str]]
    numbers: Sequence[int]
    separator: str
    directed: bool | None
    weighted: bool | None

    @property
    def widths(self) -> set[int]:
        """How many fields the lines have."""
        return {len(row) for row in self.fields}


def split_rows(text: str) -> Rows:
    """The fields of a text's lines.

    Comments begin with # or % at the start of a line, or with a # that stands alone in it. Fields
    are separated by what is in every line of semicolon, tab and comma, in this order, or else by
    white space; quotes keep a field together.
    """
    konect, snap = _KONECT.search(text), _SNAP.search(text)
    if konect and konect[1] == "bip":
        raise GraphFileError("joins two kinds of nodes (bip): a walk needs a graph of one kind")
    match = konect or snap
    numbered = [
        (number, line)
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip() and line.lstrip()[0] not in "#%"
    ]
    lines = [re.split(r"\s#(?:\s|$)", line, maxsplit=1)[0] for _, line in numbered]
    bare = [_QUOTED.sub("", line) for line in lines]
    separator = next((s for s in ";\t," if bare and all(s in line for line in bare)), " ")
    if separator == " " and any(s in line for line in bare for s in ";,"):
        some = sum("," in line or ";" in line for line in bare)
        if 2 * some > len(bare):
            raise GraphFileError(
                f"has commas or semicolons in {some} of its {len(bare)} lines: separate the "
                "fields of all lines alike, or quote names that hold them"
            )
    if separator == " ":
        lines = [line.replace("\t", " ").strip() for line in lines]
    read = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    fields = [[field.strip() for field in row] for row in read]
    if len(fields) != len(lines):
        raise ValueError("a quoted field goes over several lines")
    if separator != " " and all(row and not row[-1] for row in fields):
        fields = [row[:-1] for row in fields]  # every line ends with a separator
    if separator == ";":
        fields = [[re.sub(r"^(-?\d+),(\d+)$", r"\1.\2", f) for f in row] for row in fields]
    return Rows(
        fields,
        [number for number, _ in numbered],
        separator,
        _DIRECTIONS[match[1].lower()] if match else None,
        konect[2] != "unweighted" if konect else None,
    )


def counts(fields: Sequence[Sequence[str]]) -> dict[str, int]:
    """How often each text is a field."""
    occurrences: dict[str, int] = {}
    for field in chain.from_iterable(fields):
        occurrences[field] = occurrences.get(field, 0) + 1
    return occurrences
