"""The denoising models: each against a loop over samples, gradients, and the trap of a saturated gate."""

import math

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from ssa_theory import train
from ssa_theory.denoising_models import DENOISING_VARIANTS, DenoisingAttention, squared_error

DIM, LENGTH, MEMBERS = 3, 4, 2
GATED = [v for v in DENOISING_VARIANTS if "value" in v]
QUERIES = ["readout", "last"]


def perturbed(model: DenoisingAttention, dim: int = DIM, seed: int = 0) -> dict[str, torch.Tensor]:
    """Parameters away from the start, where every part of the model acts."""
    parameters = model.initial_parameters(dim, [np.random.default_rng(seed + i) for i in range(MEMBERS)])
    noise = torch.Generator().manual_seed(seed)
    return {
        k: v + 0.5 * torch.randn(v.shape, generator=noise, dtype=torch.float64) for k, v in sorted(parameters.items())
    }


def inputs(samples: int = 5, dim: int = DIM, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, LENGTH, dim, MEMBERS, generator=generator, dtype=torch.float64)


def by_loop(model: DenoisingAttention, p: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """One member, one sample (length, dim), straight from the formulas."""

    def gelu(z: float) -> float:
        return z * 0.5 * (1 + math.erf(z / math.sqrt(2)))

    def f(role: str, token: np.ndarray | None) -> float:
        total = float(p[f"{role}_offset"])
        if token is not None:
            for j in range(p[f"{role}_hidden"].shape[1]):
                z = sum(p[f"{role}_hidden"][i, j] * token[i] for i in range(len(token))) + p[f"{role}_bias"][j]
                total += p[f"{role}_vector"][j] * gelu(z)
        return total

    def additive(role: str, token: np.ndarray | None) -> float:
        return 1 + math.tanh(f(role, token)) + math.log(len(x)) / (1 + math.exp(-p[f"{role}_alpha"]))

    query = p["score"] if model.query == "readout" else p["score"].T @ x[-1]
    logits, gates = [], []
    for token in x:
        logit = query @ token / math.sqrt(x.shape[1])
        if model.variant == "key-bias":
            logit += p["key_shift"]
        if model.variant.startswith("query"):
            logit *= additive("query", x[-1] if model.query == "last" else None)
        if model.variant.startswith("key"):
            logit *= additive("key", token)
        if model.variant == "sink":
            logit += f("sink", token)
        logits.append(logit)
        if model.variant in ("value-additive", "query-value"):
            gates.append(additive("value", token))
        elif model.variant == "value-tanh":
            gates.append(1 + math.tanh(f("value", token)))
        elif model.variant == "value-sigmoid":
            gates.append(2 / (1 + math.exp(-f("value", token))))
        else:
            gates.append(1.0)
    total = sum(math.exp(z) for z in logits) + (math.exp(p["sink"]) if model.variant == "sink" else 0)
    mixed = sum(math.exp(z) / total * g * token for z, g, token in zip(logits, gates, x, strict=True))
    return mixed @ p["value"]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("variant", DENOISING_VARIANTS)
def test_model_is_the_loop_over_samples(variant, query):
    model, x = DenoisingAttention(variant, query), inputs()
    parameters = perturbed(model)
    estimate = model.estimate(parameters, x)
    for m in range(MEMBERS):
        p = {k: v[..., m].numpy() for k, v in parameters.items()}
        for s in range(len(x)):
            assert_close(estimate[s, :, m], torch.from_numpy(by_loop(model, p, x[s, ..., m].numpy())))


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("variant", DENOISING_VARIANTS)
def test_gradients(variant, query):
    model, x = DenoisingAttention(variant, query), inputs(2)
    parameters = {k: v.requires_grad_() for k, v in perturbed(model).items()}
    names = list(parameters)
    assert torch.autograd.gradcheck(
        lambda *leaves: model.estimate(dict(zip(names, leaves, strict=True)), x), tuple(parameters.values())
    )


@pytest.mark.parametrize("variant", DENOISING_VARIANTS)
def test_first_training_step_follows_the_gradient_of_every_parameter(variant):
    """Adam's first step is the step size against the sign of each gradient, whatever the gradient's memory layout."""
    model, x = DenoisingAttention(variant), inputs(200, dim=8)  # large enough for batched products
    start = perturbed(model, dim=8)
    target = inputs(200, dim=8, seed=2)[:, 0]

    def loss(parameters, batch):
        return squared_error(model.estimate(parameters, x), target)

    leaves = {k: v.clone().requires_grad_() for k, v in start.items()}
    gradients = torch.autograd.grad(loss(leaves, None).sum(), list(leaves.values()))
    trained = train(loss, start, steps=1, learning_rate=0.01)
    for (name, before), gradient in zip(start.items(), gradients, strict=True):
        clear = gradient.abs() > 1e-5
        assert clear.any(), name
        step = trained.parameters[name] - before
        assert_close(step[clear], -0.01 * gradient.sign()[clear], rtol=1e-2, atol=0.0, msg=name)


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("variant", DENOISING_VARIANTS)
def test_members_are_independent_and_equal_models_alone(variant, query):
    model, x = DenoisingAttention(variant, query), inputs()
    parameters = perturbed(model)
    both = model.estimate(parameters, x)
    for m in range(MEMBERS):
        assert_close(
            both[..., m : m + 1],
            model.estimate({k: v[..., m : m + 1] for k, v in parameters.items()}, x[..., m : m + 1]),
        )
    assert (both[..., 0] != both[..., 1]).any()


@pytest.mark.parametrize("query", QUERIES)
def test_all_variants_start_from_the_same_score_and_the_same_attention(query):
    generators = lambda: [np.random.default_rng(i) for i in range(MEMBERS)]  # noqa: E731
    x = inputs()
    start = {v: DenoisingAttention(v, query).initial_parameters(DIM, generators()) for v in DENOISING_VARIANTS}
    vanilla = DenoisingAttention("vanilla", query).estimate(start["vanilla"], x)
    for variant in DENOISING_VARIANTS:
        assert (start[variant]["score"] == start["vanilla"]["score"]).all()
        estimate = DenoisingAttention(variant, query).estimate(start[variant], x)
        if variant in ("value-tanh", "value-sigmoid"):
            assert_close(estimate, vanilla)
        if variant == "value-additive":
            assert_close(estimate, (1 + math.log(LENGTH) / 2) * vanilla)


@pytest.mark.parametrize("variant", GATED)
def test_gate_stays_within_its_bounds_and_saturation_is_counted(variant):
    model = DenoisingAttention(variant)
    parameters = perturbed(model)
    tokens = inputs(400)
    parameters["value_vector"] *= 0
    for offset, shares in ((0.0, (0, 0)), (12.0, (0, 1)), (-12.0, (1, 0))):
        parameters["value_offset"] = torch.full((MEMBERS,), offset, dtype=torch.float64)
        gate, floor = model.value_gate(parameters, tokens), model.gate_floor(parameters, LENGTH)
        assert (gate >= floor).all()
        assert (gate <= floor + 2).all()
        assert_close(gate, floor + 1 + torch.full_like(gate, np.sign(offset)), rtol=1e-4, atol=1e-4)
        saturation = model.saturation(parameters, tokens)
        assert_close(saturation, torch.tensor(shares, dtype=torch.float64)[:, None].expand(2, MEMBERS))
    if variant in ("value-additive", "query-value"):
        assert_close(floor, torch.sigmoid(parameters["value_alpha"]) * math.log(LENGTH))
    else:
        assert (floor == 0).all()


def test_no_gate_no_saturation():
    for variant in ("vanilla", "sink", "key"):
        model = DenoisingAttention(variant)
        for call in (model.value_gate, model.saturation):
            with pytest.raises(ValueError, match=f"variant {variant} has no value gate: choose one of value-"):
                call(perturbed(model), inputs())


@pytest.mark.usefixtures("unchecked")
def test_bad_names_are_rejected():
    with pytest.raises(ValueError, match="unknown variant 'gated': choose one of vanilla, value-additive"):
        DenoisingAttention("gated")
    with pytest.raises(ValueError, match="unknown query 'first': choose readout or last"):
        DenoisingAttention("vanilla", "first")


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("variant", DENOISING_VARIANTS)
def test_training_stays_on_the_device(variant, query, no_host):
    """The training loop on a pretended CUDA device: no tensor on the host, no value read back."""
    model = DenoisingAttention(variant, query)
    initial = model.initial_parameters(8, [np.random.default_rng(0)])
    with FakeTensorMode() as fake, torch.no_grad():
        parameters = {k: torch.empty(v.shape, device="cuda") for k, v in initial.items()}
        tokens, target = torch.empty(64, 10, 8, 1, device="cuda"), torch.empty(64, 8, 1, device="cuda")
        with no_host:
            trained = train(
                lambda p, batch: squared_error(model.estimate(p, batch[0]), batch[1]),
                parameters,
                steps=2,
                learning_rate=0.1,
                batches=[(tokens, target)] * 2,
                measure=lambda p: {"gate": model.value_gate(p, tokens)} if model.gated else {},
                record=[0, 2],
            )
        assert len(trained.parameters) == len(parameters)
        for value in (*trained.parameters.values(), *trained.history.values(), trained.diverged):
            assert fake.is_our_fake(value)
            assert value.device.type == "cuda"


def denoising_batches(steps: int, batch: int):
    """A small denoising problem: d = 4, 6 tokens, half of them relevant, fillers three times as far."""
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        y = torch.randn(batch, 1, 4, 2, generator=generator)
        relevant = torch.rand(batch, 6, 1, 2, generator=generator) < 0.5
        noise = torch.randn(batch, 6, 4, 2, generator=generator)
        yield torch.where(relevant, y + 0.3 * noise, 3 * noise), y[:, 0]


@pytest.mark.parametrize("value_scale", [1.0, 1e-3])
def test_small_value_maps_saturate_the_gate(value_scale):
    """The trap: from a small W_v the gate runs to its upper bound and stays; from the identity it closes on fillers."""
    model = DenoisingAttention("value-tanh")
    start = model.initial_parameters(4, [np.random.default_rng(i) for i in range(2)], value_scale)
    start = {k: v.float() for k, v in start.items()}

    def loss(parameters, batch):
        return squared_error(model.estimate(parameters, batch[0]), batch[1])

    rate = 0.05 if value_scale == 1.0 else 0.5
    trained = train(loss, start, steps=120, learning_rate=rate, batches=denoising_batches(120, 128))
    tokens, target = next(denoising_batches(1, 2000))
    saturated = model.saturation(trained.parameters, tokens)
    error = squared_error(model.estimate(trained.parameters, tokens), target)
    assert not trained.diverged.any()
    if value_scale == 1.0:
        assert (saturated[1] < 0.2).all()
        assert (error < 0.45).all()
    else:
        assert (saturated.sum(0) > 0.9).all()


def test_models_start_as_small_as_they_say() -> None:
    """score has standard deviation 0.1 / sqrt(d) and key_vector 0.1, each within 6 standard errors of a Gaussian sample's."""
    dim, members = 4, 3000
    drawn = DenoisingAttention("key-bias", "readout").initial_parameters(
        dim, [np.random.default_rng([5, i]) for i in range(members)]
    )
    for name, scale in (("score", 0.1 / math.sqrt(dim)), ("key_vector", 0.1)):
        count = drawn[name].numel()
        assert count >= dim * members
        assert abs(float(drawn[name].std()) / scale - 1) < 6 / math.sqrt(2 * count)
        assert abs(float(drawn[name].mean())) < 6 * scale / math.sqrt(count)


def test_a_sigmoid_gate_is_still_where_its_slope_is_below_a_thousandth() -> None:
    """tau = 2 sigmoid(f) has the slope 2 s (1 - s): scores on both sides of where that is 0.001 are told apart."""
    edge = math.acosh(1 / 0.001 - 1)  # 2 s (1 - s) = 1 / (1 + cosh f)
    model = DenoisingAttention("value-sigmoid", "readout")
    parameters = model.initial_parameters(DIM, [np.random.default_rng(0)])
    for sign, bound in ((-1, 0), (1, 1)):
        for factor, share in ((0.99, 0.0), (1.01, 1.0)):
            # The offset alone decides the score at the start, when the last layer is zero.
            shifted = parameters | {"value_offset": torch.full((1,), sign * factor * edge, dtype=torch.float64)}
            found = model.saturation(shifted, torch.zeros(2, 3, DIM, 1, dtype=torch.float64))
            assert found[bound].item() == share
            assert found[1 - bound].item() == 0.0
