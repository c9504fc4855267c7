"""Every mechanism in every form of layer that the project uses: forms, inputs and parameters."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ssa_theory.mechanism import (
    MECHANISMS,
    Form,
    Inputs,
    Layer,
    Mechanism,
    Misfit,
    Parameters,
    Tokens,
    mechanism,
)
from ssa_theory.mechanism.normalizers import SoftmaxSink
from ssa_theory.mechanism.schedules import Power, YaRN
from ssa_theory.mechanism.scores import MLP, Constant
from ssa_theory.mechanism.temperature import Selective

DIM, QUERIES, KEYS, MEMBERS = 3, 5, 7, 2  # all different, so that no two axes can be mistaken
FORMS = {
    # Rows as the prediction; all tokens are queries and keys.
    "graph": Form(DIM, labels={"token": KEYS, "degree": KEYS + 1}),
    "graph-position": Form(DIM, labels={"token": KEYS, "degree": KEYS + 1}, position=True),
    "letters": Form(DIM, features=frozenset({"query", "key"})),
    # Rows as the prediction; every query has keys of its own, and its token one number more.
    "retrieval": Form(DIM, query_dim=DIM + 1, features=frozenset({"query"})),
    # An output; the query is a learned constant, or the last token.
    "denoise": Form(DIM, constant_query=True, values=True, over_root_dim=True, position=True),
    "denoise-last": Form(DIM, values=True, over_root_dim=True, position=True),
    # Scores are given.
    "regression": Form(DIM, given_scores=True, position=True, trained_length=4),
}


# The same forms where every query sees a number of keys of its own.
COUNTED = {f"{k}-counted": FORMS[k] for k in ("graph-position", "denoise", "denoise-last")}
COUNTED["regression-counted"] = FORMS["regression"]
# What a user may compose of the same parts, and the registry holds no case of.
COMPOSED = {
    m.name: m
    for m in (
        Mechanism("key-position", key=Selective(None)),
        Mechanism("key-constant", key=Selective(Constant(), position=False)),
        Mechanism("bias-constant", bias=Constant(), normalizer=SoftmaxSink()),
        Mechanism("narrow", query=Selective(MLP(width=2)), value=Selective(MLP(width=4))),
        Mechanism("value-schedule", value=Power()),
        Mechanism("given-length", query=YaRN(trained_length=3)),
        *map(mechanism, ("sparsemax+ssa-query-key", "rela+ssa-query-key", "softcap+ssa-mlp-key")),
        *map(mechanism, ("qk-norm+ssa", "gated+ssa+sink", "gated-head+ssmax+key-bias")),
        *map(
            mechanism, ("differential+ssa+sink", "differential+qk-norm", "softpick+ssa-query-key")
        ),
    )
}
ALL = MECHANISMS | COMPOSED
_FORMS = FORMS | COUNTED


def fits(name: str, form: str) -> bool:
    """Whether a mechanism fits; test_fit.py says which do."""
    try:
        ALL[name].fitted(_FORMS[form])
    except Misfit:
        return False
    return True


CASES = [(name, form) for form in FORMS for name in MECHANISMS if fits(name, form)]
WIDER = CASES + [
    (name, form)
    for form in _FORMS
    for name in ALL
    if (name in COMPOSED or form in COUNTED) and fits(name, form)
]
by_case = pytest.mark.parametrize(("name", "form"), CASES, ids=map(":".join, CASES))
by_wider_case = pytest.mark.parametrize(("name", "form"), WIDER, ids=map(":".join, WIDER))
by_form = pytest.mark.parametrize("form", FORMS)
by_mechanism = pytest.mark.parametrize("name", MECHANISMS)


def layer_of(name: str, form: str) -> Layer:
    return Layer(ALL[name], _FORMS[form])


def generators(members: int = MEMBERS, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, m]) for m in range(members)]


def perturbed(layer: Layer, members: int = MEMBERS, seed: int = 1) -> Parameters:
    """Parameters away from the start, where every part acts; a member's depend on its number."""
    start = Layer(layer.mechanism, layer.form, 1.0).initial_parameters(generators(members, seed))
    noise = generators(members, seed + 100)

    def drawn(shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(np.stack([g.standard_normal(shape) for g in noise], -1))

    return {k: v + 0.6 * drawn(v.shape[:-1]) for k, v in sorted(start.items())}


def inputs_of(form: str, members: int = MEMBERS, seed: int = 2) -> Inputs:
    """Random inputs for a form; a member's depend on its number."""
    if form in COUNTED:
        inputs = inputs_of(form.removesuffix("-counted"), members, seed)
        queries = KEYS if form.startswith("graph") else QUERIES
        return replace(inputs, count=torch.arange(1.0, 1 + queries).double().unsqueeze(-1))
    rngs = generators(members, seed)

    def drawn(*shape: int) -> Tensor:
        return torch.from_numpy(np.stack([g.standard_normal(shape) for g in rngs], -1))

    def labels(*shape: int) -> Tensor:
        return torch.from_numpy(np.stack([g.integers(1, KEYS + 1, shape) for g in rngs], -1))

    if form in ("graph", "graph-position", "letters"):
        tokens = Tokens(drawn(KEYS, DIM), drawn(KEYS), {"degree": labels(KEYS)})
        return Inputs(tokens, tokens, count=float(KEYS))
    if form == "retrieval":
        query = Tokens(drawn(QUERIES, DIM + 1), drawn(QUERIES))
        return Inputs(query, Tokens(drawn(QUERIES, KEYS, DIM)), count=float(KEYS))
    if form == "regression":
        return Inputs(given=drawn(QUERIES, KEYS), count=float(KEYS))
    tokens = drawn(QUERIES, KEYS, DIM)
    query = None if form == "denoise" else Tokens(tokens[:, -1])
    return Inputs(query, Tokens(tokens), count=float(KEYS))


def mapped(inputs: Inputs, to: Callable[[Tensor], Tensor]) -> Inputs:
    """Inputs with every tensor changed; shared tokens stay shared."""

    def of(tokens: Tokens | None) -> Tokens | None:
        if tokens is None:
            return None
        feature = None if tokens.feature is None else to(tokens.feature)
        labels = {k: to(v) for k, v in tokens.labels.items()}
        return Tokens(to(tokens.vector), feature, labels)

    query = of(inputs.query)
    keys = query if inputs.keys is inputs.query else of(inputs.keys)
    given = None if inputs.given is None else to(inputs.given)
    count = to(inputs.count) if isinstance(inputs.count, Tensor) else inputs.count
    return replace(inputs, query=query, keys=keys, given=given, count=count)


def results(layer: Layer, parameters: Parameters, inputs: Inputs) -> dict[str, Tensor]:
    """Everything that a layer computes."""
    found = {
        "scores": layer.scores(parameters, inputs),
        "rows": layer.rows(parameters, inputs),
        "prediction": layer.prediction(parameters, inputs),
    }
    for role in ("query", "key", "value"):
        found[f"tau of {role}"] = layer.inverse_temperature(role, parameters, inputs)
    return found | ({"output": layer.output(parameters, inputs)} if layer.form.values else {})
