"""A loss and its gradient as a lane program."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

import ssa_theory.lanes.rules  # noqa: F401, which registers them
from ssa_theory.lanes.lower import Laned, Lowering
from ssa_theory.lanes.program import Node, Program, Source, Unsupported

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Traced:
    """loss: of each model. gradients: in the order of the parameters. constants: what the program
    reads beside parameters and batch, (..., member) where the source varies.
    """

    program: Program
    loss: Node
    gradients: list[Node]
    constants: list[Tensor]


def leaves(batch: Any) -> list[Tensor]:
    """The tensors of a batch, in order: of a dataclass, a sequence or a mapping of them."""
    if isinstance(batch, Tensor):
        return [batch]
    return [t for part in _parts(batch).values() for t in leaves(part)]


def signature(batch: Any) -> Hashable:
    """What a trace depends on: the form of a batch, the shapes of its tensors, and its numbers.

    Raises Unsupported for anything that is neither a tensor, a number nor made of them.
    """
    if isinstance(batch, Tensor):
        return tuple(batch.shape), batch.dtype
    if batch is None or isinstance(batch, int | float | str):
        return batch
    if not isinstance(batch, dict | list | tuple) and not is_dataclass(batch):
        raise Unsupported(f"a batch that holds a {type(batch).__name__}")
    return type(batch), *((name, signature(part)) for name, part in _parts(batch).items())


def _parts(batch: Any) -> dict[Any, Any]:
    if isinstance(batch, dict):
        return batch
    if isinstance(batch, list | tuple):
        return dict(enumerate(batch))
    if is_dataclass(batch):
        return {f.name: getattr(batch, f.name) for f in fields(batch)}
    return {}


def _filled(batch: Any, tensors: Iterator[Tensor]) -> Any:
    """The batch with other tensors."""
    if isinstance(batch, Tensor):
        return next(tensors)
    parts = {name: _filled(part, tensors) for name, part in _parts(batch).items()}
    if isinstance(batch, dict):
        return parts
    if isinstance(batch, list | tuple):
        made = parts.values()
        return type(batch)(*made) if hasattr(batch, "_fields") else type(batch)(made)
    return replace(batch, **parts) if parts else batch


@cache
def _decompositions() -> dict[Any, Any]:
    """Of operations into simpler ones."""
    from torch._decomp import core_aten_decompositions, get_decompositions

    table: dict[Any, Any] = dict(core_aten_decompositions())
    return table | get_decompositions([torch.ops.aten.linalg_vector_norm])


def trace(loss: Callable[[Parameters, Any], Tensor], parameters: Parameters, batch: Any) -> Traced:
    """loss(parameters, batch) and its gradient, traced once with these tensors.

    Raises Unsupported for what cannot be a lane program.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # seconds, which only tracing needs

    names, own = list(parameters), leaves(batch)
    count = len(names)

    def joint(*tensors: Tensor) -> tuple[Tensor, ...]:
        given = _filled(batch, iter(tensors[count:]))
        value = loss(dict(zip(names, tensors[:count], strict=True)), given)
        slopes = torch.autograd.grad(
            value.sum(), tensors[:count], allow_unused=True, materialize_grads=True
        )
        return value, *slopes

    start = [p.detach().clone().requires_grad_() for p in parameters.values()]
    graph = make_fx(joint, decomposition_table=_decompositions())(*start, *own)
    graph.graph.eliminate_dead_code()
    members = start[0].shape[-1]
    lower = Lowering(members, start[0].dtype)
    given = [_parameter(lower, i, p) for i, p in enumerate(start)]
    given += [_of_batch(lower, i, t, members) for i, t in enumerate(own)]
    value, *slopes = lower.graph(graph, given)
    return Traced(lower.program, value, slopes, lower.constants)


def _parameter(lower: Lowering, number: int, tensor: Tensor) -> Laned:
    shape = tuple(tensor.shape[:-1])
    return Laned(lower.program.add(Source(shape, "real", "parameter", number, True)), len(shape))


def _of_batch(lower: Lowering, number: int, tensor: Tensor, members: int) -> Laned:
    if not tensor.ndim or tensor.shape[-1] not in (1, members):
        raise Unsupported(
            f"a batch of shape {tuple(tensor.shape)}, whose last axis is not the model's"
        )
    shape, dtype = tuple(tensor.shape[:-1]), lower.dtype_of(tensor.dtype)
    varies = tensor.shape[-1] > 1
    return Laned(lower.program.add(Source(shape, dtype, "batch", number, varies)), len(shape))


def constants_in(traced: Traced, dtype: torch.dtype) -> Sequence[Tensor]:
    """As the kernel reads them: contiguous, real numbers in the precision of training."""
    return [
        (t.to(dtype) if t.is_floating_point() else t.to(torch.int64)).contiguous()
        for t in traced.constants
    ]
