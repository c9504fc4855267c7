"""Damage the graph files and texts of tests/data, and see that each is read, or refused in one
sentence.

    .venv/bin/python tests/stress/fuzz_files.py --mutants 5000

A mutant is a file of the corpus with a few of its bytes deleted, repeated, exchanged or replaced;
or the same file in another dress that changes nothing: packed, with other line ends, with a byte
order mark. Of the latter the meaning is known, and must stay. A traceback, a warning, more than 10
seconds, or another meaning is a failure, and then this exits with 1. A mutant depends on `--seed`
and its number alone.
"""

import gzip
import random
import signal
import sys
import tempfile
import tomllib
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from tasks import GraphReading, MarkovGraphTask, TextReading, read_text

FOLDER = Path(__file__).parents[1] / "data"


def _table(kind: str) -> dict[str, dict[str, Any]]:
    return tomllib.loads((FOLDER / kind / "expected.toml").read_text(encoding="utf-8"))


GRAPHS: dict[str, dict[str, Any]] = _table("graphs")["files"]
TEXTS = _table("texts")
LONGEST = 600  # characters of a sentence
_BINARY = (".gz", ".npy", ".npz")
_FIXED = (*_BINARY, ".g6", ".s6")
_TOKENS = [
    *(
        b"",
        b"\n",
        b" ",
        b"\t",
        b",",
        b";",
        b'"',
        b"'",
        b"#",
        b"%",
        b"<",
        b">",
        b"&",
        b"]",
        b"[",
        b"{",
    ),
    *(
        b"}",
        b"=",
        b":",
        b"*",
        b"-1",
        b"0",
        b"1e400",
        b"nan",
        b"inf",
        b"99999999999",
        b"true",
        b"\0",
    ),
    *(b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", "\u202e\U0001f600".encode(), b"None", b"a" * 3000),
]


def main(mutants: int = 5000, seed: int = 0) -> int:
    """Fuzz; returns the exit code."""
    warnings.simplefilter("error")
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        for number in range(mutants):
            outcome = one(number, seed, Path(name))
            outcomes[outcome.split(":")[0]] += 1
            if outcome.startswith("failure"):
                print(f"mutant {number}: {outcome}")
    print(f"{mutants} mutants: " + ", ".join(f"{n} {o}" for o, n in outcomes.most_common()))
    return 1 if outcomes["failure"] else 0


def one(number: int, seed: int, folder: Path) -> str:
    """What comes of a mutant: `read`, `refused`, `same`, or `failure: ...`."""
    draw = random.Random(f"{seed} {number}")
    graph = draw.random() < 0.85
    table = GRAPHS if graph else TEXTS
    source = draw.choice(sorted(table))
    original = FOLDER / ("graphs" if graph else "texts") / source
    content, settings = original.read_bytes(), table[source].get("reading", {})
    dressed = draw.random() < 0.2 and "error" not in table[source]
    if dressed:
        name, content = _dress(draw, source, content, graph)
    else:
        name, content = source, _damage(draw, content)
    path = folder / name
    path.write_bytes(content)
    before = signal.signal(signal.SIGALRM, _late)
    signal.alarm(10)
    try:
        task = _task(path, graph, settings)
    except ValueError as error:
        sentence = str(error)
        if dressed:
            return f"failure: {name} is refused now ({sentence})"
        nameless = graph and name not in sentence
        if "\n" in sentence or len(sentence) > LONGEST + len(str(path)) or nameless:
            return f"failure: {name} is refused with {sentence!r}"
        return "refused"
    except Exception as error:
        return f"failure: {name} ends with {type(error).__name__} {error}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        path.unlink()
    if not dressed:
        return "read"
    plain = _task(original, graph, settings)
    same = plain.labels == task.labels
    same = same and np.array_equal(plain.transition_matrix, task.transition_matrix)
    return "same" if same else f"failure: {name} means something else now"


def _task(path: Path, graph: bool, settings: dict[str, Any]) -> MarkovGraphTask:
    """What is trained on: the chain of a graph file or of a text."""
    if graph:
        return MarkovGraphTask.from_file(path, GraphReading(**settings))
    reading = TextReading(**settings)
    return MarkovGraphTask.from_text(read_text(path, reading)[0], reading)


def _late(*_: object) -> None:
    raise TimeoutError("it takes more than 10 seconds")


def _dress(draw: random.Random, name: str, content: bytes, graph: bool) -> tuple[str, bytes]:
    """Another form of a file that says the same; one more line end is one more byte of a text."""
    dresses = ["packed"] if not name.endswith(".gz") else ["again"]
    marked = content[:3] in (b"\xef\xbb\xbf",) or content[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if text and not marked and not name.endswith(_FIXED):
        dresses += ["mark", "lines", "wide", *(["end"] if graph else [])]
    dress = draw.choice(dresses)
    if dress == "packed":
        return f"{name}.gz", gzip.compress(content)
    if dress == "mark":
        return name, b"\xef\xbb\xbf" + content
    if dress == "lines" and b"\r" not in content:
        return name, content.replace(b"\n", b"\r\n")
    if dress == "wide" and b"encoding=" not in content[:100]:
        return name, text.encode("utf-16")
    if dress == "end":
        return name, content + b"\n"
    return name, content


def _damage(draw: random.Random, content: bytes) -> bytes:
    """One to four changes of a few bytes or lines."""
    for _ in range(draw.randint(1, 4)):
        start = draw.randint(0, len(content))
        end = min(len(content), start + draw.choice([0, 1, 1, 2, 5, 20]))
        kind = draw.randrange(6)
        if kind == 0:
            content = content[:start] + content[end:]
        elif kind == 1:
            content = content[:end] + content[start:]
        elif kind == 2:
            content = content[:start] + draw.choice(_TOKENS) + content[end:]
        elif kind == 3:
            content = content[:start] + bytes([draw.randrange(256)]) + content[end:]
        elif kind == 4:
            lines = content.split(b"\n")
            i, j = draw.randrange(len(lines)), draw.randrange(len(lines))
            lines[i], lines[j] = lines[j], lines[i]
            content = b"\n".join(lines)
        else:
            content = content[:start] if draw.random() < 0.3 else content
    return content


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
