"""The contenders of the benchmark: each trains the same block of models with Adam, the way a
competent user of its tool would.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor

from analysis.bench.jax_peers import jax_member_last, jax_vmap, warm_up_jax
from analysis.bench.losses import TORCH
from analysis.bench.workload import LEARNING_RATE, Arrays, Start, Workload
from ssa_theory.ensemble import train
from ssa_theory.steps import Fused, State, Steps, steps_for

_BEST_FOR_TORCH = {
    "cpp.enable_floating_point_contract_flag": "fast",
    "unroll_reductions_threshold": 1,
    "realize_cpu_opcount_threshold": 12,
}
"""Options of torch's compiler with which these losses are fastest on a processor."""
Training = Callable[[], Arrays]


@dataclass(frozen=True)
class Contender:
    """One way to train.

    prepare(workload, start, steps) arranges the data as the contender wants it, which is not timed,
    and returns the training: a function that trains all models from the start, with the start's
    batches in turn, and returns their parameters, (..., member). warm_up does one thing with the
    tool, so that all it imports on first use is there: what a process then holds is not the
    training's. tried: shares of a block, of which the fastest is taken. single: whether it trains
    one model at a time, and is given a few. package: what must be installed for it.
    """

    name: str
    prepare: Callable[[Workload, Start, int], Training]
    warm_up: Callable[[], object]
    tried: tuple[float, ...] = (0.25, 1.0)
    compiles: bool = False
    single: bool = False
    package: str = "torch"

    @property
    def missing(self) -> str:
        """Why it cannot run here; nothing where it can."""
        return (
            ""
            if find_spec(self.package)
            else f'not installed: pip install "ssa-theory[{self.package}]"'
        )


def _eager(workload: Workload, start: Start, steps: int) -> Training:
    loss, batches = _of_steps(start)
    options = {"steps": steps, "learning_rate": LEARNING_RATE}
    return lambda: train(loss, start.parameters, batches=cycle(batches), **options).parameters


def _of_steps(start: Start) -> tuple[Callable[[Arrays, Any], Tensor], Sequence[Any]]:
    """The loss and its batches; data that stay the same are a part of the loss."""
    if len(start.batches) > 1:
        return start.loss, start.batches
    (only,) = start.batches
    return (lambda parameters, _: start.loss(parameters, only)), [None]


def _compiled(workload: Workload, start: Start, steps: int) -> Training:
    """What `train` compiles."""
    loss, batches = _of_steps(start)

    def make() -> Steps:
        return steps_for(loss, State.of(start.parameters), "adam", LEARNING_RATE, compile=True)

    return _again(make, start, list(islice(cycle(batches), steps)))


def _torch_compile(workload: Workload, start: Start, steps: int) -> Training:
    """`this trainer`, its step compiled by torch, whether data stay the same or not."""
    import torch._inductor.config as inductor

    common = {
        k: v.unsqueeze(-1).expand(*v.shape, start.members).contiguous()
        for k, v in start.shared.items()
    }
    batches = [common | b for b in start.batches]

    def make() -> Steps:
        return Fused(start.loss, State.of(start.parameters), "adam", LEARNING_RATE)

    run = _again(make, start, list(islice(cycle(batches), steps)))

    def patched() -> Arrays:
        with inductor.patch(_BEST_FOR_TORCH):
            return run()

    return patched


def _again(make: Callable[[], Steps], start: Start, batches: Sequence[Any]) -> Training:
    """Trainings from one start by steps that the first of them makes, and compiles, for all, as
    JAX's are.
    """
    made = cache(make)

    def run() -> Arrays:
        own = made()
        state = own.state
        with torch.no_grad():
            for name, parameter in state.parameters.items():
                parameter.copy_(start.parameters[name])
        state.diverged.zero_()
        own.restart(LEARNING_RATE)
        own.advance(batches)
        return {k: p.detach().clone() for k, p in state.parameters.items()}

    return run


def _one_at_a_time(workload: Workload, start: Start, steps: int) -> Training:
    """A plain loop of `backward` and fused Adam, model after model."""

    def of(arrays: Arrays, member: int) -> Arrays:
        return {k: v[..., member].contiguous() for k, v in arrays.items()}

    members = range(start.members)
    initial = [of(start.parameters, m) for m in members]
    data = [[start.shared | of(start.own, m) | of(b, m) for b in start.batches] for m in members]

    def run() -> Arrays:
        learned = []
        for first, own in zip(initial, data, strict=True):
            parameters = {k: v.clone().requires_grad_() for k, v in first.items()}
            optimizer = torch.optim.Adam(parameters.values(), lr=LEARNING_RATE, fused=True)
            for batch in islice(cycle(own), steps):
                optimizer.zero_grad()
                workload.loss(TORCH, parameters, batch).backward()
                optimizer.step()
            learned.append(parameters)
        return {k: torch.stack([p[k].detach() for p in learned], dim=-1) for k in initial[0]}

    return run


def _member_first(arrays: Arrays) -> Arrays:
    return {k: v.movedim(-1, 0).contiguous() for k, v in arrays.items()}


def _vmap(workload: Workload, start: Start, steps: int) -> Training:
    """The gradient of one model mapped over all, member first, and fused Adam on the stacked
    parameters.
    """
    initial, own = _member_first(start.parameters), _member_first(start.own)
    batches = [_member_first(b) for b in start.batches]
    axes = dict.fromkeys(start.shared) | dict.fromkeys([*own, *batches[0]], 0)

    def loss(parameters: Arrays, data: Arrays) -> Any:
        return workload.loss(TORCH, parameters, data)

    gradient = torch.func.vmap(torch.func.grad(loss), in_dims=(0, axes))
    data = [start.shared | own | b for b in batches]  # in the order of the axes

    def run() -> Arrays:
        parameters = {k: v.clone() for k, v in initial.items()}
        optimizer = torch.optim.Adam(parameters.values(), lr=LEARNING_RATE, fused=True)
        for batch in islice(cycle(data), steps):
            for name, slope in gradient(parameters, batch).items():
                parameters[name].grad = slope.contiguous()
            optimizer.step()
        return {k: v.movedim(0, -1) for k, v in parameters.items()}

    return run


def _one_step() -> None:
    number = torch.ones(1, requires_grad=True)
    number.sum().backward()
    torch.optim.Adam([number], fused=True).step()


def _one_ensemble_step(compile: bool = False) -> None:
    train(
        lambda parameters, _: parameters["number"] ** 2,
        {"number": torch.ones(1)},
        steps=1,
        learning_rate=1.0,
        compile=compile,
    )


def _one_compiled_step() -> None:
    _one_ensemble_step(compile=True)


def _torch_compiler() -> None:
    import torch._dynamo
    import torch._inductor.compile_fx  # noqa: F401

    _one_ensemble_step()


ONE_AT_A_TIME, EAGER, COMPILED = (
    "one model at a time",
    "this trainer, eager",
    "this trainer, compiled",
)
TORCH_COMPILE = "this trainer, torch.compile"
JAX = "JAX jit(vmap(scan))"
JAX_LAST = "JAX, member last, in chunks"
CONTENDERS: dict[str, Contender] = {
    c.name: c
    for c in (
        Contender(ONE_AT_A_TIME, _one_at_a_time, _one_step, (1.0,), single=True),
        Contender("torch.func.vmap", _vmap, _one_step),
        Contender(JAX, jax_vmap, warm_up_jax, compiles=True, package="jax"),
        Contender(JAX_LAST, jax_member_last, warm_up_jax, (1.0,), compiles=True, package="jax"),
        Contender(EAGER, _eager, _one_ensemble_step),
        # What it compiles takes ten seconds, and is fastest at a block.
        Contender(TORCH_COMPILE, _torch_compile, _torch_compiler, (1.0,), compiles=True),
        Contender(COMPILED, _compiled, _one_compiled_step, compiles=True),
    )
}
