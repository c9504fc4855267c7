"""What samplers share: laws from uniforms and normals, means with their errors."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tasks.sampling import MonteCarlo, invert, monte_carlo, uniform_choice

WEIGHTS = st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=6).filter(any)
UNIFORMS = st.floats(0, 1, exclude_max=True)


@given(WEIGHTS, st.lists(UNIFORMS, min_size=1, max_size=5))
def test_a_law_is_inverted_by_its_steps(weights: list[float], uniforms: list[float]) -> None:
    cumulative, uniform = np.cumsum(weights), np.array(uniforms)
    one_law = invert(cumulative, uniform)
    for u, option in zip(uniforms, one_law.tolist(), strict=True):
        level = u * sum(weights)
        assert weights[option] > 0
        assert sum(weights[:option]) <= level < sum(weights[: option + 1])
    rows = np.broadcast_to(cumulative, (len(uniform), len(weights)))
    np.testing.assert_array_equal(invert(rows, uniform), one_law)


def test_normals_choose_options_of_equal_mass() -> None:
    edges = stats.norm.ppf(np.arange(1, 5) / 5)
    assert uniform_choice(edges - 1e-6, 5).tolist() == [0, 1, 2, 3]
    assert uniform_choice(edges + 1e-6, 5).tolist() == [1, 2, 3, 4]
    assert uniform_choice(np.array([-40.0, 40.0]), 5).tolist() == [0, 4]


def test_a_mean_with_its_standard_error() -> None:
    assert monte_carlo(np.array([1.0, 3.0])) == MonteCarlo(2.0, 1.0)
    values = np.random.default_rng(0).standard_normal(50)
    assert monte_carlo(values).error == pytest.approx(stats.sem(values), rel=1e-12)
    assert monte_carlo(np.array([4.0])) == MonteCarlo(4.0, math.inf)
