"""A mechanism on the attention of a pretrained model: what is added to one of its layers."""

import math
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssa_theory.mechanism import Form, Mechanism, Misfit, Parameters, Role
from ssa_theory.mechanism.normalizers import Softmax
from ssa_theory.mechanism.parts import own
from ssa_theory.mechanism.score_maps import Bilinear, Side
from ssa_theory.token_batch import TokenBatch, Visibility, at_least_float32


@dataclass
class Seen:
    """What a layer sees in one pass. x: tokens. visible: the keys of each query (batch, 1, query,
    key). extra: features and labels. projected: by role, (batch, head, length, width). tau: of
    queries and keys, where they are not in the vectors.
    """

    x: Tensor
    visible: Bool[Tensor, "batch 1 query key"]
    extra: dict[str, Any]
    projected: dict[Role, Tensor]
    tau: dict[Role, Tensor]

    def batch(self, heads: int) -> TokenBatch:
        """The same, as the parts of a mechanism with so many heads see it."""
        size, length = self.x.shape[:2]
        count = self.visible.sum(-1).clamp(min=1).reshape(-1, 1)
        count = count.to(at_least_float32(self.x.dtype))
        features, labels = self.extra.get("features"), self.extra.get("labels", {})
        return TokenBatch(
            size,
            length,
            self.x.reshape(size * length, -1, 1),
            self.projected,
            None if features is None else features.reshape(-1, 1),
            {k: v.reshape(-1, 1).expand(-1, heads) for k, v in labels.items()},
            Visibility(None, None, count),
        )


class Worn(nn.Module):
    """The parts of a mechanism on one layer; see `select`.

    heads: of queries, and of keys and values, which may be fewer. A temperature scales the
    projected vectors before they are turned by rotary positions and cached: so tau of earlier keys
    and values is in the cache. What else reads the tokens of keys (a bias, a key temperature under
    QK norm or a shift) cannot act with a cache, and says so.
    """

    def __init__(
        self, mechanism: Mechanism, form: Form, heads: int, key_heads: int, alpha: float | None
    ) -> None:
        super().__init__()
        if mechanism.contrast is not None:
            raise Misfit(
                f"mechanism {mechanism.name} learns a second map of queries and keys, which a "
                "pretrained model lacks: train it from the start"
            )
        self.mechanism, self.form = mechanism.fitted(form), form
        self.heads, self.key_heads = heads, key_heads
        worn = self.mechanism
        self.fused = worn == replace(
            worn,
            score=Bilinear(),
            shift=None,
            bias=None,
            normalizer=Softmax(),
            gate=worn.gate,
            evaluation=None,
        )
        self.in_vectors = not worn.score.maps_keys and worn.shift is None
        apart = worn.key is not None and not self.in_vectors
        self.reads_earlier_tokens = worn.bias is not None or apart
        self.parts = nn.ModuleDict()
        for name, part in worn.parts().items():
            members = key_heads if name in ("key", "value", "bias") else heads
            seeds = torch.randint(2**62, (members,)).tolist()
            start = part.initial(
                worn.role(name), form, [np.random.default_rng(seed) for seed in seeds]
            )
            for short, value in start.items():
                if short in part.shared_by_heads:
                    start[short] = value[..., :1].clone()
                if short == "alpha" and alpha is not None:
                    start[short] = torch.full_like(value, alpha)
            self.parts[name] = nn.ParameterDict(
                {k: nn.Parameter(v.to(torch.get_default_dtype())) for k, v in start.items()}
            )
        self.seen: Seen | None = None
        self.records: list[tuple[Tensor, Tensor]] | None = None

    def own(self, name: str) -> Parameters:
        """Of one part, by their short names."""
        if name not in self.parts:
            return {}
        return dict(cast(nn.ParameterDict, self.parts[name]).items())

    def scaled(self, vectors: dict[Role, Tensor]) -> dict[Role, Tensor]:
        """Some of the projected vectors (batch, length, head, width) times their tau."""
        assert self.seen is not None
        seen, result = self.seen, dict(vectors)
        seen.projected |= {role: v.transpose(1, 2) for role, v in vectors.items()}
        batch = seen.batch(self.heads)
        for role, vector in vectors.items():
            part = {"query": self.mechanism.query, "key": self.mechanism.key}.get(
                role, self.mechanism.value
            )
            if part is None:
                continue
            members = self.heads if role == "query" else self.key_heads
            tau = part(self.own(role), batch.view(role)).expand(len(batch.tokens), members)
            tau = tau.unflatten(0, vector.shape[:2])
            if self.in_vectors or role == "value":
                result[role] = vector * tau.unsqueeze(-1).to(vector.dtype)
            seen.tau[role] = tau
        return result

    def _tau(self, query: Tensor) -> Float[Tensor, "batch head length"]:
        """tau_q tau_k of every token, one without temperatures."""
        assert self.seen is not None
        tau = query.new_ones(query.shape[:3])
        for role in ("query", "key"):
            if role in self.seen.tau:
                own = self.seen.tau[role].movedim(-1, 1)
                tau = tau * own.repeat_interleave(self.heads // own.shape[1], 1)
        return tau

    def gated(self, y: Float[Tensor, "batch head length width"]) -> Tensor:
        """The output times its gate."""
        if self.mechanism.gate is None:
            return y
        assert self.seen is not None
        batch = self.seen.batch(self.heads)
        gate = self.mechanism.gate(self.own("gate"), batch.tokens)
        return y * batch.by_head(gate).to(y.dtype)

    def rows(self, query: Tensor, key: Tensor, scaling: float) -> Tensor:
        """p (batch, head, query, key) of vectors that are turned and cached; zero where a query sees
        no key. Raises ValueError where the tokens of earlier keys are needed.
        """
        assert self.seen is not None
        seen, worn = self.seen, self.mechanism
        if self.reads_earlier_tokens and key.shape[2] != query.shape[2]:
            raise ValueError(
                f"mechanism {worn.name} reads the tokens of earlier keys, which a key-value cache "
                "does not hold: pass use_cache=False"
            )
        precise = at_least_float32(query.dtype)
        size, heads = query.shape[:2]
        batch = seen.batch(self.heads)

        def members(vector: Tensor) -> Tensor:  # (batch, head, length, w) -> (length, w, member)
            vector = vector.repeat_interleave(heads // vector.shape[1], 1)
            return vector.permute(2, 3, 0, 1).flatten(2).to(precise)

        def side(role: Role, vector: Tensor) -> Side:
            tau = None if self.in_vectors else seen.tau.get(role)
            if tau is not None:
                tau = members(tau.movedim(-1, 1).unsqueeze(-1)).squeeze(1)
            return Side(members(vector), tau)

        bias = None
        if worn.bias is not None:
            each = worn.bias(self.own("bias"), batch.view("key"))
            each = each.expand(len(batch.tokens), self.key_heads).unflatten(0, seen.x.shape[:2])
            bias = members(each.movedim(-1, 1).unsqueeze(-1)).squeeze(1)
        acting = {
            f"{part}.{k}": v.to(precise)
            .expand(*v.shape[:-1], heads)
            .repeat(*[1] * (v.ndim - 1), size)
            for part in ("score", "shift", "normalizer")
            for k, v in self.own(part).items()
        }
        after = worn.normalizer if self.training else worn.evaluation or worn.normalizer
        q = query if worn.score.maps_keys else query * scaling
        z = worn.scores(acting, side("query", q), side("key", key), bias)
        blind = ~seen.visible.any(-1, keepdim=True)
        hidden = ~(seen.visible | blind).permute(2, 3, 0, 1).expand(-1, -1, -1, heads).flatten(2)
        rows = after.rows(own(acting, "normalizer"), z.masked_fill(hidden, -torch.inf), 1)
        rows = rows.unflatten(-1, (size, heads)).permute(2, 3, 0, 1)
        return rows.masked_fill(blind, 0.0).to(query.dtype)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float
    ) -> Float[Tensor, "batch query head width"]:
        """The output of vectors that are turned and cached."""
        assert self.seen is not None
        scaling = 1 / math.sqrt(query.shape[-1]) if scaling is None else scaling
        groups = self.heads // self.key_heads
        value = value.repeat_interleave(groups, 1)
        if self.records is not None:
            self.records.append((self._tau(query), self.rows(query, key, scaling)))
        if self.fused:
            key = key.repeat_interleave(groups, 1)
            blind = ~self.seen.visible.any(-1, keepdim=True)
            y = F.scaled_dot_product_attention(
                query, key, value, self.seen.visible | blind, dropout, scale=scaling
            )
            y = y.masked_fill(blind, 0.0)
        else:
            rows = F.dropout(self.rows(query, key, scaling), dropout, self.training)
            y = rows @ value
        return self.gated(y).transpose(1, 2)
