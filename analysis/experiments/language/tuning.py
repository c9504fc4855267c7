"""The choice of step size and constant scale for each mechanism, on seeds that are not reported.

Blocks of seeds, which may be trained by several processes, make the same choice. So it is made once
and kept in the cache folder, under a name that says all that it depends on.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, product

import numpy as np
import torch
from filelock import FileLock

from analysis.experiments.language.sources import Source, source_of
from analysis.store.dependencies import code_digest
from analysis.store.files import file_digest, write_whole
from analysis.store.results import versions
from ssa_theory.lanes.build import cache_folder
from ssa_theory.language import fit_language, validation_loss
from ssa_theory.mechanism import Mechanism

FIRST_SEED = 2**62
"""Of the seeds on which a choice is made."""


@dataclass(frozen=True)
class Choice:
    """How a mechanism is trained: step size, constant scale, mean loss on the tuning seeds."""

    rate: float
    scale: float | None = None
    loss: float = math.nan


def chosen_for(
    source: Source, mechanism: Mechanism, device: torch.device, progress: Callable[[int], None]
) -> Choice:
    """The rate and scale of the least loss, of all pairs; of a single one nothing is trained."""
    config = source.config
    pairs = list(product(config.rates, source.scales_of(mechanism)))
    if len(pairs) == 1:
        return Choice(*pairs[0])
    path = cache_folder() / f"language-{_digest(source, mechanism, device)}.json"
    trained = 0

    def scored(scale: float | None) -> list[Choice]:
        """Every rate."""
        nonlocal trained
        seeds = range(FIRST_SEED, FIRST_SEED + config.tuning_seeds)
        losses: dict[float, list[float]] = {rate: [] for rate in config.rates}
        each = list(product(config.rates, seeds))
        for first in range(0, len(each), config.together):
            rates, own_seeds = zip(*each[first : first + config.together], strict=True)
            models = [source.model(mechanism, scale, seed).to(device) for seed in own_seeds]
            source.fit(models, rates, own_seeds, progress=progress)
            own, tokens = source.halves[1], config.validation_tokens
            for rate, model in zip(rates, models, strict=True):
                loss = validation_loss(
                    model, own, config.context, tokens, logits=source.logits
                ).mean()
                losses[rate].append(float(loss) if math.isfinite(loss) else math.inf)
            trained += len(models) * config.steps
        return [Choice(rate, scale, float(np.mean(own))) for rate, own in losses.items()]

    with FileLock(path.with_suffix(".lock")):
        try:
            choice = Choice(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            every = chain.from_iterable(map(scored, source.scales_of(mechanism)))
            choice = min(every, key=lambda choice: choice.loss)
            write_whole(path, lambda to: to.write_text(json.dumps(vars(choice)), encoding="utf-8"))
    progress(tuning_steps(source, mechanism) - trained)
    return choice


def tuning_steps(source: Source, mechanism: Mechanism) -> int:
    """How many steps the choice takes."""
    config = source.config
    pairs = len(config.rates) * len(source.scales_of(mechanism))
    return pairs * config.tuning_seeds * config.steps if pairs > 1 else 0


def _digest(source: Source, mechanism: Mechanism, device: torch.device) -> str:
    """Of all that a choice depends on."""
    free = {
        "seeds",
        "first_seed",
        "mechanisms",
        "device",
        "text_file",
        "records",
        "measured_tokens",
    }
    config, text = source.config, source.text
    said = [
        config.model_dump_json(exclude=free),
        *(f"{name} {file_digest(path)}" for name, path in config.files().items()),
        repr(mechanism),
        device.type,
        versions(),
        code_digest(source_of, fit_language, validation_loss),
        hashlib.sha256(text.training.tobytes() + text.validation.tobytes()).hexdigest(),
    ]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:24]
