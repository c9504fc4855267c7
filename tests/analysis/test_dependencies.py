"""What a result depends on: the definitions that its code leads to, found in the source, whatever
files they are in.
"""

import importlib.util
import shutil
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import FunctionType

import pytest

from analysis.experiments import EXPERIMENTS, PLACES
from analysis.experiments.graph import GRAPH
from analysis.store.config import SeededConfig, TrainingConfig
from analysis.store.dependencies import (
    PACKAGES,
    Definition,
    Project,
    _place,
    code_digest,
    definitions,
    outside_files,
)

ROOT = Path(__file__).parents[2]


def write(root: Path, files: dict[str, str]) -> Project:
    """A small project with these files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Project(root, ("p",))


def reached(
    root: Path, files: dict[str, str], start: str = "start", module: str = "p.a"
) -> set[str]:
    """The definitions that `start` leads to, as module.name; `module.` for the other statements."""
    found = write(root, {"p/__init__.py": "", **files}).closure([Definition(module, start)])
    return {f"{d.module}.{d.name}" for d in found}


# The language


@pytest.mark.parametrize(
    ("a", "others"),
    [
        ("from p.b import f\ndef start(): return f()", {"p.b.f", "p.b.LIMIT"}),
        ("from p.b import f as g\ndef start(): return g()", {"p.b.f", "p.b.LIMIT"}),
        ("import p.b\ndef start(): return p.b.f()", {"p.b.f", "p.b.LIMIT"}),
        ("import p.b as b\ndef start(): return b.f()", {"p.b.f", "p.b.LIMIT"}),
        ("from p import b\ndef start(): return b.f()", {"p.b.f", "p.b.LIMIT"}),
        ("from . import b\ndef start(): return b.f()", {"p.b.f", "p.b.LIMIT"}),
        ("from .b import f\ndef start(): return f()", {"p.b.f", "p.b.LIMIT"}),
        ("from p.c import f\ndef start(): return f()", {"p.b.f", "p.b.LIMIT"}),  # handed on
        ("from p.d import f\ndef start(): return f()", {"p.b.f", "p.b.LIMIT"}),  # with a star
        ("def start():\n    from p.b import f\n    return f()", {"p.b.f", "p.b.LIMIT"}),
        ("def start():\n    import p.b as b\n    return b.f()", {"p.b.f", "p.b.LIMIT"}),
        (
            (
                "try:\n    from p.b import f\nexcept ImportError:\n    f = None\ndef start():"
                " return f()"
            ),
            {"p.a.", "p.b.f"},
        ),
        ("from p import b\ndef start(): return b", {"p.b.*"}),  # who knows what of it is used
        ("from p import b\ndef start(): return vars(b), b.f", {"p.b.*"}),
        (
            "from p import b\nclass start:\n    def m(): b = 1\n    def n(): return b.f",
            {"p.b.f", "p.b.LIMIT"},
        ),
        (
            "try:\n    from p import b\nexcept ImportError:\n    b = 1\ndef start(): return b.f()",
            {"p.a.", "p.b.*"},
        ),
        ("def start():\n    import p.b\n    return p.b.f()", {"p.b.f", "p.b.LIMIT"}),
        ("if 1:\n    from p.b import *\ndef start(): return f()", {"p.a.", "p.b.*"}),
        ("from p.b import unused\ndef start(): pass", set()),
        ("from p.b import f\n@f\ndef start(): pass", {"p.b.f", "p.b.LIMIT"}),
        ("from p.b import f\ndef start(x=f): pass", {"p.b.f", "p.b.LIMIT"}),
        ("from p.b import f\ndef start(x: f): pass", {"p.b.f", "p.b.LIMIT"}),
        ("from p.b import f\nclass start(f): pass", {"p.b.f", "p.b.LIMIT"}),
        (
            "from p.b import f\nclass start:\n    def m(self): return [f() for _ in self]",
            {"p.b.f", "p.b.LIMIT"},
        ),
        ("from p.b import f\ndef start(f): return f()", set()),  # a local name
        ("from p.b import f\ndef start():\n    f = 1\n    return lambda: f", set()),
        ("from p.b import LIMIT\nx, (start, *y) = LIMIT, (1, 2)", {"p.b.LIMIT"}),
        ("from p.b import LIMIT\nstart: int = LIMIT", {"p.b.LIMIT"}),
        ("from p.b import LIMIT\nstart = 1\nstart += LIMIT", {"p.b.LIMIT"}),
        ("from p.b import f\nf()\ndef start(): pass", {"p.a.", "p.b.f", "p.b.LIMIT"}),
        (
            "from p.b import f\nif f:\n    def g(): pass\ndef start(): pass",
            {"p.a.", "p.b.f", "p.b.LIMIT"},
        ),
        (
            "from p.b import f\nTABLE = {}\nTABLE[1] = f\ndef start(): pass",
            {"p.a.", "p.a.TABLE", "p.b.f", "p.b.LIMIT"},
        ),
        ("from p.e import g\ndef start(): return g", {"p.e."}),  # bound by a condition
        ("from p.f import g\ndef start(): return g", set()),  # bound by nobody
        ("import math\nfrom os import path\ndef start(): return math.pi, path, print", set()),
    ],
)
def test_names_lead_to_their_definitions(tmp_path: Path, a: str, others: set[str]) -> None:
    files = {
        "p/b.py": (
            "import math\nLIMIT = 5\ndef f(): return LIMIT\ndef unused(): return LIMIT,"
            " other()\ndef other(): pass\n"
        ),
        "p/c.py": "from p.b import f",
        "p/d.py": "from p.c import *",
        "p/e.py": "if 1:\n    g = 2\n",
        "p/f.py": "from p.g import g\n",
        "p/g.py": "from p.f import g\n",
    }
    found = reached(tmp_path, files | {"p/a.py": a}) - {"p.a.start"}
    assert others <= found
    assert found <= others | {"p.b.LIMIT", "p.b.f", "p.b.other"} if others else not found
    assert ("p.b.other" in found) == ("p.b.*" in others)


def test_the_packages_of_a_module_run_too(tmp_path: Path) -> None:
    files = {
        "p/__init__.py": "import p.b\np.b.f()",
        "p/b.py": "def f(): pass",
        "p/q/__init__.py": "print(1)",
    }
    assert reached(tmp_path, files | {"p/q/a.py": "def start(): pass"}, module="p.q.a") == {
        "p.",
        "p.b.f",
        "p.q.",
        "p.q.a.start",
    }


def test_a_digest_is_of_the_source_that_is_reached(tmp_path: Path) -> None:
    files = {
        "p/__init__.py": "",
        "p/a.py": (
            "'''Text.'''\nfrom p.b import f\n\n\n@f\ndef start():\n    '''Unicode line ends:\u2028,"
            " \x0c.'''\n    return 1"
        ),
        "p/b.py": "def f(g): return g\ndef other(): pass\n",
    }
    start = [Definition("p.a", "start")]

    def digest(**changed: str) -> str:
        return write(tmp_path, files | {f"p/{k}.py": v for k, v in changed.items()}).digest(start)

    plain = digest()
    assert (
        plain == digest() == digest(b=files["p/b.py"].replace("other(): pass", "other(): return 1"))
    )
    assert plain == digest(a=files["p/a.py"].replace("Text.", "Other text."))
    assert plain != digest(a=files["p/a.py"].replace("return 1", "return 2"))
    assert plain != digest(a=files["p/a.py"].replace("@f", "@f\n@f"))
    assert plain != digest(b=files["p/b.py"].replace("return g", "return g()"))
    assert plain != digest(b=files["p/b.py"] + "print(1)\n")
    with pytest.raises(
        ValueError,
        match=r"no top-level definition 'nobody' in module 'p\.a': name one that the source has",
    ):
        write(tmp_path, files).closure([Definition("p.a", "nobody")])


# This project


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    return root


def _digests(root: Path) -> list[tuple[str, str]]:
    project = Project(root)
    return [
        tuple(project.digest(map(_place, code)) for code in (e.data_code(), e.presentation_code()))
        for e in EXPERIMENTS.values()
    ]


_unchanged = cache(_digests)


def changed(root: Path, file: str, old: str, new: str) -> dict[str, tuple[bool, bool]]:
    """By experiment, whether an edit of the copied source changes the fingerprints of its data, and
    of its figure and claims.
    """
    path = root / file
    text = path.read_text()
    assert text.count(old) == 1
    before = _unchanged(root)
    path.write_text(text.replace(old, new))
    try:
        after = _digests(root)
    finally:
        path.write_text(text)
    pairs = zip(EXPERIMENTS, before, after, strict=True)
    return {name: (one[0] != other[0], one[1] != other[1]) for name, one, other in pairs}


def test_what_a_summary_takes_from_the_claims_is_part_of_the_data(copied: Path) -> None:
    definition = Definition("analysis.claims.bands", "ratio_band")
    using = [
        {name for name, e in EXPERIMENTS.items() if definition in definitions(*code(e))}
        for code in (lambda e: e.data_code(), lambda e: e.presentation_code())
    ]
    assert "convergence" in using[0] <= using[1] < set(EXPERIMENTS)
    found = changed(
        copied,
        "analysis/claims/bands.py",
        "    log = x.copy(data=log_ratio(x.values, y.values))\n",
        "    log = x.copy(data=log_ratio(y.values, x.values))\n",
    )
    assert [{name for name, one in found.items() if one[i]} for i in (0, 1)] == using


def test_how_claims_are_written_concerns_all_and_how_they_are_judged_none(copied: Path) -> None:
    """Verdicts are computed when claims are read."""
    found = changed(
        copied,
        "analysis/claims/builder.py",
        "        log = of.sign * ",
        "        log = -of.sign * ",
    )
    assert set(found.values()) == {(False, True)}
    found = changed(copied, "analysis/claims/rule.py", "MOST_LOST = 0.05", "MOST_LOST = 0.5")
    assert set(found.values()) == {(False, False)}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (
            "analysis/experiments/convergence/figure.py",
            '"""Draw a stored result',
            '"""Paint a stored result',
        ),
        (
            "analysis/experiments/convergence/claims.py",
            '_SETTINGS = {"control": "d = K"}',
            '_SETTINGS = {"control": "d >= K"}',
        ),
    ],
)
def test_figures_and_claims_are_made_again_without_training(
    copied: Path, file: str, old: str, new: str
) -> None:
    found = changed(copied, file, old, new)
    assert found.pop("convergence") == (False, True)
    assert not any(map(any, found.values()))


def test_how_a_figure_is_written_concerns_every_figure(copied: Path) -> None:
    found = changed(copied, "analysis/draw/figures.py", '"savefig.dpi": 160', '"savefig.dpi": 150')
    assert set(found.values()) == {(False, True)}
    found = changed(copied, "analysis/draw/figures.py", '"svg": {"Date": None}', '"svg": {}')
    assert set(found.values()) == {(False, True)}


def test_a_private_helper_behind_two_imports_counts(copied: Path) -> None:
    """graph -> tasks (which hands it on) -> tasks.embeddings -> its helper."""
    definition = Definition("tasks.embeddings", "_normalise")
    using = {name for name, e in EXPERIMENTS.items() if definition in definitions(*e.data_code())}
    assert {"graph", "phase"} <= using < set(EXPERIMENTS)
    text = (copied / "tasks/embeddings.py").read_text()
    line = next(line for line in text.splitlines() if line.startswith("def _normalise"))
    found = changed(copied, "tasks/embeddings.py", line, f"{line}\n    # changed")
    assert {name for name, (data, _) in found.items() if data} == using


def test_the_format_and_the_joining_of_blocks_concern_all(copied: Path) -> None:
    """Units are joined by their experiment."""
    other = changed(copied, "analysis/store/results.py", "FORMAT = 2", "FORMAT = 3")
    assert set(other.values()) == {(True, True)}
    joined = changed(copied, "analysis/experiments/base.py", 'join="exact"', 'join="inner"')
    units = {name for name in PLACES if EXPERIMENTS[name].units is not None}
    assert joined == {name: (name not in units,) * 2 for name in joined}
    assert len(units) < len(joined)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_data_depend_on_no_drawing(name: str) -> None:
    """Nor on judging, and on nothing that only does either; but on their training, which does the
    rest.
    """
    experiment = EXPERIMENTS[name]
    data, shown = (
        definitions(*code) for code in (experiment.data_code(), experiment.presentation_code())
    )
    assert data < shown
    assert {_place(f) for f in (experiment.draw, experiment.judge)} <= shown - data
    assert {_place(f) for f in (experiment.train, experiment.config)} <= data
    assert Definition("analysis.draw.figures", "new_figure") in shown - data
    assert Definition("analysis.claims.claim", "Claim") in shown - data
    if issubclass(experiment.config, SeededConfig):
        assert Definition("ssa_theory.seeds", "member_generator") in data
    if issubclass(experiment.config, TrainingConfig):
        assert {
            Definition(m, f)
            for m, f in (
                ("ssa_theory.ensemble", "train"),
                ("ssa_theory.steps", "step"),
                ("ssa_theory.device", "block_members"),
            )
        } <= data


def test_code_from_outside_counts_with_the_whole_project_and_its_file(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    digests = []
    for text in ("def train(config, progress): return 1", "def train(config, progress): return 2"):
        path.write_text(text)
        module = importlib.util.module_from_spec(
            spec := importlib.util.spec_from_file_location("own", path)
        )
        spec.loader.exec_module(module)
        digests.append(code_digest(*replace(GRAPH, train=module.train).data_code()))
    known = code_digest(*GRAPH.data_code())
    assert len({*digests, known}) == 3
    path.unlink()
    nowhere = code_digest(*replace(GRAPH, train=module.train, draw=print).data_code())
    assert nowhere == digests[1]  # once a process
    module.train.__code__ = module.train.__code__.replace(co_filename="<cell 3>")
    without = code_digest(partial(module.train), *GRAPH.data_code()[1:])
    assert without not in {*digests, known}


def test_code_that_travelled_by_value_counts_with_the_files_that_its_sender_names(
    tmp_path: Path,
) -> None:
    """Such a function need not know its file: cloudpickle leaves it out from 3.1.3 on."""
    path = tmp_path / "own.py"
    path.write_text("def train(config, progress): return 1")
    module = importlib.util.module_from_spec(
        spec := importlib.util.spec_from_file_location("own", path)
    )
    spec.loader.exec_module(module)
    code = replace(GRAPH, train=module.train).data_code()
    files = outside_files(*code)
    assert files == (path,)
    assert outside_files(*GRAPH.data_code()) == ()
    here = code_digest(*code)
    travelled = FunctionType(module.train.__code__.replace(co_filename="<dynamic-code>"), {})
    travelled.__module__ = "__main__"
    there = replace(GRAPH, train=travelled).data_code()
    assert outside_files(*there) == ()
    assert code_digest(*there, files=files) == here
    assert code_digest(*there) != here


def test_without_a_file_an_edit_anywhere_in_the_project_counts(copied: Path) -> None:
    before = Project(copied).digest([], whole=True)
    path = copied / "tasks" / "twins.py"
    text = path.read_text()
    path.write_text(text + "\n# changed\n")
    try:
        assert Project(copied).digest([], whole=True) != before
    finally:
        path.write_text(text)


def test_a_digest_is_computed_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    known = code_digest(*GRAPH.data_code())
    monkeypatch.setattr(Project, "digest", None)
    assert code_digest(*GRAPH.data_code()) == known
