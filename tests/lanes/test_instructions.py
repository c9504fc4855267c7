"""What is compiled is right for every kind of vector instructions, and not for the best alone."""

from typing import Any

import pytest
import torch

from ssa_theory.ensemble import train
from ssa_theory.lanes import Kernel, leaves
from ssa_theory.losses import Queries, cross_entropy
from tests.lanes.cases import MEMBERS, case, check_against_torch, kernel_steps
from tests.lanes.test_training import prompts
from tests.mechanism.cases import mapped

CASES = (
    ("ssa-mlp-query-key-value", "denoise-last"),
    ("entmax15", "denoise-last"),
    ("ssa-degree", "graph-position"),
    ("sink", "retrieval"),
    ("ssa", "regression"),
)


@pytest.mark.parametrize(("name", "form"), CASES)
@pytest.mark.usefixtures("instructions")
def test_losses_and_gradients_are_torchs(name: str, form: str) -> None:
    check_against_torch(name, form)


def test_a_training_in_single_precision_is_torchs(instructions: str) -> None:
    """Of prompts, whose places are read by index; a model is the same bit for bit in any block."""
    layer, start, inputs = case("ssa-mlp-query", "graph-position")
    low = {k: v.float() for k, v in start.items()}
    single = mapped(inputs, lambda t: t.float() if t.is_floating_point() else t)
    batches = [q.to(torch.float32) for q in prompts()]

    def loss(members: slice) -> Any:
        own = mapped(single, lambda t: t[..., members])
        return lambda p, batch: cross_entropy(layer.scores(p, own), batch)

    whole = slice(0, MEMBERS)
    made, losses, _ = kernel_steps(loss(whole), low, batches, "adam", 0.02)
    expected = train(
        lambda p, batch: cross_entropy(layer.scores(p, inputs), batch),
        start,
        steps=len(batches),
        learning_rate=0.02,
        batches=prompts(),
    ).parameters
    for name, value in expected.items():
        assert (value - start[name]).abs().max() > 0.05
        torch.testing.assert_close(made[name].double(), value, rtol=1e-3, atol=1e-3)
    part = slice(2, 19)
    cut = [Queries(*(t[..., part] for t in leaves(batch))) for batch in batches]
    alone, own, _ = kernel_steps(
        loss(part), {k: v[..., part] for k, v in low.items()}, cut, "adam", 0.02
    )
    assert torch.equal(own, losses[part])
    assert all(torch.equal(alone[k], v[..., part]) for k, v in made.items())
    kernel = Kernel(loss(whole), low, batches[0], "adam")
    assert kernel.function.lanes == {"avx512": 16, "avx2": 8}.get(instructions, 4)
