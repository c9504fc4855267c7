"""The retrieval models: formulas against loops, the Bayes predictor among them, gradients, members apart, no host in training."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ssa_theory import Stream, member_generator, train
from ssa_theory.retrieval_models import RETRIEVAL_VARIANTS, RetrievalAttention, RetrievalBatch, retrieval_loss

QUERIES, KEYS, DIM, MEMBERS = 6, 5, 3, 4


def random_batch(seed: int = 0, dtype: torch.dtype = torch.float64) -> RetrievalBatch:
    rng = np.random.default_rng(seed)
    keys = rng.standard_normal((QUERIES, KEYS, DIM, MEMBERS))
    keys /= np.linalg.norm(keys, axis=2, keepdims=True)
    query = rng.standard_normal((QUERIES, DIM, MEMBERS))
    noise = rng.choice([0.1, 0.4, 1.7], (QUERIES, MEMBERS))
    target = torch.from_numpy(rng.integers(KEYS, size=(QUERIES, MEMBERS)))
    return RetrievalBatch(*(torch.from_numpy(a).to(dtype) for a in (keys, query, noise)), target)


def random_parameters(model: RetrievalAttention, seed: int = 1) -> dict[str, Tensor]:
    """Parameters that are all away from their start, so that every term takes part."""
    rng = np.random.default_rng(seed)
    start = model.initial_parameters(DIM, [np.random.default_rng(i) for i in range(MEMBERS)])
    return {k: torch.from_numpy(rng.standard_normal(v.shape)) for k, v in start.items()}


MODELS = [RetrievalAttention(v) for v in RETRIEVAL_VARIANTS]
by_variant = pytest.mark.parametrize("model", MODELS, ids=RETRIEVAL_VARIANTS)


@by_variant
def test_logits_and_temperatures_against_a_loop(model: RetrievalAttention) -> None:
    batch, parameters = random_batch(), random_parameters(model)
    logits = model.logits(parameters, batch).numpy()
    effective = model.effective_inverse_temperature(parameters, batch.noise).numpy()
    p = {k: v.numpy() for k, v in parameters.items()}
    for m in range(MEMBERS):
        weight = p["weight"][:, :, m]
        for q in range(QUERIES):
            log_s = math.log(batch.noise[q, m])
            f = 0.0 if model.variant == "vanilla" else p["slope"][m] * log_s + p["offset"][m]
            tau = {"vanilla": 1.0, "ssa-tanh": 1 + math.tanh(f), "ssa-exp": math.exp(f)}[model.variant]
            token = np.append(batch.query[q, :, m].numpy(), log_s)
            wanted = tau * batch.keys[q, :, :, m].numpy() @ (weight.T @ token)
            np.testing.assert_allclose(logits[q, :, m], wanted, rtol=1e-10, atol=1e-12)
            assert effective[q, m] == pytest.approx(tau * np.trace(weight[:DIM]) / DIM)


def test_loss_is_the_mean_negative_log_likelihood() -> None:
    batch, model = random_batch(), MODELS[2]
    logits = model.logits(random_parameters(model), batch)
    loss = retrieval_loss(logits, batch.target)
    for m in range(MEMBERS):
        p = [logits[q, :, m].softmax(0)[batch.target[q, m]].item() for q in range(QUERIES)]
        assert loss[m].item() == pytest.approx(-np.mean(np.log(p)))


def test_exp_contains_the_bayes_predictor_and_tanh_approaches_it() -> None:
    """W = c I, f = -2 log s - log c gives 1 / s^2 exactly; 1 + tanh f does as the scale of W grows without bound."""
    batch = random_batch()
    eye = torch.cat([torch.eye(DIM), torch.zeros(1, DIM)]).double().unsqueeze(-1).expand(-1, -1, MEMBERS)
    wanted = (batch.query.unsqueeze(1) * batch.keys).sum(2) / batch.noise.unsqueeze(1) ** 2
    c = 7.0
    offset = torch.full((MEMBERS,), -math.log(c)).double()
    slope = torch.full((MEMBERS,), -2.0).double()
    exact = {"weight": c * eye, "slope": slope, "offset": offset}
    torch.testing.assert_close(RetrievalAttention("ssa-exp").logits(exact, batch), wanted, rtol=1e-6, atol=1e-6)
    errors = []
    for c in (1e2, 1e4, 1e6):  # 1 + tanh f = 2 / (1 + exp(-2 f)), so f = -log s - log(2 c) / 2 gives c tau -> 1 / s^2
        close = {"weight": c * eye, "slope": slope / 2, "offset": torch.full_like(offset, -math.log(2 * c) / 2)}
        found = RetrievalAttention("ssa-tanh").effective_inverse_temperature(close, batch.noise)
        errors.append((found * batch.noise**2 - 1).abs().max().item())
    assert errors[0] > 0.3
    assert errors[2] < 1e-3
    assert errors[0] > errors[1] > errors[2]


@by_variant
def test_tau_starts_at_vanilla_and_w_is_shared(model: RetrievalAttention) -> None:
    generators = [member_generator(s, Stream.PARAMETER) for s in (3, 9)]
    start = model.initial_parameters(DIM, generators)
    noise = torch.tensor([[0.1, 2.0]]).double()
    assert (model.inverse_temperature(start, noise) == 1).all()
    alone = MODELS[0].initial_parameters(DIM, [member_generator(9, Stream.PARAMETER)])
    assert torch.equal(start["weight"][..., 1:], alone["weight"])
    assert start["weight"].shape == (DIM + 1, DIM, 2)
    assert start["weight"].std() > 0


@by_variant
def test_gradcheck(model: RetrievalAttention) -> None:
    batch = random_batch()
    leaves = {k: v.requires_grad_() for k, v in random_parameters(model).items()}

    def function(*values: Tensor) -> Tensor:
        return retrieval_loss(model.logits(dict(zip(leaves, values, strict=True)), batch), batch.target)

    assert torch.autograd.gradcheck(function, tuple(leaves.values()))


@by_variant
def test_members_do_not_touch_each_other(model: RetrievalAttention) -> None:
    """An ensemble of four equals four ensembles of one."""
    batches = [random_batch(seed) for seed in range(3)]
    start = random_parameters(model)

    def fit(parameters: dict[str, Tensor], data: list[RetrievalBatch]) -> dict[str, Tensor]:
        return train(
            lambda p, b: retrieval_loss(model.logits(p, b), b.target),
            parameters,
            steps=3,
            learning_rate=0.1,
            batches=data,
        ).parameters

    together = fit(start, batches)
    for m in range(MEMBERS):
        part = slice(m, m + 1)
        data = [RetrievalBatch(*(getattr(b, n)[..., part] for n in FIELDS)) for b in batches]
        for name, value in fit({k: v[..., part] for k, v in start.items()}, data).items():
            torch.testing.assert_close(value, together[name][..., part])
            assert not torch.equal(value, start[name][..., part])


FIELDS = ("keys", "query", "noise", "target")


@by_variant
@pytest.mark.parametrize(("dtype", "scale"), [(torch.float32, 1e4), (torch.float64, 1e4), (torch.float32, 1e-5)])
def test_extreme_scales_stay_finite(model: RetrievalAttention, dtype: torch.dtype, scale: float) -> None:
    batch = random_batch(dtype=dtype)
    leaves = {k: v.to(dtype) for k, v in random_parameters(model).items()}
    leaves["weight"] = leaves["weight"] * scale
    leaves = {k: v.requires_grad_() for k, v in leaves.items()}
    loss = retrieval_loss(model.logits(leaves, batch), batch.target)
    assert torch.isfinite(loss).all()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss.sum(), list(leaves.values())))


@pytest.mark.usefixtures("unchecked")
def test_unknown_variant() -> None:
    with pytest.raises(ValueError, match="unknown variant 'ssa': choose one of vanilla, ssa-tanh, ssa-exp"):
        RetrievalAttention("ssa")


@by_variant
def test_training_stays_on_the_device(model: RetrievalAttention, no_host: TorchDispatchMode) -> None:
    """Training steps on a pretended CUDA device: no tensor on the host."""
    here, initial = random_batch(), random_parameters(model)
    with FakeTensorMode() as fake, torch.no_grad():

        def there(value: Tensor) -> Tensor:
            return torch.empty(value.shape, dtype=value.dtype, device="cuda")

        batch = RetrievalBatch(*(there(getattr(here, n)) for n in FIELDS))
        parameters = {k: there(v) for k, v in initial.items()}
        with no_host:
            trained = train(
                lambda p, b: retrieval_loss(model.logits(p, b), b.target),
                parameters,
                steps=2,
                learning_rate=0.1,
                batches=[batch, batch],
                measure=lambda p: {"tau": model.effective_inverse_temperature(p, batch.noise)},
                record=[2],
            )
        results = [*trained.parameters.values(), trained.history["tau"], trained.diverged]
        assert len(results) == len(parameters) + 2
        for value in results:
            assert fake.is_our_fake(value)
            assert value.device.type == "cuda"


def test_initial_weights_have_the_scale_of_their_dimension() -> None:
    generators = [np.random.default_rng(i) for i in range(500)]
    weight = MODELS[0].initial_parameters(4, generators, init_scale=0.3)["weight"]
    # Of 10,000 normal draws the standard deviation is known to 0.7 %.
    assert float(weight.std()) == pytest.approx(0.3 / 2, rel=0.03)
