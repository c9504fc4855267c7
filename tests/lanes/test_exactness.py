"""Compiled losses and gradients are those of torch in float64: every mechanism, and every form."""

from functools import partial

import pytest
import torch
from ssa_theory.lanes.trace import trace

from ssa_theory.lanes.program import Unsupported
from tests.lanes.cases import DISTINCT, MEMBERS, case, kernel_steps, loss_of


@pytest.fixture(scope="module", autouse=True)
def _fast_to_compile() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssa_theory.lanes.build._LEVEL", "-O0")
        yield


def test_what_follows_an_unknown_operation_is_refused_for_its_reason() -> None:
    """Of several results, too, which are taken apart before they are used."""
    start = {"a": torch.linspace(1, 2, 3 * MEMBERS, dtype=torch.float64).view(3, MEMBERS)}
    with pytest.raises(Unsupported, match="the operation lgamma"):
        trace(lambda p, _: torch.lgamma(p["a"]).sort(0).values[0], start, None)


@pytest.mark.parametrize(("name", "form"), DISTINCT, ids=map(":".join, DISTINCT))
def test_losses_and_gradients_are_torchs(name: str, form: str) -> None:
    """A step of gradient descent at the rate 1 is the gradient."""
    layer, parameters, inputs = case(name, form)
    loss = partial(loss_of, layer)
    felt = {k: p.clone().requires_grad_() for k, p in parameters.items()}
    value = loss(felt, inputs)
    slopes = torch.autograd.grad(
        value.sum(), list(felt.values()), allow_unused=True, materialize_grads=True
    )
    moved, losses, diverged = kernel_steps(loss, parameters, [inputs], rate=1.0)
    assert not diverged.any()
    torch.testing.assert_close(losses, value.detach(), rtol=1e-12, atol=1e-12)
    for key, slope in zip(parameters, slopes, strict=True):
        torch.testing.assert_close(parameters[key] - moved[key], slope, rtol=1e-12, atol=1e-12)
