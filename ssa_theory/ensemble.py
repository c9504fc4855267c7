"""Ensemble training: many independent models as one tensor program, the model axis `member` last in every tensor."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

Parameters = dict[str, Tensor]
_CACHE_SIZE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")  # of the last level, such as 8192K
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


def block_members(bytes_per_member: int, device: torch.device) -> int:
    """How many models to train as one tensor program: as many as the caches hold, for larger ensembles wait for memory.

    bytes_per_member: what a training step reads and writes of one model: parameters, optimiser state, data, activations. On a
    CPU their sum is kept within the last-level cache, on a GPU within a sixteenth of its memory, where a larger block only
    amortises the launches. Never fewer than 64, below which the vector units idle. Raises ValueError for bytes < 1.
    """
    if bytes_per_member < 1:
        raise ValueError(f"a model needs at least 1 byte, got {bytes_per_member}: count its tensors")
    if device.type == "cuda":
        room = torch.cuda.get_device_properties(device).total_memory // 16
    else:
        try:
            room = 1024 * int(_CACHE_SIZE.read_text().strip().removesuffix("K"))
        except (OSError, ValueError):  # not known to this system
            room = 2**23
    return max(64, room // bytes_per_member)


Loss = Callable[[Parameters, Any], Tensor]


def _gradient(loss: Loss, parameters: Parameters, batch: Any) -> tuple[Tensor, Sequence[Tensor]]:
    """Each member's loss, and the gradient of their sum by every parameter."""
    member_loss = loss(parameters, batch)
    return member_loss.detach(), torch.autograd.grad(member_loss.sum(), list(parameters.values()))


@cache
def _compiled_gradient() -> Callable[..., tuple[Tensor, Sequence[Tensor]]]:
    """`_gradient` as fused kernels: forward and backward of the whole loss as one graph.

    One compiled function for all losses: a block of the same shapes finds what an earlier one compiled.
    """
    import torch._dynamo  # takes seconds to import, which uncompiled training need not wait for

    compiled = torch.compile(
        _gradient,
        fullgraph=True,
        dynamic=False,
        options={"cpp.enable_floating_point_contract_flag": "fast"},  # fused multiply-add
    )

    def call(loss: Loss, parameters: Parameters, batch: Any) -> tuple[Tensor, Sequence[Tensor]]:
        # Every variant and shape is a compilation of its own, and the gradient is part of the graph.
        with torch._dynamo.config.patch(trace_autograd_ops=True, recompile_limit=512, accumulated_recompile_limit=512):
            return compiled(loss, parameters, batch)

    return call


@cache
def _notice(reason: str) -> None:
    """Say why nothing is compiled, once a process."""
    warnings.warn(f"training goes on uncompiled, as it cannot be compiled here: {reason}", RuntimeWarning, stacklevel=4)


def _compiled_or_not(loss: Loss, parameters: Parameters, batch: Any) -> Callable[..., tuple[Tensor, Sequence[Tensor]]]:
    """The compiled gradient, tried on this batch; the uncompiled one, with one notice, where it cannot be compiled."""
    try:
        compiled = _compiled_gradient()
        compiled(loss, parameters, batch)
    except Exception as error:  # no compiler, or a loss that cannot be traced: each fails in its own way
        _gradient(loss, parameters, batch)  # an error of the loss itself is the caller's
        _notice((" ".join(str(error).split()) or type(error).__name__)[:120])
        return _gradient
    return compiled


def train(
    loss: Loss,
    parameters: Parameters,
    *,
    steps: int,
    learning_rate: float,
    optimizer: Optimizer = "adam",
    compile: bool = False,
    batches: Iterable[Any] | None = None,
    measure: Callable[[Parameters], dict[str, Tensor]] | None = None,
    record: Sequence[int] = (),
    progress: Callable[[int], None] | None = None,
) -> Trained:
    """Minimise every member's loss for `steps` steps.

    loss(parameters, batch) gives one value per member. Members share no parameter, so the gradient of the summed loss
    is each member's own gradient, and elementwise optimisers keep them apart: a member that diverges fills its own
    column with NaN and no other. batches: one per step; None for a loss without data. measure(parameters) is stored
    at the steps in `record` (0 is the initialisation). progress(n) is told of every n finished steps. compile: fuse the
    loss and its gradient into few kernels, which takes seconds for each new loss and shape and pays for long trainings of
    many models; the numbers agree to rounding. Where that is impossible training goes on without, with one RuntimeWarning.

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
    gradient = None if compile else _gradient

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
        gradient = gradient or _compiled_or_not(loss, parameters, batch)
        member_loss, slopes = gradient(loss, parameters, batch)
        for leaf, slope in zip(leaves, slopes, strict=True):
            leaf.grad = slope.contiguous()  # the fused kernels pair gradient and parameter by place in memory
        updater.step()
        diverged |= ~torch.isfinite(member_loss)
        if progress is not None:
            progress(1)

    for leaf in leaves:
        diverged |= ~torch.isfinite(leaf.detach()).reshape(-1, leaf.shape[-1]).all(0)
    history = {name: torch.stack([entry[name] for entry in recorded]) for name in (recorded[0] if recorded else {})}
    return Trained({name: p.detach() for name, p in parameters.items()}, history, diverged)
