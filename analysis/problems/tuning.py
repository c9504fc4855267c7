"""The learning rate of each mechanism on a problem, tuned alike for all: one grid, on seeds that no
run reports.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import cast

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

from analysis.problems.base import Block, Problem, Training, Variable, fit
from ssa_theory.mechanism import Layer, Mechanism

TUNING_SEEDS = range(2**63 - 8, 2**63)
"""The last that there are."""
TRIED_STEPS = (0.25, 0.5, 1.0)
"""Shares of the steps at the full rate after which a tuning is scored; rates are chosen at the last."""
TUNED = "learning rate of the mechanism, tuned on seeds that are not reported"
"""What a result says of it."""
TRIED = (
    "the problem's objective in tuning at each rate, after each share of the steps: geometric mean "
    "over the tuning seeds, which are not reported; infinite where one diverged"
)
"""What it says of `tuning_error`."""
_BYTES = 1 << 30
"""Of a block on which rates are tuned."""
_SMALLEST = 1e-9
"""Of an objective: below it lies rounding."""


@dataclass(frozen=True)
class Tuned:
    """What tuning found for the mechanisms of a comparison, in order.

    rates: that were tried. members: the dimensions of the problem's members. scores: mean over
    `TUNING_SEEDS` of the log of the problem's objective, infinite where any seed diverged; of a
    single rate there is no choice, nothing is trained, and they are 0.
    """

    rates: tuple[float, ...]
    members: tuple[str, ...]
    scores: Float[np.ndarray, "mechanism rate step *members"]

    @property
    def rate(self) -> np.ndarray:
        """That of the least score after all steps (mechanism, *members). One at which a seed diverged
        is not chosen while another is left.
        """
        return np.array(self.rates, np.float64)[np.argmin(self.scores[:, :, -1], axis=1)]

    @property
    def variables(self) -> dict[str, Variable]:
        """`learning_rate` (mechanism, *members), and where there was a choice `tuning_error`
        (mechanism, tried_rate, tried_step, *members) with its labels.
        """
        chosen = ("mechanism", *self.members), self.rate, {"description": TUNED}
        if len(self.rates) == 1:
            return {"learning_rate": chosen}
        dims = ("mechanism", "tried_rate", "tried_step", *self.members)
        return {
            "learning_rate": chosen,
            "tuning_error": (dims, np.exp(self.scores), {"description": TRIED}),
            "tried_rate": (("tried_rate",), np.array(self.rates), {}),
            "tried_step": (("tried_step",), np.array(TRIED_STEPS), {}),
        }


def tune(
    problem: Problem,
    mechanisms: Sequence[Mechanism],
    training: Training,
    rates: Sequence[float],
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> Tuned:
    """Score each mechanism at each rate, or at that of `training` where there are none. A process
    tunes once, whatever the blocks that it trains.
    """
    grid = tuple(rates) or (training.learning_rate,)
    scores = [_once(problem, m, training, grid, device, progress) for m in mechanisms]
    if len(scores) > 1:  # of single ones the next is often on the same data
        block_of.cache_clear()
    return Tuned(grid, tuple(problem.members), np.stack(scores))


_SCORED: dict[tuple[object, ...], np.ndarray] = {}


def _once(
    problem: Problem,
    mechanism: Mechanism,
    training: Training,
    grid: tuple[float, ...],
    device: torch.device,
    progress: Callable[[int], None] | None,
) -> np.ndarray:
    """The scores of one mechanism (rate, step, *members), computed once in a process."""
    layer = problem.layer(mechanism)
    if len(grid) == 1:
        return np.zeros((1, len(TRIED_STEPS), *map(len, problem.members.values())))
    key = (problem.for_tuning, mechanism, training, grid, device)
    if key not in _SCORED:
        _SCORED[key] = _scores(problem.for_tuning, layer, training, grid, device, progress)
    elif progress is not None:
        progress(training.total_steps)
    return _SCORED[key]


def _scores(
    problem: Problem,
    layer: Layer,
    training: Training,
    rates: tuple[float, ...],
    device: torch.device,
    progress: Callable[[int], None] | None,
) -> np.ndarray:
    """Every rate and seed is a member, trained as `training` says but for its rate; all at a time,
    as far as memory allows. What is scored before the end has had no cooldown.
    """
    shape = tuple(map(len, problem.members.values()))
    highest = training.at(max(rates))
    members = [(rate, seed) for rate in rates for seed in TUNING_SEEDS]
    at_once = max(1, _BYTES // problem.bytes_per_seed(highest))
    values = []
    for start in range(0, len(members), at_once):
        factors, seeds = zip(*members[start : start + at_once], strict=True)
        block = block_of(problem, seeds, highest, device)
        relative = np.repeat(np.array(factors) / highest.learning_rate, math.prod(shape)).tolist()
        # Progress is told of a program once, however many there are.
        told = None if start else progress
        values.append(_objectives(problem, block, layer, highest, relative, told))
    each = np.concatenate(values, 1).reshape(
        len(TRIED_STEPS), len(rates), len(TUNING_SEEDS), *shape, -1
    )
    score = np.log(np.maximum(each.mean(-1), _SMALLEST)).mean(2).swapaxes(0, 1)
    return np.where(np.isfinite(score), score, np.inf)


def _objectives(
    problem: Problem,
    block: Block,
    layer: Layer,
    training: Training,
    relative: list[float],
    progress: Callable[[int], None] | None,
) -> np.ndarray:
    """The problem's objective (step, member, ...) after each of `TRIED_STEPS` of one training."""
    before = [math.ceil(share * training.steps) for share in TRIED_STEPS[:-1]]
    kept = sorted(set(before))
    final = fit(block, layer, training, relative, record=kept, measure=dict, progress=progress)
    whole = {k: torch.where(final.diverged, 0.0, v.double()) for k, v in final.history.items()}
    parts = [{k: v[kept.index(step)] for k, v in whole.items()} for step in before]
    found = []
    for parameters in (*parts, final.parameters):
        measured = block.evaluate(layer.evaluated, replace(final, parameters=parameters))
        found.append(final.by_member({"": measured[problem.objective]})[""])
    return np.stack(found)


def tuning_error(error: xr.DataArray, smallest: float = _SMALLEST) -> xr.DataArray:
    """That of an experiment which reports every rate, and tunes on seeds of its own.

    error: of these seeds, along `seed`, `learning_rate` and `tried_step`. smallest: what is below
    counts as it.
    """
    score = cast(xr.DataArray, np.log(error.clip(min=smallest))).mean("seed", skipna=False)
    found = cast(xr.DataArray, np.exp(score.fillna(np.inf)))  # numpy does not say it stays one
    return found.rename(learning_rate="tried_rate").assign_attrs(description=TRIED)


@lru_cache(maxsize=2)
def block_of(
    problem: Problem, seeds: tuple[int, ...], training: Training, device: torch.device
) -> Block:
    """The data of a problem, drawn once for mechanisms that come one after the other: of the seeds
    that tune, and of those that are reported.
    """
    return problem.block(seeds, training, device)


def tuning_models(rates: Sequence[float]) -> int:
    """How many models of a mechanism are trained to tune its rate."""
    return len(rates) * len(TUNING_SEEDS) if len(rates) > 1 else 0
