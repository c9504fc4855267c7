"""`ssa-theory list`: the experiments and their questions."""

from collections.abc import Sequence

from analysis.catalogue import experiments
from analysis.parse import parse
from analysis.terminal import print_rows


def main(arguments: Sequence[str]) -> None:
    parse("list", arguments)
    print_rows(("experiment", "question"), experiments())
