"""Closed-form theory: temperature, norm lower bound, minimal norm."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import OptimizeResult, lsq_linear, minimize
from scipy.special import log_softmax
from torch import Tensor

from analysis.problems.measures import gini, hoyer
from ssa_theory import entropy, entropy_derivative, majorises, minimal_norm, norm_lower_bound
from tasks import TwinTokenTask, unit_embeddings

EPS = {torch.float32: 1.2e-7, torch.float64: 2.3e-16}
DTYPES = st.sampled_from([torch.float32, torch.float64])
SEEDS = st.integers(0, 2**32)


@st.composite
def logit_rows(draw: st.DrawFn, extreme: bool = True) -> Tensor:
    """A row of 2 to 12 logits, ties included; with `extreme`, of scale 1e-5 to 1e4 in either dtype."""
    row = draw(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=12))
    if not extreme:
        return torch.tensor(row, dtype=torch.float64)
    return torch.tensor(row, dtype=torch.float64).mul(10 ** draw(st.floats(-5, 4))).to(draw(DTYPES))


# 4.1 Temperature


def test_concentration_is_strict_where_logits_differ() -> None:
    rows = (
        torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)[:, None]
        * torch.tensor([1.0, 0.3, -0.5])
    ).softmax(-1)
    assert majorises(rows[1:], rows[:-1]).all()
    assert not majorises(rows[:-1], rows[1:], 1e-3).any()
    for measure, sign in ((entropy, -1), (lambda r: r.max(-1).values, 1), (gini, 1), (hoyer, 1)):
        assert (sign * measure(rows).diff() > 0.01).all()


@given(st.integers(2, 5), SEEDS, st.booleans())
def test_majorisation_by_every_subset(size: int, seed: int, nested: bool) -> None:
    """p majorises q if no set of k entries of q outweighs every set of k entries of p."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(size))
    if nested:  # averaging entries never adds to any sum of the largest
        mixture = rng.dirichlet(np.ones(3))
        q = sum(w * p[rng.permutation(size)] for w in mixture)
    else:
        q = rng.dirichlet(np.ones(size))

    def largest(row: np.ndarray, k: int) -> float:
        return max(sum(row[list(subset)]) for subset in itertools.combinations(range(size), k))

    expected = all(largest(p, k) >= largest(q, k) - 1e-12 for k in range(1, size))
    assert bool(majorises(torch.tensor(p), torch.tensor(q), 1e-12)) == expected
    assert expected or not nested


def test_majorisation_needs_equal_totals() -> None:
    p = torch.tensor([0.6, 0.4], dtype=torch.float64)
    assert bool(majorises(p, p))
    assert not bool(majorises(p, p / 2))
    assert not bool(majorises(torch.tensor([0.5, 0.5]), torch.tensor([0.6, 0.4])))


@given(logit_rows(extreme=False), st.floats(0.1, 20))
def test_entropy_derivative_against_finite_differences(logits: Tensor, tau: float) -> None:
    step = 1e-5
    above, below = (entropy(((tau + h) * logits).softmax(-1)).item() for h in (step, -step))
    assert entropy_derivative(logits, tau).item() == pytest.approx(
        (above - below) / (2 * step), abs=1e-6
    )


@given(logit_rows(extreme=False), st.floats(0, 20), st.floats(-1e6, 1e6))
def test_entropy_derivative_ignores_a_common_shift(
    logits: Tensor, tau: float, shift: float
) -> None:
    """E z^2 - (E z)^2 would lose all its digits here."""
    shifted = entropy_derivative(logits + shift, tau)
    assert shifted <= 0
    assert shifted.item() == pytest.approx(entropy_derivative(logits, tau).item(), abs=1e-7)


def test_entropy_derivative_by_hand_and_by_row() -> None:
    logits = torch.tensor([[0.0, 1.0], [0.0, 3.0]], dtype=torch.float64)
    tau = torch.tensor([2.0, 0.5], dtype=torch.float64)
    p = torch.sigmoid(tau * logits[:, 1])
    expected = -tau * p * (1 - p) * logits[:, 1] ** 2
    torch.testing.assert_close(entropy_derivative(logits, tau), expected)
    assert (expected < -0.1).all()
    torch.testing.assert_close(entropy_derivative(logits, tau[:1])[0], expected[0])


@given(logit_rows(), st.floats(0, 10))
def test_entropy_and_its_derivative_are_finite_and_signed(logits: Tensor, tau: float) -> None:
    value, slope = entropy((tau * logits).softmax(-1)), entropy_derivative(logits, tau)
    assert -1e-6 <= value <= math.log(len(logits)) + 1e-6
    assert torch.isfinite(slope)
    assert slope <= 0
    assert value.dtype == slope.dtype == logits.dtype


# 4.2 Norm lower bound


def realised(embeddings: np.ndarray, weight: np.ndarray, tau: np.ndarray | float) -> np.ndarray:
    """softmax(diag(tau) E W E^T)."""
    return np.exp(
        log_softmax(
            np.broadcast_to(tau, len(embeddings))[:, None] * (embeddings @ weight @ embeddings.T), 1
        )
    )


@st.composite
def maps(draw: st.DrawFn, full_rank: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(embeddings, W, tau): a random map of moderate sharpness, with any dimension against the
    number of tokens.
    """
    tokens = draw(st.integers(2, 5))
    dim = draw(st.integers(tokens, 7) if full_rank else st.integers(1, 7))
    rng = np.random.default_rng(draw(SEEDS))
    weight = rng.standard_normal((dim, dim)) * 10 ** draw(st.floats(-2, 0.7))
    embeddings = unit_embeddings(tokens, dim, rng, draw(st.sampled_from([0.0, 0.8])))
    return embeddings, weight, np.exp(rng.uniform(-1, 1, tokens))


@given(maps())
def test_norm_lower_bound_by_four_loops(example: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    embeddings, weight, tau = example
    target = realised(embeddings, weight, tau)
    tokens = range(len(target))
    bound = 0.0
    for a, b, j, k in itertools.product(tokens, repeat=4):
        apart = np.linalg.norm(embeddings[a] - embeddings[b]) * np.linalg.norm(
            embeddings[j] - embeddings[k]
        )
        if apart > 1e-9:
            of_a = math.log(target[a, j] / target[a, k]) / tau[a]
            of_b = math.log(target[b, j] / target[b, k]) / tau[b]
            bound = max(bound, abs(of_a - of_b) / apart)
    assume(
        all(
            np.linalg.norm(embeddings[a] - embeddings[b]) > 1e-9
            for a in tokens
            for b in tokens
            if a != b
        )
    )
    assert norm_lower_bound(embeddings, target, tau) == pytest.approx(bound, rel=1e-8, abs=1e-10)


def test_the_bound_is_attained_by_a_map_along_one_direction() -> None:
    embeddings = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    weight = np.array([[3.5, 0.0], [0.0, 0.0]])
    assert norm_lower_bound(embeddings, realised(embeddings, weight, 1.0)) == pytest.approx(
        3.5, rel=1e-12
    )


def test_equal_embeddings_make_the_bound_infinite_or_say_nothing() -> None:
    embeddings = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    free = np.full((3, 3), 1 / 3)
    assert norm_lower_bound(embeddings, free) == 0
    assert norm_lower_bound(np.ones((3, 2)), free) == 0
    demanding = np.array([[0.25, 0.25, 0.5], [0.2, 0.2, 0.6], [1 / 3, 1 / 3, 1 / 3]])
    assert norm_lower_bound(embeddings, demanding) == math.inf


# 4.3 Minimal norm


@st.composite
def targets(
    draw: st.DrawFn, largest: int = 5, condition: float = 50
) -> tuple[np.ndarray, np.ndarray, float]:
    """(embeddings of full row rank, target, max_inverse_temperature)."""
    tokens = draw(st.integers(2, largest))
    dim = draw(st.integers(tokens, tokens + 3))
    rng = np.random.default_rng(draw(SEEDS))
    embeddings = unit_embeddings(tokens, dim, rng, draw(st.sampled_from([0.0, 0.5])))
    assume(np.linalg.cond(embeddings) < condition)
    sharpness = np.exp(rng.uniform(-1, 1.5, (tokens, 1)))
    target = np.exp(log_softmax(sharpness * rng.standard_normal((tokens, tokens)), 1))
    return embeddings, target, draw(st.sampled_from([0.5, 1.0, 2.0]))


def solve(embeddings: np.ndarray, target: np.ndarray, largest_tau: float, selective: bool) -> float:
    """The least Frobenius norm over u (>= 1 / tau_max, or equal to it) and c by a generic solver."""
    inverse, logits = np.linalg.pinv(embeddings), np.log(target)
    n = len(target)
    gram = inverse.T @ inverse
    least = 1 / largest_tau
    start = np.concatenate(
        [np.full(n, 1.5 * least if selective else least), -least * logits.mean(1)]
    )

    def squared(x: np.ndarray) -> tuple[float, np.ndarray]:
        rows = x[:n, None] * logits + x[n:, None]
        slope = 2 * gram @ rows @ gram
        return float(((inverse @ rows @ inverse.T) ** 2).sum()), np.append(
            (slope * logits).sum(1), slope.sum(1)
        )

    scale = squared(start)[0]
    for _ in range(4):  # restarts sharpen the last digits
        start = minimize(
            lambda x: (squared(x)[0] / scale, squared(x)[1] / scale),
            start,
            jac=True,
            bounds=[(least, None if selective else least)] * n + [(None, None)] * n,
            method="SLSQP",
            options={"ftol": 1e-16, "maxiter": 1000},
        ).x
    return math.sqrt(squared(start)[0])


@given(targets(largest=4, condition=10), st.booleans())
def test_minimal_norm_against_a_generic_solver(
    example: tuple[np.ndarray, np.ndarray, float], selective: bool
) -> None:
    found = minimal_norm(*example, selective)
    assert found.frobenius_norm == pytest.approx(solve(*example, selective), rel=1e-6)


def test_the_generic_solver_meets_both_free_and_bound_temperatures() -> None:
    """The comparison above would be hollow if the optimum always lay at, or always off, the bounds."""
    rng = np.random.default_rng(0)
    at_bound = []
    for _ in range(20):
        embeddings = unit_embeddings(4, 6, rng, 0.5)
        target = np.exp(
            log_softmax(np.exp(rng.uniform(-1, 1.5, (4, 1))) * rng.standard_normal((4, 4)), 1)
        )
        at_bound.append(
            np.isclose(minimal_norm(embeddings, target, 1.0, True).inverse_temperature, 1.0).mean()
        )
    assert 0.2 < np.mean(at_bound) < 0.9


@given(targets(), st.booleans(), SEEDS)
def test_minimal_norm_does_not_depend_on_the_axes(
    example: tuple[np.ndarray, np.ndarray, float], selective: bool, seed: int
) -> None:
    embeddings, target, largest_tau = example
    dim = embeddings.shape[1]
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]
    plain = minimal_norm(embeddings, target, largest_tau, selective)
    turned = minimal_norm(embeddings @ rotation, target, largest_tau, selective)
    np.testing.assert_allclose(
        turned.weight, rotation.T @ plain.weight @ rotation, atol=1e-7 * plain.frobenius_norm
    )
    assert turned.spectral_norm == pytest.approx(plain.spectral_norm, rel=1e-7)
    assert norm_lower_bound(embeddings @ rotation, target) == pytest.approx(
        norm_lower_bound(embeddings, target)
    )


@given(targets(), st.booleans(), st.floats(0.1, 10))
def test_a_larger_temperature_bound_divides_the_norm(
    example: tuple[np.ndarray, np.ndarray, float], selective: bool, factor: float
) -> None:
    embeddings, target, largest_tau = example
    plain = minimal_norm(embeddings, target, largest_tau, selective)
    scaled = minimal_norm(embeddings, target, factor * largest_tau, selective)
    assert scaled.frobenius_norm == pytest.approx(plain.frobenius_norm / factor, rel=1e-7)
    np.testing.assert_allclose(
        scaled.inverse_temperature, factor * plain.inverse_temperature, rtol=1e-4
    )


def test_a_uniform_target_costs_nothing() -> None:
    embeddings = unit_embeddings(4, 5, np.random.default_rng(0))
    for selective in (False, True):
        assert (
            minimal_norm(embeddings, np.full((4, 4), 0.25), 1.0, selective).frobenius_norm < 1e-12
        )


@pytest.mark.parametrize("seed", range(6))
def test_twins_cost_vanilla_one_over_the_angle_and_ssa_a_bounded_norm(seed: int) -> None:
    angles = np.geomspace(0.03, 3e-4, 5)
    norms = {False: [], True: []}
    for angle in angles:
        task = TwinTokenTask.sample(
            pairs=4, dim=12, angle=float(angle), generator=np.random.default_rng(seed)
        )
        for selective, values in norms.items():
            found = minimal_norm(task.embeddings, task.target, 2.0, selective)
            values.append(found.spectral_norm)
            np.testing.assert_allclose(
                realised(task.embeddings, found.weight, found.inverse_temperature),
                task.target,
                atol=1e-6,
            )
    slopes = {s: np.polyfit(np.log(angles), np.log(v), 1)[0] for s, v in norms.items()}
    assert slopes[False] == pytest.approx(-1, abs=0.05)
    assert slopes[True] == pytest.approx(0, abs=0.05)
    assert max(norms[True]) < 1.2 * min(norms[True])
    assert norms[False][-1] > 30 * norms[True][-1]


# Bad input

E2, A2 = np.eye(2), np.array([[0.4, 0.6], [0.7, 0.3]])


@pytest.mark.parametrize("ask", [norm_lower_bound, minimal_norm])
@pytest.mark.parametrize(
    ("embeddings", "target", "message"),
    [
        (
            E2,
            np.full((3, 3), 1 / 3),
            r"the target must have shape \(2, 2\), got \(3, 3\): one row a token",
        ),
        (np.eye(1), np.ones((1, 1)), "compares tokens and needs at least 2, got 1: add tokens"),
        (
            E2 * math.nan,
            A2,
            "embeddings and target must be finite, got NaN or infinity: mend the input",
        ),
        (E2, A2 * math.inf, "embeddings and target must be finite"),
        (
            E2,
            np.array([[0.0, 1.0], [0.5, 0.5]]),
            r"must be positive, .* gives probability 0.0 \(row 0, column 0\)",
        ),
        (
            E2,
            np.array([[0.5, 0.5], [1.5, -0.5]]),
            r"probability -0.5 \(row 1, column 1\): smooth the row",
        ),
        (
            E2,
            np.array([[0.5, 0.5], [0.5, 0.4]]),
            "must sum to 1, but row 1 sums to 0.9: normalise it",
        ),
        (
            E2,
            np.array([[0.5, 0.5], [0.5, 0.6]]),
            "must sum to 1, but row 1 sums to 1.1: normalise it",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_maps(ask: object, embeddings: np.ndarray, target: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask(embeddings, target)


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan, math.inf])
def test_bad_temperatures(tau: float) -> None:
    with pytest.raises(
        ValueError, match=f"max_inverse_temperature must be positive and finite, got {tau}: choose"
    ):
        minimal_norm(E2, A2, tau)
    for given_tau in (tau, np.array([0.5, tau])):
        with pytest.raises(
            ValueError, match=f"inverse temperatures must be positive and finite, got {tau}: choose"
        ):
            norm_lower_bound(E2, A2, given_tau)


def test_rank_deficient_embeddings() -> None:
    with pytest.raises(
        ValueError, match=r"full row rank .* got rank 1 for 2 tokens: use dim >= tokens"
    ):
        minimal_norm(np.array([[1.0, 0.0], [1.0, 0.0]]), A2)
    with pytest.raises(ValueError, match="got rank 2 for 3 tokens"):
        minimal_norm(unit_embeddings(3, 2, np.random.default_rng(0)), np.full((3, 3), 1 / 3))


def test_a_solve_that_stops_early_still_realises_the_target_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.4, 0.3, 0.3]])

    def stopped(*arguments: object, **options: object) -> OptimizeResult:
        found = lsq_linear(*arguments, **options)
        return OptimizeResult(x=1.5 * found.x, status=0)

    least = minimal_norm(np.eye(3), rows, selective=True)
    monkeypatch.setattr("ssa_theory.theory.norms.lsq_linear", stopped)
    early = minimal_norm(np.eye(3), rows, selective=True)
    assert (least.converged, early.converged, minimal_norm(np.eye(3), rows).converged) == (
        True,
        False,
        True,
    )
    assert early.frobenius_norm > 1.01 * least.frobenius_norm
    logits = early.inverse_temperature[:, None] * early.weight
    np.testing.assert_allclose(np.exp(log_softmax(logits, axis=1)), rows, rtol=1e-12)
