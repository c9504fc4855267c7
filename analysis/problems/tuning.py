"""The learning rate of each mechanism on a problem, and the size of its initial query-key weights,
tuned alike for all: one grid, on seeds that no run reports.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

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
STARTED = "factor on the mechanism's initial query-key weights, tuned together with its rate"
TRIED = (
    "the problem's objective in tuning at each rate (and start), after each share of the steps, of each "
    "tuning seed, which are not reported; infinite where it diverged"
)
"""What it says of `tuning_error`."""
_BYTES = 1 << 30
"""Of a block on which rates are tuned."""
_SMALLEST = 1e-9
"""Of an objective: below it lies rounding."""


@dataclass(frozen=True)
class Tuned:
    """What tuning found for the mechanisms of a comparison, in order.

    rates, starts: that were tried, all pairs. members: the dimensions of the problem's members.
    scores: the log of the problem's objective, infinite where the model diverged; of a single pair
    there is no choice, nothing is trained, and they are 0.
    """

    rates: tuple[float, ...]
    starts: tuple[float, ...]
    members: tuple[str, ...]
    scores: Float[np.ndarray, "mechanism rate start step *members seed"]

    @property
    def rate(self) -> np.ndarray:
        """That of the least mean score after all steps (mechanism, *members). One at which a seed
        diverged is not chosen while another is left.
        """
        return np.array(self.rates, np.float64)[self._best[0]]

    @property
    def start(self) -> np.ndarray:
        """The start that goes with it (mechanism, *members)."""
        return np.array(self.starts, np.float64)[self._best[1]]

    @property
    def _best(self) -> tuple[np.ndarray, ...]:
        last = self.scores[:, :, :, -1].mean(-1)
        pair = last.reshape(len(last), -1, *last.shape[3:]).argmin(1)
        return np.unravel_index(pair, last.shape[1:3])

    @property
    def variables(self) -> dict[str, Variable]:
        """`learning_rate` (mechanism, *members); where there was a choice `tuning_error` (mechanism,
        tried_rate, tried_step, *members, tuning_seed) with its labels; where starts were tried
        `start`, and `tried_start` after `tried_rate`.
        """
        by_model, errors = ("mechanism", *self.members), np.exp(self.scores)
        found: dict[str, Variable] = {
            "learning_rate": (by_model, self.rate, {"description": TUNED})
        }
        if len(self.rates) * len(self.starts) == 1:
            return found
        tried = {"tried_rate": self.rates, "tried_start": self.starts, "tried_step": TRIED_STEPS}
        if len(self.starts) == 1:
            del tried["tried_start"]
            errors = errors[:, :, 0]
        else:
            found["start"] = by_model, self.start, {"description": STARTED}
        dims = ("mechanism", *tried, *self.members, "tuning_seed")
        found["tuning_error"] = dims, errors, {"description": TRIED}
        labels = {**tried, "tuning_seed": TUNING_SEEDS}
        return found | {name: ((name,), np.array(at), {}) for name, at in labels.items()}


def tune(
    problem: Problem,
    mechanisms: Sequence[Mechanism],
    training: Training,
    rates: Sequence[float],
    device: torch.device,
    progress: Callable[[int], None] | None = None,
    starts: Sequence[float] = (),
) -> Tuned:
    """Score each mechanism at each rate, or at that of `training` where there are none, with each
    start, or with 1. A process tunes once, whatever the blocks that it trains.
    """
    grid = tuple(rates) or (training.learning_rate,), tuple(starts) or (1.0,)
    scores = [_once(problem, m, training, grid, device, progress) for m in mechanisms]
    if len(scores) > 1:  # of single ones the next is often on the same data
        block_of.cache_clear()
    return Tuned(*grid, tuple(problem.members), np.stack(scores))


_Grid = tuple[tuple[float, ...], tuple[float, ...]]
"""Rates and starts, of which all pairs are tried."""
_SCORED: dict[tuple[object, ...], np.ndarray] = {}


def _once(
    problem: Problem,
    mechanism: Mechanism,
    training: Training,
    grid: _Grid,
    device: torch.device,
    progress: Callable[[int], None] | None,
) -> np.ndarray:
    """The scores of one mechanism (rate, start, step, *members, seed), computed once in a process."""
    layer = problem.layer(mechanism)
    if tuning_models(*grid) == 0:
        each = *map(len, problem.members.values()), len(TUNING_SEEDS)
        return np.zeros((1, 1, len(TRIED_STEPS), *each))
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
    grid: _Grid,
    device: torch.device,
    progress: Callable[[int], None] | None,
) -> np.ndarray:
    """Every rate, start and seed is a member, trained as `training` says but for these; all at a
    time, as far as memory allows. What is scored before the end has had no cooldown.
    """
    shape = tuple(map(len, problem.members.values()))
    highest = training.at(max(grid[0]))
    members = list(product(*grid, TUNING_SEEDS))
    at_once = max(1, _BYTES // problem.bytes_per_seed(highest))
    values = []
    for start in range(0, len(members), at_once):
        *factors, seeds = zip(*members[start : start + at_once], strict=True)
        block = block_of(problem, seeds, highest, device)
        rates, starts = (np.repeat(np.array(f), math.prod(shape)) for f in factors)
        relative = (rates / highest.learning_rate).tolist(), starts.tolist()
        # Progress is told of a program once, however many there are.
        told = None if start else progress
        values.append(_objectives(problem, block, layer, highest, relative, told))
    by_step = np.concatenate(values, 1)
    each = by_step.reshape(len(by_step), *map(len, grid), len(TUNING_SEEDS), *shape, -1)
    score = np.log(np.maximum(each.mean(-1), _SMALLEST))  # (step, rate, start, seed, *members)
    score = np.moveaxis(np.moveaxis(score, 3, -1), 0, 2)
    return np.where(np.isfinite(score), score, np.inf)


def _objectives(
    problem: Problem,
    block: Block,
    layer: Layer,
    training: Training,
    relative: tuple[list[float], list[float]],
    progress: Callable[[int], None] | None,
) -> np.ndarray:
    """The problem's objective (step, member, ...) after each of `TRIED_STEPS` of one training."""
    before = [math.ceil(share * training.steps) for share in TRIED_STEPS[:-1]]
    kept = sorted(set(before))
    final = fit(block, layer, training, *relative, record=kept, measure=dict, progress=progress)
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
    found = error.clip(min=smallest).fillna(np.inf)
    found = found.rename(learning_rate="tried_rate", seed="tuning_seed")
    return found.assign_attrs(description=TRIED)


@lru_cache(maxsize=2)
def block_of(
    problem: Problem, seeds: tuple[int, ...], training: Training, device: torch.device
) -> Block:
    """The data of a problem, drawn once for mechanisms that come one after the other: of the seeds
    that tune, and of those that are reported.
    """
    return problem.block(seeds, training, device)


def tuning_models(*grid: Sequence[float]) -> int:
    """How many models of a mechanism are trained to tune its rate, and what else has a grid."""
    choices = math.prod(map(len, grid))
    return choices * len(TUNING_SEEDS) if choices > 1 else 0
