"""The report: ledger, figures and every number of the stored results as one self-contained HTML
page.
"""

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import xarray as xr

from analysis.bench.bench import load_report
from analysis.bench.tables import all_rows, notes
from analysis.claims.claim import FALSE_DISCOVERY_RATE, Claim, count_verdicts
from analysis.claims.ledger import Entry, ledger
from analysis.experiments.base import PRESETS, Experiment
from analysis.report.paper import paper_table
from analysis.run.runner import load_claims, result_path
from analysis.store.guards import warnings_of
from analysis.store.results import load, write_whole

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Section:
    """What the report shows of one experiment.

    missing: why there is nothing to show, or empty. claims: with p-values corrected over the whole
    ledger. figure: the SVG element. config: every setting. provenance: the result's other
    attributes. warnings: what the guards found. command: what makes it again. source: path and line
    of the code that runs it, and of that which states its claims. left_out: why its claims are not
    in the ledger, or empty.
    """

    experiment: Experiment
    missing: str
    claims: tuple[Claim, ...] = ()
    figure: str = ""
    config: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    command: str = ""
    source: tuple[str, str] = ("", "")
    left_out: str = ""

    @property
    def answer(self) -> str:
        """How many of the tests have each verdict."""
        counts = count_verdicts(self.claims)
        return f"{len(self.claims)} tests: " + ", ".join(
            f"{n} {verdict}" for verdict, n in counts.items() if n
        )


def write_report(experiments: Mapping[str, Experiment], out: Path) -> Path:
    """Write out/index.html from what is stored below `out`; an experiment without a readable result
    is said to be missing.
    """
    path = out / "index.html"
    page = render(*read_stored(experiments, out), _speed(out))
    write_whole(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return path


def read_stored(
    experiments: Mapping[str, Experiment], out: Path
) -> tuple[list[Entry], list[Section]]:
    """The ledger and the sections of all experiments, as far as they are stored below `out`."""
    sections = [_section(experiment, out) for experiment in experiments.values()]
    declared = [section for section in sections if not section.left_out]
    entries = ledger([claim for section in declared for claim in section.claims])
    corrected = {claim.id: claim for entry in entries for claim in entry.claims}
    return entries, [
        replace(s, claims=tuple(corrected.get(c.id, c) for c in s.claims)) for s in sections
    ]


def _speed(out: Path) -> dict[str, Any] | None:
    """Tables and notes of the benchmark that is stored below `out`; None without one that can be
    read.
    """
    try:
        report = load_report(out)
        return {"tables": all_rows(report), "notes": notes(report)}
    except (ValueError, KeyError, TypeError):
        return None


def render(
    entries: list[Entry], sections: list[Section], speed: dict[str, Any] | None = None
) -> str:
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
        "p_value": _p_value,
        "config_value": _config_value,
        "slug": _slug,
    }
    return environment.get_template("report.html.j2").render(
        entries=entries,
        sections=sections,
        rate=FALSE_DISCOVERY_RATE,
        speed=speed,
        paper=paper_table([c for s in sections if not s.left_out for c in s.claims]),
        deciding={entry.topic.decided_by for entry in entries},
        tests=sum(len(entry.claims) for entry in entries),
    )


def _section(experiment: Experiment, out: Path) -> Section:
    path = result_path(experiment.name, out)
    command = f"ssa-theory run {experiment.name}"
    if not path.is_file():
        return Section(experiment, f"not run: `{command}` makes it")
    try:
        dataset, claims = load(path), tuple(load_claims(experiment.name, out))
        figure = path.with_name("figure.svg").read_text(encoding="utf-8")
        if not ("<svg" in figure and figure.rstrip().endswith("</svg>")):
            raise ValueError(
                f"the stored figure {path.with_name('figure.svg')} is damaged: redraw it with"
                f" `ssa-theory plot {experiment.name}`"
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
    left_out = _left_out(experiment, dataset)
    return Section(
        experiment,
        "",
        claims,
        inline_svg(figure, experiment.name),
        config,
        about,
        (*warnings_of(dataset), *([left_out] if left_out else [])),
        f"{command} {_flags(experiment, config)}",
        (_place(experiment.train), _place(experiment.judge)),
        left_out,
    )


def _left_out(experiment: Experiment, dataset: xr.Dataset) -> str:
    try:
        declared = experiment.declares(experiment.config_of(dataset))
    except ValueError:  # of another version
        declared = True
    return "" if declared else "left out of the ledger, as its data are those of no preset"


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
    return f"{Path(code.co_filename).relative_to(_ROOT).as_posix()}:{code.co_firstlineno}"


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


def _p_value(value: float | None) -> str:
    return "–" if value is None else f"< {0.001:g}" if value < 0.001 else f"{value:.2g}"


def _config_value(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _slug(text: str) -> str:
    return text.replace(" ", "-")
