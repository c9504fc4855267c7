"""How much work an uncompiled step is, counted: by that it is decided whether compiling pays."""

from typing import Any

from torch import Tensor

from ssa_theory.lanes import Loss, Parameters, Watch, gradients

_OPERATION, _NUMBER = 1.5e-5, 8e-10  # seconds that one takes uncompiled, roughly


class _Work(Watch):
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


def plain_seconds(loss: Loss, parameters: Parameters, batch: Any, steps: int) -> float:
    """About how long so many steps take operation by operation, by counting one.

    The same for the same models on any machine, and so is what is chosen by it.
    """
    with _Work() as work:
        gradients(loss, parameters, batch)
    return steps * (_OPERATION * work.operations + _NUMBER * work.numbers)
