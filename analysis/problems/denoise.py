"""The problem of denoising: recover a signal from tokens of which only some carry it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from analysis.problems.base import Block, Fitted, Measure, Problem, Training, stack_members
from analysis.problems.memory import Memory, by_seed
from analysis.problems.value_gates import BOUNDS, GATE_MEASURES, value_gates
from ssa_theory.losses import squared_error
from ssa_theory.mechanism import Form, Inputs, Layer, Parameters, Tokens
from ssa_theory.seeds import Stream, member_generator
from tasks.denoising import LONGEST_EXACT, DenoisingTask

DenoisingQuery = Literal["readout", "last"]
_RADII = 25

HELD_OUT = {
    "held_out_naive": "conditional risk of the mean token on the seed's held-out samples",
    "held_out_bayes": "conditional risk of the exact Bayes estimate on the seed's held-out "
    "samples: its posterior variance",
    "held_out_square": "mean square of the posterior variances of the seed's held-out samples",
    "held_out_oracle": "the posterior variance of one who knows which tokens carry the signal, on "
    "the seed's held-out samples",
}
"""Exact baselines by seed, per coordinate, means over the training lengths."""
DENOISE_MEASURES = {
    "mse": Measure(
        (),
        "risk given the seed's held-out samples, Var(y | X) + ||y_hat - E[y | X]||^2 per "
        "coordinate, mean over the training lengths",
    ),
    "excess": Measure((), "risk above Bayes: ||y_hat - E[y | X]||^2 of the same"),
    "risk": Measure(
        ("length",),
        "mse by context length; beyond the training lengths squared error on the samples",
    ),
    **GATE_MEASURES,
}
"""What is measured of a trained model."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out contexts of a seed, with what is exactly known of them, by training length: the
    posterior means, and the baselines in the order of `HELD_OUT`.
    """

    tokens: np.ndarray
    target: np.ndarray
    answer: dict[int, np.ndarray]
    baselines: dict[int, tuple[float, ...]]


@dataclass(frozen=True)
class DenoiseProblem(Problem):
    """Estimate the signal y from L tokens, a share of which are y plus noise, the others noise.

    task: the law; its length is that of the held-out contexts. query: attend from a learned
    constant, or from the last token. batch_size: fresh samples a step. held_out: samples a seed.
    lengths: of the training contexts, one a step in turn; by default the task's. A model is also
    tested at each of them, on the first tokens of the held-out contexts.

    Raises ValueError for a training length that is not between 1 and the task's, or at which Bayes
    is not exact.

    >>> DenoiseProblem(DenoisingTask(length=4)).form.values
    True
    """

    task: DenoisingTask = field(default_factory=DenoisingTask)
    query: DenoisingQuery = "readout"
    batch_size: int = 64
    held_out: int = 512
    lengths: tuple[int, ...] = ()
    memory: Memory = field(default_factory=Memory, repr=False, compare=False)

    name: ClassVar[str] = "denoise"
    measures = DENOISE_MEASURES

    def __post_init__(self) -> None:
        super().__post_init__()
        most = LONGEST_EXACT if self.task.prior == "gaussian" else self.task.length
        for n in self.trained_lengths:
            if not 1 <= n <= min(most, self.task.length):
                raise ValueError(
                    f"training lengths must lie between 1 and {min(most, self.task.length)}, where "
                    f"Bayes is exact and held-out contexts are as long, got {n}: choose others"
                )

    @property
    def trained_lengths(self) -> tuple[int, ...]:
        """In the order in which they are taken."""
        return self.lengths or (self.task.length,)

    @property
    def test_lengths(self) -> list[int]:
        """The training lengths in order, and that of the held-out contexts."""
        return sorted({*self.trained_lengths, self.task.length})

    @property
    def radius(self) -> np.ndarray:
        """The norms at which gates are looked at."""
        share = np.linspace(0, 1, _RADII + 1)[1:]
        return share * 1.2 * np.sqrt(self.task.dim) * self.task.filler_noise

    @property
    def form(self) -> Form:
        return Form(
            self.task.dim,
            constant_query=self.query == "readout",
            values=True,
            over_root_dim=True,
            position=True,
            trained_length=max(self.trained_lengths),
        )

    def at(self, filler_noise: float) -> "DenoiseProblem":
        """The same with other fillers. Both share their training data, which are drawn once."""
        return replace(self, task=replace(self.task, filler_noise=filler_noise))

    def inputs(self, tokens: Tensor) -> Inputs:
        """What a layer sees of contexts (sample, length, dim, member)."""
        query = Tokens(tokens[:, -1]) if self.query == "last" else None
        return Inputs(query, Tokens(tokens), count=float(tokens.shape[1]))

    def bytes_per_seed(self, training: Training) -> int:
        size = self.task.dim + 1
        samples = training.total_steps * self.batch_size
        data = samples * (max(self.trained_lengths) + 1) * size
        evaluation = self.held_out * self.task.length * (4 * self.task.dim + 1)
        return 16 * data + 64 * evaluation

    def block(self, seeds: Sequence[int], training: Training, device: torch.device) -> Block:
        held_out, lengths = self._held_out(seeds), sorted(set(self.trained_lengths))
        bayes = torch.from_numpy(self._baselines(seeds)["held_out_bayes"]).to(device)
        return DenoiseBlock(
            seeds,
            device,
            self,
            self._training_data(seeds, training, device),
            stack_members([h.tokens for h in held_out], device),
            stack_members([h.target for h in held_out], device),
            {n: stack_members([h.answer[n] for h in held_out], device) for n in lengths},
            dict(zip(lengths, bayes.unbind(1), strict=True)),
        )

    def describe(self, seeds: Sequence[int]) -> xr.Dataset:
        baselines, lengths = self._baselines(seeds), self.test_lengths
        dataset = xr.Dataset(
            {
                name: ("seed", baselines[name].mean(1), {"description": about})
                for name, about in HELD_OUT.items()
            },
            coords={"seed": list(seeds), "length": lengths},
        )
        exact = np.full((len(seeds), len(lengths)), np.nan)
        at = [lengths.index(n) for n in sorted(set(self.trained_lengths))]
        exact[:, at] = baselines["held_out_bayes"]
        about = "held_out_bayes by context length; NaN beyond the training lengths"
        return dataset.assign(bayes_by_length=(("seed", "length"), exact, {"description": about}))

    def coordinates(self, training: Training) -> dict[str, Any]:
        own = {"length": self.test_lengths, "bound": list(BOUNDS), "norm": self.radius}
        return super().coordinates(training) | own

    def _training_data(
        self, seeds: Sequence[int], training: Training, device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens with fillers of unit variance, where the fillers are, and targets: each member's
        own stream.

        At another s_noise the same stream differs by a factor on the fillers alone, so one draw
        serves all settings.
        """
        task = replace(self.task, filler_noise=1.0, length=max(self.trained_lengths))
        count = training.total_steps * self.batch_size

        def draw() -> tuple[Tensor, Tensor, Tensor]:
            def of(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
                sample = task.sample(count, member_generator(seed, Stream.DATA))
                tokens, target = (x.astype(training.dtype) for x in (sample.tokens, sample.target))
                return tokens, ~sample.relevant, target

            tokens, filler, target = (
                stack_members(list(x), device) for x in zip(*by_seed(seeds, of), strict=True)
            )
            return tokens, filler, target

        key = (task, count, tuple(seeds), training.dtype, device)
        return self.memory.get("training", key, draw)

    def _held_out(self, seeds: Sequence[int]) -> list[HeldOut]:
        """Every seed's held-out contexts, with their exact posteriors."""

        def of(seed: int) -> HeldOut:
            sample = self.task.sample(self.held_out, member_generator(seed, Stream.EVALUATION))
            answer, baselines = {}, {}
            for n in sorted(set(self.trained_lengths)):
                task, tokens = replace(self.task, length=n), sample.tokens[:, :n]
                posterior = task.bayes_posterior(tokens)
                answer[n], variance = posterior.mean, posterior.variance
                bayes, naive = variance.mean(), ((tokens.mean(1) - posterior.mean) ** 2).mean()
                oracle = task.oracle_posterior(tokens, sample.relevant[:, :n]).variance.mean()
                baselines[n] = bayes + naive, bayes, (variance**2).mean(), oracle
            return HeldOut(sample.tokens, sample.target, answer, baselines)

        key = (self.task, self.trained_lengths, self.held_out, tuple(seeds))
        return self.memory.get("held out", key, lambda: by_seed(seeds, of))

    def _baselines(self, seeds: Sequence[int]) -> dict[str, np.ndarray]:
        """Those of `HELD_OUT` (seed, training length)."""
        values = np.array([[*h.baselines.values()] for h in self._held_out(seeds)])
        return dict(zip(HELD_OUT, np.moveaxis(values, -1, 0), strict=True))


@dataclass(frozen=True)
class DenoiseBlock(Block):
    """Members with their training data (fillers of unit variance) and held-out contexts.

    data: tokens, where the fillers are, targets. tokens, target: held out. answer, bayes: posterior
    means and mean posterior variance by training length.
    """

    problem: DenoiseProblem
    data: tuple[Tensor, Tensor, Tensor]
    tokens: Tensor
    target: Tensor
    answer: dict[int, Tensor]
    bayes: dict[int, Tensor]

    def batches(self, training: Training) -> Iterator[tuple[Tensor, Tensor]]:
        """Step by step, the fillers scaled to the problem's, the contexts cut to its lengths."""
        problem, lengths = self.problem, self.problem.trained_lengths
        parts = zip(*(d.split(problem.batch_size) for d in self.data), strict=True)
        for step, (tokens, filler, target) in enumerate(parts):
            n = lengths[step % len(lengths)]
            scale = torch.where(filler[:, :n], problem.task.filler_noise, 1.0).to(tokens.dtype)
            yield tokens[:, :n] * scale.unsqueeze(2), target

    def loss(self, layer: Layer, parameters: Parameters, batch: tuple[Tensor, Tensor]) -> Tensor:
        tokens, target = batch
        return squared_error(layer.output(parameters, self.problem.inputs(tokens)), target)

    def evaluate(self, layer: Layer, fitted: Fitted) -> dict[str, Tensor]:
        """A prediction's risk given X is the posterior variance plus its distance from the mean."""
        excess, exact, risk = [], [], []
        for n in self.problem.test_lengths:
            inputs = self.problem.inputs(self.tokens[:, :n])
            estimate = layer.output(fitted.parameters, inputs)
            if n in self.answer:
                excess.append(squared_error(estimate, self.answer[n]))
                exact.append(excess[-1] + self.bayes[n])
                risk.append(exact[-1])
            else:
                risk.append(squared_error(estimate, self.target))
        measured = {
            "excess": torch.as_tensor(sum(excess) / len(excess)),
            "mse": torch.as_tensor(sum(exact) / len(exact)),
        }
        radii = self.problem.radius.tolist()
        gates = value_gates(layer, fitted.parameters, self.tokens, self.problem.inputs, radii)
        return measured | {"risk": torch.stack(risk)} | gates
