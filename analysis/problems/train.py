"""Every mechanism of a comparison on every seed of a problem, each at its own learning rate.

The rate is tuned alike for all: one grid, on seeds that no run reports.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import xarray as xr

from analysis.problems.base import (
    DIVERGED,
    Block,
    Measure,
    Problem,
    Training,
    Variable,
    fit,
    record_steps,
)
from ssa_theory.mechanism import Layer, Mechanism

TUNING_SEEDS = range(2**63 - 8, 2**63)
"""The last that there are."""
TUNED = "learning rate of the mechanism, tuned on seeds that are not reported"
"""What a result says of it."""
_TRIED = (
    "the problem's objective after tuning at each rate, geometric mean over the tuning seeds, which "
    "are not reported; infinite where one diverged"
)
_BYTES = 1 << 30
"""Of a block on which rates are tuned."""
_SMALLEST = 1e-9
"""Of an objective: below it lies rounding."""


def train_all(
    problem: Problem,
    mechanisms: Sequence[Mechanism],
    seeds: Sequence[int],
    training: Training,
    device: torch.device,
    *,
    rates: Sequence[float] = (),
    tune_on: Problem | None = None,
    record: Sequence[int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> xr.Dataset:
    """Every mechanism on every seed of a problem: its measures (mechanism, seed, *members, ...),
    labelled, `learning_rate` (mechanism, *members), and where that was tuned `tuning_error`
    (mechanism, tried_rate, *members).

    rates: those from which `best_rate` chooses for each mechanism, by default that of `training`.
    tune_on: the problem on which it does, one without members of its own; by default this one.
    record: as in `fit`, by default `record_steps`.
    """
    layers = [problem.layer(m) for m in mechanisms]  # what does not fit is refused before training
    if len(rates) > 1 and tune_on is None:
        training = replace(training, runs=2)  # to tune, and at the rate that was chosen
    grid = tuple(rates) or (training.learning_rate,)
    scores = _scores(tune_on or problem, mechanisms, training, grid, device, progress)
    chosen = [_best(grid, one) for one in scores]
    block = problem.block(seeds, training, device)
    steps = record_steps(training.steps).tolist() if record is None else list(record)
    sizes = {"seed": len(seeds)} | {dim: len(at) for dim, at in problem.members.items()}
    options = {"record": steps, "progress": progress}
    measured = train_layers(block, layers, training, problem.measures, sizes, chosen, **options)
    labels = problem.coordinates(training) | dict(problem.members) | {"step": steps}
    dims = dict.fromkeys(d for variable in measured.values() for d in variable[0] if d in labels)
    own = {"mechanism": [m.name for m in mechanisms], "seed": list(seeds)}
    coords = own | {d: labels[d] for d in dims}
    about = {"description": TUNED}
    tuned_to: dict[str, Variable] = {
        "learning_rate": (("mechanism", *problem.members), np.stack(chosen), about)
    }
    if len(grid) > 1:
        coords["tried_rate"] = list(grid)
        tried = ("mechanism", "tried_rate", *problem.members)
        tuned_to["tuning_error"] = (tried, np.exp(np.stack(scores)), {"description": _TRIED})
    return problem.describe(seeds).assign_coords(coords).assign(measured).assign(tuned_to)


def train_layers(
    block: Block,
    layers: Iterable[Layer],
    training: Training,
    measures: Mapping[str, Measure],
    members: Mapping[str, int],
    rates: Sequence[np.ndarray] | None = None,
    **options: Any,
) -> dict[str, Variable]:
    """The measures (mechanism, *members, ...) of every layer on a block, `diverged` among them.

    members: the sizes of the dimensions that the block's members have, the last running fastest.
    rates: for each layer its learning rate by member, or by the last dimensions, in place of that
    of `training`. options: of `fit`: record, progress.
    """
    layers, rows = list(layers), []
    each = [training.learning_rate] * len(layers) if rates is None else rates
    for layer, rate in zip(layers, each, strict=True):
        by_member = np.broadcast_to(rate, tuple(members.values())).ravel()
        fitted = fit(block, layer, *at_rates(training, by_member), **options)
        values = (
            fitted.history | block.evaluate(layer.evaluated, fitted) | {"diverged": fitted.diverged}
        )
        rows.append(fitted.by_member(values))
    shape = (len(rows), *members.values())
    return {
        name: (
            ("mechanism", *members, *measure.dims),
            np.stack([row[name] for row in rows]).reshape(*shape, *rows[0][name].shape[1:]),
            {"description": measure.about},
        )
        for name, measure in {**measures, **DIVERGED}.items()
        if name in rows[0]
    }


def at_rates(training: Training, rates: np.ndarray) -> tuple[Training, list[float]]:
    """The training of members with these learning rates, and the factor of each."""
    return training.at(float(rates.max())), (rates / rates.max()).tolist()


def tuned(
    problem: Problem,
    mechanisms: Sequence[Mechanism],
    training: Training,
    rates: Sequence[float],
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> list[np.ndarray]:
    """The learning rate of each mechanism, by the problem's members: `best_rate`, or that of
    `training` where there are no rates. A process tunes once, whatever the blocks that it trains.
    """
    grid = tuple(rates) or (training.learning_rate,)
    scores = _scores(problem, mechanisms, training, grid, device, progress)
    return [_best(grid, one) for one in scores]


def _scores(
    problem: Problem,
    mechanisms: Sequence[Mechanism],
    training: Training,
    grid: tuple[float, ...],
    device: torch.device,
    progress: Callable[[int], None] | None,
) -> list[np.ndarray]:
    """`tuning_scores` of each mechanism, once in a process."""
    each = []
    for mechanism in mechanisms:
        layer = problem.layer(mechanism)
        if len(grid) == 1:
            each.append(tuning_scores(problem, layer, training, grid, device))
            continue
        key = (problem.for_tuning, mechanism, training, grid, device)
        if key not in _SCORED:
            _SCORED[key] = tuning_scores(problem, layer, training, grid, device, progress)
        elif progress is not None:
            progress(training.total_steps)
        each.append(_SCORED[key])
    block_of.cache_clear()
    return each


_SCORED: dict[tuple[object, ...], np.ndarray] = {}


def best_rate(
    problem: Problem,
    layer: Layer,
    training: Training,
    rates: Sequence[float],
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """The rate of the least of `tuning_scores`, for each of the problem's members (*members). A rate
    at which any seed diverged is not chosen while another is left.
    """
    return _best(rates, tuning_scores(problem, layer, training, rates, device, progress))


def _best(rates: Sequence[float], scores: np.ndarray) -> np.ndarray:
    return np.asarray(np.array(rates, np.float64)[np.argmin(scores, axis=0)])


def tuning_scores(
    problem: Problem,
    layer: Layer,
    training: Training,
    rates: Sequence[float],
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """The mean over `TUNING_SEEDS` of the log of the problem's objective at each rate (rate,
    *members); infinite where any seed diverged.

    Every rate and seed is a member, trained as `training` says but for its rate; all at a time, as
    far as memory allows. Of one rate there is no choice: nothing is trained, and its score is 0.
    """
    shape = tuple(len(labels) for labels in problem.members.values())
    if len(rates) == 1:
        return np.zeros((1, *shape))
    problem = problem.for_tuning
    highest = training.at(max(rates))
    members = [(rate, seed) for rate in rates for seed in TUNING_SEEDS]
    at_once = max(1, _BYTES // problem.bytes_per_seed(highest))
    values = []
    for start in range(0, len(members), at_once):
        factors, seeds = zip(*members[start : start + at_once], strict=True)
        block = block_of(problem, seeds, highest, device)
        relative = np.repeat(np.array(factors) / highest.learning_rate, math.prod(shape)).tolist()
        # Progress is told of a program once, however many there are.
        fitted = fit(block, layer, highest, rates=relative, progress=None if start else progress)
        values.append(fitted.by_member(block.evaluate(layer.evaluated, fitted))[problem.objective])
    each = np.concatenate(values).reshape(len(rates), len(TUNING_SEEDS), *shape, -1).mean(-1)
    score = np.log(np.maximum(each, _SMALLEST)).mean(1)
    return np.where(np.isfinite(score), score, np.inf)


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
