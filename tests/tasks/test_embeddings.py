"""Unit embeddings: norms, directions, similarity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tasks import unit_embeddings


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 1), st.integers(0, 2**32))
def test_unit_norm_and_determinism(count: int, dim: int, similarity: float, seed: int) -> None:
    if dim == 1 and similarity == 0.5:
        similarity = 0.25
    first, again, other = (
        unit_embeddings(count, dim, np.random.default_rng(s), similarity)
        for s in (seed, seed, seed + 1)
    )
    assert first.shape == (count, dim)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(first, again)
    if dim > 1:
        assert (first != other).any()
    else:
        assert set(first.ravel().tolist()) <= {-1, 1}


def test_directions_are_uniform_on_the_sphere() -> None:
    """Each coordinate c of a uniform unit vector in R^d has (1 + c) / 2 ~ Beta((d - 1) / 2, (d - 1)
    / 2).
    """
    dim = 4
    embeddings = unit_embeddings(20_000, dim, np.random.default_rng(0))
    law = stats.beta((dim - 1) / 2, (dim - 1) / 2)
    for coordinate in embeddings.T:
        assert stats.kstest((1 + coordinate) / 2, law.cdf).pvalue > 1e-6
    np.testing.assert_allclose(
        embeddings.T @ embeddings / len(embeddings), np.eye(dim) / dim, atol=0.01
    )
    assert (
        stats.kstest((embeddings[::2] * embeddings[1::2]).sum(1) / 2 + 0.5, law.cdf).pvalue > 1e-6
    )  # independent


@pytest.mark.parametrize("similarity", [0.0, 0.2, 0.7, 1.0])
def test_similarity_is_the_expected_cosine_in_high_dimension(similarity: float) -> None:
    dim = 20_000
    embeddings = unit_embeddings(6, dim, np.random.default_rng(1), similarity)
    cosines = (embeddings @ embeddings.T)[np.triu_indices(6, k=1)]
    np.testing.assert_allclose(cosines, similarity, atol=6 / np.sqrt(dim))


def test_full_similarity_is_one_direction() -> None:
    embeddings = unit_embeddings(5, 3, np.random.default_rng(2), 1.0)
    np.testing.assert_array_equal(embeddings, np.broadcast_to(embeddings[0], embeddings.shape))


@pytest.mark.parametrize(
    ("count", "dim", "similarity", "message"),
    [
        (0, 3, 0.0, "number of tokens must be at least 1, got 0: ask for one or more tokens"),
        (3, 0, 0.0, "embedding dimension must be at least 1, got 0: choose dim >= 1"),
        (3, 2, -0.1, r"similarity must lie in \[0, 1\], got -0.1: 0 is uniform"),
        (3, 2, 1.5, r"similarity must lie in \[0, 1\], got 1.5"),
        (3, 2, float("nan"), r"similarity must lie in \[0, 1\], got nan"),
        (
            3,
            1,
            0.5,
            "similarity 0.5 in dimension 1 can cancel a token to zero: choose dim >= 2 or another similarity",
        ),
    ],
)
def test_bad_input(count: int, dim: int, similarity: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unit_embeddings(count, dim, np.random.default_rng(0), similarity)
