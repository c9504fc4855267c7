"""Normalisers: how a row of scores z becomes attention weights p.

    Softmax          p_j proportional to exp(z_j), never exactly zero
    SoftmaxSink      softmax over the keys and a sink of value 0, whose logit is learned or 0
    Sparsemax        the Euclidean projection of z on the simplex, arXiv 1602.02068
    Entmax15         alpha-entmax with alpha = 1.5, arXiv 1905.05702
    Entmax           p_j = [(alpha - 1) z_j - theta]_+^(1 / (alpha - 1)), alpha in (1.01, 2) learned
    TopK             softmax over the k largest scores (of equal ones, any that make up k)
    EntropyAdaptive  softmax(beta z), beta a fitted polynomial of the row's entropy, arXiv 2410.01104

Those for which a score of zero means something are in `rectified.py`.

A score of -inf is a masked key and gets no weight. Rows sum to one but for two rules: with a sink
they sum to less, and a row with no key left (none attended or, of a rectified normaliser, none
positive) is zero, as if the query attended to nothing, and so is its gradient. Which keys are
attended is said by a mask (`Normalizer.attending`), for softmax of -inf alone is NaN: to look at
every row for it would make it half as fast. A row with a NaN or +inf score is NaN.
"""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from entmax import entmax15, entmax_bisect, sparsemax
from jaxtyping import Bool, Float
from torch import Tensor

from ssa_theory.mechanism.parts import Form, Parameters, Part, Role, Shape

LEAST_ALPHA = 1.01
"""The least alpha that is learned. At alpha = 1 the package's bisection returns a uniform row
without a word, and near it the gradient in alpha, a difference divided by (alpha - 1)^2, is lost to
rounding.
"""
ADAPTIVE = (-0.037, 0.481, -2.3, 4.917, -1.791)
"""The polynomial of arXiv 2410.01104, Figure 5, fitted there to the best beta by entropy; the
highest power first.
"""
# To machine precision; also what is allowed.
_BISECTIONS: Mapping[Any, int] = {torch.float32: 24, torch.float64: 50}


class Normalizer(Part):
    """Scores to rows, over the axis `dim` of the keys."""

    exponential: bool = False
    """Whether p is a softmax of `logits` over the keys, up to a factor a row: then the row as a
    prediction has a logarithm.
    """

    def logits(
        self, scores: Float[Tensor, "*shape member"], dim: int
    ) -> Float[Tensor, "*shape member"]:
        """Of an exponential normaliser, what its rows are a softmax of: the scores themselves."""
        return scores

    @abc.abstractmethod
    def rows(
        self, parameters: Parameters, scores: Float[Tensor, "*shape member"], dim: int
    ) -> Float[Tensor, "*shape member"]:
        """The weights."""

    def attending(
        self,
        parameters: Parameters,
        scores: Float[Tensor, "*shape member"],
        attended: Bool[Tensor, "*#shape #member"],
        dim: int,
    ) -> Float[Tensor, "*shape member"]:
        """The weights over the attended keys; zero, as is their gradient, where none is. A mask before
        the temperatures would let them multiply -inf.
        """
        blind = attended.any(dim, keepdim=True).logical_not()
        seen = scores.masked_fill((attended | blind).logical_not(), -torch.inf)
        return self.rows(parameters, seen, dim).masked_fill(blind, 0.0)

    def prediction(
        self, parameters: Parameters, scores: Float[Tensor, "*shape member"], dim: int
    ) -> Float[Tensor, "*shape member"]:
        """The row as a distribution over the keys: negative weights set to 0, over the sum; uniform
        where that is 0.
        """
        return as_prediction(self.rows(parameters, scores, dim), dim)


def as_prediction(rows: Float[Tensor, "*shape member"], dim: int) -> Float[Tensor, "*shape member"]:
    """Rows as distributions: negative weights set to 0, divided by the sum; uniform where that is
    0.
    """
    positive = rows.clamp(min=0)
    total = positive.sum(dim, keepdim=True)
    return torch.where(
        total == 0, 1 / rows.shape[dim], positive / torch.where(total == 0, 1.0, total)
    )


@final
@dataclass(frozen=True)
class Softmax(Normalizer):
    """p_j = exp(z_j) / sum_k exp(z_k)."""

    exponential = True

    def rows(self, parameters: Parameters, scores: Tensor, dim: int) -> Tensor:
        return scores.softmax(dim)

    def prediction(self, parameters: Parameters, scores: Tensor, dim: int) -> Tensor:
        return scores.softmax(dim)


@final
@dataclass(frozen=True)
class SoftmaxSink(Normalizer):
    """p_j = exp(z_j) / (exp(s) + sum_k exp(z_k)): one more key of logit s, whose value is 0.

    learned: whether s is learned, from 0, or fixed at 0, "off by one". As s falls the rows tend to
    softmax's. As a prediction the mass on the sink is given back, which leaves softmax's row.
    """

    learned: bool = True
    exponential = True

    def shapes(self, role: Role, form: Form) -> dict[str, Shape]:
        return {"sink": ()} if self.learned else {}

    def rows(self, parameters: Parameters, scores: Tensor, dim: int) -> Tensor:
        like = scores.narrow(dim, 0, 1)
        sink = parameters["sink"].expand(like.shape) if self.learned else torch.zeros_like(like)
        return torch.cat([scores, sink], dim).softmax(dim).narrow(dim, 0, scores.shape[dim])

    def prediction(self, parameters: Parameters, scores: Tensor, dim: int) -> Tensor:
        return scores.softmax(dim)


@final
@dataclass(frozen=True)
class EntropyAdaptive(Normalizer):
    """softmax(beta z), beta = max(1, c_0 + c_1 H + .. + c_4 H^4), H the entropy of softmax(z) in
    nats: adaptive temperature, arXiv 2410.01104, for a model that was trained without it.

    The fit exceeds 1 for H between about 0.86 and 5.9: sharper rows, and rows as blunt as 370 equal
    keys, are softmax's. It learns nothing.
    """

    exponential = True

    def logits(self, scores: Tensor, dim: int) -> Tensor:
        finite = torch.where(scores == -torch.inf, 0.0, scores)
        mean = (scores.softmax(dim) * finite).sum(dim, keepdim=True)
        entropy = scores.logsumexp(dim, keepdim=True) - mean
        beta = torch.zeros_like(entropy)
        for coefficient in ADAPTIVE:
            beta = beta * entropy + coefficient
        return torch.where(scores == -torch.inf, -torch.inf, beta.clamp(min=1) * finite)

    def rows(self, parameters: Parameters, scores: Tensor, dim: int) -> Tensor:
        return self.logits(scores, dim).softmax(dim)


class Sparse(Normalizer):
    """A normaliser whose rows may have exact zeros.

    Raises ValueError where dim is the model axis, and for half precision: in bf16 the package's
    rows miss a sum of one by several per cent, and its bisection can give NaN.
    """

    def rows(self, parameters: Parameters, scores: Tensor, dim: int) -> Tensor:
        if dim in (-1, scores.ndim - 1):
            raise ValueError(
                f"rows cannot be normalised over the model axis, got dim={dim}: name "
                "the axis of the keys"
            )
        if scores.dtype not in _BISECTIONS:
            raise ValueError(
                f"normalisers need float32 or float64, got {scores.dtype}: convert the scores first"
            )
        scores = self.masked(scores, dim)
        # A row without a finite largest score must not reach the package, which stops there ("index
        # -1 is out of bounds"): one diverged member would end all others.
        largest = scores.amax(dim, keepdim=True)
        rows = self.finite_rows(parameters, torch.where(largest.isfinite(), scores, 0.0), dim)
        return torch.where(
            largest.isfinite(), rows, torch.where(largest == -torch.inf, 0.0, torch.nan)
        )

    def masked(self, scores: Tensor, dim: int) -> Tensor:
        """The scores, -inf where the normaliser leaves a key out."""
        return scores

    def finite_rows(self, parameters: Parameters, scores: Tensor, dim: int) -> Tensor:
        """The rows of scores of which the largest is finite; here softmax's."""
        return scores.softmax(dim)


def _differentiable(rows: Tensor, slope: Tensor, scores: Tensor, dim: int) -> Tensor:
    """The rows, with their gradient in the scores: d p = s (d z - sum_k s_k d z_k / sum_k s_k).

    For the entmax family, whose weights are functions of z_j - theta with slopes s. The package's
    own gradient is a class that the compiler cannot trace; a first-order term of value zero it can.
    """
    step = torch.where(slope > 0, scores, 0.0)  # a masked key's -inf would be NaN
    step = step - step.detach()
    mean = (slope * step).sum(dim, keepdim=True) / slope.sum(dim, keepdim=True)
    return rows + slope * step - slope * mean


@final
@dataclass(frozen=True)
class Sparsemax(Sparse):
    """argmin_p ||p - z||_2 over the simplex."""

    def finite_rows(self, parameters: Parameters, scores: Tensor, dim: int) -> Tensor:
        rows = sparsemax(scores.detach(), dim=dim)
        return _differentiable(rows, (rows > 0).to(rows.dtype), scores, dim)


@final
@dataclass(frozen=True)
class Entmax15(Sparse):
    """p_j = [z_j / 2 - theta]_+^2."""

    def finite_rows(self, parameters: Parameters, scores: Tensor, dim: int) -> Tensor:
        rows = entmax15(scores.detach(), dim=dim)
        return _differentiable(rows, rows.sqrt(), scores, dim)


@final
@dataclass(frozen=True)
class Entmax(Sparse):
    """p_j = [(alpha - 1) z_j - theta]_+^(1 / (alpha - 1)), one learned alpha = 1.01 + 0.99
    sigmoid(a), from 1.505.
    """

    def shapes(self, role: Role, form: Form) -> dict[str, Shape]:
        return {"alpha_score": ()}

    def alpha(self, parameters: Parameters) -> Float[Tensor, " member"]:
        """The learned alpha, in [1.01, 2]; 1 would be softmax, 2 is sparsemax."""
        return LEAST_ALPHA + (2 - LEAST_ALPHA) * torch.sigmoid(parameters["alpha_score"])

    def finite_rows(self, parameters: Parameters, scores: Tensor, dim: int) -> Tensor:
        learned, fixed = self.alpha(parameters), scores.detach()
        alpha, steps = learned.detach(), _BISECTIONS[scores.dtype]
        # entmax's own hint forgets tensors
        rows = entmax_bisect(fixed, alpha, dim, steps)  # pyright: ignore[reportArgumentType]
        slope = torch.where(rows > 0, rows ** (2 - alpha), 0.0)
        # d p / d alpha as in arXiv 1909.00015, one term a key, so that they sum as the package's.
        share = slope / slope.sum(dim, keepdim=True)
        terms = torch.where(rows > 0, rows * rows.log(), 0.0)
        excess = terms - share * terms.sum(dim, keepdim=True)
        step = (learned - alpha).expand_as(rows.narrow(dim, 0, 1)).expand_as(rows)
        moved = step / (alpha - 1) ** 2 * (rows - share) - step / (alpha - 1) * excess
        return _differentiable(rows, slope, scores, dim) + moved


@final
@dataclass(frozen=True)
class TopK(Sparse):
    """Softmax over the `top` largest scores. Raises ValueError for a top below 1."""

    top: int = 4

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(
                f"normaliser top-k keeps at least 1 key, got top={self.top}: raise top"
            )

    def masked(self, scores: Tensor, dim: int) -> Tensor:
        kept = scores.topk(min(self.top, scores.shape[dim]), dim)
        return torch.full_like(scores, -torch.inf).scatter(dim, kept.indices, kept.values)


def support_exponent(alpha: float, dim: int) -> float:
    """How fast alpha-entmax dilutes: gamma such that its effective support over n keys grows like
    n^gamma.

    For keys uniform on the sphere of R^dim and scores c q . k at a fixed c. Near the query, P(q . k
    > 1 - h) ~ h^p with p = (dim - 1) / 2, so the weights [.]_+^(1 / (alpha - 1)) sum to one where n
    h^(p + 1 / (alpha - 1)) is constant, and n h^p ~ n^gamma keys share them, gamma = 1 / (1 +
    (alpha - 1) p). Softmax (alpha = 1) has gamma = 1, whatever its constant temperature. The best
    bandwidth for kernel regression of a twice differentiable function on that sphere has n^(4 /
    (dim + 3)) keys: alpha = 1.5 attains that exponent in every dimension, without a temperature
    that knows n.

    Raises ValueError for alpha outside [1, 2] or dim < 2.
    """
    if not 1 <= alpha <= 2:
        raise ValueError(f"alpha must lie in [1, 2], got {alpha}: 1 is softmax, 2 sparsemax")
    if dim < 2:
        raise ValueError(
            f"a sphere with neighbourhoods needs dim of at least 2, got {dim}: raise dim"
        )
    return 1 / (1 + (alpha - 1) * (dim - 1) / 2)
