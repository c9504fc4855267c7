"""Score maps: s(x_i, x_j), what a query and a key have in common, before bias and normaliser.

    Bilinear   q . k                                    q = x_i W, k = x_j
    QKNorm     g (q / ||q||) . (k / ||k||)              k = x_j W_k, one learned gain g
    Softcap    c tanh(tau q . k / c)                    scores bounded by c

Temperatures scale the scores: z = tau_q tau_k s, in Softcap inside the tanh.
"""

import abc
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ssa_theory.mechanism.parts import (
    Form,
    Misfit,
    Parameters,
    Part,
    Role,
    Shape,
    beside,
    matmul,
)

_LEAST_NORM = 1e-12  # of a vector that is normalised


@dataclass(frozen=True)
class Side:
    """The vectors of one side of the scores, and their inverse temperature tau; None for 1.

    Of queries: vector (query, width, member), or (width, member) of a constant query; tau (query,
    member) or (member,). Of keys: vector (key, width, member), shared by all queries, or (query,
    key, width, member); tau as vector, without width, (query, key, member) or (member,).
    """

    vector: Tensor
    tau: Tensor | None = None


class ScoreMap(Part):
    """z of every query and key from q, k and their temperatures."""

    maps_keys: bool = False
    """Whether keys have a map W_k of their own, which starts at the identity."""

    @abc.abstractmethod
    def __call__(self, parameters: Parameters, query: Side, keys: Side) -> Tensor:
        """z (query, key, member)."""

    def given(self, parameters: Parameters, scores: Tensor, tau: Tensor) -> Tensor:
        """z of given scores (query, key, member) at tau (#query, member)."""
        return tau * scores

    def norm(self, parameters: Parameters, weight_norm: Tensor) -> Tensor:
        """A bound on |s| of unit queries and keys: by default ||W||_2 (member,), as it is given."""
        return weight_norm


@final
@dataclass(frozen=True)
class Bilinear(ScoreMap):
    """z_ij = tau_q,i tau_k,j q_i . k_j."""

    def __call__(self, parameters: Parameters, query: Side, keys: Side) -> Tensor:
        q, k, tau = query.vector, keys.vector, keys.tau
        if q.ndim == 2:
            scores = (k * q).sum(-2)
            if query.tau is not None:
                scores = scores * beside(query.tau)
            return scores if tau is None else scores * tau
        # Vectors are scaled where they are fewer than the scores.
        if query.tau is not None:
            q = q * beside(query.tau)
        if k.ndim == 3 and tau is not None and tau.ndim < 3:
            k, tau = k * beside(tau), None
        if k.ndim == 3:
            scores = matmul(q, k.transpose(0, 1))
        else:
            scores = (k * q.unsqueeze(1)).sum(2)
        return scores if tau is None else scores * tau


@final
@dataclass(frozen=True)
class QKNorm(ScoreMap):
    """z_ij = tau_q,i tau_k,j g cos(q_i, k_j): query-key normalisation, arXiv 2010.04245, with one
    learned gain g = exp(a).

    Lengths of q and k say nothing: |z| <= tau_q tau_k g. g starts at 1.
    """

    maps_keys = True

    def shapes(self, role: Role, form: Form) -> dict[str, Shape]:
        return {"log_gain": ()}

    def fitted(self, role: Role, form: Form) -> "QKNorm":
        if form.given_scores:
            raise Misfit("queries and keys, of which only the scores are given here")
        return self

    def norm(self, parameters: Parameters, weight_norm: Tensor) -> Tensor:
        """g, whatever the lengths of q and k."""
        return parameters["log_gain"].exp()

    def __call__(self, parameters: Parameters, query: Side, keys: Side) -> Tensor:
        gain = parameters["log_gain"].exp()
        tau = gain if query.tau is None else query.tau * gain
        return Bilinear()({}, Side(_unit(query.vector), tau), Side(_unit(keys.vector), keys.tau))


@final
@dataclass(frozen=True)
class Softcap(ScoreMap):
    """z_ij = c tanh(tau_q,i tau_k,j q_i . k_j / c), c = cap: the bounded logits of Gemma 2, arXiv
    2408.00118, whose c is 50.

    As c grows it is the bilinear score. Raises ValueError for a cap that is not positive.
    """

    cap: float = 50.0

    def __post_init__(self) -> None:
        if not self.cap > 0:
            raise ValueError(f"a cap on the scores must be positive, got {self.cap}: raise it")

    def __call__(self, parameters: Parameters, query: Side, keys: Side) -> Tensor:
        return self.capped(Bilinear()(parameters, query, keys))

    def given(self, parameters: Parameters, scores: Tensor, tau: Tensor) -> Tensor:
        return self.capped(super().given(parameters, scores, tau))

    def capped(self, scores: Tensor) -> Tensor:
        """c tanh(z / c)."""
        return self.cap * torch.tanh(scores / self.cap)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-2, keepdim=True).clamp(min=_LEAST_NORM)
