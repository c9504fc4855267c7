"""The problem of twin tokens: rank the same targets with different sharpness, nearly alike."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from analysis.problems.base import Fitted, Measure, Training, stack_members
from analysis.problems.grid import GridProblem
from analysis.problems.rows import ROW_MEASURES, RowBlock, require_exponential
from ssa_theory.mechanism import Form, Layer, Mechanism, Tokens
from ssa_theory.seeds import Stream, member_generator
from ssa_theory.theory import minimal_norm, norm_lower_bound
from tasks import TwinTokenTask

THEORIES = ("vanilla", "selective")
_LEAST_TAU = 1e-6
"""Below this a row is uniform to rounding and log A / tau is noise: no bound is computed."""
_MEASURES = ROW_MEASURES | {
    "learned_norm_lower_bound": Measure(
        (),
        "least spectral norm of any W that gives the learned attention at the learned tau; NaN "
        "where more than a query temperature is learned",
    ),
    "capped_weight_norm": Measure(
        (),
        "||W||_2 after scaling W up and tau down until the largest tau is max_inverse_temperature",
    ),
}


@dataclass(frozen=True)
class TwinsBlock(RowBlock):
    """Rows of twins, with the norm that the learned ones need.

    max_inverse_temperature: (W, tau) and (s W, tau / s) give the same attention, so that norms are
    compared at one largest tau.
    """

    max_inverse_temperature: float = 2.0

    def evaluate(self, layer: Layer, fitted: Fitted) -> dict[str, Tensor]:
        measured = super().evaluate(layer, fitted)
        tau = measured["inverse_temperature"]
        bounds = torch.full_like(measured["weight_norm"], torch.nan)
        if replace(layer.mechanism, query=None).is_vanilla:
            rows = measured["learned_transition_matrix"]
            sound = (tau > _LEAST_TAU).all(0) & (rows > 0).all(0).all(0) & ~fitted.diverged
            numbers = [x.cpu().numpy() for x in (self.tokens.vector, rows, tau)]
            for i in torch.nonzero(sound).flatten().tolist():
                bounds[i] = norm_lower_bound(*(x[..., i] for x in numbers))
        capped = measured["weight_norm"] * tau.amax(0) / self.max_inverse_temperature
        own = {"learned_norm_lower_bound": bounds, "capped_weight_norm": capped}
        return measured | own


@dataclass(frozen=True)
class TwinsProblem(GridProblem):
    """Learn the attention of pairs of twin tokens at an angle; each seed has its own pairs.

    pairs, dim: of the tokens. angle: between twins, in radians. beta_general, beta_specific:
    sharpness of the base token of a pair, and of its twin. max_inverse_temperature: the largest tau
    of the closed forms.
    """

    pairs: int = 4
    dim: int = 12
    angle: float = 0.1
    beta_general: float = 0.5
    beta_specific: float = 4.0
    max_inverse_temperature: float = 2.0

    name: ClassVar[str] = "twins"
    measures = _MEASURES
    tracked: ClassVar = {"capped_weight_norm": "norm"}

    @property
    def size(self) -> int:
        """The number of tokens."""
        return 2 * self.pairs

    @property
    def objective(self) -> str:
        return "final_gap"

    @property
    def form(self) -> Form:
        return Form(self.dim, labels={"token": self.size})

    def layer(self, mechanism: Mechanism) -> Layer:
        why = "a loss other than cross-entropy, as its rows have exact zeros"
        return require_exponential(super().layer(mechanism), why)

    def bytes_per_seed(self, training: Training) -> int:
        nodes = self.size
        return 8 * (16 * nodes * nodes + nodes * self.dim * max(nodes, self.dim))

    def task(self, seed: int) -> TwinTokenTask:
        """The tokens of a seed. At another angle they are the same pairs, turned further."""
        return TwinTokenTask.sample(
            pairs=self.pairs,
            dim=self.dim,
            angle=self.angle,
            generator=member_generator(seed, Stream.EMBEDDING),
            beta_general=self.beta_general,
            beta_specific=self.beta_specific,
        )

    def block_at(
        self,
        members: Sequence[tuple[int, "TwinsProblem"]],
        training: Training,
        device: torch.device,
    ) -> RowBlock:
        """The problems differ by their angles."""
        tasks = [problem.task(seed) for seed, problem in members]
        tokens = Tokens(stack_members([t.embeddings for t in tasks], device))
        target = stack_members([t.target for t in tasks], device)
        seeds, largest = [s for s, _ in members], self.max_inverse_temperature
        return TwinsBlock.of_vocabulary(
            seeds, tokens, target, training, max_inverse_temperature=largest
        )

    def describe(self, seeds: Sequence[int]) -> xr.Dataset:
        """Targets, and the norms that they need in closed form."""
        rows = [self._closed_form(self.task(seed)) for seed in seeds]
        dataset = xr.Dataset(coords={"seed": list(seeds), "theory": list(THEORIES)})
        for name, (dims, about) in _CLOSED_FORM.items():
            values = np.stack([row[name] for row in rows])
            dataset[name] = (("seed", *dims), values, {"description": about})
        return dataset

    def _closed_form(self, task: TwinTokenTask) -> dict[str, np.ndarray]:
        embeddings, target, most = task.embeddings, task.target, self.max_inverse_temperature
        solutions = [minimal_norm(embeddings, target, most, t == "selective") for t in THEORIES]
        tau = [s.inverse_temperature for s in solutions]
        return {
            "target": target,
            "minimal_norm": np.array(
                [s.spectral_norm if s.converged else np.nan for s in solutions]
            ),
            "unsolved": np.array([not s.converged for s in solutions]),
            "minimal_inverse_temperature": np.stack(tau),
            "norm_lower_bound": np.array([norm_lower_bound(embeddings, target, t) for t in tau]),
        }


_CLOSED_FORM = {
    "target": (
        ("node", "next"),
        "the target attention of every token (probability); base tokens first, then their twins",
    ),
    "minimal_norm": (
        ("theory",),
        "spectral norm ||W||_2 of the W of least Frobenius norm that realises the target",
    ),
    "unsolved": (("theory",), "whether that minimum was not found; its norm is then NaN"),
    "minimal_inverse_temperature": (
        ("theory", "node"),
        "tau of each row in that solution, at most max_inverse_temperature",
    ),
    "norm_lower_bound": (
        ("theory",),
        "least spectral norm of any W that realises the target at those tau",
    ),
}
