"""Give the command line random settings and damaged results, and see that each ends well or in one
clear sentence.

    .venv/bin/python tests/stress/fuzz.py --configs 10000 --results 1000

A configuration is a command line (mostly `run`; also `plot`, `claims`, `verify`, `list`): values
from the schema of the experiment's config, at, within and beyond its bounds, wrong types, hostile
files, unknown, repeated and misplaced flags. It is refused; or it is accepted and small, and
trained, measured and judged; or it is accepted and cut off where training would begin, after all
checks of settings, files and memory: if it is large (a size above 16, or a setting that by itself
takes long), or not drawn to be trained (`--trained`). Of those that are trained some are drawn as
well. A damaged result is a tiny one of which bytes, or attributes or variables (half of them with a
valid seal) were changed, or which something else stands in for; `plot`, `claims` and `run` meet it
in random order.

Each ends with exit code 0, or 2 and one line `ssa-theory: ...` of at most 500 characters or the
flag parser's message; `verify` may end with 1. A traceback, a crash of the process (a forked one,
so a segmentation fault counts), or more than 10 seconds of computing (30 with waiting: other
processes may take the cores) is a failure, and then this exits with 1. A case depends on `--seed`
and its number alone: `--only NUMBER` does one again.
"""

import json
import os
import pickle
import random
import re
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

os.environ["OMP_NUM_THREADS"] = "1"

import distributed  # noqa: F401  # imported before any fork, like the next two
import matplotlib.backends.backend_svg  # noqa: F401
import numpy as np
import torch._dynamo
import tyro
import xarray as xr
from matplotlib.figure import Figure
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import analysis.cli
import analysis.commands.claims
import analysis.commands.list
import analysis.commands.plot
import analysis.commands.run
import analysis.commands.verify
import analysis.run.cluster
import analysis.run.runner
from analysis.experiments import EXPERIMENTS
from analysis.properties import PROPERTIES
from analysis.store.results import load, save

LIMIT = 10.0  # seconds of computing that a command may take
_WAIT = 30.0  # seconds that it may take with waiting, for other processes among others
LONGEST = 500  # characters of a sentence
_LARGE = 16  # no size above it is trained
_BATCH = 100  # cases a forked process does
_MEMORY = 8 * 2**30  # bytes of address space that a case may take

TINY = {
    "graph": "--seeds 2 --steps 6 --control-steps 4 --mechanisms vanilla ssa --learning-rates 0.06",
    "letters": "--preset smoke --seeds 2 --steps 4 --mechanisms vanilla ssa",
    "les-miserables": "--preset smoke --seeds 2 --steps 2 --mechanisms vanilla ssa",
    "twins": "--seeds 3 --steps 8 --mechanisms vanilla ssa",
    "retrieval": "--seeds 2 --steps 6 --cooldown-steps 3 --held-out 4 --batch-size 4 --keys 6 --tested-keys 4 8",
    "length": "--seeds 2 --steps 6 --cooldown-steps 3 --held-out 2 --contexts 4 --batch-size 8 --train-lengths 4 8 "
    "--test-lengths 4 8 16",
    "imbalance": "--seeds 2 --steps 4 --cooldown-steps 2 --positions 6 --powers 0 0.5 --shares 0.5 "
    "--mechanisms vanilla ssa-position",
    "denoise": "--seeds 2 --steps 4 --cooldown-steps 2 --held-out 4 --batch-size 4 --length 3 --swept-filler-noise 4",
    "basis-denoise": "--seeds 2 --steps 4 --cooldown-steps 2 --held-out 4 --batch-size 4 --length 3 --swept-lengths 4",
    "hierarchy": "--seeds 2 --steps 2 --cooldown-steps 1 --most-nodes 3 --dim-shares 1 --pool 2 --batch-size 2 "
    "--held-out 4 --prompt-length 3",
    "norms": "--seeds 3 --steps 6 --letters-steps 0",
    "dilution": "--seeds 3 --lengths 10 16 --freezing-lengths 10 16 --critical-length 16",
    "ablation": "--preset smoke --seeds 2 --letters-steps 2 --denoise-steps 3 --cooldown-steps 2 --train-lengths 2 3 "
    "--longer-length 4 --bracket-samples 8 --held-out 4 --batch-size 4",
    "convergence": "--seeds 4 --steps 6 --letters-steps 0 --control-steps 0",
    "normalizers": "--preset smoke --seeds 2 --graph-steps 2 --retrieval-steps 2 --retrieval-held-out 2 "
    "--retrieval-batch 2 --length-steps 2 --length-batch 2 --length-train 4 8 --length-test 4 8 16 --length-held-out 2",
    "phase": "--seeds 4 --families graded small-world --dims 2 4 --similarities 0 0.9 --steps 3 6 "
    "--learning-rates 0.06",
    "overhead": "",
    "paper-theory": "--length 8",
    "paper-graph": "--seeds 3 --nodes 4 --dim 4 --row-dim 3 --row-steps 4 --steps 4 --cooldown-steps 1 --batch-size 8",
}
"""For every experiment flags with which a run takes about a second."""
_HARMLESS = {
    "first_seed",
    "block_seeds",
    "trained_length",
    "graph_top",
    "retrieval_top",
    "length_top",
    "width",
}
_NUMBERS = [
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1e400",
    "1e308",
    "-1e308",
    "5e-324",
    "0.0",
    "-0.0",
    "1.5",
    "1e3",
    "0x10",
    "1_0",
    "99999999999999999999999",
    "٣",
]
_WORDS = [
    "",
    " ",
    "None",
    "four",
    "true",
    "[1]",
    "{}",
    "é😀",
    "a" * 3000,
    "\n",
    "--",
    "-",
    "=",
    "%s%n",
    "../..",
    "a\tb",
    "\x1b[31m",
]
_TOPICS = ("error", "order", "nrom", "graph", "", "--json")
_DAMAGED = ("graph", "retrieval", "twins", "dilution", "overhead")


class CutOff(BaseException):
    """Accepted, and not trained."""


def main(
    configs: Annotated[int, tyro.conf.arg(help="how many command lines")] = 10_000,
    results: Annotated[int, tyro.conf.arg(help="how many damaged results")] = 1_000,
    seed: Annotated[int, tyro.conf.arg(help="of all cases")] = 0,
    trained: Annotated[
        float, tyro.conf.arg(help="share of the small accepted configurations that is trained")
    ] = 0.1,
    only: Annotated[int | None, tyro.conf.arg(help="number of the only case to do")] = None,
) -> int:
    """Fuzz; returns the exit code. The damaged results' numbers follow the configurations'."""
    torch.set_num_threads(1)
    analysis.run.cluster.ANSWER_TIMEOUT = (
        "1s"  # else a scheduler that does not answer takes the whole limit
    )
    start, found = time.monotonic(), []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        write_files(scratch / "files")
        for experiment in _DAMAGED if only is None or only >= configs else ():
            _store(experiment, scratch)
        numbers = range(configs + results) if only is None else [only]
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as display:
            task = display.add_task("", total=len(numbers))
            for case in run_all(
                numbers, lambda number: one_case(number, configs, seed, trained, scratch), scratch
            ):
                found.append(case)
                if not len(found) % 10 or case["failure"]:
                    display.update(
                        task,
                        completed=len(found),
                        description="configs" if case["number"] < configs else "results",
                    )
                    display.refresh()
                if case["failure"]:
                    display.console.print(f"case {case['number']}: {case['failure']}", markup=False)
    return report(found, configs, time.monotonic() - start)


def report(found: list[dict[str, Any]], configs: int, seconds: float) -> int:
    """Print what has come of all cases; returns the exit code."""
    for about, part in (
        ("configurations", [c for c in found if c["number"] < configs]),
        ("damaged results", [c for c in found if c["number"] >= configs]),
    ):
        if part:
            outcomes = Counter(outcome for case in part for outcome in case["outcomes"])
            slowest = max(part, key=lambda case: case["seconds"])
            print(
                f"{len(part)} {about}: "
                + ", ".join(f"{n} {outcome}" for outcome, n in outcomes.most_common())
                + f"; slowest {slowest['seconds']:.1f} s (case {slowest['number']})"
            )
    warned = Counter(w for case in found for w in case["warnings"])
    for warning, times in warned.most_common(12):
        print(f"warned {times} times: {warning}")
    failures = [case for case in found if case["failure"]]
    print(f"{len(failures)} failures in {len(found)} cases, {seconds:.0f} s")
    return 1 if failures else 0


def run_all(
    numbers: Sequence[int], job: Callable[[int], dict[str, Any]], scratch: Path
) -> Iterator[dict[str, Any]]:
    """job(number) for every number, in forked processes; one that dies is a failure of the case
    that it was at.
    """
    left = list(numbers)
    while left:
        log = scratch / "log"
        log.write_bytes(b"")
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _child(left[:_BATCH], job, log)
        told, status = 0, None
        while status is None:
            ended, code = os.waitpid(pid, os.WNOHANG)
            status = code if ended else None
            lines = log.read_bytes().split(b"\n")[:-1]
            for line in lines[told:]:
                left.pop(0)
                yield json.loads(line)
            told = len(lines)
            if status is None:
                time.sleep(0.02)
        if told < min(_BATCH, told + len(left)) and os.waitstatus_to_exitcode(status) != 0:
            number, code = left.pop(0), os.waitstatus_to_exitcode(status)
            hung = {
                -signal.SIGPROF: f"computed for more than {LIMIT:.0f} s",
                -signal.SIGALRM: f"took more than {_WAIT:.0f} s",
            }
            what = hung.get(code, f"ended its process ({code})")
            tail = (scratch / "stderr").read_text(errors="replace")[-2000:]
            about = (scratch / "doing").read_text()
            yield {
                "number": number,
                "failure": f"{about} {what} {' '.join(tail.split())[-600:]}",
                "outcomes": ["hung" if code in hung else "crashed"],
                "warnings": [],
                "seconds": LIMIT,
            }


def _child(numbers: Sequence[int], job: Callable[[int], dict[str, Any]], log: Path) -> None:
    """Do some cases in this process, a line of the log each, and end it."""
    code = 1
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        room = pages * resource.getpagesize() + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        with log.open("ab", buffering=0) as file:
            for number in numbers:
                file.write(json.dumps(job(number)).encode() + b"\n")
        code = 0
    except BaseException:
        Path(log.parent / "stderr").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def one_case(number: int, configs: int, seed: int, trained: float, scratch: Path) -> dict[str, Any]:
    """Do the case of this number; what came of it."""
    draw = random.Random(f"{seed} {number}")
    folder = scratch / "case"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    small = True
    if number < configs:
        arguments, small = draw_command(draw, scratch / "files", folder)
        lines, about = [arguments], ""
    else:
        about, lines = damage(draw, scratch / "good", folder)
    really = small and draw.random() < trained
    pictured = draw.random() < 0.3
    done: dict[str, Any] = {
        "number": number,
        "failure": "",
        "outcomes": [],
        "warnings": [],
        "seconds": 0.0,
    }
    for arguments in lines:
        (scratch / "doing").write_text(
            f"{about} {shlex.join(arguments)[:1500]}", errors="backslashreplace"
        )
        start = time.monotonic()
        signal.setitimer(signal.ITIMER_PROF, LIMIT)
        signal.setitimer(signal.ITIMER_REAL, _WAIT)
        outcome, failure, text = call(arguments, really, pictured, scratch)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        done["seconds"] = max(done["seconds"], time.monotonic() - start)
        done["outcomes"].append(outcome)
        done["warnings"] += {
            line.split(": ", 1)[1][:160]
            for line in text.splitlines()
            if re.match(r"\S*:\d+: \w*Warning", line)
        }
        if failure:
            done["failure"] = f"{about} {shlex.join(arguments)[:1500]}\n    {failure}"
    return done


def call(
    arguments: Sequence[str], really: bool, pictured: bool, scratch: Path
) -> tuple[str, str, str]:
    """Run one command in this process: its outcome, how it broke the rules or nothing, and what it
    wrote to standard error.
    """
    kept = [os.dup(1), os.dup(2)]
    paths = [scratch / "stdout", scratch / "stderr"]
    for standard, path in zip((1, 2), paths, strict=True):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, standard)
        os.close(file)
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        open(n, "w", closefd=False, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        for n in (1, 2)
    )
    _prepare(really, pictured)
    code: object = None
    try:
        code = analysis.cli.main(arguments)
    except SystemExit as stop:
        code = stop.code
    except CutOff:
        code = "cut off"
    except BaseException:
        code = "traceback"
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = streams
        for standard, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, standard)
            os.close(copy)
    text = paths[1].read_text(encoding="utf-8", errors="replace")
    sentences = [line for line in text.splitlines() if line.startswith("ssa-theory: ")]
    if code == "traceback" or "Traceback (most" in text:
        return "traceback", " ".join(text.split())[-700:], text
    if code == "cut off":
        return "accepted, cut off before training", "", text
    if code == 0 or (code == 1 and arguments[0] == "verify"):
        return ("trained" if arguments[0] == "run" and really else "done"), "", text
    if code != 2:
        return "wrong exit code", f"exit code {code!r}: {text[-500:]}", text
    if not sentences:
        boxed = "╭" in text
        return (
            "refused by the flag parser",
            "" if boxed else f"exit code 2 without a sentence: {text[-300:]!r}",
            text,
        )
    last = text.rstrip("\n").splitlines()[-1]
    if len(sentences) > 1 or last != sentences[0]:
        return "refused", f"more than one sentence: {text[-700:]!r}", text
    if len(last) > LONGEST:
        return "refused", f"a sentence of {len(last)} characters: {last[:200]!r}", text
    if len(last) < 25:
        return "refused", f"a sentence that says nothing: {last!r}", text
    return "refused", "", text


def _prepare(really: bool, pictured: bool) -> None:
    """Let the experiments train, or cut them off there; and let figures be drawn, or only made."""

    def stop(*arguments: object) -> None:
        raise CutOff

    def draw(figure: Figure, folder: Path) -> None:
        for kind in ("svg", "pdf", "png", "csv"):
            (folder / f"figure.{kind}").write_text("<svg></svg>")
        if pictured:
            figure.savefig(folder / "figure.svg")

    def try_properties(seconds: float, *arguments: Any) -> Iterator[Any]:
        if seconds > 0.2:
            raise CutOff
        return _VERIFY(seconds, *arguments)

    analysis.run.runner.save_figure = draw
    analysis.commands.verify.verify = try_properties
    if not really:
        analysis.run.cluster._client = stop
    for name, experiment in _EXPERIMENTS.items():
        cut = replace(experiment)
        if not really:

            def train(config: object, progress: object) -> None:
                raise CutOff

            train.__module__ = experiment.train.__module__
            train.__qualname__ = experiment.train.__qualname__  # stands for it: the same source
            cut = replace(experiment, train=train)
        EXPERIMENTS[name] = cut


_EXPERIMENTS, _VERIFY = dict(EXPERIMENTS), analysis.commands.verify.verify


def draw_command(draw: random.Random, files: Path, folder: Path) -> tuple[list[str], bool]:
    """A command line, and whether it is small enough to train where it is accepted."""
    kind = draw.choices(
        ("run", "misshapen", "plot", "claims", "verify", "list"), (82, 8, 3, 2, 4, 1)
    )[0]
    out = (
        ["--out", _draw_out(draw, files, folder)]
        if draw.random() < 0.1
        else ["--out", str(folder / "out")]
    )
    if kind == "run":
        arguments, small = _draw_run(draw, files)
        return [*arguments, *out], small
    some = [
        draw.choice([*_WORDS, *_NUMBERS, "--seeds", "--out", "-x", "graph", "--fresh"])
        for _ in range(draw.randint(0, 3))
    ]
    if kind == "verify":
        names = [draw.choice([*PROPERTIES, "nothing", ""]) for _ in range(draw.randint(0, 2))]
        seconds = draw.choice(["0.01", "0.1", "1e-300", *_NUMBERS])
        flags = [
            ["--seconds", seconds],
            ["--only", *names],
            ["--seed", draw.choice(["0", "7", "4294967295", *_NUMBERS])],
            some,
        ]
        return ["verify", *(a for f in draw.sample(flags, draw.randint(1, 3)) for a in f)], True
    if kind == "misshapen":
        words = [
            "run",
            *draw.sample([*EXPERIMENTS, "all", "nothing"], draw.randint(0, 2)),
            *some,
            *out,
        ]
        draw.shuffle(words)
        return words or ["run"], False
    named = {"plot": ([*EXPERIMENTS, *_WORDS], 1, 1), "claims": (_TOPICS, 0, 2)}
    some_names, fewest, most = named.get(kind, ([], 0, 0))
    names = [draw.choice(some_names) for _ in range(draw.randint(fewest, most))]
    return [kind, *names, *(out if draw.random() < 0.7 else some)], True


def _draw_out(draw: random.Random, files: Path, folder: Path) -> str:
    (folder / "loop").symlink_to("loop")
    blocked = folder / "blocked"
    blocked.mkdir()
    (blocked / "graph").write_text("a file where the experiment's folder should be")
    names = ["é 😀", "a" * 300, "a/" * 2000, "\udcff", "x\ny"]
    places = [
        "/dev/null",
        "/proc/none",
        str(files / "edges.txt"),
        str(folder / "loop"),
        str(blocked),
        "/dev/null/x",
    ]
    return draw.choice([*places, *(str(folder / n) for n in names)])


def _draw_run(draw: random.Random, files: Path) -> tuple[list[str], bool]:
    """`run NAME` with a few of the fields set anew, the others as in `TINY`."""
    name = draw.choice([*TINY, "graph", "graph", "graph"])
    fields = dict(EXPERIMENTS[name].config.model_fields)
    settings = {
        words[0]: words[1:] for part in TINY[name].split("--")[1:] if (words := part.split())
    }
    small = True
    for field in draw.sample(
        sorted(fields), min(len(fields), draw.choice((0, 1, 1, 1, 2, 2, 3, 5)))
    ):
        values, large = _draw_values(fields[field].annotation, fields[field], draw, files)
        small &= not large or field in _HARMLESS
        settings[field.replace("_", "-")] = values
    if "graph_file" in fields and draw.random() < 0.35:  # otherwise the two would hardly ever meet
        hostile = draw.choice(sorted(files.iterdir()))
        # What is read is small, but the control regime has as many dimensions as nodes.
        settings |= (
            {"family": ["file"], "graph-file": [str(hostile)]} if draw.random() < 0.7 else {}
        )
        if "graph-file" not in settings or settings["graph-file"] != [str(hostile)]:
            settings |= {"family": ["letters"], "text-file": [str(hostile)]}
        small &= not hostile.name.startswith("large")
    arguments = [
        f"--{key}" + (f"={values[0]}" if len(values) == 1 and draw.random() < 0.1 else "")
        for key, values in settings.items()
    ]
    flags = [
        [a] if "=" in a else [a, *values]
        for a, values in zip(arguments, settings.values(), strict=True)
    ]
    if draw.random() < 0.12:
        extra = (
            ["--sedes", "3"],
            ["--fresh"],
            ["--fresh", "True"],
            ["--workers", draw.choice(["0", "-1", "2", "nan", "100"])],
        )
        extra += (
            [
                "--scheduler",
                draw.choice(
                    ["tcp://127.0.0.1:1", "nowhere", "", "http://[", "tcp://256.1.1.1:99999999"]
                ),
            ],
        )
        extra += (
            draw.choice(flags or [["--seeds", "1"]]),
            [draw.choice(_WORDS)],
            ["--preset", draw.choice(["huge", "smoke", ""])],
        )
        flags.append(list(draw.choice(extra)))
    if draw.random() < 0.2:
        draw.shuffle(flags)
    if draw.random() < 0.03:
        flags = [[a.replace("-", "_") if a.startswith("--") else a for a in flag] for flag in flags]
    names = [name] if draw.random() < 0.97 else [name, draw.choice([*EXPERIMENTS])]
    # A preset's or another experiment's defaults are not tiny, to compile takes long, and so do
    # exact risks for small noise.
    small &= (
        len(names) == 1
        and not {"compile", "signal-noise", "filler-noise"} & set(settings)
        and "preset" not in {a for f in flags[len(settings) :] for a in f}
        and settings.get("preset", ["smoke"]) == ["smoke"]
    )
    return ["run", *names, *(a for flag in flags for a in flag)], small


def _draw_values(
    kind: Any, info: FieldInfo, draw: random.Random, files: Path
) -> tuple[list[str], bool]:
    """Words for a field of this type, and whether one is a large number."""
    if draw.random() < 0.04:
        return draw.choice(([], [draw.choice(_WORDS)], [draw.choice(_WORDS)] * 2)), False
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        inner = [k for k in get_args(kind) if k is not type(None)]
        return (
            (["None"], False) if draw.random() < 0.1 else _draw_values(inner[0], info, draw, files)
        )
    if origin is tuple:
        count = draw.choice((0, 1, 1, 2, 2, 3, 5)) if draw.random() < 0.98 else 400
        drawn = [_draw_values(get_args(kind)[0], info, draw, files) for _ in range(count)]
        values = [value for words, _ in drawn for value in words]
        if draw.random() < 0.5:
            values = sorted(set(values), key=lambda v: (len(v), v))
        return values, any(large for _, large in drawn)
    if origin is Literal:
        return [str(draw.choice(get_args(kind)))], False
    if kind is bool:
        return [], False
    if kind is Path:
        return [
            str(
                draw.choice(
                    [*files.iterdir(), files, files / "none", Path("/dev/null"), Path("a" * 5000)]
                )
            )
        ], False
    bounds = [
        b
        for m in info.metadata
        for n in ("ge", "gt", "le", "lt")
        if (b := getattr(m, n, None)) is not None
    ]
    if draw.random() < 0.12:
        return [draw.choice(_NUMBERS)], False
    if kind is int:
        near = [b + step for b in bounds for step in (-1, 0, 1)] + [10**6, 100, 4096]
        number = (
            draw.choice((1, 2, 3, 4, 5, 6, 8, 16)) if draw.random() < 0.75 else draw.choice(near)
        )
        return [str(number)], abs(number) > _LARGE
    near = [b + step for b in bounds for step in (-1e-9, 0.0, 1e-9)] + [
        1e-30,
        1e30,
        1e-300,
        1e300,
        -0.5,
    ]
    return [
        repr(
            float(
                draw.choice(
                    (0.05, 0.1, 0.3, 0.5, 0.9, 1.0, 2.0, 4.0) if draw.random() < 0.75 else near
                )
            )
        )
    ], False


def write_files(folder: Path) -> None:
    """Graphs and texts, fit and unfit."""
    folder.mkdir()
    graphml = '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="{}">{}</graph></graphml>'
    nodes = '<node id="a"/><node id="b"/><edge source="a" target="b"/><edge source="b" target="a"/>'
    weighted = '<key id="w" for="edge" attr.name="weight" attr.type="{}"/>'
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    numbers = random.Random(0)
    texts: dict[str, str | bytes] = {
        "edges.txt": "a b 2\na c\nb a\nc a\n",
        "empty.txt": "",
        "blank.txt": " \n\t\n# nothing\n",
        "self.txt": "a a\n",
        "sink.txt": "a b\n",
        "zero.txt": "a b 0\nb a 0\n",
        "some-zero.txt": "a b 0\na a 1\nb a 1\n",
        "negative.txt": "a b -1\nb a\n",
        "nan.txt": "a b nan\nb a\n",
        "huge.txt": "a b 1e308\na a 1e308\nb a\n",
        "overflow.txt": "a b 1e400\nb a\n",
        "tiny.txt": "a b 5e-324\na a 5e-324\nb a\n",
        "uneven.txt": "a b 1e300\na a 1e-300\nb a\n",
        "split.txt": "a b\nb a\nc d\nd c\n",
        "periodic.txt": "a b\nb c\nc a\n",
        "fields.txt": "a b c d\n",
        "words.txt": "a b heavy\nb a\n",
        "binary.txt": bytes(range(256)) * 8,
        "nul.txt": b"a\0 b\nb a\0\n",
        "latin.txt": "é è\nè é\n".encode("latin-1"),
        "utf16.txt": "a b\nb a\n".encode("utf-16"),
        "mark.txt": b"\xef\xbb\xbfa b\nb a\n",
        "mac.txt": b"a b\rb a\r",
        "names.txt": "😀 _\n_ 😀\n𝒜 _\n_ 𝒜\n",
        "long-name.txt": f"{'a' * 100_000} b\nb {'a' * 100_000}\n",
        "dollar.txt": "$x ^_{\n^_{ $x\n\\frac $x\n$x \\frac\n",  # would be mathematics to matplotlib
        "same.txt": "aaaa",
        "prose.txt": "It was the best of times, it was the worst of times. " * 3,
        "signs.txt": "?!.,;",
        "marks.txt": "e\u0301\u0302\u200d\u202e" * 50,
        "large-star.txt": "".join(f"n{i} hub\nhub n{i}\n" for i in range(5000)),
        "large-line.txt": "a " * 1_000_000,
        "large-script.txt": "".join(chr(numbers.randrange(0x4E00, 0x9000)) for _ in range(20_000)),
        "large-prose.txt": "the quick brown fox jumps over the lazy dog " * 40_000,
        "good.graphml": graphml.format("directed", nodes),
        "undirected.graphml": graphml.format("undirected", nodes),
        "bad.graphml": "<graphml><node",
        "none.graphml": graphml.format("directed", ""),
        "other.xml": "<html/>",
        "sink.graphml": graphml.format(
            "directed", '<node id="a"/><node id="b"/><edge source="a" target="b"/>'
        ),
        "dangling.graphml": graphml.format(
            "directed", '<node id="a"/><edge source="a" target="z"/>'
        ),
        "sideways.graphml": graphml.format("sideways", nodes),
        "text-weight.graphml": graphml.format("directed", nodes)
        .replace("<graph ", weighted.format("string") + "<graph ")
        .replace('target="b"/>', 'target="b"><data key="w">heavy</data></edge>'),
        "nan-weight.graphml": graphml.format("directed", nodes)
        .replace("<graph ", weighted.format("double") + "<graph ")
        .replace('target="b"/>', 'target="b"><data key="w">NaN</data></edge>'),
        "bool-weight.graphml": graphml.format("directed", nodes)
        .replace("<graph ", weighted.format("boolean") + "<graph ")
        .replace('target="b"/>', 'target="b"><data key="w">true</data></edge>'),
        "laughs.graphml": f'<!DOCTYPE g [<!ENTITY l0 "ha">{laughs}]><graphml>&l9;</graphml>',
        "outside.graphml": '<!DOCTYPE g [<!ENTITY x SYSTEM "file:///etc/passwd">]><graphml>&x;</graphml>',
        "deep.graphml": "<graphml>" + "<graph>" * 20_000,
    }
    for name, text in texts.items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def _store(name: str, scratch: Path) -> None:
    """Keep a tiny result of an experiment, trained in a forked process."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            outcome, failure, text = call(
                ["run", name, *TINY[name].split(), "--out", str(scratch / "good")],
                True,
                True,
                scratch,
            )
            code = 0 if outcome == "trained" else 1
            if code:
                print(f"{name}: {outcome} {failure} {text}", file=sys.stderr)
        finally:
            sys.stderr.flush()
            os._exit(code)
    if os.waitpid(pid, 0)[1]:
        raise SystemExit(f"the tiny run of {name} failed")


def damage(draw: random.Random, good: Path, folder: Path) -> tuple[str, list[list[str]]]:
    """Damage one stored file of copied results: what was done, and the commands that then meet it."""
    name, other = draw.sample(_DAMAGED, 2)
    out = folder / "out"
    for experiment in (name, other):
        shutil.copytree(good / experiment, out / experiment)
    path = out / name / draw.choices(("result.nc", "claims.json", "figure.svg"), (70, 25, 5))[0]
    ways = [_change_bytes, _change_bytes, _change_bytes, _replace]
    if path.name == "result.nc":
        ways += [_change_dataset, _change_dataset, _change_dataset]
    if path.name == "claims.json":
        ways += [_change_claims, _change_claims, _change_claims]
    about = draw.choice(ways)(draw, path, good / other / path.name)
    claims = ["claims", *draw.choice(([], ["order", "overhead"], ["--json"]))]
    lines = [["plot", name], claims, ["run", name, *TINY[name].split()]]
    draw.shuffle(lines)
    return f"{path.name} {about}:", [[*line, "--out", str(out)] for line in lines]


def _change_bytes(draw: random.Random, path: Path, other: Path) -> str:
    content = bytearray(path.read_bytes())
    way = draw.choice(
        ("flipped", "flipped in the head", "zeroed", "inserted", "deleted", "truncated", "appended")
    )
    times, size = draw.choice((1, 3, 30)), len(content)
    for _ in range(times):
        place, length = draw.randrange(len(content) or 1), draw.choice((1, 4, 64, 1000))
        if way.startswith("flipped") and content:
            content[place % (2048 if "head" in way else size) % len(content)] ^= (
                1 << draw.randrange(8)
            )
        elif way == "zeroed":
            content[place : place + length] = bytes(len(content[place : place + length]))
        elif way == "inserted":
            content[place:place] = draw.randbytes(length)
        elif way == "deleted":
            del content[place : place + length]
        elif way == "truncated":
            del content[draw.choice((place, len(content) - 1, 8, 100)) :]
        else:
            content += draw.randbytes(length)
    path.write_bytes(content)
    return f"{way} {times} times"


def _replace(draw: random.Random, path: Path, other: Path) -> str:
    way = draw.choice(
        (
            "other",
            "empty",
            "directory",
            "loop",
            "dangling",
            "device",
            "pickle",
            "random",
            "numpy",
            "gone",
        )
    )
    path.unlink()
    if way == "directory":
        path.mkdir()
    elif way in ("loop", "dangling", "device"):
        path.symlink_to({"loop": path.name, "dangling": "nowhere", "device": "/dev/null"}[way])
    elif way != "gone":
        content = {
            "other": other.read_bytes,
            "empty": lambda: b"",
            "pickle": lambda: pickle.dumps({"claims": [print], "made_from": {}}),
            "random": lambda: draw.randbytes(5000),
            "numpy": lambda: np.arange(100.0).tobytes(),
        }
        path.write_bytes(content[way]())
    return f"replaced: {way}"


def _change_dataset(draw: random.Random, path: Path, other: Path) -> str:
    dataset = load(path)
    odd = draw.choice(
        [
            0,
            2,
            -1,
            1.5,
            "",
            "{}",
            "[]",
            "null",
            '{"seeds": 1}',
            "{",
            "\ud7ff",
            b"\xff",
            np.arange(3),
            "a" * 70_000,
        ]
    )
    way = draw.choice(
        (
            "attribute",
            "attribute",
            "no attribute",
            "attributes",
            "variable",
            "values",
            "type",
            "dimension",
            "cut",
        )
    )
    names = sorted(map(str, dataset.data_vars))
    chosen = draw.choice(names)
    key = draw.choice(sorted(dataset.attrs))
    about = f"{way} {key if 'attr' in way else chosen} {odd!r:.40}"
    if way == "attribute":
        dataset.attrs[key] = odd
    elif way == "no attribute":
        del dataset.attrs[key]
    elif way == "attributes":
        dataset.attrs = load(other).attrs
    elif way == "variable":
        dataset = dataset.drop_vars(chosen)
    elif way == "values":
        number = draw.choice((np.nan, np.inf, -np.inf, 0.0, -1.0, 1e300, 5e-324))
        values = dataset[chosen].values
        if np.issubdtype(values.dtype, np.floating):
            dataset[chosen] = dataset[chosen].copy(data=np.full_like(values, number))
        about += f" {number}"
    elif way == "type":
        kind = draw.choice((np.int64, np.float32, str))
        with np.errstate(invalid="ignore"):
            dataset[chosen] = (
                (
                    dataset[chosen].dims,
                    np.nan_to_num(dataset[chosen].values.astype(float)).astype(kind),
                )
                if (dataset[chosen].dtype.kind in "fib")
                else dataset[chosen]
            )
    elif way == "dimension" and dataset[chosen].dims:
        dataset = dataset.rename({draw.choice(dataset[chosen].dims): "elsewhere"})
    elif way == "cut":
        dimension = draw.choice(sorted(map(str, dataset.sizes)))
        dataset = dataset.isel({dimension: slice(0, draw.choice((0, 1)))})
        about += f" {dimension}"
    path.unlink()
    try:
        if draw.random() < 0.5:
            save(dataset, path)
            about += ", sealed"
        else:
            _write(dataset, path)
    except Exception as error:  # this cannot be stored, so nobody can meet it
        _write(load(other), path)
        about = f"replaced by another's ({type(error).__name__})"
    return about


def _write(dataset: xr.Dataset, path: Path) -> None:
    dataset.to_netcdf(path, engine="h5netcdf")


def _change_claims(draw: random.Random, path: Path, other: Path) -> str:
    record = json.loads(path.read_text())
    odd = draw.choice(
        [None, [], {}, "", 0, -1, 1e308, float("nan"), 10**400, "<script>", [[]], True, "x" * 5000]
    )
    way = draw.choice(
        (
            "nested",
            "whole",
            "part",
            "claim",
            "field",
            "field",
            "estimate",
            "twice",
            "id",
            "no field",
        )
    )
    claims = record["claims"]
    claim = draw.choice(claims)
    number = claim["effect" if claim["kind"] == "test" else "estimate"]
    key = draw.choice(sorted(number if way == "estimate" else claim))
    text = None
    if way == "nested":
        text = "[" * 100_000
    elif way == "whole":
        record = odd
    elif way == "part":
        record[draw.choice(("made_from", "registry", "declared", "claims"))] = odd
    elif way == "claim":
        claims[draw.randrange(len(claims))] = odd
    elif way == "field":
        claim[key] = odd
    elif way == "estimate":
        number[key] = odd
    elif way == "twice":
        claims.append(claim)
    elif way == "id":
        claim["id"] = draw.choice(
            ("nothing", "", "graph-\n", json.loads(other.read_text())["claims"][0]["id"])
        )
    else:
        del claim[key]
    path.write_text(json.dumps(record) if text is None else text)
    return f"{way} {key} {odd!r:.40}"


if __name__ == "__main__":
    sys.exit(tyro.cli(main, description=__doc__))
