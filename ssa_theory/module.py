"""Attention as a module: several heads that wear a mechanism, the parts of which act with the heads
as members.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from ssa_theory.mechanism import Mechanism, Parameters, Part, Role
from ssa_theory.mechanism import mechanism as load_mechanism
from ssa_theory.mechanism.normalizers import Softmax
from ssa_theory.mechanism.parts import own, project
from ssa_theory.mechanism.score_maps import Bilinear, Side
from ssa_theory.token_batch import (
    ROLES,
    RequiredInputs,
    TokenBatch,
    Visibility,
    at_least_float32,
    form_of_heads,
)


class SelfAttention(nn.Module):
    """Multi-head self-attention that wears a mechanism; see `Mechanism` for the whole formula.

        q_i = x_i W_q,  k_j = x_j W_k,  s(x_i, x_j) = q_i . k_j / sqrt(d_k),
        y_i = concatenated over heads of g(x_i) * sum_j p_ij tau_v(x_j) W_v x_j,  times W_o.

    Every head has parameters of its own, but for those that a part names in `shared_by_heads`: an
    MLP of a part is one for all heads, with a read-out for each. With a score map that has a map of
    the keys, such as QK norm, W_k is that map, and scores are not divided by sqrt(d_k). Without
    parts the layer is `torch.nn.functional.scaled_dot_product_attention` between its projections;
    with temperatures or a gate it still is, of projections that they scale. All other mechanisms form
    the rows one by one. With a contrast they form two maps. A mechanism that is evaluated with
    another normaliser has it in `eval` mode.

    n counts the keys that a token sees as a query: 1..L under the causal mask, L without. Of a
    padded batch it counts real tokens only.

    dim: width of the tokens. heads: H, each of d_k = dim / H. mechanism: one, or its name. causal:
    whether a token sees itself and earlier ones only. bias: of the four projections. position:
    whether position terms act. labels: for each kind of label that the mechanism reads, how many
    there are. trained_length: the longest context of training, for schedules that ask.

    Parts are drawn with torch's global generator; on the meta device there is nothing to draw.
    Raises ValueError for sizes < 1, heads that do not divide dim and unknown mechanisms, and Misfit
    where the mechanism has nothing to act on.

    >>> SelfAttention(64, heads=4, mechanism="ssa").added_parameters()
    136
    """

    def __init__(
        self,
        dim: int,
        heads: int = 1,
        mechanism: str | Mechanism = "ssa",
        *,
        causal: bool = True,
        bias: bool = False,
        position: bool = True,
        labels: Mapping[str, int] | None = None,
        trained_length: int | None = None,
    ) -> None:
        super().__init__()
        form = form_of_heads(
            dim, heads, position=position, labels=labels, trained_length=trained_length
        )
        self.dim, self.heads, self.causal, self.form = dim, heads, causal, form
        self.mechanism = load_mechanism(mechanism).fitted(form)
        self.fused = self.mechanism == replace(
            self.mechanism,
            score=Bilinear(),
            shift=None,
            bias=None,
            normalizer=Softmax(),
            gate=self.mechanism.gate,
            contrast=None,
            evaluation=None,
        )
        self.required = RequiredInputs.of(self.mechanism, form, dim)
        self.query, self.key, self.value, self.output = (
            nn.Linear(dim, dim, bias=bias) for _ in range(4)
        )
        self.parts = nn.ModuleDict(
            {name: self._drawn(name, part) for name, part in self.mechanism.parts().items()}
        )

    def forward(
        self,
        x: Float[Tensor, "batch length dim"],
        features: Float[Tensor, "batch length"] | None = None,
        labels: Mapping[str, Int[Tensor, "batch length"]] | None = None,
        padding: Bool[Tensor, "batch length"] | None = None,
    ) -> Float[Tensor, "batch length dim"]:
        """The layer's output.

        features: the given scalar of every token, for mechanisms that read one. labels: integers by
        name. padding: which tokens are real; what stands at others is not read, and a token that
        sees no real one attends to nothing. Raises ValueError for inputs of other sizes, and for
        inputs that the mechanism lacks, or has no use for.
        """
        batch = self._batch(x, features, labels, padding)
        value = self._scaled("value", batch)
        if self.fused:
            query, key = self._scaled("query", batch), self._scaled("key", batch)
            if batch.visible.blind is None:
                y = self._attended(query, key, value)
            else:
                y = F.scaled_dot_product_attention(
                    query, key, value, attn_mask=batch.visible.attended
                )
                y = y.masked_fill(batch.visible.blind, 0.0)
        else:
            y = self._rows(batch).to(value.dtype) @ value
        if self.mechanism.gate is not None:
            gate = self.mechanism.gate(self._own("gate"), batch.tokens)
            y = y * batch.by_head(gate).to(y.dtype)
        return self.output(y.transpose(1, 2).flatten(2))

    def attention(
        self,
        x: Float[Tensor, "batch length dim"],
        features: Float[Tensor, "batch length"] | None = None,
        labels: Mapping[str, Int[Tensor, "batch length"]] | None = None,
        padding: Bool[Tensor, "batch length"] | None = None,
    ) -> Float[Tensor, "batch head length length"]:
        """The attention rows themselves, before value temperatures."""
        return self._rows(self._batch(x, features, labels, padding))

    def inverse_temperature(
        self,
        role: Role,
        x: Float[Tensor, "batch length dim"],
        features: Float[Tensor, "batch length"] | None = None,
        labels: Mapping[str, Int[Tensor, "batch length"]] | None = None,
        padding: Bool[Tensor, "batch length"] | None = None,
    ) -> Float[Tensor, "batch head length"]:
        """tau of every token in a role, ones without a temperature."""
        batch = self._batch(x, features, labels, padding)
        tau = self._tau(role, batch)
        if tau is None:
            return x.new_ones(x.shape[0], self.heads, x.shape[1])
        return batch.by_head(tau.unsqueeze(1)).squeeze(-1)

    def added_parameters(self) -> int:
        """How many parameters the mechanism adds to the vanilla layer."""
        return sum(p.numel() for p in self.parts.parameters())

    def extra_repr(self) -> str:
        """What `print` shows of the layer beside its parts."""
        name, causal = self.mechanism.name, self.causal
        return f"dim={self.dim}, heads={self.heads}, mechanism={name!r}, causal={causal}"

    def _drawn(self, name: str, part: Part) -> nn.ParameterDict:
        """The parameters of a part at their start, (..., head)."""
        like, role = self.query.weight, self.mechanism.role(name)
        shapes = part.shapes(role, self.form)
        size = {k: 1 if k in part.shared_by_heads else self.heads for k in shapes}
        if like.is_meta or isinstance(like, FakeTensor):
            drawn = {k: like.new_empty(*shape, size[k]) for k, shape in shapes.items()}
        else:
            # Head by head, so that the heads' draws of what they share are not all held at once.
            each: dict[str, list[Tensor]] = {k: [] for k in shapes}
            for seed in torch.randint(2**62, (self.heads,), device="cpu").tolist():
                start = part.initial(role, self.form, [np.random.default_rng(seed)])
                for k, values in each.items():
                    values += [start[k]] if len(values) < size[k] else []
            drawn = {k: torch.cat(v, -1).to(like) for k, v in each.items()}
        return nn.ParameterDict({k: nn.Parameter(v) for k, v in drawn.items()})

    def _own(self, name: str) -> Parameters:
        """Of one part, by their short names; in memory head by head, as the projections are."""
        if name not in self.parts:
            return {}
        named = cast(nn.ParameterDict, self.parts[name]).items()
        return {k: v.movedim(-1, 0).contiguous().movedim(0, -1) for k, v in named}

    def _batch(
        self,
        x: Tensor,
        features: Tensor | None,
        labels: Mapping[str, Tensor] | None,
        padding: Tensor | None,
    ) -> TokenBatch:
        """What the parts see of a batch."""
        self.required.check(x, features, labels, padding)
        size, length = x.shape[:2]
        visible = Visibility.of(x, self.causal, padding)
        if padding is not None:
            x = x.masked_fill(padding.logical_not().unsqueeze(-1), 0.0)
            features = None if features is None else features.masked_fill(padding.logical_not(), 0)
            labels = {k: v.masked_fill(padding.logical_not(), 0) for k, v in (labels or {}).items()}
        projected: dict[Role, Tensor] = {
            role: getattr(self, role)(x)
            .view(size, length, self.heads, self.form.dim)
            .transpose(1, 2)
            for role in ROLES
        }
        return TokenBatch(
            size,
            length,
            x.reshape(size * length, self.dim, 1),
            projected,
            None if features is None else features.reshape(-1, 1),
            {k: v.reshape(-1, 1).expand(-1, self.heads) for k, v in (labels or {}).items()},
            visible,
        )

    def _tau(self, role: Role, batch: TokenBatch) -> Float[Tensor, "token head"] | None:
        part = {
            "query": self.mechanism.query,
            "key": self.mechanism.key,
            "value": self.mechanism.value,
        }[role]
        if part is None:
            return None
        return part(self._own(role), batch.view(role)).expand(len(batch.tokens), self.heads)

    def _placed(
        self, role: Role, vector: Float[Tensor, "batch head length width"]
    ) -> Float[Tensor, "batch head length width"]:
        """The projected tokens with their places in them, as a subclass does; here as they are.
        Parts read them before.
        """
        return vector

    def _attended(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Softmax attention without padding, all (batch, head, length, width)."""
        return F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)

    def _scaled(self, role: Role, batch: TokenBatch) -> Float[Tensor, "batch head length width"]:
        """The projected tokens times their tau."""
        vector, tau = self._placed(role, batch.projected[role]), self._tau(role, batch)
        if tau is None:
            return vector
        return vector * batch.by_head(tau.unsqueeze(1)).to(vector.dtype)

    def _rows(self, batch: TokenBatch) -> Float[Tensor, "batch head length length"]:
        """p: here a member is a head of one sequence of the batch."""
        worn, size = self.mechanism, (batch.size, batch.length)
        if not batch.length:
            return batch.tokens.new_zeros(batch.size, self.heads, 0, 0)
        precise = at_least_float32(batch.tokens.dtype)  # normalisers, for one, need it

        def members(per_token: Tensor) -> Tensor:  # (token, ..., head) -> (length, ..., member)
            return per_token.to(precise).unflatten(0, size).movedim(0, -2).flatten(-2)

        def side(role: Role, vector: Tensor) -> Side:
            tau = self._tau(role, batch)
            return Side(members(vector), None if tau is None else members(tau))

        bias = None
        if worn.bias is not None:
            bias = worn.bias(self._own("bias"), batch.view("key"))
            bias = members(bias.expand(len(batch.tokens), self.heads))
        acting = {
            f"{part}.{k}": v.to(precise)
            .expand(*v.shape[:-1], self.heads)
            .repeat(*[1] * (v.ndim - 1), batch.size)
            for part in ("score", "shift", "normalizer")
            for k, v in self._own(part).items()
        }
        after = worn.normalizer if self.training else worn.evaluation or worn.normalizer

        def rows_of(query: Tensor, keys: Tensor) -> Tensor:
            if not worn.score.maps_keys:
                query = query * (1 / math.sqrt(self.form.dim))
            z = worn.scores(acting, side("query", query), side("key", keys), bias)
            if batch.visible.attended is not None:
                z = z.to(precise).unflatten(-1, (batch.size, self.heads))
                # Only now: a temperature of zero times -inf would be NaN.
                hidden = batch.visible.attended.logical_not().permute(2, 3, 0, 1)
                z = z.masked_fill(hidden, -torch.inf).flatten(-2)
            return after.rows(own(acting, "normalizer"), z.to(precise), 1)

        def placed(
            role: Role, vector: Tensor
        ) -> Tensor:  # (batch, head, length, width) -> by token
            return self._placed(role, vector).permute(0, 2, 3, 1).flatten(0, 1)

        rows = rows_of(*(placed(role, batch.projected[role]) for role in ROLES[:2]))
        if worn.contrast is not None:
            second = self._own("contrast")
            maps = (project(batch.tokens, second[k]) for k in ("weight", "key_map"))
            query, key = map(placed, ROLES, map(batch.by_head, maps))
            rows = rows - second["share"].to(precise).repeat(batch.size) * rows_of(query, key)
        rows = rows.unflatten(-1, (batch.size, self.heads)).permute(2, 3, 0, 1)
        rows = rows.to(batch.projected["query"].dtype)
        return rows if batch.visible.blind is None else rows.masked_fill(batch.visible.blind, 0.0)
