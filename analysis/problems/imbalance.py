"""The problem of imbalanced tokens: one target, whatever the counts (position temperature)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import ClassVar

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analysis.problems.base import Block, Fitted, Measure, Training, stack_members
from analysis.problems.grid import GridProblem
from analysis.problems.schedules import Least, schedules
from ssa_theory.mechanism import Form, Inputs, Layer, Mechanism, Misfit, Parameters, Tokens
from ssa_theory.mechanism.normalizers import Softmax
from ssa_theory.seeds import Stream, member_generator
from ssa_theory.theory.paper.imbalance import Imbalance, best_schedule
from tasks.imbalance import (
    ImbalanceTask,
    PowerImbalance,
    TwoTokenSequences,
    bernoulli_sequences,
    tracking_sequence,
)

FIRST = 2
"""n_0 of the deterministic sequence under any power law."""


@dataclass(frozen=True)
class ImbalanceProblem(GridProblem):
    """Predict alpha a + (1 - alpha) b at position n from n tokens a and b, kappa_n of b for one a.

    The query is the token at n, its keys are the first n tokens: the layer's score of a over that
    of b, its margin, gives w_n = 1 / (1 + kappa_n e^(-margin)), the softmax over all n keys. The
    loss is the mean of (w_n - alpha)^2 ||a - b||^2 over the training positions; one at which a
    single token was seen costs nothing. Source: arXiv 2411.12892, Proposition 2.

    power: kappa*(n) = n^power. share: alpha. cosine: a . b. random: a random sequence a seed in
    place of the one whose counts are nearest to kappa*. train_length: the last training position.
    positions: how many training positions there are at most, log-spaced from 2 (rounded, each
    once). beyond: positions up to this many times the training length are evaluated, log-spaced.
    Raises ValueError for settings out of range.
    """

    power: float = 0.5
    share: float = 0.5
    cosine: float = 0.0
    random: bool = False
    train_length: int = 256
    positions: int = 48
    beyond: int = 8

    name: ClassVar[str] = "imbalance"
    measures: ClassVar[Mapping[str, Measure]] = {
        "loss": Measure((), "mean squared error over the training positions"),
        "loss_beyond": Measure((), "mean squared error over the positions beyond the training"),
        "error": Measure(("position",), "squared error by position n"),
        "margin": Measure(
            ("position",), "tau_n m, how much the score of a key a exceeds that of a key b"
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.task, self.law  # reject what they cannot be

    @property
    def task(self) -> ImbalanceTask:
        """Target and error."""
        return ImbalanceTask(self.share, self.cosine)

    @property
    def law(self) -> PowerImbalance:
        """kappa*."""
        return PowerImbalance(self.power)

    @property
    def trained(self) -> Int[np.ndarray, " position"]:
        """The training positions."""
        return _spaced(FIRST, self.train_length, self.positions)

    @property
    def evaluated(self) -> Int[np.ndarray, " position"]:
        """The training positions, and those beyond."""
        beyond = _spaced(self.train_length, self.beyond * self.train_length, 17)[1:]
        return np.concatenate([self.trained, beyond])

    @property
    def form(self) -> Form:
        return Form(2, position=True, trained_length=self.train_length)

    def layer(self, mechanism: Mechanism) -> Layer:
        layer = super().layer(mechanism)
        worn = layer.mechanism
        if worn != replace(worn, normalizer=Softmax(), contrast=None, evaluation=None):
            raise Misfit(
                f"mechanism {mechanism.name} needs keys one by one, of which only the counts are "
                "given here"
            )
        return layer

    def bytes_per_seed(self, training: Training) -> int:
        return 8 * 24 * len(self.evaluated)

    def sequence(self, seed: int) -> TwoTokenSequences:
        """The tokens of a seed, up to the last evaluated position."""
        length = self.beyond * self.train_length
        if self.random:
            return bernoulli_sequences(self.law, length, 1, member_generator(seed, Stream.DATA))
        return _tracking(self.law, length)

    def describe(self, seeds: Sequence[int]) -> xr.Dataset:
        at, drawn = self.evaluated - 1, [self.sequence(s) for s in seeds]
        seen = np.stack([s.both_seen[0, at] for s in drawn])
        wanted = self.task.zero_loss_logit(np.stack([s.kappa[0, at] for s in drawn]))
        values = {
            "zero_loss_margin": (
                np.where(seen, wanted, np.nan),
                "log kappa_n + log(alpha / (1 - alpha)), the margin of zero loss; NaN while one "
                "token has been seen",
            ),
            "query_is_a": (
                np.stack([s.tokens[0, at] == 0 for s in drawn]),
                "whether the token at n is a",
            ),
        }
        return xr.Dataset(
            {
                k: (("seed", "position"), v, {"description": about})
                for k, (v, about) in values.items()
            },
            coords={"seed": list(seeds), "position": self.evaluated},
        )

    def best_error(self, mechanism: Mechanism, seed: int) -> Float[np.ndarray, " position"]:
        """The error by training position of the least loss over the schedules that a mechanism
        has, exact (`ssa_theory.theory.paper.best_schedule`): no model of it has a lower loss. NaN
        where the schedules are not known.
        """
        least = schedules(self.layer(mechanism).mechanism)
        if least is None:
            return np.full(len(self.trained), np.nan)
        return _best_error(self, least, seed if self.random else 0)

    def block_at(
        self,
        members: Sequence[tuple[int, "ImbalanceProblem"]],
        training: Training,
        device: torch.device,
    ) -> "ImbalanceBlock":
        """The problems have the same positions."""
        at, drawn = self.evaluated - 1, [p.sequence(s) for s, p in members]
        tasks = [p.task for _, p in members]
        embeddings = stack_members([t.embeddings for t in tasks], device)
        token = stack_members([s.tokens[0, at] for s in drawn], device)
        seen = stack_members([s.both_seen[0, at] for s in drawn], device)
        log_kappa = np.log([np.where(s.both_seen, s.kappa, 1.0)[0, at] for s in drawn])
        count = torch.from_numpy(self.evaluated.astype(np.float64)).unsqueeze(1).to(device)
        query = torch.where((token == 0).unsqueeze(1), embeddings[0], embeddings[1])
        return ImbalanceBlock(
            [s for s, _ in members],
            device,
            training,
            len(self.trained),
            Counted(
                query,
                embeddings,
                count,
                stack_members(list(log_kappa), device),
                seen,
                torch.tensor([t.share for t in tasks], dtype=torch.float64, device=device),
                torch.tensor([2 - 2 * t.cosine for t in tasks], dtype=torch.float64, device=device),
            ),
        )


@dataclass(frozen=True)
class Counted:
    """Queries whose keys are counted.

    query, keys: tokens. count: n. log_kappa: log kappa_n, 0 where not both tokens were seen. seen:
    whether they were. share: alpha. distance: ||a - b||^2.
    """

    query: Float[Tensor, "position 2 member"]
    keys: Float[Tensor, "2 2 member"]
    count: Float[Tensor, "position 1"]
    log_kappa: Float[Tensor, "position member"]
    seen: Bool[Tensor, "position member"]
    share: Float[Tensor, " member"]
    distance: Float[Tensor, " member"]

    def first(self, positions: int, dtype: torch.dtype) -> "Counted":
        """Of the first positions, in another precision."""
        by_position = (self.query, self.count, self.log_kappa)
        query, count, log_kappa = (x[:positions].to(dtype) for x in by_position)
        keys, share, distance = (x.to(dtype) for x in (self.keys, self.share, self.distance))
        return Counted(query, keys, count, log_kappa, self.seen[:positions], share, distance)

    @property
    def inputs(self) -> Inputs:
        """What a layer sees."""
        return Inputs(Tokens(self.query), Tokens(self.keys), count=self.count)

    def margin(self, layer: Layer, parameters: Parameters) -> Float[Tensor, "position member"]:
        """z_na - z_nb."""
        z = layer.scores(parameters, self.inputs)
        return z[:, 0] - z[:, 1]

    def error(self, margin: Float[Tensor, "position member"]) -> Float[Tensor, "position member"]:
        """(w_n - alpha)^2 ||a - b||^2, zero where not both tokens were seen."""
        weight = torch.sigmoid(margin - self.log_kappa)
        return torch.where(self.seen, (weight - self.share) ** 2 * self.distance, 0.0)


@dataclass(frozen=True)
class ImbalanceBlock(Block):
    """Members on counted keys, of which the first `trained` positions are trained on."""

    training: Training
    trained: int
    counted: Counted

    def loss(self, layer: Layer, parameters: Parameters, batch: None) -> Tensor:
        return self._in_training.error(self._in_training.margin(layer, parameters)).mean(0)

    def evaluate(self, layer: Layer, fitted: Fitted) -> dict[str, Tensor]:
        margin = self.counted.margin(layer, fitted.parameters)
        error = self.counted.error(margin)
        return {
            "loss": error[: self.trained].mean(0),
            "loss_beyond": error[self.trained :].mean(0),
            "error": error,
            "margin": margin,
        }

    @cached_property
    def _in_training(self) -> Counted:
        return self.counted.first(self.trained, self.training.torch_dtype)


def _spaced(first: int, last: int, most: int) -> Int[np.ndarray, " position"]:
    """At most so many positions from the first to the last, evenly spaced in log n, each once."""
    return np.unique(np.rint(np.geomspace(first, last, most)).astype(np.int64))


_tracking = cache(tracking_sequence)


@cache
def _best_error(
    problem: ImbalanceProblem, least: Least, seed: int
) -> Float[np.ndarray, " position"]:
    at, sequence = problem.trained - 1, problem.sequence(seed)
    seen, query_a = sequence.both_seen[0, at], sequence.tokens[0, at] == 0
    error = np.zeros(len(at))
    for part in (query_a, ~query_a) if least.by_query else (np.full_like(query_a, True),):
        some = seen & part
        if some.any():
            count, kappa = problem.trained[some].astype(float), sequence.kappa[0, at[some]]
            task = Imbalance(count, kappa, query_a[some], problem.share, problem.cosine)
            best = best_schedule(task, least.family)
            margin = best.inverse_temperature * np.where(task.query_a, *best.margins)
            error[some] = problem.task.error(problem.task.attention(margin, kappa))
    return error
