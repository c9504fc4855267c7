"""Self-attention with rotary positions: the module of any mechanism, its queries and keys turned."""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from ssa_theory.mechanism import Role
from ssa_theory.module import SelfAttention

BASE = 10_000.0
"""Of the wavelengths: arXiv 2104.09864."""


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
    cos, sin = _angles(length, width, vector.device, vector.dtype)
    return vector * cos + vector.roll(width // 2, -1) * sin


@lru_cache(maxsize=8)
def _angles(
    length: int, width: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cosine and sine (length, width) of every place's angles, the sine minus in the first half."""
    rate = BASE ** (-torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)
    angle = torch.arange(length, device=device, dtype=torch.float32).unsqueeze(-1) * rate
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], -1).to(dtype), torch.cat([-sin, sin], -1).to(dtype)
