"""Critical inverse temperatures: definitions by hand, the bracket and its ends, laws of scores."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import softmax

from analysis.problems import GraphProblem, compare
from ssa_theory.mechanism import MECHANISMS, Form, Inputs, Layer
from ssa_theory.theory import critical as c

LAWS = [
    c.Equal(2.0),
    c.Simplex(0.005, 0.5),
    c.Gaussian(1.5),
    c.Crowded(0.8),
    c.Bounded(2.0),
    c.Exponential(0.7),
    c.PowerLaw(1.3, 3.0),
]
by_law = pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)


def test_a_row_by_hand() -> None:
    scores = np.array([0.5, 2.0, -1.0, 1.0])
    assert c.gaps(scores).tolist() == [1.0, 1.5, 3.0]
    counts = [math.log(2 * k) / g for k, g in ((1, 1.0), (2, 1.5), (3, 3.0))]
    assert c.predicted_critical(scores) == pytest.approx(max(counts))
    wanted = [(math.log(k) + math.log(9)) / g for k, g in ((1, 1.0), (2, 1.5), (3, 3.0))]
    assert c.predicted_critical(scores, 0.9) == pytest.approx(max(wanted))
    for share in (0.51, 2 / 3, 0.99):
        tau = c.measured_critical(scores, share)
        assert softmax(tau * scores)[1] == pytest.approx(share, rel=1e-12)
    two = np.array([1.0, 3.0])
    assert c.measured_critical(two) == pytest.approx(math.log(2) / 2)
    tied = np.array([1.0, 1.0, 0.0])
    assert c.measured_critical(tied) == c.predicted_critical(tied) == math.inf


@pytest.mark.parametrize("share", [0.6, 2 / 3, 0.95])
def test_both_ends_of_the_bracket_are_reached(share: float) -> None:
    """The lower one by equal gaps, the upper one by gaps at which all counts are L."""
    equal = -np.r_[0.0, np.full(999, 3.0)]
    low = c.predicted_critical(equal, share)
    assert c.measured_critical(equal, share) == pytest.approx(low, rel=1e-12)
    odds, ratios = math.log(share / (1 - share)), []
    for n in (10**2, 10**4, 10**6):
        row = -np.r_[0.0, np.log(np.arange(1.0, n)) + odds]
        assert c.predicted_critical(row, share) == pytest.approx(1.0)
        ratios.append(c.measured_critical(row, share))
    assert ratios[0] < ratios[1] < ratios[2] < c.slack(share)
    assert ratios[2] == pytest.approx(c.slack(share), rel=0.01)


def test_the_slack_is_what_the_zeta_function_says() -> None:
    """By the sum itself: sum_k (c / k)^theta = c, its tail by an integral."""
    for share in (0.6, 2 / 3, 0.95):
        theta, odds = c.slack(share), (1 - share) / share
        k = np.arange(1.0, 10**6)
        tail = (10**6 - 0.5) ** (1 - theta) / (theta - 1)
        assert odds**theta * ((k**-theta).sum() + tail) == pytest.approx(odds, rel=1e-6)
    assert c.slack() == pytest.approx(1.8537, abs=1e-4)


QUANTILES = {
    "Gaussian": stats.norm(scale=1.5),
    "Bounded": stats.uniform(-2, 4),
    "Exponential": stats.expon(scale=0.7),
    "PowerLaw": stats.pareto(3.0, scale=1.3),
    "Simplex": stats.uniform(0.495, 0.01),
}


@by_law
def test_samples_and_quantiles_are_those_of_the_law(law: c.ScoreLaw) -> None:
    q, name = np.array([1e-6, 0.01, 0.3, 0.9]), type(law).__name__
    found = law.upper_quantile(q)
    if name in QUANTILES:
        np.testing.assert_allclose(found, QUANTILES[name].isf(q), rtol=1e-9)
    if name == "Crowded":  # P(z > -h) = e^(1 - s / h)
        np.testing.assert_allclose(np.exp(1 + 0.8 / found), q, rtol=1e-9)
    row = law.sample(20_000, np.random.default_rng(0))
    if law.needle is not None:
        assert row[0] == law.needle == row.max()
        assert row[1:].max() < law.needle
    for at, share in zip(found[2:], q[2:], strict=True):
        above = (row > at).mean()
        assert name == "Equal" or abs(above - share) < 5 * math.sqrt(share / 20_000)


@by_law
def test_the_prediction_grows_as_the_law_says(law: c.ScoreLaw) -> None:
    """Its ratio to the growth settles: the last factor of a thousand or a million in n moves it
    less than the one before.
    """
    ratio = [law.predicted(n) / law.growth(n) for n in (1e3, 1e6, 1e12)]
    first, second = (abs(math.log(b / a)) for a, b in itertools.pairwise(ratio))
    assert second <= first + 1e-9
    assert second < 0.05
    assert 0.5 < ratio[2] < 1.5


@by_law
def test_measured_temperatures_are_the_predicted_ones(law: c.ScoreLaw) -> None:
    """Of the row's own gaps within the bracket; before any score is seen within a factor of 3, the
    same at all lengths to 40 %.
    """
    ratios = []
    for n, rows in ((100, 400), (10**4, 200), (10**6, 3)):
        drawn = [law.sample(n, np.random.default_rng([n, i])) for i in range(rows)]
        measured = np.array([c.measured_critical(z) for z in drawn])
        counted = np.array([c.predicted_critical(z) for z in drawn])
        assert (measured >= counted * (1 - 1e-12)).all()
        assert (measured <= counted * c.slack()).all()
        ratios.append(float(np.median(measured)) / law.predicted(n))
    assert 1 / 3 < min(ratios) <= max(ratios) < 3
    assert ratios[1] / ratios[0] == pytest.approx(1, abs=0.4)


SCHEDULES = ("vanilla", "root", "ssmax", "log2")
WINNER = {
    "Equal": "ssmax",
    "Simplex": "ssmax",
    "Gaussian": "root",
    "Crowded": "log2",
    "Exponential": "vanilla",
}


@pytest.mark.parametrize("name", WINNER)
def test_each_law_asks_for_a_schedule_of_the_registry(name: str) -> None:
    """Of the schedules without a free shape, the one whose ratio to the prediction varies least."""
    law = next(law for law in LAWS if type(law).__name__ == name)
    n = 10.0 ** np.arange(2, 13)
    count, varies = torch.from_numpy(n)[:, None], {}
    wanted = np.log([law.predicted(float(k)) for k in n])
    for schedule in SCHEDULES:
        layer = Layer(MECHANISMS[schedule], Form(1, given_scores=True, position=True))
        start = layer.initial_parameters([np.random.default_rng(0)])
        tau = layer.inverse_temperature("query", start, Inputs(count=count))
        varies[schedule] = np.std(wanted - np.log(tau.expand(len(n), 1)[:, 0].numpy()))
    assert min(varies, key=varies.__getitem__) == WINNER[name]


def test_trained_rows_are_concentrated_from_their_critical_temperature_on() -> None:
    """Scores of a trained row are its log weights; tau is over the trained one."""
    found = compare(GraphProblem(dim=6), ["vanilla"], seeds=2, steps=150, compile=False)
    rows = found["learned_transition_matrix"].values.reshape(-1, 8)
    above = rows.max(1) > 2 / 3
    assert above.any()
    assert not above.all()
    for row, sharp in zip(rows, above, strict=True):
        tau, low = (f(np.log(row)) for f in (c.measured_critical, c.predicted_critical))
        assert (tau < 1) == sharp
        assert low <= tau <= c.slack() * low


def test_the_critical_scaling_of_tokens() -> None:
    assert c.critical_scaling(0.0) == 1
    for cosine, n in ((0.5, 10**3), (-0.2, 10**5)):
        row = np.r_[1.0, np.full(n - 1, cosine)]
        for gamma, sharp in ((0.8, False), (1.25, True)):
            tau = gamma * c.critical_scaling(cosine) * math.log(n)
            assert (softmax(tau * row)[0] > 2 / 3) == sharp
    for wrong in (1.0, 1.2, -1.1, math.nan):
        with pytest.raises(ValueError, match="a cosine of others must lie in"):
            c.critical_scaling(wrong)


def test_impossible_rows_and_laws_are_refused() -> None:
    for scores in (np.array([1.0]), np.array([1.0, -np.inf]), np.array([np.nan, 1.0])):
        with pytest.raises(ValueError, match="gaps need at least two scores, all finite"):
            c.gaps(scores)
    for share in (0.5, 1.0, math.nan):
        for call in (c.predicted_critical, c.measured_critical):
            with pytest.raises(ValueError, match="lies strictly between 1/2 and 1"):
                call(np.array([1.0, 2.0]), share)
    for spread in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="the spread of scores must be positive and finite"):
            c.Gaussian(spread)
    with pytest.raises(ValueError, match="the exponent of tails must be positive and finite"):
        c.PowerLaw(1.0, 0.0)
    with pytest.raises(ValueError, match="cosines must lie in"):
        c.Simplex(0.2, 0.9)
    for length in (1.0, 1e13):
        with pytest.raises(ValueError, match=r"a row is predicted from 2 to 1e\+12 scores, got"):
            c.Gaussian().predicted(length)
    with pytest.raises(ValueError, match="a row needs at least 2 scores, got 1"):
        c.Gaussian().sample(1, np.random.default_rng(0))
