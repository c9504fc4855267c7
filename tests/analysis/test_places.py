"""Nothing that is stored is overwritten by a run of other data or settings, and the ledger takes only
what is declared.
"""

import pytest
import xarray as xr

from analysis.cli import main
from analysis.experiments.graph import GRAPH, GraphConfig
from analysis.report.report import read_stored
from analysis.run.places import make_way, place_of
from analysis.store.results import save

TINY = ["--preset", "smoke", "--seeds", "2", "--steps", "2", "--control-steps", "0"]


def store(config: GraphConfig, out, place="graph"):
    """A file that stands for the result of a run."""
    folder = out / place
    folder.mkdir(parents=True)
    attrs = {"experiment": "graph", "config": config.model_dump_json(), "format": 2}
    save(
        xr.Dataset({"x": ((), 1.0, {"description": "a number"})}, attrs=attrs), folder / "result.nc"
    )
    return (folder / "result.nc").read_bytes()


@pytest.mark.parametrize(
    ("stored", "new", "place"),
    [
        (None, {"dim": 5}, "graph"),
        ({"dim": 5}, {"dim": 5}, "graph"),
        ({"dim": 5}, {"dim": 5, "device": "cpu", "compile": "off"}, "graph"),
        ({"dim": 5}, {"dim": 6}, "graph@dim=6"),
        ({"seeds": 128}, {"family": "karate-club", "seeds": 4}, "graph@seeds=4,family=karate-club"),
        ({"seeds": 128}, {"seeds": 4, "steps": 60, "control_steps": 120},
         "graph@seeds=4,steps=60,control_steps=120"),  # smoke after paper
        ({"seeds": 4, "steps": 60, "control_steps": 120}, {"seeds": 128}, "graph"),
        ({"dim": 5}, {"seeds": 128}, "graph"),  # a preset after something else
    ],
)  # fmt: skip
def test_where_a_run_goes(tmp_path, stored, new, place):
    if stored is not None:
        store(GraphConfig(**stored), tmp_path)
    assert place_of(GRAPH, GraphConfig(**new), tmp_path) == place


def test_a_file_in_any_folder_gives_a_name_of_a_folder(tmp_path):
    store(GraphConfig(), tmp_path)
    config = GraphConfig(family="file", graph_file=tmp_path / "deep" / "my $ graph.gml")
    assert place_of(GRAPH, config, tmp_path) == "graph@family=file,graph_file=my___graph"
    long = GraphConfig(family="file", graph_file=tmp_path / ("x" * 200))
    name = place_of(GRAPH, long, tmp_path)
    assert len(name) == len("graph@") + 60
    other = GraphConfig(family="file", graph_file=tmp_path / ("x" * 199 + "y"))
    assert place_of(GRAPH, other, tmp_path) != name


def test_a_result_of_no_preset_makes_way_and_is_kept(tmp_path):
    kept = []
    for dim in (5, 6):
        kept.append(store(GraphConfig(dim=dim, seeds=2), tmp_path))
        way = make_way(GRAPH, GRAPH.preset("paper"), tmp_path)
        assert way == tmp_path / f"graph@seeds=2,dim={dim}"
        assert (way / "result.nc").read_bytes() == kept[-1]
    store(GraphConfig(dim=5, seeds=2), tmp_path)
    way = make_way(GRAPH, GRAPH.preset("paper"), tmp_path)
    assert way == tmp_path / "graph@seeds=2,dim=5-2"
    assert make_way(GRAPH, GRAPH.preset("paper"), tmp_path) is None
    store(GRAPH.preset("paper"), tmp_path)
    assert make_way(GRAPH, GRAPH.preset("paper"), tmp_path) is None


def test_what_is_stored_stays_and_the_ledger_says_what_it_left_out(tmp_path, capsys, quick_figures):
    out = ["--out", str(tmp_path)]
    assert main(["run", "graph", *TINY, *out]) == 0
    first = tmp_path / "graph" / "result.nc"
    before = first.read_bytes()
    edges = tmp_path / "mine.edges"
    edges.write_text("a b\nb c\nc a\na c\n")
    flags = ["--family", "file", "--graph-file", str(edges), "--directed"]
    capsys.readouterr()
    for _ in range(2):
        assert main(["run", "graph", *TINY, *flags, *out]) == 0
        said = capsys.readouterr().out
        place = "graph@family=file,graph_file=mine,directed=True"
        assert f"{first.parent} holds a result of other data or settings and stays" in said
        assert f"this run goes to {tmp_path / place}" in said
    assert "unchanged, not run again" in said
    assert first.read_bytes() == before
    assert main(["run", "graph", *TINY, *flags, *out, "--name", "mine"]) == 0
    assert (tmp_path / "graph@mine" / "result.nc").is_file()
    assert main(["plot", "graph", "--name", "mine", *out]) == 0
    capsys.readouterr()
    assert main(["claims", *out]) == 0
    said = capsys.readouterr().out
    for left in (place, "graph@mine"):
        assert f"{left}: left out, as a run of its own data or settings" in said


def test_a_users_graph_stands_outside_of_every_scope(tmp_path, quick_figures):
    edges = tmp_path / "mine.edges"
    edges.write_text("a b\nb c\nc a\na c\n")
    flags = ["--family", "file", "--graph-file", str(edges), "--directed"]
    assert main(["run", "graph", *TINY, *flags, "--out", str(tmp_path)]) == 0
    found, (section,) = read_stored({"graph": GRAPH}, tmp_path)
    assert not section.evidence.declared
    assert found.entry("error-on-cases").outside
    assert not any(entry.tests for entry in found.entries)


@pytest.mark.parametrize("name", ["a/b", "..\\x", "a b", "\n"])
def test_a_name_is_that_of_a_folder(tmp_path, name):
    with pytest.raises(ValueError, match="name must be made of letters, digits and"):
        place_of(GRAPH, GraphConfig(), tmp_path, name)
