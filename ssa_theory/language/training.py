"""How a decoder is trained: AdamW with warm-up and cosine, on windows drawn from a text."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ssa_theory.seeds import Stream, member_generator

Measure = Callable[[], dict[str, np.ndarray]]


@dataclass(frozen=True)
class LanguageTraining:
    """How a language model is trained.

    steps, batch: windows of `context` + 1 symbols, `batch` of them a step. rate: the largest step
    size of AdamW (betas .9, .95), reached after the share `warmup` of the steps, then down to a
    tenth along a cosine. decay: weight decay of matrices; vectors and scalars, hence temperatures'
    own parameters, have none. clip: the largest norm of a gradient.

    Raises ValueError for sizes < 1 and rates that are not positive.
    """

    steps: int
    context: int
    batch: int = 16
    rate: float = 2e-3
    warmup: float = 0.1
    decay: float = 0.1
    clip: float = 1.0

    def __post_init__(self) -> None:
        if min(self.steps, self.context, self.batch) < 1 or not 0 < self.rate < math.inf:
            raise ValueError(
                "a training needs steps, context and batch of at least 1 and a positive rate, got "
                f"{self.steps}, {self.context}, {self.batch}, {self.rate}: raise them"
            )

    def rate_at(self, step: int) -> float:
        """The step size at a step, counted from 0."""
        up = max(1, round(self.warmup * self.steps))
        if step < up:
            return self.rate * (step + 1) / up
        share = (step - up) / max(1, self.steps - up)
        return self.rate * (0.55 + 0.45 * math.cos(math.pi * share))


def windows(
    text: Int[np.ndarray, " text"], starts: Int[np.ndarray, " window"], length: int
) -> Int[np.ndarray, "window length"]:
    """Pieces of a text."""
    return text[starts[:, None] + np.arange(length)]


def fit_language(
    model: nn.Module,
    text: Int[np.ndarray, " text"],
    training: LanguageTraining,
    seed: int,
    *,
    record: Sequence[int] = (),
    measure: Measure | None = None,
    logits: Callable[[Tensor], Tensor] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Train a model of next tokens in place; what `measure` returned before the steps of `record`
    (`steps` is the end), each (record, ...).

    seed: of the windows: equal seeds see equal data, whatever is trained. logits: of tokens, by
    default model(tokens). A model whose loss is not finite is trained no further. Raises ValueError
    for a text that is shorter than one window.
    """
    if len(text) <= training.context:
        raise ValueError(
            f"a text of {len(text)} symbols has no window of {training.context} and one more: give "
            "a longer text, or lower context"
        )
    logits, device = logits or model, next(model.parameters()).device
    optimizer = torch.optim.AdamW(
        _groups(model, training.decay), lr=training.rate, betas=(0.9, 0.95), fused=True
    )
    generator = member_generator(seed, Stream.DATA)
    history: list[dict[str, np.ndarray]] = []
    alive = True
    for step in range(training.steps + 1):
        if measure is not None and step in record:
            history.append(measure())
        if step == training.steps:
            break
        starts = generator.integers(len(text) - training.context, size=training.batch)
        if alive:
            tokens = torch.from_numpy(windows(text, starts, training.context + 1)).to(device)
            for group in optimizer.param_groups:
                group["lr"] = training.rate_at(step)
            alive = _step(model, logits, optimizer, tokens, training.clip)
        if progress is not None:
            progress(1)
    return {k: np.stack([row[k] for row in history]) for k in history[0]} if history else {}


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Vectors and scalars, which do not decay, and the rest. Of the parts of a mechanism the last
    axis is that of the heads.
    """
    learned = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    flat = {name for name, p in learned if p.ndim - ("parts." in name) < 2}
    return [
        {"params": [p for name, p in learned if name in flat], "weight_decay": 0.0},
        {"params": [p for name, p in learned if name not in flat], "weight_decay": decay},
    ]


def _step(
    model: nn.Module,
    logits: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    tokens: Int[Tensor, "batch length"],
    clip: float,
) -> bool:
    """One step, of a loss that is finite; whether it is."""
    model.train()
    optimizer.zero_grad()
    loss = cross_entropy(logits(tokens[:, :-1]), tokens[:, 1:]).mean()
    if not bool(loss.isfinite()):
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(torch.nan)
        return False
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return True


def cross_entropy(
    logits: Float[Tensor, "batch length symbol"], following: Int[Tensor, "batch length"]
) -> Float[Tensor, "batch length"]:
    """Of every token, in nats."""
    each = F.cross_entropy(logits.flatten(0, 1).float(), following.flatten(), reduction="none")
    return each.unflatten(0, following.shape)


@torch.no_grad()
def validation_loss(
    model: nn.Module,
    text: Int[np.ndarray, " text"],
    context: int,
    tokens: int,
    *,
    batch: int = 16,
    logits: Callable[[Tensor], Tensor] | None = None,
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
    logits, device = logits or model, next(model.parameters()).device
    model.eval()
    total = np.zeros(context)
    whole = windows(text, np.arange(count) * context, context + 1)
    for part in np.array_split(whole, -(-count // batch)):
        seen = torch.from_numpy(part).to(device)
        losses = cross_entropy(logits(seen[:, :-1]), seen[:, 1:])
        total += losses.double().sum(0).cpu().numpy()
    return total / count
