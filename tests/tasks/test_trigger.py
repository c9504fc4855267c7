"""The trigger task: samples by hand, and the floor of softmax by quadrature, search and sampling."""

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax

from tasks import TriggerTask
from tasks.sampling import monte_carlo

HERMITE = np.polynomial.hermite_e.hermegauss(24)


@pytest.mark.parametrize("anchor", [False, True])
def test_keys_and_targets_are_those_of_the_content(anchor: bool) -> None:
    task = TriggerTask(content=2, length=3, probability=0.7, anchor=anchor)
    drawn = task.sample(4000, np.random.default_rng(0))
    assert abs(drawn.triggered.mean() - 0.7) < 5 * math.sqrt(0.7 * 0.3 / 4000)
    keys, target = task.tokens(drawn.content), task.target(drawn.content, drawn.triggered)
    assert keys.shape == (4000, task.keys, task.dim) == (4000, 3 + anchor, 3 + anchor)
    for i in range(5):
        rows = [[*z, 1.0, 0.0] if anchor else [*z, 1.0] for z in drawn.content[i]]
        wanted = [[0.0, 0.0, 0.0, 1.0], *rows] if anchor else rows
        assert keys[i].tolist() == wanted
        mean = [sum(z[k] for z in drawn.content[i]) / 3 for k in range(2)]
        assert target[i, :2].tolist() == pytest.approx([drawn.triggered[i] * m for m in mean])
        assert (target[i, 2:] == 0).all()


def test_samples_are_a_stream() -> None:
    task = TriggerTask(content=2, length=3)
    whole, generator = task.sample(5, np.random.default_rng(1)), np.random.default_rng(1)
    parts = [task.sample(n, generator) for n in (2, 3)]
    assert np.array_equal(np.concatenate([p.content for p in parts]), whole.content)
    assert np.array_equal(np.concatenate([p.triggered for p in parts]), whole.triggered)


@pytest.mark.parametrize("probability", [0.2, 0.5, 0.9])
def test_the_risks_of_zero_and_of_uniform_rows_are_sampled(probability: float) -> None:
    task = TriggerTask(3, 4, probability)
    drawn = task.sample(40_000, np.random.default_rng(2))
    target = task.target(drawn.content, drawn.triggered)[:, :3]
    value = np.random.default_rng(3).standard_normal((3, 3))
    at_floor = probability * np.eye(3)
    for a, wanted in (
        (np.zeros((3, 3)), task.zero_risk),
        (value, task.linear_risk(value)),
        (at_floor, task.floor),
    ):
        found = monte_carlo(((drawn.content.mean(1) @ a.T - target) ** 2).sum(1))
        assert abs(found.value - wanted) < 5 * found.error
    best = minimize(lambda a: task.linear_risk(a.reshape(3, 3)), value.ravel(), tol=1e-12)
    assert best.fun == pytest.approx(task.floor, rel=1e-9)
    np.testing.assert_allclose(best.x.reshape(3, 3), at_floor, atol=1e-5)


def exact_risk(x: np.ndarray, probability: float, share: float = 0.0) -> float:
    """Of two tokens of one coordinate by quadrature over both: scores w z_j of each query, the
    value A z_j + b, and a second map with scores u z_j of which a share is taken off.
    """
    value, offset, *scales = x
    nodes, weights = HERMITE
    z = np.stack(np.meshgrid(nodes, nodes, indexing="ij"))
    density = np.outer(weights, weights) / weights.sum() ** 2
    risk = 0.0
    for w, u, p, target in (
        (scales[0], scales[2], probability, z.mean(0)),
        (scales[1], scales[3], 1 - probability, 0 * z[0]),
    ):
        row = softmax(w * z, axis=0) - share * softmax(u * z, axis=0)
        output = (row * (value * z + offset)).sum(0)
        risk += p * float((density * (output - target) ** 2).sum())
    return risk


@pytest.mark.parametrize("share", [0.0, 0.4])
@pytest.mark.parametrize("probability", [0.3, 0.5])
def test_no_scores_and_values_are_below_the_floor(probability: float, share: float) -> None:
    """A search from many starts over all parameters of a layer, by quadrature."""
    floor, found = TriggerTask(1, 2, probability).floor, []
    for start in itertools.product((0.2, 1.0), (0.1,), (-1.5, 0.1), (2.0,), (0.1,), (0.3,)):
        best = minimize(exact_risk, np.array(start, float), (probability, share), tol=1e-12)
        found.append(best.fun)
    assert min(found) == pytest.approx(floor, rel=1e-6)
    assert min(found) >= floor * (1 - 1e-9)
    uniform = np.array([probability / (1 - share), 0, 0, 0, 0, 0])
    assert exact_risk(uniform, probability, share) == pytest.approx(floor, rel=1e-12)


def test_the_floor_bounds_wide_layers_too() -> None:
    """Random scores, values and offsets, sampled; a query that reads all tokens alike is best."""
    task, rng = TriggerTask(3, 4, 0.4), np.random.default_rng(5)
    drawn = task.sample(20_000, rng)
    target = task.target(drawn.content, drawn.triggered)[:, :3]
    for scale in (0.0, 0.3, 1.0, 3.0):
        w, a = scale * rng.standard_normal((2, 3)), 0.4 * np.eye(3)
        scores = np.einsum("nlc,nc->nl", drawn.content, w[1 - drawn.triggered.astype(int)])
        mixed = (softmax(scores, axis=1)[:, :, None] * drawn.content).sum(1)
        risk = monte_carlo(((mixed @ a.T - target) ** 2).sum(1))
        if scale:
            assert risk.value > task.floor + 4 * risk.error
        else:
            assert abs(risk.value - task.floor) < 5 * risk.error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"content": 0}, "content must be at least 1, got 0: choose content >= 1"),
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"probability": 0.0}, "must lie strictly between 0 and 1, got 0.0: choose 0.5"),
        ({"probability": 1.0}, "must lie strictly between 0 and 1, got 1.0"),
        ({"probability": math.nan}, "must lie strictly between 0 and 1, got nan"),
    ],
)
def test_impossible_tasks_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TriggerTask(**change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the number of samples must be at least 1, got 0"):
        TriggerTask().sample(0, np.random.default_rng(0))
