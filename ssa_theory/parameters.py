"""Counting parameters: published decoder shapes, their totals, and what a mechanism adds to them.

Totals are counted on modules of PyTorch's meta device, which have shapes but no storage: nothing is
downloaded or allocated.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ssa_theory.mechanism import Mechanism
from ssa_theory.module import form_of_heads


@dataclass(frozen=True)
class Architecture:
    """The shape of a decoder-only transformer.

    layers; dim: model width d; heads H, each of d_k = d / H; kv_heads: heads of keys and values,
    fewer than H where queries share them; feed_forward: hidden width of the MLP; vocabulary: rows
    of the embedding as published, padding included; positions: learned position embeddings (0:
    rotary, no parameters); tied: output embeddings are the input's; bias: of all linear maps but
    the output embeddings; norm: of a layer (two a block, one at the end), `layer` with scale and
    shift or `rms` with scale; gated: a third, gating matrix in the MLP. Whether attention and MLP
    run in parallel (as in Pythia) changes no count.

    Raises ValueError for sizes < 1, and heads that do not divide dim or are no multiple of
    kv_heads.
    """

    layers: int
    dim: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    tied: bool
    bias: bool
    norm: Literal["layer", "rms"]
    gated: bool

    def __post_init__(self) -> None:
        for name in ("layers", "dim", "heads", "kv_heads", "feed_forward", "vocabulary"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}: choose a positive size"
                )
        if self.positions < 0:
            raise ValueError(
                f"positions must be at least 0, got {self.positions}: 0 means none are learned"
            )
        if self.dim % self.heads or self.heads % self.kv_heads:
            raise ValueError(
                f"heads must divide dim and be a multiple of kv_heads, got dim={self.dim}, heads={self.heads} and "
                f"kv_heads={self.kv_heads}: change one"
            )

    @property
    def head_dim(self) -> int:
        """d_k."""
        return self.dim // self.heads

    def build(self) -> nn.Module:
        """The decoder on the meta device; its parameters are the model's, a tied matrix once."""
        with torch.device("meta"):
            model = nn.ModuleDict(
                {
                    "tokens": nn.Embedding(self.vocabulary, self.dim),
                    "blocks": nn.ModuleList(self._block() for _ in range(self.layers)),
                    "norm": self._norm(),
                    "output": nn.Linear(self.dim, self.vocabulary, bias=False),
                }
            )
            if self.positions:
                model["positions"] = nn.Embedding(self.positions, self.dim)
        if self.tied:
            model["output"].weight = model["tokens"].weight
        return model

    def parameters(self) -> int:
        """How many parameters the model has."""
        return sum(p.numel() for p in self.build().parameters())

    def _block(self) -> nn.Module:
        key_dim = self.kv_heads * self.head_dim
        maps = {
            "query": (self.dim, self.dim),
            "key": (self.dim, key_dim),
            "value": (self.dim, key_dim),
        }
        maps |= {
            "mix": (self.dim, self.dim),
            "up": (self.dim, self.feed_forward),
            "down": (self.feed_forward, self.dim),
        }
        if self.gated:
            maps["gate"] = (self.dim, self.feed_forward)
        block: dict[str, nn.Module] = {
            name: nn.Linear(*shape, bias=self.bias) for name, shape in maps.items()
        }
        return nn.ModuleDict(block | {"before_attention": self._norm(), "before_mlp": self._norm()})

    def _norm(self) -> nn.Module:
        return nn.LayerNorm(self.dim) if self.norm == "layer" else nn.RMSNorm(self.dim)


# Shapes as in the `config.json` of each checkpoint on the Hugging Face hub, and the paper that
# describes it.
ARCHITECTURES: dict[str, Architecture] = {
    # Radford et al. 2019, openai-community/gpt2
    "GPT-2 124M": Architecture(
        layers=12,
        dim=768,
        heads=12,
        kv_heads=12,
        feed_forward=3072,
        vocabulary=50257,
        positions=1024,
        tied=True,
        bias=True,
        norm="layer",
        gated=False,
    ),
    # Biderman et al., arXiv 2304.01373, EleutherAI/pythia-160m
    "Pythia-160M": Architecture(
        layers=12,
        dim=768,
        heads=12,
        kv_heads=12,
        feed_forward=3072,
        vocabulary=50304,
        positions=0,
        tied=False,
        bias=True,
        norm="layer",
        gated=False,
    ),
    # Biderman et al., arXiv 2304.01373, EleutherAI/pythia-410m
    "Pythia-410M": Architecture(
        layers=24,
        dim=1024,
        heads=16,
        kv_heads=16,
        feed_forward=4096,
        vocabulary=50304,
        positions=0,
        tied=False,
        bias=True,
        norm="layer",
        gated=False,
    ),
    # Touvron et al., arXiv 2302.13971, huggyllama/llama-7b
    "Llama-7B": Architecture(
        layers=32,
        dim=4096,
        heads=32,
        kv_heads=32,
        feed_forward=11008,
        vocabulary=32000,
        positions=0,
        tied=False,
        bias=False,
        norm="rms",
        gated=True,
    ),
    # Dubey et al., arXiv 2407.21783, meta-llama/Meta-Llama-3-8B
    "Llama-3-8B": Architecture(
        layers=32,
        dim=4096,
        heads=32,
        kv_heads=8,
        feed_forward=14336,
        vocabulary=128256,
        positions=0,
        tied=False,
        bias=False,
        norm="rms",
        gated=True,
    ),
}


_OF_KEYS = ("key", "value", "bias")
"""The parts of a mechanism that are functions of a key or a value, which query heads may share."""


def added_parameters(
    architecture: Architecture, mechanism: Mechanism, labels: Mapping[str, int] | None = None
) -> int:
    """How many parameters a mechanism adds to all layers of a model.

    A part that acts on queries, scores, rows or outputs has its parameters once a head, one that
    acts on keys or values once a head of keys and values; what heads share it has once a layer.

    labels: for each kind of label that the mechanism reads, how many there are; there is a `token`
    label for each row of the embedding. Raises Misfit where the mechanism reads others.
    """
    labels = {"token": architecture.vocabulary} | dict(labels or {})
    form = form_of_heads(architecture.dim, architecture.heads, labels=labels, trained_length=1)
    total = 0
    for name, part in mechanism.fitted(form).parts().items():
        heads = architecture.kv_heads if name in _OF_KEYS else architecture.heads
        for parameter, shape in part.shapes(mechanism.role(name), form).items():
            total += math.prod(shape) * (1 if parameter in part.shared_by_heads else heads)
    return architecture.layers * total
