"""The project as a library: what a program holds goes in, and labelled arrays come out."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

from analysis.cli import main
from analysis.experiments import EXPERIMENTS, PLACES
from analysis.problems import GraphProblem, compare
from analysis.store.results import load
from tasks import MarkovGraphTask

WALK = pd.crosstab(["a", "a", "a", "b", "c"], ["b", "c", "c", "a", "b"], normalize="index")


@pytest.mark.parametrize(
    "matrix",
    [
        WALK,
        WALK.astype("float32"),
        WALK.to_numpy("float16"),
        torch.tensor(WALK.to_numpy(), dtype=torch.float32),
        WALK.to_numpy().tolist(),
    ],
    ids=["table", "float32 table", "float16", "tensor", "lists"],
)
def test_a_matrix_may_be_held_in_any_way(matrix):
    task = MarkovGraphTask.from_matrix(matrix)
    assert task.transition_matrix.dtype == np.float64
    assert task.transition_matrix == pytest.approx(WALK.to_numpy(), abs=1e-3)
    assert task.transition_matrix.sum(1) == pytest.approx(np.ones(3), abs=1e-15)
    assert task.labels == (("a", "b", "c") if hasattr(matrix, "columns") else ("0", "1", "2"))


@pytest.mark.parametrize(
    ("matrix", "sentence"),
    [
        (WALK[["b", "a", "c"]], "must have the same names in the same order"),
        (WALK.to_numpy("float32") * 1.001, "must sum to 1, but row 0 sums to 1.001"),
        (WALK.to_numpy() + np.eye(3) * 1e-7, "must sum to 1, but row [012] sums to 1.0000001:"),
    ],
    ids=["order", "float32", "float64"],
)
def test_a_matrix_that_is_no_chain_is_refused(matrix, sentence):
    with pytest.raises(ValueError, match=sentence):
        MarkovGraphTask.from_matrix(matrix)


def test_a_graph_of_a_program_trains_and_its_models_come_back():
    graph = nx.relabel_nodes(nx.cycle_graph(5), dict(enumerate("vwxyz")))
    settings = {"seeds": 3, "steps": 4, "dtype": "float64", "compile": False}
    given = {"graph": graph, "task": MarkovGraphTask.from_graph(graph)}
    found = {
        name: compare(GraphProblem(graph=one, dim=3), ["vanilla", "ssa"], **settings)
        for name, one in given.items()
    }
    result = found["graph"]
    assert result.identical(found["task"])
    assert result["node"].values.tolist() == list("vwxyz")
    assert all(v.attrs["description"] for v in result.variables.values())
    for seed in range(3):
        one = result.isel(seed=seed)
        e = one["embedding"].values
        for name in ("vanilla", "ssa"):
            tau = one["inverse_temperature"].sel(mechanism=name).values[:, None]
            rows = np.exp(tau * (e @ one[f"{name}.weight"].values @ e.T))
            rows /= rows.sum(1, keepdims=True)
            learned = one["learned_transition_matrix"].sel(mechanism=name).values
            assert rows == pytest.approx(learned, abs=1e-12)


@pytest.mark.parametrize(
    ("problem", "settings", "sentence"),
    [
        ({}, {"seeds": 0}, "seeds must be greater than or equal to 1, got 0: change seeds"),
        ({}, {"steps": 1.5}, "the number of steps must be whole, got 1.5"),
        ({}, {"learning_rate": 0}, "learning_rate must be one positive and finite number, got 0:"),
        (
            {},
            {"learning_rate": (0.1, 0.2)},
            "learning_rate must be one .* got \\(0.1, 0.2\\): change",
        ),
        ({}, {"dtype": "float16"}, "dtype must be 'float32' or 'float64', got 'float16'"),
        ({}, {"mechanisms": "ssa"}, "mechanisms must be a list, got 'ssa'"),
        ({"context": "prompts"}, {}, "context must be one of vocabulary, prompt, got 'prompts'"),
        (
            {"graph": WALK},
            {},
            "graph must be one of networkx or a task, got DataFrame: make a task",
        ),
        ({"graph": "a.gml"}, {}, "graph must be one of networkx or a task, got str: make a task"),
        ({"graph_file": "a.gml"}, {}, "graph_file is not read by family graded, .* family to file"),
        ({"text_file": "a.txt"}, {}, "text_file is not read by family graded, got 'a.txt': drop"),
        ({"nodes": 4, "family": "letters"}, {}, "nodes is not read by family letters, got 4: drop"),
        ({"mean_degree": 2.0}, {}, "mean_degree is not read by family graded, got 2.0: drop"),
        ({"family": "grid"}, {}, "family must be one of graded, erdos-renyi, .* got 'grid'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_an_error_names_the_argument(problem, settings, sentence):
    given = {"mechanisms": ["vanilla"], "seeds": 1, "steps": 1} | settings
    with pytest.raises(ValueError, match=f"^{sentence}") as error:
        compare(GraphProblem(**problem), given.pop("mechanisms"), **given)
    assert "--" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rows", ["uniform", "stationary"])
def test_a_token_carries_its_log_frequency_whatever_rows_weigh(rows):
    problem = GraphProblem(nodes=6, row_weights=rows, log_frequency=True)
    tasks = problem.tasks([0, 1])
    inputs, *_ = problem.upload(tasks, [0, 1], torch.device("cpu"))
    frequency = np.stack([task.stationary_distribution for task in tasks], 1)
    assert inputs.query.feature.softmax(0).numpy() == pytest.approx(frequency, rel=1e-9)


OWN = """
import xarray as xr
from analysis.draw.figures import new_figure
from analysis.experiments.base import Experiment
from analysis.store.config import SeededConfig

class VotesConfig(SeededConfig):
    "Votes."

def train(config, progress):
    return xr.Dataset({"x": ("seed", [float(s) for s in config.seed_range])})

def draw(config, result):
    figure = new_figure(2.0, 2.0)
    figure.subplots().plot(result["x"].values)
    return figure

VOTES = Experiment(NAME, "Who wins?", "Votes.", VotesConfig, train, draw, lambda *_: [])
"""


def test_the_shell_takes_an_experiment_from_a_file(tmp_path, monkeypatch, capsys, quick_figures):
    monkeypatch.setattr(EXPERIMENTS, "data", dict(EXPERIMENTS.data))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "votes.py").write_text(OWN.replace("NAME", "'votes'"))
    (tmp_path / "taken.py").write_text(OWN.replace("NAME", "'graph'"))
    (tmp_path / "above.py").write_text(OWN.replace("NAME", "'../votes'"))
    for again in ("run in", "unchanged, not run again"):
        assert main(["run", "./votes.py:VOTES", "--seeds", "3", "--out", "out"]) == 0
        assert again in capsys.readouterr().out
    assert load(tmp_path / "out/votes/result.nc")["x"].values.tolist() == [0, 1, 2]
    page = (tmp_path / "out/index.html").read_text()
    assert "ssa-theory run ./votes.py:VOTES --preset paper --seeds 3" in page
    assert main(["plot", "./votes.py:VOTES", "--out", "out"]) == 0
    assert "votes: redrawn in out/votes" in capsys.readouterr().out
    assert set(EXPERIMENTS) == {*PLACES, "./votes.py:VOTES"}
    capsys.readouterr()
    for name, sentence in (
        ("./taken.py:VOTES", "the experiment VOTES of taken.py has the name of another, 'graph'"),
        ("./above.py:VOTES", "must be made of letters, digits and . _ + = , -, got '../votes'"),
        ("./votes.py:VOTE", "has no Experiment named 'VOTE' (it holds VOTES): name one"),
    ):
        assert main(["run", name]) == 2
        assert sentence in capsys.readouterr().err
