"""JAX as a peer: the whole training of a model, Adam included, as one compiled program."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.bench import losses
from analysis.bench.losses import import_jax, jax_ops
from analysis.bench.workload import LEARNING_RATE, Arrays, Start, Workload
from ssa_theory.steps import BETAS, EPSILON

CHUNK = 512
"""Models of one pass in the member-last layout, with which it is fastest."""


def warm_up_jax() -> None:
    """Compile something."""
    jax = import_jax()
    jax.jit(lambda x: x + 1)(jax.numpy.zeros(64)).block_until_ready()


def _training(
    loss: Callable[[losses.Arrays, losses.Arrays], Any], steps: int
) -> Callable[[losses.Arrays, losses.Arrays, Sequence[losses.Arrays]], losses.Arrays]:
    """From parameters, data and the batches of each step in turn, what is learned: one scan."""
    jax = import_jax()
    jnp = jax.numpy
    first, second = BETAS

    def train(
        parameters: losses.Arrays, data: losses.Arrays, batches: Sequence[losses.Arrays]
    ) -> losses.Arrays:
        zeros = jax.tree.map(jnp.zeros_like, parameters)
        pool = jax.tree.map(lambda *parts: jnp.stack(parts), *batches)

        def step(state: tuple, t: Any) -> tuple:
            p, m, v = state
            # One batch is a constant of the program, which may be used before the loop.
            at = (t - 1) % len(batches)
            batch = batches[0] if len(batches) == 1 else jax.tree.map(lambda x: x[at], pool)
            g = jax.grad(loss)(p, data | batch)
            m = jax.tree.map(lambda m, g: first * m + (1 - first) * g, m, g)
            v = jax.tree.map(lambda v, g: second * v + (1 - second) * g * g, v, g)
            time = t.astype(next(iter(p.values())).dtype)
            scale, bias = LEARNING_RATE / (1 - first**time), jnp.sqrt(1 - second**time)
            p = jax.tree.map(
                lambda p, m, v: p - scale * m / (jnp.sqrt(v) / bias + EPSILON), p, m, v
            )
            return (p, m, v), None

        return jax.lax.scan(step, (parameters, zeros, zeros), jnp.arange(1, steps + 1))[0][0]

    return train


def _ready(start: Start) -> Any:
    """JAX, in the precision of the start and on its device."""
    jax = import_jax()
    some = next(iter(start.parameters.values()))
    if some.device.type == "cuda" and jax.default_backend() != "gpu":
        raise RuntimeError("JAX sees no GPU here")
    jax.config.update("jax_enable_x64", some.dtype == torch.float64)
    return jax


def _array(tensor: Tensor) -> Any:
    jax = import_jax()
    return jax.device_put(jax.numpy.asarray(tensor.contiguous().cpu().numpy()))


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array))


def jax_vmap(workload: Workload, start: Start, steps: int) -> Callable[[], Arrays]:
    """jit(vmap(scan)): the training of one model mapped over all."""
    jax = _ready(start)
    ops = jax_ops(member_last=False)

    def member_first(arrays: Arrays) -> losses.Arrays:
        return {k: _array(v.movedim(-1, 0)) for k, v in arrays.items()}

    initial, own = member_first(start.parameters), member_first(start.own)
    batches = [member_first(b) for b in start.batches]
    shared = {k: _array(v) for k, v in start.shared.items()}
    axes = dict.fromkeys(shared) | dict.fromkeys(own, 0)
    train = _training(lambda p, data: workload.loss(ops, p, data), steps)
    trained = jax.jit(jax.vmap(train, in_axes=(0, axes, 0)))

    def run() -> Arrays:
        learned = jax.block_until_ready(trained(initial, shared | own, batches))
        return {k: _tensor(v).movedim(0, -1) for k, v in learned.items()}

    return run


def jax_member_last(workload: Workload, start: Start, steps: int) -> Callable[[], Arrays]:
    """The models last in every array, chunk after chunk of them: `lax.map` over the scan.

    The last chunk is filled up with the last model.
    """
    jax = _ready(start)
    ops = jax_ops(member_last=True)
    members = start.members
    chunks = -(-members // CHUNK)
    size = min(CHUNK, members)
    filled = torch.arange(chunks * size).clamp(max=members - 1)

    def cut(arrays: Arrays) -> losses.Arrays:
        parts = {
            k: v[..., filled.to(v.device)].unflatten(-1, (chunks, size)) for k, v in arrays.items()
        }
        return {k: _array(v.movedim(-2, 0)) for k, v in parts.items()}

    initial, own = cut(start.parameters), cut(start.own)
    batches = [cut(b) for b in start.batches]
    shared = {k: _array(v)[..., None] for k, v in start.shared.items()}
    train = _training(lambda p, data: workload.loss(ops, p, data).sum(), steps)

    @jax.jit
    def trained(initial: Any, own: Any, batches: Any) -> Any:
        return jax.lax.map(
            lambda part: train(part[0], shared | part[1], part[2]), (initial, own, batches)
        )

    def run() -> Arrays:
        learned = jax.block_until_ready(trained(initial, own, batches))
        tensors = {k: _tensor(v).movedim(0, -2).flatten(-2) for k, v in learned.items()}
        return {k: v[..., :members] for k, v in tensors.items()}

    return run
