"""The registry, and mechanisms by what a user writes."""

import os
import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.colors
import matplotlib.lines
import pytest

from ssa_theory import SelfAttention
from ssa_theory.mechanism import (
    MECHANISMS,
    VANILLA,
    Form,
    Look,
    Mechanism,
    Misfit,
    file_of,
    known,
    mechanism,
)
from ssa_theory.mechanism.temperature import Selective
from tests.mechanism.cases import by_mechanism

HEAD = "from ssa_theory.mechanism import Mechanism, Shift\n"


@by_mechanism
def test_an_entry_says_what_it_is_and_how_it_is_drawn(name: str) -> None:
    entry = MECHANISMS[name]
    assert entry.name == name
    assert entry.formula
    assert entry.source
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name), "names stand in files and on the shell"
    assert entry.look != Look(), "the look of a mechanism of the user's own"
    assert matplotlib.colors.is_color_like(entry.look.color)
    drawn = matplotlib.lines.Line2D(
        [0], [0], color=entry.look.color, marker=entry.look.marker, linestyle=entry.look.line
    )
    assert drawn.get_marker() not in ("", " ", "None", None)
    assert mechanism(name) is known(name) is entry


def test_names_and_looks_are_distinct() -> None:
    from ssa_theory.mechanism.registry import _ENTRIES

    assert len(_ENTRIES) == len(MECHANISMS), "two entries have one name"
    assert next(iter(MECHANISMS)) == VANILLA
    looks = Counter((e.look.color, e.look.marker, e.look.line) for e in _ENTRIES)
    twice = {
        look: [e.name for e in _ENTRIES if (e.look.color, e.look.marker, e.look.line) == look]
        for look, count in looks.items()
        if count > 1
    }
    assert not twice, "drawn alike"


def test_no_two_entries_are_the_same() -> None:
    """No mechanism is another by a second name."""
    kinds = [m.parts() for m in MECHANISMS.values()]
    assert all(kinds.count(kind) == 1 for kind in kinds)


def test_joined_mechanisms_have_the_parts_of_both() -> None:
    joined = mechanism("sparsemax+ssa-query+gated")
    assert joined.name == "sparsemax+ssa-query+gated" == known(joined.name).name
    for of in ("sparsemax", "ssa-query", "gated"):
        assert MECHANISMS[of].formula in joined.formula
        assert MECHANISMS[of].source in joined.source
    assert joined.normalizer == MECHANISMS["sparsemax"].normalizer
    assert joined.query == MECHANISMS["ssa-query"].query
    assert joined.gate == MECHANISMS["gated"].gate
    assert joined.look == MECHANISMS["sparsemax"].look
    assert mechanism("vanilla+ssa").value == MECHANISMS["ssa"].value


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("spasemax", "unknown mechanism 'spasemax': did you mean sparsemax"),
        (
            "sparsemax+sink",
            "mechanisms sparsemax and sink cannot be joined, both change normalizer",
        ),
        ("ssa+ssmax", "mechanisms ssa and ssmax cannot be joined, both change query: write"),
        ("ssa+nothing-like-it-at-all", "unknown mechanism 'nothing-like-it-at-all': did you mean "),
        ("ssa+", "unknown mechanism '': did you mean vanilla, scaled"),
        ("", "unknown mechanism '': did you mean vanilla, scaled"),
        ("SSA", "unknown mechanism 'SSA': did you mean "),
        ("mine.py", "unknown mechanism 'mine.py': did you mean "),
        (
            "absent/mine.py:MINE",
            "there is no file absent/mine.py for mechanism 'absent/mine.py:MINE'",
        ),
    ],
)
def test_what_is_no_mechanism_is_said_in_one_sentence(name: str, message: str) -> None:
    for find in (mechanism, known):
        with pytest.raises(ValueError) as raised:
            find(name)
        assert str(raised.value).startswith(message)
        assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("given", [None, Selective(), Mechanism], ids=["none", "part", "class"])
def test_a_mechanism_is_itself_and_nothing_else_is_one(given: Any) -> None:
    assert mechanism(MECHANISMS["ssa"]) is MECHANISMS["ssa"]
    for wear in (mechanism, partial(SelfAttention, 8, 2)):
        with pytest.raises(ValueError, match=r"^a mechanism is named or composed, got .*: write "):
            wear(given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "OTHER = Mechanism('other')",
            r"no Mechanism named 'MINE' \(it holds OTHER\): name one, or",
        ),
        (
            "",
            r"no Mechanism named 'MINE' \(it holds no Mechanism\): name one, or write MINE = Mech",
        ),
        ("MINE = 3", r"no Mechanism named 'MINE' \(it holds no Mechanism\)"),
        ("MINE = Mechanism('ssa')", "MINE of .* has a name of the registry, 'ssa': rename it"),
        (
            "MINE = Mechanism('a b')",
            "fails with ValueError: a mechanism's name stands in files and",
        ),
        ("MINE = Mechanism('')", "fails with ValueError: a mechanism's name .* got '': rename it"),
        ("1 / 0", "fails with ZeroDivisionError: division by zero: mend the file"),
        (
            "import absent",
            "fails with ModuleNotFoundError: No module named 'absent': mend the file",
        ),
        ("MINE = (", "fails with SyntaxError: .*: mend the file"),
        ("raise SystemExit(3)", "fails with SystemExit: 3: mend the file"),
        (
            "raise ValueError('a\\n b' + 'x' * 999)",
            "fails with ValueError: a bx{197}: mend",
        ),
    ],
)
def test_files_that_hold_none_are_told_in_one_sentence(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(HEAD + text + "\n")
    with pytest.raises(ValueError, match=message) as raised:
        mechanism(f"{path}:MINE")
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600


def test_a_mechanism_from_a_file_is_found_by_its_name_and_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"{HEAD}MINE = Mechanism('from-a-file', shift=Shift())\n")
    name = f"{path}:MINE"
    assert file_of(name) == path
    assert file_of("ssa") is file_of("C:ssa") is None
    found = mechanism(name)
    assert found.name == "from-a-file"
    assert found.shift is not None
    assert mechanism(name) is found
    assert known("from-a-file") is found
    assert found.look == Look()
    path.write_text(f"{HEAD}MINE = Mechanism('from-a-file', formula='two')\n")
    stamp = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(stamp, stamp))
    assert mechanism(name).formula == "two"
    assert known("from-a-file").formula == "two"
    path.unlink()
    with pytest.raises(ValueError, match="there is no file"):
        mechanism(name)


@pytest.mark.parametrize("name", ["", "a b", "a\tb", "a\nb", "a/b", "a\\b"])
def test_names_that_cannot_stand_in_a_file_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"must have no spaces or slashes, got .*: rename it"):
        Mechanism(name)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "part"),
    [("query", Selective), ("value", "ssa"), ("bias", Selective()), ("normalizer", None)],
    ids=["class", "name", "of another kind", "none"],
)
def test_a_part_that_is_none_is_refused_at_once(name: str, part: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"^{name} of mechanism m must be a part made for it, got"
    ):
        Mechanism("m", **{name: part})


def test_a_mechanism_with_nothing_left_names_all_that_is_missing() -> None:
    both = Mechanism("m", query=Selective(None), value=Selective())
    with pytest.raises(Misfit) as raised:
        both.fitted(Form(3))
    assert str(raised.value) == (
        "mechanism m needs queries that see different numbers of keys (or position terms asked "
        "for) or a value map"
    )
    assert Mechanism("m").is_vanilla
    assert not both.is_vanilla
