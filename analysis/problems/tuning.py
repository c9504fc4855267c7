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
from analysis.problems.settled import CHANGE
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
LONGER = 4
"""Times the steps at the full rate: what the second budget is of the first."""
LASTED = (
    f"the problem's objective of each tuning seed after {LONGER} times the steps, at the rate (and "
    "start) that was chosen after all steps, the cooldown as it is; infinite where it diverged"
)
"""What it says of `longer_error`."""
STAYED = (
    f"whether that objective changed by under {CHANGE:.0%} over the last third of this longer "
    "training, or over its cooldown where that is more; no diverged model has"
)
"""And of `longer_settled`."""
_BYTES = 1 << 30
"""Of a block on which rates are tuned."""
_SMALLEST = 1e-9
"""Of an objective: below it lies rounding."""


@dataclass(frozen=True)
class Tuned:
    """What tuning found for the mechanisms of a comparison, in order.

    rates, starts: that were tried, all pairs. members: the dimensions of the problem's members.
    scores: the log of the problem's objective, infinite where the model diverged; of a single pair
    there is no choice, nothing is trained, and they are 0. longer: those of the chosen rate and start
    two thirds through the longer training and at its end; NaN without a choice.
    """

    rates: tuple[float, ...]
    starts: tuple[float, ...]
    members: tuple[str, ...]
    scores: Float[np.ndarray, "mechanism rate start step *members seed"]
    longer: Float[np.ndarray, "mechanism point *members seed"]

    @property
    def rate(self) -> np.ndarray:
        """That of the least mean score after all steps (mechanism, *members)."""
        return np.array(self.rates, np.float64)[_best(self.scores)[0]]

    @property
    def start(self) -> np.ndarray:
        """The start that goes with it (mechanism, *members)."""
        return np.array(self.starts, np.float64)[_best(self.scores)[1]]

    @property
    def variables(self) -> dict[str, Variable]:
        """`learning_rate` (mechanism, *members); where there was a choice `tuning_error` (mechanism,
        tried_rate, tried_step, *members, tuning_seed) with its labels, and `longer_error` and
        `longer_settled` (mechanism, *members, tuning_seed); where starts were tried `start`, and
        `tried_start` after `tried_rate`.
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
        then, end = np.exp(np.moveaxis(self.longer, 1, 0))
        with np.errstate(invalid="ignore"):  # of what diverged
            settled = np.abs(end - then) < CHANGE * then
        by_seed = (*by_model, "tuning_seed")
        found["longer_error"] = by_seed, end, {"description": LASTED}
        found["longer_settled"] = by_seed, settled, {"description": STAYED}
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
    start, or with 1; then once more at the best of them, trained for longer. A process tunes once,
    whatever the blocks that it trains.
    """
    grid = tuple(rates) or (training.learning_rate,), tuple(starts) or (1.0,)
    found = [_once(problem, m, training, grid, device, progress) for m in mechanisms]
    if len(found) > 1:  # of single ones the next is often on the same data
        block_of.cache_clear()
    scores, at_last = map(np.stack, zip(*found, strict=True))
    return Tuned(*grid, tuple(problem.members), scores, at_last)


_Grid = tuple[tuple[float, ...], tuple[float, ...]]
"""Rates and starts, of which all pairs are tried."""
_SCORED: dict[tuple[object, ...], tuple[np.ndarray, np.ndarray]] = {}


def _once(
    problem: Problem,
    mechanism: Mechanism,
    training: Training,
    grid: _Grid,
    device: torch.device,
    progress: Callable[[int], None] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The scores of one mechanism (rate, start, step, *members, seed), and those of its longer
    training (point, *members, seed), computed once in a process.
    """
    layer = problem.layer(mechanism)
    if tuning_models(*grid) == 0:
        each = *map(len, problem.members.values()), len(TUNING_SEEDS)
        return np.zeros((1, 1, len(TRIED_STEPS), *each)), np.full((2, *each), np.nan)
    key = (problem.for_tuning, mechanism, training, grid, device)
    if key not in _SCORED:
        one = _Trainings(problem.for_tuning, layer, training.at(max(grid[0])), device, progress)
        scores = one.scores(grid)
        _SCORED[key] = scores, one.longer(grid, scores)
    elif progress is not None:
        progress(tuning_steps(training, *grid))
    return _SCORED[key]


@dataclass(frozen=True)
class _Trainings:
    """Those of one mechanism on the seeds that tune. training: at the highest of the rates."""

    problem: Problem
    layer: Layer
    training: Training
    device: torch.device
    progress: Callable[[int], None] | None

    def scores(self, grid: _Grid) -> np.ndarray:
        """Every rate, start and seed is a member, trained as `training` says but for these (rate,
        start, step, *members, seed). What is scored before the end has had no cooldown.
        """
        own, rest = self.training, longer(self.training).total_steps
        before = [math.ceil(share * own.steps) for share in TRIED_STEPS[:-1]]
        *factors, seeds = zip(*product(*grid, TUNING_SEEDS), strict=True)
        own = replace(own, shared=own.shared + rest)
        found = self._log(own, before, seeds, *map(np.array, factors))
        each = found.reshape(len(found), *map(len, grid), len(TUNING_SEEDS), *found.shape[2:])
        return np.moveaxis(np.moveaxis(each, 3, -1), 0, 2)

    def longer(self, grid: _Grid, scores: np.ndarray) -> np.ndarray:
        """The longer training at the best of these scores, two thirds of it and all (point, *members,
        seed); where the cooldown is more than a third, what comes before it.
        """
        own, rest = longer(self.training), self.training.total_steps
        before = min(2 * own.total_steps // 3, own.steps)
        best = [np.array(of)[at] for of, at in zip(grid, _best(scores[None]), strict=True)]
        factors = (of.repeat(len(TUNING_SEEDS), 0) for of in best)
        own = replace(own, shared=own.shared + rest)
        return np.moveaxis(self._log(own, [before], tuple(TUNING_SEEDS), *factors), 1, -1)

    def _log(
        self,
        training: Training,
        before: Sequence[int],
        seeds: Sequence[int],
        rates: np.ndarray,
        starts: np.ndarray,
    ) -> np.ndarray:
        """The log of the problem's objective after these steps and at the end (step, seed,
        *members), infinite where it diverged; as many seeds at a time as memory allows.

        rates, starts: of every seed, or of each of its members.
        """
        shape = (len(seeds), *map(len, self.problem.members.values()))
        size = len(seeds), math.prod(shape[1:])
        each = [np.broadcast_to(np.reshape(f, (size[0], -1)), size) for f in (rates, starts)]
        at_once = max(1, _BYTES // self.problem.bytes_per_seed(training))
        values = []
        for first in range(0, len(seeds), at_once):
            some = slice(first, first + at_once)
            block = block_of(self.problem, tuple(seeds[some]), training, self.device)
            rate, start = (of[some].ravel() for of in each)
            relative = (rate / training.learning_rate).tolist(), start.tolist()
            # Progress is told of a program once, however many there are.
            told = None if first else self.progress
            values.append(self._objectives(block, training, before, relative, told))
        found = np.concatenate(values, 1).reshape(len(values[0]), *shape, -1)
        score = np.log(np.maximum(found.mean(-1), _SMALLEST))
        return np.where(np.isfinite(score), score, np.inf)

    def _objectives(
        self,
        block: Block,
        training: Training,
        before: Sequence[int],
        relative: tuple[list[float], list[float]],
        progress: Callable[[int], None] | None,
    ) -> np.ndarray:
        """The problem's objective (step, member, ...) of one training."""
        layer, kept = self.layer, sorted(set(before))
        final = fit(block, layer, training, *relative, record=kept, measure=dict, progress=progress)
        whole = {k: torch.where(final.diverged, 0.0, v.double()) for k, v in final.history.items()}
        parts = [{k: v[kept.index(step)] for k, v in whole.items()} for step in before]
        found = []
        for parameters in (*parts, final.parameters):
            measured = block.evaluate(layer.evaluated, replace(final, parameters=parameters))
            found.append(final.by_member({"": measured[self.problem.objective]})[""])
        return np.stack(found)


def _best(scores: np.ndarray) -> tuple[np.ndarray, ...]:
    """The rate and the start of the least mean score after all steps, by place (mechanism, *members).
    One at which a seed diverged is not chosen while another is left.
    """
    last = scores[:, :, :, -1].mean(-1)
    pair = last.reshape(len(last), -1, *last.shape[3:]).argmin(1)
    return np.unravel_index(pair, last.shape[1:3])


def tuning_error(error: xr.DataArray, smallest: float = _SMALLEST) -> xr.DataArray:
    """That of an experiment which reports every rate, and tunes on seeds of its own.

    error: of these seeds, along `seed`, `learning_rate` and `tried_step`. smallest: what is below
    counts as it.
    """
    found = error.clip(min=smallest).fillna(np.inf)
    found = found.rename(learning_rate="tried_rate", seed="tuning_seed")
    return found.assign_attrs(description=TRIED)


@lru_cache(maxsize=3)
def block_of(
    problem: Problem, seeds: tuple[int, ...], training: Training, device: torch.device
) -> Block:
    """The data of a problem, drawn once for mechanisms that come one after the other: of the seeds
    that tune, in both trainings, and of those that are reported.
    """
    return problem.block(seeds, training, device)


def longer(training: Training) -> Training:
    """The second budget of a training: `LONGER` times its steps, the cooldown as it is."""
    return replace(training, steps=LONGER * training.steps)


def tuning_models(*grid: Sequence[float]) -> int:
    """How many models of a mechanism are trained to tune its rate, and what else has a grid; one of
    the longer training counts `LONGER` times. Of an empty grid there is a single choice.
    """
    choices = math.prod(max(1, len(each)) for each in grid)
    return (choices + LONGER) * len(TUNING_SEEDS) if choices > 1 else 0


def tuning_steps(training: Training, *grid: Sequence[float]) -> int:
    """Of both trainings of a mechanism that tune; 0 where there is nothing to choose."""
    both = training.total_steps + longer(training).total_steps
    return both if tuning_models(*grid) else 0
