"""Basis denoising: Bayes by enumeration of signal sets, and the risks of the paper's setting."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tasks import BasisDenoisingTask
from tasks.basis_denoising import squared_error, unit

FALSE_ALARM = 1e-6
TASKS = st.builds(
    BasisDenoisingTask,
    dim=st.integers(1, 5),
    length=st.integers(1, 6),
    relevance=st.floats(0, 1),
    noise=st.floats(0.05, 3),
)


def enumerated_posterior(task: BasisDenoisingTask, tokens: np.ndarray) -> np.ndarray:
    """P(q | X) of one input: the densities of all labels and signal sets, added up."""
    p = np.zeros(task.dim)
    for q in range(task.dim):
        for carried in itertools.product([0, 1], repeat=task.length - 1):
            means = np.array([*carried, 1])[:, None] * np.eye(task.dim)[q]
            prior = math.prod(task.relevance if b else 1 - task.relevance for b in carried)
            p[q] += prior * math.exp(-((tokens - means) ** 2).sum() / (2 * task.noise**2))
    return p / p.sum()


@pytest.mark.parametrize(("length", "relevance"), [(1, 0.25), (3, 0.0), (4, 1.0), (8, 0.25)])
@pytest.mark.parametrize("noise", [0.4, 1.0])
def test_the_posterior_is_that_of_an_enumeration(
    length: int, relevance: float, noise: float
) -> None:
    task = BasisDenoisingTask(5, length, relevance, noise)
    tokens = task.sample(12, np.random.default_rng(0)).tokens
    expected = [enumerated_posterior(task, x) for x in tokens]
    np.testing.assert_allclose(task.posterior(tokens), expected, rtol=1e-9)


@pytest.mark.parametrize("noise", [0.1, 0.3, 0.5, 1.0])
def test_the_posterior_of_long_inputs_is_that_of_a_recursion(noise: float) -> None:
    """At L = 32 there are 2^31 signal sets: token by token, each summed over whether it carries
    e_q, in rational numbers, which neither overflow nor round.
    """
    task = BasisDenoisingTask(4, 32, 0.25, noise)
    tokens = task.sample(6, np.random.default_rng(12)).tokens
    for x, p in zip(tokens, task.posterior(tokens), strict=True):
        weight = [Fraction(1)] * 4
        for q, i in itertools.product(range(4), range(32)):
            s = Fraction(math.exp((x[i, q] - 0.5) / noise**2))
            weight[q] *= s if i == 31 else (3 + s) / 4
        total = sum(weight)
        np.testing.assert_allclose(p, [float(w / total) for w in weight], rtol=1e-9)


@given(TASKS, st.integers(0, 2**32))
def test_no_act_is_below_the_bayes_act(task: BasisDenoisingTask, seed: int) -> None:
    generator = np.random.default_rng(seed)
    data = task.sample(20, generator)
    errors = task.errors(data)
    p = task.posterior(data.tokens)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(errors["bayes"], 2 - 2 * np.linalg.norm(p, axis=1), atol=1e-12)
    for other in (errors["naive"], errors["threshold"]):
        assert (errors["bayes"] <= other + 1e-12).all()
    other = generator.standard_normal(p.shape)
    assert (errors["bayes"] <= task.expected_error(data.tokens, other) + 1e-12).all()
    np.testing.assert_allclose(np.linalg.norm(task.bayes_act(data.tokens), axis=1), 1, rtol=1e-12)


def test_the_expected_error_averages_over_labels_given_the_tokens() -> None:
    task = BasisDenoisingTask(4, 3, 0.4, 0.5)
    tokens = task.sample(6, np.random.default_rng(1)).tokens
    act = np.random.default_rng(2).standard_normal((6, 4))
    expected = np.zeros(6)
    for q in range(4):
        share = np.array([enumerated_posterior(task, x)[q] for x in tokens])
        expected += share * squared_error(act, np.full(6, q))
    np.testing.assert_allclose(task.expected_error(tokens, act), expected, rtol=1e-10)


def test_means_by_loops() -> None:
    task = BasisDenoisingTask(4, 6, 0.3, 0.5)
    data = task.sample(40, np.random.default_rng(3))
    naive, oracle, threshold = (
        task.naive_mean(data.tokens),
        task.oracle_mean(data.tokens, data.relevant),
        task.threshold_mean(data.tokens),
    )
    for s, x in enumerate(data.tokens):
        for estimate, picked in (
            (naive, list(x)),
            (oracle, [x[i] for i in range(6) if data.relevant[s, i]]),
            (threshold, [x[i] for i in range(6) if max(x[i]) >= 0.5]),
        ):
            mean = np.sum(picked, 0) / len(picked) if picked else np.ones(4)
            np.testing.assert_allclose(estimate[s], mean / math.sqrt((mean**2).sum()), rtol=1e-10)


def test_where_no_token_passes_the_threshold() -> None:
    """The estimate then is that of no token at all."""
    task = BasisDenoisingTask(dim=9, length=2)
    low, edge = np.full((1, 2, 9), 0.1), np.zeros((1, 2, 9))
    edge[0, 1, 3] = 0.5
    np.testing.assert_allclose(task.threshold_mean(low), np.full((1, 9), 1 / 3), rtol=1e-14)
    assert squared_error(task.threshold_mean(low), np.array([4]))[0] == pytest.approx(2 - 2 / 3)
    assert task.threshold_mean(edge).tolist() == [np.eye(9)[3].tolist()]  # at least one half
    np.testing.assert_array_equal(unit(np.zeros((1, 4))), np.full((1, 4), 0.5))


@given(TASKS, st.integers(0, 2**32), st.floats(0.05, 3))
def test_the_same_inputs_at_another_noise(
    task: BasisDenoisingTask, seed: int, noise: float
) -> None:
    """They are what a task of that noise draws from the same stream."""
    data = task.sample(7, np.random.default_rng(seed))
    before, moved = data.tokens.copy(), data.at(noise)
    drawn = replace(task, noise=noise).sample(7, np.random.default_rng(seed))
    np.testing.assert_array_equal(moved.tokens, drawn.tokens)
    np.testing.assert_array_equal(moved.relevant, drawn.relevant)
    np.testing.assert_array_equal(data.tokens, before)


@given(TASKS, st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 6))
def test_a_stream_does_not_depend_on_how_it_is_cut(
    task: BasisDenoisingTask, seed: int, first: int, second: int
) -> None:
    whole = task.sample(first + second, np.random.default_rng(seed))
    generator = np.random.default_rng(seed)
    parts = [task.sample(n, generator) for n in (first, second)]
    for name in ("tokens", "relevant", "label"):
        joined = np.concatenate([getattr(p, name) for p in parts])
        np.testing.assert_array_equal(getattr(whole, name), joined)
    assert whole.relevant[:, -1].all()


def test_the_sampler_has_its_law() -> None:
    task, count = BasisDenoisingTask(5, 4, 0.3, 0.7), 20_000
    data = task.sample(count, np.random.default_rng(4))
    assert stats.chisquare(np.bincount(data.label, minlength=5)).pvalue > FALSE_ALARM
    for place in range(3):
        carried = int(data.relevant[:, place].sum())
        assert stats.binomtest(carried, count, 0.3).pvalue > FALSE_ALARM
    noise = data.tokens - data.relevant[..., None] * np.eye(5)[data.label][:, None]
    assert stats.kstest(noise.ravel() / 0.7, "norm").pvalue > FALSE_ALARM
    flat = np.column_stack([data.label == 2, data.relevant[:, :3], noise.reshape(count, -1)])
    dependence = np.corrcoef(flat.T) - np.eye(flat.shape[1])
    assert np.abs(dependence).max() < stats.norm.isf(FALSE_ALARM) / math.sqrt(count)


@pytest.mark.parametrize(
    ("noise", "naive", "oracle", "threshold", "bayes", "bayes_error"),
    [
        (0.1, 0.1235, 0.0308, 0.0308, 0.0, 0.0),
        (0.3, 0.5806, 0.2366, 0.4010, 0.0206, 0.0004),
        (0.5, 0.9310, 0.5091, 0.8338, 0.2716, 0.0012),
        (1.0, 1.3792, 1.0269, 1.3387, 0.8896, 0.0014),
    ],
)
def test_risks_of_the_papers_setting(
    noise: float, naive: float, oracle: float, threshold: float, bayes: float, bayes_error: float
) -> None:
    """Against an independent program at K = L = 8, alpha = 1/4: its values, and the Monte Carlo
    error of its Bayes risk.
    """
    risks = BasisDenoisingTask(noise=noise).risks(100_000, np.random.default_rng(5))
    values = {"naive": naive, "oracle": oracle, "threshold": threshold, "bayes": bayes}
    assert set(risks) == set(values)
    for name, value in values.items():
        tolerance = 4 * math.hypot(risks[name].error, bayes_error) + 5e-5  # as printed
        assert abs(risks[name].value - value) < tolerance, (name, risks[name])


def test_risks_are_those_of_realised_errors() -> None:
    """In pairs, the tokens of both being the same."""
    task = BasisDenoisingTask(noise=0.5)
    data = task.sample(50_000, np.random.default_rng(6))
    for name, act in (
        ("bayes", task.bayes_act(data.tokens)),
        ("naive", task.naive_mean(data.tokens)),
        ("threshold", task.threshold_mean(data.tokens)),
    ):
        difference = squared_error(act, data.label) - task.errors(data)[name]
        assert abs(difference.mean()) < 5 * difference.std() / math.sqrt(len(difference))
        assert difference.std() > 0.1


def test_risks_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    task = BasisDenoisingTask()
    whole = task.risks(1000, np.random.default_rng(7))
    monkeypatch.setattr("tasks.basis_denoising._BLOCK_BYTES", 8 * 64 * 300)
    assert task.risks(1000, np.random.default_rng(7)) == whole
    errors = task.errors(task.sample(1000, np.random.default_rng(7)))
    assert whole["naive"].value == pytest.approx(errors["naive"].mean(), rel=1e-12)
    assert whole["naive"].error == pytest.approx(stats.sem(errors["naive"]), rel=1e-12)


def test_limits() -> None:
    """Without noise all but the naive mean are exact; with much of it nobody beats a guess."""
    clear = BasisDenoisingTask(noise=1e-3).risks(2000, np.random.default_rng(8))
    assert clear["bayes"].value < 1e-12
    assert clear["naive"].value < 1e-4
    assert clear["oracle"].value == pytest.approx(clear["threshold"].value, rel=0.1)
    blind = BasisDenoisingTask(noise=1e3).risks(2000, np.random.default_rng(9))
    assert blind["bayes"].value == pytest.approx(2 - 2 / math.sqrt(8), abs=1e-3)
    assert blind["naive"].value == pytest.approx(2, abs=6 * blind["naive"].error + 1e-3)
    same = BasisDenoisingTask(relevance=1.0)
    data = same.sample(20, np.random.default_rng(10))
    assert data.relevant.all()
    np.testing.assert_allclose(
        same.oracle_mean(data.tokens, data.relevant), same.naive_mean(data.tokens), rtol=1e-12
    )
    total = softmax_of((data.tokens.sum(1)) / same.noise**2)
    np.testing.assert_allclose(same.posterior(data.tokens), total, rtol=1e-9)


def softmax_of(z: np.ndarray) -> np.ndarray:
    weight = np.exp(z - z.max(1, keepdims=True))
    return weight / weight.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dim": 0}, "dim must be at least 1, got 0: choose dim >= 1"),
        ({"length": 0}, "length must be at least 1, got 0: choose length >= 1"),
        ({"relevance": 1.1}, r"relevance is a probability, got 1.1: choose a value in \[0, 1\]"),
        ({"relevance": math.nan}, "relevance is a probability, got nan"),
        ({"noise": 0.0}, "noise must be positive and finite, got 0.0: it is a standard deviation"),
        ({"noise": math.inf}, "noise must be positive and finite, got inf"),
    ],
)
def test_bad_settings(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BasisDenoisingTask(**changed)


def test_bad_inputs() -> None:
    task, tokens = BasisDenoisingTask(dim=3, length=2), np.zeros((5, 2, 4))
    for estimator in (task.posterior, task.bayes_act, task.naive_mean, task.threshold_mean):
        with pytest.raises(ValueError, match=r"shape \(sample, 2, 3\), got \(5, 2, 4\): match"):
            estimator(tokens)
    with pytest.raises(ValueError, match=r"shape \(sample, 2, 3\), got \(5, 2, 4\): match"):
        task.oracle_mean(tokens, np.ones((5, 2), dtype=bool))
    with pytest.raises(ValueError, match="number of samples must be at least 1, got 0: ask for"):
        task.sample(0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="needs at least 2 samples, got 1: ask for more"):
        task.risks(1, np.random.default_rng(0))


@pytest.mark.usefixtures("unchecked")
def test_flags_of_another_shape() -> None:
    task = BasisDenoisingTask(dim=3, length=2)
    with pytest.raises(ValueError, match=r"shape \(5, 2\), got \(5, 3\): one flag a token"):
        task.oracle_mean(np.zeros((5, 2, 3)), np.ones((5, 3), dtype=bool))
