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


class ScoreMap(Part):
    """z of every query and key from q, k and their temperatures."""

    maps_keys: bool = False
    """Whether keys have a map W_k of their own, which starts at the identity."""

    @abc.abstractmethod
    def __call__(
        self,
        parameters: Parameters,
        query: Tensor,
        keys: Tensor,
        tau_query: Tensor | None,
        tau_key: Tensor | None,
    ) -> Tensor:
        """z (query, key, member).

        query: (query, width, member), or (width, member) for a constant query. keys: (key, width,
        member), shared by all queries, or (query, key, width, member). tau_query (query, member) or
        (member,); tau_key as keys, without width, (query, key, member) or (member,); None for 1.
        """

    def given(self, parameters: Parameters, scores: Tensor, tau: Tensor) -> Tensor:
        """z of given scores (query, key, member) at tau (#query, member)."""
        return tau * scores


@final
@dataclass(frozen=True)
class Bilinear(ScoreMap):
    """z_ij = tau_q,i tau_k,j q_i . k_j."""

    def __call__(
        self,
        parameters: Parameters,
        query: Tensor,
        keys: Tensor,
        tau_query: Tensor | None,
        tau_key: Tensor | None,
    ) -> Tensor:
        if query.ndim == 2:
            scores = (keys * query).sum(-2)
            if tau_query is not None:
                scores = scores * beside(tau_query)
            return scores if tau_key is None else scores * tau_key
        # Vectors are scaled where they are fewer than the scores.
        if tau_query is not None:
            query = query * beside(tau_query)
        if keys.ndim == 3 and tau_key is not None and tau_key.ndim < 3:
            keys = keys * beside(tau_key)
            tau_key = None
        if keys.ndim == 3:
            scores = matmul(query, keys.transpose(0, 1))
        else:
            scores = (keys * query.unsqueeze(1)).sum(2)
        return scores if tau_key is None else scores * tau_key


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

    def __call__(
        self,
        parameters: Parameters,
        query: Tensor,
        keys: Tensor,
        tau_query: Tensor | None,
        tau_key: Tensor | None,
    ) -> Tensor:
        gain = parameters["log_gain"].exp()
        tau = gain if tau_query is None else tau_query * gain
        return Bilinear()({}, _unit(query), _unit(keys), tau, tau_key)


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

    def __call__(
        self,
        parameters: Parameters,
        query: Tensor,
        keys: Tensor,
        tau_query: Tensor | None,
        tau_key: Tensor | None,
    ) -> Tensor:
        return self.capped(Bilinear()(parameters, query, keys, tau_query, tau_key))

    def given(self, parameters: Parameters, scores: Tensor, tau: Tensor) -> Tensor:
        return self.capped(super().given(parameters, scores, tau))

    def capped(self, scores: Tensor) -> Tensor:
        """c tanh(z / c)."""
        return self.cap * torch.tanh(scores / self.cap)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-2, keepdim=True).clamp(min=_LEAST_NORM)
