"""The choice of step size and constant scale for each mechanism, on seeds that are not reported.

Blocks of seeds, which may be trained by several processes, make the same choice. So it is made once
and kept in the cache folder, under a name that says all that it depends on.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product, starmap

import numpy as np
import torch
from filelock import FileLock

from analysis.experiments.language.config import LanguageConfig
from analysis.store.dependencies import code_digest
from analysis.store.files import write_whole
from analysis.store.results import versions
from ssa_theory.lanes.build import cache_folder
from ssa_theory.language import Decoder, fit_language, validation_loss
from ssa_theory.mechanism import Mechanism
from ssa_theory.mechanism.schedules import Fixed
from ssa_theory.mechanism.scores import Constant
from ssa_theory.mechanism.temperature import Exp, Selective
from tasks import Corpus

FIRST_SEED = 2**62
"""Of the seeds on which a choice is made."""
_LEARNED = Selective(Constant(), Exp(), position=False)


@dataclass(frozen=True)
class Choice:
    """How a mechanism is trained: step size, constant scale where it has one, and the mean loss on
    the tuning seeds.
    """

    rate: float
    scale: float | None = None
    loss: float = math.nan


def scales_of(mechanism: Mechanism, config: LanguageConfig) -> tuple[float | None, ...]:
    """The constant scales to choose from: of a given one; of a learned one those at which it
    starts.
    """
    own = isinstance(mechanism.query, Fixed) or mechanism.query == _LEARNED
    return config.scales if own else (None,)


def decoder(
    config: LanguageConfig, text: Corpus, mechanism: Mechanism, scale: float | None, seed: int
) -> Decoder:
    """A model at its start."""
    if scale is not None and isinstance(mechanism.query, Fixed):
        mechanism = replace(mechanism, query=Fixed(scale))
    model = Decoder(config.form(len(text.symbols)), mechanism, seed, text.log_frequency)
    if scale is not None and mechanism.query == _LEARNED:
        with torch.no_grad():
            for layer in model.layers:
                layer.get_parameter("parts.query.offset").fill_(math.log(scale))
    return model


def halves(config: LanguageConfig, text: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """The validation text that is reported, and the other half, on which choices are made."""
    half = len(text.validation) // 2
    return text.validation[:half], text.validation[half:]


def chosen_for(
    config: LanguageConfig,
    text: Corpus,
    mechanism: Mechanism,
    device: torch.device,
    progress: Callable[[int], None],
) -> Choice:
    """The rate and scale of the least loss, of all pairs. Of one there is no choice, and nothing is
    trained.
    """
    pairs = list(product(config.rates, scales_of(mechanism, config)))
    if len(pairs) == 1:
        return Choice(*pairs[0])
    path = cache_folder() / f"language-{_digest(config, mechanism, device)}.json"
    trained = 0

    def score(rate: float, scale: float | None) -> Choice:
        nonlocal trained
        losses = []
        for seed in range(FIRST_SEED, FIRST_SEED + config.tuning_seeds):
            model = decoder(config, text, mechanism, scale, seed).to(device)
            fit_language(model, text.training, config.training(rate), seed, progress=progress)
            own = halves(config, text)[1]
            loss = validation_loss(model, own, config.context, config.validation_tokens)
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
    progress(tuning_steps(config, mechanism) - trained)
    return choice


def tuning_steps(config: LanguageConfig, mechanism: Mechanism) -> int:
    """How many steps the choice takes."""
    pairs = len(config.rates) * len(scales_of(mechanism, config))
    return pairs * config.tuning_seeds * config.steps if pairs > 1 else 0


def _digest(config: LanguageConfig, mechanism: Mechanism, device: torch.device) -> str:
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
    content = config.corpus()
    said = [
        config.model_dump_json(exclude=free),
        repr(mechanism),
        device.type,
        versions(),
        code_digest(decoder, fit_language, validation_loss),
        hashlib.sha256(content.training.tobytes() + content.validation.tobytes()).hexdigest(),
    ]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:24]
