"""How near to the best possible does each temperature come in denoising? Mean squared error from the naive mean to Bayes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
import xarray as xr
from pydantic import Field, model_validator
from torch import Tensor

from analysis.store.config import TrainingConfig
from analysis.experiments.base import Experiment, Progress
from analysis.experiments.denoise_claims import judge
from analysis.experiments.denoise_figure import draw
from analysis.fitting import block_size, stack_members, train_with_cooldown
from analysis.claims.statistics import mean_band
from ssa_theory import Stream, member_generator, resolve_device
from ssa_theory.denoising_models import (
    DENOISING_VARIANTS,
    DenoisingAttention,
    DenoisingQuery,
    DenoisingVariant,
    squared_error,
)
from tasks.denoising import LONGEST_EXACT, DenoisingTask

SATURATED_SHARE = 0.99  # of a model's gates at their upper bound
CLOSED_FORMS = ("naive", "shrunk", "threshold", "additive", "oracle")
CURVES = ("naive", "shrunk", "additive", "oracle")  # drawn as lines over s_noise
_CURVE_POINTS = 30
_DIRECTIONS = 8  # samples whose tokens give the directions in which the gate is looked at


class DenoiseConfig(TrainingConfig):
    """Recover a Gaussian signal from L tokens, of which a share carries it with noise and the rest is noise alone."""

    dim: int = Field(8, ge=1, le=256, description="dimension d of signal and tokens")
    length: int = Field(10, ge=1, le=LONGEST_EXACT, description="tokens L; up to 14 the Bayes baseline is exact")
    relevance: float = Field(0.3, gt=0, lt=1, description="probability rho that a token carries the signal")
    prior_scale: float = Field(1.0, gt=0, description="standard deviation s_y of the signal, per coordinate")
    signal_noise: float = Field(0.5, gt=0, description="noise s_signal on the tokens that carry it")
    filler_noise: float = Field(
        2.5, gt=0, description="standard deviation s_noise of the others, at the default setting"
    )
    swept_filler_noise: tuple[float, ...] = Field(
        (0.6, 1.7, 4.0), description="further s_noise; the one at which norms carry no information is added to them"
    )
    query: DenoisingQuery = Field("readout", description="attend from a learned constant, or from the last token")
    variants: tuple[DenoisingVariant, ...] = Field(DENOISING_VARIANTS, description="models to train at the default")
    swept_variants: tuple[DenoisingVariant, ...] = Field(
        ("vanilla", "value-additive", "value-sigmoid", "sink"),
        description="those to train at the other s_noise as well",
    )
    batch_size: int = Field(64, ge=1, le=65536, description="fresh samples a step")
    learning_rate: float = Field(0.05, gt=0, description="step size of Adam")
    steps: int = Field(150, ge=1, le=1_000_000, description="training steps at the full step size")
    cooldown_steps: int = Field(50, ge=0, le=1_000_000, description="further steps at a tenth of the step size")
    held_out: int = Field(512, ge=2, le=1_000_000, description="held-out samples per seed and setting")

    @model_validator(mode="after")
    def _consistent(self) -> "DenoiseConfig":
        self.require_distinct("variants", "swept_variants")
        if missing := [v for v in self.swept_variants if v not in self.variants]:
            raise ValueError(
                f"swept_variants must be among variants, got {missing}: add them to variants, or drop them"
            )
        if wrong := [s for s in self.swept_filler_noise if not s > 0]:
            raise ValueError(f"swept_filler_noise must be positive, got {wrong}: each is a standard deviation")
        noises = sorted(self.noises.values())
        if any(np.isclose(a, b) for a, b in pairwise(noises)):
            raise ValueError(
                f"filler_noise, swept_filler_noise and the point without information, {self.no_information:.6g}, must all be "
                f"different, got {noises}: drop or move one"
            )
        return self

    @property
    def no_information(self) -> float:
        """s_noise = sqrt(s_y^2 + s_signal^2): all tokens have the same law, so a norm says nothing."""
        return float(np.hypot(self.prior_scale, self.signal_noise))

    @property
    def noises(self) -> dict[str, float]:
        """s_noise by the name of its setting, the default first."""
        swept = {f"s_noise {s:g}": s for s in self.swept_filler_noise}
        return {"default": self.filler_noise, "no information": self.no_information} | swept

    @property
    def task(self) -> DenoisingTask:
        """The task at the default setting."""
        return DenoisingTask(
            self.dim, self.length, self.relevance, self.prior_scale, self.signal_noise, self.filler_noise
        )


_BY_SETTING = {
    "bayes": "Bayes risk: mean exact posterior variance over the held-out samples of all seeds (per coordinate)",
    "bayes_error": "standard error of bayes over those samples",
    "naive": "risk of the mean token, in closed form",
    "shrunk": "risk of the best multiple of the mean token, in closed form",
    "threshold": "risk of the best norm threshold, by quadrature",
    "additive": "least risk of any sum of phi(x_i), by quadrature: bounds any value gate under uniform attention",
    "oracle": "risk with the relevant tokens known, in closed form",
}
_HELD_OUT = {
    "held_out_naive": "conditional risk of the mean token on the seed's held-out samples",
    "held_out_bayes": "conditional risk of the exact Bayes estimate on the seed's held-out samples: its posterior variance",
    "held_out_square": "mean square of the posterior variances of the seed's held-out samples",
    "held_out_oracle": "the oracle's posterior variance on the seed's held-out samples",
}
_LEARNED = {
    "mse": "risk given the seed's held-out samples, Var(y | X) + ||y_hat - E[y | X]||^2 per coordinate; NaN: not trained",
    "gap_ratio": "(mse - held_out_bayes) / (naive - bayes): 0 for Bayes, 1 for the mean token",
    "diverged": "whether the loss was ever not finite; the model's other numbers are NaN",
    "gate_saturation": "share of value gates at their bound, where d tau_v / d f < 0.001; NaN without a value gate",
    "gate_saturated": "whether all but 1 % of a model's gates are at their upper bound: it is vanilla, and no gradient says so",
    "gate_floor": "least tau_v that the trained gate can give, sigmoid(alpha) log L or 0; NaN without a value gate",
}
_GATE = {
    "gate_by_norm": "learned tau_v of a token by its norm, over directions, at the default; NaN without a value gate",
    "relevance_by_norm": "pi(r), the probability that a token of that norm is relevant, at the default",
    "additive_gate": "h(r) of the best additive estimator sum of h(||x||) x, at the default",
}


def seeds_per_block(config: DenoiseConfig) -> int:
    """By the data: drawn once for all variants and settings, in either precision, and as much again while stacked."""
    numbers = (config.steps + config.cooldown_steps) * config.batch_size * (config.length + 1) * (config.dim + 1)
    return block_size(config, 16 * numbers + 64 * config.held_out * config.length * (4 * config.dim + 1))


def summarise(config: DenoiseConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add the exact baselines, and what the figure shows: means with 95 % intervals over seeds."""
    dataset["bayes"] = dataset["held_out_bayes"].mean("seed")
    samples = config.seeds * config.held_out
    variance = dataset["held_out_square"].mean("seed") - dataset["bayes"] ** 2
    dataset["bayes_error"] = np.sqrt(variance.clip(min=0.0) / (samples - 1))
    curve = np.linspace(0.8 * min(config.noises.values()), 1.05 * max(config.noises.values()), _CURVE_POINTS)
    curve = np.unique(np.append(curve, config.no_information))
    dataset = dataset.assign_coords(curve_filler_noise=curve)
    noises = np.array(list(config.noises.values()))
    advance = progress("exact risks", len(CLOSED_FORMS) * len(noises) + len(CURVES) * len(curve))

    def risks(name: str, at: np.ndarray) -> np.ndarray:
        found = []
        for noise in at.tolist():  # each takes up to seconds where signal or filler noise is small
            found.append(replace(config.task, filler_noise=noise).risk(name))
            advance(1)
        return np.array(found)

    for name in CLOSED_FORMS:
        dataset[name] = ("setting", risks(name, noises))
    for name in CURVES:
        dataset[f"{name}_curve"] = ("curve_filler_noise", risks(name, curve), {"description": f"{name} by s_noise"})
    gap = dataset["mse"] - dataset["held_out_bayes"]
    dataset["gap_ratio"] = (gap / (dataset["naive"] - dataset["bayes"])).transpose("variant", "seed", "setting")
    dataset["gate_saturated"] = dataset["gate_saturation"].sel(bound="upper", drop=True) > SATURATED_SHARE
    radius = dataset["norm"].values
    dataset["relevance_by_norm"] = ("norm", config.task.relevance_given_norm(radius))
    dataset["additive_gate"] = ("norm", config.task.additive_gate(radius))
    for name, about in (_BY_SETTING | _HELD_OUT | _LEARNED | _GATE).items():
        dataset[name].attrs["description"] = about
    for name in ("mse", "gate_by_norm"):
        dataset[f"{name}_band"] = mean_band(dataset[name])
    return dataset


def train(config: DenoiseConfig, progress: Progress) -> xr.Dataset:
    """Train every variant on every seed and setting; evaluate on held-out samples with their exact posterior."""
    device, seeds = resolve_device(config.device), config.seed_range
    steps = config.steps + config.cooldown_steps
    cells = len(config.variants) + len(config.swept_variants) * (len(config.noises) - 1)
    advance = progress(f"training {config.seeds} seeds x {cells} models", steps * cells)
    count = steps * config.batch_size
    data = _training_data(config, count, seeds, device)
    radius = np.linspace(0, 1, 26)[1:] * 1.2 * np.sqrt(config.dim) * config.filler_noise
    shape = (len(config.variants), len(seeds), len(config.noises))
    found = {
        "mse": np.full(shape, np.nan),
        "diverged": np.zeros(shape, dtype=bool),
        "gate_saturation": np.full((*shape, 2), np.nan),
        "gate_floor": np.full(shape, np.nan),
        "gate_by_norm": np.full((*shape[:2], len(radius)), np.nan),
    }
    held_out = {name: np.empty((len(seeds), len(config.noises))) for name in _HELD_OUT}
    for j, (setting, noise) in enumerate(config.noises.items()):
        task = replace(config.task, filler_noise=noise)
        samples = [task.sample(config.held_out, member_generator(s, Stream.EVALUATION)) for s in seeds]
        posteriors = [task.bayes_posterior(s.tokens) for s in samples]
        variances = np.array([p.variance for p in posteriors])
        naive = [((s.tokens.mean(1) - p.mean) ** 2).mean() for s, p in zip(samples, posteriors, strict=True)]
        held_out["held_out_bayes"][:, j] = variances.mean(1)
        held_out["held_out_square"][:, j] = (variances**2).mean(1)
        held_out["held_out_naive"][:, j] = variances.mean(1) + naive
        held_out["held_out_oracle"][:, j] = [
            task.oracle_posterior(s.tokens, s.relevant).variance.mean() for s in samples
        ]
        tokens = stack_members([s.tokens for s in samples], device)
        bayes = stack_members([p.mean for p in posteriors], device)
        for i, variant in enumerate(config.variants):
            if setting != "default" and variant not in config.swept_variants:
                continue
            model = DenoisingAttention(variant, config.query)
            parameters, diverged = _train(config, model, seeds, data, noise, device, advance)
            found["diverged"][i, :, j] = diverged.cpu().numpy()

            def member_first(values: Tensor, diverged: Tensor = diverged) -> np.ndarray:
                return np.moveaxis(torch.where(diverged, torch.nan, values).cpu().numpy(), -1, 0)

            distance = member_first(squared_error(model.estimate(parameters, tokens), bayes))
            found["mse"][i, :, j] = held_out["held_out_bayes"][:, j] + distance
            if model.gated:
                found["gate_saturation"][i, :, j] = member_first(model.saturation(parameters, tokens))
                found["gate_floor"][i, :, j] = member_first(model.gate_floor(parameters, config.length))
                if setting == "default":
                    direction = tokens[:_DIRECTIONS] / tokens[:_DIRECTIONS].norm(dim=2, keepdim=True)
                    gates = [model.value_gate(parameters, float(r) * direction).mean((0, 1)) for r in radius]
                    found["gate_by_norm"][i] = member_first(torch.stack(gates))
    block = xr.Dataset(
        coords={
            "variant": list(config.variants),
            "seed": list(seeds),
            "setting": list(config.noises),
            "filler_noise": ("setting", list(config.noises.values())),
            "bound": ["lower", "upper"],
            "norm": radius,
        }
    )
    for name, values in held_out.items():
        block[name] = (("seed", "setting"), values)
    for name, values in found.items():
        dims = {"gate_saturation": ("setting", "bound"), "gate_by_norm": ("norm",)}.get(name, ("setting",))
        block[name] = (("variant", "seed", *dims), values)
    return block


def _training_data(
    config: DenoiseConfig, count: int, seeds: Sequence[int], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens with fillers of unit variance, where the fillers are, and targets: each member's own stream.

    At another s_noise the same stream differs by a factor on the fillers alone, so one draw serves all settings.
    """
    task = replace(config.task, filler_noise=1.0)
    drawn = []
    for seed in seeds:
        sample = task.sample(count, member_generator(seed, Stream.DATA))
        drawn.append((sample.tokens.astype(config.dtype), ~sample.relevant, sample.target.astype(config.dtype)))
    return tuple(stack_members(list(arrays), device) for arrays in zip(*drawn, strict=True))


def _train(
    config: DenoiseConfig,
    model: DenoisingAttention,
    seeds: Sequence[int],
    data: tuple[Tensor, Tensor, Tensor],
    noise: float,
    device: torch.device,
    advance: Callable[[int], None],
) -> tuple[dict[str, Tensor], Tensor]:
    """Trained parameters in float64 (zero where diverged), and which diverged."""
    kind = getattr(torch, config.dtype)
    initial = model.initial_parameters(config.dim, [member_generator(s, Stream.PARAMETER) for s in seeds])
    parameters = {k: v.to(device, kind) for k, v in initial.items()}

    def loss(parameters: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        return squared_error(model.estimate(parameters, batch[0]), batch[1])

    trained = train_with_cooldown(
        loss,
        parameters,
        steps=config.steps,
        cooldown_steps=config.cooldown_steps,
        learning_rate=config.learning_rate,
        batches=_batches(config, data, noise),
        compile=config.compile,
        progress=advance,
    )
    final = {k: torch.where(trained.diverged, 0.0, v.double()) for k, v in trained.parameters.items()}
    return final, trained.diverged


def _batches(
    config: DenoiseConfig, data: tuple[Tensor, Tensor, Tensor], noise: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """The training data step by step, the fillers scaled to the setting."""
    for tokens, filler, target in zip(*(d.split(config.batch_size) for d in data), strict=True):
        yield tokens * torch.where(filler, noise, 1.0).to(tokens.dtype).unsqueeze(2), target


DENOISE = Experiment(
    name="denoise",
    question="How near to the best possible does each temperature come in denoising, between the naive mean and Bayes?",
    caption=(
        "Left: mean squared error of every trained variant and of the exact baselines, per coordinate. Middle: the same"
        " by the noise of the fillers, theory as lines. Right: the learned value temperature of a token by its norm, "
        "beside the posterior probability that such a token is relevant. Means and 95 % intervals over seeds."
    ),
    config=DenoiseConfig,
    train=train,
    seeds_per_block=seeds_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={
        "smoke": {"seeds": 4, "steps": 30, "cooldown_steps": 10, "swept_filler_noise": (4.0,), "held_out": 64},
        "large": {"seeds": 512, "steps": 1000, "cooldown_steps": 300},
    },
)
