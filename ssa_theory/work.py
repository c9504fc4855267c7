"""How much work an uncompiled step is, counted: by that it is decided whether compiling pays."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ssa_theory.lanes import Loss, Parameters, Watch, gradients

_OPERATION, _NUMBER = 1.5e-5, 8e-10  # seconds that one takes uncompiled, roughly
_COMPILER, _COMPILED = 0.25, 4e-3  # to compile a step, and for each of its operations, likewise


@dataclass(frozen=True)
class Work:
    """Of a loss and its gradient: how many operations, and the numbers that they make."""

    operations: int
    numbers: int

    def plain_seconds(self, steps: int) -> float:
        """About how long so many steps take operation by operation."""
        return steps * (_OPERATION * self.operations + _NUMBER * self.numbers)

    @property
    def compile_seconds(self) -> float:
        """About how long it takes to compile a step."""
        return _COMPILER + _COMPILED * self.operations


class _Counter(Watch):
    """Counts the operations that run within it, and the numbers that they make."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.numbers = 0, 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to make sure that dynamo leaves it alone, torch would import all of dynamo first,
        which takes as long as to import torch.
        """
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.operations += 1
            self.numbers += made.numel() if isinstance(made, Tensor) else 0
        return made


def work(loss: Loss, parameters: Parameters, batch: Any) -> Work:
    """Of one step, which is run once.

    The same for the same models on any machine, and so is what is chosen by it.
    """
    with _Counter() as counted:
        gradients(loss, parameters, batch)
    return Work(counted.operations, counted.numbers)
