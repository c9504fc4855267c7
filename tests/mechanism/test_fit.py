"""Which mechanism fits which form of layer, what it then learns, and where it starts."""

import math
import re
from dataclasses import replace

import pytest
import torch

from ssa_theory.mechanism import (
    MECHANISMS,
    VANILLA,
    Form,
    Inputs,
    Layer,
    Mechanism,
    Misfit,
    Shift,
    Tokens,
)
from ssa_theory.mechanism.normalizers import Softmax, SoftmaxSink
from ssa_theory.mechanism.rectified import ReLA
from ssa_theory.mechanism.scores import MLP, Feature, Linear
from ssa_theory.mechanism.temperature import Selective
from tests.mechanism.cases import (
    ALL,
    CASES,
    DIM,
    FORMS,
    KEYS,
    by_case,
    by_form,
    by_mechanism,
    generators,
    inputs_of,
    layer_of,
    results,
)

VALUE, LENGTHS = "a value map", "queries that see different numbers of keys (or position terms"
DEGREE, TOKEN = "the degree of every query token", "the token of every query token"
QUERY_SCALAR, KEY_SCALAR = "a given scalar of every query token", "a given scalar of every key"
TRAINED, GIVEN = "the longest context of training", "of which only the scores are given here"
_OF_VALUES = dict.fromkeys(
    ("ssa-value", "ssa-mlp-value", "value-tanh", "value-sigmoid", "gated", "gated-head"), (VALUE,)
)
_OF_TRAINED = dict.fromkeys(("yarn", "llama4"), (TRAINED,))
_OF_LENGTHS = dict.fromkeys(
    ("released", "ssmax", "log2", "root", "asentmax-position", "yarn", "llama4", "power"),
    (LENGTHS,),
)
_OF_LENGTHS |= {"ssa-position": (LENGTHS, VALUE)}
_OF_LABELS = {"ssa-degree": (DEGREE,), "ssa-free": (TOKEN,)}
_OF_QUERY_SCALARS = dict.fromkeys(("ssa-feature", "ssa-feature-exp"), (QUERY_SCALAR,))
_OF_SCALARS = _OF_QUERY_SCALARS | {"ssa-feature-key": (KEY_SCALAR,)}
MISFITS = {
    "graph": _OF_VALUES | _OF_LENGTHS | _OF_SCALARS,
    "graph-position": _OF_VALUES | _OF_SCALARS | _OF_TRAINED,
    "letters": _OF_VALUES | _OF_LENGTHS | _OF_LABELS,
    "retrieval": _OF_VALUES | _OF_LENGTHS | _OF_LABELS | {"ssa-feature-key": (KEY_SCALAR,)},
    "denoise": _OF_LABELS
    | _OF_SCALARS
    | _OF_TRAINED
    | dict.fromkeys(("gated", "gated-head", "constant-scale"), ("query tokens",)),
    "denoise-last": _OF_LABELS | _OF_SCALARS | _OF_TRAINED,
    "regression": _OF_VALUES
    | _OF_LABELS
    | _OF_QUERY_SCALARS
    | dict.fromkeys(
        (
            *("ssa-key", "ssa-mlp-key", "ssa-feature-key", "key-bias", "scaled-key-bias"),
            *("ssa-key-bias", "gate-and-sink"),
        ),
        (f"key tokens, {GIVEN}",),
    )
    | dict.fromkeys(("ssa-token", "ssa-mlp-token", "ssa-signed"), (f"query tokens, {GIVEN}", VALUE))
    | {
        "ssa-mlp-key-value": (f"key tokens, {GIVEN}", VALUE),
        "ssa-mlp-key-shift": (f"key tokens, {GIVEN}", "a key temperature or rows that feel"),
        **dict.fromkeys(
            ("qk-norm", "qk-norm-ssa-query", "differential"), (f"queries and keys, {GIVEN}",)
        ),
        "constant-scale": ("query tokens",),
        "gated": (VALUE, "query tokens"),
        "gated-head": (VALUE, "query tokens"),
    },
}
"""What each mechanism that does not fit a form lacks there; all others fit."""


@by_form
def test_every_mechanism_fits_or_says_what_it_needs(form: str) -> None:
    assert {name for name in MECHANISMS if (name, form) not in CASES} == set(MISFITS[form])
    for name, missing in MISFITS[form].items():
        with pytest.raises(Misfit) as raised:
            Layer(MECHANISMS[name], FORMS[form])
        message = str(raised.value)
        assert message.startswith(f"mechanism {name} needs {missing[0]}")
        assert all(phrase in message for phrase in missing)
        assert "\n" not in message
        with pytest.raises(Misfit, match=re.escape(message)):
            MECHANISMS[name].shapes(FORMS[form])


@by_case
def test_what_fits_is_fitted_once_and_counted(name: str, form: str) -> None:
    mechanism, layer = MECHANISMS[name], layer_of(name, form)
    fitted = mechanism.fitted(FORMS[form])
    assert fitted == fitted.fitted(FORMS[form]) == layer.mechanism
    assert fitted.name == name
    for role in ("query", "key", "value"):
        worn, part = getattr(fitted, role), getattr(mechanism, role)
        if isinstance(worn, Selective):
            assert worn.position == (part.position and FORMS[form].position)
            assert worn.link == part.link
    assert fitted.is_vanilla == (name == VANILLA)
    start = layer.initial_parameters(generators(3))
    assert all(v.dtype == torch.float64 and v.shape[-1] == 3 for v in start.values())
    own = {k: tuple(v.shape[:-1]) for k, v in start.items() if "." in k}
    assert mechanism.shapes(FORMS[form]) == fitted.shapes(FORMS[form]) == own
    vanilla = layer_of(VANILLA, form).initial_parameters(generators(3))
    added = sum(v.numel() for v in start.values()) - sum(v.numel() for v in vanilla.values())
    assert 3 * mechanism.added_parameters(FORMS[form]) == added


@by_case
def test_members_start_by_their_own_generators_and_share_what_vanilla_has(
    name: str, form: str
) -> None:
    start = layer_of(name, form).initial_parameters(generators(3))
    for key, value in layer_of(VANILLA, form).initial_parameters(generators(3)).items():
        assert key == "log_scale" or torch.equal(start[key], value)
    alone = layer_of(name, form).initial_parameters(generators(3)[1:2])
    assert all(torch.equal(v, start[k][..., 1:2]) for k, v in alone.items())


# A context of one key has no position terms, log 1 = 0: what starts away from vanilla even there.
NOT_AT_VANILLA = {
    "LogPower": "c log n is zero",
    "Fixed": "a scale of 2.5",
    "Contrast": "of which it takes a share",
    "QKNorm": "cosines",
    "Softcap": "scores within the cap",
    "SoftmaxSink": "a sink takes its part",
    **dict.fromkeys(
        ("Sparsemax", "Entmax15", "Entmax", "TopK", "Threshold", "ReLA", "Softpick"), "sparse"
    ),
    **dict.fromkeys(("ElementwiseGate", "HeadGate"), "half of the output"),
}


@by_case
def test_the_start_is_vanilla_but_for_what_says_otherwise(name: str, form: str) -> None:
    layer, inputs = layer_of(name, form), replace(inputs_of(form), count=1.0)
    found = results(layer, layer.initial_parameters(generators()), inputs)
    plain = layer_of(VANILLA, form)
    wanted = results(plain, plain.initial_parameters(generators()), inputs)
    here = layer.mechanism
    parts = [p for part in here.parts().values() for p in (part, getattr(part, "score", None))]
    otherwise = {type(part).__name__ for part in parts} & set(NOT_AT_VANILLA)
    if MLP(jitter=0.1) in parts:  # which a softmax may not feel at first
        otherwise.add("jitter")
    same = all(torch.equal(found[k], wanted[k]) for k in ("scores", "rows"))
    same &= not layer.form.values or torch.equal(found["output"], wanted["output"])
    assert same == (not otherwise)
    if otherwise <= {"ElementwiseGate", "HeadGate"} and otherwise:
        assert torch.equal(found["rows"], wanted["rows"])
        assert torch.equal(found["output"], wanted["output"] / 2)
    if otherwise == {"jitter"}:
        torch.testing.assert_close(found["rows"], wanted["rows"], rtol=0.6, atol=0.1)


@by_case
def test_position_terms_start_at_half_of_log_n(name: str, form: str) -> None:
    layer, n = layer_of(name, form), 9.0
    inputs, start = replace(inputs_of(form), count=n), layer.initial_parameters(generators())
    for role in ("query", "key", "value"):
        part = getattr(layer.mechanism, role)
        tau = layer.inverse_temperature(role, start, inputs)
        if part is None or isinstance(part, Selective):
            position = part is not None and part.position
            wanted = torch.full_like(tau, 1 + 0.5 * math.log(n) * position)
            at_one = part is None or part.score is None or getattr(part.score, "jitter", 0.0) == 0
            torch.testing.assert_close(tau, wanted, rtol=1e-15 if at_one else 0.5, atol=0.0)


@by_form
def test_the_initial_weight_has_the_scale_of_its_width(form: str) -> None:
    if FORMS[form].given_scores:
        start = Layer(ALL[VANILLA], FORMS[form]).initial_parameters(generators(2))
        assert start.keys() == {"log_scale"}
        assert (start["log_scale"] == 0).all()
        return
    for scale in (0.1, 0.7):
        drawn = Layer(ALL[VANILLA], FORMS[form], scale).initial_parameters(generators(2000))
        weight = drawn["weight"]
        error = 6 / math.sqrt(2 * weight.numel())  # of a Gaussian sample's deviation, six times
        assert float(weight.std()) == pytest.approx(scale / math.sqrt(DIM), rel=error)
        if "value" in drawn:
            assert torch.equal(drawn["value"][..., 7], torch.eye(DIM, dtype=torch.float64))


def test_hidden_maps_start_as_a_basis_and_its_negative_or_at_the_scale_of_their_width() -> None:
    form = Form(16)
    basis = MLP().initial("key", form, generators(5))["hidden"]
    assert basis.shape == (16, 32, 5)
    assert torch.equal(basis[:, :16], -basis[:, 16:])
    gram = torch.einsum("ium,ivm->uvm", basis[:, :16], basis[:, :16])
    torch.testing.assert_close(gram, torch.eye(16).double().unsqueeze(-1).expand(-1, -1, 5))
    drawn = MLP(width=64, jitter=0.1).initial("key", form, generators(20))
    for name, scale in (("hidden", 1 / 4), ("vector", 0.1)):
        error = 6 / math.sqrt(2 * drawn[name].numel())
        assert float(drawn[name].std()) == pytest.approx(scale, rel=error)
    assert all((drawn[name] == 0).all() for name in ("bias", "offset"))


@by_mechanism
def test_parts_are_read_in_order_and_shared_by_heads_where_they_say_so(name: str) -> None:
    for part in MECHANISMS[name].parts().values():
        score = getattr(part, "score", part)
        wide = isinstance(score, MLP)
        assert part.shared_by_heads == (frozenset({"hidden", "bias"}) if wide else frozenset())


def test_a_shift_that_only_a_softmax_sees_is_left_out() -> None:
    """softmax(s + b) = softmax(s): b would move by rounding alone."""
    graph, key = FORMS["graph"], Selective(MLP(), position=False)
    with pytest.raises(Misfit, match="mechanism m needs a key temperature or rows that feel a sh"):
        Mechanism("m", shift=Shift()).fitted(graph)
    assert Mechanism("m", shift=Shift(), query=key).fitted(graph).shift is None
    for felt in ({"normalizer": ReLA()}, {"normalizer": SoftmaxSink()}, {"key": key}):
        assert Mechanism("m", shift=Shift(), **felt).fitted(graph).shift == Shift()
    assert Mechanism("m", shift=Shift(), key=key).fitted(graph).normalizer == Softmax()


def test_inputs_that_lack_what_a_layer_needs_are_named() -> None:
    tokens = Tokens(torch.zeros(KEYS, DIM, 1, dtype=torch.float64))
    graph, letters = FORMS["graph"], FORMS["letters"]
    cases = [
        (
            Layer(ALL[VANILLA], graph),
            Inputs(tokens),
            "this layer needs keys, which its inputs lack",
        ),
        (Layer(ALL[VANILLA], graph), Inputs(None, tokens), "this layer needs query tokens"),
        (Layer(ALL[VANILLA], FORMS["regression"]), Inputs(), "this layer needs given scores"),
        (Layer(ALL["ssa-feature"], letters), Inputs(tokens, tokens), "needs a given scalar of"),
        (Layer(Mechanism("m", bias=Feature()), letters), Inputs(tokens, tokens), "given scalar"),
        (Layer(Mechanism("m", bias=Linear()), graph), Inputs(tokens), "this score needs tokens"),
    ]
    for layer, inputs, message in cases:
        with pytest.raises(ValueError, match=message):
            layer.rows(layer.initial_parameters(generators(1)), inputs)
    layer, start = layer_of("released", "denoise"), {"query.b": torch.zeros(1)}
    with pytest.raises(ValueError, match="released has no query temperature of SSA's form here"):
        layer.token_score("query", start, inputs_of("denoise"))
    with pytest.raises(ValueError, match="this temperature has no token term"):
        layer_of("ssa-position", "denoise").token_score("query", start, inputs_of("denoise"))
