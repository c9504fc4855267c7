"""Compiled losses and gradients are those of torch in float64: every mechanism, and every form."""

import pytest
import torch

from ssa_theory.lanes.program import Unsupported
from tests.lanes.cases import DISTINCT, MEMBERS, check_against_torch, kernel_steps


@pytest.fixture(scope="module", autouse=True)
def _fast_to_compile() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssa_theory.lanes.build._LEVEL", "-O0")
        yield


def test_what_follows_an_unknown_operation_is_refused_for_its_reason() -> None:
    """Of several results, too, which are taken apart before they are used."""
    start = {"a": torch.linspace(1, 2, 3 * MEMBERS, dtype=torch.float64).view(3, MEMBERS)}
    with pytest.raises(Unsupported, match="the operation lgamma"):
        kernel_steps(lambda p, _: torch.lgamma(p["a"]).sort(0).values[0], start, [None], rate=1.0)


@pytest.mark.parametrize(("name", "form"), DISTINCT, ids=map(":".join, DISTINCT))
def test_losses_and_gradients_are_torchs(name: str, form: str) -> None:
    check_against_torch(name, form)
