"""Config and training of the atlas: every mechanism on every problem, each at its own best rate."""

from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
import xarray as xr
from pydantic import Field

from analysis.claims.bands import mean_band
from analysis.experiments.atlas.worlds import WORLDS, World
from analysis.experiments.base import Progress
from analysis.experiments.mechanisms import ComparedMechanisms, chosen
from analysis.problems.base import Block, Fitted, Training, fit
from analysis.problems.measures import singular_values
from analysis.store.config import TrainingConfig
from ssa_theory.device import resolve_device
from ssa_theory.mechanism import VANILLA, Layer, Mechanism, Misfit

TUNING_SEED = 2**62
"""The first of the seeds on which rates are chosen. They are never reported, and the same for any
seeds that are.
"""
Numbers = dict[str, np.ndarray]


class AtlasConfig(TrainingConfig):
    """Every mechanism on every problem that it can wear, on one scale: 0 is exact Bayes, 1 the naive
    predictor.
    """

    mechanisms: ComparedMechanisms = Field(
        (
            *(VANILLA, "scaled", "key-bias", "ssa", "ssa-query", "ssa-value", "ssmax", "asentmax"),
            *("qk-norm", "sparsemax", "softpick", "sink", "gated-head", "differential"),
        ),
        description="mechanisms to train; vanilla is the peer",
    )
    worlds: tuple[str, ...] = Field(tuple(WORLDS), description="problems, by name")
    rates: tuple[Annotated[float, Field(gt=0, le=10)], ...] = Field(
        (0.01, 0.03, 0.1, 0.3), description="step sizes of Adam to choose from, one for each cell"
    )
    tuning_seeds: int = Field(
        4, ge=1, le=1000, description="seeds on which the rates are chosen, none of those reported"
    )
    steps: int = Field(300, ge=1, le=1_000_000, description="training steps at the full step size")
    cooldown_steps: int = Field(
        60, ge=0, le=1_000_000, description="further steps at a tenth of the step size"
    )

    def check(self) -> None:
        self.require_distinct("worlds", "rates")
        if unknown := [name for name in self.worlds if name not in WORLDS]:
            raise ValueError(
                f"worlds must be among {', '.join(WORLDS)}, got {unknown}: choose some of them"
            )

    def training(self, rate: float) -> Training:
        """How a model is trained at a rate."""
        precision = {"dtype": self.dtype, "compile": self.compiled}
        return Training(self.steps, rate, self.cooldown_steps, **precision)


def train(config: AtlasConfig, progress: Progress) -> xr.Dataset:
    """Every cell at its best rate. A problem that a mechanism cannot wear has a reason in place of
    numbers; a cell that diverges at every rate has NaN, and the reason says so.
    """
    models, names = chosen(config.mechanisms), list(config.worlds)
    advance = progress(
        f"training {config.seeds} seeds x {len(models)} mechanisms x {len(names)} problems",
        len(models) * len(names) * 2 * config.training(1.0).total_steps,
    )
    parts = [_column(config, WORLDS[name], models, advance) for name in names]
    return xr.concat(parts, xr.DataArray(names, dims="world", name="world"))


def _column(
    config: AtlasConfig,
    world: World,
    models: list[Mechanism],
    advance: Callable[[int], None],
) -> xr.Dataset:
    """All mechanisms on one problem."""
    problem, device = world.problem, resolve_device(config.device)
    tuning = [TUNING_SEED + s for s in range(config.tuning_seeds) for _ in config.rates]
    training, seeds = config.training(max(config.rates)), config.seed_range
    blocks = [problem.block(s, training, device) for s in (tuning, seeds)]
    bayes, naive = world.ends(problem.describe(seeds))
    missing = np.full(config.seeds, np.nan)
    rows: list[tuple[Numbers, float, str, int]] = []
    for model in models:
        numbers, rate, reason, added = {"risk": missing, "weight_norm": missing}, np.nan, "", 0
        try:
            layer = problem.layer(model)
        except Misfit as error:
            reason = str(error)
            advance(2 * training.total_steps)
        else:
            added = model.added_parameters(layer.form)
            rate = _best_rate(config, world, blocks[0], layer, advance)
            if np.isnan(rate):
                reason = f"mechanism {model.name} diverges at every rate of {config.rates}"
                advance(training.total_steps)
            else:
                done = fit(blocks[1], layer, config.training(rate), progress=advance)
                numbers = _numbers(world, blocks[1], layer, done)
        rows.append((numbers, rate, reason, added))
    by_seed = ("mechanism", "seed")
    risk = xr.DataArray(np.stack([r[0]["risk"] for r in rows]), dims=by_seed)
    dataset = xr.Dataset(
        {
            "excess": (risk - bayes) / (naive - bayes),
            "risk": risk,
            "bayes": bayes,
            "naive": naive,
            "weight_norm": (by_seed, np.stack([r[0]["weight_norm"] for r in rows])),
            "rate": ("mechanism", np.array([r[1] for r in rows])),
            "reason": ("mechanism", np.array([r[2] for r in rows], dtype=object)),
            "added_parameters": ("mechanism", np.array([r[3] for r in rows])),
        },
        coords={"mechanism": [m.name for m in models], "seed": list(seeds)},
    )
    for name, about in ABOUT.items():
        dataset[name].attrs = {"description": about}
    return dataset


ABOUT = {
    "excess": "(risk - bayes) / (naive - bayes) on the seed's held-out data: 0 is exact Bayes",
    "risk": "held-out risk of the trained model, in the problem's own measure",
    "bayes": "risk of the exact Bayes predictor on the same data",
    "naive": "risk of the naive predictor on the same data",
    "weight_norm": "spectral norm ||W||_2 of the trained W, |w| of a constant query",
    "rate": "step size of the least mean risk on the tuning seeds",
    "reason": "why a mechanism has no numbers on a problem; empty where it has",
    "added_parameters": "parameters beyond those of a vanilla layer, one model",
}


def _best_rate(
    config: AtlasConfig,
    world: World,
    block: Block,
    layer: Layer,
    advance: Callable[[int], None],
) -> float:
    """The rate of the least mean risk over the tuning seeds; NaN where all of them diverge."""
    rates = np.array(config.rates)
    factors = np.tile(rates / rates.max(), config.tuning_seeds).tolist()
    done = fit(block, layer, config.training(max(config.rates)), rates=factors, progress=advance)
    risk = _numbers(world, block, layer, done)["risk"].reshape(config.tuning_seeds, len(rates))
    mean = risk.mean(0)  # NaN where one diverged
    return np.nan if np.isnan(mean).all() else float(rates[np.nanargmin(mean)])


def _numbers(world: World, block: Block, layer: Layer, fitted: Fitted) -> Numbers:
    """Risk and norm of every member, NaN where it diverged."""
    weight = fitted.parameters.get("weight")
    risk = world.risk(block.evaluate(layer.evaluated, fitted))
    norm = torch.full_like(risk, torch.nan)
    if weight is not None:
        norm = singular_values(weight if weight.ndim == 3 else weight.unsqueeze(0))[0]
    return fitted.by_member({"risk": risk, "weight_norm": norm})


def summarise(config: AtlasConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add means over seeds with their 95 % intervals, and gains over vanilla, paired by seed."""
    dataset["excess_band"] = mean_band(dataset["excess"])
    gain = dataset["excess"].sel(mechanism=VANILLA, drop=True) - dataset["excess"]
    dataset["gain_band"] = mean_band(gain)
    return dataset
