"""Ledger, report and README from stored results with known answers."""

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from pydantic import Field

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.ledger import Evidence, Ledger, ledger_of
from analysis.claims.registry import parse, registry
from analysis.claims.words import effect_of
from analysis.cli import main
from analysis.draw.figures import FORMATS, new_figure, save_figure
from analysis.experiments import APART, EXPERIMENTS
from analysis.experiments.base import Experiment
from analysis.flags import parse_run
from analysis.report.paper import cells_at, paper_table
from analysis.report.paper_rows import PAPER, Row
from analysis.report.readme import PICTURE, TELLING, blocks, fill
from analysis.report.report import _about, _flags, inline_svg, read_stored, render, write_report
from analysis.report.sensitivity import strips
from analysis.run.runner import execute
from analysis.store.claims import load_evidence
from analysis.store.config import SeededConfig
from analysis.store.results import load, save

RNG = np.random.default_rng(0)
ONE = np.ones(64)
LESS, MORE = (factor * np.exp(0.01 * RNG.normal(size=64)) for factor in (0.5, 2.0))
LENGTHS = ("256", "512", "1024", "2048")


def written(name: str) -> list[Claim]:
    """Evidence of an experiment of that name: `extrapolation` holds but at length 2048, where it
    fails; of `order` one cell of three is there; a test outside of the scope, a topic of nobody, a
    check that passes, and one that does not.
    """
    lines = Lines(name, 64)
    for length in (*LENGTHS, "4096"):
        for against in ("learned constant", "best constant"):
            cell = {"length": length, "against": against}
            errors = MORE if length == "2048" else LESS
            lines.compare("extrapolation", cell, "excess", {"ssa": errors, against: ONE})
    lines.single("order", {"graph": "graded"}, "slope", LESS)
    own = {"sentence": "S", "source": "s", "measures": ["m"], "factors": {"f": ["x"]}}
    measures = {"m": {"says": "what is mine", "favours": "smaller"}}
    mine = Lines(f"{name}-own", 64, parse({"measures": measures, "topics": {"mine": own}}))
    mine.compare("mine", {"f": "x"}, "m", {"ssa": LESS, "vanilla": ONE})
    lines.check("sum", "Rows sum to 1 & <b>.", "worst", "<", 1e-9, 1e-12)
    lines.check("count", "There are three.", "count", ">", 3, 2)
    return [*lines.claims, *mine.claims]


class TinyConfig(SeededConfig):
    """A setting beside the seeds."""

    steps: int = Field(3, ge=1, description="steps")


def tiny(name, claims=(), values=(1.0, 2.0), more=None):
    """An experiment that needs no training. more: variables of its result."""

    def draw(config, dataset):
        figure = new_figure(3.0, 2.0)
        figure.subplots().plot(dataset["x"].values, label="x")
        return figure

    def run(config, progress):
        own = {"x": ("seed", list(values)), "diverged": ("seed", [False, True])}
        return xr.Dataset(own).assign(more or {})

    return Experiment(
        name,
        f"Question of {name}?",
        f"Caption of {name}.",
        TinyConfig,
        run,
        draw,
        lambda config, dataset: list(claims),
        presets={"smoke": {"steps": 1}},
    )


@pytest.fixture
def stored(tmp_path):
    """Two experiments, of which one was run."""
    experiments = {e.name: e for e in (tiny("graph", written("graph")), tiny("letters"))}
    execute(experiments["graph"], TinyConfig(seeds=2, device="cpu"), tmp_path)
    return experiments, tmp_path


def read(page: str) -> str:
    """The text of a page, in one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_the_ledger_of_what_is_stored(stored):
    found, _ = read_stored(*stored)
    assert [e.topic.name for e in found.entries] == list(registry().topics)
    one = found.entry("extrapolation")
    assert one.verdict == "mixed"
    assert one.when == "holds where length is 256, 512 or 1024; fails where length is 2048"
    assert [t.cell["length"] for t in one.outside] == ["4096", "4096"]
    assert not one.post_hoc
    assert found.entry("order").verdict == found.entry("error").verdict == "incomplete"
    assert [c.passed for c in found.checks] == ["passed", "failed"]
    assert [t.topic for t in found.unknown] == ["mine"]


def test_the_report_shows_what_is_stored_and_says_what_is_missing(stored):
    experiments, out = stored
    page = write_report(experiments, out).read_text()
    text = read(page)
    topics = len(registry().topics)
    for expected in (
        "Question of graph?",
        "Caption of graph.",
        f"{topics} topics: 1 mixed, {topics - 1} incomplete.",
        "It holds where length is 256, 512 or 1024; fails where length is 2048.",
        "It holds in 1 of 3 cells; 2 of 3 cells missing.",
        f"It is not resolved: all {len(registry().topics['error'].cells)} cells missing.",
        "8 cells, 2 tests outside the scope",
        "Evidence for: extrapolation , order , mine (not in the registry).",
        "1 of 2 passed.",
        "There are three.: 2, passes if > 3",
        "Rows sum to 1 & <b>.",
        "ssa-theory run graph --preset paper --seeds 2 --device cpu",
        "tests/analysis/test_report.py:",
        "1 diverged model left out",
        "Question of letters?",
        "not run: `ssa-theory run letters` makes it",
        torch.__version__.split("+")[0],
    ):
        assert expected in text, expected
    assert page.count("<svg") == 3  # the figure, and the forests of two topics
    assert "<b>" not in page  # sentences are escaped
    assert "Other settings" not in text


def test_headlines_come_first_with_verdict_when_and_effect(stored):
    found, sections = read_stored(*stored)
    page = render(found, sections)
    answers = page[page.index('<section id="answers">') : page.index('<section id="topics">')]
    wanted = [t.sentence for t in registry().topics.values() if t.headline]
    assert re.findall(r"<strong><a [^>]*>(.*?)</a>", answers) == [
        html.escape(w, quote=True).replace("&#x27;", "&#39;") for w in wanted
    ]
    (line,) = (li for li in answers.split("<li>") if "beyond the training length" in li)
    assert read(line).startswith("mixed ")
    assert "least and the most: error above Bayes: 50 % less (100 % more to 50 % less)" in read(
        line
    )


def test_the_report_is_self_contained_and_the_same_every_time(stored):
    experiments, out = stored
    page = write_report(experiments, out).read_text()
    assert not re.search(r'<(script|link|img|iframe)\b|@import|url\((?!#)|src="', page)
    assert set(re.findall(r'href="(https?://[^"]+)"', page)) == {"https://arxiv.org/abs/2411.12892"}
    identities = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(identities)) == len(identities)
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(identities)
    assert write_report(experiments, out).read_text() == page


def test_the_command_of_a_section_makes_the_same_config():
    config = {"position": True, "mechanisms": ("vanilla", "ssa"), "steps": 7, "seeds": 3}
    graph = EXPERIMENTS["graph"]
    wanted = graph.config(**config)
    flags = _flags(graph, json.loads(wanted.model_dump_json())).split()
    assert flags[:2] == ["--preset", "smoke"] or flags[:2] == ["--preset", "paper"]
    assert parse_run(graph, flags).config == wanted


def test_strips_and_settled_shares_stand_in_the_experiment_and_strips_in_its_topics(tmp_path):
    """In the topic that of the first of its pair alone, read as text."""
    error = np.array([[[1.0, 2.0]], [[0.5, 1.0]], [[1.0, 2.2]]])[..., None] * np.ones(6)
    tried = ("mechanism", "tried_rate", "tried_step", "tuning_seed")
    more = {
        "mechanism": ["vanilla", "ssa", "scaled"],
        "tried_rate": [0.1],
        "tried_step": [0.25, 1.0],
        "tuning_error": (tried, error),
        "control_tuning_error": (tried, error[::-1]),
        "longer_error": (tried[::3], 2 ** np.arange(3)[:, None] * np.ones(6)),
        "longer_settled": (tried[::3], np.arange(18).reshape(3, 6) < 9),
        "settled": (("mechanism", "seed"), [[True, False], [True, True], [False, False]]),
    }
    experiments = {"graph": tiny("graph", written("graph"), more=more)}
    execute(experiments["graph"], TinyConfig(seeds=2, device="cpu"), tmp_path)
    page = write_report(experiments, tmp_path).read_text()
    topics, own = page.split('<section id="graph">')
    told = {
        name: f"{name}: the error over vanilla's at equal step size and steps lies between {ends}"
        for name, ends in {
            "ssa": "0.5 and 0.5",
            "ssa, control": "0.455 and 0.5",
            "scaled": "1 and 1.1",
        }.items()
    }
    assert [read(topics).count(one) for one in told.values()] == [1, 1, 0]
    assert all(one in read(own) for one in told.values())
    rows = [read(row) for row in re.findall("<tr>.*?</tr>", own, re.DOTALL)]
    assert "scaled 25 %" + 2 * " 1 equivalent 1 to 1" in rows
    assert "scaled 100 %" + 2 * " 1.1 harm 1.1 to 1.1" in rows
    assert "scaled 400 % 4 harm 4 to 4" in rows
    assert len([row for row in rows if "400 %" in row]) == 2  # not of the control
    longer = (
        "With 4 times the steps, each its best: 2 (2 to 2), a harm; 50 % of ssa's and 100 % of "
        "vanilla's models had settled; longer training changes this: benefit -> harm."
    )
    assert longer in read(topics)
    assert longer in read(own)
    assert "row 400 %, both are trained again" in read(own)
    assert "last third of the training: vanilla 50 %; ssa 100 %; scaled 0 %." in read(own)


def test_a_topic_about_norms_has_the_strips_of_norms():
    tried = ("mechanism", "tried_rate", "tried_step", "tuning_seed")
    values = np.ones((2, 1, 1, 6))
    result = xr.Dataset(
        {
            "tuning_error": (tried, values),
            "tuning_weight_norm": (tried, values, {"measure": "norm"}),
        },
        {"mechanism": ["vanilla", "ssa"], "tried_rate": [0.1], "tried_step": [1.0]},
    )
    both = strips(result)
    entries = {e.topic.name: e for e in ledger_of([], registry()).entries}
    assert [s.variable for s in _about(entries["norm"], both)] == ["weight_norm"]
    assert [s.variable for s in _about(entries["error"], both)] == ["error"]
    assert [s.variable for s in _about(entries["norm"], both[:1])] == ["error"]


@pytest.mark.parametrize("name", ["result.nc", "claims.json", "figure.svg"])
def test_a_damaged_file_is_said_in_the_report(stored, name):
    experiments, out = stored
    damaged = out / "graph" / name
    damaged.unlink() if name == "figure.svg" else damaged.write_text("{")
    found, sections = read_stored(experiments, out)
    assert "graph" in sections[0].missing
    assert found.entry("extrapolation").verdict == "incomplete"
    assert "Question of graph?" in render(found, sections)


def test_the_report_without_any_result(tmp_path):
    page = write_report(EXPERIMENTS, tmp_path).read_text()
    assert page.count("not run:") == len(EXPERIMENTS)


def test_the_numbers_in_the_report_are_those_of_the_claims(stored):
    experiments, out = stored
    page = render(*read_stored(experiments, out))
    for c in load_evidence("graph", out).claims:
        e = getattr(c, "effect", None) or c.estimate
        interval = f" [{e.low:.3g}, {e.high:.3g}]" if e.method != "exact" else ""
        assert f'<td class="n">{e.value:.3g}{interval}</td>' in page
        assert html.escape(c.statistic) in page
        assert f'id="{c.id}"' in page
        if c.id.startswith("graph-extrapolation"):
            assert effect_of(c) in page


def test_results_of_other_settings_stand_outside_of_every_scope(tmp_path):
    """Of whatever number of seeds, but not of other steps than those of `paper` or `large`."""
    experiment = tiny("graph", written("graph"))
    execute(experiment, experiment.preset("smoke"), tmp_path)
    found, sections = read_stored({"graph": experiment}, tmp_path)
    assert {entry.verdict for entry in found.entries} == {"incomplete"}
    assert len(found.entry("extrapolation").outside) == 10
    page = render(found, sections)
    assert "Other settings than those of the registry" in page
    assert "10 tests outside the scope" in page
    assert [c.passed for c in found.checks] == ["passed", "failed"]  # the instrument has no scope


def test_two_folders_are_compared_by_their_verdicts(stored, tmp_path_factory, capsys):
    """The other one lacks the length at which the topic fails."""
    _, out = stored
    claims = [c for c in written("graph") if "2048" not in getattr(c, "cell", {}).values()]
    there = tmp_path_factory.mktemp("there")
    execute(tiny("graph", claims), TinyConfig(seeds=2, device="cpu"), there)
    assert main(["claims", "--out", str(out), "--against", str(there)]) == 0
    (_, row, count) = capsys.readouterr().out.splitlines()
    assert row.split() == ["extrapolation", "mixed", "incomplete", "2/8"]
    assert count == f"1 of {len(registry().topics)} verdicts differ"
    assert main(["claims", "--out", str(out), "--against", str(out / "none")]) == 2
    assert "with --against" in capsys.readouterr().err


def test_a_change_of_the_registry_redraws_claims_without_training(stored, monkeypatch):
    experiments, out = stored
    topics = registry().topics
    other = topics["order"].model_copy(update={"sentence": "Another."})
    changed = registry().model_copy(update={"topics": topics | {"order": other}})
    claims = out / "graph" / "claims.json"

    def again() -> tuple[bool, dict[str, str], int]:
        _, _, trained = execute(experiments["graph"], TinyConfig(seeds=2, device="cpu"), out)
        origin = json.loads(claims.read_text())["made_from"]
        return trained, origin, claims.stat().st_mtime_ns

    trained, before, moment = again()
    assert (trained, moment) == (False, again()[2])
    monkeypatch.setattr("analysis.run.runner.registry", lambda: changed)
    trained, after, later = again()
    assert not trained
    assert later > moment
    assert {part for part in before if before[part] != after[part]} == {"registry"}


def test_a_result_older_than_a_topic_is_post_hoc(stored):
    """Also where its claims are redrawn under the topic of today."""
    experiments, out = stored
    path = out / "graph" / "result.nc"
    result = load(path)
    then = registry().hashes() | {"extrapolation": "of yesterday"}
    save(result.assign_attrs(registry=json.dumps(then)), path)
    execute(experiments["graph"], TinyConfig(seeds=2, device="cpu"), out)
    found, sections = read_stored(experiments, out)
    assert [e.topic.name for e in found.entries if e.post_hoc] == ["extrapolation"]
    assert found.entry("extrapolation").verdict == "mixed"
    assert "(Post hoc: a result is older than this form of the topic.)" in read(
        render(found, sections)
    )


def test_figures_are_byte_identical_for_the_same_result(stored):
    experiments, out = stored
    first = {
        kind: (out / "graph" / f"figure.{kind}").read_bytes() for kind in ("svg", "pdf", "png")
    }
    save_figure(experiments["graph"].plot(load(out / "graph" / "result.nc")), out / "graph")
    assert {kind: (out / "graph" / f"figure.{kind}").read_bytes() for kind in first} == first


def test_inlined_svgs_do_not_share_ids():
    text = '<?xml version="1.0"?>\n<svg width="3pt" height="2pt" viewBox="0 0 3 2"><metadata>x</metadata><g id="a"/>'
    text += '<use xlink:href="#a"/><g clip-path="url(#a)"/></svg>'
    svg = inline_svg(text, "one")
    assert svg.startswith("<svg viewBox=")
    assert 'id="one-a"' in svg
    assert 'href="#one-a"' in svg
    assert "url(#one-a)" in svg
    assert "metadata" not in svg


# The paper's table


def judged(*at: tuple[str, dict[str, str], np.ndarray]) -> Ledger:
    """A ledger of tests of the registry's topics, in these cells, against ONE."""
    lines = Lines("x", 64)
    for topic, cell, errors in at:
        (measure,) = registry().topics[topic].measures
        lines.compare(topic, cell, measure, {"ssa": errors, "vanilla": ONE})
    return ledger_of([Evidence(tuple(lines.claims))], registry())


def cell(length: str, noise: str) -> dict[str, str]:
    return {"length": length, "noise": noise, "against": "vanilla"}


def row(**at: str) -> Row:
    return Row("Table 2", "It denoises.", "trained layers", "basis-denoising", at)


def test_every_row_names_cells_that_are_declared():
    empty = ledger_of([], registry())
    for line in paper_table(empty):
        assert line.status == ("not run" if line.row.topic else "out of scope")
    with pytest.raises(
        ValueError, match=r"topic basis-denoising declares no cell with \{'length': '9'\}"
    ):
        cells_at(empty.entry("basis-denoising"), {"length": "9"})
    with pytest.raises(ValueError, match="declares no cell"):
        paper_table(empty, (row(length="9"),))


OPEN = np.append(LESS[:32], MORE[32:])
LOST = np.append(LESS[:32], [np.nan] * 32)


@pytest.mark.parametrize(
    ("first", "others", "status", "ours"),
    [
        (LESS, LESS, "holds", "50 % less (50 % less to 50 % less over 4 cells)"),
        (MORE, MORE, "fails", "100 % more (100 % more to 100 % more over 4 cells)"),
        (LESS, MORE, "mixed", "100 % more (100 % more to 50 % less over 4 cells)"),
        (LESS, OPEN, "holds in part", "the same (the same to 50 % less over 4 cells)"),
        (OPEN, MORE, "fails in part", "100 % more (100 % more to the same over 4 cells)"),
        (OPEN, OPEN, "open", "the same (the same to the same over 4 cells)"),
        (LESS, LOST, "not run", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_status_is_computed_from_the_cells_of_its_row(first, others, status, ours):
    """Four cells, of which one may be unlike the others; whatever the cells of other rows say."""
    noises = ("0.1", "0.3", "0.5", "1")
    own = [cell("8", noise) for noise in noises]
    told = [("basis-denoising", at, first if at == own[0] else others) for at in own]
    beside = [("basis-denoising", cell("16", noise), MORE) for noise in noises]
    (line,) = paper_table(judged(*told, *beside), (row(length="8"),))
    assert (line.status, line.ours) == (status, ours)


def test_one_cell_is_told_with_its_interval():
    found = judged(("basis-denoising", cell("8", "0.3"), LESS))
    (line,) = paper_table(found, (row(length="8", noise="0.3"),))
    (test,) = found.entry("basis-denoising").tests
    assert (line.status, line.ours) == ("holds", effect_of(test))
    assert paper_table(found, (row(length="8", noise="0.5"),))[0].status == "not run"


def test_an_exact_statement_has_its_own_status_and_truth():
    lines = Lines("paper-theory", 1)
    lines.exactly(
        "paper-theory", {"statement": "lemma-2"}, "status", -1, "holds as corrected. By 5. And 6."
    )
    found = ledger_of([Evidence(tuple(lines.claims))], registry())
    told = {
        line.row.at["statement"]: line
        for line in paper_table(found)
        if line.row.topic == "paper-theory"
    }
    assert (told["lemma-2"].status, told["lemma-2"].ours) == ("holds as corrected", "By 5. And 6.")
    assert {line.status for name, line in told.items() if name != "lemma-2"} == {"not run"}


# The README


def test_readme_blocks_are_filled_and_filling_is_idempotent(stored):
    found, _ = read_stored(*stored)
    generated = blocks(found)
    text = "before\n"
    for name in generated:
        text += (
            f"<!-- {name}: generated by make readme -->\nstale\n<!-- end of {name} -->\nbetween\n"
        )
    filled = fill(text, generated)
    assert "stale" not in filled
    topics = registry().topics
    told = f"{len(topics)} topics: 1 mixed, {len(topics) - 1} incomplete. 1 of 2 checks"
    assert told in filled
    assert filled.count("\n- **") == len(TELLING)
    assert all(f": {topics[name].sentence} It " in filled for name in TELLING)
    assert f"- **mixed**: {topics['extrapolation'].sentence} It holds where length is" in filled
    assert filled.count("between") == len(generated)
    assert filled.count("| not run |") == sum(line.telling for line in PAPER)
    assert fill(filled, generated) == filled
    with pytest.raises(ValueError, match="must have the blocks"):
        fill(text.replace("results", "result"), generated)


def test_the_readme_of_this_repository_can_be_generated():
    root = Path(__file__).parents[2]
    text = (root / "README.md").read_text()
    filled = fill(text, {"results": "new", "paper": "own"})
    assert filled.count("\nnew\n") == filled.count("\nown\n") == 1
    assert (root / PICTURE).is_file()
    assert str(PICTURE) in text


def test_the_whole_project_at_the_smoke_preset(tmp_path):
    """As a user runs it, under the runtime type checker: every experiment runs, draws and claims, and
    the report shows all. Smoke is no setting of the registry, so its tests stand outside of the
    scopes.
    """

    commands = [
        ["run", "all", "--preset", "smoke", "--device", "cpu"],
        ["run", *APART, "--preset", "smoke", "--device", "cpu"],
        ["claims"],
    ]
    words = [w for c in commands for w in ("--then", *c, "--out", str(tmp_path))]
    done = subprocess.run(
        [sys.executable, "-m", "tests.typed", *words],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.rsplit("\nreport: ", 1)[1]  # by the last command
    assert "not run" not in printed
    found, sections = read_stored(EXPERIMENTS, tmp_path)
    assert not found.unknown
    assert not [entry.topic.name for entry in found.entries if not (entry.tests or entry.outside)]
    assert not [section.missing for section in sections if section.missing]
    page = (tmp_path / "index.html").read_text()
    identities = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(identities)) == len(identities)
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(identities)
    claims = [c.id for s in sections for c in s.evidence.claims]
    assert len(set(claims)) == len(claims)
    assert set(claims) <= set(identities)
    for kind in FORMATS:
        figures = [tmp_path / name / f"figure.{kind}" for name in EXPERIMENTS]
        assert min(figure.stat().st_size for figure in figures) > 10_000, kind
    for name in EXPERIMENTS:
        result = load(tmp_path / name / "result.nc")
        bare = [v for v, held in result.variables.items() if not held.attrs.get("description")]
        assert not bare, f"{name}: each variable of a result says what it holds"
        other_readers_agree(tmp_path / name / "result.nc", result)
        numbers = pd.read_csv(tmp_path / name / "figure.csv")
        ends = numbers[[f"{axis}{end}" for axis in "xy" for end in ("", "_low", "_high")]]
        assert ends.notna().any(axis=1).mean() > 0.9, name
        assert numbers.groupby("panel").size().min() >= 1
    curve = numbers_of_the_gap(tmp_path / "graph" / "figure.csv")
    band = load(tmp_path / "graph" / "result.nc")["cross_entropy_gap_band"].sel(mechanism="ssa")
    assert np.array_equal(curve, band.transpose("step", "estimate"))


def other_readers_agree(path: Path, result: xr.Dataset) -> None:
    """The file as Unidata's reader of netCDF sees it, and as the HDF5 library alone does."""
    with netCDF4.Dataset(path) as file:
        assert set(file.variables) == set(result.variables)
        for name, variable in result.variables.items():
            values = np.ma.getdata(file[name][...])
            assert file[name].dimensions == variable.dims
            np.testing.assert_array_equal(values, variable.values.astype(values.dtype), name)
    with h5py.File(path) as file:
        assert set(file) >= set(result.variables)
        for name, variable in result.variables.items():
            text = variable.dtype.kind in "UO"
            values = file[name].asstr()[()] if text else file[name][()]
            assert np.array_equal(values, variable.values.astype(values.dtype), not text), name
            assert file[name].attrs["description"] == variable.attrs["description"]


def numbers_of_the_gap(path: Path) -> np.ndarray:
    """Value, low and high of SSA's learning curve beside the figure of the graph."""
    table = pd.read_csv(path)
    panel = table[table["title"].str.contains("learning", na=False)]
    return panel[panel["series"] == "ssa"][["y", "y_low", "y_high"]].to_numpy()
