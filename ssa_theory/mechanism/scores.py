"""f(x), a number for every token: inside a temperature, or added to a key's logit.

Constant       f = b Linear         f = w . x Feature        f = a phi(x) + b            phi a given
scalar of the token, for example its log frequency WeightShared   f = w . gelu(W x)           W x
the layer's own projection, so that only w is new MLP            f = v . gelu(U x + b) + c Table
f = theta_k                 k a label of the token, for example its number of neighbours
"""

import abc
import math
from dataclasses import dataclass
from typing import TypeVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
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
    normal,
)

Given = TypeVar("Given")


class Score(Part):
    """f(x) of every token, (..., member)."""

    @abc.abstractmethod
    def __call__(self, parameters: Parameters, view: View) -> Tensor: ...


class TokenScore(Score):
    """A score that reads the token itself. Of a constant query it is a constant."""

    def fitted(self, role: Role, form: Form) -> "Score":
        if form.given_scores:
            raise Misfit(f"{role} tokens, of which only the scores are given here")
        return Constant() if role == "query" and form.constant_query else self


@final
@dataclass(frozen=True)
class Constant(Score):
    """f = b."""

    def shapes(self, role: Role, form: Form) -> dict[str, Shape]:
        return {"offset": ()}

    def __call__(self, parameters: Parameters, view: View) -> Tensor:
        return parameters["offset"]


@final
@dataclass(frozen=True)
class Linear(TokenScore):
    """f = w . x. On keys it is the logit of a unigram: how often a token is attended to, whoever
    asks.
    """

    def shapes(self, role: Role, form: Form) -> dict[str, Shape]:
        return {"vector": (form.width(role),)}

    def __call__(self, parameters: Parameters, view: View) -> Tensor:
        return (_given(view.token, "tokens") * parameters["vector"]).sum(-2)


@final
@dataclass(frozen=True)
class Feature(Score):
    """f = a phi(x) + b, phi a given scalar of every token."""

    def shapes(self, role: Role, form: Form) -> dict[str, Shape]:
        return {"slope": (), "offset": ()}

    def fitted(self, role: Role, form: Form) -> "Feature":
        if role not in form.features:
            raise Misfit(f"a given scalar of every {role} token")
        return self

    def __call__(self, parameters: Parameters, view: View) -> Tensor:
        feature = _given(view.feature, "a given scalar of every token")
        return parameters["slope"] * feature + parameters["offset"]


@final
@dataclass(frozen=True)
class WeightShared(TokenScore):
    """f = w . gelu(W x), W x the layer's own projection: arXiv 2411.12892's parameter-efficient
    form. Of keys without a map of their own it is W^T x, to which a constant query has no W.
    """

    def shapes(self, role: Role, form: Form) -> dict[str, Shape]:
        own_map = role != "key" or form.key_dim is not None
        return {"vector": (form.dim if own_map else form.width("query"),)}

    def fitted(self, role: Role, form: Form) -> "Score":
        if role == "key" and form.constant_query:
            raise Misfit("a map of the keys, which a constant query lacks")
        return super().fitted(role, form)

    def __call__(self, parameters: Parameters, view: View) -> Tensor:
        projection = _given(view.projection, "the layer's projection")
        return (F.gelu(projection()) * parameters["vector"]).sum(-2)


@final
@dataclass(frozen=True)
class MLP(TokenScore):
    """f = v . gelu(U x + b) + c, a two-layer MLP of its own, with `width` hidden units.

    Without a width it has 2 dim units, which start as a random orthogonal basis and its negative:
    gelu(z) + gelu(-z) is even and grows with |z|, so that f can follow the norm of a token from the
    first step. With one, U is Gaussian with variance 1 / dim. v starts at `jitter` times a standard
    normal, all else at 0. Where f = 0 everywhere a softmax may not feel c: Adam would then make a
    full step of the rounding of a zero gradient.

    Raises ValueError for a width below 1.
    """

    width: int | None = None
    jitter: float = 0.0
    shared_by_heads = frozenset({"hidden", "bias"})

    def __post_init__(self) -> None:
        if self.width is not None and self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}: choose a positive size")

    def shapes(self, role: Role, form: Form) -> dict[str, Shape]:
        dim = form.width(role)
        width = self.width or 2 * dim
        return {"hidden": (dim, width), "bias": (width,), "vector": (width,), "offset": ()}

    def initial(self, role: Role, form: Form, generators: Generators) -> Parameters:
        start = super().initial(role, form, generators)
        dim = form.width(role)
        if self.width is None:
            basis = torch.linalg.qr(normal(generators, dim, dim).movedim(-1, 0)).Q.movedim(0, -1)
            start["hidden"] = torch.cat([basis, -basis], dim=1)
        else:
            start["hidden"] = normal(generators, dim, self.width) / math.sqrt(dim)
        if self.jitter:
            start["vector"] = self.jitter * normal(generators, len(start["vector"]))
        return start

    def __call__(self, parameters: Parameters, view: View) -> Tensor:
        token = _given(view.token, "tokens")
        score = mlp_score(
            token.flatten(0, -3), *(parameters[k] for k in ("hidden", "bias", "vector"))
        )
        return score.unflatten(0, token.shape[:-2]) + parameters["offset"]


@final
@dataclass(frozen=True)
class Table(Score):
    """f = theta_k, one free number for each label k: `token` or `degree`, the number of
    out-neighbours.
    """

    label: str = "token"

    def shapes(self, role: Role, form: Form) -> dict[str, Shape]:
        return {"theta": (form.labels[self.label],)}

    def fitted(self, role: Role, form: Form) -> "Table":
        if role != "query" or self.label not in form.labels:
            raise Misfit(f"the {self.label} of every {role} token as a label")
        return self

    def __call__(self, parameters: Parameters, view: View) -> Tensor:
        label = view.labels.get(self.label)
        # Without labels the tokens are all labels, once, in order.
        return parameters["theta"] if label is None else parameters["theta"].gather(0, label)


def mlp_score(
    tokens: Float[Tensor, "token dim #member"],
    hidden: Float[Tensor, "dim width #member"],
    bias: Float[Tensor, " width #member"],
    vector: Float[Tensor, " width #member"],
) -> Float[Tensor, "token member"]:
    """v . gelu(U x + b), a two-layer MLP of every token."""
    # Batched products, member first: the hidden layer is the widest tensor here, and is never
    # copied.
    x = tokens.permute(2, 0, 1).contiguous()
    members = max(x.shape[0], hidden.shape[-1], bias.shape[-1])
    x, weight = x.expand(members, -1, -1), hidden.permute(2, 0, 1).expand(members, -1, -1)
    inner = torch.baddbmm(bias.T.unsqueeze(1), x, weight)
    return (F.gelu(inner) @ vector.T.unsqueeze(2)).squeeze(2).T


def _given(value: Given | None, what: str) -> Given:
    if value is None:
        raise ValueError(f"this score needs {what}, which the inputs lack: add it to the inputs")
    return value
