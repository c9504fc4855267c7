"""Whether a model is trained to the end: what a comparison at equal steps leaves open."""

from collections.abc import Sequence

from torch import Tensor

from analysis.problems.base import Block, Fitted, Measure, Training
from ssa_theory.mechanism import Layer

CHANGE = 0.01
"""Of the loss, as a share: what changes by less has settled."""
SETTLED = {
    "settled": Measure(
        (),
        f"whether the exact loss changed by under {CHANGE:.0%} over the last third of the training, "
        "or a little more of it, from the recorded step before; no diverged model has",
    )
}


def settled(
    block: Block, layer: Layer, fitted: Fitted, training: Training, record: Sequence[int]
) -> dict[str, Tensor]:
    """`SETTLED` by member, where a loss was recorded at half to two thirds of all steps."""
    total = training.total_steps
    steps = sorted({step for step in record if step <= training.steps})
    before = [at for at, step in enumerate(steps) if total / 2 <= step <= 2 * total / 3]
    history = block.loss_of(fitted.history) if before else None
    if history is None:
        return {}
    end = block.loss_of(block.recorded(layer.evaluated, fitted.parameters))
    assert end is not None  # as it was recorded before
    then = history[before[-1]]
    return {"settled": ((end - then).abs() < CHANGE * then.abs()) & ~fitted.diverged}
