"""Is the learned query temperature the posterior's 1 / s^2? Noisy retrieval, where Bayes is attention with that temperature."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr
from pydantic import Field, model_validator
from scipy.special import log_softmax
from torch import Tensor

from analysis.store.config import TrainingConfig
from analysis.experiments.base import Experiment, Progress
from analysis.experiments.retrieval_claims import judge
from analysis.experiments.retrieval_figure import draw
from analysis.fitting import block_size, stack_members, train_with_cooldown
from analysis.claims.statistics import mean_band
from ssa_theory import Stream, member_generator, resolve_device
from ssa_theory.retrieval_models import RetrievalAttention, RetrievalBatch, RetrievalVariant, retrieval_loss
from tasks.retrieval import NoisyRetrievalTask, Retrievals, posterior_entropy


class RetrievalConfig(TrainingConfig):
    """Retrieve the key that a noisy query stems from; the noise level s of each query is visible to the model."""

    dim: int = Field(8, ge=1, le=1024, description="dimension d of keys and query")
    keys: int = Field(32, ge=2, le=4096, description="number of keys n in training and in the main evaluation")
    noise_levels: tuple[float, ...] = Field(
        (0.1, 0.2, 0.4, 0.8), description="noise levels s, equally likely in training; each evaluated apart"
    )
    tested_keys: tuple[int, ...] = Field(
        (8, 16, 32, 64, 128), description="numbers of keys at which the trained models are evaluated as well"
    )
    variants: tuple[RetrievalVariant, ...] = Field(("vanilla", "ssa-tanh", "ssa-exp"), description="models to train")
    batch_size: int = Field(32, ge=1, le=65536, description="fresh problems a step")
    learning_rate: float = Field(0.3, gt=0, description="step size of Adam")
    steps: int = Field(400, ge=1, le=1_000_000, description="training steps at the full step size")
    cooldown_steps: int = Field(100, ge=0, le=1_000_000, description="further steps at a tenth of the step size")
    held_out: int = Field(256, ge=2, le=1_000_000, description="held-out problems per seed and noise level")

    @model_validator(mode="after")
    def _consistent(self) -> "RetrievalConfig":
        self.require_distinct("noise_levels", "tested_keys", "variants")
        for keys in self.tested_keys:
            if not 2 <= keys <= 4096:
                raise ValueError(f"tested_keys must lie in [2, 4096], got {keys}: choose values in that range")
        NoisyRetrievalTask(self.dim, self.keys, self.noise_levels)  # rejects levels that are not positive
        return self


_BY_NOISE = ("cross_entropy", "accuracy", "inverse_temperature")
_BASELINES = ("bayes", "bayes_error", "bayes_accuracy", "common")
_ABOUT = {
    "cross_entropy": "expected -log P_hat(target) of held-out problems (nats), the target integrated out by the posterior",
    "accuracy": "expected share of held-out problems in which the largest P_hat is the target's",
    "inverse_temperature": "learned tau(s) tr(W) / d, comparable with 1 / s^2: c I is nearest to W for c = tr(W) / d",
    "bayes": "cross-entropy of the exact posterior on the same problems (nats)",
    "bayes_error": "standard error of bayes over the held-out problems of a seed (nats)",
    "bayes_accuracy": "accuracy of the exact posterior on the same problems",
    "common": "cross-entropy of the best single inverse temperature for all noise levels, chosen on the same problems (nats)",
    "common_inverse_temperature": "that single inverse temperature",
    "naive": "log n, a uniform guess (nats)",
    "gap_ratio": "(cross_entropy - bayes) / (naive - bayes): 0 for Bayes, 1 for a guess",
    "cross_entropy_by_keys": "expected cross-entropy over all noise levels (nats), by the number of keys in the test",
    "bayes_by_keys": "cross-entropy of the exact posterior on the same problems (nats), by the number of keys",
    "diverged": "whether the loss was ever not finite; the model's other numbers are NaN",
}


def seeds_per_block(config: RetrievalConfig) -> int:
    """By the training data, drawn once for all variants: at most 8 bytes a number, and as much again while it is moved."""
    steps = config.steps + config.cooldown_steps
    numbers = (steps * config.batch_size + config.held_out) * ((config.keys + 1) * config.dim + 2)
    numbers += config.held_out * (max(config.tested_keys) + 1) * config.dim
    return block_size(config, 16 * numbers)


def summarise(config: RetrievalConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add what the figure shows: means with 95 % intervals over seeds that did not diverge."""
    dataset["naive"] = ((), np.log(config.keys))
    gap = dataset["cross_entropy"] - dataset["bayes"]
    dataset["gap_ratio"] = (gap / (dataset["naive"] - dataset["bayes"])).transpose("variant", "seed", "noise")
    for name, about in _ABOUT.items():
        dataset[name].attrs["description"] = about
    for name in ("cross_entropy", "inverse_temperature", "bayes", "common"):
        dataset[f"{name}_band"] = mean_band(dataset[name])
    dataset["gap_by_keys_band"] = mean_band(dataset["cross_entropy_by_keys"] - dataset["bayes_by_keys"])
    return dataset


def train(config: RetrievalConfig, progress: Progress) -> xr.Dataset:
    """Train every variant on every seed; evaluate against the exact posterior on held-out problems."""
    device, seeds = resolve_device(config.device), config.seed_range
    kind = getattr(torch, config.dtype)
    task = NoisyRetrievalTask(config.dim, config.keys, config.noise_levels)
    generators = [member_generator(s, Stream.DATA) for s in seeds]
    total = config.steps + config.cooldown_steps
    advance = progress(f"training {config.seeds} seeds x {len(config.variants)} variants", total * len(config.variants))
    batches = [
        batch_to_device([task.sample(config.batch_size, g) for g in generators], device, kind) for _ in range(total)
    ]
    trained = {v: _train(config, v, seeds, batches, device, advance) for v in config.variants}
    del batches

    held_out = [member_generator(s, Stream.EVALUATION) for s in seeds]
    levels = np.array(config.noise_levels, dtype=np.float64)
    problems = [
        [NoisyRetrievalTask(config.dim, config.keys, (s,)).sample(config.held_out, g) for s in config.noise_levels]
        for g in held_out
    ]
    table = _baselines(task, problems)
    values = {name: (("seed", "noise"), np.stack([row[name] for row in table])) for name in _BASELINES}
    values["common_inverse_temperature"] = ("seed", np.array([row["common_inverse_temperature"] for row in table]))
    by_noise = {name: np.zeros((len(config.variants), len(seeds), len(levels))) for name in _BY_NOISE}
    for j in range(len(levels)):
        at_level = [row[j] for row in problems]
        batch = batch_to_device(at_level, device, torch.float64)
        posterior = stack_members([task.posterior(p) for p in at_level], device)
        for i, v in enumerate(config.variants):
            found = _evaluate(RetrievalAttention(v), trained[v][0], batch, posterior)
            for name in _BY_NOISE:
                by_noise[name][i, :, j] = found[name]
    values |= {name: (("variant", "seed", "noise"), array) for name, array in by_noise.items()}

    by_keys = np.zeros((len(config.variants), len(seeds), len(config.tested_keys)))
    bayes = np.zeros(by_keys.shape[1:])
    for j, keys in enumerate(config.tested_keys):
        other = NoisyRetrievalTask(config.dim, keys, config.noise_levels)
        drawn = [other.sample(config.held_out, g) for g in held_out]
        bayes[:, j] = [posterior_entropy(other.log_posterior(p)).mean() for p in drawn]
        batch = batch_to_device(drawn, device, torch.float64)
        posterior = stack_members([other.posterior(p) for p in drawn], device)
        for i, v in enumerate(config.variants):
            by_keys[i, :, j] = _evaluate(RetrievalAttention(v), trained[v][0], batch, posterior)["cross_entropy"]
    values["cross_entropy_by_keys"] = (("variant", "seed", "keys"), by_keys)
    values["bayes_by_keys"] = (("seed", "keys"), bayes)
    values["diverged"] = (("variant", "seed"), np.stack([trained[v][1] for v in config.variants]))
    return xr.Dataset(
        values,
        coords={
            "variant": list(config.variants),
            "seed": list(seeds),
            "noise": levels,
            "keys": list(config.tested_keys),
        },
    )


def batch_to_device(parts: Sequence[Retrievals], device: torch.device, kind: torch.dtype) -> RetrievalBatch:
    """One set of problems a member to one batch on the device."""
    keys, query, noise = (
        stack_members([getattr(p, name) for p in parts], device).to(kind) for name in ("keys", "query", "noise")
    )
    return RetrievalBatch(keys, query, noise, stack_members([p.target for p in parts], device))


def _train(
    config: RetrievalConfig,
    variant: RetrievalVariant,
    seeds: Sequence[int],
    batches: Sequence[RetrievalBatch],
    device: torch.device,
    advance: Callable[[int], None],
) -> tuple[dict[str, Tensor], np.ndarray]:
    """The trained parameters in float64 (NaN where the model diverged), and which members diverged."""
    model = RetrievalAttention(variant)
    initial = model.initial_parameters(config.dim, [member_generator(s, Stream.PARAMETER) for s in seeds])
    parameters = {k: v.to(device, getattr(torch, config.dtype)) for k, v in initial.items()}
    trained = train_with_cooldown(
        lambda p, batch: retrieval_loss(model.logits(p, batch), batch.target),
        parameters,
        steps=config.steps,
        cooldown_steps=config.cooldown_steps,
        learning_rate=config.learning_rate,
        batches=batches,
        compile=config.compile,
        progress=advance,
    )
    final = {k: torch.where(trained.diverged, torch.nan, v.double()) for k, v in trained.parameters.items()}
    return final, trained.diverged.cpu().numpy()


def _baselines(task: NoisyRetrievalTask, problems: Sequence[Sequence[Retrievals]]) -> list[dict[str, np.ndarray]]:
    """The baselines of every seed, by noise level."""
    rows = []
    for seed in problems:
        log_p = np.stack([task.log_posterior(p) for p in seed])
        entropy = np.stack([posterior_entropy(one) for one in log_p])
        pooled = Retrievals(
            *(np.concatenate([getattr(p, name) for p in seed]) for name in ("keys", "query", "noise", "target"))
        )
        common = task.best_common_inverse_temperature(pooled)
        dots = np.einsum("skd,sd->sk", pooled.keys, pooled.query).reshape(log_p.shape)
        rows.append(
            {
                "bayes": entropy.mean(1),
                "bayes_error": entropy.std(1, ddof=1) / np.sqrt(entropy.shape[1]),
                "bayes_accuracy": np.exp(log_p.max(2)).mean(1),
                "common": -(np.exp(log_p) * log_softmax(common * dots, axis=2)).sum(2).mean(1),
                "common_inverse_temperature": np.float64(common),
            }
        )
    return rows


def _evaluate(
    model: RetrievalAttention, parameters: dict[str, Tensor], batch: RetrievalBatch, posterior: Tensor
) -> dict[str, np.ndarray]:
    """The arrays of `_BY_NOISE`, one value a member; the target of each problem is integrated out by its posterior."""
    logits = model.logits(parameters, batch)
    hit = posterior.gather(1, logits.argmax(1, keepdim=True)).mean((0, 1))
    found = {
        "cross_entropy": -(posterior * logits.log_softmax(1)).sum(1).mean(0),
        "accuracy": torch.where(logits.isnan().any(1).any(0), torch.nan, hit),
        "inverse_temperature": model.effective_inverse_temperature(parameters, batch.noise).mean(0),
    }
    return {name: value.cpu().numpy() for name, value in found.items()}


RETRIEVAL = Experiment(
    name="retrieval",
    question="Is the query temperature that SSA learns the posterior's 1 / s^2, and how near does it come to exact Bayes?",
    caption=(
        "Left: cross-entropy by the noise level of the query, against the exact posterior and the best single "
        "temperature. Middle: the learned inverse temperature, in the units of the posterior's 1 / s². Right: "
        "cross-entropy above exact Bayes at other numbers of keys, without further training. Means and 95 % intervals "
        "over seeds."
    ),
    config=RetrievalConfig,
    train=train,
    seeds_per_block=seeds_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={
        "smoke": {"seeds": 4, "steps": 60, "cooldown_steps": 20, "held_out": 64},
        "large": {"seeds": 512, "held_out": 1024},
    },
)
