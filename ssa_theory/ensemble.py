"""Ensemble training: many independent models as one tensor program, the model axis `member` last in
every tensor.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.optim.adam import adam

Parameters = dict[str, Tensor]
_CACHE_SIZE = Path(
    "/sys/devices/system/cpu/cpu0/cache/index2/size"
)  # of the second level, a core's own, such as 1024K
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_ROOM = (
    2**21,
    2**23,
)  # bytes: the least and the most that a block on a CPU may take, whatever its cache
_LEAST_MEMBERS = 64  # of a block, below which the vector units idle
# Compiled graph models are fastest at 2,048 to 8,192 a block and a third slower at 32,768; on a GPU
# 32,768 amortise the launches.
_MOST_MEMBERS = {"cpu": 2**13, "cuda": 2**15}
Optimizer = Literal["adam", "sgd"]


@dataclass(frozen=True)
class Trained:
    """A trained ensemble.

    parameters: by name, (..., member). history: what `measure` returned at the recorded steps,
    stacked: (record, ..., member). diverged: members whose loss was ever not finite; their numbers
    mean nothing.
    """

    parameters: Parameters
    history: dict[str, Tensor]
    diverged: Bool[Tensor, " member"]


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU. Raises ValueError for an unknown or absent
    device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"unknown device {name!r}: choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "device cuda was asked for, but torch sees no CUDA device: use --device cpu or auto"
        )
    return torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    )


def block_members(bytes_per_member: int, device: torch.device) -> int:
    """How many models to train as one tensor program: as many as the caches hold, for larger
    ensembles wait for memory.

    bytes_per_member: what a training step reads and writes of one model: parameters, optimiser
    state, data, activations. On a CPU their sum is kept within four times a core's second-level
    cache, but never below 2 nor above 8 MiB: the last level is shared, and what a virtual machine
    reports of it may be the whole host's. On a GPU it is kept within a sixteenth of the memory.
    Never fewer than 64 models, and never more than 8,192 (a GPU: 32,768), so that a long run has
    many blocks on any machine. Raises ValueError for bytes < 1.
    """
    if bytes_per_member < 1:
        raise ValueError(
            f"a model needs at least 1 byte, got {bytes_per_member}: count its tensors"
        )
    if device.type == "cuda":
        room = torch.cuda.get_device_properties(device).total_memory // 16
    else:
        least, most = _ROOM
        room = min(most, max(least, 4 * _core_cache()))
    return min(_MOST_MEMBERS[device.type], max(_LEAST_MEMBERS, room // bytes_per_member))


def _core_cache() -> int:
    """Bytes of a core's second-level cache; 1 MiB where the system does not say, or says what
    nobody understands.
    """
    try:
        found = re.fullmatch(
            r"(\d+)([KMG]?)", _CACHE_SIZE.read_text(encoding="ascii").strip().upper()
        )
    except (OSError, ValueError):
        found = None
    return int(found[1]) * _UNITS[found[2]] if found else 2**20


Loss = Callable[[Parameters, Any], Tensor]


@dataclass(frozen=True)
class _State:
    """What a step changes, in place: the parameters, whether members diverged, and Adam's moments
    of every parameter.

    count: of the steps that the moments hold, one number a parameter.
    """

    parameters: Parameters
    diverged: Tensor
    mean: list[Tensor]
    square: list[Tensor]
    count: list[Tensor]

    @classmethod
    def of(cls, parameters: Parameters, compile: bool) -> "_State":
        own = {name: p.detach().clone().requires_grad_() for name, p in parameters.items()}
        leaves = list(own.values())
        # The fused kernel wants float32, and computes with float64; the compiled one computes with
        # what it is given.
        kind = torch.float64 if compile else torch.float32
        return cls(
            own,
            leaves[0].new_zeros(leaves[0].shape[-1], dtype=torch.bool),
            [torch.zeros_like(leaf, requires_grad=False) for leaf in leaves],
            [torch.zeros_like(leaf, requires_grad=False) for leaf in leaves],
            [leaf.new_zeros((), dtype=kind) for leaf in leaves],
        )


def _step(
    loss: Loss,
    state: _State,
    batch: Any,
    optimizer: Optimizer,
    learning_rate: float | Tensor,
    compiled: bool,
) -> None:
    """One step of every member: its gradient, and the optimiser. Compiled or not, it is this
    function.
    """
    member_loss = loss(state.parameters, batch)
    leaves = list(state.parameters.values())
    # Contiguous, as the fused kernel pairs gradient and parameter by place in memory. A parameter
    # that the loss does not feel, as a sink's logit where its mass is given back, has the gradient
    # 0.
    felt = torch.autograd.grad(member_loss.sum(), leaves, allow_unused=True, materialize_grads=True)
    slopes = [slope.contiguous() for slope in felt]
    with torch.no_grad():
        if optimizer == "sgd":
            for leaf, slope in zip(leaves, slopes, strict=True):
                leaf -= learning_rate * slope
        else:
            adam(
                leaves,
                slopes,
                state.mean,
                state.square,
                [],
                state.count,
                lr=learning_rate,
                beta1=0.9,
                beta2=0.999,
                eps=1e-8,
                weight_decay=0.0,
                amsgrad=False,
                maximize=False,
                fused=not compiled,
                capturable=compiled,  # as tensor operations throughout, which can be fused with the gradient's
            )
        state.diverged.logical_or_(~torch.isfinite(member_loss))


@cache
def _compiled_step(device: str) -> Callable[..., None]:
    """`_step` as fused kernels: loss, gradient and optimiser as one graph.

    One compiled function for all losses: a block of the same shapes finds what an earlier one
    compiled.
    """
    options = {
        "cpp.enable_floating_point_contract_flag": "fast",  # fused multiply-add
        # Short sums over nodes and dimensions stay loops, and what they sum is computed once, not
        # again in every product.
        "unroll_reductions_threshold": 1,
        "realize_cpu_opcount_threshold": 12,
    }
    return torch.compile(
        _step, fullgraph=True, dynamic=False, options=options if device == "cpu" else None
    )


def _compiling() -> AbstractContextManager:
    """The compiler's settings during a training: every variant and shape is a compilation of its
    own, gradient included.
    """
    import torch._dynamo  # takes seconds to import, which uncompiled training need not wait for

    return torch._dynamo.config.patch(
        trace_autograd_ops=True, recompile_limit=512, accumulated_recompile_limit=512
    )


@cache
def _notice(reason: str) -> None:
    """Say why nothing is compiled, once a process."""
    warnings.warn(
        f"training goes on uncompiled, as it cannot be compiled here: {reason}",
        RuntimeWarning,
        stacklevel=4,
    )


def _step_compiled(
    loss: Loss, state: _State, batch: Any, optimizer: Optimizer, learning_rate: Tensor
) -> bool:
    """`_step`, compiled if possible, else with a notice; whether it was."""
    try:
        _compiled_step(state.diverged.device.type)(
            loss, state, batch, optimizer, learning_rate, True
        )
    except (
        Exception
    ) as error:  # no compiler, or a loss that cannot be traced: each fails in its own way
        state.count[:] = [count.float() for count in state.count]
        _step(
            loss, state, batch, optimizer, float(learning_rate), False
        )  # an error of the loss itself is the caller's
        _notice((" ".join(str(error).split()) or type(error).__name__)[:120])
        return False
    return True


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
    rates: Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
) -> Trained:
    """Minimise every member's loss for `steps` steps.

    loss(parameters, batch) gives one value per member. Members share no parameter, so the gradient
    of the summed loss is each member's own gradient, and elementwise optimisers keep them apart: a
    member that diverges fills its own column with NaN and no other. batches: one per step; None for
    a loss without data. measure(parameters) is stored at the steps in `record` (0 is the
    initialisation). progress(n) is told of every n finished steps. compile: fuse the loss and its
    gradient into few kernels, which takes seconds for each new loss and shape and pays for long
    trainings of many models; the numbers agree to rounding. Where that is impossible training goes
    on without, with one RuntimeWarning.

    rates: a factor on the learning rate for each member. Adam's step does not depend on the scale
    of the gradient, so a parameter written as s phi, phi trained at the rate r, moves as it would
    at the rate s r (but for Adam's epsilon, 1e-8); plain gradient descent moves as at s^2 r. dtype:
    precision of training, by default the parameters'.

    Nothing inside the loop waits for the device. Raises ValueError for steps < 0, a learning rate
    that is not positive and finite, an unknown optimiser, or too few batches.
    """
    if steps < 0:
        raise ValueError(f"the number of steps must be at least 0, got {steps}: choose steps >= 0")
    if not 0 < learning_rate < float("inf"):
        raise ValueError(
            f"the learning rate must be positive and finite, got {learning_rate}: choose one above 0"
        )
    if optimizer not in ("adam", "sgd"):
        raise ValueError(f"unknown optimizer {optimizer!r}: choose adam or sgd")
    working: Tensor | None = None
    if rates is not None:
        relative = torch.tensor(
            rates, dtype=torch.float64, device=next(iter(parameters.values())).device
        )
        learning_rate = learning_rate * max(rates)
        scale = relative / max(rates)
        scale = scale.sqrt() if optimizer == "sgd" else scale
        factor = working = scale.to(dtype or scale.dtype)
        plain, plain_measure = loss, measure
        parameters = {k: v / scale for k, v in parameters.items()}

        def scaled_loss(scaled: Parameters, batch: Any) -> Tensor:
            return plain({k: v * factor for k, v in scaled.items()}, batch)

        loss = scaled_loss
        if plain_measure is not None:

            def scaled_measure(scaled: Parameters) -> dict[str, Tensor]:
                return plain_measure({k: v * factor for k, v in scaled.items()})

            measure = scaled_measure

    if dtype is not None:
        parameters = {k: v.to(dtype) for k, v in parameters.items()}
    state = _State.of(parameters, compile)
    # As a number it would be a constant of the compiled graph, and each learning rate a compilation
    # of its own.
    rate = torch.full((), learning_rate, dtype=torch.float64, device=state.diverged.device)
    recorded, wanted = [], set(record)
    source = iter(repeat(None) if batches is None else batches)

    with _compiling() if compile else nullcontext():
        for step in range(steps + 1):
            if measure is not None and step in wanted:
                with torch.no_grad():
                    # A copy: what measure returns may be a parameter itself, which the optimiser
                    # goes on changing.
                    recorded.append(
                        {name: value.clone() for name, value in measure(state.parameters).items()}
                    )
            if step == steps:
                break
            try:
                batch = next(source)
            except StopIteration:
                raise ValueError(
                    f"the batches ran out after {step} of {steps} steps: give one per step"
                ) from None
            if compile:
                compile = _step_compiled(loss, state, batch, optimizer, rate)
            else:
                _step(loss, state, batch, optimizer, learning_rate, False)
            if progress is not None:
                progress(1)

    trained = {name: p.detach() for name, p in state.parameters.items()}
    if working is not None:
        trained = {name: p * working for name, p in trained.items()}
    finite = [torch.isfinite(p).reshape(-1, p.shape[-1]).all(0) for p in trained.values()]
    history = {
        name: torch.stack([entry[name] for entry in recorded])
        for name in (recorded[0] if recorded else {})
    }
    return Trained(trained, history, state.diverged | ~torch.stack(finite).all(0))
