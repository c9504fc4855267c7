"""Trainings of every mechanism in every form, compiled and not."""

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from ssa_theory.lanes import Kernel, gradients, leaves
from ssa_theory.mechanism import Inputs, Layer, Parameters
from tests.mechanism.cases import CASES, inputs_of, layer_of, perturbed

MEMBERS = 21  # more than two vectors, and not a multiple of one
FORMS = ("denoise-last", "graph-position", "retrieval", "regression", "denoise")
IN_EVERY_FORM = ("vanilla", "ssa", "ssa-token", "sink")


def _distinct() -> list[tuple[str, str]]:
    """Each mechanism in the first form that it fits, some in every form. What is the same there is
    compiled once.
    """
    chosen: dict[tuple[str, ...], tuple[str, str]] = {}
    for form in FORMS:
        for name in (n for n, f in CASES if f == form):
            parts = repr(layer_of(name, form).mechanism.parts())
            chosen.setdefault((parts, form) if name in IN_EVERY_FORM else (parts,), (name, form))
    return list(chosen.values())


DISTINCT = _distinct()


def loss_of(layer: Layer, parameters: Parameters, inputs: Inputs) -> Tensor:
    """Neither convex nor separable; feels every weight of the rows, or of the output."""
    seen = (layer.output if layer.form.values else layer.rows)(parameters, inputs)
    weight = torch.linspace(-1, 1, seen[..., 0].numel(), dtype=seen.dtype).reshape(seen.shape[:-1])
    return (seen * weight.unsqueeze(-1) + 0.3 * seen.square()).sum((0, 1))


def case(name: str, form: str, members: int = MEMBERS) -> tuple[Layer, Parameters, Inputs]:
    """A layer, its parameters and inputs, in float64."""
    layer = layer_of(name, form)
    return layer, perturbed(layer, members), inputs_of(form, members)


def kernel_steps(
    loss: Any,
    parameters: Parameters,
    batches: list[Any],
    optimizer: Literal["adam", "sgd"] = "sgd",
    rate: float = 0.1,
) -> tuple[Parameters, Tensor, Tensor]:
    """The parameters after one step a batch, the last losses, and what diverged."""
    kernel = Kernel(loss, parameters, batches[0], optimizer)
    own = [p.clone() for p in parameters.values()]
    zeros = [torch.zeros_like(p) for p in own]
    moments = (zeros, [z.clone() for z in zeros]) if optimizer == "adam" else ()
    count = own[0].shape[-1]
    losses = torch.zeros(count, dtype=own[0].dtype)
    diverged = torch.zeros(count, dtype=torch.bool)
    times = range(1, len(batches) + 1)
    adam = optimizer == "adam"
    rates = [rate / (1 - 0.9**t) if adam else rate for t in times]
    roots = [(1 - 0.999**t) ** -0.5 for t in times]
    kernel.run(own, moments, [leaves(b) for b in batches], rates, roots, losses, diverged)
    return dict(zip(parameters, own, strict=True)), losses, diverged


def check_against_torch(name: str, form: str) -> None:
    """Loss and gradient of a case in float64: a step of gradient descent at the rate 1."""
    layer, parameters, inputs = case(name, form)
    loss = partial(loss_of, layer)
    felt = {k: p.clone().requires_grad_() for k, p in parameters.items()}
    value, slopes = gradients(loss, felt, inputs)
    moved, losses, diverged = kernel_steps(loss, parameters, [inputs], rate=1.0)
    assert not diverged.any()
    torch.testing.assert_close(losses, value.detach(), rtol=1e-12, atol=1e-12)
    for key, slope in zip(parameters, slopes, strict=True):
        torch.testing.assert_close(parameters[key] - moved[key], slope, rtol=1e-12, atol=1e-12)
