"""The problem of kernel regression: values of a smooth function from contexts that grow."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from analysis.problems.base import (
    Block,
    Fitted,
    Measure,
    Problem,
    Training,
    restarted,
    stack_members,
)
from analysis.problems.measures import row_shape
from analysis.problems.memory import by_seed
from ssa_theory.mechanism import Form, Inputs, Layer, Parameters
from ssa_theory.seeds import Stream, member_generator
from tasks.kernel_regression import Contexts, KernelRegressionTask, best_inverse_temperature

POOL_QUERIES = 8
"""Queries that share the keys and values of a training context: less to factorise."""
LARGEST_LENGTH = 8192

Batch = tuple[Tensor, Tensor, Tensor]
"""q . k (query, key, member), values likewise, and targets (query, member)."""


@dataclass(frozen=True)
class KernelRegressionProblem(Problem):
    """Predict f(q) from n noisy values of a Gaussian process, by attention over given scores q . k.

    length_scale, noise: l and sigma of the process. train_lengths: all in every step, equally
    weighted. contexts: training contexts a seed, eight queries each, of which batch_size make a
    step. held_out: queries to the held-out context of a seed; its first n keys are the context of
    length n, at each of test_lengths. The estimate is linear in the values, so its expected squared
    error is exact given keys and queries. Raises ValueError for settings out of range.

    >>> KernelRegressionProblem(train_lengths=(4, 8), test_lengths=(4, 32)).form.given_scores
    True
    """

    dim: int = 4
    length_scale: float = 1.0
    noise: float = 0.3
    train_lengths: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    test_lengths: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
    contexts: int = 128
    batch_size: int = 32
    held_out: int = 8

    name: ClassVar[str] = "kernel-regression"
    measures: ClassVar[Mapping[str, Measure]] = {
        "mse": Measure(
            ("length",),
            "expected squared error of f(q), exact given keys and queries, mean over the queries",
        ),
        "learned_inverse_temperature": Measure(
            ("length",), "the factor c tau(n) on q . k that was learned"
        ),
        "effective_support": Measure(
            ("length",),
            "exp(entropy) of the attention row, averaged over the queries with a key left",
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.task  # rejects settings of the process
        for name, lengths in self._lengths.items():
            distinct = len(set(lengths)) == len(lengths) > 0
            if not (distinct and 1 <= min(lengths) <= max(lengths) <= LARGEST_LENGTH):
                raise ValueError(
                    f"{name} must be different lengths in [1, {LARGEST_LENGTH}], got {lengths}: "
                    "list each once"
                )
        queries = self.contexts * POOL_QUERIES
        if queries % self.batch_size:
            raise ValueError(
                f"batch_size must divide the {queries} training queries ({POOL_QUERIES} a "
                f"context), got {self.batch_size}: change batch_size or contexts"
            )

    @property
    def task(self) -> KernelRegressionTask:
        """The Gaussian process."""
        return KernelRegressionTask(self.dim, self.length_scale, self.noise)

    @property
    def lengths(self) -> list[int]:
        """The test lengths, ascending."""
        return sorted(self.test_lengths)

    @property
    def form(self) -> Form:
        longest = max(self.train_lengths)
        return Form(self.dim, given_scores=True, position=True, trained_length=longest)

    @property
    def for_tuning(self) -> "KernelRegressionProblem":
        """Tested up to the longest training length only."""
        longest = max(self.train_lengths)
        within = tuple(n for n in self.test_lengths if n <= longest)
        return replace(self, test_lengths=within or (longest,))

    def bytes_per_seed(self, training: Training) -> int:
        # The pool, twice (as drawn, as batches); rows with their gradients; rows of the test.
        pool = 4 * self.contexts * POOL_QUERIES * max(self.train_lengths)
        trained = 8 * self.batch_size * sum(self.train_lengths)
        return 8 * (pool + trained + 4 * self.held_out * sum(self.test_lengths))

    def test_context(self, seed: int) -> Contexts:
        """The held-out context of a seed, at the longest test length."""
        generator = member_generator(seed, Stream.EVALUATION)
        return self.task.sample_contexts(1, max(self.test_lengths), generator, self.held_out)

    def block(
        self, seeds: Sequence[int], training: Training, device: torch.device
    ) -> "KernelRegressionBlock":
        return KernelRegressionBlock(seeds, device, self, training)

    def describe(self, seeds: Sequence[int]) -> xr.Dataset:
        task, lengths = self.task, self.lengths
        grid = task.inverse_temperature_grid
        bayes = np.empty((len(seeds), len(lengths)))
        risk = np.empty((*bayes.shape, len(grid) + 1))
        for i, seed in enumerate(seeds):
            context = self.test_context(seed)
            covariance = task.covariance(context.keys)
            bayes[i] = task.bayes_variance(context, covariance)[0].mean(0)[np.array(lengths) - 1]
            for j, n in enumerate(lengths):
                risk[i, j] = self._softmax_risk(context, n, np.append(grid, 0.0), covariance)
        values = {
            "bayes": (_BY_LENGTH, bayes),
            "naive": (_BY_LENGTH, risk[..., -1]),
            "softmax_risk": ((*_BY_LENGTH, "tau"), risk[..., :-1]),
        }
        coords = {"seed": list(seeds), "length": lengths, "tau": grid}
        return _described(xr.Dataset(values, coords=coords))

    def summarise(self, dataset: xr.Dataset) -> xr.Dataset:
        """The errors of softmax at the temperatures that are best for all seeds together."""
        task, lengths, seeds = self.task, self.lengths, dataset["seed"].values
        grid = task.inverse_temperature_grid
        curve = dataset["softmax_risk"].transpose(*_BY_LENGTH, "tau").values
        best = np.array([best_inverse_temperature(grid, one) for one in curve.mean(0)])
        single = best_inverse_temperature(grid, curve.mean((0, 1)))
        risk = np.empty((2, len(seeds), len(lengths)))
        for i, seed in enumerate(seeds):
            context = self.test_context(int(seed))
            covariance = task.covariance(context.keys)
            for j, n in enumerate(lengths):
                tau = np.array([best[j], single])
                risk[:, i, j] = self._softmax_risk(context, n, tau, covariance)
        return _described(
            dataset.assign(
                oracle=(_BY_LENGTH, risk[0]),
                best_vanilla=(_BY_LENGTH, risk[1]),
                best_inverse_temperature=("length", best),
                best_vanilla_inverse_temperature=((), single),
            )
        )

    def coordinates(self, training: Training) -> dict[str, Any]:
        return {"length": self.lengths}

    @property
    def _lengths(self) -> dict[str, tuple[int, ...]]:
        return {"train_lengths": self.train_lengths, "test_lengths": self.test_lengths}

    def _softmax_risk(
        self, context: Contexts, n: int, tau: np.ndarray, covariance: np.ndarray
    ) -> np.ndarray:
        """The expected squared error of softmax attention over the first n keys at each tau."""
        part = context.prefix(n)
        weights = self.task.attention(part, tau)
        return self.task.linear_risk(part, weights, covariance[:, :n, :n])[0].mean(1)


@dataclass(frozen=True)
class KernelRegressionBlock(Block):
    """Members that regress. problem: with its settings. training: of all members."""

    problem: KernelRegressionProblem
    training: Training

    def batches(self, training: Training) -> Iterator[Batch]:
        return restarted(self.pool, training)

    def loss(self, layer: Layer, parameters: Parameters, batch: Batch) -> Tensor:
        """The sum over the training lengths of the mean squared error."""
        given, values, target = batch
        loss = torch.zeros_like(target[0])
        for n in self.problem.train_lengths:
            rows = layer.rows(parameters, Inputs(given=given[:, :n], count=float(n)))
            loss = loss + ((rows * values[:, :n]).sum(1) - target).square().mean(0)
        return loss

    def evaluate(self, layer: Layer, fitted: Fitted) -> dict[str, Tensor]:
        problem, task, final = self.problem, self.problem.task, fitted.parameters
        tested = [self.tested(n) for n in problem.lengths]
        rows = [layer.rows(final, inputs) for inputs in tested]
        tau = [layer.inverse_temperature("query", final, inputs) for inputs in tested]
        on_host = [one.cpu().numpy() for one in rows]
        risk = np.empty((len(tested), len(self.seeds)))
        for i, context in enumerate(self._contexts):
            covariance = task.covariance(context.keys)
            for j, n in enumerate(problem.lengths):
                weights = on_host[j][None, None, :, :, i]
                part = context.prefix(n)
                risk[j, i] = task.linear_risk(part, weights, covariance[:, :n, :n]).mean()
        return {
            "mse": torch.from_numpy(risk).to(self.device),
            "learned_inverse_temperature": torch.stack(tau),
            "effective_support": torch.stack([row_shape(one)["effective_support"] for one in rows]),
        }

    def rows(self, layer: Layer, parameters: Parameters) -> tuple[Tensor, None]:
        """The rows over the longest context; there are none that they should be."""
        return layer.rows(parameters, self.tested(self.problem.lengths[-1])), None

    def tested(self, n: int) -> Inputs:
        """The scores of the held-out queries with their first n keys, in float64."""
        return Inputs(given=self._dots[:, :n], count=float(n))

    @cached_property
    def pool(self) -> list[Batch]:
        """The training data in batches, in the precision of training."""
        longest = max(self.problem.train_lengths)

        def of(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            generator = member_generator(seed, Stream.DATA)
            one = self.problem.task.sample(self.problem.contexts, longest, generator, POOL_QUERIES)
            # Queries of one context stand `contexts` apart: a batch sees as many as it can.
            dots = np.einsum("snd,sqd->qsn", one.keys, one.query).reshape(-1, longest)
            return dots, np.tile(one.values, (POOL_QUERIES, 1)), one.target.T.ravel()

        given, values, target = (
            stack_members(arrays, self.device).to(self.training.torch_dtype)
            for arrays in zip(*by_seed(self.seeds, of), strict=True)
        )
        size = self.problem.batch_size
        return [
            (given[i : i + size], values[i : i + size], target[i : i + size])
            for i in range(0, len(given), size)
        ]

    @cached_property
    def _contexts(self) -> list[Contexts]:
        return by_seed(self.seeds, self.problem.test_context)

    @cached_property
    def _dots(self) -> Tensor:
        dots = [np.einsum("qd,nd->qn", c.query[0], c.keys[0]) for c in self._contexts]
        return stack_members(dots, self.device)


_BY_LENGTH = ("seed", "length")
_ABOUT = {
    "bayes": "posterior variance of f(q), the squared error of the posterior mean",
    "naive": "squared error of the mean of the values, attention with tau = 0",
    "softmax_risk": "squared error of softmax attention at each constant inverse temperature tau",
    "oracle": "squared error of attention with the best inverse temperature of each length",
    "best_vanilla": "squared error of attention with the one inverse temperature of the least mean "
    "error over the test lengths",
    "best_inverse_temperature": "the best constant inverse temperature of each length, over all "
    "held-out contexts",
    "best_vanilla_inverse_temperature": "the best single inverse temperature for all test lengths",
}


def _described(dataset: xr.Dataset) -> xr.Dataset:
    for name, about in _ABOUT.items():
        if name in dataset:
            dataset[name].attrs["description"] = about
    return dataset
