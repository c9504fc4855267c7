"""The contenders of the benchmark: each trains the same block of models with Adam, the way a
competent user of its tool would.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.bench.workloads import LEARNING_RATE, Arrays, Start, Workload, import_jax
from ssa_theory.ensemble import train

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam, the defaults of PyTorch


@dataclass(frozen=True)
class Contender:
    """One way to train.

    prepare(workload, start, steps) arranges the data as the contender wants it, which is not timed,
    and returns the training: a function that trains all models from the start and returns their
    parameters, (..., member). warm_up does one thing with the tool, so that all it imports on first
    use is there: the memory of a process that does nothing else is not the training's. single:
    whether it trains one model at a time, and is given a few. package: what must be installed for
    it.
    """

    name: str
    prepare: Callable[[Workload, Start, int], Callable[[], Arrays]]
    warm_up: Callable[[], object]
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


def _ensemble(compile: bool) -> Callable[[Workload, Start, int], Callable[[], Arrays]]:
    def prepare(workload: Workload, start: Start, steps: int) -> Callable[[], Arrays]:
        loss = workload.ensemble_loss(start)
        options = {"steps": steps, "learning_rate": LEARNING_RATE, "compile": compile}
        return lambda: train(loss, start.parameters, **options).parameters

    return prepare


def _one_at_a_time(workload: Workload, start: Start, steps: int) -> Callable[[], Arrays]:
    """A plain loop of `backward` and fused Adam, model after model."""

    def of(arrays: Arrays, member: int) -> Arrays:
        return {k: v[..., member].contiguous() for k, v in arrays.items()}

    members = range(start.members)
    initial = [of(start.parameters, m) for m in members]
    data = [of(start.own, m) | start.shared for m in members]

    def run() -> Arrays:
        learned = []
        for first, own in zip(initial, data, strict=True):
            parameters = {k: v.clone().requires_grad_() for k, v in first.items()}
            optimizer = torch.optim.Adam(parameters.values(), lr=LEARNING_RATE, fused=True)
            for _ in range(steps):
                optimizer.zero_grad()
                workload.torch_loss(parameters, own).backward()
                optimizer.step()
            learned.append(parameters)
        return {k: torch.stack([p[k].detach() for p in learned], dim=-1) for k in initial[0]}

    return run


def _member_first(arrays: Arrays) -> Arrays:
    return {k: v.movedim(-1, 0).contiguous() for k, v in arrays.items()}


def _vmap(workload: Workload, start: Start, steps: int) -> Callable[[], Arrays]:
    """The gradient of one model mapped over all, member first, and fused Adam on the stacked
    parameters.
    """
    initial, own = _member_first(start.parameters), _member_first(start.own)
    axes = dict.fromkeys(own, 0) | dict.fromkeys(start.shared)
    gradient = torch.func.vmap(torch.func.grad(workload.torch_loss), in_dims=(0, axes))
    data = own | start.shared

    def run() -> Arrays:
        parameters = {k: v.clone() for k, v in initial.items()}
        optimizer = torch.optim.Adam(parameters.values(), lr=LEARNING_RATE, fused=True)
        for _ in range(steps):
            for name, slope in gradient(parameters, data).items():
                parameters[name].grad = slope.contiguous()
            optimizer.step()
        return {k: v.movedim(0, -1) for k, v in parameters.items()}

    return run


def _jax(workload: Workload, start: Start, steps: int) -> Callable[[], Arrays]:
    """jit(vmap(scan)): the whole training of one model, Adam included, mapped over all and compiled
    as one program.
    """
    jax = import_jax()
    jnp = jax.numpy
    device = next(iter(start.parameters.values())).device
    first, second = BETAS

    def train_one(parameters: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        zeros = jax.tree.map(jnp.zeros_like, parameters)

        def step(state: tuple, t: Any) -> tuple:
            p, m, v = state
            g = jax.grad(workload.jax_loss)(p, data)
            m = jax.tree.map(lambda m, g: first * m + (1 - first) * g, m, g)
            v = jax.tree.map(lambda v, g: second * v + (1 - second) * g * g, v, g)
            scale, bias = LEARNING_RATE / (1 - first**t), jnp.sqrt(1 - second**t)
            p = jax.tree.map(
                lambda p, m, v: p - scale * m / (jnp.sqrt(v) / bias + EPSILON), p, m, v
            )
            return (p, m, v), None

        counted = jnp.arange(1, steps + 1, dtype=next(iter(parameters.values())).dtype)
        return jax.lax.scan(step, (parameters, zeros, zeros), counted)[0][0]

    def array(tensor: Tensor) -> Any:
        return jax.device_put(jnp.asarray(tensor.cpu().numpy()))

    if device.type == "cuda" and jax.default_backend() != "gpu":
        raise RuntimeError("JAX sees no GPU here")
    jax.config.update(
        "jax_enable_x64", any(v.dtype == torch.float64 for v in start.parameters.values())
    )
    initial = {k: array(v) for k, v in _member_first(start.parameters).items()}
    own = {k: array(v) for k, v in _member_first(start.own).items()}
    shared = {k: array(v) for k, v in start.shared.items()}
    axes = dict.fromkeys(own, 0) | dict.fromkeys(shared)
    trained = jax.jit(jax.vmap(train_one, in_axes=(0, axes)))

    def run() -> Arrays:
        learned = jax.block_until_ready(trained(initial, own | shared))
        return {k: torch.from_numpy(np.array(v)).movedim(0, -1) for k, v in learned.items()}

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


def _one_jax_addition() -> None:
    jax = import_jax()
    jax.jit(lambda x: x + 1)(jax.numpy.zeros(64)).block_until_ready()


ONE_AT_A_TIME, EAGER, COMPILED = (
    "one model at a time",
    "this trainer, eager",
    "this trainer, compiled",
)
CONTENDERS: dict[str, Contender] = {
    c.name: c
    for c in (
        Contender(ONE_AT_A_TIME, _one_at_a_time, _one_step, single=True),
        Contender("torch.func.vmap", _vmap, _one_step),
        Contender("JAX jit(vmap(scan))", _jax, _one_jax_addition, compiles=True, package="jax"),
        Contender(EAGER, _ensemble(False), _one_ensemble_step),
        Contender(COMPILED, _ensemble(True), _one_compiled_step, compiles=True),
    )
}
