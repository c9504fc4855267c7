"""Measures of rows and weights: known values, ranges, agreement with an independent formula."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analysis.problems.measures import (
    effective_support,
    gini,
    hoyer,
    row_l1,
    singular_values,
    spikiness,
    token_norm,
    zero_fraction,
)

ROW = torch.tensor([0.5, 0.25, 0.25, 0.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("measure", "uniform", "one_key"),
    [
        (effective_support, 5.0, 1.0),
        (spikiness, 1.0, 0.2),
        (gini, 0.0, 0.8),
        (hoyer, 0.0, 1.0),
        (zero_fraction, 0.0, 0.8),
    ],
)
def test_extremes(measure, uniform, one_key):
    assert measure(torch.full((5,), 0.2, dtype=torch.float64)).item() == pytest.approx(
        uniform, abs=1e-12
    )
    assert measure(torch.eye(5, dtype=torch.float64)[2]).item() == pytest.approx(one_key, abs=1e-12)


def test_values_by_hand():
    assert effective_support(ROW).item() == pytest.approx(2**1.5)
    assert spikiness(ROW).item() == pytest.approx(1 / 1.5)
    assert zero_fraction(ROW).item() == 0.25
    assert hoyer(ROW).item() == pytest.approx(2 - 1 / 0.375**0.5)


@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=12))
def test_gini_is_the_mean_absolute_difference(values):
    p = torch.tensor(values, dtype=torch.float64)
    p = p / p.sum()
    pairs = (p[:, None] - p[None, :]).abs().sum() / (2 * len(p) * p.sum())
    assert gini(p).item() == pytest.approx(pairs.item(), abs=1e-12)


@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=12))
def test_spikiness_is_one_over_one_plus_the_squared_coefficient_of_variation(values):
    row = np.array(values) / np.sum(values)
    p, n = torch.from_numpy(row), len(row)
    assert spikiness(p).item() == pytest.approx(1 / (1 + (row.std() / row.mean()) ** 2))
    assert 1 - 1e-12 < n * spikiness(p).item() < effective_support(p).item() + 1e-9


@pytest.mark.parametrize("measure", [effective_support, spikiness, gini, hoyer, zero_fraction])
def test_any_axis(measure):
    rows = torch.rand(
        3, 7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).softmax(1)
    assert torch.allclose(measure(rows, dim=1), measure(rows.movedim(1, -1)))
    assert measure(rows, dim=1).std() > 0 or measure is zero_fraction


def test_weights_against_numpy():
    weight = np.random.default_rng(0).normal(size=(3, 5, 4))
    tensor = torch.from_numpy(weight)
    for member in range(4):
        one = weight[..., member]
        assert singular_values(tensor)[0, member].item() == pytest.approx(np.linalg.norm(one, 2))
    embeddings = torch.from_numpy(np.random.default_rng(1).normal(size=(6, 3, 4)))
    expected = np.linalg.norm(weight[..., 2].T @ embeddings[1, :, 2].numpy())
    assert token_norm(tensor, embeddings)[1, 2].item() == pytest.approx(expected)


def test_row_l1_is_zero_for_equal_and_two_for_disjoint_rows():
    identity = torch.eye(3, dtype=torch.float64).unsqueeze(-1)
    assert row_l1(identity, identity).item() == 0
    assert row_l1(identity, identity.roll(1, 0)).item() == 2
