"""Losses of ensembles, and trained layers: the Bayes loss, and the trap of a saturated gate."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ssa_theory.ensemble import train
from ssa_theory.losses import (
    Queries,
    choice_loss,
    cross_entropy,
    log_predictive,
    squared_distance,
    squared_error,
)
from ssa_theory.mechanism import MECHANISMS, Form, Inputs, Layer, Parameters, Tokens
from tasks import MarkovGraphTask
from tests.mechanism.cases import by_mechanism, fits, generators, inputs_of, layer_of, perturbed

NODES, MEMBERS = 5, 4
CHAIN = np.array([[0.5, 0.5, 0, 0], [0.3, 0, 0.7, 0], [0.25, 0.25, 0.25, 0.25], [1.0, 0, 0, 0]])


@given(st.integers(0, 2**32), st.integers(1, 8))
def test_counts_are_attention_over_the_tokens_of_the_prompt(seed: int, length: int) -> None:
    """Attend to every place of the prompt, equal tokens included; sum that of equal tokens."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.standard_normal((NODES, NODES, 2)))
    prompt = rng.integers(0, NODES, (2, length))  # one prompt a member
    target = rng.dirichlet(np.ones(NODES), 2)
    expected, rows = [], []
    for m in range(2):
        attention = logits[prompt[m, -1], prompt[m], m].softmax(0)
        row = torch.zeros(NODES, dtype=torch.float64)
        for place, token in enumerate(prompt[m]):
            row[token] += attention[place]
        rows.append(row)
        target[m] *= np.bincount(prompt[m], minlength=NODES) > 0
        target[m] /= target[m].sum()
        pairs = zip(target[m], row.tolist(), strict=True)
        expected.append(-sum(t * math.log(r) for t, r in pairs if t > 0))
    counts = np.stack([np.bincount(p, minlength=NODES) for p in prompt], -1)[None].astype(float)
    queries = Queries(
        torch.from_numpy(target.T[None].copy()),
        torch.ones(1, 2, dtype=torch.float64),
        torch.from_numpy(prompt[None, :, -1]),
        torch.from_numpy(counts),
    )
    found = cross_entropy(logits, queries)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    asked = torch.stack([logits[prompt[m, -1], :, m] for m in range(2)], -1)[None]
    predictive = log_predictive(asked, torch.from_numpy(counts)).exp()[0]
    torch.testing.assert_close(predictive, torch.stack(rows, -1))


def test_losses_by_loops() -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.standard_normal((NODES, NODES, MEMBERS)))
    target = rng.dirichlet(np.ones(NODES), (NODES, MEMBERS)).swapaxes(1, 2).copy()
    target[0, 1] = 0.0
    weight = rng.dirichlet(np.ones(NODES), MEMBERS).T.copy()
    choice = rng.integers(0, NODES, (NODES, MEMBERS))
    loss = cross_entropy(logits, Queries(torch.from_numpy(target), torch.from_numpy(weight)))
    chosen = choice_loss(logits, torch.from_numpy(choice))
    error = squared_error(logits, torch.from_numpy(target))
    brier = squared_distance(logits, torch.from_numpy(target))
    for m in range(MEMBERS):
        z = logits[..., m].numpy()
        log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
        # Targets sum to one but for the row whose first was set to 0: the loss is as if they did.
        expected = sum(
            weight[i, m] * (np.log(np.exp(z[i]).sum()) - target[i, :, m] @ z[i])
            - weight[i, m] * z[i].max() * (1 - target[i, :, m].sum())
            for i in range(NODES)
        )
        assert loss[m].item() == pytest.approx(expected)
        wanted = -np.mean([log_p[i, choice[i, m]] for i in range(NODES)])
        assert chosen[m].item() == pytest.approx(wanted)
        pairs = itertools.product(range(NODES), repeat=2)
        squares = sum((z[i, j] - target[i, j, m]) ** 2 for i, j in pairs)
        assert error[m].item() == pytest.approx(squares / NODES**2)
        assert brier[m].item() == pytest.approx(squares / NODES)


@pytest.mark.parametrize("weighting", ["uniform", "stationary"])
def test_logits_of_log_p_have_the_bayes_loss_in_the_vocabulary(weighting: str) -> None:
    """The chain has zeros: those logits are -inf, and a target of zero must contribute zero."""
    task = MarkovGraphTask.from_matrix(CHAIN)
    truth = torch.from_numpy(task.transition_matrix).unsqueeze(-1)
    queries = Queries(truth, torch.from_numpy(task.row_weights(weighting)).unsqueeze(-1))
    bayes = float(task.row_weights(weighting) @ task.row_entropy)
    assert weighting == "uniform" or bayes == pytest.approx(task.entropy_rate)
    assert cross_entropy(truth.log(), queries).item() == pytest.approx(bayes, rel=1e-14)
    assert cross_entropy(truth.log() + 3.0, queries).item() == pytest.approx(bayes, rel=1e-14)
    assert cross_entropy((truth + 0.01).log(), queries).item() > bayes + 1e-3


def prompts(answer: str, chain: np.ndarray, count: int) -> tuple[Queries, float]:
    """Queries of many prompts of a chain, and the Bayes loss."""
    task = MarkovGraphTask.from_matrix(chain)
    drawn = task.sample_prompts(count, 6, np.random.default_rng(0), "stationary")
    exact = task.bayes_predictive(drawn)
    if answer == "exact":
        target, bayes = exact, float(torch.special.entr(torch.from_numpy(exact)).sum() / count)
    else:
        target = np.eye(4)[drawn.target]
        bayes = float(-np.log(exact[np.arange(count), drawn.target]).mean())
    queries = Queries(
        torch.from_numpy(target).unsqueeze(-1),
        torch.full((count, 1), 1 / count, dtype=torch.float64),
        torch.from_numpy(drawn.query).unsqueeze(-1),
        torch.from_numpy(drawn.counts(4).astype(float)).unsqueeze(-1),
    )
    return queries, bayes


@pytest.mark.parametrize("answer", ["exact", "sampled"])
def test_logits_of_log_p_have_the_bayes_loss_in_prompts(answer: str) -> None:
    queries, bayes = prompts(answer, CHAIN, 400)
    assert queries.counts is not None
    assert (queries.counts == 0).any()
    assert 0.1 < bayes < MarkovGraphTask.from_matrix(CHAIN).entropy_rate
    truth = torch.from_numpy(CHAIN).unsqueeze(-1)
    assert cross_entropy(truth.log(), queries).item() == pytest.approx(bayes, rel=1e-12)
    assert cross_entropy((truth + 0.05).log(), queries).item() > bayes + 1e-3


def test_training_in_prompts_approaches_the_bayes_loss() -> None:
    """With d = K every P* is representable: only the Bayes loss is left."""
    queries, bayes = prompts("exact", (CHAIN + 0.1) / 1.4, 300)
    tokens = Tokens(torch.from_numpy(np.random.default_rng(0).standard_normal((4, 4, 1))))
    layer = Layer(MECHANISMS["vanilla"], Form(4))

    def loss(parameters: Parameters, _: None) -> Tensor:
        return cross_entropy(layer.scores(parameters, Inputs(tokens, tokens)), queries)

    start = layer.initial_parameters(generators(1))
    before = loss(start, None).item() - bayes
    trained = train(loss, start, steps=600, learning_rate=0.03).parameters
    assert before > 0.1
    assert 0 <= loss(trained, None).item() - bayes < 1e-3


def test_a_prompt_without_some_tokens_gives_no_nan() -> None:
    noise = torch.Generator().manual_seed(0)
    logits = 1e3 * torch.randn(NODES, NODES, 2, generator=noise, dtype=torch.float64)
    logits.requires_grad_()
    counts = torch.zeros(3, NODES, 2, dtype=torch.float64)
    counts[:, 1] = 1.0
    counts[0, 3] = 2.0
    node, weight = torch.tensor([[0, 1], [2, 3], [4, 4]]), torch.full((3, 2), 1 / 3).double()
    queries = Queries(counts / counts.sum(1, keepdim=True), weight, node, counts)
    loss = cross_entropy(logits, queries)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0
    assert gradient[:, [0, 2, 4]].abs().max() == 0  # tokens that no prompt holds
    assert cross_entropy(logits.float(), queries.to(torch.float32)).dtype == torch.float32


@by_mechanism
def test_the_first_step_follows_the_gradient_of_every_parameter(name: str) -> None:
    """Adam's first step is against the sign of each gradient, whatever its memory layout."""
    form = next(f for f in ("denoise-last", "graph", "letters", "regression") if fits(name, f))
    layer, inputs = layer_of(name, form), inputs_of(form)
    start = {k: 0.7 * v for k, v in perturbed(layer, seed=4).items()}

    def loss(parameters: Parameters, _: None) -> Tensor:
        found = layer.output(parameters, inputs) if layer.form.values else None
        rows = layer.rows(parameters, inputs) if found is None else found
        return (rows - 0.2 * torch.arange(rows.shape[1])[:, None]).square().mean((0, 1))

    leaves = {k: v.clone().requires_grad_() for k, v in start.items()}
    gradients = torch.autograd.grad(loss(leaves, None).sum(), list(leaves.values()))
    trained = train(loss, start, steps=1, learning_rate=0.01)
    for (key, before), gradient in zip(start.items(), gradients, strict=True):
        clear = gradient.abs() > 1e-5
        assert clear.any(), key
        step = (trained.parameters[key] - before)[clear]
        torch.testing.assert_close(step, -0.01 * gradient.sign()[clear], rtol=1e-2, atol=0.0)


def denoising(steps: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """d = 4, 6 tokens, half of them relevant, fillers three times as far."""
    for step in range(steps):
        noise = torch.Generator().manual_seed(step)
        y = torch.randn(batch, 1, 4, 2, generator=noise)
        relevant = torch.rand(batch, 6, 1, 2, generator=noise) < 0.5
        around = torch.randn(batch, 6, 4, 2, generator=noise)
        yield torch.where(relevant, y + 0.3 * around, 3 * around), y[:, 0]


@pytest.mark.parametrize("value_scale", [1.0, 1e-3])
def test_small_value_maps_saturate_the_gate(value_scale: float) -> None:
    """From a small W_v the gate runs to its upper bound and stays; from the identity it closes."""
    form = Form(4, constant_query=True, values=True, over_root_dim=True)
    layer = Layer(MECHANISMS["value-tanh"], form)
    start = {k: v.float() for k, v in layer.initial_parameters(generators(2)).items()}
    start["value"] = start["value"] * value_scale

    def loss(parameters: Parameters, batch: tuple[Tensor, Tensor]) -> Tensor:
        return squared_error(layer.output(parameters, Inputs(None, Tokens(batch[0]))), batch[1])

    rate = 0.05 if value_scale == 1.0 else 0.5
    trained = train(loss, start, steps=120, learning_rate=rate, batches=denoising(120, 128))
    tokens, target = next(denoising(1, 2000))
    score = layer.token_score("value", trained.parameters, Inputs(None, Tokens(tokens)))
    still = layer.selective("value").link.slope(score) < 1e-3
    assert not trained.diverged.any()
    if value_scale == 1.0:
        assert ((still & (score > 0)).double().mean((0, 1)) < 0.2).all()
        assert (loss(trained.parameters, (tokens, target)) < 0.45).all()
    else:
        assert (still.double().mean((0, 1)) > 0.9).all()
