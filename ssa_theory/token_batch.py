"""A batch of sequences as the parts of a mechanism see it: which inputs it must bring, which keys
each query sees, and all tokens on one axis.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssa_theory.mechanism import Form, Mechanism, Misfit, Role, View

ROLES: tuple[Role, ...] = ("query", "key", "value")


def form_of_heads(
    dim: int,
    heads: int,
    *,
    position: bool = True,
    labels: Mapping[str, int] | None = None,
    trained_length: int | None = None,
) -> Form:
    """The form of one head of a module: tokens of width dim, queries, keys and values of width d_k
    = dim / heads, and a given scalar for whatever part reads one.

    Raises ValueError for sizes < 1, and heads that do not divide dim.
    """
    if dim < 1 or heads < 1 or dim % heads:
        raise ValueError(
            f"heads must divide dim, both at least 1, got dim={dim} and heads={heads}: change one"
        )
    return Form(
        dim=dim // heads,
        query_dim=dim,
        key_dim=dim,
        values=True,
        over_root_dim=True,
        position=position,
        features=frozenset(ROLES),
        labels=dict(labels or {}),
        trained_length=trained_length,
    )


@dataclass(frozen=True)
class RequiredInputs:
    """What a mechanism reads of a batch.

    mechanism: its name. dim: the width of the tokens. features: whether it reads a given scalar of
    every token. labels: the names of those that it reads.
    """

    mechanism: str
    dim: int
    features: bool
    labels: frozenset[str]

    @classmethod
    def of(cls, mechanism: Mechanism, form: Form, dim: int) -> "RequiredInputs":
        """Those without which the mechanism would be another in this form of layer."""

        def acts_alike(other: Form) -> bool:
            try:
                return mechanism.fitted(other) == mechanism
            except Misfit:
                return False

        without = {
            name: replace(form, labels={k: v for k, v in form.labels.items() if k != name})
            for name in form.labels
        }
        features = not acts_alike(replace(form, features=frozenset()))
        labels = frozenset(name for name, other in without.items() if not acts_alike(other))
        return cls(mechanism.name, dim, features, labels)

    def check(
        self,
        x: Tensor,
        features: Tensor | None,
        labels: Mapping[str, Tensor] | None,
        padding: Tensor | None,
    ) -> None:
        """Raises ValueError for inputs of other sizes, and for some that are missing or unread."""
        if x.ndim != 3 or x.shape[-1] != self.dim:
            raise ValueError(
                f"tokens must have the shape (batch, length, {self.dim}), got {tuple(x.shape)}: "
                "match the layer's dim"
            )
        if self.features and features is None:
            raise ValueError(
                f"mechanism {self.mechanism} reads a given scalar of every token, got None: pass "
                "features (batch, length)"
            )
        if not self.features and features is not None:
            raise ValueError(
                f"mechanism {self.mechanism} reads no given scalar, got features: leave them out"
            )
        if self.labels != (got := set(labels or {})):
            wanted = ", ".join(sorted(self.labels)) or "no"
            raise ValueError(
                f"mechanism {self.mechanism} reads {wanted} labels here, got "
                f"{', '.join(sorted(got)) or 'none'}: pass those that it reads"
            )
        for name, given in {"features": features, "padding": padding, **(labels or {})}.items():
            if given is not None and given.shape != x.shape[:2]:
                raise ValueError(
                    f"{name} must have one value a token, {tuple(x.shape[:2])}, got "
                    f"{tuple(given.shape)}: match the tokens"
                )
        if padding is not None and padding.dtype != torch.bool:
            raise ValueError(
                f"padding must be boolean, True for a real token, got {padding.dtype}: convert it"
            )


@dataclass(frozen=True)
class Visibility:
    """Which keys each query sees.

    attended: the keys that each query sees; all, if it sees none; None where all see all. blind:
    the queries that see none; None where there is no padding. count: n (token, 1), or one number.
    """

    attended: Bool[Tensor, "#batch 1 query key"] | None
    blind: Bool[Tensor, "batch 1 query 1"] | None
    count: Tensor | float

    @classmethod
    def of(cls, x: Tensor, causal: bool, padding: Tensor | None) -> "Visibility":
        """Of tokens (batch, length, dim), the earlier ones only (causal) and the real ones only."""
        size, length = x.shape[:2]
        attended = blind = None
        count: Tensor | float = float(max(length, 1))
        if causal:
            seen = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
            attended = seen.view(1, 1, length, length)
        if padding is not None:
            real = padding.view(size, 1, 1, length).expand(-1, -1, length, -1)
            attended = real if attended is None else real & attended
            blind = attended.any(-1, keepdim=True).logical_not()
            attended = attended | blind  # a row without a key is NaN, and is set to zero at the end
            # A token that sees no key has n = 1 for want of another: log 0 is infinite.
            count = padding.cumsum(1) if causal else padding.sum(1, keepdim=True)
            count = count.expand(-1, length).clamp(min=1).reshape(-1, 1)
        elif causal:
            count = torch.arange(1, length + 1, device=x.device).repeat(size).unsqueeze(1)
        if isinstance(count, Tensor):
            count = count.to(at_least_float32(x.dtype))  # float16 counts to 65504
        return cls(attended, blind, count)


@dataclass(frozen=True)
class TokenBatch:
    """What the parts see of a batch, with all its tokens on one axis.

    size, length: of the batch and its sequences. projected: by role.
    """

    size: int
    length: int
    tokens: Float[Tensor, "token dim 1"]
    projected: dict[Role, Float[Tensor, "batch head length width"]]
    feature: Float[Tensor, "token 1"] | None
    labels: Mapping[str, Int[Tensor, "token head"]]
    visible: Visibility

    def view(self, role: Role) -> View:
        """Of the tokens in a role."""
        projection, count = (lambda: self.by_token(role)), self.visible.count
        return View(self.tokens, projection, self.feature, self.labels, count)

    def by_token(self, role: Role) -> Float[Tensor, "token width head"]:
        """The projected tokens, with the heads as members."""
        return self.projected[role].permute(0, 2, 3, 1).flatten(0, 1)

    def by_head(self, per_token: Tensor) -> Float[Tensor, "batch head length w"]:
        """Of what the parts compute, (token, w, head)."""
        return per_token.unflatten(0, (self.size, self.length)).permute(0, 3, 1, 2)


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """A floating dtype, or float32 where it is a shorter one."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
