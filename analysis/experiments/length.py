"""Which position schedule extrapolates? Kernel regression over contexts far longer than those of training."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np
import torch
import xarray as xr
from pydantic import Field, model_validator
from torch import Tensor

from analysis.store.config import TrainingConfig
from analysis.experiments.base import Experiment, Progress
from analysis.experiments.length_claims import judge
from analysis.experiments.length_figure import draw
from analysis.fitting import block_size, stack_members, train_with_cooldown
from analysis.problems.measures import effective_support
from analysis.claims.statistics import mean_band
from ssa_theory import Stream, member_generator, resolve_device
from ssa_theory.schedules import PositionSchedule, ScheduleName
from tasks.kernel_regression import Contexts, KernelRegressionTask, best_inverse_temperature

POOL_QUERIES = 8  # that share the keys and values of a training context: less to factorise, and nearly as informative

Batch = tuple[Tensor, Tensor, Tensor]


class LengthConfig(TrainingConfig):
    """Predict f(q) from n noisy values of a Gaussian process by attention with logits tau(n) q . k, tau a position schedule."""

    dim: int = Field(4, ge=1, le=1024, description="dimension d of keys and query, on the unit sphere")
    length_scale: float = Field(1.0, gt=0, description="length scale l of the Gaussian process")
    noise: float = Field(0.3, gt=0, description="standard deviation sigma of the noise of the values")
    train_lengths: tuple[int, ...] = Field(
        (4, 8, 16, 32, 64, 128), description="context lengths of training, all in every step, equally weighted"
    )
    test_lengths: tuple[int, ...] = Field(
        (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048), description="context lengths of the test"
    )
    schedules: tuple[ScheduleName, ...] = Field(
        ("constant", "ssa", "released", "ssmax", "asentmax", "yarn", "power"),
        description="position schedules to train; constant is the peer",
    )
    contexts: int = Field(128, ge=1, le=100_000, description="training contexts a seed, eight queries each")
    batch_size: int = Field(32, ge=1, le=65536, description="queries a step")
    learning_rate: float = Field(0.1, gt=0, description="step size of Adam")
    steps: int = Field(200, ge=1, le=1_000_000, description="training steps at the full step size")
    cooldown_steps: int = Field(50, ge=0, le=1_000_000, description="further steps at a tenth of the step size")
    held_out: int = Field(8, ge=1, le=4096, description="queries to the held-out context of each seed")

    @model_validator(mode="after")
    def _consistent(self) -> "LengthConfig":
        self.require_distinct("train_lengths", "test_lengths", "schedules")
        for name, lengths in (("train_lengths", self.train_lengths), ("test_lengths", self.test_lengths)):
            wrong = [n for n in lengths if not 1 <= n <= 8192]
            if wrong:
                raise ValueError(f"{name} must lie in [1, 8192], got {wrong[0]}: choose lengths in that range")
        if (self.contexts * POOL_QUERIES) % self.batch_size:
            raise ValueError(
                f"batch_size must divide the {self.contexts * POOL_QUERIES} training queries ({POOL_QUERIES} a context), got "
                f"{self.batch_size}: change batch_size or contexts"
            )
        return self

    @property
    def task(self) -> KernelRegressionTask:
        """The task itself."""
        return KernelRegressionTask(self.dim, self.length_scale, self.noise)

    def schedule(self, name: ScheduleName) -> PositionSchedule:
        """A schedule as trained here."""
        return PositionSchedule(name, max(self.train_lengths) if name == "yarn" else None)


def seeds_per_block(config: LengthConfig) -> int:
    """By the pool, twice (as drawn, as batches), and logits and weights with their gradients at every length."""
    numbers = 4 * config.contexts * POOL_QUERIES * max(config.train_lengths)
    numbers += 8 * config.batch_size * sum(config.train_lengths)
    return block_size(config, 8 * numbers)


def summarise(config: LengthConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Evaluate all on held-out contexts that grow to the longest test length; the best temperatures are those of all seeds."""
    dataset = _evaluate(config, dataset, progress("evaluating held-out contexts, twice", 2 * config.seeds))
    gap, span = dataset["mse"] - dataset["bayes"], dataset["naive"] - dataset["bayes"]
    dataset["gap_ratio"] = (gap / span).transpose("variant", "seed", "length")
    for name, about in _ABOUT.items():
        dataset[name].attrs["description"] = about
    for name in ("mse", *_BASELINES, "learned_inverse_temperature", "effective_support"):
        dataset[f"{name}_band"] = mean_band(dataset[name])
    return dataset


_BASELINES = ("bayes", "oracle", "best_vanilla", "naive")
_ABOUT = {
    "mse": "expected squared error of f(q), exact given keys and queries, averaged over the queries",
    "bayes": "posterior variance of f(q), the squared error of the Gaussian process's posterior mean",
    "oracle": "squared error of attention with the best constant inverse temperature of each length",
    "best_vanilla": "squared error of attention with the one inverse temperature of the least mean error over the test lengths",
    "naive": "squared error of the mean of the values, attention with tau = 0",
    "gap_ratio": "(mse - bayes) / (naive - bayes): 0 for Bayes, 1 for the mean of the values",
    "best_inverse_temperature": "the best constant inverse temperature of each length, over all held-out contexts",
    "best_vanilla_inverse_temperature": "the best single inverse temperature for all test lengths",
    "learned_inverse_temperature": "tau(n) of the trained schedule",
    "effective_support": "exp(entropy) of the attention row, averaged over the queries",
    "diverged": "whether the loss was ever not finite; the model's other numbers are NaN",
}


def train(config: LengthConfig, progress: Progress) -> xr.Dataset:
    """Train every schedule on every seed: its tau at every test length, in float64, and what diverged."""
    device, kind = resolve_device(config.device), getattr(torch, config.dtype)
    seeds, schedules = config.seed_range, config.schedules
    advance = progress(
        f"training {config.seeds} seeds x {len(schedules)} schedules",
        (config.steps + config.cooldown_steps) * len(schedules),
    )
    pool = batch_pool(config, seeds, device, kind)
    trained_on = torch.tensor(config.train_lengths, device=device)
    tested_on = torch.tensor(sorted(config.test_lengths), device=device)
    found, failed = [], []
    for name in schedules:
        schedule = config.schedule(name)

        def loss(parameters: dict[str, Tensor], batch: Batch, schedule: PositionSchedule = schedule) -> Tensor:
            taus = schedule.inverse_temperature(parameters, trained_on)
            return sum(_squared_error(batch, n, tau) for n, tau in zip(config.train_lengths, taus, strict=True))

        parameters = {k: v.to(device, kind) for k, v in schedule.initial_parameters(len(seeds)).items()}
        trained = train_with_cooldown(
            loss,
            parameters,
            steps=config.steps,
            cooldown_steps=config.cooldown_steps,
            learning_rate=config.learning_rate,
            batches=chain(cycle_batches(pool, config.steps), cycle_batches(pool, config.cooldown_steps)),
            compile=config.compile,
            progress=advance,
        )
        final = {k: v.double() for k, v in trained.parameters.items()}
        tau = schedule.inverse_temperature(final, tested_on)
        found.append(torch.where(trained.diverged, torch.nan, tau).T.cpu().numpy())
        failed.append(trained.diverged.cpu().numpy())
    return xr.Dataset(
        {
            "learned_inverse_temperature": (("variant", "seed", "length"), np.stack(found)),
            "diverged": (("variant", "seed"), np.stack(failed)),
        },
        coords={"variant": list(schedules), "seed": list(seeds), "length": sorted(config.test_lengths)},
    )


def batch_pool(config: LengthConfig, seeds: Sequence[int], device: torch.device, kind: torch.dtype) -> list[Batch]:
    """The training data in batches: q . k (position, query, member), values likewise, targets (query, member)."""
    longest = max(config.train_lengths)
    drawn = []
    for seed in seeds:
        one = config.task.sample(config.contexts, longest, member_generator(seed, Stream.DATA), POOL_QUERIES)
        # Queries of one context stand `contexts` apart, so that a batch sees as many contexts as it can.
        dots = np.einsum("snd,sqd->nqs", one.keys, one.query).reshape(longest, -1)
        drawn.append((dots, np.tile(one.values.T, (1, POOL_QUERIES)), one.target.T.ravel()))
    dots, values, target = (stack_members(arrays, device).to(kind) for arrays in zip(*drawn, strict=True))
    size = config.batch_size
    return [
        (dots[:, i : i + size].contiguous(), values[:, i : i + size].contiguous(), target[i : i + size])
        for i in range(0, dots.shape[1], size)
    ]


def cycle_batches(pool: Sequence[Batch], steps: int) -> Iterator[Batch]:
    """The batches of a pool, over and over, one a step."""
    return (pool[step % len(pool)] for step in range(steps))


def _squared_error(batch: Batch, length: int, tau: Tensor) -> Tensor:
    """Mean squared error (member,) of attention over the first `length` pairs at tau (member,)."""
    dots, values, target = batch
    weights = (tau * dots[:length]).softmax(0)
    return ((weights * values[:length]).sum(0) - target).square().mean(0)


def _evaluate(config: LengthConfig, dataset: xr.Dataset, advance: Callable[[int], None]) -> xr.Dataset:
    """Add errors, baselines and effective supports.

    The context of a seed is nested: its first n keys are its context of length n. The best constant temperatures are found
    from all contexts in a first pass, so no constant does better on them; a second pass evaluates everything.
    """
    task, lengths = config.task, dataset["length"].values
    grid = task.inverse_temperature_grid
    bayes = np.empty((config.seeds, len(lengths)))
    curve = np.empty((config.seeds, len(lengths), len(grid)))
    for i, contexts in enumerate(held_out_contexts(config)):
        covariance = task.covariance(contexts.keys)
        bayes[i] = task.bayes_variance(contexts, covariance)[0].mean(0)[lengths - 1]
        for j, n in enumerate(lengths.tolist()):
            part = contexts.prefix(n)
            risk = task.linear_risk(part, task.attention(part, grid), covariance[:, :n, :n])
            curve[i, j] = risk[0].mean(1)
        advance(1)
    best = np.array([best_inverse_temperature(grid, mean_risk) for mean_risk in curve.mean(0)])
    best_vanilla = best_inverse_temperature(grid, curve.mean((0, 1)))

    learned = dataset["learned_inverse_temperature"].values
    diverged = dataset["diverged"].values
    models = len(learned)
    risk = np.empty((models + 3, config.seeds, len(lengths)))
    support = np.empty(learned.shape)
    for i, contexts in enumerate(held_out_contexts(config)):
        covariance = task.covariance(contexts.keys)
        for j, n in enumerate(lengths.tolist()):
            part = contexts.prefix(n)
            tau = np.where(diverged[:, i], 0.0, learned[:, i, j])
            weights = task.attention(part, np.append(tau, [best[j], best_vanilla, 0.0]))
            risk[:, i, j] = task.linear_risk(part, weights, covariance[:, :n, :n])[0].mean(1)
            support[:, i, j] = effective_support(torch.from_numpy(weights[0, :models])).mean(1).numpy()
        advance(1)
    both = ("seed", "length")
    lost = diverged[:, :, None]
    dataset["mse"] = (("variant", *both), np.where(lost, np.nan, risk[:models]))
    dataset["effective_support"] = (("variant", *both), np.where(lost, np.nan, support))
    dataset["bayes"] = (both, bayes)
    for name, values in zip(("oracle", "best_vanilla", "naive"), risk[models:], strict=True):
        dataset[name] = (both, values)
    dataset["best_inverse_temperature"] = ("length", best)
    dataset["best_vanilla_inverse_temperature"] = ((), best_vanilla)
    return dataset


def held_out_contexts(config: LengthConfig) -> Iterator[Contexts]:
    """The held-out context of every seed, at the longest test length."""
    for seed in config.seed_range:
        generator = member_generator(seed, Stream.EVALUATION)
        yield config.task.sample_contexts(1, max(config.test_lengths), generator, config.held_out)


LENGTH = Experiment(
    name="length",
    question="Which position schedule extrapolates to contexts far longer than those of training?",
    caption=(
        "Left: mean squared error of trained position schedules by context length, trained in the grey range, between "
        "uniform attention and the exact posterior mean. Middle: the learned tau(n) beside the best temperature of each"
        " length. Right: effective support of the attention row. Means and 95 % intervals over seeds."
    ),
    config=LengthConfig,
    train=train,
    seeds_per_block=seeds_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={
        "smoke": {
            "seeds": 4,
            "contexts": 16,
            "steps": 40,
            "cooldown_steps": 10,
            "train_lengths": (4, 16, 32),
            "test_lengths": (4, 16, 32, 64, 128),
        },
        "large": {"seeds": 512, "contexts": 512, "held_out": 16},
    },
)
