"""The single-layer ensembles: against the module, against plain matrices, against the exact Bayes loss."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ssa_theory import (
    VARIANTS,
    Queries,
    SingleLayerAttention,
    Tokens,
    cross_entropy,
    log_predictive,
    single_layer,
    train,
)
from tasks import MarkovGraphTask

NODES, DIM, MEMBERS = 5, 3, 4
MODELS = [SingleLayerAttention(v) for v in VARIANTS] + [SingleLayerAttention(v, True) for v in ("ssa", "ssa-mlp")]
NAMES = [m.variant + "+position" * m.position for m in MODELS]
FIELDS = ("target", "weight", "node", "counts")
CHAIN = np.array([[0.5, 0.5, 0, 0], [0.3, 0, 0.7, 0], [0.25, 0.25, 0.25, 0.25], [1.0, 0, 0, 0]])


def random_tokens(seed: int = 0, nodes: int = NODES, dim: int = DIM, members: int = MEMBERS, keys: int = 7) -> Tokens:
    rng = np.random.default_rng(seed)
    embeddings = torch.from_numpy(rng.standard_normal((nodes, dim, members)))
    return Tokens(embeddings, torch.from_numpy(rng.integers(1, nodes + 1, (nodes, members))), keys)


def random_parameters(model: SingleLayerAttention, tokens: Tokens, seed: int = 1) -> dict[str, Tensor]:
    """Parameters that are all away from their start, so that every term takes part."""
    nodes, dim, members = tokens.embeddings.shape
    generators = [np.random.default_rng([seed, m]) for m in range(members)]
    initial = model.initial_parameters(nodes, dim, generators, init_scale=1.0)
    return {
        k: v + 0.6 * torch.from_numpy(np.stack([g.standard_normal(v.shape[:-1]) for g in generators], -1))
        for k, v in initial.items()
    }


def random_queries(tokens: Tokens, seed: int = 2, count: int = 6, prompt: bool = True) -> Queries:
    """Queries with random targets; in the prompt context about half of the counts, and those targets, are zero."""
    rng = np.random.default_rng(seed)
    nodes, _, members = tokens.embeddings.shape
    if not prompt:
        target = rng.dirichlet(np.ones(nodes), (nodes, members)) * rng.integers(0, 2, (nodes, members, nodes))
        target[..., 0] += 0.1
        target /= target.sum(-1, keepdims=True)
        weight = rng.dirichlet(np.ones(nodes), members).T
        return Queries(torch.from_numpy(target.swapaxes(1, 2).copy()), torch.from_numpy(weight.copy()))
    counts = rng.integers(0, 3, (count, nodes, members)) * rng.integers(0, 2, (count, nodes, members))
    counts[:, 0] += 1
    target = rng.random((count, nodes, members)) * (counts > 0)
    return Queries(
        torch.from_numpy(target / target.sum(1, keepdims=True)),
        torch.from_numpy(rng.random((count, members))),
        torch.from_numpy(rng.integers(0, nodes, (count, members))),
        torch.from_numpy(counts.astype(float)),
    )


def plain_logits(model: SingleLayerAttention, parameters: dict[str, Tensor], tokens: Tokens, m: int) -> Tensor:
    """tau_i e_i^T W e_j of one member, with ordinary matrices, token by token."""
    e, p = tokens.embeddings[..., m], {k: v[..., m] for k, v in parameters.items()}
    taus = []
    for i, x in enumerate(e):
        if model.variant == "vanilla":
            tau = torch.tensor(1.0, dtype=e.dtype)
        elif model.variant == "ssa-free":
            tau = p["log_tau"][i].exp()
        elif model.variant == "ssa-degree":
            tau = p["log_tau"][int(tokens.degree[i, m])].exp()
        elif model.variant == "ssa":
            tau = 1 + torch.tanh(p["vector"] @ F.gelu(p["weight"].T @ x))
        else:
            tau = 1 + torch.tanh(p["vector"] @ F.gelu(p["hidden"].T @ x + p["bias"]))
        taus.append(tau + torch.sigmoid(p["alpha"]) * math.log(tokens.keys) if model.position else tau)
    return torch.stack([tau * (e @ (p["weight"].T @ x)) for tau, x in zip(taus, e, strict=True)])


# Products


@pytest.mark.parametrize("limit", [0, 2**30])
@given(
    sizes=st.tuples(*[st.integers(1, 6)] * 4),
    shared=st.sampled_from([(False, False), (True, False), (False, True)]),
    seed=st.integers(0, 2**32),
)
def test_matmul_is_einsum_either_way(
    limit: int, sizes: tuple[int, int, int, int], shared: tuple[bool, bool], seed: int
) -> None:
    i, j, k, members = sizes
    rng = np.random.default_rng(seed)
    a = torch.from_numpy(rng.standard_normal((i, j, 1 if shared[0] else members)))
    b = torch.from_numpy(rng.standard_normal((j, k, 1 if shared[1] else members)))
    wide = [t.expand(*t.shape[:2], members) for t in (a, b)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(single_layer, "_BROADCAST_LIMIT", limit)
        product = single_layer.matmul(a, b)
    torch.testing.assert_close(product, torch.einsum("ijm,jkm->ikm", *wide), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_both_ways_give_the_same_model(model: SingleLayerAttention, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = random_tokens()
    parameters = random_parameters(model, tokens)
    results = []
    for limit in (0, 2**30):
        monkeypatch.setattr(single_layer, "_BROADCAST_LIMIT", limit)
        results.append(model.logits(parameters, tokens))
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)


# Models


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_each_member_is_the_plain_model(model: SingleLayerAttention) -> None:
    tokens = random_tokens()
    parameters = random_parameters(model, tokens)
    logits, tau = model.logits(parameters, tokens), model.inverse_temperature(parameters, tokens)
    for m in range(MEMBERS):
        expected = plain_logits(model, parameters, tokens, m)
        torch.testing.assert_close(logits[..., m], expected, rtol=1e-12, atol=1e-12)
        untempered = tokens.embeddings[..., m] @ parameters["weight"][..., m] @ tokens.embeddings[..., m].T
        torch.testing.assert_close(tau[:, m, None] * untempered, expected, rtol=1e-10, atol=1e-12)
    if model.variant == "vanilla":
        assert torch.equal(tau, torch.ones_like(tau))
    else:
        assert tau.std(0).min() > 0.01


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_the_order_of_members_does_not_matter(model: SingleLayerAttention) -> None:
    tokens = random_tokens()
    parameters = random_parameters(model, tokens)
    order = torch.tensor([2, 0, 3, 1])
    turned = Tokens(tokens.embeddings[..., order], tokens.degree[:, order], tokens.keys)
    logits = model.logits({k: v[..., order] for k, v in parameters.items()}, turned)
    torch.testing.assert_close(logits, model.logits(parameters, tokens)[..., order], rtol=1e-13, atol=1e-13)

    def learned(parameters: dict[str, Tensor], tokens: Tokens, queries: Queries) -> dict[str, Tensor]:
        return train(
            lambda p, _: cross_entropy(model.logits(p, tokens), queries), parameters, steps=15, learning_rate=0.05
        ).parameters

    queries = random_queries(tokens)
    permuted = Queries(
        queries.target[..., order], queries.weight[:, order], queries.node[:, order], queries.counts[..., order]
    )
    straight = learned(parameters, tokens, queries)
    crossed = learned({k: v[..., order] for k, v in parameters.items()}, turned, permuted)
    for name, value in straight.items():
        torch.testing.assert_close(crossed[name], value[..., order], rtol=1e-9, atol=1e-9)
        assert name == "log_tau" or (value - parameters[name]).abs().amin() > 0  # every parameter was trained


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_every_variant_starts_at_vanilla(model: SingleLayerAttention) -> None:
    tokens = random_tokens(keys=1)  # a single key has no position term: log 1 = 0
    generators = [np.random.default_rng(m) for m in range(MEMBERS)]
    parameters = model.initial_parameters(NODES, DIM, generators)
    assert torch.equal(model.inverse_temperature(parameters, tokens), torch.ones(NODES, MEMBERS, dtype=torch.float64))
    vanilla = SingleLayerAttention("vanilla")
    assert torch.equal(model.logits(parameters, tokens), vanilla.logits(parameters, tokens))
    if model.position:
        longer = Tokens(tokens.embeddings, tokens.degree, 9)
        tau = model.inverse_temperature(parameters, longer)
        torch.testing.assert_close(tau, torch.full_like(tau, 1 + 0.5 * math.log(9)))


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_initial_parameters(model: SingleLayerAttention) -> None:
    def initial(seeds: range, scale: float = 0.1) -> dict[str, Tensor]:
        return model.initial_parameters(NODES, DIM, [np.random.default_rng(s) for s in seeds], scale)

    shapes = {
        "vanilla": {},
        "ssa": {"vector": (DIM,)},
        "ssa-mlp": {"hidden": (DIM, DIM), "bias": (DIM,), "vector": (DIM,)},
        "ssa-free": {"log_tau": (NODES,)},
        "ssa-degree": {"log_tau": (NODES + 1,)},
    }[model.variant]
    shapes = {"weight": (DIM, DIM)} | shapes | ({"alpha": ()} if model.position else {})
    many = initial(range(2000))
    assert {k: tuple(v.shape) for k, v in many.items()} == {k: (*s, 2000) for k, s in shapes.items()}
    assert all(v.dtype == torch.float64 for v in many.values())
    deviation = many["weight"].square().mean().sqrt().item()
    assert deviation == pytest.approx(0.1 / math.sqrt(DIM), rel=5 / math.sqrt(2 * 9 * 2000))
    torch.testing.assert_close(initial(range(2), 0.3)["weight"], 3 * many["weight"][..., :2])
    for name, value in initial(range(5, 8)).items():  # a member depends on its own generator only
        assert torch.equal(value, many[name][..., 5:8])
    vanilla = SingleLayerAttention("vanilla").initial_parameters(NODES, DIM, [np.random.default_rng(5)])
    assert torch.equal(vanilla["weight"][..., 0], many["weight"][..., 5])


def test_the_hidden_map_starts_at_the_scale_of_its_width() -> None:
    generators = [np.random.default_rng(seed) for seed in range(20)]
    hidden = SingleLayerAttention("ssa-mlp").initial_parameters(3, 16, generators)["hidden"]
    assert hidden.std().item() == pytest.approx(1 / 4, rel=4 / math.sqrt(2 * hidden.numel()))


@pytest.mark.usefixtures("unchecked")
def test_unknown_variant() -> None:
    with pytest.raises(ValueError, match="unknown variant 'entmax': choose one of vanilla, ssa, ssa-mlp, ssa-free"):
        SingleLayerAttention("entmax")


# Losses


@given(st.integers(0, 2**32), st.integers(1, 8))
def test_counts_are_attention_over_the_tokens_of_the_prompt(seed: int, length: int) -> None:
    """Attend to every place of the prompt, equal tokens included, and sum the attention of equal tokens."""
    rng = np.random.default_rng(seed)
    model = SingleLayerAttention("ssa", position=True)
    tokens = random_tokens(seed, members=2, keys=length)
    parameters = random_parameters(model, tokens)
    logits = model.logits(parameters, tokens)
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
        expected.append(-sum(t * math.log(r) for t, r in zip(target[m], row.tolist(), strict=True) if t > 0))
    counts = torch.from_numpy(np.stack([np.bincount(p, minlength=NODES) for p in prompt], -1)[None].astype(float))
    query = torch.from_numpy(prompt[None, :, -1])
    queries = Queries(torch.from_numpy(target.T[None].copy()), torch.ones(1, 2, dtype=torch.float64), query, counts)
    torch.testing.assert_close(cross_entropy(logits, queries), torch.tensor(expected, dtype=torch.float64))
    asked = torch.stack([logits[prompt[m, -1], :, m] for m in range(2)], -1)[None]
    torch.testing.assert_close(log_predictive(asked, counts).exp()[0], torch.stack(rows, -1))


@given(st.integers(0, 2**32))
def test_vocabulary_cross_entropy_by_loops(seed: int) -> None:
    tokens = random_tokens(seed)
    logits = torch.from_numpy(np.random.default_rng(seed).standard_normal((NODES, NODES, MEMBERS)))
    queries = random_queries(tokens, seed, prompt=False)
    loss = cross_entropy(logits, queries)
    for m in range(MEMBERS):
        expected = 0.0
        for i, j in itertools.product(range(NODES), repeat=2):
            log_p = float(logits[i, j, m]) - math.log(sum(math.exp(z) for z in logits[i, :, m].tolist()))
            expected -= float(queries.weight[i, m] * queries.target[i, j, m]) * log_p
        assert loss[m].item() == pytest.approx(expected)


@pytest.mark.parametrize("weighting", ["uniform", "stationary"])
def test_logits_of_log_p_have_the_bayes_loss_in_the_vocabulary(weighting: str) -> None:
    """The chain has zeros: those logits are -inf, and a target of zero must still contribute zero."""
    task = MarkovGraphTask.from_matrix(CHAIN)
    truth = torch.from_numpy(task.transition_matrix).unsqueeze(-1)
    queries = Queries(truth, torch.from_numpy(task.row_weights(weighting)).unsqueeze(-1))
    bayes = float(task.row_weights(weighting) @ task.row_entropy)
    assert weighting == "uniform" or bayes == pytest.approx(task.entropy_rate)
    assert cross_entropy(truth.log(), queries).item() == pytest.approx(bayes, rel=1e-14)
    assert cross_entropy(truth.log() + 3.0, queries).item() == pytest.approx(bayes, rel=1e-14)
    assert cross_entropy((truth + 0.01).log(), queries).item() > bayes + 1e-3


@pytest.mark.parametrize("answer", ["exact", "sampled"])
def test_logits_of_log_p_have_the_bayes_loss_in_prompts(answer: str) -> None:
    task = MarkovGraphTask.from_matrix(CHAIN)
    prompts = task.sample_prompts(400, 6, np.random.default_rng(0), "stationary")
    exact = task.bayes_predictive(prompts)
    if answer == "exact":
        target = exact
        bayes = float(np.mean([-sum(p * math.log(p) for p in row if p > 0) for row in exact]))
    else:
        target = np.eye(4)[prompts.target]
        bayes = float(-np.log(exact[np.arange(400), prompts.target]).mean())
    assert 0.1 < bayes < task.entropy_rate
    counts = prompts.counts(4)
    assert (counts == 0).any()
    queries = Queries(
        torch.from_numpy(target).unsqueeze(-1),
        torch.full((400, 1), 1 / 400, dtype=torch.float64),
        torch.from_numpy(prompts.query).unsqueeze(-1),
        torch.from_numpy(counts.astype(float)).unsqueeze(-1),
    )
    truth = torch.from_numpy(task.transition_matrix).unsqueeze(-1)
    assert cross_entropy(truth.log(), queries).item() == pytest.approx(bayes, rel=1e-12)
    assert cross_entropy((truth + 0.05).log(), queries).item() > bayes + 1e-3


def test_training_in_prompts_approaches_the_bayes_loss() -> None:
    """With d = K every P* is representable; exact answers to all of many prompts leave only the Bayes loss."""
    task = MarkovGraphTask.from_matrix((CHAIN + 0.1) / 1.4)
    prompts = task.sample_prompts(300, 6, np.random.default_rng(1))
    exact = torch.from_numpy(task.bayes_predictive(prompts)).unsqueeze(-1)
    queries = Queries(
        exact,
        torch.full((300, 1), 1 / 300, dtype=torch.float64),
        torch.from_numpy(prompts.query).unsqueeze(-1),
        torch.from_numpy(prompts.counts(4).astype(float)).unsqueeze(-1),
    )
    bayes = float(torch.special.entr(exact).sum() / 300)
    model = SingleLayerAttention("vanilla")
    tokens = random_tokens(nodes=4, dim=4, members=1)

    def loss(parameters: dict[str, Tensor], _: None) -> Tensor:
        return cross_entropy(model.logits(parameters, tokens), queries)

    parameters = model.initial_parameters(4, 4, [np.random.default_rng(2)])
    before = loss(parameters, None).item() - bayes
    after = loss(train(loss, parameters, steps=600, learning_rate=0.03).parameters, None).item() - bayes
    assert before > 0.1
    assert 0 <= after < 1e-3


def test_a_prompt_without_some_tokens_gives_no_nan() -> None:
    logits = torch.randn(NODES, NODES, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = (1e3 * logits).requires_grad_()
    counts = torch.zeros(3, NODES, 2, dtype=torch.float64)
    counts[:, 1] = 1.0
    counts[0, 3] = 2.0
    target = counts / counts.sum(1, keepdim=True)
    node = torch.tensor([[0, 1], [2, 3], [4, 4]])
    loss = cross_entropy(logits, Queries(target, torch.full((3, 2), 1 / 3, dtype=torch.float64), node, counts))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0
    assert gradient[:, [0, 2, 4]].abs().max() == 0  # tokens that no prompt holds


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_gradients_of_every_variant(model: SingleLayerAttention, prompt: bool) -> None:
    tokens = random_tokens(nodes=4, members=2)
    parameters = random_parameters(model, tokens)
    queries = random_queries(tokens, count=5, prompt=prompt)
    leaves = [p.clone().requires_grad_() for p in parameters.values()]

    def loss(*values: Tensor) -> Tensor:
        return cross_entropy(model.logits(dict(zip(parameters, values, strict=True)), tokens), queries)

    assert torch.autograd.gradcheck(loss, leaves)
    gradients = torch.autograd.grad(loss(*leaves).sum(), leaves)
    assert all(g.abs().amax() > 1e-6 for g in gradients)
    crossed = torch.autograd.grad(loss(*leaves)[0], leaves)  # one member's loss reaches no other member
    assert all(g[..., 1].abs().max() == 0 for g in crossed)


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_single_precision_stays_single(model: SingleLayerAttention) -> None:
    tokens = random_tokens()
    parameters = random_parameters(model, tokens)
    single = Tokens(tokens.embeddings.float(), tokens.degree, tokens.keys)
    logits = model.logits({k: v.float() for k, v in parameters.items()}, single)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), model.logits(parameters, tokens), rtol=1e-4, atol=1e-4)


# A device that is not there


@pytest.mark.parametrize("limit", [0, 2**30])
@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_training_stays_on_the_device(
    model: SingleLayerAttention, prompt: bool, limit: int, monkeypatch: pytest.MonkeyPatch, no_host: TorchDispatchMode
) -> None:
    """The training loop on a pretended CUDA device: no tensor on the host, no value read back."""
    monkeypatch.setattr(single_layer, "_BROADCAST_LIMIT", limit)
    here = random_tokens()
    queries = random_queries(here, prompt=prompt)
    initial = random_parameters(model, here)
    with FakeTensorMode() as fake, torch.no_grad():

        def there(value: Tensor | None) -> Tensor | None:
            return None if value is None else torch.empty(value.shape, dtype=value.dtype, device="cuda")

        tokens = Tokens(there(here.embeddings), there(here.degree), here.keys)
        asked = Queries(*(there(getattr(queries, n)) for n in FIELDS))
        parameters = {k: there(v) for k, v in initial.items()}
        with no_host:
            trained = train(
                lambda p, batch: cross_entropy(model.logits(p, tokens), batch),
                parameters,
                steps=2,
                learning_rate=0.1,
                batches=[asked, asked],
                measure=lambda p: {"tau": model.inverse_temperature(p, tokens)},
                record=[0, 2],
            )
        results = [*trained.parameters.values(), trained.history["tau"], trained.diverged]
        assert len(results) == len(parameters) + 2
        for value in results:
            assert fake.is_our_fake(value)
            assert value.device.type == "cuda"


@pytest.mark.cuda
@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_cpu_and_cuda_agree(model: SingleLayerAttention, prompt: bool) -> None:
    tokens = random_tokens()
    queries = random_queries(tokens, prompt=prompt)
    results = []
    for device in ("cpu", "cuda"):
        there = Tokens(tokens.embeddings.to(device), tokens.degree.to(device), tokens.keys)
        leaves = {k: v.to(device).requires_grad_() for k, v in random_parameters(model, tokens).items()}
        asked = Queries(*(None if (v := getattr(queries, n)) is None else v.to(device) for n in FIELDS))
        loss = cross_entropy(model.logits(leaves, there), asked)
        results.append([loss.detach(), *torch.autograd.grad(loss.sum(), list(leaves.values()))])
    for on_cpu, on_cuda in zip(*results, strict=True):
        torch.testing.assert_close(on_cuda.cpu(), on_cpu, rtol=1e-10, atol=1e-12)
