"""`ssa-theory mechanisms`: what attention can wear."""

from collections.abc import Sequence

from analysis.catalogue import mechanisms
from analysis.parse import parse
from analysis.terminal import print_rows


def main(arguments: Sequence[str]) -> None:
    about = (
        "What attention can wear. s = q . k is the score of vanilla attention, n the number of "
        "keys that a query sees."
    )
    parse("mechanisms", arguments, about)
    print_rows(("mechanism", "formula", "source"), mechanisms())
    print(
        "joined by +, as in sparsemax+ssa-query; one of your own: PATH.py:NAME, as in "
        "./mine.py:MINE"
    )
