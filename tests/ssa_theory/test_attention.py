"""The SSA module: reductions to plain attention, every temperature against loops, gradients, parameter counts."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ssa_theory import (
    SelectiveSelfAttention,
    Temperature,
    attention_weights,
    inverse_temperature,
    weight_shared_score,
)

OFF = {"query": None, "key": None, "value": None}
PROJECTIONS = ("query", "key", "value")
TERMS = [
    Temperature("shared", position=False),
    Temperature("shared", position=True),
    Temperature("mlp", position=False, width=3),
    Temperature("mlp", position=True, width=5),
    Temperature("feature", position=False, features=2),
    Temperature("feature", position=True, features=2),
    Temperature(None, position=True),
    Temperature(None, position=False),
]
NAMES = [f"{t.token}{'+position' * t.position}" for t in TERMS]


def tokens(batch: int, length: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, length, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer(dim: int, heads: int = 1, seed: int = 1, **arguments: object) -> SelectiveSelfAttention:
    """A float64 layer whose parameters are all random, the temperatures' included."""
    made = SelectiveSelfAttention(dim, heads, **arguments).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.7, generator=generator)
    return made


def features_for(made: SelectiveSelfAttention, x: Tensor) -> Tensor | None:
    wanted = [t.temperature.features for t in made.temperatures.values() if t.temperature.token == "feature"]
    return tokens(*x.shape[:2], wanted[0], seed=2) if wanted else None


# Reductions


@pytest.mark.parametrize("token", ["shared", "mlp", "feature", None])
@pytest.mark.parametrize("name", PROJECTIONS)
def test_token_temperatures_start_at_vanilla(name: str, token: str | None) -> None:
    x = tokens(2, 6, 8).float()
    start = SelectiveSelfAttention(8, 2, **OFF | {name: Temperature(token, position=False)})
    vanilla = SelectiveSelfAttention(8, 2, **OFF)
    vanilla.load_state_dict({k: v for k, v in start.state_dict().items() if "temperatures" not in k})
    features = tokens(2, 6, 1).float() if token == "feature" else None
    assert torch.equal(start(x, features), vanilla(x))
    for tau in start.scaled_projections(x, features)[1].values():
        assert torch.equal(tau, torch.ones(2, 2, 6))


def test_position_temperatures_start_at_half_the_logarithm() -> None:
    """sigmoid(0) = 1/2: the position term is not off at the start, and only the first token is vanilla."""
    made = SelectiveSelfAttention(4, 2)
    taus = made.scaled_projections(tokens(1, 5, 4).float())[1]
    assert set(taus) == {"query", "value"}
    for tau in taus.values():
        torch.testing.assert_close(tau[0, 1], 1 + 0.5 * torch.arange(1.0, 6.0).log())


@pytest.mark.parametrize("term", TERMS, ids=NAMES)
def test_causal_output_is_that_of_the_truncated_input(term: Temperature) -> None:
    x = tokens(2, 6, 4)
    made = layer(4, 2, query=term, key=term, value=term)
    features = features_for(made, x)
    whole = made(x, features)
    for n in range(1, 7):
        part = made(x[:, :n], None if features is None else features[:, :n])
        torch.testing.assert_close(part, whole[:, :n], rtol=1e-12, atol=1e-12)
    changed = x.clone()
    changed[:, 3] += 1
    later = made(changed, features)
    torch.testing.assert_close(later[:, :3], whole[:, :3], rtol=0, atol=0)
    assert (later[:, 3:] - whole[:, 3:]).abs().amin((0, 2)).gt(1e-6).all()


def test_without_a_mask_the_order_of_tokens_does_not_matter() -> None:
    x = tokens(2, 6, 4)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    made = layer(4, 2, causal=False, key=Temperature("mlp"))
    torch.testing.assert_close(made(x[:, order]), made(x)[:, order], rtol=1e-10, atol=1e-12)
    causal = layer(4, 2, causal=True, key=Temperature("mlp"))
    assert (causal(x[:, order]) - causal(x)[:, order]).abs().max() > 0.01


# Formulas


def gelu(z: float) -> float:
    return z * 0.5 * (1 + math.erf(z / math.sqrt(2)))


def naive_tau(made: SelectiveSelfAttention, name: str, x: Tensor, features: Tensor | None, n: int, h: int) -> float:
    """tau of one token x (dim,) of head h that sees n keys, number by number."""
    if name not in made.temperatures:
        return 1.0
    part = made.temperatures[name]
    kind, width = part.temperature.token, made.dim // made.heads
    score = 0.0
    if kind == "shared":
        matrix = getattr(made, name).weight
        for i in range(width):
            projected = sum(float(matrix[h * width + i, j] * x[j]) for j in range(made.dim))
            score += float(part.vector[h, 0, i]) * gelu(projected)
    elif kind == "mlp":
        first, _, last = part.score
        score = float(last.bias[h])
        for i in range(part.temperature.width):
            hidden = float(first.bias[i]) + sum(float(first.weight[i, j] * x[j]) for j in range(made.dim))
            score += float(last.weight[h, i]) * gelu(hidden)
    elif kind == "feature":
        (last,) = part.score
        score = float(last.bias[h]) + sum(float(last.weight[h, i] * f) for i, f in enumerate(features))
    tau = 1 + math.tanh(score)
    if part.alpha is not None:
        tau += math.log(n) / (1 + math.exp(-float(part.alpha[h, 0])))
    return tau


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", PROJECTIONS)
@pytest.mark.parametrize("term", TERMS, ids=NAMES)
def test_every_temperature_against_a_loop_over_tokens(term: Temperature, name: str, causal: bool) -> None:
    batch, length, dim, heads = 2, 4, 6, 2
    width = dim // heads
    x = tokens(batch, length, dim)
    made = layer(dim, heads, causal=causal, **OFF | {name: term}).requires_grad_(False)
    features = features_for(made, x)
    rows = torch.zeros(batch, heads, length, length, dtype=torch.float64)
    out = torch.zeros(batch, length, dim, dtype=torch.float64)
    spread = []
    for b, h in itertools.product(range(batch), range(heads)):
        part = slice(h * width, (h + 1) * width)
        scaled = {}
        for projection in PROJECTIONS:
            matrix = getattr(made, projection).weight[part]
            taus = [
                naive_tau(made, projection, x[b, i], None if features is None else features[b, i], seen, h)
                for i, seen in enumerate(range(1, length + 1) if causal else [length] * length)
            ]
            scaled[projection] = [tau * (matrix @ x[b, i]) for i, tau in enumerate(taus)]
            if projection == name:
                spread.append(max(taus) - min(taus))
                measured = made.scaled_projections(x, features)[1][name][b, h]
                torch.testing.assert_close(measured, torch.tensor(taus, dtype=torch.float64))
        for i in range(length):
            visible = range(i + 1 if causal else length)
            weight = [math.exp(float(scaled["query"][i] @ scaled["key"][j]) / math.sqrt(width)) for j in visible]
            for j in visible:
                rows[b, h, i, j] = weight[j] / sum(weight)
                out[b, i, part] += rows[b, h, i, j] * scaled["value"][j]
    torch.testing.assert_close(made.attention(x, features), rows)
    torch.testing.assert_close(made(x, features), out @ made.output.weight.T)
    varies = term.token is not None or (term.position and causal)
    assert (min(spread) > 0.01) if varies else (max(spread) == 0)


def test_three_temperatures_of_different_kinds_together() -> None:
    """Each reads its own term: switching one off changes its own tau only."""
    x = tokens(2, 5, 6)
    kinds = {"query": Temperature("shared"), "key": Temperature("mlp"), "value": Temperature("feature", features=2)}
    made = layer(6, 3, **kinds)
    features = features_for(made, x)
    projections, taus = made.scaled_projections(x, features)
    for name in PROJECTIONS:
        alone = SelectiveSelfAttention(6, 3, **OFF | {name: kinds[name]}).double()
        alone.load_state_dict(
            {k: v for k, v in made.state_dict().items() if "temperatures" not in k or f".{name}." in k}
        )
        single, tau = alone.scaled_projections(x, features if name == "value" else None)
        assert torch.equal(tau[name], taus[name])
        assert torch.equal(single[name], projections[name])


def test_heads_have_temperatures_of_their_own() -> None:
    x = tokens(1, 5, 6)
    made = layer(6, 2)
    before = made.attention(x)
    with torch.no_grad():
        made.temperatures["query"].vector[1] += 1
    after = made.attention(x)
    assert torch.equal(after[:, 0], before[:, 0])
    assert (after[:, 1] - before[:, 1]).abs().max() > 1e-3


@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from([1, 2, 4]), st.booleans())
def test_attention_rows_are_distributions_and_agree_with_the_output(
    seed: int, length: int, heads: int, causal: bool
) -> None:
    x = tokens(2, length, 4, seed)
    made = layer(4, heads, seed, causal=causal)
    rows = made.attention(x)
    torch.testing.assert_close(rows.sum(-1), torch.ones(2, heads, length, dtype=torch.float64))
    assert (rows > 0).equal(torch.ones_like(rows).tril().bool() if causal else torch.ones_like(rows).bool())
    mixed = (rows @ made.scaled_projections(x)[0]["value"]).transpose(1, 2).flatten(2)
    torch.testing.assert_close(made(x), made.output(mixed))


def test_a_value_temperature_of_zero_removes_what_a_token_says() -> None:
    """tau_tok -> -1 where tanh saturates; without a position term tau_v is then exactly 0."""
    x = tokens(1, 5, 4)
    made = layer(4, 1, causal=False, query=None, value=Temperature("feature", position=False)).requires_grad_(False)
    made.query.weight.zero_()  # uniform attention: token 2 is attended to, and speaks through its value alone
    made.temperatures["value"].score[0].bias.zero_()
    features = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64).view(1, 5, 1)
    changed = x.clone()
    changed[0, 2] += 10
    for slope, value_tau in ((-100.0, 0.0), (-1.0, 1 + math.tanh(-1))):
        made.temperatures["value"].score[0].weight.fill_(slope)
        taus = made.scaled_projections(x, features)[1]["value"][0, 0]
        assert taus.tolist() == pytest.approx([1, 1, value_tau, 1, 1], abs=0)
        assert made.attention(x, features)[0, 0, :, 2].tolist() == pytest.approx([0.2] * 5)
        assert torch.equal(made(changed, features), made(x, features)) == (value_tau == 0)


def test_masking_comes_after_scaling() -> None:
    """Queries of zero: uniform over the visible keys, where masking first would give 0 * -inf = NaN."""
    key = tokens(1, 4, 3)
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    rows = attention_weights(torch.zeros(1, 4, 3, dtype=torch.float64), key, mask)
    for i in range(4):
        assert rows[0, i].tolist() == pytest.approx([1 / (i + 1)] * (i + 1) + [0] * (3 - i))
    unmasked = attention_weights(key, key)
    torch.testing.assert_close(unmasked, (key @ key.transpose(1, 2) / math.sqrt(3)).softmax(-1))


@given(st.floats(-30, 30), st.floats(-30, 30), st.integers(1, 10**6))
def test_inverse_temperature_by_hand(score: float, alpha: float, count: int) -> None:
    expected = 1 + math.tanh(score) + math.log(count) / (1 + math.exp(-alpha))
    as_tensors = [torch.tensor(v, dtype=torch.float64) for v in (score, alpha, count)]
    assert inverse_temperature(*as_tensors).item() == pytest.approx(expected, rel=1e-12)
    assert inverse_temperature(score, as_tensors[1], float(count)).item() == pytest.approx(expected, rel=1e-12)
    assert inverse_temperature(as_tensors[0]).item() == pytest.approx(1 + math.tanh(score), rel=1e-12)
    assert inverse_temperature(score) == pytest.approx(1 + math.tanh(score), rel=1e-12)
    assert inverse_temperature() == 1
    assert inverse_temperature(alpha=as_tensors[1], count=1.0) == 1


@given(st.integers(0, 2**32))
def test_weight_sharing_along_any_axis(seed: int) -> None:
    projection = tokens(3, 4, 5, seed)
    vector = tokens(1, 1, 5, seed + 1)
    score = weight_shared_score(projection, vector, dim=-1)
    expected = sum(vector[0, 0, i] * F.gelu(projection[..., i]) for i in range(5))
    torch.testing.assert_close(score, expected)
    swapped = weight_shared_score(projection.transpose(1, 2), vector.transpose(1, 2), dim=1)
    torch.testing.assert_close(swapped, expected)


# Gradients


@pytest.mark.parametrize("name", PROJECTIONS)
@pytest.mark.parametrize("term", TERMS[:-1], ids=NAMES[:-1])
def test_gradients_of_every_temperature(term: Temperature, name: str) -> None:
    x = tokens(1, 2, 4).requires_grad_()
    made = layer(4, 2, **OFF | {name: term})
    features = features_for(made, x)
    parameters = {n: p for n, p in made.named_parameters() if n.startswith(("temperatures", name))}
    added = [n for n in parameters if n.startswith("temperatures")]
    assert added

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(made, dict(zip(parameters, values, strict=True)), (x, features))

    assert torch.autograd.gradcheck(run, (x, *parameters.values()))
    gradients = torch.autograd.grad(run(x, *parameters.values()).square().sum(), [parameters[n] for n in added])
    assert all(g.abs().max() > 1e-6 for g in gradients)


# Parameter counts


@pytest.mark.parametrize(
    ("term", "each"),
    [
        (Temperature("shared", position=False), 4 * 6),
        (Temperature("shared", position=True), 4 * 6 + 4),
        (Temperature("mlp", position=False, width=5), (24 * 5 + 5) + (5 * 4 + 4)),
        (Temperature("mlp", position=True, width=1), (24 + 1) + (4 + 4) + 4),
        (Temperature("feature", position=False, features=3), 3 * 4 + 4),
        (Temperature("feature", position=True, features=1), 4 + 4 + 4),
        (Temperature(None, position=True), 4),
        (Temperature(None, position=False), 0),
    ],
)
def test_added_parameters_by_hand(term: Temperature, each: int) -> None:
    """dim 24, 4 heads of width 6."""
    plain = SelectiveSelfAttention(24, 4, **OFF)
    for names in (("query",), ("query", "value"), PROJECTIONS):
        made = SelectiveSelfAttention(24, 4, **OFF | dict.fromkeys(names, term))
        assert made.added_parameters() == len(names) * each
        total = sum(p.numel() for p in made.parameters())
        assert total - sum(p.numel() for p in plain.parameters()) == len(names) * each


@pytest.mark.parametrize(("dim", "heads"), [(768, 12), (1024, 16), (1280, 20), (1600, 25)])
def test_weight_sharing_adds_less_than_half_a_percent_at_gpt2_sizes(dim: int, heads: int) -> None:
    with torch.device("meta"):
        made = SelectiveSelfAttention(dim, heads)
    assert made.added_parameters() == 2 * (dim + heads)
    attention = sum(p.numel() for p in made.parameters()) - made.added_parameters()
    assert attention == 4 * dim**2
    assert 0 < made.added_parameters() / attention < 0.005


# Bad input


@pytest.mark.parametrize(("dim", "heads"), [(0, 1), (4, 0), (4, 3), (-4, 2), (4, 8)])
def test_bad_sizes(dim: int, heads: int) -> None:
    with pytest.raises(ValueError, match=f"heads must divide dim, .* got dim={dim} and heads={heads}: change one"):
        SelectiveSelfAttention(dim, heads)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"token": "linear"}, "unknown token term 'linear': choose shared, mlp, feature or None"),
        ({"token": "mlp", "width": 0}, "width must be at least 1, got 0: choose a positive size"),
        ({"token": "feature", "features": -1}, "features must be at least 1, got -1: choose a positive size"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_temperatures(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Temperature(**arguments)


def test_bad_tokens_and_features() -> None:
    x = tokens(1, 3, 4)
    by_feature = layer(4, query=Temperature("feature", features=2), value=None)
    for made, x_given, features, message in (
        (layer(4), x[..., :3], None, "tokens must have width 4, got 3: match the layer's dim"),
        (layer(4), x, x, "features were passed, but no temperature is feature-based: leave them out"),
        (by_feature, x, None, r"needs \[2\] scalar features a token, got None: pass features"),
        (by_feature, x, x[..., :1], r"needs \[2\] scalar features a token, got 1: pass features"),
    ):
        for call in (made, made.attention):
            with pytest.raises(ValueError, match=message):
                call(x_given, features)
