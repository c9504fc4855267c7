"""Train language models that wear each mechanism; measure them at equal steps and equal loss."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import nn

from analysis.claims.bands import mean_band, ratio_band
from analysis.experiments.base import Progress
from analysis.experiments.language.config import LONGEST, LanguageConfig
from analysis.experiments.language.latency import TASKS, latency_ratios, median_band
from analysis.experiments.language.sources import Source, source_of
from analysis.experiments.language.tuning import Choice, chosen_for, tuning_steps
from analysis.experiments.mechanisms import chosen
from analysis.problems.curves import common_loss, interpolate
from ssa_theory.device import resolve_device
from ssa_theory.language import validation_loss, windows
from ssa_theory.mechanism import VANILLA, Mechanism
from ssa_theory.seeds import Stream, member_generator
from tasks.passkey import CHANCE, DIGITS

COMPARISONS = ("steps", "loss")
COMMON_PROGRESS = 0.9
"""Of the slowest model, at the common loss: see the experiment `norms`."""
LENGTHS = ("within training", "up to twice", "up to four times")
"""Places in a context: up to that of training, on to twice of it, and on to four times."""
MULTIPLES = {"in training's": 1, "in twice training's": 2, "in four times training's": 4}
"""Contexts of passkeys."""
_TOKENS = ("effective_weight", "inverse_temperature", "spikiness")
_WHERE = "at the last step (comparison steps), or where it first reaches the common loss (loss)"
_ABOUT = {
    "loss": "validation cross-entropy (nats a token) at the recorded steps, on an eighth of the "
    "text that `perplexity` is of",
    "perplexity": "exp of the validation cross-entropy after training",
    "loss_by_place": "validation cross-entropy (nats) by place in a context, after training",
    "perplexity_by_length": "exp of the mean validation cross-entropy over some places of a context",
    "effective_weight": "tau ||W_q W_k^T||_2 over sqrt(d_k) of every token, mean over heads, "
    + _WHERE,
    "inverse_temperature": f"tau_q tau_k of every token, mean over heads, {_WHERE}",
    "spikiness": f"1 / (n sum s^2) of every token's row over n keys, mean over heads, {_WHERE}",
    "passkey_error": "share of the digits of passkeys in text that are wrong after training; "
    f"{1 - CHANCE:g} is chance",
    "passkey_missed": "share of whole passkeys that are wrong after training; "
    f"{1 - CHANCE**DIGITS:g} is chance",
    "latency": "seconds of a training step, and of generation, over those of vanilla right before",
    "weight_norm": f"||W_q W_k^T||_2 over sqrt(d_k), mean over heads, {_WHERE}",
    "mean_effective_weight": "mean over layers and tokens of effective_weight",
    "mean_spikiness": "mean over layers and tokens of spikiness",
    "mean_weight_norm": "mean over layers of weight_norm",
    "tokens": "training tokens at the recorded steps",
    "common_loss": "validation loss at which the seed's slowest model has made "
    f"{COMMON_PROGRESS:g} of its progress",
    "rate": "step size, chosen on seeds that are not reported",
    "scale": "constant scale, or where a learned one starts, chosen likewise; NaN where there is none",
    "added_parameters": "parameters beyond those of the vanilla model",
    "parameters": "parameters of the model",
    "diverged": "whether the loss ceased to be finite",
}


def seeds_per_block(config: LanguageConfig) -> int:
    """As many as one program trains."""
    return config.together


def train(config: LanguageConfig, progress: Progress) -> xr.Dataset:
    """Every mechanism on every seed, at its own rate."""
    models, source = chosen(config.mechanisms), source_of(config)
    device, seeds = resolve_device(config.device), list(config.seed_range)
    steps = sum(tuning_steps(source, m) + config.steps * len(seeds) for m in models)
    advance = progress(f"training {len(seeds)} seeds x {len(models)} language models", steps)
    # Processes with other seeds begin elsewhere, so that none waits for another's choices.
    first = seeds[0] // config.together * len(models) // 2 % len(models)
    rows: dict[str, dict[str, np.ndarray]] = {}
    for mechanism in [*models[first:], *models[:first]]:
        choice = chosen_for(source, mechanism, device, advance)
        rows[mechanism.name] = _models(source, mechanism, choice, seeds, device, advance)
    return _labelled(config, {m.name: rows[m.name] for m in models}, seeds)


def _models(
    source: Source,
    mechanism: Mechanism,
    choice: Choice,
    seeds: Sequence[int],
    device: torch.device,
    advance: Callable[[int], None],
) -> dict[str, np.ndarray]:
    """A mechanism's numbers by seed, those at recorded steps along their second axis."""
    config, (own, _), logits = source.config, source.halves, source.logits
    models: list[Any] = [source.model(mechanism, choice.scale, s).to(device) for s in seeds]
    whole = -(-config.measured_tokens // (config.context - 1))
    whole = min(whole, len(own) // config.context)
    seen = windows(own, np.arange(whole) * config.context, config.context)
    tokens = config.validation_tokens
    some = max(config.context, tokens // 8)

    def measure(model: nn.Module) -> dict[str, np.ndarray]:
        anatomy = source.anatomy(model, seen)
        anatomy = {
            k: v[..., : config.measured_tokens] if v.ndim > 1 else v for k, v in anatomy.items()
        }
        loss = validation_loss(model, own, config.context, some, logits=logits).mean()
        return {"loss": np.asarray(loss), **anatomy}

    rates = [choice.rate] * len(seeds)
    history = source.fit(
        models, rates, seeds, record=config.recorded, measure=measure, progress=advance
    )
    scale = math.nan if choice.scale is None else choice.scale

    def final(model: nn.Module) -> dict[str, np.ndarray | float | int]:
        loss = validation_loss(model, own, config.context, tokens, logits=logits).mean()
        return {
            "perplexity": np.exp(loss),
            "loss_by_place": validation_loss(model, own, source.longest, tokens, logits=logits),
            "passkey": _passkey(source, model),
            "rate": choice.rate,
            "scale": scale,
            "added_parameters": source.added(model),
            "parameters": sum(p.numel() for p in model.parameters()),
        }

    ends = [final(model) for model in models]
    latency = {"latency": latency_ratios(source, mechanism, seeds, device)}
    return history | latency | {k: np.stack([end[k] for end in ends]) for k in ends[0]}


@torch.no_grad()
def _passkey(source: Source, model: nn.Module) -> Float[np.ndarray, "length kind"]:
    """The shares of wrong digits and of wrong keys in contexts of each length: each digit is the
    likeliest symbol after the true ones before it, so that a whole key is right where a model that
    generates it is.
    """
    config, (own, _), device = source.config, source.halves, next(model.parameters()).device
    generator, shares = member_generator(0, Stream.EVALUATION), []
    model.eval()
    for length in (config.context * times for times in MULTIPLES.values()):
        if length > source.longest:
            break
        starts = generator.integers(len(own) - length, size=config.passkeys)
        keys = source.passkey.hidden(windows(own, starts, length + 1), generator)
        right = []
        for part in np.array_split(keys, -(-len(keys) // 16)):
            seen = torch.from_numpy(part).to(device)
            inputs, wanted = seen[:, :-1], seen[:, -DIGITS:]
            logits = source.next_logits(model, inputs)[:, -DIGITS:]
            own_right = (logits.argmax(-1) == wanted).double()
            right.append(own_right.where(logits.isfinite().all(-1), torch.nan).cpu().numpy())
        each = np.concatenate(right)
        shares.append([1 - each.mean(), 1 - each.prod(-1).mean()])
    return np.array(shares)


def _labelled(
    config: LanguageConfig, rows: dict[str, dict[str, np.ndarray]], seeds: list[int]
) -> xr.Dataset:
    """The numbers with their names, and those at equal loss."""
    values = {k: np.stack([row[k] for row in rows.values()]) for k in rows[VANILLA]}
    model, steps = ("mechanism", "seed"), np.array(config.recorded)
    level, place = common_loss(values["loss"], COMMON_PROGRESS)
    dataset = xr.Dataset(
        {
            "loss": ((*model, "record"), values["loss"]),
            "perplexity": (model, values["perplexity"]),
            "loss_by_place": ((*model, "place"), values["loss_by_place"]),
            "tokens": ("record", (steps * config.batch * config.context).astype(float)),
            "common_loss": ("seed", level),
            "passkey_error": ((*model, "multiple"), values["passkey"][..., 0]),
            "passkey_missed": ((*model, "multiple"), values["passkey"][..., 1]),
            "latency": ((*model, "task"), values["latency"]),
            "diverged": (model, ~np.isfinite(values["loss"]).all(-1)),
            "parameters": ("mechanism", values["parameters"][:, 0]),
            "added_parameters": ("mechanism", values["added_parameters"][:, 0]),
            "rate": ("mechanism", values["rate"][:, 0]),
            "scale": ("mechanism", values["scale"][:, 0]),
        },
        {
            "mechanism": list(rows),
            "seed": seeds,
            "record": np.arange(len(steps)),
            "comparison": list(COMPARISONS),
            "multiple": list(MULTIPLES)[: values["passkey"].shape[-2]],
            "task": list(TASKS),
            "layer": np.arange(values["weight_norm"].shape[-1]),
        },
    )
    for name in (*_TOKENS, "weight_norm"):
        own = values[name].astype(np.float32 if name in _TOKENS else np.float64)
        compared = np.stack([own[:, :, -1], interpolate(own, place)], -1)
        dims = ("layer", "token") if name in _TOKENS else ("layer",)
        dataset[name] = ((*model, *dims, "comparison"), compared.astype(own.dtype))
    for name in ("effective_weight", "spikiness", "weight_norm"):
        over = [d for d in ("layer", "token") if d in dataset[name].dims]
        dataset[f"mean_{name}"] = dataset[name].astype(np.float64).mean(over, skipna=False)
    by_place, context = dataset["loss_by_place"], config.context
    if by_place.sizes["place"] == LONGEST * context:
        cuts = (0, context, 2 * context, LONGEST * context)
        parts = [
            by_place.isel(place=slice(*cut)).mean("place", skipna=False) for cut in pairwise(cuts)
        ]
        named = xr.DataArray(list(LENGTHS), dims="length", name="length")
        by_length = xr.concat(parts, named).transpose(*model, "length")
        dataset["perplexity_by_length"] = by_length.copy(data=np.exp(by_length.values))
    return dataset


def summarise(config: LanguageConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add descriptions, and what the figure shows: means and ratios with 95 % intervals."""
    for name, about in _ABOUT.items():
        if name in dataset:
            dataset[name].attrs["description"] = about
    for name in ("loss", "loss_by_place", "mean_effective_weight", "mean_spikiness"):
        dataset[f"{name}_band"] = mean_band(dataset[name])
    for name in ("passkey_error", "passkey_missed"):
        dataset[f"{name}_band"] = mean_band(dataset[name])
    dataset["latency_band"] = median_band(dataset["latency"])
    for name in ("perplexity", "perplexity_by_length"):
        if name in dataset:
            own = dataset[name]
            peer = own.sel(mechanism=VANILLA, drop=True)
            dataset[f"{name}_ratio"] = ratio_band(
                own, peer, f"{name} over vanilla's, 95 % interval"
            )
    return dataset
