"""Row normalisers against independent solvers, their limits and gradients, and the traps of the package behind them."""

import math

import numpy as np
import pytest
import torch
from entmax import entmax_bisect, sparsemax
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize, minimize_scalar
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ssa_theory import train
from ssa_theory.normalizers import LEAST_ALPHA, ROW_NORMALIZERS, Normalizer, rectified_output, support_exponent

KEYS, MEMBERS = 7, 3
ALL = [Normalizer(n, 3 if n == "top-k" else None) for n in ROW_NORMALIZERS]
by_normalizer = pytest.mark.parametrize("normalizer", ALL, ids=ROW_NORMALIZERS)
SPARSE = ALL[1:]


def parameters_of(normalizer: Normalizer, members: int = MEMBERS, score: float = 0.3) -> dict[str, Tensor]:
    start = normalizer.initial_parameters(members)
    return {k: v + score * torch.arange(1, members + 1) for k, v in start.items()}


def scores_of(seed: int = 0, scale: float = 1.5) -> Tensor:
    return torch.from_numpy(scale * np.random.default_rng(seed).standard_normal((4, KEYS, MEMBERS)))


def project(z: np.ndarray) -> np.ndarray:
    """The Euclidean projection on the simplex by sorting (Held, Wolfe and Crowder 1974)."""
    u = np.sort(z)[::-1]
    above = (np.cumsum(u) - 1) / np.arange(1, len(z) + 1)
    last = np.flatnonzero(u > above).max()
    return np.maximum(z - above[last], 0)


def tsallis(z: np.ndarray, alpha: float) -> np.ndarray:
    """alpha-entmax by the threshold theta at which [(alpha - 1) z - theta]_+^(1 / (alpha - 1)) sums to one, by Brent's method."""

    def row(theta: float) -> np.ndarray:
        return np.maximum((alpha - 1) * z - theta, 0) ** (1 / (alpha - 1))

    top = (alpha - 1) * z.max()
    return row(brentq(lambda theta: row(theta).sum() - 1, top - 1, top, xtol=1e-15))


def reference(normalizer: Normalizer, z: np.ndarray, alpha: float) -> np.ndarray:
    def soft(kept: np.ndarray) -> np.ndarray:
        weights = np.where(kept, np.exp(z - z.max()), 0.0)
        return weights / weights.sum() if kept.any() else weights

    if normalizer.name == "softmax":
        return soft(np.full(len(z), True))
    if normalizer.name == "sparsemax":
        return project(z)
    if normalizer.name in ("entmax15", "entmax"):
        return tsallis(z, 1.5 if normalizer.name == "entmax15" else alpha)
    if normalizer.name == "top-k":
        return soft(z >= np.sort(z)[-3])
    if normalizer.name == "threshold":
        return soft(z > 0)
    positive = np.maximum(z, 0)
    return positive / positive.sum() if positive.any() else positive


@by_normalizer
def test_rows_against_independent_solvers(normalizer: Normalizer) -> None:
    scores, parameters = scores_of(), parameters_of(normalizer)
    scores[0, :, 0] = -scores[0, :, 0].abs() - 0.1  # a row without a positive score
    rows = normalizer.rows(parameters, scores, 1)
    alpha = [1.01 + 0.99 / (1 + math.exp(-0.3 * (m + 1))) for m in range(MEMBERS)]
    for q in range(4):
        for m in range(MEMBERS):
            wanted = reference(normalizer, scores[q, :, m].numpy(), alpha[m])
            np.testing.assert_allclose(rows[q, :, m], wanted, atol=1e-7)
    empty = rows[0, :, 0].sum().item()
    assert empty == (0.0 if normalizer.name in ("threshold", "rela") else pytest.approx(1))
    zeros = (rows == 0).double().mean().item()
    assert (zeros == 0) if normalizer.name == "softmax" else (0.1 < zeros < 0.9)


def test_sparsemax_is_the_nearest_point_of_the_simplex() -> None:
    z = scores_of(5, scale=0.4)[0, :, 0].numpy()
    found = minimize(
        lambda p: ((p - z) ** 2).sum(),
        np.full(KEYS, 1 / KEYS),
        bounds=[(0, 1)] * KEYS,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14},
    ).x
    row = Normalizer("sparsemax").rows({}, torch.from_numpy(z)[:, None], 0)[:, 0]
    assert 1 < (row > 0).sum() < KEYS
    np.testing.assert_allclose(row, found, atol=1e-6)


def test_learned_alpha_spans_softmax_to_sparsemax() -> None:
    """alpha = 2 is sparsemax, 1.5 is 1.5-entmax, and softmax is approached in proportion to alpha - 1."""
    entmax, z = Normalizer("entmax"), scores_of().float().double()
    sigmoid = (1.5 - LEAST_ALPHA) / (2 - LEAST_ALPHA)
    at = {2.0: 60.0, 1.5: math.log(sigmoid / (1 - sigmoid)), LEAST_ALPHA: -1e4}
    rows = {}
    for alpha, score in at.items():
        parameters = {"alpha_score": torch.full((MEMBERS,), score, dtype=torch.float64)}
        torch.testing.assert_close(entmax.alpha(parameters), torch.full((MEMBERS,), alpha, dtype=torch.float64))
        rows[alpha] = entmax.rows(parameters, z, 1)
    torch.testing.assert_close(rows[2.0], sparsemax(z, dim=1))
    torch.testing.assert_close(rows[2.0], Normalizer("sparsemax").rows({}, z, 1))
    torch.testing.assert_close(rows[1.5], Normalizer("entmax15").rows({}, z, 1), atol=1e-7, rtol=1e-7)
    soft = z.softmax(1)
    distances = [(entmax_bisect(z, a, dim=1, n_iter=60) - soft).abs().max().item() for a in (1.04, 1.02, LEAST_ALPHA)]
    np.testing.assert_allclose(np.array(distances[:2]) / distances[1:], 2, rtol=0.1)
    assert (rows[LEAST_ALPHA] - soft).abs().max().item() == pytest.approx(distances[2], rel=1e-4)
    assert distances[2] < 0.02 < (soft - 1 / KEYS).abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_alpha_never_reaches_one_where_the_package_is_uniform_without_a_word(dtype: torch.dtype) -> None:
    z = torch.tensor([[3.0], [0.0], [-1.0]], dtype=dtype)
    assert entmax_bisect(z, 1.0, dim=0).flatten().tolist() == pytest.approx([1 / 3] * 3)  # the trap
    entmax = Normalizer("entmax")
    for score in (-1e4, -50.0):
        parameters = {"alpha_score": torch.tensor([score], dtype=dtype, requires_grad=True)}
        assert entmax.alpha(parameters).item() >= 1.0099
        rows = entmax.rows(parameters, z, 0)
        torch.testing.assert_close(rows, z.softmax(0), atol=0.02, rtol=0)
        (gradient,) = torch.autograd.grad(rows[0].sum(), parameters["alpha_score"])
        assert torch.isfinite(gradient)


def test_defaults_start_between_softmax_and_sparsemax() -> None:
    entmax = Normalizer("entmax")
    assert entmax.alpha(entmax.initial_parameters(2)).tolist() == pytest.approx([1.505, 1.505])
    assert all(n.initial_parameters(2) == {} for n in ALL if n.name != "entmax")


@by_normalizer
def test_gradcheck_away_from_kinks(normalizer: Normalizer) -> None:
    scores = scores_of(1).requires_grad_()
    leaves = {k: v.requires_grad_() for k, v in parameters_of(normalizer).items()}
    probe = scores_of(2).detach()

    def function(z: Tensor, *values: Tensor) -> Tensor:
        return (normalizer.rows(dict(zip(leaves, values, strict=True)), z, 1) * probe).sum((0, 1))

    assert torch.autograd.gradcheck(function, (scores, *leaves.values()), atol=1e-5)
    gradients = torch.autograd.grad(function(scores, *leaves.values()).sum(), (scores, *leaves.values()))
    assert all((g.flatten(0, -2) != 0).any(0).all() if g.ndim > 1 else (g != 0).all() for g in gradients)


@by_normalizer
def test_rows_with_one_key_or_none_have_no_gradient(normalizer: Normalizer) -> None:
    """What the experiment counts as a dead row."""
    scores = torch.tensor([9.0, -1.0, -2.0, -3.0], dtype=torch.float64)[:, None].requires_grad_()
    single = Normalizer("top-k", 1) if normalizer.name == "top-k" else normalizer
    rows = single.rows(parameters_of(single, 1), scores, 0)
    (gradient,) = torch.autograd.grad((rows * torch.arange(4.0)[:, None]).sum(), scores)
    if normalizer.name == "softmax":
        assert (gradient != 0).all()
    else:
        assert rows.flatten().tolist() == [1, 0, 0, 0]
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-15, rtol=0)


@by_normalizer
def test_masked_keys_get_nothing_and_equal_absent_ones(normalizer: Normalizer) -> None:
    z, parameters = scores_of(3), parameters_of(normalizer)
    masked = z.clone()
    masked[:, [1, 4]] = -torch.inf
    masked.requires_grad_()
    rows = normalizer.rows(parameters, masked, 1)
    rest = [0, 2, 3, 5, 6]
    assert (rows[:, [1, 4]] == 0).all()
    torch.testing.assert_close(rows[:, rest], normalizer.rows(parameters, z[:, rest], 1), atol=1e-7, rtol=1e-7)
    (gradient,) = torch.autograd.grad((rows * z).sum(), masked)
    assert torch.isfinite(gradient).all()
    assert (gradient[:, [1, 4]] == 0).all()


@by_normalizer
def test_rows_without_a_finite_score_hurt_no_other(normalizer: Normalizer) -> None:
    """An all -inf row is zero, and NaN or +inf gives NaN: in the package one such row stops the program."""
    with pytest.raises(RuntimeError, match="out of bounds"):
        sparsemax(torch.full((2, 3), -torch.inf), dim=1)
    z, parameters = scores_of(4), parameters_of(normalizer)
    broken = z.clone()
    broken[0, :, 0] = -torch.inf
    broken[1, :, 1] = torch.nan
    broken[2, 3, 2] = torch.nan
    broken[3, 5, 0] = torch.inf
    broken.requires_grad_()
    rows, wanted = normalizer.rows(parameters, broken, 1), normalizer.rows(parameters, z, 1)
    assert (rows[0, :, 0] == 0).all()
    bad = torch.zeros(4, MEMBERS, dtype=torch.bool)
    for place in ((1, 1), (2, 2), (3, 0)):
        bad[place] = True
        assert rows[place[0], :, place[1]].isnan().all()
    fine = ~bad
    fine[0, 0] = False
    fine = fine.unsqueeze(1).expand_as(rows)
    assert torch.equal(rows[fine], wanted[fine])
    (gradient,) = torch.autograd.grad(rows[fine].square().sum(), broken)
    assert torch.isfinite(gradient[fine]).all()


@pytest.mark.parametrize("normalizer", SPARSE, ids=ROW_NORMALIZERS[1:])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e4])
def test_extreme_scales_stay_distributions(normalizer: Normalizer, dtype: torch.dtype, scale: float) -> None:
    z = (scale * scores_of(6)).to(dtype).requires_grad_()
    rows = normalizer.rows({k: v.to(dtype) for k, v in parameters_of(normalizer).items()}, z, 1)
    torch.testing.assert_close(rows.sum(1), torch.ones(4, MEMBERS, dtype=dtype), atol=1e-5, rtol=0)
    (gradient,) = torch.autograd.grad((rows * rows.detach().roll(1, 1)).sum(), z)
    assert torch.isfinite(gradient).all()
    if scale == 1e4 and normalizer.name != "rela":
        assert (rows.amax(1) > 0.999).all()


def test_precision_of_single_rows() -> None:
    z = scores_of(7)
    for normalizer in ALL:
        single = normalizer.rows({k: v.float() for k, v in parameters_of(normalizer).items()}, z.float(), 1)
        torch.testing.assert_close(single.double(), normalizer.rows(parameters_of(normalizer), z, 1), atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@by_normalizer
def test_half_precision_is_refused(normalizer: Normalizer, kind: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"normalisers need float32 or float64, got {kind}: convert"):
        normalizer.rows(parameters_of(normalizer), scores_of().to(kind), 1)


@pytest.mark.parametrize("dim", [2, -1])
def test_the_model_axis_is_refused(dim: int) -> None:
    with pytest.raises(ValueError, match=f"over the model axis, got dim={dim}: name the axis of the keys"):
        ALL[0].rows({}, scores_of(), dim)


def test_dim_counts_from_either_end() -> None:
    for normalizer in ALL:
        p = parameters_of(normalizer)
        assert torch.equal(normalizer.rows(p, scores_of(), 1), normalizer.rows(p, scores_of(), -2))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("entmax-2",), "unknown normaliser 'entmax-2': choose one of softmax, sparsemax"),
        (("top-k",), "top-k keeps at least 1 key, got top=None: give top"),
        (("top-k", 0), "top-k keeps at least 1 key, got top=0: give top"),
        (("softmax", 3), "top applies only to normaliser top-k, got 3 for softmax: drop it"),
    ],
)
def test_bad_normalisers(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Normalizer(*arguments)


def test_bad_requests() -> None:
    with pytest.raises(ValueError, match="number of members must be at least 1, got 0"):
        ALL[0].initial_parameters(0)
    with pytest.raises(ValueError, match="only normaliser entmax learns alpha, not rela: ask entmax"):
        Normalizer("rela").alpha({})
    for alpha in (0.9, 2.1, float("nan")):
        with pytest.raises(ValueError, match="alpha must lie in \\[1, 2\\]"):
            support_exponent(alpha, 4)
    with pytest.raises(ValueError, match="dim of at least 2, got 1"):
        support_exponent(1.5, 1)


def test_top_k_keeps_exactly_k_even_of_equal_scores() -> None:
    rows = Normalizer("top-k", 2).rows({}, torch.zeros(5, 1, dtype=torch.float64), 0)
    assert sorted(rows.flatten().tolist()) == [0, 0, 0, 0.5, 0.5]
    z = scores_of()
    assert torch.equal(Normalizer("top-k", KEYS).rows({}, z, 1), z.softmax(1))
    assert torch.equal(Normalizer("top-k", KEYS + 5).rows({}, z, 1), z.softmax(1))


@pytest.mark.parametrize("factor", [1e-3, 0.5, 7.0, 1e3])
def test_rela_does_not_feel_a_temperature(factor: float) -> None:
    """Rows that sum to one and the RMS-normalised output alike."""
    z, rela = scores_of(8), Normalizer("rela")
    torch.testing.assert_close(rela.rows({}, factor * z, 1), rela.rows({}, z, 1), rtol=1e-10, atol=1e-12)
    assert (ALL[0].rows({}, factor * z, 1) - ALL[0].rows({}, z, 1)).abs().max() > 0.05
    scores, values = z[..., 0], scores_of(9)[0]
    torch.testing.assert_close(
        rectified_output(factor * scores, values, 0.0), rectified_output(scores, values, 0.0), rtol=1e-10, atol=1e-12
    )


def test_rectified_output_against_a_loop_and_its_limit() -> None:
    scores, values = scores_of(10)[..., 0], scores_of(11)[0]
    found = rectified_output(scores, values)
    for q in range(4):
        raw = sum(max(scores[q, j].item(), 0) * values[j].numpy() for j in range(KEYS))
        np.testing.assert_allclose(found[q], raw / np.sqrt((raw**2).mean() + 1e-8), rtol=1e-12)
    signs = rectified_output(scores, values[:, :1], 0.0)
    assert set(signs.flatten().round(decimals=12).tolist()) == {-1.0, 1.0}  # one feature: nothing but its sign is left
    mean = Normalizer("rela").rows({}, scores[..., None], 1)[..., 0] @ values[:, 0]
    errors = []
    for c in (1e1, 1e2, 1e3):
        both = torch.stack([values[:, 0], torch.full((KEYS,), c, dtype=torch.float64)], -1)
        errors.append((rectified_output(scores, both)[:, 0] * c / math.sqrt(2) - mean).abs().max().item())
    np.testing.assert_allclose(np.array(errors[:2]) / errors[1:], 100, rtol=0.05)  # falls like 1 / c^2
    assert mean.abs().min() > 0.01 > errors[1]
    assert (rectified_output(-scores.abs(), values) == 0).all()


@pytest.mark.parametrize(("alpha", "dim"), [(1.25, 4), (1.5, 3), (1.5, 4), (2.0, 4), (2.0, 6)])
def test_support_exponent_in_the_limit_of_long_contexts(alpha: float, dim: int) -> None:
    """Keys at the quantiles of q . k on the sphere, which is what many random keys come to."""
    slopes = []
    for n in (2**14, 2**20):
        # 1 - q . k near its least values: (1 - t)(1 + t) = 1 - t^2 has the law of Beta; near the pole P(1 - t < h) ~ h^p.
        supports = []
        for m in (n, 4 * n):
            h = ((np.arange(m // 8) + 0.5) / m) ** (2 / (dim - 1))  # the nearest eighth; the rest gets no weight
            row = tsallis(-8.0 * h, alpha)
            assert row[-1] == 0
            supports.append(np.exp(-(row[row > 0] * np.log(row[row > 0])).sum()))
        slopes.append(math.log(supports[1] / supports[0]) / math.log(4))
    assert slopes[1] == pytest.approx(support_exponent(alpha, dim), abs=5e-3)
    assert abs(slopes[1] - support_exponent(alpha, dim)) <= abs(slopes[0] - support_exponent(alpha, dim)) + 1e-4


@given(dim=st.integers(2, 50))
def test_support_exponent_of_softmax_and_of_the_best_bandwidth(dim: int) -> None:
    assert support_exponent(1.0, dim) == 1
    # The bandwidth r with the least r^4 + 1 / (n r^(dim - 1)) sees n r^(dim - 1) keys.
    keys = []
    for n in (1e6, 1e9):
        risk = minimize_scalar(
            lambda u, n=n: np.logaddexp(4 * u, -math.log(n) - (dim - 1) * u), bounds=(-40, 5), method="bounded"
        )
        keys.append(math.log(n) + (dim - 1) * risk.x)
    assert (keys[1] - keys[0]) / math.log(1e3) == pytest.approx(support_exponent(1.5, dim), abs=1e-3)
    assert support_exponent(2.0, dim) < support_exponent(1.5, dim) < 1


def test_members_do_not_touch_each_other() -> None:
    z = scores_of(12)
    for normalizer in ALL:
        p = parameters_of(normalizer)
        whole = normalizer.rows(p, z, 1)
        for m in range(MEMBERS):
            part = slice(m, m + 1)
            alone = normalizer.rows({k: v[part] for k, v in p.items()}, z[..., part], 1)
            torch.testing.assert_close(alone, whole[..., part], atol=1e-12, rtol=1e-12)


@by_normalizer
def test_training_stays_on_the_device(normalizer: Normalizer, no_host: TorchDispatchMode) -> None:
    """Training steps on a pretended CUDA device: no tensor on the host."""
    with FakeTensorMode() as fake, torch.no_grad():

        def there(value: Tensor) -> Tensor:
            return torch.empty(value.shape, dtype=value.dtype, device="cuda")

        start = {k: there(v) for k, v in (parameters_of(normalizer) | {"scores": scores_of()}).items()}
        with no_host:
            trained = train(
                lambda p, _: normalizer.rows(p, p["scores"], 1).square().sum((0, 1)), start, steps=2, learning_rate=0.1
            )
        for value in (*trained.parameters.values(), trained.diverged):
            assert fake.is_our_fake(value)
            assert value.device.type == "cuda"
