"""The problem of noisy retrieval: which key does a query stem from? Bayes attends with 1 / s^2."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from scipy.special import log_softmax, softmax
from torch import Tensor

from analysis.problems.base import Block, Fitted, Measure, Problem, Training, stack_members
from analysis.problems.memory import by_seed
from analysis.problems.rows import LossScore, require_exponential
from ssa_theory.losses import choice_loss, squared_distance
from ssa_theory.mechanism import Form, Inputs, Layer, Mechanism, Parameters, Tokens
from ssa_theory.seeds import Stream, member_generator
from tasks.kernel_regression import best_inverse_temperature
from tasks.retrieval import NoisyRetrievalTask, Retrievals, posterior_entropy

Batch = tuple[Inputs, Tensor]
"""Problems, and their targets (query, member), or the posterior's rows (query, key, member)."""
LARGEST_KEYS = 4096

_CROSS_ENTROPY = (
    "expected -log P_hat(target) of held-out problems (nats), the target integrated out by the "
    "posterior"
)
_BRIER_GAP = "mean squared distance of the row from the posterior, the Brier score above its own"
_ACCURACY = "expected share of held-out problems in which the largest P_hat is the target's"
_INVERSE_TEMPERATURE = (
    "learned tau(s) tr(W) / d, comparable with 1 / s^2: c I is nearest to W for c = tr(W) / d; NaN "
    "where keys have a map of their own"
)
_BY_NOISE = ("seed", "noise")
_COMMON = (
    "{unit} of the best single inverse temperature for all noise levels, chosen on the same "
    "problems (those of all seeds, where the score is brier)"
)
_BASELINES: dict[str, tuple[tuple[str, ...], str]] = {
    "bayes": (_BY_NOISE, "{unit} of the exact posterior on the same problems"),
    "bayes_error": (_BY_NOISE, "standard error of bayes over the held-out problems of a seed"),
    "bayes_accuracy": (_BY_NOISE, "accuracy of the exact posterior on the same problems"),
    "common": (_BY_NOISE, _COMMON),
    "common_inverse_temperature": (("seed",), "that single inverse temperature"),
    "naive": ((), "{unit} of a uniform guess"),
    "bayes_by_keys": (("seed", "keys"), "{unit} of the exact posterior, by the number of keys"),
}


@dataclass(frozen=True)
class RetrievalProblem(Problem):
    """Find the key that a noisy query stems from; the noise level s of every query is visible.

    The query token is [q, log s] and its given scalar log s: every mechanism has the information,
    as far as its score can use it. The row is the prediction; Bayes is softmax_i(q . k_i / s^2).

    keys: n in training and in the main evaluation. batch_size: fresh problems a step. held_out:
    test problems a seed and noise level. tested_keys: numbers of keys at which the trained models
    are evaluated as well. score: of the loss, -log P_hat of a sampled target, or the squared
    distance from the exact posterior, finite for exact zeros. Raises ValueError for bad settings.
    """

    dim: int = 8
    keys: int = 32
    noise_levels: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)
    batch_size: int = 32
    held_out: int = 256
    tested_keys: tuple[int, ...] = ()
    score: LossScore = "log"

    name: ClassVar[str] = "retrieval"
    measures: ClassVar[Mapping[str, Measure]] = {
        "cross_entropy": Measure(("noise",), _CROSS_ENTROPY),
        "brier_gap": Measure(("noise",), _BRIER_GAP),
        "accuracy": Measure(("noise",), _ACCURACY),
        "inverse_temperature": Measure(("noise",), _INVERSE_TEMPERATURE),
        "cross_entropy_by_keys": Measure(("keys",), f"{_CROSS_ENTROPY}; over all noise levels"),
        "brier_gap_by_keys": Measure(("keys",), f"{_BRIER_GAP}; over all noise levels"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.task  # rejects levels that are not positive
        if wrong := [n for n in self.tested_keys if not 2 <= n <= LARGEST_KEYS]:
            raise ValueError(
                f"tested_keys must lie in [2, {LARGEST_KEYS}], got {wrong[0]}: choose such values"
            )

    @property
    def task(self) -> NoisyRetrievalTask:
        """The task as trained, with all noise levels."""
        return NoisyRetrievalTask(self.dim, self.keys, self.noise_levels)

    @property
    def objective(self) -> str:
        return "cross_entropy" if self.score == "log" else "brier_gap"

    @property
    def for_tuning(self) -> "RetrievalProblem":
        """Tested with the keys of training only."""
        return replace(self, tested_keys=())

    @property
    def form(self) -> Form:
        return Form(self.dim, query_dim=self.dim + 1, features=frozenset({"query"}))

    def layer(self, mechanism: Mechanism) -> Layer:
        layer = super().layer(mechanism)
        if self.score == "brier":
            return layer
        return require_exponential(layer, "the Brier score, as its rows have zeros (score brier)")

    def bytes_per_seed(self, training: Training) -> int:
        one = (self.keys + 1) * self.dim + self.keys + 3
        tested = self.held_out * (self.dim + 2) * sum(n + 1 for n in self.tested_keys)
        number = training.total_steps * self.batch_size + len(self.noise_levels) * self.held_out
        return 16 * (number * one + tested)

    def test_problems(self, seed: int) -> tuple[list[Retrievals], list[Retrievals]]:
        """The held-out problems of a seed, by noise level and by number of keys."""
        generator = member_generator(seed, Stream.EVALUATION)
        levels = [(self.keys, (s,)) for s in self.noise_levels]
        others = [(n, self.noise_levels) for n in self.tested_keys]
        drawn = [
            NoisyRetrievalTask(self.dim, *setting).sample(self.held_out, generator)
            for setting in levels + others
        ]
        return drawn[: len(levels)], drawn[len(levels) :]

    def block(
        self, seeds: Sequence[int], training: Training, device: torch.device
    ) -> "RetrievalBlock":
        return RetrievalBlock(seeds, device, self, training)

    def describe(self, seeds: Sequence[int]) -> xr.Dataset:
        rows = [self._baselines(*self.test_problems(s)) for s in seeds]
        values = {n: (_BASELINES[n][0], np.stack([row[n] for row in rows])) for n in rows[0]}
        dataset = xr.Dataset(values, coords={"seed": list(seeds)} | self._labels)
        dataset["naive"] = ((), np.log(self.keys) if self.score == "log" else 1 - 1 / self.keys)
        return self._described(dataset)

    def summarise(self, dataset: xr.Dataset) -> xr.Dataset:
        """Of score brier: the one inverse temperature best for all seeds and noise levels."""
        if self.score == "log":
            return dataset
        problems = [p for s in dataset["seed"].values for p in self.test_problems(int(s))[0]]
        shape = (dataset.sizes["seed"], len(self.noise_levels), self.held_out, self.keys)
        target = np.stack([self.task.posterior(p) for p in problems]).reshape(shape)
        dots = np.stack([np.einsum("skd,sd->sk", p.keys, p.query) for p in problems]).reshape(shape)

        def gap(c: float) -> np.ndarray:
            return ((softmax(c * dots, axis=-1) - target) ** 2).sum(-1).mean(-1)

        wanted = 1 / np.array(self.noise_levels) ** 2
        grid = np.geomspace(wanted.min(), wanted.max(), 25) if len(wanted) > 1 else wanted
        best = best_inverse_temperature(grid, np.array([gap(c).mean() for c in grid]))
        common = (("seed", "noise"), dataset["bayes"].values + gap(best))
        return self._described(dataset.assign(common=common, common_inverse_temperature=((), best)))

    def coordinates(self, training: Training) -> dict[str, Any]:
        return self._labels

    @property
    def _labels(self) -> dict[str, Sequence[float]]:
        by_keys = {"keys": list(self.tested_keys)} if self.tested_keys else {}
        return {"noise": list(self.noise_levels), **by_keys}

    def _baselines(
        self, by_noise: Sequence[Retrievals], by_keys: Sequence[Retrievals]
    ) -> dict[str, np.ndarray]:
        """Of one seed."""
        log_p = np.stack([self.task.log_posterior(p) for p in by_noise])
        score = np.stack([self._bayes(one) for one in log_p])
        exact = {"bayes": score.mean(1), "bayes_accuracy": np.exp(log_p.max(2)).mean(1)}
        others = [self._bayes(self.task.log_posterior(p)).mean() for p in by_keys]
        exact |= {"bayes_by_keys": np.array(others)} if by_keys else {}
        if self.score == "brier":
            return exact
        parts = [[getattr(one, f.name) for one in by_noise] for f in fields(Retrievals)]
        pooled = Retrievals(*map(np.concatenate, parts))
        common = self.task.best_common_inverse_temperature(pooled)
        dots = np.stack([np.einsum("skd,sd->sk", p.keys, p.query) for p in by_noise])
        rows = log_softmax(common * dots, axis=2)
        return exact | {
            "bayes_error": score.std(1, ddof=1) / np.sqrt(self.held_out),
            "common": -(np.exp(log_p) * rows).sum(2).mean(1),
            "common_inverse_temperature": np.float64(common),
        }

    def _bayes(self, log_posterior: np.ndarray) -> np.ndarray:
        """The expected score of each exact posterior."""
        if self.score == "log":
            return posterior_entropy(log_posterior)
        return 1 - (np.exp(log_posterior) ** 2).sum(1)

    def _described(self, dataset: xr.Dataset) -> xr.Dataset:
        unit = "cross-entropy (nats)" if self.score == "log" else "Brier score"
        for name in _BASELINES.keys() & dataset.keys():
            dataset[name].attrs["description"] = _BASELINES[name][1].format(unit=unit)
        return dataset


@dataclass(frozen=True)
class RetrievalBlock(Block):
    """Members that retrieve. problem: with its settings. training: of all members."""

    problem: RetrievalProblem
    training: Training

    def loss(self, layer: Layer, parameters: Parameters, batch: Batch) -> Tensor:
        inputs, wanted = batch
        if self.problem.score == "log":
            return choice_loss(layer.logits(parameters, inputs), wanted)
        return squared_distance(layer.rows(parameters, inputs), wanted)

    def batches(self, training: Training) -> Iterator[Batch]:
        return islice(self._pool, training.total_steps)

    def evaluate(self, layer: Layer, fitted: Fitted) -> dict[str, Tensor]:
        by_noise, by_keys = self._held_out
        rows = [self._measure(layer, fitted.parameters, *level) for level in by_noise]
        measured = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        if by_keys:
            name, final = self.problem.objective, fitted.parameters
            rows = [self._measure(layer, final, *one)[name] for one in by_keys]
            measured[f"{name}_by_keys"] = torch.stack(rows)
        return measured

    def rows(self, layer: Layer, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """Of all held-out problems, and the exact posterior's (query, key, member)."""
        inputs, target = zip(*self._held_out[0], strict=True)
        return torch.cat([layer.rows(parameters, one) for one in inputs]), torch.cat(target)

    @property
    def tested_inputs(self) -> list[Inputs]:
        """The held-out problems by noise level."""
        return [inputs for inputs, _ in self._held_out[0]]

    def _measure(
        self, layer: Layer, parameters: Parameters, inputs: Inputs, posterior: Tensor
    ) -> dict[str, Tensor]:
        if self.problem.score == "log":
            rows = layer.logits(parameters, inputs)
            score = {"cross_entropy": -(posterior * rows.log_softmax(1)).sum(1).mean(0)}
        else:
            rows = layer.rows(parameters, inputs)
            score = {"brier_gap": squared_distance(rows, posterior)}
        tau = layer.inverse_temperature("query", parameters, inputs).expand(len(rows), -1)
        # The last row of W, the feature's, has no part in the trace.
        scale = parameters["weight"].diagonal(dim1=0, dim2=1).mean(-1)
        scale = torch.full_like(scale, torch.nan) if layer.mechanism.score.maps_keys else scale
        return score | {
            "accuracy": posterior.gather(1, rows.argmax(1, keepdim=True)).mean((0, 1)),
            "inverse_temperature": (tau * scale).mean(0),
        }

    @cached_property
    def _pool(self) -> list[Batch]:
        """The training data of all steps, drawn once for all mechanisms."""
        task, size = self.problem.task, self.problem.batch_size

        def of(seed: int) -> list[Retrievals]:
            generator = member_generator(seed, Stream.DATA)
            return [task.sample(size, generator) for _ in range(self.training.total_steps)]

        return [self._batch(parts) for parts in zip(*by_seed(self.seeds, of), strict=True)]

    @cached_property
    def _held_out(self) -> tuple[list[Batch], list[Batch]]:
        """By noise level and by number of keys, in float64, with the exact posteriors."""
        drawn = by_seed(self.seeds, self.problem.test_problems)
        by_noise, by_keys = (zip(*part, strict=True) for part in zip(*drawn, strict=True))
        return [self._tested(p) for p in by_noise], [self._tested(p) for p in by_keys]

    def _batch(self, parts: Sequence[Retrievals]) -> Batch:
        dtype = self.training.torch_dtype
        if self.problem.score == "brier":
            return self._inputs(parts, dtype), self._posterior(parts).to(dtype)
        return self._inputs(parts, dtype), stack_members([p.target for p in parts], self.device)

    def _tested(self, parts: Sequence[Retrievals]) -> Batch:
        return self._inputs(parts, torch.float64), self._posterior(parts)

    def _posterior(self, parts: Sequence[Retrievals]) -> Tensor:
        return stack_members([self.problem.task.posterior(p) for p in parts], self.device)

    def _inputs(self, parts: Sequence[Retrievals], dtype: torch.dtype) -> Inputs:
        keys, query, noise = (
            stack_members([getattr(p, name) for p in parts], self.device).to(dtype)
            for name in ("keys", "query", "noise")
        )
        feature = noise.log()
        token = torch.cat([query, feature.unsqueeze(1)], 1)
        return Inputs(Tokens(token, feature), Tokens(keys), count=float(keys.shape[1]))
