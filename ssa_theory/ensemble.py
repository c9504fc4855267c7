"""Ensemble training: many independent models as one tensor program, the model axis `member` last in every tensor."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

Parameters = dict[str, Tensor]
Optimizer = Literal["adam", "sgd"]


@dataclass(frozen=True)
class Trained:
    """A trained ensemble.

    parameters: by name, (..., member). history: what `measure` returned at the recorded steps, stacked:
    (record, ..., member). diverged: members whose loss was ever not finite; their numbers mean nothing.
    """

    parameters: Parameters
    history: dict[str, Tensor]
    diverged: Bool[Tensor, " member"]


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU. Raises ValueError for an unknown or absent device."""
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"unknown device {name!r}: choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch sees no CUDA device: use --device cpu or auto")
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def train(
    loss: Callable[[Parameters, Any], Tensor],
    parameters: Parameters,
    *,
    steps: int,
    learning_rate: float,
    optimizer: Optimizer = "adam",
    batches: Iterable[Any] | None = None,
    measure: Callable[[Parameters], dict[str, Tensor]] | None = None,
    record: Sequence[int] = (),
    progress: Callable[[int], None] | None = None,
) -> Trained:
    """Minimise every member's loss for `steps` steps.

    loss(parameters, batch) gives one value per member. Members share no parameter, so the gradient of the summed loss
    is each member's own gradient, and elementwise optimisers keep them apart: a member that diverges fills its own
    column with NaN and no other. batches: one per step; None for a loss without data. measure(parameters) is stored
    at the steps in `record` (0 is the initialisation). progress(n) is told of every n finished steps.

    Nothing inside the loop waits for the device. Raises ValueError for steps < 0, a learning rate that is not positive
    and finite, an unknown optimiser, or too few batches.
    """
    if steps < 0:
        raise ValueError(f"the number of steps must be at least 0, got {steps}: choose steps >= 0")
    if not 0 < learning_rate < float("inf"):
        raise ValueError(f"the learning rate must be positive and finite, got {learning_rate}: choose one above 0")
    if optimizer not in ("adam", "sgd"):
        raise ValueError(f"unknown optimizer {optimizer!r}: choose adam or sgd")
    parameters = {name: p.detach().clone().requires_grad_() for name, p in parameters.items()}
    leaves = list(parameters.values())
    kind = torch.optim.Adam if optimizer == "adam" else torch.optim.SGD
    updater = kind(leaves, lr=learning_rate, fused=True)
    recorded, wanted = [], set(record)
    diverged = torch.zeros(leaves[0].shape[-1], dtype=torch.bool, device=leaves[0].device)
    source = iter(repeat(None) if batches is None else batches)

    for step in range(steps + 1):
        if measure is not None and step in wanted:
            with torch.no_grad():
                # A copy: what measure returns may be a parameter itself, which the optimiser goes on changing.
                recorded.append({name: value.clone() for name, value in measure(parameters).items()})
        if step == steps:
            break
        try:
            batch = next(source)
        except StopIteration:
            raise ValueError(f"the batches ran out after {step} of {steps} steps: give one per step") from None
        member_loss = loss(parameters, batch)
        for leaf, gradient in zip(leaves, torch.autograd.grad(member_loss.sum(), leaves), strict=True):
            leaf.grad = gradient.contiguous()  # the fused kernels pair gradient and parameter by place in memory
        updater.step()
        diverged |= ~torch.isfinite(member_loss.detach())
        if progress is not None:
            progress(1)

    for leaf in leaves:
        diverged |= ~torch.isfinite(leaf.detach()).reshape(-1, leaf.shape[-1]).all(0)
    history = {name: torch.stack([entry[name] for entry in recorded]) for name in (recorded[0] if recorded else {})}
    return Trained({name: p.detach() for name, p in parameters.items()}, history, diverged)
