"""A small decoder: a causal language model whose attention wears any mechanism."""

import math
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ssa_theory.language.attention import RotaryAttention
from ssa_theory.mechanism import Form, Mechanism
from ssa_theory.module import SelfAttention
from ssa_theory.seeds import Stream, member_generator
from ssa_theory.token_batch import form_of_heads

INITIAL_DEVIATION = 0.55
"""Times 1 / sqrt(d): GPT-2's .02 at its width 768."""


@dataclass(frozen=True)
class DecoderForm:
    """The form of a decoder.

    vocabulary: number of symbols. dim: width d. layers, heads: how many. context: the longest
    context of training. positions: `rotary`, which go beyond it, or `learned`, which do not.
    block: `neox`, attention and MLP beside each other, x + attention(norm x) + MLP(norm' x), with
    layer norms and gelu (GPT-NeoX, arXiv 2204.06745), or `llama`, one after the other, with RMS
    norms and a gated MLP of silu (arXiv 2302.13971); the MLP has 4 d units, the gated one 8 d / 3.

    Raises ValueError for sizes < 1, and a width that heads do not divide into even parts.
    """

    vocabulary: int
    dim: int = 64
    layers: int = 2
    heads: int = 4
    context: int = 128
    positions: Literal["rotary", "learned"] = "rotary"
    block: Literal["neox", "llama"] = "neox"

    def __post_init__(self) -> None:
        sizes = (self.vocabulary, self.dim, self.layers, self.heads, self.context)
        if min(sizes) < 1:
            raise ValueError(f"sizes of a decoder must be at least 1, got {sizes}: raise them")
        even = 2 if self.positions == "rotary" else 1
        if self.dim % (even * self.heads):
            raise ValueError(
                f"heads must divide dim{' into even widths' if even > 1 else ''}, got dim={self.dim} "
                f"and heads={self.heads}: change one"
            )

    def of_heads(self) -> Form:
        """The form of one head, which a mechanism has to fit: see `Mechanism.fitted`."""
        return form_of_heads(
            self.dim, self.heads, labels={"token": self.vocabulary}, trained_length=self.context
        )


class GatedMLP(nn.Module):
    """W_3 (silu(W_1 x) * W_2 x), 8 d / 3 units: arXiv 2002.05202."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        units = max(1, 8 * dim // 3)
        self.gate, self.up = (nn.Linear(dim, units, bias=False) for _ in range(2))
        self.down = nn.Linear(units, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """One layer of a decoder; see `DecoderForm`."""

    def __init__(self, form: DecoderForm, mechanism: str | Mechanism) -> None:
        super().__init__()
        rotary, self.parallel = form.positions == "rotary", form.block == "neox"
        attention = RotaryAttention if rotary else SelfAttention
        self.attention = attention(
            form.dim,
            form.heads,
            mechanism,
            labels={"token": form.vocabulary},
            trained_length=form.context,
        )
        norm = nn.LayerNorm if self.parallel else nn.RMSNorm
        self.before_attention, self.before_mlp = norm(form.dim), norm(form.dim)
        units = 4 * form.dim
        self.mlp = (
            nn.Sequential(nn.Linear(form.dim, units), nn.GELU(), nn.Linear(units, form.dim))
            if self.parallel
            else GatedMLP(form.dim)
        )

    def forward(self, x: Tensor, **seen: Any) -> Tensor:
        """seen: what the mechanism reads of the tokens beside their vectors."""
        if self.parallel:
            own = F.layer_norm(x, x.shape[-1:])  # of both norms, which differ in their weights only
            norms = [cast(nn.LayerNorm, norm) for norm in (self.before_attention, self.before_mlp)]
            first, second = (torch.addcmul(norm.bias, own, norm.weight) for norm in norms)
            return x + self.attention(first, **seen) + self.mlp(second)
        x = x + self.attention(self.before_attention(x), **seen)
        return x + self.mlp(self.before_mlp(x))


class Decoder(nn.Module):
    """A causal language model: embeddings, blocks, a norm, and a linear read-out of its own.

    All weights are drawn from the seed, those beside the mechanism's parts first: models of one seed
    start from the same weights whatever they wear. Matrices are Gaussian of deviation
    .55 / sqrt(d), which is GPT-2's .02 at its width of 768, but for those that end a branch, which
    have it over sqrt(2 layers), as GPT-2's.

    log_frequency: of every symbol, for mechanisms that read a scalar of every token. Raises
    ValueError where such a mechanism has none.

    >>> form = DecoderForm(vocabulary=70, dim=32, layers=1, heads=2, context=16)
    >>> Decoder(form, "ssa").added_parameters()
    68
    """

    def __init__(
        self,
        form: DecoderForm,
        mechanism: str | Mechanism = "ssa",
        seed: int = 0,
        log_frequency: Float[np.ndarray, " symbol"] | None = None,
    ) -> None:
        super().__init__()
        self.form = form
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding = nn.Embedding(form.vocabulary, form.dim)
            self.blocks = nn.ModuleList(Block(form, mechanism) for _ in range(form.layers))
        neox = form.block == "neox"
        self.norm = (nn.LayerNorm if neox else nn.RMSNorm)(form.dim)
        self.readout = nn.Linear(form.dim, form.vocabulary, bias=False)
        learned = torch.zeros(form.context if form.positions == "learned" else 0, form.dim)
        self.places = nn.Parameter(learned)
        self.reads = self.layers[0].required
        if self.reads.features and log_frequency is None:
            raise ValueError(
                f"mechanism {self.reads.mechanism} reads a scalar of every token, got no "
                "log_frequency: give that of every symbol"
            )
        frequency = np.zeros(form.vocabulary) if log_frequency is None else log_frequency
        self.register_buffer("frequency", torch.as_tensor(frequency, dtype=torch.float32))
        self._draw(seed)

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length symbol"]:
        """The logits of the next token, at every place. Raises ValueError beyond learned positions."""
        x, seen = self.embedded(tokens), self.seen(tokens)
        for block in self.blocks:
            x = block(x, **seen)
        return self.readout(self.norm(x))

    def embedded(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length dim"]:
        """What the first block reads."""
        x = self.embedding(tokens)
        if self.form.positions == "learned":
            if tokens.shape[1] > self.form.context:
                raise ValueError(
                    f"learned positions end at {self.form.context}, got {tokens.shape[1]} tokens: "
                    "cut them, or choose rotary positions"
                )
            x = x + self.places[: tokens.shape[1]]
        return x

    def seen(self, tokens: Int[Tensor, "batch length"]) -> dict[str, Any]:
        """What the mechanism reads of the tokens beside their vectors."""
        features = {"features": cast(Tensor, self.frequency)[tokens]} if self.reads.features else {}
        labels = {"labels": {"token": tokens}} if self.reads.labels else {}
        return features | labels

    @property
    def layers(self) -> list[SelfAttention]:
        """The attention of every block."""
        return [cast(Block, block).attention for block in self.blocks]

    def added_parameters(self) -> int:
        """How many parameters the mechanism adds to the vanilla decoder."""
        return sum(layer.added_parameters() for layer in self.layers)

    def parameter_count(self) -> int:
        """How many parameters it has, the mechanism's included."""
        return sum(p.numel() for p in self.parameters())

    def _draw(self, seed: int) -> None:
        """Of the matrices beside the mechanism's parts."""
        generator = member_generator(seed, Stream.PARAMETER)
        deviation = INITIAL_DEVIATION / math.sqrt(self.form.dim)
        last = deviation / math.sqrt(2 * self.form.layers)
        for name, weight in self.named_parameters():
            if weight.ndim != 2 or ".parts." in name:
                continue
            ends = name.endswith((".output.weight", "mlp.2.weight", "mlp.down.weight"))
            drawn = generator.standard_normal(weight.shape) * (last if ends else deviation)
            with torch.no_grad():
                weight.copy_(torch.from_numpy(drawn))
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
