"""The choice of step size and constant scale for each mechanism, on seeds that are not reported.

Blocks of seeds, which may be trained by several processes, make the same choice. So it is made once
and kept in the cache folder, under a name that says all that it depends on.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product, starmap

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
    """How a mechanism is trained: step size, constant scale where it has one, and the mean loss on
    the tuning seeds.
    """

    rate: float
    scale: float | None = None
    loss: float = math.nan


def chosen_for(
    source: Source, mechanism: Mechanism, device: torch.device, progress: Callable[[int], None]
) -> Choice:
    """The rate and scale of the least loss, of all pairs. Of one there is no choice, and nothing is
    trained.
    """
    config, text = source.config, source.text
    pairs = list(product(config.rates, source.scales_of(mechanism)))
    if len(pairs) == 1:
        return Choice(*pairs[0])
    path = cache_folder() / f"language-{_digest(source, mechanism, device)}.json"
    trained = 0

    def score(rate: float, scale: float | None) -> Choice:
        nonlocal trained
        losses = []
        for seed in range(FIRST_SEED, FIRST_SEED + config.tuning_seeds):
            model = source.model(mechanism, scale, seed).to(device)
            logits = partial(source.logits, model)
            training = config.training(rate)
            fit_language(model, text.training, training, seed, logits=logits, progress=progress)
            own, tokens = source.halves[1], config.validation_tokens
            loss = validation_loss(model, own, config.context, tokens, logits=logits)
            losses.append(float(loss.mean()))
            trained += config.steps
        mean = float(np.mean(losses))
        return Choice(rate, scale, mean if math.isfinite(mean) else math.inf)

    with FileLock(path.with_suffix(".lock")):
        try:
            choice = Choice(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            choice = min(starmap(score, pairs), key=lambda choice: choice.loss)
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
