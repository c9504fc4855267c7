"""Every mechanism of a comparison on every seed of a problem, each at its own learning rate."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr

from analysis.problems.base import (
    DIVERGED,
    Block,
    Fitted,
    Measure,
    Problem,
    Training,
    Variable,
    fit,
    record_steps,
)
from analysis.problems.settled import SETTLED, settled
from analysis.problems.tuning import tune, tuning_steps
from ssa_theory.mechanism import Layer, Mechanism


def train_all(
    problem: Problem,
    mechanisms: Sequence[Mechanism],
    seeds: Sequence[int],
    training: Training,
    device: torch.device,
    *,
    rates: Sequence[float] = (),
    starts: Sequence[float] = (),
    tune_on: Problem | None = None,
    record: Sequence[int] | None = None,
    keep: Callable[[Block, Layer, Fitted], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> xr.Dataset:
    """Every mechanism on every seed of a problem: its measures (mechanism, seed, *members, ...),
    labelled, and what tuning found (`Tuned.variables`).

    rates, starts: those from which `tune` chooses for each mechanism, by default the rate of
    `training` and 1.
    tune_on: the problem on which it does, one without members of its own; by default this one.
    record: as in `fit`, by default `record_steps`. keep: is told of every trained layer.
    """
    layers = [problem.layer(m) for m in mechanisms]  # what does not fit is refused before training
    tuning = training
    if tune_on is None:  # to tune and at the rate that was chosen a step is the same
        tuning = replace(training, shared=training.total_steps)
        training = replace(training, shared=tuning_steps(training, rates, starts))
    tuned = tune(tune_on or problem, mechanisms, tuning, rates, device, progress, starts)
    block = problem.block(seeds, training, device)
    steps = record_steps(training.steps).tolist() if record is None else list(record)
    sizes = {"seed": len(seeds)} | {dim: len(at) for dim, at in problem.members.items()}
    options = {"record": steps, "keep": keep, "progress": progress}
    at = tuned.rate, tuned.start
    measured = train_layers(block, layers, training, problem.measures, sizes, *at, **options)
    labels = problem.coordinates(training) | dict(problem.members) | {"step": steps}
    dims = dict.fromkeys(d for variable in measured.values() for d in variable[0] if d in labels)
    own = {"mechanism": [m.name for m in mechanisms], "seed": list(seeds)}
    coords = own | {d: labels[d] for d in dims}
    return problem.describe(seeds).assign_coords(coords).assign(measured).assign(tuned.variables)


def train_layers(
    block: Block,
    layers: Iterable[Layer],
    training: Training,
    measures: Mapping[str, Measure],
    members: Mapping[str, int],
    rates: Iterable[np.ndarray | float] | None = None,
    starts: Iterable[np.ndarray | float] | None = None,
    *,
    keep: Callable[[Block, Layer, Fitted], None] | None = None,
    **options: Any,
) -> dict[str, Variable]:
    """The measures (mechanism, *members, ...) of every layer on a block, `diverged` among them, and
    `settled` where it is known.

    members: the sizes of the dimensions that the block's members have, the last running fastest.
    rates, starts: for each layer its learning rate by member, or by the last dimensions, in place of
    that of `training`, and the factor on its initial query-key weights, in place of 1. keep: is
    told of every trained layer. options: of `fit`: record, progress.
    """
    layers, rows = list(layers), []
    own = [training.learning_rate] * len(layers) if rates is None else rates
    first = [1.0] * len(layers) if starts is None else starts
    for layer, *at in zip(layers, own, first, strict=True):
        rate, start = (np.broadcast_to(of, tuple(members.values())).ravel() for of in at)
        how = *at_rates(training, rate), start.tolist()
        fitted = fit(block, layer, *how, **options)
        if keep is not None:
            keep(block, layer, fitted)
        rows.append(
            fitted.by_member(
                fitted.history
                | block.evaluate(layer.evaluated, fitted)
                | settled(block, layer, fitted, training, options.get("record", ()))
                | {"diverged": fitted.diverged}
            )
        )
    shape = (len(rows), *members.values())
    return {
        name: (
            ("mechanism", *members, *measure.dims),
            np.stack([row[name] for row in rows]).reshape(*shape, *rows[0][name].shape[1:]),
            {"description": measure.about},
        )
        for name, measure in {**measures, **SETTLED, **DIVERGED}.items()
        if name in rows[0]
    }


def at_rates(training: Training, rates: np.ndarray) -> tuple[Training, list[float]]:
    """The training of members with these learning rates, and the factor of each."""
    return training.at(float(rates.max())), (rates / rates.max()).tolist()
