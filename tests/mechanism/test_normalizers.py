"""Normalisers: traps of the package behind them, broken members, limits; `test_layer` has loops."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from entmax import entmax15, entmax_bisect, sparsemax
from scipy.optimize import minimize
from torch import Tensor

from ssa_theory.mechanism import Form
from ssa_theory.mechanism.normalizers import (
    LEAST_ALPHA,
    Entmax,
    Entmax15,
    EntropyAdaptive,
    Normalizer,
    Softmax,
    SoftmaxSink,
    Sparse,
    Sparsemax,
    TopK,
)
from ssa_theory.mechanism.rectified import Rectified, ReLA, Softpick, Threshold, rectified_output
from tests.mechanism.oracle import row

KEYS, MEMBERS = 7, 3
SPARSE = [Sparsemax(), Entmax15(), Entmax(), TopK(3), Threshold(), ReLA(), Softpick()]
ALL = [Softmax(), EntropyAdaptive(), SoftmaxSink(), SoftmaxSink(learned=False), *SPARSE]
by_normalizer = pytest.mark.parametrize("normalizer", ALL, ids=repr)
by_sparse = pytest.mark.parametrize("normalizer", SPARSE, ids=repr)


def parameters_of(normalizer: Normalizer, members: int = MEMBERS) -> dict[str, Tensor]:
    start = normalizer.initial("key", Form(1), [np.random.default_rng(0)] * members)
    return {k: v + 0.3 * torch.arange(1, members + 1) for k, v in start.items()}


def scores_of(seed: int = 0, scale: float = 1.5) -> Tensor:
    drawn = np.random.default_rng(seed).standard_normal((4, KEYS, MEMBERS))
    return torch.from_numpy(scale * drawn)


def test_every_kind_is_here() -> None:
    found, classes = set(), [Normalizer]
    while classes:
        kinds = classes.pop().__subclasses__()
        classes += kinds
        # Other tests load mechanisms from files, with normalisers of their own.
        found |= {kind for kind in kinds if kind.__module__.startswith("ssa_theory.")}
    assert found - {Sparse, Rectified} == {type(n) for n in ALL}


@by_normalizer
def test_rows_are_weights_with_the_sum_and_the_zeros_that_they_say(normalizer: Normalizer) -> None:
    scores, parameters = scores_of(), parameters_of(normalizer)
    scores[0, :, 0] = -scores[0, :, 0].abs() - 0.1  # a row without a positive score
    rows = normalizer.rows(parameters, scores, 1)
    for q in range(4):
        for m in range(MEMBERS):
            own = {k: float(v[m]) for k, v in parameters.items()}
            wanted = row(normalizer, own, scores[q, :, m].numpy())
            np.testing.assert_allclose(rows[q, :, m], wanted, atol=1e-12)
    assert (rows >= 0).all()
    total = torch.ones(4, MEMBERS, dtype=torch.float64)
    if isinstance(normalizer, Rectified):
        total[0, 0] = 0.0
    if isinstance(normalizer, SoftmaxSink | Softpick):
        assert (rows.sum(1) < 0.999).all()
    else:
        torch.testing.assert_close(rows.sum(1), total, rtol=1e-12, atol=0)
    zeros = (rows == 0).double().mean().item()
    assert (0.1 < zeros < 0.9) if isinstance(normalizer, Sparse) else (zeros == 0)
    prediction = normalizer.prediction(parameters, scores, 1)
    torch.testing.assert_close(prediction.sum(1), torch.ones_like(total), rtol=1e-12, atol=0)
    if normalizer.exponential:
        soft = normalizer.logits(scores, 1).softmax(1)
        torch.testing.assert_close(prediction, soft, rtol=1e-12, atol=0)
        torch.testing.assert_close(rows / rows.sum(1, keepdim=True), soft)
    if total[0, 0] == 0:
        assert (prediction[0, :, 0] == 1 / KEYS).all()


@by_normalizer
def test_a_shift_of_all_scores_is_felt_only_where_zero_means_something(
    normalizer: Normalizer,
) -> None:
    z, parameters = scores_of(8), parameters_of(normalizer)
    moved = normalizer.rows(parameters, z + 0.7, 1) - normalizer.rows(parameters, z, 1)
    felt = isinstance(normalizer, SoftmaxSink | Rectified)
    assert moved.abs().max() > 0.01 if felt else moved.abs().max() < 1e-12


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
    nearest = Sparsemax().rows({}, torch.from_numpy(z)[:, None], 0)[:, 0]
    assert 1 < (nearest > 0).sum() < KEYS
    np.testing.assert_allclose(nearest, found, atol=1e-6)


def test_learned_alpha_spans_softmax_to_sparsemax() -> None:
    """alpha = 2 is sparsemax, 1.5 is 1.5-entmax; softmax is approached like alpha - 1."""
    entmax, z = Entmax(), scores_of()
    start = entmax.initial("key", Form(1), [np.random.default_rng(0)] * 2)
    assert entmax.alpha(start).tolist() == pytest.approx([1.505, 1.505])
    sigmoid = (1.5 - LEAST_ALPHA) / (2 - LEAST_ALPHA)
    at = {2.0: 60.0, 1.5: math.log(sigmoid / (1 - sigmoid)), LEAST_ALPHA: -1e4}
    rows = {}
    for alpha, score in at.items():
        parameters = {"alpha_score": torch.full((MEMBERS,), score, dtype=torch.float64)}
        assert entmax.alpha(parameters).tolist() == pytest.approx([alpha] * MEMBERS)
        rows[alpha] = entmax.rows(parameters, z, 1)
    torch.testing.assert_close(rows[2.0], Sparsemax().rows({}, z, 1))
    torch.testing.assert_close(rows[1.5], Entmax15().rows({}, z, 1), atol=1e-7, rtol=1e-7)
    soft = z.softmax(1)
    distances = [
        (entmax_bisect(z, a, dim=1, n_iter=60) - soft).abs().max().item()
        for a in (1.04, 1.02, LEAST_ALPHA)
    ]
    np.testing.assert_allclose(np.array(distances[:2]) / distances[1:], 2, rtol=0.1)
    assert (rows[LEAST_ALPHA] - soft).abs().max().item() == pytest.approx(distances[2], rel=1e-4)
    assert distances[2] < 0.02 < (soft - 1 / KEYS).abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_alpha_never_reaches_one_where_the_package_is_uniform_without_a_word(
    dtype: torch.dtype,
) -> None:
    z = torch.tensor([[3.0], [0.0], [-1.0]], dtype=dtype)
    assert entmax_bisect(z, 1.0, dim=0).flatten().tolist() == pytest.approx([1 / 3] * 3)  # the trap
    for score in (-1e4, -50.0):
        leaf = torch.tensor([score], dtype=dtype, requires_grad=True)
        assert Entmax().alpha({"alpha_score": leaf}).item() >= 1.0099
        rows = Entmax().rows({"alpha_score": leaf}, z, 0)
        torch.testing.assert_close(rows, z.softmax(0), atol=0.02, rtol=0)
        assert torch.isfinite(torch.autograd.grad(rows[0].sum(), leaf)[0])


@by_normalizer
def test_gradcheck_in_the_scores_away_from_kinks(normalizer: Normalizer) -> None:
    scores, probe = scores_of(1).requires_grad_(), scores_of(2)
    leaves = {k: v.requires_grad_() for k, v in parameters_of(normalizer).items()}

    def function(z: Tensor, *values: Tensor) -> Tensor:
        own = dict(zip(leaves, values, strict=True))
        return (normalizer.rows(own, z, 1) * probe).sum((0, 1))

    assert torch.autograd.gradcheck(function, (scores, *leaves.values()), atol=1e-5)
    inputs = (scores, *leaves.values())
    gradients = torch.autograd.grad(function(*inputs).sum(), inputs)
    assert all((g.reshape(-1, MEMBERS) != 0).any(0).all() for g in gradients)


@by_normalizer
def test_rows_with_one_key_or_none_have_no_gradient(normalizer: Normalizer) -> None:
    """What the experiment counts as a dead row."""
    scores = torch.tensor([9.0, -1.0, -2.0, -3.0], dtype=torch.float64)[:, None].requires_grad_()
    single = TopK(1) if isinstance(normalizer, TopK) else normalizer
    rows = single.rows(parameters_of(single, 1), scores, 0)
    (gradient,) = torch.autograd.grad((rows * torch.arange(1.0, 5.0)[:, None]).sum(), scores)
    if isinstance(normalizer, Sparse) and not isinstance(normalizer, Softpick):
        assert rows.flatten().tolist() == [1, 0, 0, 0]
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-15, rtol=0)
    else:
        assert (gradient != 0).all()


@by_normalizer
def test_masked_keys_get_nothing_and_equal_absent_ones(normalizer: Normalizer) -> None:
    z, parameters = scores_of(3), parameters_of(normalizer)
    masked = z.clone()
    masked[:, [1, 4]] = -torch.inf
    masked.requires_grad_()
    rows, rest = normalizer.rows(parameters, masked, 1), [0, 2, 3, 5, 6]
    assert (rows[:, [1, 4]] == 0).all()
    absent = normalizer.rows(parameters, z[:, rest], 1)
    torch.testing.assert_close(rows[:, rest], absent, atol=1e-7, rtol=1e-7)
    (gradient,) = torch.autograd.grad((rows * z).sum(), masked)
    assert torch.isfinite(gradient).all()
    assert (gradient[:, [1, 4]] == 0).all()


@by_normalizer
def test_rows_without_a_finite_score_hurt_no_other(normalizer: Normalizer) -> None:
    """NaN or +inf gives NaN, all -inf a zero row (softmax: NaN); the package stops the program."""
    with pytest.raises(RuntimeError, match="out of bounds"):
        sparsemax(torch.full((2, 3), -torch.inf), dim=1)
    z, parameters = scores_of(4), parameters_of(normalizer)
    broken, bad = z.clone(), torch.zeros(4, MEMBERS, dtype=torch.bool)
    broken[0, :, 0] = -torch.inf
    broken[1, :, 1] = torch.nan
    broken[2, 3, 2] = torch.nan
    broken[3, 5, 0] = torch.inf
    for query, member in ((1, 1), (2, 2), (3, 0)):
        bad[query, member] = True
    broken.requires_grad_()
    rows, wanted = normalizer.rows(parameters, broken, 1), normalizer.rows(parameters, z, 1)
    assert rows.movedim(1, -1)[bad].isnan().all()
    masked = rows[0, :, 0]
    blind = isinstance(normalizer, Softmax | EntropyAdaptive)
    assert masked.isnan().all() if blind else (masked == 0).all()
    fine = ~bad
    fine[0, 0] = False
    fine = fine.unsqueeze(1).expand_as(rows)
    assert torch.equal(rows[fine], wanted[fine])
    (gradient,) = torch.autograd.grad(rows[fine].square().sum(), broken)
    assert torch.isfinite(gradient[fine]).all()


@by_sparse
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e4])
def test_extreme_scales_stay_distributions(
    normalizer: Normalizer, dtype: torch.dtype, scale: float
) -> None:
    z = (scale * scores_of(6)).to(dtype).requires_grad_()
    rows = normalizer.rows({k: v.to(dtype) for k, v in parameters_of(normalizer).items()}, z, 1)
    total = torch.ones(4, MEMBERS, dtype=dtype)
    if isinstance(normalizer, Softpick) and scale < 1e4:  # negative scores take the rest
        assert ((rows.sum(1) < 0.999) == (z < 0).any(1)).all()
    else:
        torch.testing.assert_close(rows.sum(1), total, atol=1e-5, rtol=0)
    (gradient,) = torch.autograd.grad((rows * rows.detach().roll(1, 1)).sum(), z)
    assert torch.isfinite(gradient).all()
    if scale == 1e4 and normalizer != ReLA():
        assert (rows.amax(1) > 0.999).all()


@by_sparse
def test_bad_requests_are_refused(normalizer: Normalizer) -> None:
    parameters = parameters_of(normalizer)
    for kind in (torch.bfloat16, torch.float16):
        with pytest.raises(ValueError, match=f"need float32 or float64, got {kind}: convert"):
            normalizer.rows(parameters, scores_of().to(kind), 1)
    for dim in (2, -1):
        with pytest.raises(ValueError, match=f"over the model axis, got dim={dim}: name the axis"):
            normalizer.rows(parameters, scores_of(), dim)


@by_normalizer
def test_the_axis_counts_from_either_end(normalizer: Normalizer) -> None:
    z, parameters = scores_of(), parameters_of(normalizer)
    rows = normalizer.rows(parameters, z, 1)
    assert torch.equal(rows, normalizer.rows(parameters, z, -2))
    first = normalizer.rows(parameters, z.transpose(0, 1).contiguous(), 0)
    torch.testing.assert_close(first.transpose(0, 1), rows, rtol=1e-12, atol=1e-12)


PACKAGE: dict[Normalizer, Callable[..., Tensor]] = {
    Sparsemax(): lambda z, _: sparsemax(z, dim=1),
    Entmax15(): lambda z, _: entmax15(z, dim=1),
    Entmax(): lambda z, own: entmax_bisect(z, Entmax().alpha(own), dim=1, n_iter=50),
}


@pytest.mark.parametrize("normalizer", PACKAGE, ids=repr)
def test_rows_and_gradients_are_the_packages_bit_for_bit(normalizer: Normalizer) -> None:
    """Although the compiler cannot trace the package's."""
    probe, found = scores_of(9), []
    for rows_of in (lambda z, own: normalizer.rows(own, z, 1), PACKAGE[normalizer]):
        z, own = scores_of(10), parameters_of(normalizer)
        z[:, 2] = -torch.inf
        leaves = [v.requires_grad_() for v in (z, *own.values())]
        rows = rows_of(z, own)
        found.append((rows, *torch.autograd.grad((rows * probe).sum(), leaves)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert all((gradient != 0).any() for gradient in found[0][1:])


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="top-k keeps at least 1 key, got top=0: raise top"):
        TopK(0)


def test_top_k_keeps_exactly_k_even_of_equal_scores() -> None:
    rows = TopK(2).rows({}, torch.zeros(5, 1, dtype=torch.float64), 0)
    assert sorted(rows.flatten().tolist()) == [0, 0, 0, 0.5, 0.5]


@pytest.mark.parametrize("factor", [1e-3, 0.5, 7.0, 1e3])
def test_rela_does_not_feel_a_temperature(factor: float) -> None:
    """Rows that sum to one and the RMS-normalised output alike."""
    z, rela = scores_of(8), ReLA()
    plain, scaled = rela.rows({}, z, 1), rela.rows({}, factor * z, 1)
    torch.testing.assert_close(scaled, plain, rtol=1e-10, atol=1e-12)
    for other in (Softmax(), Sparsemax(), TopK(3), Threshold()):
        assert (other.rows({}, factor * z, 1) - other.rows({}, z, 1)).abs().max() > 0.05
    scores, values = z[..., 0], scores_of(9)[0]
    outputs = [rectified_output(f * scores, values, 0.0) for f in (factor, 1.0)]
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-12)
