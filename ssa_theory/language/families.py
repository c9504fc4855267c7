"""How the families of causal language models lay out their projections of queries, keys and values."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ssa_theory.mechanism import Role
from ssa_theory.token_batch import ROLES


class Layout(abc.ABC):
    """projections: the modules that project the tokens, by name, each with the roles that are in
    its output.
    """

    projections: dict[str, tuple[Role, ...]]

    @abc.abstractmethod
    def split(self, output: Tensor, width: int, roles: Sequence[Role]) -> list[Tensor]:
        """(batch, length, head, width) of every role, from (batch, length, all)."""

    @abc.abstractmethod
    def joined(self, vectors: Sequence[Tensor]) -> Tensor:
        """The inverse of `split`."""


@final
@dataclass(frozen=True)
class Beside(Layout):
    """One role after the other in each output: GPT-2's `c_attn`, Llama's `q_proj`, `k_proj` and
    `v_proj`.
    """

    projections: dict[str, tuple[Role, ...]]  # type: ignore[assignment]

    def split(self, output: Tensor, width: int, roles: Sequence[Role]) -> list[Tensor]:
        return [part.unflatten(-1, (-1, width)) for part in output.chunk(len(roles), -1)]

    def joined(self, vectors: Sequence[Tensor]) -> Tensor:
        return torch.cat([v.flatten(-2) for v in vectors], -1)


@final
@dataclass(frozen=True)
class HeadByHead(Layout):
    """All roles of one head before those of the next: GPT-NeoX' `query_key_value`."""

    projections: dict[str, tuple[Role, ...]]  # type: ignore[assignment]

    def split(self, output: Tensor, width: int, roles: Sequence[Role]) -> list[Tensor]:
        return list(output.unflatten(-1, (-1, len(roles), width)).unbind(-2))

    def joined(self, vectors: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(vectors), -2).flatten(-3)


FAMILIES: dict[str, Layout] = {
    "gpt2": Beside({"c_attn": ROLES}),
    "gpt_neox": HeadByHead({"query_key_value": ROLES}),
    "llama": Beside({"q_proj": ("query",), "k_proj": ("key",), "v_proj": ("value",)}),
}
"""By `model_type` of a Hugging Face config."""
