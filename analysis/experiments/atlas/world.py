"""What a column of the atlas is: a problem, what is measured of its models, and the scale."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analysis.problems.base import Block, Fitted, Problem, Training
from analysis.problems.measures import singular_values, spikiness
from analysis.problems.tuning import block_of
from ssa_theory.mechanism import Inputs, Layer, Parameters
from ssa_theory.mechanism.parts import own

Ends = tuple[np.ndarray, np.ndarray]
"""By seed, the risks of Bayes and of the naive predictor."""
ENDS = {
    "bayes": "risk of the exact Bayes predictor on the same data",
    "naive": "risk of the naive predictor on the same data",
}


@dataclass(frozen=True)
class Column:
    """One column of the atlas, of the trained models of a problem.

    risk: of every model (member,), from what its block's `evaluate` returns. ends: those of a
    block's seeds. inputs: what a layer sees of a block's held-out data. spikiness: of every model,
    where the inputs' rows are not those over all keys.
    """

    risk: Callable[[Mapping[str, Tensor]], Tensor]
    ends: Callable[[Any], Ends]
    inputs: Callable[[Any], Sequence[Inputs]]
    spikiness: Callable[[Any, Layer, Parameters], Tensor] | None = None


MEASURED = {
    "risk": "held-out risk of the trained model, in the problem's own measure",
    "weight_norm": "spectral norm ||W||_2 of the trained W, |w| of a constant query; NaN without W",
    "effective_norm": "mean over held-out queries of tau_i ||W||_2; of normalised queries and keys "
    "tau_i g; tau_i where scores are given",
    "largest_score": "largest |z_ij| over held-out queries and keys",
    "spikiness": "mean over held-out rows of 1 / (n sum_j p_ij^2): 1 uniform, 1/n for one key",
}
"""What is measured of every model in a column."""


@dataclass(frozen=True, eq=False)
class World:
    """A problem, measured in the columns that its trained models fill, by name."""

    problem: Problem
    columns: Mapping[str, Column]

    def measured(self, block: Block, layer: Layer, fitted: Fitted) -> dict[str, Tensor]:
        """`MEASURED` of the models that are trained on a block (column, member)."""
        values = block.evaluate(layer, fitted)
        each = [_of_column(c, block, layer, fitted, values) for c in self.columns.values()]
        return {name: torch.stack([one[name] for one in each]) for name in each[0]}


@lru_cache(maxsize=1)
def ends(
    world: World, seeds: tuple[int, ...], training: Training, device: torch.device
) -> Float[np.ndarray, "2 problem seed"]:
    """The ends of the scale of every column, `ENDS`, once for all mechanisms."""
    block = block_of(world.problem, seeds, training, device)
    return np.stack([column.ends(block) for column in world.columns.values()], axis=1)


def _of_column(
    column: Column, block: Block, layer: Layer, fitted: Fitted, values: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """`MEASURED` in one column (member,). values: of the block's `evaluate`."""
    final, inputs = fitted.parameters, column.inputs(block)
    if column.spikiness is None:
        rows = [spikiness(layer.prediction(final, one), dim=1).mean(0) for one in inputs]
        spiky = torch.stack(rows).mean(0)
    else:
        spiky = column.spikiness(block, layer, final)
    return {"risk": column.risk(values), "spikiness": spiky, **_norms(layer, fitted, inputs)}


def _norms(layer: Layer, fitted: Fitted, inputs: Sequence[Inputs]) -> dict[str, Tensor]:
    """How large weights and scores are."""
    final, members = fitted.parameters, len(fitted.diverged)
    norm = torch.full((members,), torch.nan, dtype=torch.float64)
    unit = torch.ones_like(norm)  # of given scores tau is all
    if "weight" in final:
        weight = final["weight"]
        norm = unit = singular_values(weight if weight.ndim == 3 else weight.unsqueeze(0))[0]
    scale = layer.mechanism.score.norm(own(final, "score"), unit)
    tau = [layer.inverse_temperature("query", final, one) for one in inputs]
    scores = [layer.scores(final, one).abs().amax((0, 1)) for one in inputs]
    each = [(t * scale).reshape(-1, members).mean(0) for t in tau]
    return {
        "weight_norm": norm,
        "effective_norm": torch.stack(each).mean(0),
        "largest_score": torch.stack(scores).amax(0),
    }
