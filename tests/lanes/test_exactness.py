"""Compiled losses and gradients are those of torch in float64: every mechanism, and every form."""

import pytest

from tests.lanes.cases import DISTINCT, check_against_torch


@pytest.fixture(scope="module", autouse=True)
def _fast_to_compile() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssa_theory.lanes.build._LEVEL", "-O0")
        yield


@pytest.mark.parametrize(("name", "form"), DISTINCT, ids=map(":".join, DISTINCT))
def test_losses_and_gradients_are_torchs(name: str, form: str) -> None:
    check_against_torch(name, form)
