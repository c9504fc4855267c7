"""Self-attention with rotary positions: the module of any mechanism, its queries and keys turned."""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from ssa_theory.mechanism import Role
from ssa_theory.module import SelfAttention
from ssa_theory.token_batch import at_least_float32

BASE = 10_000.0
"""Of the wavelengths: arXiv 2104.09864."""
FEW = 128
"""Up to so many keys plain products are as fast as torch's own attention."""


class RotaryAttention(SelfAttention):
    """`SelfAttention` with rotary positions (arXiv 2104.09864): the pair (x_m, x_{m + w/2}) of the
    m-th and (m + w/2)-th coordinates of queries and keys of width w at place t is turned by the
    angle t BASE^(-2m/w).

    A part reads the projections as they are before: weight sharing f(x) = w . gelu(W_q x) does not
    see the place. A temperature scales a vector, and to turn it before or after is the same.
    """

    def _placed(
        self, role: Role, vector: Float[Tensor, "batch head length width"]
    ) -> Float[Tensor, "batch head length width"]:
        return vector if role == "value" else rotated(vector)

    def _attended(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """With few keys as plain products, which have a rule for vmap."""
        length, width = query.shape[-2:]
        if length > FEW or not self.causal:
            return super()._attended(query, key, value)
        later = _later(length, query.device, query.dtype)
        scores = (query * width**-0.5) @ key.transpose(-1, -2) + later
        return scores.softmax(-1) @ value


def rotated(
    vector: Float[Tensor, "*batch length width"],
) -> Float[Tensor, "*batch length width"]:
    """Vectors at the places 0, 1, ..., each turned by its place's angles.

    Raises ValueError for an odd width.
    """
    length, width = vector.shape[-2:]
    if width % 2:
        raise ValueError(
            f"rotary positions turn pairs of coordinates, got heads of width {width}: choose "
            "an even width, or learned positions"
        )
    precise = vector.to(at_least_float32(vector.dtype)).contiguous()
    cosine, sine = _turns(length, width, vector.device, precise.dtype)
    turned = torch.addcmul(precise * cosine, precise.roll(width // 2, -1), sine)
    return turned.to(vector.dtype)


@lru_cache(maxsize=8)
def _turns(
    length: int, width: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """By place, for each coordinate: the cosine of its angle, and what its partner counts, the sine
    with its sign (length, width).
    """
    rate = BASE ** (-torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)
    angle = torch.arange(length, device=device, dtype=torch.float32).unsqueeze(-1) * rate
    cosine, sine = angle.cos().to(dtype), angle.sin().to(dtype)
    return torch.cat([cosine, cosine], -1), torch.cat([-sine, sine], -1)


@lru_cache(maxsize=8)
def _later(length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """-inf where a key (column) comes after its query (row), else 0."""
    return torch.full((length, length), -torch.inf, device=device, dtype=dtype).triu(1)
