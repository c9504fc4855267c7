"""Every public name has an example in its docstring, and every example is right."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PUBLIC = ("ssa_theory", "tasks", "analysis.problems")
SHOWN_BY = {
    "Trained": "train",
    "Tokens": "Inputs",
    "Fitted": "fit",
    "train_all": "compare",
    "Bigrams": "bigrams",
    "Corpus": "corpus",
    "GraphFacts": "connected_graphs",
    "GraphFile": "read_graph",
    "Block": "fit",
    "Problem": "GraphProblem",
    "RetrievalProblem": "GraphProblem",
}
"""What is seen in the example of another."""
MODULES = [
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
    for package in ("ssa_theory", "analysis")  # those of tasks are collected by pytest
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_has_an_example(package):
    module = importlib.import_module(package)
    bare = []
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            other = getattr(module, SHOWN_BY.get(name, name))
            if ">>> " not in (inspect.getdoc(other) or ""):
                bare.append(name)
    assert not bare


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_right(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried > 0
    assert not failed
