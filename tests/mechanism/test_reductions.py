"""Which values of its parameters give vanilla, for every mechanism; limits of the others."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ssa_theory.mechanism import VANILLA, Inputs, Layer, Mechanism, Misfit, Tokens, mechanism
from ssa_theory.mechanism.gates import Gate
from ssa_theory.mechanism.normalizers import (
    Entmax15,
    EntropyAdaptive,
    Softmax,
    SoftmaxSink,
    Sparse,
    TopK,
)
from ssa_theory.mechanism.rectified import Softpick
from ssa_theory.mechanism.schedules import AdaptiveASEntmax, ASEntmax, Fixed
from ssa_theory.mechanism.score_maps import Bilinear, QKNorm, Softcap
from ssa_theory.mechanism.temperature import Exp, Selective, Signed, Tanh
from tests.mechanism.cases import (
    ALL,
    CASES,
    DIM,
    FORMS,
    KEYS,
    MEMBERS,
    generators,
    inputs_of,
    layer_of,
    perturbed,
    results,
)

AT_VANILLA = {
    # Scores f = 0, of temperatures and of a bias.
    **dict.fromkeys(("vector", "offset", "slope", "theta"), 0.0),
    "alpha": -math.inf,  # the position term of SSA
    "log_scale": 0.0,
    "b": math.inf,  # released
    "gamma": 0.0,  # power
    "delta": 1.0,
    "log_beta": -math.inf,  # ASEntmax
    "sink": -math.inf,
    "share": 0.0,  # of a contrast
}
LOGS = {"ssmax": 1, "log2": 2, "root": 0.5}
ANY = {"hidden", "bias", "log_gamma", "weight"}  # of what is multiplied by zero
WITHOUT = (Sparse, Gate, QKNorm, Softcap, Fixed)
"""Parts that no parameter takes back to vanilla; tests of their own are below."""
BACK = [
    (name, form)
    for name, form in CASES
    if not any(isinstance(part, WITHOUT) for part in ALL[name].parts().values())
]


@pytest.mark.parametrize(("name", "form"), BACK, ids=map(":".join, BACK))
def test_the_values_that_give_vanilla(name: str, form: str) -> None:
    layer, inputs = layer_of(name, form), inputs_of(form)
    if name == "off-by-one":  # a fixed sink is one learned sink, at zero
        inputs, vanilla = inputs_of(form), Mechanism("s", normalizer=SoftmaxSink())
        parameters = perturbed(layer)
        found = results(layer, parameters, inputs)
        at = parameters | {"normalizer.sink": torch.zeros(MEMBERS, dtype=torch.float64)}
        wanted = results(Layer(vanilla, FORMS[form]), at, inputs)
    else:
        vanilla = layer_of(VANILLA, form)
        parameters = perturbed(layer)
        for key, value in parameters.items():
            part, _, short = key.rpartition(".")
            if part and short not in ANY:
                at = AT_VANILLA[short]
                if name in LOGS:
                    at = -LOGS[name] * math.log(math.log(KEYS))
                if name in ("yarn", "llama4"):  # of a context that is shorter than in training
                    inputs = replace(inputs, count=3.0)
                parameters[key] = torch.full_like(value, at)
        own = vanilla.initial_parameters(generators(1))
        parameters.setdefault("log_scale", torch.zeros(MEMBERS, dtype=torch.float64))
        wanted = results(vanilla, {k: parameters[k] for k in own}, inputs)
        found = results(layer, parameters, inputs)
    for what, value in wanted.items():
        both = (
            torch.broadcast_tensors(found[what], value) if "tau" in what else (found[what], value)
        )
        torch.testing.assert_close(*both, rtol=1e-13, atol=1e-13, msg=what)


def outputs(worn: Mechanism, change: dict[str, Tensor] | None = None) -> Tensor:
    """y of a layer of the denoising form, its tokens positive, for W of one draw."""
    layer = Layer(worn, FORMS["denoise-last"])
    parameters = perturbed(layer_of(VANILLA, "denoise-last"))
    extra = {k: v for k, v in perturbed(layer).items() if k not in parameters}
    tokens = inputs_of("denoise-last").keys
    assert tokens is not None
    keys = Tokens(tokens.vector.abs())
    inputs = Inputs(Tokens(keys.vector[:, -1]), keys, count=float(KEYS))
    return layer.output(parameters | extra | (change or {}), inputs)


def test_gates_open_to_vanilla_and_close_to_nothing() -> None:
    for name, weight in (("gated", "gate.weight"), ("gated-head", "gate.vector")):
        shape = layer_of(name, "denoise-last").initial_parameters(generators(1))[weight].shape[:-1]
        for value, wanted in ((1e3, outputs(ALL[VANILLA])), (-1e3, 0 * outputs(ALL[VANILLA]))):
            there = {weight: torch.full((*shape, MEMBERS), value, dtype=torch.float64)}
            torch.testing.assert_close(outputs(ALL[name], there), wanted, rtol=1e-12, atol=1e-12)


def test_a_cap_without_bound_is_no_cap() -> None:
    errors = []
    for cap in (1e1, 1e2, 1e3):
        capped = outputs(Mechanism("m", score=Softcap(cap)))
        errors.append((capped - outputs(ALL[VANILLA])).abs().max().item())
    assert errors[0] > 1e-5
    assert errors[1] / errors[0] == pytest.approx(1e-2, rel=0.2)  # tanh z - z ~ z^3 / 3
    assert errors[2] / errors[1] == pytest.approx(1e-2, rel=0.02)
    for cap in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="a cap on the scores must be positive, got"):
            Softcap(cap)
    layer = Layer(Mechanism("m", score=Softcap(2.0)), FORMS["graph"])
    huge = {k: 1e6 * v for k, v in perturbed(layer).items()}
    assert layer.scores(huge, inputs_of("graph")).abs().max() == 2


def test_normalised_queries_and_keys_know_directions_alone() -> None:
    layer, inputs = layer_of("qk-norm", "graph"), inputs_of("graph")
    parameters = perturbed(layer)
    scores = layer.scores(parameters, inputs)
    assert (scores.abs() <= parameters["score.log_gain"].exp()).all()
    assert inputs.query is not None
    lengths = torch.linspace(0.1, 9, KEYS, dtype=torch.float64).reshape(-1, 1, 1)
    longer = Tokens(inputs.query.vector * lengths)
    torch.testing.assert_close(layer.scores(parameters, Inputs(longer, longer)), scores)
    # Of unit tokens and a rotation W it is vanilla with the gain exp a.
    unit = Tokens(inputs.query.vector / inputs.query.vector.norm(dim=1, keepdim=True))
    turned = torch.linalg.qr(parameters["weight"].movedim(-1, 0)).Q.movedim(0, -1)
    eye = torch.eye(DIM, dtype=torch.float64).unsqueeze(-1).expand(-1, -1, MEMBERS)
    found = layer.scores(parameters | {"weight": turned, "key_map": eye}, Inputs(unit, unit))
    plain = layer_of(VANILLA, "graph").scores({"weight": turned}, Inputs(unit, unit))
    torch.testing.assert_close(found, parameters["score.log_gain"].exp() * plain)
    nothing = Tokens(0 * unit.vector)
    assert (layer.rows(parameters, Inputs(nothing, nothing)) == 1 / KEYS).all()


def test_sparse_rows_that_reach_softmax_and_a_shift_that_reaches_the_mean() -> None:
    vanilla = outputs(ALL[VANILLA])
    for top in (KEYS, KEYS + 5):
        assert torch.equal(outputs(Mechanism("m", normalizer=TopK(top))), vanilla)
    layer, inputs = layer_of("threshold", "regression"), inputs_of("regression")
    assert inputs.given is not None
    positive = replace(inputs, given=inputs.given + 10)
    parameters = perturbed(layer)
    scores = layer.scores(parameters, positive)
    assert torch.equal(layer.rows(parameters, positive), scores.softmax(1))
    rela = perturbed(layer_of("rela", "denoise-last"))
    far = {"shift.offset": torch.full((MEMBERS,), 1e9, dtype=torch.float64)}
    found = layer_of("rela", "denoise-last").rows(rela | far, inputs_of("denoise-last"))
    torch.testing.assert_close(found, torch.full_like(found, 1 / KEYS))


def test_softpick_of_large_scores_is_softmax_and_turns_down_what_is_negative() -> None:
    z = torch.tensor([3.0, 1.0, 2.5, 2.0], dtype=torch.float64)[:, None]
    errors = []
    for shift in (5.0, 10.0, 15.0):
        rows = Softpick().rows({}, z + shift, 0)
        assert rows.sum().item() == pytest.approx(1)
        errors.append((rows - z.softmax(0)).abs().max().item())
    assert errors[1] / errors[0] == pytest.approx(math.exp(-5), rel=0.02)
    assert errors[2] / errors[1] == pytest.approx(math.exp(-5), rel=1e-3)
    # A key of score -inf that is seen, not masked, would count as 1 in the sum.
    low = Softpick().rows({}, torch.tensor([[math.log(3.0)], [-700.0]]).double(), 0)
    assert low.flatten().tolist() == pytest.approx([2 / 3, 0])


def test_adaptive_temperature_acts_between_sharp_and_very_blunt_rows() -> None:
    """beta of n equal keys is 1 up to n = 2, above 1 from 3 on, and 1 again from about 370 on."""
    beta = {}
    for n in (2, 3, 10, 300, 400):
        z = torch.full((n, 1), 0.7, dtype=torch.float64)
        beta[n] = (EntropyAdaptive().logits(z, 0) / z)[0].item()
    assert beta[2] == beta[400] == 1
    assert min(beta[3], beta[300]) > 1.1
    assert beta[10] == max(beta.values())
    sharp = torch.tensor([[5.0], [0.0], [-1.0]], dtype=torch.float64)
    assert torch.equal(EntropyAdaptive().rows({}, sharp, 0), sharp.softmax(0))
    layer = layer_of("entropy-adaptive", "denoise-last")
    assert layer.normalizer == Softmax()
    assert layer.evaluated.normalizer == EntropyAdaptive()
    assert layer.evaluated.evaluated == layer.evaluated
    with pytest.raises(Misfit, match="needs a softmax, which its evaluation replaces"):
        Layer(mechanism("entropy-adaptive+sink"), FORMS["graph"])


def test_a_contrast_with_the_same_map_is_a_factor_on_the_rows() -> None:
    """W' = W: 1 - lambda of vanilla's rows; the sum of rows is 1 - lambda for every W'."""
    layer, inputs = layer_of("differential", "graph"), inputs_of("graph")
    parameters = perturbed(layer)
    share = parameters["contrast.share"]
    rows = layer.rows(parameters, inputs)
    torch.testing.assert_close(rows.sum(1), (1 - share).expand(KEYS, -1))
    assert (rows < 0).any()
    same = layer.rows(parameters | {"contrast.weight": parameters["weight"]}, inputs)
    plain = layer_of(VANILLA, "graph").rows({"weight": parameters["weight"]}, inputs)
    torch.testing.assert_close(same, (1 - share) * plain)
    assert not layer.exponential


def test_asentmax_reduces_to_its_position_part_and_to_entmax() -> None:
    """u far out: (log n)^(+-r); w to -inf: delta alone; with one token, any of both."""
    fixed = {"normalizer": Entmax15()}
    token = torch.ones(DIM, MEMBERS, dtype=torch.float64)  # the tokens are positive
    one = torch.ones(MEMBERS, dtype=torch.float64)
    both = Mechanism("m", query=AdaptiveASEntmax(), **fixed)
    off = outputs(both, {"query.delta": one, "query.vector": -1e4 * token})
    torch.testing.assert_close(off, outputs(ALL["entmax15"]))
    own = {"query.delta": 0.4 * one, "query.reach": 1.5 * one, "query.vector": 0 * token}
    found = outputs(both, own | {"query.exponent": 1e4 * token})
    position = Mechanism("m", query=ASEntmax(), **fixed)
    gamma = {"query.log_gamma": math.log(1.5) * one}
    beta = {"query.delta": 0.4 * one, "query.log_beta": math.log(math.log(2)) * one}
    torch.testing.assert_close(found, outputs(position, gamma | beta))
    assert layer_of("asentmax", "denoise").mechanism.query == ASEntmax()
    assert layer_of("asentmax", "graph").mechanism.query == AdaptiveASEntmax(position=False)


def test_joint_entries_are_what_is_joined() -> None:
    """Of one draw of their parameters, and without the temperature's score the rest alone."""
    own = perturbed(layer_of("qk-norm", "denoise-last"))
    nothing = own | {"query.vector": torch.zeros(DIM, MEMBERS, dtype=torch.float64)}
    nothing |= {"query.alpha": torch.full((MEMBERS,), -math.inf, dtype=torch.float64)}
    joint = outputs(ALL["qk-norm-ssa-query"], nothing)
    torch.testing.assert_close(joint, outputs(ALL["qk-norm"], own))
    for name in ("qk-norm+ssa-query", "scaled+key-bias", "ssa+key-bias"):
        both = ALL[name.replace("+", "-")]
        assert torch.equal(outputs(both), outputs(mechanism(name)))
        assert (outputs(both) - joint).abs().max() > 1e-3


def test_position_terms_of_query_and_key_are_the_same_thing() -> None:
    query, key = (Mechanism("m", **{role: Selective(None)}) for role in ("query", "key"))
    alpha = torch.tensor([0.7, -1.3], dtype=torch.float64)
    found = outputs(query, {"query.alpha": alpha})
    torch.testing.assert_close(found, outputs(key, {"key.alpha": alpha}))
    assert (found - outputs(ALL[VANILLA])).abs().max() > 0.01


def test_a_feature_holds_the_bayes_predictor_of_retrieval() -> None:
    """W = c I, f = -2 phi - log c gives exp(-2 phi); 1 + tanh f does as c grows without bound."""
    layer, inputs = layer_of("ssa-feature-exp", "retrieval"), inputs_of("retrieval")
    assert inputs.query is not None
    assert inputs.keys is not None
    phi = inputs.query.feature
    assert phi is not None
    eye = torch.cat([torch.eye(DIM), torch.zeros(1, DIM)]).double()
    eye = eye.unsqueeze(-1).expand(-1, -1, MEMBERS)
    plain = (inputs.query.vector[:, None, :DIM] * inputs.keys.vector).sum(2)
    wanted = plain * (-2 * phi).exp().unsqueeze(1)
    ones = torch.ones(MEMBERS, dtype=torch.float64)

    def at(c: float, slope: float, offset: float) -> dict[str, Tensor]:
        return {"weight": c * eye, "query.slope": slope * ones, "query.offset": offset * ones}

    exact = layer.scores(at(7.0, -2.0, -math.log(7.0)), inputs)
    torch.testing.assert_close(exact, wanted, rtol=1e-12, atol=1e-12)
    bounded, errors = layer_of("ssa-feature", "retrieval"), []
    for c in (1e2, 1e4, 1e6):  # 1 + tanh f = 2 / (1 + exp(-2 f)) ~ 2 exp(2 f) for f << 0
        found = bounded.scores(at(c, -1.0, -math.log(2 * c) / 2), inputs)
        errors.append(((found - wanted) / wanted).abs().max().item())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-4 < 0.01 < errors[0]


def test_added_parameters_by_hand() -> None:
    form, own = replace(FORMS["denoise-last"], dim=8, trained_length=4), 8 * 16 + 16 + 16 + 1
    counts = {
        VANILLA: 0,
        "scaled": 1,
        "ssa-query": 9,
        "ssa": 18,
        "ssa-token": 16,
        "ssa-position": 2,
        "ssa-mlp-query": own + 1,
        "ssa-mlp-query-key-value": 3 * (own + 1),
        "released": 2,
        "qk-norm": 64 + 1,
        "gated": 64,
        "gated-head": 8,
        "rela": 1,
        "gate-and-sink": own + 1,
        "off-by-one": 0,
        "log2": 1,
        "root": 1,
        "llama4": 1,
        "asentmax": 1 + 8 + 1 + 8,
        "entropy-adaptive": 0,
        "qk-norm-ssa-query": 64 + 1 + 9,
        "softpick": 0,
        "differential": 64 + 1,
        "scaled-key-bias": 1 + 8,
        "ssa-key-bias": 18 + 8,
    }
    assert {name: ALL[name].added_parameters(form) for name in counts} == counts
    given = {
        VANILLA: 0,
        "scaled": 0,
        "ssa-constant": 1,
        "ssa": 1,
        "ssmax": 0,
        "log2": 0,
        "llama4": 0,
        "asentmax": 2,
        "released": 1,
        "power": 1,
        "asentmax-position": 2,
    }
    found = {name: ALL[name].added_parameters(FORMS["regression"]) for name in given}
    assert found == given
    features = {"ssa-feature": 2, "ssa-feature-exp": 2, VANILLA: 0}
    found = {name: ALL[name].added_parameters(FORMS["retrieval"]) for name in features}
    assert found == features


def test_given_scores_have_one_factor_whatever_the_mechanism() -> None:
    """exp b of `scaled` is that factor itself, as c of a schedule, and vanilla's is c alone."""
    inputs = inputs_of("regression")
    for name in (name for name, form in CASES if form == "regression"):
        layer = layer_of(name, "regression")
        parameters = perturbed(layer)
        own = {"scaled": "query.offset", "ssmax": "query.log_scale", "vanilla": "log_scale"}
        assert name not in own or set(parameters) == {own[name]}
        if isinstance(layer.mechanism.score, Bilinear) and layer.mechanism.shift is None:
            factor = layer.inverse_temperature("query", parameters, inputs)
            assert inputs.given is not None
            torch.testing.assert_close(layer.scores(parameters, inputs), factor * inputs.given)
            if name in own:
                c = parameters[own[name]].exp()
                n = math.log(KEYS) if name == "ssmax" else 1.0
                torch.testing.assert_close(factor, c * n)


def test_links_of_one_score_agree_to_first_order_at_vanilla() -> None:
    """1 + tanh f, exp f and 1 + f differ in the second order of f."""
    small = {"query.vector": torch.full((DIM, MEMBERS), 1e-5, dtype=torch.float64)}
    found = [
        outputs(Mechanism("m", query=Selective(link=link, position=False)), small)
        for link in (Tanh(), Exp(), Signed())
    ]
    assert (found[0] - outputs(ALL[VANILLA])).abs().max() > 1e-7
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-8)
    torch.testing.assert_close(found[2], found[0], rtol=0, atol=1e-8)
