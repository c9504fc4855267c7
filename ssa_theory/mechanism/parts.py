"""What the parts of a mechanism have in common: parameters by name, the form of the layer, and what
fits it.

Every tensor carries the model axis `member` last. In an ensemble a member is a model, in the module
a head.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Parameters = dict[str, Tensor]
Generators = Sequence[np.random.Generator]
Shape = tuple[int, ...]
Role = Literal["query", "key", "value"]

INITIAL_SCALE = 0.1
"""Standard deviation of the initial W, times sqrt(dim): the start of the logit scale."""
_BROADCAST_LIMIT = 2**14  # products per member; larger matrices run faster as batched products


class Misfit(ValueError):
    """A mechanism, or a part of one, has nothing to act on in a form of layer; the message says
    what it needs.
    """


@dataclass(frozen=True)
class Form:
    """The form of an attention layer: what it reads, and what it returns.

    dim: width d of the keys. query_dim, key_dim: widths of the query and key tokens, by default d;
    key tokens of another width need a key and a value map, which a module's heads have.
    constant_query: the query is learned, one vector a model, rather than a token. given_scores: the
    layer is given q . k and learns one positive constant c in place of W (W = c I); it sees no
    tokens. values: it has a value map and an output; without, its rows are the prediction.
    over_root_dim: scores are divided by sqrt(d).

    position: whether position terms act; where every query sees the same number of keys they are
    one learned scale. features: the roles whose tokens carry a given scalar. labels: for each kind
    of label that query tokens carry, how many there are. trained_length: the longest context of
    training, where there is one.

    >>> Form(8, values=True).query_dim, Form(8, constant_query=True).constant_query
    (None, True)
    """

    dim: int
    query_dim: int | None = None
    key_dim: int | None = None
    constant_query: bool = False
    given_scores: bool = False
    values: bool = False
    over_root_dim: bool = False
    position: bool = False
    features: frozenset[Role] = frozenset()
    labels: Mapping[str, int] = field(default_factory=dict)
    trained_length: int | None = None

    def width(self, role: Role) -> int:
        """Of the tokens in a role."""
        return (self.query_dim if role == "query" else self.key_dim) or self.dim


@dataclass(frozen=True)
class View:
    """What a temperature or a score sees of the tokens in one role.

    token: x (..., dim, member). projection: computes x by the layer's own map in that role (...,
    width, member). feature: a given scalar (..., member). labels: integers by name (..., member).
    count: n, the number of keys that the query sees; a tensor broadcasts against (..., member).
    """

    token: Tensor | None = None
    projection: Callable[[], Tensor] | None = None
    feature: Tensor | None = None
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    count: Tensor | float = 1.0


class Part:
    """A part of a mechanism: its parameters, and how it fits a form of layer."""

    shared_by_heads: frozenset[str] = frozenset()
    """The parameters of which a module has one for all heads."""

    def shapes(self, role: Role, form: Form) -> dict[str, Shape]:
        """The shape of each parameter of one member."""
        return {}

    def initial(self, role: Role, form: Form, generators: Generators) -> Parameters:
        """The parameters at the start (..., member), float64 on the CPU, one member per generator;
        here all zero.
        """
        return {name: zeros(generators, *shape) for name, shape in self.shapes(role, form).items()}

    def fitted(self, role: Role, form: Form) -> "Part":
        """The part as it acts in a layer of this form. Raises Misfit where it has nothing to act
        on.
        """
        return self


def zeros(generators: Generators, *shape: int) -> Tensor:
    """Zeros (*shape, member)."""
    return torch.zeros(*shape, len(generators), dtype=torch.float64)


def normal(generators: Generators, *shape: int) -> Tensor:
    """Standard normals (*shape, member), each member's from its own generator."""
    return torch.from_numpy(np.stack([g.standard_normal(shape) for g in generators], axis=-1))


def log_count(count: Tensor | float) -> Tensor | float:
    """log n. A number stays on the host: on a device, it would make every training step wait."""
    return count.log() if isinstance(count, Tensor) else math.log(count)


def matmul(
    a: Float[Tensor, "i j #member"], b: Float[Tensor, "j k #member"]
) -> Float[Tensor, "i k member"]:
    """sum_j a_ij b_jk for each member. With the model axis last and contiguous it vectorises over
    members.
    """
    if a.shape[0] * a.shape[1] * b.shape[1] <= _BROADCAST_LIMIT:
        return (a.unsqueeze(2) * b.unsqueeze(0)).sum(1)
    product = a.permute(2, 0, 1).contiguous() @ b.permute(2, 0, 1).contiguous()
    return product.permute(1, 2, 0).contiguous()


def project(
    x: Float[Tensor, "*token dim #member"], weight: Float[Tensor, "dim out #member"]
) -> Float[Tensor, "*token out member"]:
    """x W of every token, for any number of token axes."""
    if x.ndim == 3:
        return matmul(x, weight)
    return matmul(x.flatten(0, -3), weight).unflatten(0, x.shape[:-2])


def beside(tau: Tensor) -> Tensor:
    """tau (token, member) with an axis beside the tokens; of all alike (member,) as it is."""
    return tau.unsqueeze(1) if tau.ndim > 1 else tau


def own(parameters: Parameters, part: str) -> Parameters:
    """The parameters of one part by their short names: `query.alpha` of `query` is `alpha`."""
    prefix = f"{part}."
    return {k.removeprefix(prefix): v for k, v in parameters.items() if k.startswith(prefix)}
