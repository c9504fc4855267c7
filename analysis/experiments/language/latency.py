"""How long a training step and the generation of text take with a mechanism, over vanilla's."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import scipy
import torch
import xarray as xr
from jaxtyping import Float
from torch import nn

from analysis.experiments.language.sources import Source
from ssa_theory.language import windows
from ssa_theory.language.ensemble import AdamW, Ensemble
from ssa_theory.mechanism import VANILLA, Mechanism, mechanism

TASKS = ("train", "generate")
_GENERATED = 4


def latency_ratios(
    source: Source, worn: Mechanism, seeds: Sequence[int], device: torch.device
) -> Float[np.ndarray, "seed task"]:
    """Seconds of a training step, and of generation from a whole context, over those of vanilla,
    which is timed right before, in the same process: one pair a seed, after one that does not count.
    """
    models = [source.model(m, 1.0, 0).to(device) for m in (mechanism(VANILLA), worn)]
    timed = [(_training(source, model), _generation(source, model)) for model in models]
    pairs = [[list(map(_took, acts)) for acts in timed] for _ in range(len(seeds) + 1)]
    own = np.array(pairs[1:])
    return own[:, 1] / own[:, 0]


def _training(source: Source, model: nn.Module) -> Callable[[], None]:
    """A step."""
    config, text = source.config, source.text.training
    ensemble = Ensemble([model], source.logits)
    optimizer = AdamW(ensemble, 0.0, 1.0)
    shown = windows(text, np.zeros(config.batch, np.int64), config.context + 1)
    tokens = torch.from_numpy(shown).to(ensemble.weights.device).unsqueeze(0)
    rates = torch.full((1, 1), 1e-4, device=tokens.device)

    def train() -> None:
        optimizer.step(tokens, rates).tolist()  # waits for the device

    return train


def _generation(source: Source, model: nn.Module) -> Callable[[], None]:
    """Of a few symbols, up to a whole context."""
    device = next(model.parameters()).device
    prompt = source.text.training[None, : source.config.context - _GENERATED]

    @torch.no_grad()
    def generate() -> None:
        model.eval()
        tokens = torch.from_numpy(prompt).to(device)
        for _ in range(_GENERATED):
            following = source.next_logits(model, tokens)[:, -1:].argmax(-1)
            tokens = torch.cat([tokens, following], 1)
        tokens.tolist()  # waits for the device

    return generate


def _took(act: Callable[[], None]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def median_band(data: xr.DataArray) -> xr.DataArray:
    """The median over seeds with its 95 % interval between order statistics, NaN for fewer than six
    seeds: a new last dimension `estimate` of value, low, high.
    """
    count = data.sizes["seed"]
    place = int(scipy.stats.binom.ppf(0.025, count, 0.5)) - 1
    kept = data.transpose("seed", ...)
    ordered = np.sort(kept.values, 0)
    none = np.full(ordered.shape[1:], np.nan)
    ends = [ordered[place], ordered[count - 1 - place]] if place >= 0 else [none, none]
    values = np.stack([np.median(ordered, 0), *ends], -1)
    about = "median over seeds, with its 95 % interval: " + data.attrs["description"]
    return xr.DataArray(
        values,
        dims=(*kept.dims[1:], "estimate"),
        coords={k: v for k, v in data.coords.items() if "seed" not in v.dims}
        | {"estimate": ["value", "low", "high"]},
        attrs={"description": about},
    )
