"""Functions that ensemble models share: tau, and weight sharing along any axis."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ssa_theory import inverse_temperature, weight_shared_score


def tokens(batch: int, length: int, dim: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, dim, generator=generator, dtype=torch.float64)


@given(st.floats(-30, 30), st.floats(-30, 30), st.integers(1, 10**6))
def test_inverse_temperature_by_hand(score: float, alpha: float, count: int) -> None:
    expected = 1 + math.tanh(score) + math.log(count) / (1 + math.exp(-alpha))
    as_tensors = [torch.tensor(v, dtype=torch.float64) for v in (score, alpha, count)]
    assert inverse_temperature(*as_tensors).item() == pytest.approx(expected, rel=1e-12)
    assert inverse_temperature(score, as_tensors[1], float(count)).item() == pytest.approx(
        expected, rel=1e-12
    )
    assert inverse_temperature(as_tensors[0]).item() == pytest.approx(
        1 + math.tanh(score), rel=1e-12
    )
    assert inverse_temperature(score) == pytest.approx(1 + math.tanh(score), rel=1e-12)
    assert inverse_temperature() == 1
    assert inverse_temperature(alpha=as_tensors[1], count=1.0) == 1


@given(st.integers(0, 2**32))
def test_weight_sharing_along_any_axis(seed: int) -> None:
    projection = tokens(3, 4, 5, seed)
    vector = tokens(1, 1, 5, seed + 1)
    score = weight_shared_score(projection, vector, dim=-1)
    expected = sum(vector[0, 0, i] * F.gelu(projection[..., i]) for i in range(5))
    torch.testing.assert_close(score, expected)
    swapped = weight_shared_score(projection.transpose(1, 2), vector.transpose(1, 2), dim=1)
    torch.testing.assert_close(swapped, expected)
