"""Whether a mechanism's parts do what all rely on: those of the user's own are tried before they
train.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ssa_theory.mechanism import MECHANISMS, Layer, Misfit, Parameters
from ssa_theory.seeds import Stream, member_generator

if TYPE_CHECKING:
    from analysis.problems.base import Problem, Training


def with_sound_rows(layer: Layer) -> Layer:
    """The layer, if its normaliser gives sound rows of some scores. Raises Misfit where not.

    Weights may be negative and rows may sum to less than one, or to more, but not to less than
    zero. The registry is tested; a normaliser of the user's own is tried here, before it trains.
    """
    generator = np.random.default_rng(0)
    start = layer.normalizer.initial("key", layer.form, [generator])
    scores = torch.from_numpy(3 * generator.standard_normal((16, 5, 1)))
    try:
        rows = layer.normalizer.rows(start, scores, 1)
        sums = rows.sum(1)
        if rows.shape != scores.shape:
            reason = f"shape {tuple(rows.shape)} for scores {tuple(scores.shape)}"
        elif not rows.isfinite().all():
            reason = "weights that are not finite"
        elif (sums < 0).any():
            reason = f"a sum of {sums.min():.3g}"
        else:
            return layer
    except Exception as error:  # the user's code may fail in any way
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    raise Misfit(
        f"mechanism {layer.mechanism.name} needs a normaliser whose rows are finite and do not sum "
        f"to less than zero, got {reason}: mend its rows"
    )


_APART: set[tuple[type, str]] = set()
"""Problems and mechanisms that were tried, these as they are written: a part need not be hashable."""


def with_models_apart(problem: "Problem", layer: Layer, training: "Training") -> Layer:
    """The layer, if two models that it computes together are what each is alone, and a part does not
    take models for tokens. Raises Misfit where not. The registry is tested; a mechanism of the
    user's own is tried here, once a kind of problem.
    """
    mechanism, device = layer.mechanism, torch.device("cpu")
    pair = type(problem), repr(mechanism)
    if MECHANISMS.get(mechanism.name) == mechanism or pair in _APART:
        return layer

    def losses(*seeds: int) -> Tensor:
        block = problem.block(seeds, training, device)
        generators = [member_generator(s, Stream.PARAMETER) for s in block.seeds]
        start = block.initial_parameters(layer, generators)
        batches = block.batches(training)
        return block.loss(layer, _moved(start, block.seeds), batches and next(batches))

    try:
        together, alone = losses(0, 1), torch.cat([losses(0), losses(1)])
        if together.shape == alone.shape and torch.allclose(together, alone, equal_nan=True):
            _APART.add(pair)
            return layer
        reason = "other losses of two models together than of each alone"
    except Exception as error:  # the user's code may fail in any way
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    raise Misfit(
        f"mechanism {mechanism.name} needs parts that compute every model by itself, the last axis "
        f"of every tensor, got {reason}: mend its parts"
    )


def _moved(start: Parameters, seeds: Sequence[int]) -> Parameters:
    """Away from the start, where a temperature may be 1 whatever it reads."""
    moved = {}
    for name, value in start.items():
        shape = value.shape[:-1]
        steps = [np.random.default_rng(seed).standard_normal(shape) for seed in seeds]
        moved[name] = value + 0.1 * torch.from_numpy(np.stack(steps, -1))
    return moved
