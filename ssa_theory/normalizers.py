"""Row normalisers: softmax and its sparse rivals, for ensembles (the model axis `member` last). Design section 2."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from entmax import entmax15, entmax_bisect, sparsemax
from jaxtyping import Float
from torch import Tensor

NormalizerName = Literal["softmax", "sparsemax", "entmax15", "entmax", "top-k", "threshold", "rela"]
ROW_NORMALIZERS: tuple[NormalizerName, ...] = get_args(NormalizerName)

LEAST_ALPHA = 1.01
"""The least alpha that is learned. At alpha = 1 the package's bisection returns a uniform row without a word, and
near it the gradient in alpha, a difference divided by (alpha - 1)^2, is lost to rounding."""
_BISECTIONS = {torch.float32: 24, torch.float64: 50}  # to machine precision; also the precisions that are allowed


@dataclass(frozen=True)
class Normalizer:
    """How a row of scores z becomes attention weights p.

    - `softmax`: p_j proportional to exp(z_j), the only one that is never exactly zero
    - `sparsemax`: the Euclidean projection of z on the simplex, arXiv 1602.02068
    - `entmax15`, `entmax`: alpha-entmax, p_j = [(alpha - 1) z_j - theta]_+^(1 / (alpha - 1)), arXiv 1905.05702, with
      alpha = 1.5, or one learned alpha = 1.01 + 0.99 sigmoid(a) a member; 1 would be softmax, 2 is sparsemax
    - `top-k`: softmax over the k largest scores (of equal ones, any that make up k)
    - `threshold`: softmax over the positive scores, as in Threshold Relative Attention, arXiv 2503.23174
    - `rela`: p_j proportional to max(z_j, 0), the rectified attention of arXiv 2104.07012 with rows that sum to one;
      `rectified_output` is its form for an output

    A score of -inf is a masked key and gets no weight. Every row sums to one, but for one rule: a row with no key left (all
    masked or, for `threshold` and `rela`, none positive) is zero, as if the query attended to nothing, and so is its
    gradient. A row with a NaN or +inf score is NaN.

    top: k of `top-k`. Raises ValueError for an unknown name, and for a top that is missing, below 1, or given to another
    normaliser.

    >>> Normalizer("sparsemax").rows({}, torch.tensor([[1.0], [0.5], [-2.0]]), dim=0).flatten().tolist()
    [0.75, 0.25, 0.0]
    """

    name: NormalizerName
    top: int | None = None

    def __post_init__(self) -> None:
        if self.name not in ROW_NORMALIZERS:
            raise ValueError(f"unknown normaliser {self.name!r}: choose one of {', '.join(ROW_NORMALIZERS)}")
        if self.name == "top-k" and (self.top is None or self.top < 1):
            raise ValueError(f"normaliser top-k keeps at least 1 key, got top={self.top}: give top")
        if self.name != "top-k" and self.top is not None:
            raise ValueError(f"top applies only to normaliser top-k, got {self.top} for {self.name}: drop it")

    def initial_parameters(self, members: int) -> dict[str, Float[Tensor, " {members}"]]:
        """What `entmax` learns: a, starting at alpha = 1.505; nothing for the others. float64 on the CPU."""
        if members < 1:
            raise ValueError(f"the number of members must be at least 1, got {members}: ask for one or more")
        return {"alpha_score": torch.zeros(members, dtype=torch.float64)} if self.name == "entmax" else {}

    def alpha(self, parameters: dict[str, Tensor]) -> Float[Tensor, " member"]:
        """The learned alpha of `entmax`, in [1.01, 2]. Raises ValueError for another normaliser."""
        if self.name != "entmax":
            raise ValueError(f"only normaliser entmax learns alpha, not {self.name}: ask entmax")
        return LEAST_ALPHA + (2 - LEAST_ALPHA) * torch.sigmoid(parameters["alpha_score"])

    def rows(
        self, parameters: dict[str, Tensor], scores: Float[Tensor, "*shape member"], dim: int
    ) -> Float[Tensor, "*shape member"]:
        """The weights, normalised over `dim`. Raises ValueError where dim is the model axis, and for half precision.

        In bf16 the package's rows miss a sum of one by several per cent, and its bisection can give NaN.
        """
        if dim in (-1, scores.ndim - 1):
            raise ValueError(f"rows cannot be normalised over the model axis, got dim={dim}: name the axis of the keys")
        if scores.dtype not in _BISECTIONS:
            raise ValueError(f"normalisers need float32 or float64, got {scores.dtype}: convert the scores first")
        if self.name == "threshold":
            scores = scores.masked_fill(scores <= 0, -torch.inf)
        elif self.name == "top-k":
            kept = scores.topk(min(self.top, scores.shape[dim]), dim)
            scores = torch.full_like(scores, -torch.inf).scatter(dim, kept.indices, kept.values)
        # A row without a finite largest score must not reach the package, which stops there ("index -1 is out of bounds"):
        # one diverged member would end all others.
        largest = scores.amax(dim, keepdim=True)
        rows = self._finite_rows(parameters, torch.where(largest.isfinite(), scores, 0.0), dim)
        return torch.where(largest.isfinite(), rows, torch.where(largest == -torch.inf, 0.0, torch.nan))

    def _finite_rows(self, parameters: dict[str, Tensor], scores: Tensor, dim: int) -> Tensor:
        if self.name == "sparsemax":
            return sparsemax(scores, dim=dim)
        if self.name == "entmax15":
            return entmax15(scores, dim=dim)
        if self.name == "entmax":
            return entmax_bisect(scores, self.alpha(parameters), dim=dim, n_iter=_BISECTIONS[scores.dtype])
        if self.name == "rela":
            weights = torch.relu(scores)
            total = weights.sum(dim, keepdim=True)
            return weights / torch.where(total == 0, 1.0, total)
        return scores.softmax(dim)


def rectified_output(
    scores: Float[Tensor, "*row key"], values: Float[Tensor, "*batch key feature"], epsilon: float = 1e-8
) -> Float[Tensor, "*row feature"]:
    """ReLA's output, RMSNorm(max(z, 0) V) without gain: o / sqrt(mean_f o_f^2 + epsilon), arXiv 2104.07012.

    Like the rows that sum to one it does not feel a positive factor on the scores (but for epsilon): a query temperature does
    nothing. It loses the output's length, hence all but the sign of a single feature; with a second feature that is c for
    every key, c/sqrt(2) times the first output tends to the row's mean of the first values as c grows, which is `rela`.
    """
    output = torch.relu(scores) @ values
    return output * (output.square().mean(-1, keepdim=True) + epsilon).rsqrt()


def support_exponent(alpha: float, dim: int) -> float:
    """How fast alpha-entmax dilutes: gamma such that its effective support over n keys grows like n^gamma.

    For keys uniform on the sphere of R^dim and scores c q . k at a fixed c. Near the query, P(q . k > 1 - h) ~ h^p with
    p = (dim - 1) / 2, so the weights [.]_+^(1 / (alpha - 1)) sum to one where n h^(p + 1 / (alpha - 1)) is constant, and
    n h^p ~ n^gamma keys share them, gamma = 1 / (1 + (alpha - 1) p). Softmax (alpha = 1) has gamma = 1, whatever its constant
    temperature. The best bandwidth for kernel regression of a twice differentiable function on that sphere has n^(4 / (dim + 3))
    keys: alpha = 1.5 attains that exponent in every dimension, without a temperature that knows n.

    Raises ValueError for alpha outside [1, 2] or dim < 2.
    """
    if not 1 <= alpha <= 2:
        raise ValueError(f"alpha must lie in [1, 2], got {alpha}: 1 is softmax, 2 sparsemax")
    if dim < 2:
        raise ValueError(f"a sphere with neighbourhoods needs dim of at least 2, got {dim}: raise dim")
    return 1 / (1 + (alpha - 1) * (dim - 1) / 2)
