"""Twin tokens: alike by their angle, different by their sharpness."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import TwinTokenTask

PAIRS, SMALL = st.integers(1, 6), st.integers(2, 14)
ANGLES = st.one_of(st.floats(1e-6, math.pi / 2), st.sampled_from([1e-6, 1e-3, math.pi / 2]))


def sample(pairs: int, dim: int, angle: float, seed: int, **betas: float) -> TwinTokenTask:
    return TwinTokenTask.sample(
        pairs=pairs, dim=dim, angle=angle, generator=np.random.default_rng(seed), **betas
    )


@given(PAIRS, SMALL, ANGLES, st.integers(0, 2**32))
def test_twins_are_unit_vectors_at_the_angle(pairs: int, dim: int, angle: float, seed: int) -> None:
    task = sample(pairs, dim, angle, seed)
    assert task.embeddings.shape == (2 * pairs, dim)
    np.testing.assert_allclose(np.linalg.norm(task.embeddings, axis=1), 1, rtol=1e-12)
    apart = np.linalg.norm(task.embeddings[:pairs] - task.embeddings[pairs:], axis=1)
    np.testing.assert_allclose(
        apart, 2 * math.sin(angle / 2), rtol=1e-8
    )  # the chord, exact for small angles too
    assert task.angle == angle


@given(PAIRS, SMALL, ANGLES, st.integers(0, 2**32), st.floats(0.1, 3), st.floats(0.1, 6))
def test_twins_rank_the_same_targets_with_their_own_sharpness(
    pairs: int, dim: int, angle: float, seed: int, general: float, specific: float
) -> None:
    task = sample(pairs, dim, angle, seed, beta_general=general, beta_specific=specific)
    assert (task.target > 0).all()
    np.testing.assert_allclose(task.target.sum(1), 1, rtol=1e-12)
    logits = np.log(task.target)
    logits -= logits.mean(1, keepdims=True)
    np.testing.assert_allclose(logits[:pairs].std(1), general, rtol=1e-9)
    np.testing.assert_allclose(logits[pairs:].std(1), specific, rtol=1e-9)
    np.testing.assert_allclose(
        logits[pairs:], logits[:pairs] * specific / general, atol=1e-9 * specific
    )


def test_extreme_sharpness_stays_finite() -> None:
    target = sample(3, 5, 0.3, 0, beta_specific=2000.0).target
    np.testing.assert_allclose(target.sum(1), 1, rtol=1e-12)
    assert (target[3:].max(1) > 0.99).all()


@given(st.integers(3, 6), st.integers(2, 4), st.floats(0.05, 1.5), st.integers(0, 2**32))
def test_base_rows_are_realisable_by_a_linear_query(
    pairs: int, dim: int, angle: float, seed: int
) -> None:
    """With more tokens than dimensions few logit rows are E a + c; those of the base tokens are,
    random ones are not.
    """
    task = sample(pairs, dim, angle, seed)
    basis = np.column_stack([task.embeddings, np.ones(2 * pairs)])
    assert basis.shape[0] > basis.shape[1]
    rows = np.log(task.target[:pairs]).T

    def residual(columns: np.ndarray) -> np.ndarray:
        return np.abs(columns - basis @ np.linalg.lstsq(basis, columns)[0]).max(0)

    assert (residual(rows) < 1e-8).all()
    assert (residual(np.random.default_rng(0).standard_normal(rows.shape)) > 1e-3).all()


@given(st.integers(2, 5), st.integers(3, 10), st.integers(0, 2**32))
def test_another_angle_turns_the_same_pairs(pairs: int, dim: int, seed: int) -> None:
    near, far = sample(pairs, dim, 0.3, seed), sample(pairs, dim, 1.2, seed)
    np.testing.assert_array_equal(near.embeddings[:pairs], far.embeddings[:pairs])

    def side(task: TwinTokenTask) -> np.ndarray:
        turned = task.embeddings[pairs:] - math.cos(task.angle) * task.embeddings[:pairs]
        return turned / math.sin(task.angle)

    np.testing.assert_allclose(side(near), side(far), atol=1e-12)
    np.testing.assert_allclose((side(near) * near.embeddings[:pairs]).sum(1), 0, atol=1e-12)


@given(PAIRS, SMALL, st.integers(0, 2**32))
def test_a_task_is_a_function_of_its_generator(pairs: int, dim: int, seed: int) -> None:
    first, again, other = (sample(pairs, dim, 0.5, s) for s in (seed, seed, seed + 1))
    for name in ("embeddings", "target"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.embeddings != other.embeddings).any()
    assert pairs == 1 or (first.target != other.target).any()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pairs": 0}, "number of twin pairs must be at least 1, got 0: ask for one or more pairs"),
        ({"dim": 1}, "dimension of at least 2 to be apart, got 1: choose dim >= 2"),
        ({"angle": 0.0}, r"must lie in \(0, pi/2\] radians, got 0.0: choose a value in that range"),
        ({"angle": -0.1}, r"must lie in \(0, pi/2\] radians, got -0.1"),
        ({"angle": 1.6}, r"must lie in \(0, pi/2\] radians, got 1.6"),
        ({"angle": math.nan}, r"must lie in \(0, pi/2\] radians, got nan"),
        ({"beta_general": 0.0}, "beta_general must be positive and finite, got 0.0: it multiplies"),
        ({"beta_specific": math.inf}, "beta_specific must be positive and finite, got inf"),
    ],
)
def test_bad_input(changed: dict, message: str) -> None:
    arguments = {
        "pairs": 2,
        "dim": 4,
        "angle": 0.1,
        "generator": np.random.default_rng(0),
    } | changed
    with pytest.raises(ValueError, match=message):
        TwinTokenTask.sample(**arguments)
