"""A loss and its gradient as the list of the operations that run for them.

They run with the tensors that they are for: what a loss closes over is found where it is used, and
whatever Python makes of it (a number, a branch) is in the list. So losses with equal lists are the
same program, for which their tensors may differ.
"""

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ssa_theory.lanes.program import Unsupported

Parameters = dict[str, Tensor]
Loss = Callable[[Parameters, Any], Tensor]


@dataclass(frozen=True)
class Value:
    """A tensor of a record, by its number."""

    number: int


@dataclass(frozen=True)
class Operation:
    """One that ran.

    args, options: with a Value for each tensor. made: the numbers of its results. shape, dtype: of
    the first of them.
    """

    target: Any
    args: tuple
    options: dict[str, Any]
    made: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype | None

    @property
    def name(self) -> str:
        """One in place has the name of what it writes."""
        return opname(self.target)


@dataclass(frozen=True)
class Record:
    """The operations of a loss and its gradient.

    parameters, batch: shapes and types of what they are given, whose values have the first numbers.
    operations: those that depend on it. results: the loss, and the slope of each parameter. known:
    the tensors that depend on nothing given, by number. fixed: those of them that are the same
    wherever the record is. key: equal where everything but `known` is.
    """

    parameters: list[tuple[tuple[int, ...], torch.dtype]]
    batch: list[tuple[tuple[int, ...], torch.dtype]]
    operations: list[Operation]
    results: tuple[int, ...]
    known: dict[int, Tensor]
    fixed: frozenset[int]
    key: str


def opname(target: Any) -> str:
    """Of an operation; one in place is what it writes."""
    return str(getattr(target, "_opname", target)).rstrip("_")


def leaves(batch: Any) -> list[Tensor]:
    """The tensors of a batch, in order: of a dataclass, a sequence or a mapping of them."""
    if isinstance(batch, Tensor):
        return [batch]
    return [t for part in _parts(batch).values() for t in leaves(part)]


def signature(batch: Any) -> Hashable:
    """What a record depends on: the form of a batch, the shapes of its tensors, and its numbers.

    Raises Unsupported for anything that is neither a tensor, a number nor made of them.
    """
    if isinstance(batch, Tensor):
        return tuple(batch.shape), batch.dtype
    if batch is None or isinstance(batch, int | float | str):
        return type(batch), repr(batch)
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


def gradients(loss: Loss, parameters: Parameters, batch: Any) -> tuple[Tensor, list[Tensor]]:
    """Of each member: its loss, and its gradient.

    A parameter that the loss does not feel, as a sink's logit where its mass is given back, has the
    gradient 0.
    """
    value = loss(parameters, batch)
    slopes = torch.autograd.grad(
        value.sum(), list(parameters.values()), allow_unused=True, materialize_grads=True
    )
    return value, list(slopes)


def record(loss: Loss, parameters: Parameters, batch: Any, keep: Callable[[str], bool]) -> Record:
    """What runs for the loss and its gradient at these parameters and this batch.

    keep: the names of the operations that stay as they are; others are taken apart if torch can.
    Raises Unsupported where the list may be another for other numbers.
    """
    start = {k: p.detach().clone().requires_grad_() for k, p in parameters.items()}
    own = [t.detach() for t in leaves(batch)]  # others than a loss may hold itself
    given = [*start.values(), *own]
    recorder = _Recorder(given, keep)
    with recorder:
        value, slopes = gradients(loss, start, _filled(batch, iter(own)))
    results = tuple(recorder.number(t) for t in (value, *slopes))
    forms = [(tuple(t.shape), t.dtype) for t in given]
    key = repr((len(start), forms, recorder.outside, recorder.lines, results))
    return Record(
        forms[: len(start)],
        forms[len(start) :],
        recorder.operations,
        results,
        recorder.known,
        frozenset(recorder.fixed),
        hashlib.sha256(key.encode()).hexdigest(),
    )


@cache
def _simpler() -> dict[Any, Callable]:
    """Of operations into simpler ones."""
    import torch._decomp

    return torch._decomp.decomposition_table


class Watch(TorchDispatchMode):
    """Sees the operations that run within it, without torch's compiler, whose import takes seconds."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class _Recorder(Watch):
    """known, fixed, operations: see `Record`. lines: every operation. outside: of each tensor that
    comes from elsewhere, what is told of it.
    """

    def __init__(self, given: Sequence[Tensor], keep: Callable[[str], bool]) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.lines: list[tuple] = []
        self.outside: list[tuple] = []
        self.known: dict[int, Tensor] = {}
        self.fixed: set[int] = set()
        self._keep = keep
        self._numbers: dict[int, int] = {}
        self._alive: list[Tensor] = []  # as long as there are numbers of them
        self._in: dict[int, list[Tensor]] = {}  # each memory, by what it is known as
        self._places: dict[int, int] = {}
        self._own: set[int] = set()  # tensors that the loss has made
        for tensor in given:
            self._register(tensor)

    def number(self, tensor: Tensor) -> int:
        """Of a tensor; one that is seen for the first time comes from elsewhere."""
        if id(tensor) not in self._numbers:
            made = self._register(tensor)
            self.known[made] = tensor
            memory = tensor.untyped_storage()._cdata
            place = self._places.setdefault(memory, len(self._places))
            self.outside.append((made, tensor.dtype, place, *_place(tensor)))
        return self._numbers[id(tensor)]

    def _register(self, tensor: Tensor) -> int:
        self._alive.append(tensor)
        number = self._numbers[id(tensor)] = len(self._alive) - 1
        self._in.setdefault(tensor.untyped_storage()._cdata, []).append(tensor)
        return number

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        options = kwargs or {}
        if func is torch.ops.aten.lift_fresh.default:  # of a tensor made from numbers of Python
            return args[0]
        read = [self.number(t) for t in _tensors((args, tuple(options.values())))]
        name = opname(func)
        if name == "full_like":
            read = []  # what it is like does not matter
        varies = any(n not in self.known for n in read)
        if varies and not self._keep(name):
            with self:
                simpler = (_simpler().get(func) or func.decompose)(*args, **options)
            if simpler is not NotImplemented:
                return simpler
        _refuse(func, varies)
        written = self._written(func, args[0]) if func._schema.is_mutable else []
        values = _with_values(args, self), _with_values(options, self)
        out = func(*args, **options)
        made = tuple(self._made(t, read) for t in _tensors((out,)))
        self._numbers.update((id(t), made[0]) for t in written)
        shape, dtype = _form(out)
        self.lines.append((func, *values, made, shape, dtype))
        if varies:
            self.operations.append(Operation(func, *values, made, shape, dtype))
        return out

    def _made(self, tensor: Tensor, read: Sequence[int]) -> int:
        """A result's number; what is written in place, or returned as it came, gets a new one."""
        number = self._register(tensor)
        self._own.add(id(tensor))
        if all(n in self.known for n in read):
            self.known[number] = tensor
            if all(n in self.fixed for n in read):
                self.fixed.add(number)
        return number

    def _written(self, func: Any, tensor: Tensor) -> list[Tensor]:
        """All that change where a tensor is written in place. Raises Unsupported where that is lasting,
        or changes a part of another.
        """
        changed = self._in[tensor.untyped_storage()._cdata]
        for other in changed:
            whole = _place(other) == _place(tensor)
            if id(other) not in self._own or not whole or not str(func._opname).endswith("_"):
                raise Unsupported(f"{func} of a tensor with another name")
            number = self._numbers[id(other)]
            if number in self.known:
                self.known[number] = tensor.clone()
        return changed


def _place(tensor: Tensor) -> tuple:
    """Where it stands in its memory."""
    return tensor.shape, tensor.stride(), tensor.storage_offset()


def _refuse(func: Any, varies: bool) -> None:
    if torch.Tag.nondeterministic_seeded in func.tags:
        raise Unsupported(f"the operation {opname(func)}, whose numbers are drawn at random")
    if varies and torch.Tag.data_dependent_output in func.tags:
        raise Unsupported(f"the operation {opname(func)}: what is computed depends on numbers")


def _tensors(parts: Iterable[Any]) -> Iterator[Tensor]:
    for part in parts:
        if isinstance(part, Tensor):
            yield part
        elif isinstance(part, list | tuple):
            yield from _tensors(part)


def _with_values(part: Any, recorder: _Recorder) -> Any:
    if isinstance(part, Tensor):
        return Value(recorder.number(part))
    if isinstance(part, list | tuple):
        return tuple(_with_values(p, recorder) for p in part)
    if isinstance(part, dict):
        return {name: _with_values(p, recorder) for name, p in part.items()}
    return part


def _form(out: Any) -> tuple[tuple[int, ...], torch.dtype | None]:
    first = next(_tensors((out,)), None)
    return ((), None) if first is None else (tuple(first.shape), first.dtype)
