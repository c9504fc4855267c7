"""Imbalanced tokens: counts against their laws, the error against attention by loops."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tasks import (
    ConstantImbalance,
    ImbalanceTask,
    PowerImbalance,
    TwoTokenSequences,
    bernoulli_sequences,
    tracking_sequence,
)
from tasks.imbalance import Imbalance

FALSE_ALARM = 1e-6
IMBALANCES = st.one_of(
    st.builds(PowerImbalance, st.one_of(st.floats(-1, 1), st.sampled_from([-1.0, 0.0, 1.0]))),
    st.builds(ConstantImbalance, st.one_of(st.floats(0.01, 100), st.sampled_from([1.0, 3.0]))),
)
SHARES, COSINES = st.floats(0.01, 0.99), st.floats(-0.99, 0.99)


def wanted(imbalance: Imbalance, n: int) -> float:
    """The real number of a among n tokens."""
    if isinstance(imbalance, PowerImbalance):
        return n / (1 + n**imbalance.power)
    return n / (1 + imbalance.value)


@given(IMBALANCES, st.integers(1, 400))
def test_counts_are_the_nearest_integers(imbalance: Imbalance, length: int) -> None:
    sequence = tracking_sequence(imbalance, length)
    assert sequence.tokens.shape == (1, length)
    assert set(sequence.tokens[0].tolist()) <= {0, 1}
    n_a = 0
    for n in range(1, length + 1):
        n_a += sequence.tokens[0, n - 1] == 0
        assert abs(n_a - wanted(imbalance, n)) <= 0.5 + 1e-9
        assert sequence.count_a[0, n - 1] == n_a
        if n_a:
            assert sequence.kappa[0, n - 1] == (n - n_a) / n_a
            ideal = n / wanted(imbalance, n) - 1
            assert abs(sequence.kappa[0, n - 1] - ideal) <= (1 + ideal) / (2 * n_a) + 1e-9


@pytest.mark.parametrize("imbalance", [PowerImbalance(0.0), ConstantImbalance(1.0)])
def test_balanced_counts_round_halves_up(imbalance: Imbalance) -> None:
    assert tracking_sequence(imbalance, 7).tokens.tolist() == [[0, 1, 0, 1, 0, 1, 0]]


def test_at_power_one_there_is_a_single_a() -> None:
    sequence = tracking_sequence(PowerImbalance(1.0), 100_000)
    assert (sequence.tokens == 0).sum() == 1
    np.testing.assert_array_equal(sequence.kappa[0], np.arange(100_000))
    mirrored = tracking_sequence(PowerImbalance(-1.0), 9)
    assert mirrored.tokens.tolist() == [[0, 1, *[0] * 7]]


@pytest.mark.parametrize("power", np.linspace(-1, 1, 9).tolist())
def test_a_power_law_shows_both_tokens_from_the_second_on(power: float) -> None:
    sequence = tracking_sequence(PowerImbalance(power), 50)
    assert sequence.first_position.tolist() == [2]
    last = tracking_sequence(PowerImbalance(power), 10**6).kappa[0, -1]
    rare = 10 ** (6 * (1 - abs(power)))  # about how often the rarer token occurs
    assert last == pytest.approx(10 ** (6 * power), rel=2 / rare) or abs(power) == 1


def test_both_seen_by_enumeration() -> None:
    tokens = np.array(list(itertools.product([0, 1], repeat=5)))
    sequences = TwoTokenSequences(tokens)
    for s, sequence in enumerate(tokens.tolist()):
        seen = [len(set(sequence[:n])) == 2 for n in range(1, 6)]
        assert sequences.both_seen[s].tolist() == seen
        assert sequences.first_position[s] == (seen.index(True) + 1 if any(seen) else 6)
    only_b = TwoTokenSequences(np.ones((1, 3), dtype=int))
    assert only_b.kappa.tolist() == [[math.inf] * 3]


@pytest.mark.parametrize(
    "imbalance", [PowerImbalance(0.5), PowerImbalance(-0.7), ConstantImbalance(3.0)]
)
def test_random_counts_have_the_same_expectation(imbalance: Imbalance) -> None:
    """Tokens are independent, so both the expectation and the variance of n_a are known."""
    count, length = 20_000, 60
    sequences = bernoulli_sequences(imbalance, length, count, np.random.default_rng(0))
    expected = np.array([wanted(imbalance, n) for n in range(1, length + 1)])
    share = np.diff(expected, prepend=0)
    bound = stats.norm.isf(FALSE_ALARM) * np.sqrt(np.cumsum(share * (1 - share)) / count)
    assert (np.abs(sequences.count_a.mean(0) - expected) < bound).all()
    variance = sequences.count_a[:, -1].var()
    assert variance == pytest.approx((share * (1 - share)).sum(), rel=6 * math.sqrt(2 / count))


@given(IMBALANCES, st.integers(1, 30), st.integers(0, 2**32))
def test_a_stream_does_not_depend_on_how_it_is_cut(
    imbalance: Imbalance, length: int, seed: int
) -> None:
    whole = bernoulli_sequences(imbalance, length, 5, np.random.default_rng(seed)).tokens
    generator = np.random.default_rng(seed)
    parts = [bernoulli_sequences(imbalance, length, n, generator).tokens for n in (2, 3)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


@given(SHARES, COSINES, st.floats(-8, 8), st.integers(0, 2**32))
def test_the_error_is_that_of_softmax_attention(
    share: float, cosine: float, margin: float, seed: int
) -> None:
    task = ImbalanceTask(share, cosine)
    a, b = task.embeddings
    assert a @ a == pytest.approx(1, rel=1e-12)
    assert b @ b == pytest.approx(1, rel=1e-12)
    assert a @ b == pytest.approx(cosine, abs=1e-12)
    sequences = TwoTokenSequences(np.random.default_rng(seed).integers(0, 2, (1, 12)))
    weight = task.attention(np.full((1, 12), margin), sequences.kappa)
    errors = task.error(weight)
    target = share * a + (1 - share) * b
    for n in range(1, 13):
        scores = [math.exp(margin if t == 0 else 0.0) for t in sequences.tokens[0, :n]]
        output = sum(
            s / sum(scores) * (a, b)[t] for s, t in zip(scores, sequences.tokens[0], strict=False)
        )
        assert errors[0, n - 1] == pytest.approx(((output - target) ** 2).sum(), abs=1e-12)
    np.testing.assert_allclose(task.target, target, atol=1e-14)


@given(SHARES, COSINES, IMBALANCES)
def test_the_zero_loss_schedule_gives_zero(
    share: float, cosine: float, imbalance: Imbalance
) -> None:
    task, sequence = ImbalanceTask(share, cosine), tracking_sequence(imbalance, 300)
    seen, kappa = sequence.both_seen, sequence.kappa
    margin = task.zero_loss_logit(kappa[seen])
    assert np.isfinite(margin).all()
    assert (task.error(task.attention(margin, kappa[seen])) < 1e-25).all()
    assert np.isinf(task.zero_loss_logit(kappa[~seen])).all()
    # Elsewhere the margin is not zero: the error grows on both sides.
    for step in (-0.1, 0.1):
        assert (task.error(task.attention(margin + step, kappa[seen])) > 1e-9).all()


def test_one_token_takes_all() -> None:
    task = ImbalanceTask(0.3, 0.5)
    weight = task.attention(np.array([5.0, -5.0]), np.array([0.0, math.inf]))
    assert weight.tolist() == [1, 0]
    np.testing.assert_allclose(task.error(weight), [0.49, 0.09], rtol=1e-12)


@pytest.mark.parametrize(
    ("made", "arguments", "message"),
    [
        (PowerImbalance, (1.01,), r"power must lie in \[-1, 1\], got 1.01: a count that grows"),
        (PowerImbalance, (math.nan,), r"power must lie in \[-1, 1\], got nan"),
        (ConstantImbalance, (0.0,), "must be positive and finite, got 0.0: choose one above 0"),
        (ConstantImbalance, (math.inf,), "must be positive and finite, got inf"),
        (ImbalanceTask, (0.0,), r"share must lie in \(0, 1\), got 0.0: both tokens take part"),
        (ImbalanceTask, (1.0,), r"share must lie in \(0, 1\), got 1.0"),
        (ImbalanceTask, (0.5, 1.0), r"cosine must lie in \(-1, 1\), got 1.0: .* linearly indep"),
        (ImbalanceTask, (0.5, -1.0), r"cosine must lie in \(-1, 1\), got -1.0"),
    ],
)
def test_bad_settings(made: type, arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(*arguments)


def test_bad_sizes() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="number of tokens must be at least 1, got 0: ask for one"):
        tracking_sequence(PowerImbalance(), 0)
    with pytest.raises(ValueError, match="number of tokens must be at least 1, got 0"):
        bernoulli_sequences(PowerImbalance(), 0, 3, generator)
    with pytest.raises(ValueError, match="number of sequences must be at least 1, got 0: ask for"):
        bernoulli_sequences(PowerImbalance(), 3, 0, generator)
