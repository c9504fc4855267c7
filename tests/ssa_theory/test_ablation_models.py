"""The ablation layer: its reductions to the other models, a loop over tokens, counts, gradients, devices."""

import math

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from ssa_theory import DenoisingAttention, Queries, SingleLayerAttention, Tokens, cross_entropy, train
from ssa_theory.ablation_models import ROLES, AblationLayer, Terms
from ssa_theory.denoising_models import squared_error

DIM, LENGTH, MEMBERS = 3, 4, 2
TERMS = [
    Terms("constant"),
    Terms("feature", position=True),
    Terms("shared"),
    Terms("mlp", position=True),
    Terms(None, position=True),
]
LAYERS = [
    AblationLayer(),
    AblationLayer(query=Terms("mlp", position=True), value=Terms("mlp")),
    AblationLayer(query=Terms("constant"), key=Terms("mlp", position=True)),
    AblationLayer(key=Terms("constant"), value=Terms(None, position=True)),
    AblationLayer(**{role: Terms("shared", position=True) for role in ROLES}),
]
ROWS = [AblationLayer(**{role: terms}, value_map=False) for role in ("query", "key") for terms in TERMS]


def generators() -> list[np.random.Generator]:
    return [np.random.default_rng(i) for i in range(MEMBERS)]


def perturbed(layer: AblationLayer, dim: int = DIM) -> dict[str, torch.Tensor]:
    """Parameters away from the start, where every part of the layer acts."""
    noise = torch.Generator().manual_seed(0)
    initial = layer.initial_parameters(dim, generators())
    return {k: v + 0.5 * torch.randn(v.shape, generator=noise, dtype=v.dtype) for k, v in sorted(initial.items())}


def inputs(*shape: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, MEMBERS, generator=generator, dtype=torch.float64)


def gelu(z: np.ndarray) -> np.ndarray:
    return np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in z])


def tau_by_loop(layer: AblationLayer, role: str, p: dict[str, np.ndarray], x: np.ndarray, n: int, phi: float) -> float:
    """tau of one token of one member, straight from the formulas."""
    terms = getattr(layer, role)
    if terms is None:
        return 1.0
    score = 0.0
    if terms.token == "constant":
        score = p[f"{role}_offset"]
    elif terms.token == "feature":
        score = p[f"{role}_slope"] * phi + p[f"{role}_offset"]
    elif terms.token == "shared":
        own = {"query": x @ p["weight"], "key": p["weight"] @ x, "value": x @ p.get("value", p["weight"])}
        score = p[f"{role}_vector"] @ gelu(own[role])
    elif terms.token == "mlp":
        hidden = gelu(x @ p[f"{role}_hidden"] + p[f"{role}_bias"])
        score = p[f"{role}_vector"] @ hidden + p[f"{role}_offset"]
    position = math.log(n) / (1 + math.exp(-p[f"{role}_alpha"])) if terms.position else 0.0
    return 1 + math.tanh(score) + position


@pytest.mark.parametrize("layer", ROWS, ids=repr)
def test_logits_are_the_loop_over_pairs(layer):
    tokens, feature = inputs(5, DIM), inputs(5, seed=2)
    parameters = perturbed(layer)
    logits = layer.logits(parameters, tokens, feature)
    assert logits.shape == (5, 5, MEMBERS)
    for m in range(MEMBERS):
        p, x, phi = {k: v[..., m].numpy() for k, v in parameters.items()}, tokens[..., m].numpy(), feature[:, m]
        query = [tau_by_loop(layer, "query", p, x[i], 5, float(phi[i])) for i in range(5)]
        key = [tau_by_loop(layer, "key", p, x[j], 5, float(phi[j])) for j in range(5)]
        expected = [[query[i] * key[j] * (x[i] @ p["weight"] @ x[j]) for j in range(5)] for i in range(5)]
        assert_close(logits[..., m], torch.tensor(expected))
        assert np.abs(np.outer(query, key) - 1).max() > 0.1


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_output_is_the_loop_over_tokens(layer):
    tokens = inputs(3, LENGTH, DIM)
    parameters = perturbed(layer)
    output = layer.output(parameters, tokens)
    for m in range(MEMBERS):
        p = {k: v[..., m].numpy() for k, v in parameters.items()}
        for s in range(3):
            x = tokens[s, ..., m].numpy()
            tau = {r: [tau_by_loop(layer, r, p, t, LENGTH, 0.0) for t in x] for r in ROLES}
            logits = [
                tau["query"][-1] * k * (x[-1] @ p["weight"] @ t) / math.sqrt(DIM)
                for k, t in zip(tau["key"], x, strict=True)
            ]
            row = np.exp(logits) / np.exp(logits).sum()
            expected = sum(w * v * (t @ p["value"]) for w, v, t in zip(row, tau["value"], x, strict=True))
            assert_close(output[s, :, m], torch.from_numpy(expected))


@pytest.mark.parametrize("position", [False, True])
@pytest.mark.parametrize("variant", ["vanilla", "ssa"])
def test_without_values_it_is_the_single_layer(variant, position):
    terms = Terms("shared", position) if variant == "ssa" else None
    layer, model = AblationLayer(query=terms, value_map=False), SingleLayerAttention(variant, position)
    parameters = perturbed(layer)
    same = {k.removeprefix("query_"): v for k, v in parameters.items()}
    assert set(same) == set(model.initial_parameters(5, DIM, generators()))
    tokens = Tokens(inputs(5, DIM), torch.zeros(5, MEMBERS, dtype=torch.int64), 5)
    assert_close(layer.logits(parameters, tokens.embeddings), model.logits(same, tokens))
    start = layer.initial_parameters(DIM, generators())["weight"]
    assert torch.equal(start, model.initial_parameters(5, DIM, generators())["weight"])


@pytest.mark.parametrize(
    ("variant", "roles"),
    [
        ("vanilla", ()),
        ("query", ("query",)),
        ("key", ("key",)),
        ("value-additive", ("value",)),
        ("query-value", ("query", "value")),
    ],
)
def test_with_own_mlps_it_is_the_denoising_model_of_the_last_token(variant, roles):
    layer = AblationLayer(**{role: Terms("mlp", position=True) for role in roles})
    model = DenoisingAttention(variant, "last")
    parameters = perturbed(layer)
    # There the score map acts on the last token, W^T x_L . x_i, as here.
    same = {"score" if k == "weight" else k: v for k, v in parameters.items()}
    assert set(same) == set(model.initial_parameters(DIM, generators()))
    tokens = inputs(3, LENGTH, DIM)
    assert_close(layer.output(parameters, tokens), model.estimate(same, tokens))


@pytest.mark.parametrize("layer", [*LAYERS, *ROWS], ids=repr)
def test_every_layer_starts_at_vanilla_but_for_position_terms(layer):
    plain = AblationLayer(value_map=layer.value_map)
    start = layer.initial_parameters(DIM, generators())
    vanilla = plain.initial_parameters(DIM, generators())
    assert all(torch.equal(start[k], vanilla[k]) for k in vanilla)
    tokens = inputs(3, LENGTH, DIM)[0]
    for role in ROLES:
        terms = getattr(layer, role)
        tau = layer.inverse_temperature(role, start, tokens, LENGTH, inputs(LENGTH, seed=2))
        expected = 1 + 0.5 * math.log(LENGTH) if terms is not None and terms.position else 1.0
        assert_close(tau, torch.full((LENGTH, MEMBERS), expected, dtype=torch.float64))


def test_position_terms_of_query_and_key_are_the_same_thing():
    query, key = (AblationLayer(**{role: Terms(None, position=True)}) for role in ("query", "key"))
    parameters = perturbed(query)
    same = {k.replace("query", "key"): v for k, v in parameters.items()}
    tokens = inputs(3, LENGTH, DIM)
    assert_close(query.output(parameters, tokens), key.output(same, tokens))
    flat = {k: v * 0 - 30 if k == "query_alpha" else v for k, v in parameters.items()}
    assert (query.output(parameters, tokens) - query.output(flat, tokens)).abs().max() > 0.01


@pytest.mark.parametrize(
    ("terms", "count"),
    [
        (None, 0),
        (Terms("constant"), 1),
        (Terms(None, position=True), 1),
        (Terms("feature"), 2),
        (Terms("shared"), 8),
        (Terms("shared", position=True), 9),
        (Terms("mlp"), 8 * 16 + 16 + 16 + 1),
        (Terms("mlp", position=True), 8 * 16 + 16 + 16 + 2),
    ],
)
def test_added_parameters_are_counted_beyond_vanilla(terms, count):
    assert AblationLayer(query=terms).added_parameters(8) == count
    assert AblationLayer(query=terms, key=terms, value=terms).added_parameters(8) == 3 * count
    assert AblationLayer(key=terms, value_map=False).added_parameters(8) == count


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_gradients_and_independent_members(layer):
    tokens, parameters = inputs(2, LENGTH, DIM), perturbed(layer)
    leaves = {k: v.clone().requires_grad_() for k, v in parameters.items()}
    assert torch.autograd.gradcheck(
        lambda *values: layer.output(dict(zip(leaves, values, strict=True)), tokens), tuple(leaves.values())
    )
    both = layer.output(parameters, tokens)
    for m in range(MEMBERS):
        alone = layer.output({k: v[..., m : m + 1] for k, v in parameters.items()}, tokens[..., m : m + 1])
        assert_close(both[..., m : m + 1], alone)


@pytest.mark.usefixtures("unchecked")
def test_bad_layers_are_rejected():
    with pytest.raises(
        ValueError, match="unknown token term 'tied': choose one of constant, feature, shared, mlp, or None"
    ):
        Terms("tied")
    with pytest.raises(ValueError, match="a value temperature needs a value map"):
        AblationLayer(value=Terms(), value_map=False)
    layer = AblationLayer(query=Terms("feature"), value_map=False)
    with pytest.raises(ValueError, match="needs the feature of every token: pass feature"):
        layer.logits(perturbed(layer), inputs(5, DIM))


@pytest.mark.parametrize("layer", [*LAYERS, *ROWS], ids=repr)
def test_training_stays_on_the_device(layer, no_host):
    """The training loop on a pretended CUDA device: no tensor on the host, no value read back."""
    initial = layer.initial_parameters(8, [np.random.default_rng(0)])
    with FakeTensorMode() as fake, torch.no_grad():
        parameters = {k: torch.empty(v.shape, device="cuda") for k, v in initial.items()}
        batches = [(torch.empty(16, n, 8, 1, device="cuda"), torch.empty(16, 8, 1, device="cuda")) for n in (4, 12)]
        letters, feature = torch.empty(5, 8, 1, device="cuda"), torch.empty(5, 1, device="cuda")
        queries = Queries(torch.empty(5, 5, 1, device="cuda"), feature)

        def loss(p, batch):
            if layer.value_map:
                return squared_error(layer.output(p, batch[0]), batch[1])
            return cross_entropy(layer.logits(p, letters, feature), queries)

        with no_host:
            trained = train(loss, parameters, steps=2, learning_rate=0.1, batches=batches)
        assert len(trained.parameters) == len(parameters)
        for value in (*trained.parameters.values(), trained.diverged):
            assert fake.is_our_fake(value)
            assert value.device.type == "cuda"
