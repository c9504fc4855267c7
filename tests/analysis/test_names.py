"""Names in figures: literal, in fonts that have them, and never a reason to lose a result."""

import json
import re

import networkx as nx
import numpy as np
import pytest
import xarray as xr
from matplotlib import font_manager
from matplotlib.text import Text

from analysis.cli import main
from analysis.draw.figures import save_figure
from analysis.draw.names import Names, drawable
from analysis.experiments.base import silent
from analysis.experiments.graph import GRAPH, GraphConfig
from analysis.experiments.graph.figure import largest_of_blocks

HOSTILE = [
    "$", "A$$", "x^2_i", "$\\frac{1}{2}$", "\\alpha", "a\0b", "two\nlines", "שלום", "العربية",
    "\u202eturned", "한국어", "日本", "e\u0301", "\U0001f600", "\ud800", "", " ", "#", "%", "&<>\"'", "x" * 10_000,
]  # fmt: skip
TINY = ["--preset", "smoke", "--seeds", "2", "--steps", "2", "--control-steps", "0"]


def small(nodes: int = 8) -> xr.Dataset:
    config = GraphConfig(seeds=2, steps=2, control_steps=0, nodes=nodes, learning_rates=(0.05,))
    return GRAPH.run(config, silent)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has no fonts but matplotlib's own."""
    from analysis.draw.names import _families

    own = [f for f in font_manager.fontManager.ttflist if f.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    _families.cache_clear()
    yield
    _families.cache_clear()


def test_any_names_go_from_file_to_figure(tmp_path, capfd, bare):
    """Every warning of a library is an error in the tests."""
    names = [name for name in HOSTILE if name]
    path = tmp_path / "$odd^_\U0001f600日.json"
    nodes = [{"id": i, "label": name} for i, name in enumerate(names)]
    links = [{"source": i, "target": (i + 1) % len(names)} for i in range(len(names))]
    path.write_text(json.dumps({"directed": True, "nodes": nodes, "links": links}))
    out = tmp_path / "out"
    arguments = ["--family", "file", "--graph-file", str(path), "--out", str(out)]
    assert main(["run", "graph", *TINY, *arguments]) == 0
    said = capfd.readouterr()
    assert "control characters in 4 names are shown as pictures" in said.out
    assert said.err.strip() == ""
    with xr.open_dataset(out / "graph" / "result.nc") as result:
        stored = result["node"].values.tolist()
    assert stored[names.index("a\0b")] == "a\u2400b"
    assert "x" * 10_000 in stored
    assert stored[names.index("A$$")] == "A$$"


def test_names_are_drawn_as_they_are(bare, tmp_path):
    result = small(len(HOSTILE))
    from tasks.labels import storable

    names = list(storable(HOSTILE))
    result = result.assign_coords(node=names, next=names)
    figure = GRAPH.plot(result)
    save_figure(figure, tmp_path)
    shown = Names(names).shown
    assert shown[names.index("한국어")] == f"#{names.index('한국어')}"
    assert {"$", "A$$", "x^2_i", "\\alpha", "שלום", "e\u0301"} <= set(shown)
    texts = [t for t in figure.findobj(Text) if t.get_text() in shown and t.get_text()]
    assert len(texts) >= 3 * (len(names) - 2)
    for text in texts:
        if "$" in text.get_text() or "^" in text.get_text():
            assert not text.get_parse_math()
    notice = "names with letters that no font here has are shown as # and their place"
    assert figure.get_suptitle().count(notice) == 1


def test_a_name_is_cut_between_letters_and_not_before_their_marks():
    (shown,) = Names(["x" * 18 + "e\u0301" + "y" * 9]).shown
    assert shown == "x" * 18 + "\u2026"
    assert Names(["y" * 20]).shown == ["y" * 20]


def test_letters_without_a_font_have_a_stand_in(bare):
    assert drawable("a日\nb") == "a\ufffd\ufffdb"


def test_a_font_that_has_the_letters_is_used():
    from analysis.draw import names as module

    letter = "\u2312"  # in DejaVu Sans Mono
    module._families.cache_clear()
    names = Names([letter])
    assert names.shown == [letter]
    assert names.families[0] == "DejaVu Sans"
    assert len(names.families) == 2
    assert names.notice == ""
    assert Names(["\U0010fffd"]).shown == ["#0"]  # which only the font of last resort has


def test_a_figure_that_fails_keeps_the_result(tmp_path, capsys, monkeypatch, quick_figures):
    def broken(figure: object, folder: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr("analysis.run.runner.save_figure", broken)
    assert main(["run", "graph", *TINY, "--out", str(tmp_path)]) == 2
    path = tmp_path / "graph" / "result.nc"
    said = capsys.readouterr().err
    assert f"the result is trained and kept in {path}, but" in said
    assert path.is_file()


def test_a_large_graph_is_drawn_in_part_and_says_so(monkeypatch):
    sizes = []
    layout = nx.kamada_kawai_layout
    monkeypatch.setattr(
        nx, "kamada_kawai_layout", lambda g, **k: sizes.append(len(g)) or layout(g, **k)
    )
    figure = GRAPH.plot(small(401))
    assert sizes == [100]
    titles = [ax.get_title() for ax in figure.axes]
    assert "(a) the 100 nodes most led to, of 401" in titles
    labels = [ax.get_xlabel() for ax in figure.axes]
    assert labels.count("next node, by community (the largest of each 2 x 2)") == 3


def test_blocks_keep_the_largest_entry():
    matrix = np.random.default_rng(0).random((1001, 1001))
    shown, block = largest_of_blocks(matrix)
    assert (block, shown.shape) == (3, (334, 334))
    for i, j in ((0, 0), (17, 200), (333, 333), (333, 2)):
        assert shown[i, j] == matrix[3 * i : 3 * i + 3, 3 * j : 3 * j + 3].max()
    small_one = matrix[:400, :400]
    assert largest_of_blocks(small_one)[0] is small_one


def test_a_long_run_is_told_before(capsys):
    config = GraphConfig(nodes=500, family="small-world", steps=2000, seeds=8)
    (told,) = config.notes()
    assert re.match(r"this will take about \d+ hours on one core, and [\d.]+ GiB", told)
    assert GraphConfig(seeds=4, steps=60).notes() == []
