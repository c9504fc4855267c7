"""Ledger, report and README from stored results with known answers."""

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from analysis.claims.claim import Claim
from analysis.claims.ledger import ledger
from analysis.claims.statistics import mean
from analysis.claims.topics import TOPICS
from analysis.draw.figures import FORMATS, new_figure, save_figure
from analysis.experiments import EXPERIMENTS
from analysis.experiments.base import Experiment
from analysis.flags import parse_run
from analysis.report.paper import PAPER
from analysis.report.readme import PICTURE, TELLING, blocks, fill
from analysis.report.report import _flags, inline_svg, read_stored, render, write_report
from analysis.run.runner import execute
from analysis.store.claims import load_claims
from analysis.store.config import SeededConfig
from analysis.store.results import load

RNG = np.random.default_rng(0)


def claim(identity, values, topic="error", requested_seeds=64):
    text = f"sentence of {identity} & <b>"
    return Claim(
        identity, text, "paper", "mean", "<", 1.0, mean(values), requested_seeds, topic=topic
    )


SURE, AGAINST, OPEN = (centre + 0.1 * RNG.normal(size=64) for centre in (0.5, 1.5, 1.0))
CLAIMS = [
    claim("graph-l1-ssa", SURE),
    claim("letters-l1-ssa", AGAINST),
    claim("les-miserables-gap-ssa", OPEN),
    claim("graph-temperature-order-ssa", AGAINST, "order"),
    claim("twins-gap-ssa", np.full(64, np.nan), "twins"),
]


def test_topics_have_names_and_deciding_tests_of_their_own():
    for field in ("name", "sentence", "decided_by"):
        assert len({getattr(t, field) for t in TOPICS}) == len(TOPICS)


def test_a_claim_names_its_topic_and_one_of_the_users_own_comes_last():
    with pytest.raises(TypeError, match="topic"):
        Claim("id", "sentence", "source", "mean", "<", 1.0, mean(SURE), 64)
    *entries, own = ledger([claim("mine", SURE, topic="votes")])
    assert [e.topic for e in entries] == list(TOPICS)
    assert own.topic.name == "votes"
    assert own.verdict is None
    assert own.counts["supported"] == 1


def test_the_ledger_counts_and_decides():
    entries = {e.topic.name: e for e in ledger(CLAIMS)}
    assert entries["error"].verdict == "supported"
    assert entries["error"].counts == {"supported": 1, "not supported": 1, "inconclusive": 1}
    assert entries["order"].verdict == "not supported"
    assert entries["twins"].verdict is None  # its deciding test was not run
    assert entries["twins"].counts["inconclusive"] == 1  # NaN decides nothing
    assert entries["overhead"].claims == ()
    assert all(
        c.corrected_p_value >= c.p_value
        for e in entries.values()
        for c in e.claims
        if c.p_value is not None
    )


def tiny(name, claims=CLAIMS[:1], values=(1.0, 2.0)):
    """An experiment that needs no training."""

    def draw(config, dataset):
        figure = new_figure(3.0, 2.0)
        figure.subplots().plot(dataset["x"].values, label="x")
        return figure

    def run(config, progress):
        return xr.Dataset({"x": ("seed", list(values)), "diverged": ("seed", [False, True])})

    return Experiment(
        name,
        f"Question of {name}?",
        f"Caption of {name}.",
        SeededConfig,
        run,
        draw,
        lambda config, dataset: list(claims),
    )


@pytest.fixture
def stored(tmp_path):
    """Two experiments, of which one was run."""
    experiments = {e.name: e for e in (tiny("graph", CLAIMS[:3]), tiny("letters", CLAIMS[3:]))}
    execute(experiments["graph"], SeededConfig(seeds=2, device="cpu"), tmp_path)
    return experiments, tmp_path


def test_the_report_shows_what_is_stored_and_says_what_is_missing(stored):
    experiments, out = stored
    page = write_report(experiments, out).read_text()
    text = html.unescape(re.sub(r"<[^>]+>", " ", page))
    for expected in (
        "Question of graph?",
        "Caption of graph.",
        "3 tests: 1 supported, 1 not supported, 1 inconclusive",
        "sentence of graph-l1-ssa & <b>",
        "ssa-theory run graph --preset paper --seeds 2 --device cpu",
        "tests/analysis/test_report.py:",
        "1 diverged model left out",
        "Question of letters?",
        "not run: `ssa-theory run letters` makes it",
        torch.__version__.split("+")[0],
    ):
        assert expected in text, expected
    assert page.count("<svg") == 1
    assert "<b>" not in page  # sentences are escaped


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


@pytest.mark.parametrize("name", ["result.nc", "claims.json", "figure.svg"])
def test_a_damaged_file_is_said_in_the_report(stored, name):
    experiments, out = stored
    damaged = out / "graph" / name
    damaged.unlink() if name == "figure.svg" else damaged.write_text("{")
    entries, sections = read_stored(experiments, out)
    assert "graph" in sections[0].missing
    assert "Question of graph?" in render(entries, sections)


def test_the_report_without_any_result(tmp_path):
    page = write_report(EXPERIMENTS, tmp_path).read_text()
    assert page.count("not run:") == len(EXPERIMENTS)


def test_the_numbers_in_the_report_are_those_of_the_claims(stored):
    experiments, out = stored
    entries, sections = read_stored(experiments, out)
    page = render(entries, sections)
    for c in load_claims("graph", out):
        e = c.estimate
        assert f"{e.value:.3g} [{e.low:.3g}, {e.high:.3g}]" in page
        assert c.statistic in page


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


def test_readme_blocks_are_filled_and_filling_is_idempotent(stored):
    experiments, out = stored
    entries, _ = read_stored(experiments, out)
    generated = blocks(entries)
    text = "before\n"
    for name in generated:
        text += (
            f"<!-- {name}: generated by make readme -->\nstale\n<!-- end of {name} -->\nbetween\n"
        )
    filled = fill(text, generated)
    assert "stale" not in filled
    assert "3 tests: 1 supported, 1 not supported, 1 inconclusive." in filled
    assert filled.count("\n- **") == len(TELLING)
    assert all(topic.sentence in filled for topic in TELLING)
    assert filled.count("between") == len(generated)
    assert filled.count("| not run |") == sum(row.telling for row in PAPER)
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
    """As a user runs it: every experiment runs, draws and claims; the ledger decides every topic,
    and the report shows all.
    """

    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "analysis.cli", *arguments, "--out", str(tmp_path)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    ran = command("run", "all", "--preset", "smoke", "--device", "cpu")
    assert ran.returncode == 0, ran.stderr
    printed = command("claims")
    assert printed.returncode == 0, printed.stderr
    assert "not run" not in printed.stdout
    entries, sections = read_stored(EXPERIMENTS, tmp_path)
    assert all(entry.claim is not None for entry in entries)
    assert not [section.missing for section in sections if section.missing]
    identities = [c.id for s in sections for c in s.claims]
    assert len(set(identities)) == len(identities)
    assert (tmp_path / "index.html").read_text().count("<svg") == len(EXPERIMENTS)
    for kind in FORMATS:
        figures = [tmp_path / name / f"figure.{kind}" for name in EXPERIMENTS]
        assert min(figure.stat().st_size for figure in figures) > 10_000, kind
