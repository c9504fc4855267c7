"""How fast sparse rows dilute over long contexts, and ReLA's own output."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from ssa_theory.mechanism.normalizers import support_exponent
from ssa_theory.mechanism.rectified import ReLA, rectified_output
from tests.mechanism.oracle import tsallis
from tests.mechanism.test_normalizers import KEYS, scores_of


def test_rectified_output_against_a_loop_and_its_limit() -> None:
    scores, values = scores_of(10)[..., 0], scores_of(11)[0]
    found = rectified_output(scores, values)
    for q in range(4):
        raw = sum(max(scores[q, j].item(), 0) * values[j].numpy() for j in range(KEYS))
        np.testing.assert_allclose(found[q], raw / np.sqrt((raw**2).mean() + 1e-8), rtol=1e-12)
    signs = rectified_output(scores, values[:, :1], 0.0)  # one feature: only its sign is left
    assert set(signs.flatten().round(decimals=12).tolist()) == {-1.0, 1.0}
    mean = ReLA().rows({}, scores[..., None], 1)[..., 0] @ values[:, 0]
    errors = []
    for c in (1e1, 1e2, 1e3):
        both = torch.stack([values[:, 0], torch.full((KEYS,), c, dtype=torch.float64)], -1)
        output = rectified_output(scores, both)[:, 0] * c / math.sqrt(2)
        errors.append((output - mean).abs().max().item())
    np.testing.assert_allclose(np.array(errors[:2]) / errors[1:], 100, rtol=0.05)  # like 1 / c^2
    assert mean.abs().min() > 0.01 > errors[1]
    assert (rectified_output(-scores.abs(), values) == 0).all()


def test_bad_exponents() -> None:
    for alpha in (0.9, 2.1, math.nan):
        with pytest.raises(ValueError, match="alpha must lie in \\[1, 2\\]"):
            support_exponent(alpha, 4)
    with pytest.raises(ValueError, match="dim of at least 2, got 1"):
        support_exponent(1.5, 1)


@pytest.mark.parametrize(("alpha", "dim"), [(1.25, 4), (1.5, 3), (1.5, 4), (2.0, 4), (2.0, 6)])
def test_support_exponent_in_the_limit_of_long_contexts(alpha: float, dim: int) -> None:
    """Keys at the quantiles of q . k on the sphere, which is what many random keys come to."""
    slopes, wanted = [], support_exponent(alpha, dim)
    for n in (2**14, 2**18):
        supports = []
        for m in (n, 4 * n):
            # The nearest eighth of 1 - q . k, where P(1 - t < h) ~ h^p; the rest has no weight.
            h = ((np.arange(m // 8) + 0.5) / m) ** (2 / (dim - 1))
            weights = tsallis(-8.0 * h, alpha)
            assert weights[-1] == 0
            positive = weights[weights > 0]
            supports.append(np.exp(-(positive * np.log(positive)).sum()))
        slopes.append(math.log(supports[1] / supports[0]) / math.log(4))
    assert slopes[1] == pytest.approx(wanted, abs=5e-3)
    assert abs(slopes[1] - wanted) <= abs(slopes[0] - wanted) + 1e-4


@given(dim=st.integers(2, 50))
def test_support_exponent_of_softmax_and_of_the_best_bandwidth(dim: int) -> None:
    assert support_exponent(1.0, dim) == 1
    # The bandwidth r with the least r^4 + 1 / (n r^(dim - 1)) sees n r^(dim - 1) keys.
    keys = []
    for n in (1e6, 1e9):
        risk = minimize_scalar(
            lambda u, n=n: np.logaddexp(4 * u, -math.log(n) - (dim - 1) * u),
            bounds=(-40, 5),
            method="bounded",
        )
        keys.append(math.log(n) + (dim - 1) * risk.x)
    slope = (keys[1] - keys[0]) / math.log(1e3)
    assert slope == pytest.approx(support_exponent(1.5, dim), abs=1e-3)
    assert support_exponent(2.0, dim) < support_exponent(1.5, dim) < 1
