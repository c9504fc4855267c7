"""Graph files in the dialects of the programs that write them: tests/data/graphs, with the law of
each in expected.toml, worked out by hand.
"""

import json
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import GraphReading, MarkovGraphTask, read_graph
from tasks.graph_files import FORMATS
from tests.stress.fuzz_files import one

FOLDER = Path(__file__).parents[1] / "data" / "graphs"
EXPECTED = tomllib.loads((FOLDER / "expected.toml").read_text(encoding="utf-8"))
LAWS = {
    name: np.array([[float(Fraction(x)) for x in row.split()] for row in rows])
    for name, rows in EXPECTED["laws"].items()
}
FILES: dict[str, dict[str, Any]] = EXPECTED["files"]
GOOD = {name: about for name, about in FILES.items() if "law" in about}
BAD = {name: about for name, about in FILES.items() if "error" in about}


def test_the_table_is_of_the_files() -> None:
    there = {p.name for p in FOLDER.iterdir()} - {"expected.toml"}
    assert set(FILES) == there == set(GOOD) | set(BAD)
    assert len(FILES) >= 150
    assert not set(GOOD) & set(BAD)


@pytest.mark.parametrize("name", GOOD)
def test_a_file_gives_its_law(name: str) -> None:
    about = GOOD[name]
    read = read_graph(FOLDER / name, GraphReading(**about.get("reading", {})))
    task = MarkovGraphTask.from_graph(read.graph)
    assert sorted(task.labels) == sorted(about["nodes"])
    order = [task.labels.index(node) for node in about["nodes"]]
    law = task.transition_matrix[np.ix_(order, order)]
    np.testing.assert_allclose(law, LAWS[about["law"]], rtol=1e-12, atol=0)
    assert read.understood.startswith(f"{name}: ")
    assert "\n" not in read.understood
    for words in about.get("says", ()):
        assert words in read.understood


@pytest.mark.parametrize("name", BAD)
def test_a_file_is_refused_in_one_sentence(name: str) -> None:
    about = BAD[name]
    with pytest.raises(ValueError) as caught:
        read_graph(FOLDER / name, GraphReading(**about.get("reading", {})))
    sentence = str(caught.value)
    assert about["error"] in sentence
    assert sentence.count(name) == 1
    assert "\n" not in sentence
    assert len(sentence) < 500


def test_every_format_is_in_the_corpus() -> None:
    said = {
        read_graph(FOLDER / name, GraphReading(**about.get("reading", {}))).understood
        for name, about in GOOD.items()
    }
    for form in FORMATS.values():
        assert any(f": {form.title}, " in sentence for sentence in said), form.title


@given(
    st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=20),
    st.booleans(),
    st.sampled_from(["graphml", "gml", "gexf", "pajek", "edges", "json"]),
    st.integers(0, 2**32),
)
def test_what_networkx_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    pairs: set[tuple[int, int]],
    directed: bool,
    form: str,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    graph = nx.DiGraph() if directed else nx.Graph()
    graph.add_edges_from((i, (i + 1) % 6) for i in range(6))
    graph.add_edges_from(pairs)
    nx.set_edge_attributes(graph, {e: float(rng.uniform(0.1, 5)) for e in graph.edges()}, "weight")
    path = tmp_path_factory.mktemp("graphs") / f"graph.{form}"
    if form == "json":
        path.write_text(json.dumps(nx.node_link_data(graph, edges="links")))
    elif form == "edges":
        nx.write_weighted_edgelist(graph, path)
    else:
        {
            "graphml": nx.write_graphml,
            "gml": nx.write_gml,
            "gexf": nx.write_gexf,
            "pajek": nx.write_pajek,
        }[form](graph, path)
    told = GraphReading(directed=directed, undirected=not directed) if form == "edges" else None
    read = MarkovGraphTask.from_file(path, told or GraphReading())
    direct = MarkovGraphTask.from_graph(graph)
    assert sorted(read.labels) == list("012345")
    order = [read.labels.index(label) for label in direct.labels]
    np.testing.assert_allclose(
        read.transition_matrix[np.ix_(order, order)], direct.transition_matrix, rtol=1e-12
    )


@pytest.mark.parametrize("name", ["gone.txt", "gone.graphml", ""])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"cannot read the graph file .* give an existing file"):
        read_graph(tmp_path / name)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"directed": True, "undirected": True}, "both are set: drop one"),
        (
            {"sinks": "dropp"},
            "^sinks must be one of error, drop, self-loop, got 'dropp': choose one",
        ),
        ({"negative": True}, "^negative must be one of error, absolute, got True: choose one"),
        ({"graph_format": "excel"}, "unknown graph format 'excel': choose one of graphml, gexf"),
    ],
)
def test_bad_settings(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_graph(FOLDER / "tail.edges", GraphReading(**arguments))


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "graph.edges"
    path.write_text("a b\nb a\n")
    assert len(read_graph(path).graph) == 2
    path.write_text("a b\nb c\nc a\n")
    assert len(read_graph(path, GraphReading(directed=True)).graph) == 3


def test_too_many_nodes_are_refused_at_once(tmp_path: Path) -> None:
    for name, text in {
        "many.net": "*Vertices 99999999999\n*Edges\n1 2\n",
        "many.dl": "dl n=99999999999 format=edgelist1\ndata:\n1 2\n",
        "many.mtx": "%%MatrixMarket matrix coordinate real general\n9999999 9999999 0\n",
    }.items():
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(ValueError, match=r"names 9+ nodes, above 1048576: take a part"):
            read_graph(path)
    path = tmp_path / "ring.edges"
    path.write_text("".join(f"{i} {(i + 1) % 20000}\n" for i in range(20000)))
    with pytest.raises(ValueError, match=r"has 20000 nodes, and P. is a matrix of at most 16384"):
        read_graph(path, GraphReading(directed=True))


def test_damaged_files_end_in_one_sentence(tmp_path: Path) -> None:
    """A short version of tests/stress/fuzz_files.py."""
    outcomes = [one(number, 1, tmp_path) for number in range(60)]
    assert {"read", "refused", "same"} == set(outcomes)
