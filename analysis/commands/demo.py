"""`ssa-theory demo`: a small run on a real graph."""

from collections.abc import Sequence

from analysis.commands import run
from analysis.parse import OUT, parse

_FLAGS = [
    "--name",
    "demo",
    "--family",
    "karate-club",
    "--seeds",
    "8",
    "--dim",
    "8",
    "--control-steps",
    "0",
]


def main(arguments: Sequence[str]) -> None:
    about = (
        "Train vanilla and selective attention on the friendships of a karate club, 34 people "
        "(Zachary 1977), and draw what they learned."
    )
    options = parse("demo", arguments, about, out=OUT)
    run.main(["graph", *_FLAGS, "--out", str(options.out)])
    print(f"picture: {options.out / 'graph@demo' / 'figure.png'}")
