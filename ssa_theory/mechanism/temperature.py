"""Inverse temperatures of SSA (arXiv 2411.12892): tau(x, n) = tanh(f(x)) + 1 + sigmoid(alpha) log
n.

A larger tau is a spikier attention row; the paper's temperature is 1 / tau.
"""

import abc
from dataclasses import dataclass, field, replace
from typing import final

import torch
from torch import Tensor

from ssa_theory.mechanism.parts import (
    Form,
    Generators,
    Misfit,
    Parameters,
    Part,
    Role,
    Shape,
    View,
    log_count,
)
from ssa_theory.mechanism.scores import Constant, Score, WeightShared


class Link(abc.ABC):
    """How f becomes the token's part of tau: tau_tok + 1 in the paper's terms, 1 at f = 0."""

    @abc.abstractmethod
    def __call__(self, score: Tensor) -> Tensor: ...

    @abc.abstractmethod
    def slope(self, score: Tensor) -> Tensor:
        """d tau / d f; near 0 where the link is at a bound and f no longer learns."""

    floor: float | None
    """The infimum of the link; None where it is unbounded below."""


@final
@dataclass(frozen=True)
class Tanh(Link):
    """1 + tanh f, in (0, 2): the paper's."""

    floor = 0.0

    def __call__(self, score: Tensor) -> Tensor:
        return 1.0 + torch.tanh(score)

    def slope(self, score: Tensor) -> Tensor:
        return 1 - torch.tanh(score) ** 2


@final
@dataclass(frozen=True)
class Sigmoid(Link):
    """2 sigmoid(f), in (0, 2)."""

    floor = 0.0

    def __call__(self, score: Tensor) -> Tensor:
        return 2 * torch.sigmoid(score)

    def slope(self, score: Tensor) -> Tensor:
        return 2 * torch.sigmoid(score) * torch.sigmoid(-score)


@final
@dataclass(frozen=True)
class Exp(Link):
    """exp f, any positive number."""

    floor = 0.0

    def __call__(self, score: Tensor) -> Tensor:
        return score.exp()

    def slope(self, score: Tensor) -> Tensor:
        return score.exp()


@final
@dataclass(frozen=True)
class Signed(Link):
    """1 + f, of either sign: the paper does not forbid a negative tau, but its own form never has
    one.
    """

    floor = None

    def __call__(self, score: Tensor) -> Tensor:
        return 1.0 + score

    def slope(self, score: Tensor) -> Tensor:
        return torch.ones_like(score)


class Temperature(Part):
    """An inverse temperature tau of every token in a role, (..., member)."""

    has_scale: bool = False
    """Whether it has a learned factor of its own, so that a layer of given scores needs no other.
    """

    @abc.abstractmethod
    def __call__(self, parameters: Parameters, view: View) -> Tensor: ...

    def fitted(self, role: Role, form: Form) -> "Temperature":
        if role == "value" and not form.values:
            raise Misfit("a value map")
        if role == "key" and form.given_scores:
            raise Misfit("key tokens, of which only the scores are given here")
        return self


@final
@dataclass(frozen=True)
class Selective(Temperature):
    """tau = link(f(x)) + sigmoid(alpha) log n, the temperature of SSA.

    score: f; without, the token's part is 1. position: whether the term sigmoid(alpha) log n is
    added, n the number of keys that the query sees. With both, and the link tanh, it is the
    paper's. It starts at f = 0 and alpha = 0: at vanilla, but for the position term.
    """

    score: Score | None = field(default_factory=WeightShared)
    link: Link = field(default_factory=Tanh)
    position: bool = True

    @property
    def has_scale(self) -> bool:  # type: ignore[override]
        return self == Selective(Constant(), Exp(), position=False)

    @property
    def shared_by_heads(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset() if self.score is None else self.score.shared_by_heads

    def shapes(self, role: Role, form: Form) -> dict[str, Shape]:
        own = {} if self.score is None else self.score.shapes(role, form)
        return own | ({"alpha": ()} if self.position else {})

    def initial(self, role: Role, form: Form, generators: Generators) -> Parameters:
        start = super().initial(role, form, generators)
        return start if self.score is None else start | self.score.initial(role, form, generators)

    def fitted(self, role: Role, form: Form) -> "Temperature":
        super().fitted(role, form)
        position, score, missing = self.position and form.position, self.score, []
        if self.position and not position:
            missing.append(
                "queries that see different numbers of keys (or position terms asked for)"
            )
        if score is not None:
            try:
                score = score.fitted(role, form)
            except Misfit as reason:
                score, missing = None, [*missing, str(reason)]
        if score is None and not position:
            raise Misfit(" or ".join(missing))
        return replace(self, score=score, position=position)

    def __call__(self, parameters: Parameters, view: View) -> Tensor:
        tau: Tensor | float = 1.0
        if self.score is not None:
            tau = self.link(self.score(parameters, view))
        if self.position:
            tau = tau + torch.sigmoid(parameters["alpha"]) * log_count(view.count)
        assert isinstance(tau, Tensor)  # a temperature without any term does not pass `fitted`
        return tau

    def token_score(self, parameters: Parameters, view: View) -> Tensor:
        """f(x) of every token. Raises ValueError without a token term."""
        if self.score is None:
            raise ValueError("this temperature has no token term: ask one that has")
        return self.score(parameters, view)

    def floor(self, parameters: Parameters, count: float) -> Tensor:
        """The infimum of tau over tokens, (member,): that of the link, or 1 without a token term,
        plus sigmoid(alpha) log n.
        """
        some = next(iter(parameters.values()))
        bound = 1.0 if self.score is None else self.link.floor
        least = some.new_full(some.shape[-1:], -torch.inf if bound is None else bound)
        return (
            least + torch.sigmoid(parameters["alpha"]) * log_count(count)
            if self.position
            else least
        )
