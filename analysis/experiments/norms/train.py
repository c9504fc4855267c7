"""Train models with and without a query temperature; measure them at equal steps and equal loss."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import xarray as xr
from pydantic import Field

from analysis.claims.bands import mean_band
from analysis.experiments.base import Progress
from analysis.experiments.chains import Chain, ChainsConfig, train_settings
from analysis.experiments.mechanisms import ComparedMechanisms
from analysis.problems.anatomy import ANATOMY, anatomy
from analysis.problems.base import DIVERGED, fit
from analysis.problems.curves import common_loss, interpolate
from analysis.problems.measures import row_groups
from analysis.problems.rows import ROW_MEASURES
from analysis.problems.sizes import block_size, check_result_fits
from analysis.problems.tuning import tune
from ssa_theory.mechanism import VANILLA


class NormsConfig(ChainsConfig):
    """Learn transition matrices with and without a query temperature; compare what the models are
    made of.
    """

    nodes: int = Field(8, ge=4, le=512, description="number of nodes K of the graded graph")
    mechanisms: ComparedMechanisms = Field(
        (VANILLA, "scaled", "ssa", "ssa-free"),
        description="mechanisms to train; vanilla is the peer, scaled the control without "
        "selectivity",
    )


COMPARISONS = ("steps", "loss")
PROGRESS = (0.5, 0.75, 0.9, 0.95, 0.99)
"""Shares of the slowest model's progress at which the norm is drawn."""
COMMON_PROGRESS = 0.9
"""That of the common loss: where a model stalls its norm still grows, which would count against it.
"""
_OVER_TOKENS = ("token_norm", "logit_scale", "effective_weight", "spikiness")
_MEAN = {
    **{f"mean_{name}": f"mean over tokens of {name}" for name in _OVER_TOKENS},
    "sharp_support": "mean effective_support of the quarter of rows whose target is sharpest",
    "blunt_support": "mean effective_support of the quarter of rows whose target is bluntest",
}
_GUARDS = {
    k: v.about
    for k, v in (ROW_MEASURES | DIVERGED).items()
    if k in ("diverged", "underflow", "rank_deficient")
}
_WHERE = "at the last step (comparison steps), or where the model first reaches the common loss "
_ABOUT = {
    **_GUARDS,
    **{k: f"{v.about}; {_WHERE}(comparison loss)" for k, v in ANATOMY.items()},
    **{k: f"{about}; {_WHERE}(comparison loss)" for k, about in _MEAN.items()},
    "cross_entropy_gap": "cross-entropy above Bayes at the recorded steps (nats)",
    "weight_norm_by_step": "spectral norm ||W||_2 at the recorded steps",
    "weight_norm_by_progress": "spectral norm ||W||_2 where the model first reaches the loss at "
    "which the slowest model of its seed has made that share of its progress",
    "step": "the recorded steps, denser at the start",
    "common_loss": "cross-entropy gap (nats) at which the seed's slowest model has made "
    f"{COMMON_PROGRESS:g} of its progress; NaN: see `unmatched`",
    "common_loss_step": "step at which the model first reaches the common loss, interpolated "
    "between recorded steps",
    "unmatched": "whether the seed has no common loss: a model diverged, or ended no better than "
    "it began",
    "target_support": "exp(entropy) of each row of P*: its effective number of next tokens",
    "row_group": "sharp (the quarter of rows of least target_support), blunt (that of most), or "
    "middle",
    "label": "the name of each token",
}


def seeds_per_block(config: NormsConfig) -> int:
    """By the memory of one seed in the largest setting, its recorded measures included."""
    models, cells = len(config.mechanisms), config.cells
    held = 16 * models * len(ANATOMY)  # of a token at a recorded step: kept, then stacked
    steps = [len(_recorded(c.training.steps)) for c in cells]
    compared = len(COMPARISONS) * len(ANATOMY) * max(c.problem.size for c in cells)
    check_result_fits(config.seeds * models * len(cells) * (compared + 2 * max(steps)))
    trained = [c.problem.bytes_per_seed(c.training) for c in cells]
    kept = [held * n * c.problem.size for n, c in zip(steps, cells, strict=True)]
    return block_size(config, max(map(sum, zip(trained, kept, strict=True))))


def train(config: NormsConfig, progress: Progress) -> xr.Dataset:
    """Train every mechanism on every seed and setting; measure it at equal steps and equal loss."""
    blank = {"label": "", "row_group": ""}
    return train_settings(config, progress, _train_setting, blank, config.learning_rates)


def summarise(config: NormsConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add descriptions, and what the figure shows: means with 95 % intervals over seeds."""
    for name, about in _ABOUT.items():
        dataset[name].attrs["description"] = about
    for name in ("weight_norm", *_MEAN, "effective_support", "weight_norm_by_progress"):
        dataset[f"{name}_band"] = mean_band(dataset[name])
    return dataset


def _recorded(steps: int) -> np.ndarray:
    """At most 41 steps, dense at the start, where loss and norm move fast."""
    return np.unique(np.rint(steps * np.linspace(0, 1, 41) ** 2).astype(int))


def _train_setting(
    config: NormsConfig, chain: Chain, device: torch.device, advance: Callable[[int], None]
) -> xr.Dataset:
    """One setting's part of the result."""
    problem, training, models = chain.problem, chain.training, chain.mechanisms
    step, rows = _recorded(training.steps), []
    block, task = problem.block(config.seed_range, training, device), problem.tasks([0])[0]
    tuned = tune(problem, models, training, config.learning_rates, device, advance)
    for layer, rate in zip(map(problem.layer, models), tuned.rate, strict=True):
        own, measure = training.at(float(rate)), partial(anatomy, block, layer)
        fitted = fit(block, layer, own, record=step.tolist(), measure=measure, progress=advance)
        final = block.evaluate(layer.evaluated, fitted) | {"diverged": fitted.diverged}
        rows.append(fitted.by_member(fitted.history | {name: final[name] for name in _GUARDS}))
    values = {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    gap, norm = values["cross_entropy_gap"], values["weight_norm"]
    level, place = common_loss(gap, COMMON_PROGRESS)
    common_step = interpolate(np.broadcast_to(step.astype(float), gap.shape), place)
    by_progress = [interpolate(norm, common_loss(gap, share)[1]) for share in PROGRESS]
    by_model, group = ("mechanism", "seed"), row_groups(task.row_entropy)
    dataset = xr.Dataset(
        {
            **{name: (by_model, values[name]) for name in _GUARDS},
            **tuned.variables,
            "cross_entropy_gap": ((*by_model, "record"), gap),
            "weight_norm_by_step": ((*by_model, "record"), norm),
            "weight_norm_by_progress": ((*by_model, "progress"), np.stack(by_progress, axis=-1)),
            "step": ("record", step.astype(float)),
            "common_loss": ("seed", level),
            "common_loss_step": (by_model, common_step),
            "unmatched": ("seed", np.isnan(level)),
            "target_support": ("node", np.exp(task.row_entropy)),
            "row_group": ("node", group),
            "label": ("node", list(task.labels)),
        },
        {
            "mechanism": [m.name for m in models],
            "seed": list(config.seed_range),
            "node": np.arange(task.nodes),
            "record": np.arange(len(step)),
            "comparison": list(COMPARISONS),
            "progress": list(PROGRESS),
        },
    )
    for name, measure in ANATOMY.items():
        compared = np.stack([values[name][:, :, -1], interpolate(values[name], place)], axis=-1)
        dataset[name] = ((*by_model, *measure.dims, "comparison"), compared)
    for name in _OVER_TOKENS:
        dataset[f"mean_{name}"] = dataset[name].mean("node", skipna=False)
    for name in ("sharp", "blunt"):
        rows = dataset["effective_support"].isel(node=group == name)
        dataset[f"{name}_support"] = rows.mean("node", skipna=False)
    return dataset
