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

from analysis.problems.base import Block, Problem, Training, fit
from analysis.problems.tuned import LONGER, SMALLEST, TRIED_STEPS, TUNING_SEEDS, Tuned, best_pair
from ssa_theory.mechanism import Layer, Mechanism

_BYTES = 1 << 30
"""Of a block on which rates are tuned."""


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
    pairs = [_once(problem, m, training, grid, device, progress) for m in mechanisms]
    if len(pairs) > 1:  # of single ones the next is often on the same data
        block_of.cache_clear()
    each, at_last = zip(*pairs, strict=True)
    logs = {name: np.stack([one[name] for one in each]) for name in each[0]}
    scores = logs.pop(problem.objective)
    tracked = {name: (problem.tracked[name], values) for name, values in logs.items()}
    return Tuned(*grid, tuple(problem.members), scores, np.stack(at_last), tracked)


_Grid = tuple[tuple[float, ...], tuple[float, ...]]
"""Rates and starts, of which all pairs are tried."""
_Logs = dict[str, np.ndarray]
"""Of the objective, and of what else is tracked, by name."""
_SCORED: dict[tuple[object, ...], tuple[_Logs, np.ndarray]] = {}


def _once(
    problem: Problem,
    mechanism: Mechanism,
    training: Training,
    grid: _Grid,
    device: torch.device,
    progress: Callable[[int], None] | None,
) -> tuple[_Logs, np.ndarray]:
    """The logs of one mechanism (rate, start, step, *members, seed), and the scores of its longer
    training (point, *members, seed), computed once in a process.
    """
    layer = problem.layer(mechanism)
    if tuning_models(*grid) == 0:
        each = *map(len, problem.members.values()), len(TUNING_SEEDS)
        none = {problem.objective: np.zeros((1, 1, len(TRIED_STEPS), *each))}
        return none, np.full((2, *each), np.nan)
    key = (problem.for_tuning, mechanism, training, grid, device)
    if key not in _SCORED:
        one = _Trainings(problem.for_tuning, layer, training.at(max(grid[0])), device, progress)
        logs = one.logs(grid)
        _SCORED[key] = logs, one.longer(grid, logs[problem.objective])
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

    def logs(self, grid: _Grid) -> _Logs:
        """Every rate, start and seed is a member, trained as `training` says but for these (rate,
        start, step, *members, seed). What is scored before the end has had no cooldown.
        """
        own, rest = self.training, longer(self.training).total_steps
        before = [math.ceil(share * own.steps) for share in TRIED_STEPS[:-1]]
        *factors, seeds = zip(*product(*grid, TUNING_SEEDS), strict=True)
        own = replace(own, shared=own.shared + rest)
        logs = self._logs(own, before, seeds, *map(np.array, factors))

        def by_grid(log: np.ndarray) -> np.ndarray:
            each = log.reshape(len(log), *map(len, grid), len(TUNING_SEEDS), *log.shape[2:])
            return np.moveaxis(np.moveaxis(each, 3, -1), 0, 2)

        return {name: by_grid(log) for name, log in logs.items()}

    def longer(self, grid: _Grid, scores: np.ndarray) -> np.ndarray:
        """The longer training at the best of these scores, two thirds of it and all (point, *members,
        seed); where the cooldown is more than a third, what comes before it.
        """
        own, rest = longer(self.training), self.training.total_steps
        before = min(2 * own.total_steps // 3, own.steps)
        best = [np.array(of)[at] for of, at in zip(grid, best_pair(scores[None]), strict=True)]
        factors = (of.repeat(len(TUNING_SEEDS), 0) for of in best)
        own = replace(own, shared=own.shared + rest)
        logs = self._logs(own, [before], tuple(TUNING_SEEDS), *factors)
        return np.moveaxis(logs[self.problem.objective], 1, -1)

    def _logs(
        self,
        training: Training,
        before: Sequence[int],
        seeds: Sequence[int],
        rates: np.ndarray,
        starts: np.ndarray,
    ) -> _Logs:
        """The logs after these steps and at the end (step, seed, *members), infinite where it diverged; as
        many seeds at a time as memory allows.

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
            progress = None if first else self.progress
            values.append(self._measured(block, training, before, relative, progress))

        def log(*each: np.ndarray) -> np.ndarray:
            measured = np.concatenate(each, 1).reshape(len(before) + 1, *shape, -1)
            score = np.log(np.maximum(measured.mean(-1), SMALLEST))
            return np.where(np.isfinite(score), score, np.inf)

        return {name: log(*(one[name] for one in values)) for name in values[0]}

    def _measured(
        self,
        block: Block,
        training: Training,
        before: Sequence[int],
        relative: tuple[list[float], list[float]],
        progress: Callable[[int], None] | None,
    ) -> dict[str, np.ndarray]:
        """The problem's objective, and what it tracks (step, member, ...), of one training."""
        layer, kept = self.layer, sorted(set(before))
        final = fit(block, layer, training, *relative, record=kept, measure=dict, progress=progress)
        whole = {k: torch.where(final.diverged, 0.0, v.double()) for k, v in final.history.items()}
        parts = [{k: v[kept.index(step)] for k, v in whole.items()} for step in before]
        names, by_step = (self.problem.objective, *self.problem.tracked), []
        for parameters in (*parts, final.parameters):
            measured = block.evaluate(layer.evaluated, replace(final, parameters=parameters))
            by_step.append(final.by_member({name: measured[name] for name in names}))
        return {name: np.stack([one[name] for one in by_step]) for name in names}


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
    steps = training.total_steps + longer(training).total_steps
    return steps if tuning_models(*grid) else 0
