"""Every notebook runs top to bottom, and its stored .ipynb was made from its percent source and
executed.
"""

from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

SOURCES = sorted((Path(__file__).parent.parent / "notebooks").glob("[0-9]*.py"))


def test_there_are_notebooks():
    assert SOURCES


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_notebook_runs(source, tmp_path):
    notebook = jupytext.read(source)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": tmp_path}}).execute()
    stored = jupytext.read(source.with_suffix(".ipynb"))
    assert [c.source for c in stored.cells] == [c.source for c in notebook.cells]
    code = [c for c in stored.cells if c.cell_type == "code"]
    assert all(c.execution_count for c in code)
    assert any(c.outputs for c in code)
