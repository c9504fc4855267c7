"""The mechanisms against the classes that they replace; this file goes away with those."""

import numpy as np
import pytest
import torch
from torch import Tensor

from analysis.experiments.ablation import DENOISE, LETTERS
from ssa_theory import (
    DenoisingAttention,
    PositionSchedule,
    RetrievalAttention,
    SingleLayerAttention,
)
from ssa_theory import Tokens as OldTokens
from ssa_theory.mechanism import MECHANISMS, Form, Inputs, Layer, Parameters, Tokens
from ssa_theory.normalizers import Normalizer
from ssa_theory.retrieval_models import RetrievalBatch
from tests.mechanism.cases import (
    DIM,
    FORMS,
    KEYS,
    MEMBERS,
    QUERIES,
    generators,
    inputs_of,
    layer_of,
)

SINGLE = [("vanilla", False), ("ssa", False), ("ssa", True), ("ssa-free", False)]
SINGLE += [("ssa-degree", False)]
DENOISING = {
    "vanilla": "vanilla",
    "value-additive": "ssa-mlp-value",
    "value-tanh": "value-tanh",
    "value-sigmoid": "value-sigmoid",
    "query": "ssa-mlp-query",
    "query-value": "ssa-mlp",
    "key": "ssa-mlp-key",
    "key-bias": "ssa-mlp-key-shift",
    "sink": "gate-and-sink",
}
RETRIEVAL = {"vanilla": "vanilla", "ssa-tanh": "ssa-feature", "ssa-exp": "ssa-feature-exp"}
OF_LETTERS = {
    "vanilla": "vanilla",
    "constant": "ssa-constant",
    "position": "ssa-position",
    "query-frequency": "ssa-feature",
    "key-frequency": "ssa-feature-key",
    "query": "ssa-query",
    "key": "ssa-key",
    "query-key": "ssa-query-key",
    "query-mlp": "ssa-mlp-query",
    "query-key-mlp": "ssa-mlp-query-key",
}
OF_DENOISE = {
    "vanilla": "vanilla",
    "query": "ssa-mlp-query",
    "key": "ssa-mlp-key",
    "value": "ssa-mlp-value",
    "query-key": "ssa-mlp-query-key",
    "query-value": "ssa-mlp",
    "key-value": "ssa-mlp-key-value",
    "query-key-value": "ssa-mlp-query-key-value",
    "query-value-token": "ssa-mlp-token",
    "query-value-position": "ssa-position",
    "query-value-shared": "ssa",
}
SCHEDULES = {
    "constant": "vanilla",
    "ssa": "ssa",
    "released": "released",
    "ssmax": "ssmax",
    "asentmax": "asentmax-position",
    "yarn": "yarn",
    "power": "power",
}


def pair(layer: Layer, old: Parameters, names: dict[str, str]) -> tuple[Parameters, Parameters]:
    """Parameters of both that differ from the start, where both are the same bit for bit.

    names: of the old parameters by those of the new, where they are not alike but for dots.
    """

    def name(key: str) -> str:
        short = key.removeprefix("query.") if "" in names else key
        return names.get(key) or short.replace(".", "_")

    start = layer.initial_parameters(generators())
    assert {name(k) for k in start} == set(old)
    assert all(torch.equal(v, old[name(k)]) for k, v in start.items())
    noise = np.random.default_rng(0)
    new = {k: v + 0.4 * torch.from_numpy(noise.standard_normal(v.shape)) for k, v in start.items()}
    return new, {name(k): v for k, v in new.items()}


def same(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("variant", "position"), SINGLE)
def test_single_layers(variant: str, position: bool) -> None:
    layer = layer_of(variant, "graph-position" if position else "graph")
    model, inputs = SingleLayerAttention(variant, position), inputs_of("graph")
    old = model.initial_parameters(KEYS, DIM, generators())
    new, old = pair(layer, old, {"": "", "query.theta": "log_tau"})
    assert inputs.query is not None
    tokens = OldTokens(inputs.query.vector, inputs.query.labels["degree"], KEYS)
    same(layer.scores(new, inputs), model.logits(old, tokens))
    tau = layer.inverse_temperature("query", new, inputs)
    same(tau, model.inverse_temperature(old, tokens))


@pytest.mark.parametrize("query", ["readout", "last"])
@pytest.mark.parametrize("variant", DENOISING)
def test_denoising(variant: str, query: str) -> None:
    form = "denoise" if query == "readout" else "denoise-last"
    layer, model = layer_of(DENOISING[variant], form), DenoisingAttention(variant, query)
    names = {"weight": "score", "normalizer.sink": "sink", "shift.offset": "key_shift"}
    names |= {f"bias.{k}": f"sink_{k}" for k in ("hidden", "bias", "vector", "offset")}
    new, old = pair(layer, model.initial_parameters(DIM, generators()), names)
    inputs = inputs_of(form)
    assert inputs.keys is not None
    same(layer.output(new, inputs), model.estimate(old, inputs.keys.vector))
    if model.gated:
        gate = layer.inverse_temperature("value", new, inputs)
        same(gate, model.value_gate(old, inputs.keys.vector))


@pytest.mark.parametrize("variant", RETRIEVAL)
def test_retrieval(variant: str) -> None:
    layer, model = layer_of(RETRIEVAL[variant], "retrieval"), RetrievalAttention(variant)
    new, old = pair(layer, model.initial_parameters(DIM, generators()), {"": ""})
    inputs = inputs_of("retrieval")
    assert inputs.query is not None
    assert inputs.keys is not None
    query, log_noise = inputs.query.vector[:, :DIM], inputs.query.feature
    assert log_noise is not None
    both = Tokens(torch.cat([query, log_noise.unsqueeze(1)], 1), log_noise)
    target = torch.zeros(QUERIES, MEMBERS, dtype=torch.long)
    batch = RetrievalBatch(inputs.keys.vector, query, log_noise.exp(), target)
    same(layer.scores(new, Inputs(both, inputs.keys)), model.logits(old, batch))


@pytest.mark.parametrize("variant", OF_LETTERS)
def test_letters(variant: str) -> None:
    form = Form(DIM, features=frozenset({"query", "key"}), position=variant == "position")
    layer, model = Layer(MECHANISMS[OF_LETTERS[variant]], form), LETTERS[variant]
    new, old = pair(layer, model.initial_parameters(DIM, generators()), {})
    inputs = inputs_of("letters")
    assert inputs.query is not None
    wanted = model.logits(old, inputs.query.vector, inputs.query.feature)
    same(layer.scores(new, inputs), wanted)


@pytest.mark.parametrize("variant", OF_DENOISE)
def test_ablations(variant: str) -> None:
    layer, model = layer_of(OF_DENOISE[variant], "denoise-last"), DENOISE[variant]
    new, old = pair(layer, model.initial_parameters(DIM, generators()), {})
    inputs = inputs_of("denoise-last")
    assert inputs.keys is not None
    same(layer.output(new, inputs), model.output(old, inputs.keys.vector))


@pytest.mark.parametrize("variant", SCHEDULES)
def test_schedules(variant: str) -> None:
    layer = layer_of(SCHEDULES[variant], "regression")
    schedule = PositionSchedule(
        variant, FORMS["regression"].trained_length if variant == "yarn" else None
    )
    new, old = pair(layer, schedule.initial_parameters(MEMBERS), {"": ""})
    counts = torch.tensor([9, 3])
    wanted = schedule.inverse_temperature(old, counts)
    for count, row in zip((9.0, 3.0), wanted, strict=True):
        same(layer.inverse_temperature("query", new, Inputs(count=count)), row)
    inputs = Inputs(count=counts.double().unsqueeze(1))
    same(layer.inverse_temperature("query", new, inputs).expand(2, MEMBERS), wanted)


@pytest.mark.parametrize("name", ["sparsemax", "entmax15", "entmax", "top-k", "threshold", "rela"])
def test_rows(name: str) -> None:
    old, new = Normalizer(name, 4 if name == "top-k" else None), MECHANISMS[name].normalizer
    scores = inputs_of("regression").given
    assert scores is not None
    wanted = old.rows(old.initial_parameters(MEMBERS), scores, 1)
    assert torch.equal(new.rows(new.initial("key", Form(DIM), generators()), scores, 1), wanted)
