"""The command line: what it writes, what it refuses, and that a refusal loses nothing."""

import json
import os
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.ledger import Evidence, as_record, ledger_of
from analysis.claims.registry import registry
from analysis.cli import main
from analysis.experiments import PLACES
from analysis.experiments.graph import GraphConfig
from analysis.store.results import load, save
from tests.analysis.evidence import store

TINY = ["--preset", "smoke", "--seeds", "2", "--steps", "4", "--learning-rates", "0.06"]


def run(*arguments: object) -> int:
    """The exit code, whether main returns it or the flag parser exits with it."""
    try:
        return main([str(a) for a in arguments])
    except SystemExit as stop:
        return stop.code


def test_run_writes_everything_and_reuses_it(tmp_path, capsys, quick_figures):
    assert run("run", "graph", "twins", *TINY, "--out", tmp_path) == 0
    for name in ("graph", "twins"):
        folder = tmp_path / name
        assert {p.name for p in folder.iterdir()} == {
            "result.nc",
            "claims.json",
            "figure.svg",
            "figure.pdf",
            "figure.png",
            "figure.csv",
        }
        with xr.open_dataset(folder / "result.nc") as result:
            config = json.loads(result.attrs["config"])
            assert (config["seeds"], config["steps"], result.sizes["seed"]) == (2, 4, 2)
            assert result.attrs["device"].startswith("cpu")
        stored = json.loads((folder / "claims.json").read_text())
        assert {claim["kind"] for claim in stored["claims"]} <= {"test", "check"}
        assert stored["registry"] == registry().hashes()
        assert stored["declared"] is False  # four steps
    assert "run in" in capsys.readouterr().out
    assert (tmp_path / "index.html").is_file()
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "graph").iterdir()}
    assert run("run", "graph", *TINY, "--out", tmp_path) == 0
    assert "unchanged, not run again" in capsys.readouterr().out
    after = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "graph").iterdir()}
    assert after == before  # nor drawn again
    assert run("run", "graph", *TINY, "--first-seed", "7", "--out", tmp_path) == 0
    assert "run in" in capsys.readouterr().out


def test_plot_redraws_without_training(tmp_path, capsys, monkeypatch):
    assert run("run", "graph", *TINY, "--out", tmp_path) == 0
    figures = [tmp_path / "graph" / f"figure.{kind}" for kind in ("csv", "svg", "pdf", "png")]
    whole = [figure.read_bytes() for figure in figures]
    figures[0].unlink()
    monkeypatch.setattr("ssa_theory.ensemble.train", None)
    assert run("plot", "graph", "--out", tmp_path) == 0
    assert [figure.read_bytes() for figure in figures] == whole
    assert "redrawn" in capsys.readouterr().out


def test_plot_draws_what_is_stored_whatever_is_not(tmp_path, capsys, quick_figures):
    assert run("run", "graph", *TINY, "--out", tmp_path) == 0
    for path in ("graph/figure.png", "index.html"):
        (tmp_path / path).unlink()
    capsys.readouterr()
    assert run("plot", "twins", "graph", "phase", "--out", tmp_path) == 2
    said = capsys.readouterr()
    assert "graph: redrawn" in said.out
    assert said.err.count("there is no stored result") == 2
    assert (tmp_path / "graph" / "figure.png").exists()
    assert (tmp_path / "index.html").exists()


def test_what_is_missing_is_drawn_again_without_training(
    tmp_path, capsys, monkeypatch, quick_figures
):
    assert run("run", "graph", *TINY, "--out", tmp_path) == 0
    figure, claims = tmp_path / "graph" / "figure.png", tmp_path / "graph" / "claims.json"
    whole = figure.read_bytes(), claims.read_bytes()
    monkeypatch.setattr("ssa_theory.ensemble.train", None)
    for damage in (figure.unlink, lambda: claims.write_text("[]"), lambda: claims.write_text("{")):
        damage()
        assert run("run", "graph", *TINY, "--out", tmp_path) == 0
        assert "unchanged, not run again" in capsys.readouterr().out
        assert (figure.read_bytes(), claims.read_bytes()) == whole


def test_a_result_of_another_version_or_changed_since_says_so(tmp_path, capsys, quick_figures):
    assert run("run", "graph", *TINY, "--out", tmp_path) == 0
    path = tmp_path / "graph" / "result.nc"
    whole = load(path)
    old = whole.drop_vars("weight_norm").assign_attrs(source="0" * 16)
    foreign = [whole.assign_attrs(experiment=odd) for odd in ("twins", "", np.arange(3))]
    for other in (
        old,
        *foreign,
        *(whole.assign_attrs(config=odd) for odd in ("{}", "[]", "null", 1.5, np.arange(3))),
    ):
        save(other, path)
        assert run("plot", "graph", "--out", tmp_path) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "was made by another version of this code, or changed since" in said
        assert said.endswith("run `ssa-theory run graph --fresh`")


def test_every_field_is_a_flag(tmp_path, capsys, quick_figures):
    text = tmp_path / "novel.txt"
    text.write_text("It was the best of times, it was the worst of times. " * 3)
    out = ["--control-steps", "0", "--out", tmp_path / "texts"]
    assert (
        run("run", "graph", *TINY, "--family", "letters", "--text-file", text, "--dim", "5", *out)
        == 0
    )
    with xr.open_dataset(tmp_path / "texts" / "graph" / "result.nc") as result:
        assert set(result["node"].values) == set("_abefhimorstw")
    assert "<dt>text_file, content</dt>" in (tmp_path / "texts" / "index.html").read_text()
    edges = tmp_path / "edges.txt"
    edges.write_text("a b 2\na c 1\nb a 1\nc a 1\n")
    flags = [
        "--family",
        "file",
        "--graph-file",
        edges,
        "--directed",
        "--mechanisms",
        "vanilla",
        "ssa-degree",
        "--context",
        "prompt",
    ]
    capsys.readouterr()
    assert run("run", "graph", *TINY, *flags, *out[:-1], tmp_path) == 0
    understood = "graph: edges.txt: edge list, 3 nodes, 4 directed edges weighted by '3'\n"
    assert capsys.readouterr().out.startswith(understood)
    with xr.open_dataset(tmp_path / "graph" / "result.nc") as result:
        assert result["transition_matrix"].sel(seed=0, node="a", next="b") == pytest.approx(2 / 3)
        assert list(result["mechanism"].values) == ["vanilla", "ssa-degree"]
        assert "3 nodes, 4 directed edges weighted by '3'" in str(result["understood"].values)


@pytest.fixture
def claimed(tmp_path):
    """Claims of one experiment: two cells of eight of one topic, one beside them, a check that fails."""
    lines, ones = Lines("length", 64), np.ones(64)
    for length, factor in (("256", 0.5), ("2048", 2.0), ("4096", 0.5)):
        errors = factor * np.exp(0.01 * np.random.default_rng(0).normal(size=64))
        at = {"length": length, "against": "best constant"}
        lines.compare("extrapolation", at, "excess", {"ssa": errors, "best": ones})
    lines.check("sum", "Rows sum to 1.", "worst", "<", 0.5, 1)
    store("length", lines.claims, tmp_path)
    return tmp_path, lines.claims


def test_the_ledger_is_printed(claimed, capsys):
    out, _ = claimed
    assert run("claims", "--out", out) == 0
    printed = capsys.readouterr().out
    lines = {words[1]: line for line in printed.splitlines() if len(words := line.split()) > 1}
    topics = registry().topics
    assert set(topics) <= set(lines)
    assert (
        lines["extrapolation"].split()
        == (
            f"mixed extrapolation {topics['extrapolation'].sentence} It holds where length is 256; "
            "fails where length is 2048; 6 of 8 cells missing."
        ).split()
    )
    assert lines["error"].startswith("incomplete ")
    assert "0 of 1 checks passed" in printed
    assert "failed: Rows sum to 1. (length-sum: 1 [1, 1])" in printed
    for name in PLACES:
        assert (f"{name}: not run: `ssa-theory run {name}` makes it" in printed) == (
            name != "length"
        )


def test_a_topic_is_printed_with_every_cell(claimed, capsys):
    out, _ = claimed
    assert run("claims", "extrapolation", "order", "--out", out) == 0
    printed = capsys.readouterr().out
    assert "mixed: holds where length is 256; fails where length is 2048" in printed
    rows = [" ".join(line.split()) for line in printed.splitlines()]
    assert sum("missing not run" in row for row in rows) == 6 + 3
    (benefit,) = (row for row in rows if row.startswith("256 best constant excess benefit"))
    assert benefit.endswith("less) 64/64")
    assert any(row.startswith("2048 best constant excess harm") for row in rows)
    assert any(row.startswith("4096 best constant excess outside 50 % less") for row in rows)
    assert registry().topics["order"].sentence in printed
    assert registry().topics["norm"].sentence not in printed


def test_the_ledger_as_json(claimed, capsys):
    out, claims = claimed
    found = ledger_of([Evidence(tuple(claims))], registry())
    assert run("claims", "--json", "--out", out) == 0
    whole = as_record(found.entries, found.checks)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(whole))
    assert run("claims", "extrapolation", "--json", "--out", out) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [t["verdict"] for t in printed["topics"]] == ["mixed"]
    assert not printed["checks"]  # they are of no topic


def test_list_and_help(capsys):
    assert run("list") == 0
    assert {"graph", "letters", "les-miserables", "twins"} <= set(capsys.readouterr().out.split())
    assert run("--help") == 0
    assert "run NAME" in capsys.readouterr().out
    assert run("run", "--help") == 0
    assert "usage: ssa-theory COMMAND" in capsys.readouterr().out
    assert run("run", "graph", "--help") == 0
    text = capsys.readouterr().out
    assert "--dim INT" in text
    assert "embedding dimension" in text
    assert "--similarity" not in text
    assert len(text.splitlines()) <= 45  # a screen
    assert run("run", "graph", "--help-all") == 0
    text = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')} " in text for name in GraphConfig.model_fields)
    assert run("bench", "--help") == 0


def test_the_first_minutes(tmp_path, capsys, quick_figures):
    assert run() == 0
    text = capsys.readouterr().out
    assert text.startswith("Three things to do")
    assert {"demo", "list", "run"} <= set(text.split())
    assert run("--version") == 0
    assert capsys.readouterr().out == f"ssa-theory {metadata.version('ssa-theory')}\n"
    assert run("demo", "--out", tmp_path) == 0
    picture = tmp_path / "graph@demo" / "figure.png"
    assert picture.is_file()
    assert capsys.readouterr().out.endswith(f"picture: {picture}\n")
    with xr.open_dataset(picture.with_name("result.nc")) as result:
        assert result.sizes["node"] == 34


BAD = [
    (
        ("frobnicate",),
        "unknown command 'frobnicate': choose one of demo, list, mechanisms, run, plot, claims, verify, bench",
    ),
    (("run",), "no experiment was named: choose from graph"),
    (("run", "grpah"), "unknown experiment 'grpah', did you mean graph? choose from graph"),
    (("rnu", "graph"), "unknown command 'rnu', did you mean run? choose one of demo"),
    (("run", "graph", "--preset", "huge"), "invalid choice 'huge'"),
    (("run", "graph", "--mechanisms", "sa"), "unknown mechanism 'sa'"),
    (("run", "graph", "--sedes", "3"), "Unrecognized options"),
    (("run", "graph", "--dim", "0"), "dim must be greater than or equal to 1, got 0: change --dim"),
    (("run", "graph", "--workers", "0"), "the number of workers must lie between 1 and"),
    (("claims", "--against", "{tmp}", "--json"), "json does not apply to against"),
    (("run", "graph", "--dim", "four"), "invalid literal for int()"),
    (
        ("run", "norms", "--learning-rates", "nan", "nan"),
        "must be a finite number, got nan: change --learning-rates; learning_rates.1 must",
    ),
    (
        ("run", "graph", "--family", "letters", "--nodes", "4"),
        "nodes applies only to family graded, erdos-renyi",
    ),
    (
        ("run", "graph", "--family", "letters", "--text-file", "{tmp}/none.txt"),
        "cannot read the text file",
    ),
    (
        ("run", "graph", "--family", "letters", "--text-file", "{tmp}/empty.txt"),
        "a text needs at least 2 different symbols",
    ),
    (
        ("run", "graph", "--family", "letters", "--text-file", "{tmp}/a.txt"),
        "a text needs at least 2 different symbols",
    ),
    (
        ("run", "graph", "--family", "file", "--graph-file", "{tmp}/none.graphml"),
        "cannot read the graph file",
    ),
    (("run", "graph", "--family", "file", "--graph-file", "{tmp}/bad.graphml"), "is malformed"),
    (
        ("run", "graph", "--family", "file", "--graph-file", "{tmp}/bad.txt"),
        "as weight (--weight)",
    ),
    (
        ("run", "graph", "--family", "file", "--graph-file", "{tmp}/sink.txt", "--directed"),
        "has 1 nodes that lead nowhere, such as b: set sinks (--sinks)",
    ),
    (
        ("run", "graph", "--family", "file", "--graph-file", "{tmp}/negative.txt"),
        "has 1 negative weight(s), such as -1 from a to b",
    ),
    (
        ("run", "graph", "--family", "file", "--graph-file", "{tmp}/nan.txt"),
        "must be finite, got nan",
    ),
    (
        (
            "run",
            "graph",
            "--family",
            "file",
            "--graph-file",
            "{tmp}/split.txt",
            "--row-weights",
            "stationary",
        ),
        "no unique stationary distribution",
    ),
    (("run", "twins", "--angles", "0.1", "3"), "angles must lie in (0, pi/2] radians"),
    (("run", "graph", "--device", "cuda"), "torch sees no CUDA device"),
    (("run", "graph", "--out", "{tmp}/a.txt/x"), "cannot write results to"),
    (("plot", "graph", "--out", "{tmp}"), "damaged or truncated"),
    (("plot", "twins", "--out", "{tmp}"), "there is no stored result"),
    (("claims", "--out", "{tmp}"), "redraw them with `ssa-theory plot graph`"),
    (("claims", "--out", "{tmp}/none"), "there are no stored claims in"),
    (("claims", "extrapolat"), "unknown topic 'extrapolat': choose one of extrapolation"),
    (("claims", "error", "nrom", "--json"), "unknown topic 'nrom': choose one of norm"),
    (("claims", "--sedes", "3"), "Unrecognized options"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input_is_one_sentence_and_loses_nothing(
    tmp_path, capsys, monkeypatch, arguments, message
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    files = {
        "a.txt": "aaaa",
        "empty.txt": "",
        "bad.graphml": "<graphml><node",
        "bad.txt": "a b c d\n",
        "sink.txt": "a b\n",
        "negative.txt": "a b -1\nb a\n",
        "nan.txt": "a b nan\nb a\n",
        "split.txt": "a b\nb a\nc d\nd c\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph" / "result.nc").write_bytes(b"\x89HDF truncated")
    filled = [a.replace("{tmp}", str(tmp_path)) for a in arguments]
    if arguments[0] == "run" and "--out" not in arguments:
        filled += ["--out", str(tmp_path)]
    assert run(*filled) == 2
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in error
    assert "Traceback" not in error
    assert (tmp_path / "graph" / "result.nc").read_bytes() == b"\x89HDF truncated"


def test_interruption_keeps_finished_work(tmp_path, capsys, monkeypatch, quick_figures):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("analysis.experiments.settings.train_cells", interrupt)
    assert run("run", "graph", "twins", *TINY, "--out", tmp_path) == 130
    assert "run the same command to go on" in capsys.readouterr().err
    assert (tmp_path / "graph" / "result.nc").is_file()
    assert not (tmp_path / "twins" / "result.nc").exists()


def test_the_installed_command_starts():
    command = [sys.executable, "-m", "analysis.cli", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("ssa-theory: unknown command 'nothing'")


@pytest.mark.parametrize("arguments", [["list"], ["--help"]])
def test_output_that_nobody_reads_needs_no_words(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "analysis.cli", *arguments]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
