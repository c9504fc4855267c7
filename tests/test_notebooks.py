"""Every notebook runs top to bottom, and its stored .ipynb was made from its percent source and
executed.
"""

from pathlib import Path
from typing import Any

import jupytext
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

SOURCES = sorted((Path(__file__).parent.parent / "notebooks").glob("[0-9]*.py"))


def test_there_are_notebooks():
    assert SOURCES


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The cells of each notebook, run by one kernel, which takes seconds to start: each begins in a
    folder of its own, and knows no name of those before it.
    """
    parts = {source.stem: jupytext.read(source).cells for source in SOURCES}
    kernel = NotebookClient(new_notebook(), timeout=120, allow_errors=True)
    folders = {name: str(tmp_path_factory.mktemp(name)) for name in parts}
    for name, cells in parts.items():
        fresh = new_code_cell(f"%reset -f\nimport os\nos.chdir({folders[name]!r})\ndel os")
        kernel.nb.cells += [fresh, *cells]
    kernel.execute()
    return parts


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_notebook_runs(source: Path, executed: dict[str, list[Any]]):
    cells = executed[source.stem]
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    said = [output for cell in code for output in cell.outputs]
    assert not [output.evalue for output in said if output.output_type == "error"]
    stored = jupytext.read(source.with_suffix(".ipynb"))
    assert [cell.source for cell in stored.cells] == [cell.source for cell in cells]
    shown = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in shown)
    assert any(cell.outputs for cell in shown)
