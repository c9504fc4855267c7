"""How a decoder is trained: AdamW with warm-up and cosine, on windows drawn from a text."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from ssa_theory.language.ensemble import AdamW, Ensemble, Logits, cross_entropy
from ssa_theory.seeds import Stream, member_generator

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class LanguageTraining:
    """How a language model is trained.

    steps, batch: windows of `context` + 1 symbols, `batch` of them a step. rate: the largest step
    size of AdamW (betas .9, .95), one for all models or one for each, reached after the share
    `warmup` of the steps, then down to a tenth along a cosine. decay: weight decay of matrices;
    vectors and scalars, hence temperatures' own parameters, have none. clip: the largest norm of a
    gradient.

    Raises ValueError for sizes < 1 and rates that are not positive.
    """

    steps: int
    context: int
    batch: int = 16
    rate: float | tuple[float, ...] = 2e-3
    warmup: float = 0.1
    decay: float = 0.1
    clip: float = 1.0

    def __post_init__(self) -> None:
        rates = np.atleast_1d(self.rate)
        sound = bool(np.all((rates > 0) & np.isfinite(rates)))
        if min(self.steps, self.context, self.batch) < 1 or not sound:
            raise ValueError(
                "a training needs steps, context and batch of at least 1 and a positive rate, got "
                f"{self.steps}, {self.context}, {self.batch}, {self.rate}: raise them"
            )

    def rate_at(self, step: int) -> Float[np.ndarray, " rate"]:
        """The step size at a step, counted from 0."""
        up = max(1, round(self.warmup * self.steps))
        share = (step - up) / max(1, self.steps - up)
        part = (step + 1) / up if step < up else 0.55 + 0.45 * math.cos(math.pi * share)
        return part * np.atleast_1d(self.rate)


def windows(
    text: Int[np.ndarray, " text"], starts: Int[np.ndarray, " window"], length: int
) -> Int[np.ndarray, "window length"]:
    """Pieces of a text."""
    return text[starts[:, None] + np.arange(length)]


def fit_language(
    models: Sequence[nn.Module],
    text: Int[np.ndarray, " text"],
    training: LanguageTraining,
    seeds: Sequence[int],
    *,
    record: Sequence[int] = (),
    measure: Callable[[nn.Module], dict[str, np.ndarray]] | None = None,
    change: Change | None = None,
    weight: Float[np.ndarray, "batch context"] | None = None,
    logits: Logits | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Train models of next tokens in place, all of one form; what `measure` returned of each before
    the steps of `record` (`steps` is the end), each (model, record, ...).

    seeds: of every model's windows: equal seeds see equal data, whatever is trained. change: what
    becomes of the windows drawn. weight, logits: see `Ensemble`. A model whose loss is not finite becomes
    NaN. Raises ValueError for a text that is shorter than one window.
    """
    if len(text) <= training.context:
        raise ValueError(
            f"a text of {len(text)} symbols has no window of {training.context} and one more: give "
            "a longer text, or lower context"
        )
    ensemble = Ensemble(models, logits, None if weight is None else torch.as_tensor(weight))
    device = ensemble.weights.device
    optimizer = AdamW(ensemble, training.decay, training.clip)
    generators = [member_generator(seed, Stream.DATA) for seed in seeds]
    history: list[list[dict[str, np.ndarray]]] = []
    for step in range(training.steps + 1):
        if measure is not None and step in record:
            history.append([measure(model) for model in models])
        if step == training.steps:
            break
        tokens = np.stack([_drawn(text, training, change, own) for own in generators])
        rates = torch.as_tensor(training.rate_at(step), dtype=torch.float32, device=device)
        optimizer.step(torch.from_numpy(tokens).to(device), rates.unsqueeze(-1))
        if progress is not None:
            progress(len(models))
    names = history[0][0] if history else ()
    return {k: np.stack([[row[k] for row in at] for at in history], 1) for k in names}


def _drawn(
    text: Int[np.ndarray, " text"],
    training: LanguageTraining,
    change: Change | None,
    generator: np.random.Generator,
) -> Int[np.ndarray, "batch length"]:
    """The windows of a step."""
    starts = generator.integers(len(text) - training.context, size=training.batch)
    drawn = windows(text, starts, training.context + 1)
    return drawn if change is None else change(drawn, generator)


@torch.no_grad()
def validation_loss(
    model: nn.Module,
    text: Int[np.ndarray, " text"],
    context: int,
    tokens: int,
    *,
    batch: int = 16,
    logits: Logits | None = None,
) -> Float[np.ndarray, " context"]:
    """Mean cross-entropy (nats a token) by place in the context, over windows side by side: each of
    the first `tokens` predicted symbols of the text, as far as whole windows go, counts once.

    Raises ValueError for a text shorter than one window.
    """
    count = min(tokens, len(text) - 1) // context
    if count < 1:
        raise ValueError(
            f"a text of {len(text)} symbols, {tokens} of them asked for, has no window of {context} "
            "to validate on: give a longer text, or lower context"
        )
    device = next(model.parameters()).device
    model.eval()
    total = np.zeros(context)
    whole = windows(text, np.arange(count) * context, context + 1)
    for part in np.array_split(whole, -(-count // batch)):
        seen = torch.from_numpy(part).to(device)
        inputs = seen[:, :-1]
        predictions = model(inputs) if logits is None else logits(model, inputs)
        losses = cross_entropy(predictions, seen[:, 1:])
        total += losses.double().sum(0).cpu().numpy()
    return total / count
