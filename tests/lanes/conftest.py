"""The vector instructions for which the tests of this folder can compile."""

import platform
from collections.abc import Iterator

import pytest

from ssa_theory.lanes import build
from ssa_theory.lanes.kernel import FUNCTIONS

_TARGETS = {"avx512": "-march=x86-64-v4", "avx2": "-march=x86-64-v3", "plain": "-march=x86-64"}
_X86 = "defined(__x86_64__)", "defined(__AVX512F__)"


def _levels() -> list[str]:
    """Those that run here; `portable` is what other processors compile."""
    if platform.machine() != "x86_64":
        return ["portable"]
    names = list(_TARGETS)
    return [*names[names.index(build.instructions()) :], "portable"]


@pytest.fixture(scope="module", params=_levels())
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    """Code for these instructions and no better ones."""
    name = request.param
    with pytest.MonkeyPatch.context() as patch:
        if platform.machine() == "x86_64":
            patch.setattr(build, "_TARGET", _TARGETS.get(name, _TARGETS["plain"]))
            assert build.instructions() == ("plain" if name == "portable" else name)
        if name == "portable":
            header = build.HEADER
            for condition in _X86:
                assert condition in header
                header = header.replace(condition, "0")
            patch.setattr(build, "HEADER", header)
        FUNCTIONS.clear()
        yield name
        FUNCTIONS.clear()
