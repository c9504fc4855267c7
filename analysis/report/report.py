"""The report: ledger, figures and every number of the stored results as one self-contained HTML
page.
"""

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from analysis.bench.bench import load_report
from analysis.bench.tables import all_rows, notes
from analysis.claims.claim import Outcome, Test, tests_of
from analysis.claims.ledger import Entry, Evidence, Ledger, ledger_of
from analysis.claims.registry import registry
from analysis.claims.rule import VERDICTS
from analysis.claims.words import effect_of, effects_of
from analysis.experiments.base import PRESETS, Experiment
from analysis.report.forest import forest
from analysis.report.paper import paper_table
from analysis.report.sensitivity import LASTING, Strip, settled_shares, strips
from analysis.store.claims import load_evidence, not_run, result_path
from analysis.store.files import write_whole
from analysis.store.guards import warnings_of
from analysis.store.results import load

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Section:
    """What the report shows of one experiment.

    missing: why there is nothing to show, or empty. evidence: its claims, and under which registry
    and settings they were made. figure: the SVG element. config: every setting. provenance: the
    result's other attributes. warnings: what the guards found. command: what makes it again.
    source: path and line of the code that runs it, and of that which states its claims.
    strips: how its comparisons depend on step size and steps, where these were tuned. settled: the
    shares of models whose loss had settled, by mechanism.
    """

    experiment: Experiment
    missing: str
    evidence: Evidence = field(default_factory=lambda: Evidence(()))
    figure: str = ""
    config: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    command: str = ""
    source: tuple[str, str] = ("", "")
    strips: tuple[Strip, ...] = ()
    settled: Mapping[str, float] = field(default_factory=dict)

    @property
    def topics(self) -> list[str]:
        """The names of the topics that its tests are about."""
        return list(dict.fromkeys(test.topic for test in tests_of(self.evidence.claims)))


def write_report(experiments: Mapping[str, Experiment], out: Path) -> Path:
    """Write out/index.html from what is stored below `out`; an experiment without a readable result
    is said to be missing.
    """
    path = out / "index.html"
    page = render(*read_stored(experiments, out), _speed(out))
    write_whole(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return path


def read_stored(experiments: Mapping[str, Experiment], out: Path) -> tuple[Ledger, list[Section]]:
    """The ledger and the sections of all experiments, as far as they are stored below `out`."""
    sections = [_section(experiment, out, name) for name, experiment in experiments.items()]
    return ledger_of([section.evidence for section in sections], registry()), sections


def _speed(out: Path) -> dict[str, Any] | None:
    """Tables and notes of the benchmark that is stored below `out`; None without one that can be
    read.
    """
    try:
        report = load_report(out)
        return {"tables": all_rows(report), "notes": notes(report)}
    except (ValueError, KeyError, TypeError):
        return None


def render(ledger: Ledger, sections: list[Section], speed: dict[str, Any] | None = None) -> str:
    """The page. speed: tables and notes of a benchmark."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _number,
        "config_value": _config_value,
        "slug": _slug,
        "effect": effect_of,
        "effects": effects_of,
    }
    where = {claim.id: s.experiment.name for s in sections for claim in s.evidence.claims}
    judged = [test for entry in ledger.entries for test in (*entry.tests, *entry.outside)]
    return environment.get_template("report.html.j2").render(
        ledger=ledger,
        counts={v: sum(e.verdict == v for e in ledger.entries) for v in VERDICTS},
        forests={e.topic.name: forest(e.topic, _judged(e)) for e in ledger.entries},
        strips={e.topic.name: _strips_of(e, sections, where) for e in ledger.entries},
        lasting=LASTING,
        sections=sections,
        where=where,
        topics={entry.topic.name for entry in ledger.entries},
        shown={claim.id for claim in (*judged, *ledger.checks)},
        speed=speed,
        paper=paper_table(ledger),
    )


def _judged(entry: Entry) -> list[tuple[Test, Outcome]]:
    """The tests of the scope with their outcomes."""
    return [
        (test, cell.outcomes[name])
        for cell in entry.cells
        for name, test in cell.tests.items()
        if test is not None
    ]


def _strips_of(
    entry: Entry, sections: list[Section], where: Mapping[str, str]
) -> list[tuple[str, Strip]]:
    """By experiment the strips of what a topic's tests compare, in every regime: of a pair the first
    that has any; those of the topic's measures, or of the error.
    """
    known = {s.experiment.name: _about(entry, s.strips) for s in sections}
    by_name = {}
    for test in entry.tests:
        experiment = where[test.id]
        having = {strip.mechanism for strip in known[experiment]}
        first = next((name for name in test.parts if name in having), None)
        by_name |= {(experiment, s.name): s for s in known[experiment] if s.mechanism == first}
    return [(experiment, strip) for (experiment, _), strip in by_name.items()]


def _about(entry: Entry, strips: Sequence[Strip]) -> list[Strip]:
    own = [strip for strip in strips if strip.measure in entry.topic.measures]
    return own or [strip for strip in strips if not strip.measure]


def _section(experiment: Experiment, out: Path, name: str) -> Section:
    """name: by which a command knows the experiment."""
    path = result_path(experiment.name, out)
    command = f"ssa-theory run {name}"
    if not path.is_file():
        return Section(experiment, not_run(name))
    try:
        dataset, evidence = load(path), load_evidence(experiment.name, out)
        figure = path.with_name("figure.svg").read_text(encoding="utf-8")
        if not ("<svg" in figure and figure.rstrip().endswith("</svg>")):
            raise ValueError(
                f"the stored figure {path.with_name('figure.svg')} is damaged: redraw it with"
                f" `ssa-theory plot {name}`"
            )
    except (ValueError, OSError) as error:
        return Section(experiment, str(error))
    keys = (
        "device",
        "threads",
        "wall_seconds",
        "source",
        "revision",
        "uncommitted_changes",
        "format",
    )
    try:
        config, versions = (dict(json.loads(dataset.attrs[key])) for key in ("config", "versions"))
        files = {
            f"{name}, content": content
            for name, content in dict(json.loads(dataset.attrs["inputs"])).items()
        }
        blocks = {
            key: dataset.attrs[key] for key in ("blocks", "block_seconds") if key in dataset.attrs
        }
        about = {key: dataset.attrs[key] for key in keys} | blocks | files | versions
    except (KeyError, ValueError, TypeError) as error:
        return Section(
            experiment,
            f"the stored result {path} does not say how it was made ({error!r}): run `{command}"
            " --fresh`",
        )
    return Section(
        experiment,
        "",
        evidence,
        inline_svg(figure, experiment.name),
        config,
        about,
        tuple(warnings_of(dataset)),
        f"{command} {_flags(experiment, config)}",
        (_place(experiment.train), _place(experiment.judge)),
        strips(dataset),
        settled_shares(dataset),
    )


def _flags(experiment: Experiment, config: Mapping[str, Any]) -> str:
    """The preset nearest to the config, and the flags by which the config differs from it."""
    differing = {}
    for name in PRESETS:
        preset = json.loads(experiment.preset(name).model_dump_json())
        differing[name] = {key: value for key, value in config.items() if preset.get(key) != value}
    preset = min(PRESETS, key=lambda name: (len(differing[name]), name != "paper"))
    words = [f"--preset {preset}"]
    for key, value in differing[preset].items():
        flag = f"--{key.replace('_', '-')}"
        words.append(flag if value is True else f"{flag} {_config_value(value)}")
    return " ".join(words)


def _place(function: Callable[..., object]) -> str:
    code = inspect.unwrap(function).__code__
    path = Path(code.co_filename)
    place = path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else path
    return f"{place.as_posix()}:{code.co_firstlineno}"


def inline_svg(text: str, name: str) -> str:
    """The SVG element of a file that matplotlib wrote, with ids made unique to `name` and a size
    that its container decides.
    """
    svg = text[text.index("<svg") :]
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    rest = re.sub(r"<metadata>.*?</metadata>", "", rest, count=1, flags=re.DOTALL)
    rest = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", rest)
    return f'{head} role="img" aria-label="figure of experiment {name}">{rest}'


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.3g}"


def _config_value(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _slug(text: str) -> str:
    return text.replace(" ", "-")
