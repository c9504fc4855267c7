"""Single-location regression: the posterior by densities, Bayes by enumeration, risks by sampling."""

import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from tasks import LocationTask
from tasks.sampling import monte_carlo


@pytest.mark.parametrize("mark", [0.0, 0.7, 3.0])
def test_the_posterior_is_that_of_the_densities(mark: float) -> None:
    task = LocationTask(dim=3, length=4, mark=mark, noise=0.3)
    tokens = task.sample(6, np.random.default_rng(0)).tokens
    plain, marked = (multivariate_normal(m * np.eye(3)[0]) for m in (0.0, mark))
    for x, found, mean, variance in zip(
        tokens, task.posterior(tokens), task.bayes(tokens), task.variance(tokens), strict=True
    ):
        weight = [
            math.prod(float((marked if i == j else plain).pdf(x[i])) for i in range(4))
            for j in range(4)
        ]
        p = np.array(weight) / sum(weight)
        np.testing.assert_allclose(found, p, rtol=1e-9)
        moments = [sum(p[j] * x[j, 1] ** k for j in range(4)) for k in (1, 2)]
        assert mean == pytest.approx(moments[0])
        assert variance == pytest.approx(moments[1] - moments[0] ** 2 + 0.09)


@pytest.mark.parametrize(("mark", "noise"), [(0.0, 0.0), (1.5, 0.5), (3.0, 0.0)])
def test_risks_are_those_of_samples(mark: float, noise: float) -> None:
    task = LocationTask(dim=2, length=5, mark=mark, noise=noise)
    drawn = task.sample(60_000, np.random.default_rng(1))
    y, rows = drawn.target, np.arange(60_000)
    for estimate, wanted in (
        (0 * y, task.zero_risk),
        (drawn.tokens[:, :, 1].mean(1), task.naive_risk),
    ):
        found = monte_carlo((y - estimate) ** 2)
        assert abs(found.value - wanted) < 5 * found.error
    # Bayes: by its answers, by the variance given X, and by what is left of the location, as the
    # content is independent of the posterior.
    ways = [
        monte_carlo((y - task.bayes(drawn.tokens)) ** 2),
        monte_carlo(task.variance(drawn.tokens)),
        monte_carlo(1 - task.posterior(drawn.tokens)[rows, drawn.location] + noise**2),
    ]
    for a, b in ((0, 1), (1, 2)):
        error = math.hypot(ways[a].error, ways[b].error)
        assert abs(ways[a].value - ways[b].value) < 5 * error
    seen = drawn.tokens[rows, drawn.location, 1]
    assert monte_carlo((y - seen) ** 2).value == pytest.approx(task.oracle_risk, rel=0.05)
    if mark == 0:
        np.testing.assert_allclose(task.posterior(drawn.tokens), 0.2)
        assert ways[1].value == pytest.approx(task.naive_risk, abs=5 * ways[1].error)


def test_a_loud_mark_is_seen_and_samples_are_a_stream() -> None:
    task = LocationTask(dim=2, length=6, mark=60.0)
    drawn, generator = task.sample(50, np.random.default_rng(2)), np.random.default_rng(2)
    assert (task.posterior(drawn.tokens).argmax(1) == drawn.location).all()
    assert task.variance(drawn.tokens).max() < 1e-12
    assert len(set(drawn.location.tolist())) == 6
    parts = [task.sample(n, generator) for n in (20, 30)]
    for name in ("tokens", "location", "target"):
        joined = np.concatenate([getattr(p, name) for p in parts])
        assert np.array_equal(joined, getattr(drawn, name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 1}, "dim must be at least 2, got 1: choose dim >= 2"),
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"mark": -1.0}, "mark must be finite and at least 0, got -1.0: choose another mark"),
        ({"noise": math.inf}, "noise must be finite and at least 0, got inf"),
        ({"noise": math.nan}, "noise must be finite and at least 0, got nan"),
    ],
)
def test_impossible_tasks_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LocationTask(**change)  # type: ignore[arg-type]
