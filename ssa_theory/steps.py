"""How a step of an ensemble is computed: loss, gradient and optimiser of all members at once.

Plain     operation by operation, wherever torch runs
Fused     the same as few kernels, by torch's compiler: on a GPU
Lanes     the same as one function of the processor's vector units: `ssa_theory.lanes`
"""

import abc
import time
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.adam import adam

from ssa_theory.lanes import (
    Kernel,
    Loss,
    Optimizer,
    Parameters,
    Unsupported,
    gradients,
    leaves,
    signature,
)
from ssa_theory.work import work

BETAS, EPSILON = (0.9, 0.999), 1e-8
_CALL = 0.2  # seconds that a call should take, so that progress and Ctrl-C do not wait for long
_MOST_KERNELS = 16  # of one training
_HELD = 2**26  # bytes of batches that a call may hold


@dataclass
class State:
    """What a step changes, in place: the parameters, contiguous, whether members diverged, and
    Adam's moments of every parameter.

    taken: steps that the moments hold.
    """

    parameters: Parameters
    diverged: Tensor
    mean: list[Tensor]
    square: list[Tensor]
    taken: int = 0

    @classmethod
    def of(cls, parameters: Parameters) -> "State":
        """A start: copies of the parameters."""
        own = {
            name: p.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
            for name, p in parameters.items()
        }
        values = [p.detach() for p in own.values()]
        bad = torch.zeros(values[0].shape[-1], dtype=torch.bool, device=values[0].device)
        return cls(
            own, bad, [torch.zeros_like(v) for v in values], [torch.zeros_like(v) for v in values]
        )


class Steps(abc.ABC):
    """Steps of one training."""

    def __init__(self, loss: Loss, state: State, optimizer: Optimizer, rate: float) -> None:
        self.loss, self.state, self.rate = loss, state, rate
        self.optimizer: Optimizer = optimizer

    @property
    def most(self) -> int:
        """How many steps to ask for at once."""
        return 1

    def restart(self, rate: float) -> None:
        """Go on at another learning rate, with nothing in the moments."""
        self.rate, self.state.taken = rate, 0
        for moment in (*self.state.mean, *self.state.square):
            moment.zero_()

    @abc.abstractmethod
    def advance(self, batches: Sequence[Any]) -> None:
        """One step a batch."""


def step(
    loss: Loss,
    state: State,
    batch: Any,
    optimizer: Optimizer,
    rate: float | Tensor,
    count: Sequence[Tensor],
    fused: bool,
) -> None:
    """One step of every member: its gradient, and the optimiser.

    count: the steps taken, a tensor a parameter. fused: Adam by torch's own kernel.
    """
    own = list(state.parameters.values())
    member_loss, felt = gradients(loss, state.parameters, batch)
    # The fused kernel pairs gradient and parameter by place in memory.
    slopes = [slope.contiguous() for slope in felt]
    with torch.no_grad():
        if optimizer == "sgd":
            for leaf, slope in zip(own, slopes, strict=True):
                leaf -= rate * slope
        else:
            adam(
                own,
                slopes,
                state.mean,
                state.square,
                [],
                list(count),
                lr=rate,
                beta1=BETAS[0],
                beta2=BETAS[1],
                eps=EPSILON,
                weight_decay=0.0,
                amsgrad=False,
                maximize=False,
                fused=fused,
                capturable=not fused,  # as tensor operations, which can be fused with the gradient's
            )
        state.diverged.logical_or_(~torch.isfinite(member_loss))


class _Counted(Steps):
    """With the number of steps taken as tensors, one a parameter, as torch's Adam has it."""

    precision: ClassVar[torch.dtype]

    def __init__(self, loss: Loss, state: State, optimizer: Optimizer, rate: float) -> None:
        super().__init__(loss, state, optimizer, rate)
        options = {"dtype": self.precision, "device": state.diverged.device}
        self._count = [torch.full((), state.taken, **options) for _ in state.mean]
        # As a number it would be a constant of a compiled graph, and each learning rate a
        # compilation of its own.
        self._rate = torch.full((), rate, **options)

    def restart(self, rate: float) -> None:
        super().restart(rate)
        self._rate.fill_(rate)
        for count in self._count:
            count.zero_()


class Plain(_Counted):
    """`step`, operation by operation."""

    precision = torch.float32  # which the fused kernel wants for a count

    def advance(self, batches: Sequence[Any]) -> None:
        for batch in batches:
            step(self.loss, self.state, batch, self.optimizer, self.rate, self._count, True)
            self.state.taken += 1


class Fused(_Counted):
    """`step`, compiled by torch: loss, gradient and optimiser as one graph."""

    precision = torch.float64

    def advance(self, batches: Sequence[Any]) -> None:
        import torch._dynamo  # takes seconds to import, which uncompiled training need not wait for

        # Every variant and shape is a compilation of its own, gradient included.
        with torch._dynamo.config.patch(
            trace_autograd_ops=True, recompile_limit=512, accumulated_recompile_limit=512
        ):
            for batch in batches:
                compiled = _compiled_step()
                try:
                    compiled(
                        self.loss, self.state, batch, self.optimizer, self._rate, self._count, False
                    )
                except Exception as error:  # each compiler fails in its own way
                    raise Unsupported(str(error) or type(error).__name__) from error
                self.state.taken += 1


@cache
def _compiled_step() -> Callable[..., None]:
    """One compiled function for all losses: a block of the same shapes finds what an earlier one
    compiled.
    """
    return torch.compile(step, fullgraph=True, dynamic=False)


class Lanes(Steps):
    """Many steps a call of a compiled kernel; one kernel for each form of a batch."""

    def __init__(self, loss: Loss, state: State, optimizer: Optimizer, rate: float) -> None:
        super().__init__(loss, state, optimizer, rate)
        self._kernels: dict[Hashable, Kernel] = {}
        self._most = 1
        self._own = [p.detach() for p in state.parameters.values()]
        self._losses = torch.empty_like(self._own[0][(0,) * (self._own[0].ndim - 1)])
        self._moments = (state.mean, state.square) if self.optimizer == "adam" else ()

    @property
    def most(self) -> int:
        return self._most

    def advance(self, batches: Sequence[Any]) -> None:
        given = [leaves(batch) for batch in batches]
        forms = [signature(batch) for batch in batches]
        first = 0
        for last in range(1, len(given) + 1):
            if last < len(given) and forms[last] == forms[first]:
                continue
            self._call(forms[first], batches[first], given[first:last])
            first = last

    def _call(self, form: Hashable, batch: Any, given: Sequence[Sequence[Tensor]]) -> None:
        if form not in self._kernels:
            if len(self._kernels) == _MOST_KERNELS:
                raise Unsupported("batches whose form or numbers change from step to step")
            try:
                kernel = Kernel(self.loss, self.state.parameters, batch, self.optimizer)
            except Exception as error:  # a loss that cannot be compiled fails in its own way
                raise Unsupported(str(error) or type(error).__name__) from error
            self._kernels[form] = kernel
        state, times = self.state, range(self.state.taken + 1, self.state.taken + len(given) + 1)
        rates, roots = [self.rate] * len(given), [1.0] * len(given)
        if self._moments:
            rates = [self.rate / (1 - BETAS[0] ** t) for t in times]
            roots = [(1 - BETAS[1] ** t) ** -0.5 for t in times]
        start = time.perf_counter()
        self._kernels[form].run(
            self._own, self._moments, given, rates, roots, self._losses, state.diverged
        )
        state.taken += len(given)
        took = max(1e-6, time.perf_counter() - start) / len(given)
        held = max(1, sum(t.nbytes for t in given[-1]))
        self._most = max(1, min(int(_CALL / took), 4 * self._most, _HELD // held))


def pays(loss: Loss, state: State, first: Sequence[Any], steps: int) -> bool:
    """Whether compiling so many steps, with batches like the first one, takes less time than they do
    uncompiled. Never on a GPU.
    """
    if state.diverged.device.type != "cpu" or not first:
        return False
    one = work(loss, state.parameters, first[0])
    return one.plain_seconds(steps) > one.compile_seconds


def steps_for(loss: Loss, state: State, optimizer: Optimizer, rate: float, compile: bool) -> Steps:
    """Compiled where that is asked for: by lanes on a processor, by torch on a GPU."""
    if not compile:
        return Plain(loss, state, optimizer, rate)
    cpu = state.diverged.device.type == "cpu"
    return (Lanes if cpu else Fused)(loss, state, optimizer, rate)


@cache
def notice(reason: str) -> None:
    """Say why nothing is compiled, once a process."""
    warnings.warn(
        f"training goes on uncompiled, as it cannot be compiled here: {reason}",
        RuntimeWarning,
        stacklevel=4,
    )
