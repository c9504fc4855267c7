"""Prediction: the exact Bayes baselines of Markov chains, noisy retrieval and kernel regression."""

import numpy as np
import torch
from scipy.special import entr, log_softmax

from analysis.properties.base import (
    EPS,
    Choice,
    Integer,
    Number,
    Violation,
    at_most,
    collect,
    equal,
    exact,
    states,
)
from ssa_theory.losses import Queries, cross_entropy, log_predictive
from ssa_theory.mechanism import MECHANISMS, Form, Inputs, Layer, Tokens
from tasks import KernelRegressionTask, MarkovGraphTask, NoisyRetrievalTask, Prompts
from tasks.markov import RowWeights

_MARKOV = "Markov chains; self-attention as a context-conditioned chain (2402.13512)"
_CHAIN = {"nodes": Integer(2, 8), "density": Number(0.1, 1.0)}


def _chain(generator: np.random.Generator, nodes: int, density: float) -> np.ndarray:
    """A random chain: each edge present with probability `density`, and one edge of every node
    certainly.
    """
    present = generator.random((nodes, nodes)) < density
    present[np.arange(nodes), generator.integers(nodes, size=nodes)] = True
    weights = present * generator.exponential(size=(nodes, nodes))
    return weights / weights.sum(1, keepdims=True)


def _connected(generator: np.random.Generator, nodes: int, density: float) -> MarkovGraphTask:
    """The same mixed with a directed ring through all nodes, hence with a unique stationary
    distribution.
    """
    ring = np.roll(np.eye(nodes), 1, axis=1)
    return MarkovGraphTask.from_matrix((_chain(generator, nodes, density) + ring) / 2)


@states(_MARKOV, **_CHAIN)
def stationary_distribution(generator: np.random.Generator, nodes: int, density: float) -> None:
    """pi P = pi, pi >= 0, total one, positive exactly on the closed class of nodes; refused where
    there are several.
    """
    matrix = _chain(generator, nodes, density)
    task = MarkovGraphTask.from_matrix(matrix)
    reach = np.linalg.matrix_power((matrix > 0) + np.eye(nodes), nodes) > 0
    closed = {
        tuple(row) for i, row in enumerate(reach.tolist()) if reach[row, i].all()
    }  # all it reaches lead back
    if len(closed) > 1:
        try:
            _ = task.stationary_distribution
        except ValueError:
            return
        raise Violation(f"a chain with {len(closed)} closed classes got a stationary distribution")
    pi = task.stationary_distribution
    equal(pi @ matrix, pi, 4 * nodes * EPS, "pi P")
    equal(pi.sum(), 1.0, nodes * EPS, "sum of pi")
    at_most(0.0, pi, 0.0, "zero below pi")
    exact(((pi > 0) == np.array(closed.pop())).all(), "pi is positive exactly on the closed class")


@states(_MARKOV, nodes=Integer(2, 6), density=_CHAIN["density"], length=Integer(2, 5))
def entropy_rate(generator: np.random.Generator, nodes: int, density: float, length: int) -> None:
    """H* = H(X_1..X_n) - H(X_1..X_(n-1)) in the stationary chain, for every n >= 2, over all its
    paths.
    """
    task = _connected(generator, nodes, density)
    law = task.stationary_distribution
    entropies = []
    for _ in range(length):
        entropies.append(entr(law).sum())
        law = law[..., None] * task.transition_matrix
    # Entropies sum up to nodes^length terms of at most length log(nodes) in all, each off by its
    # factors' roundings.
    slack = 8 * length * EPS * (length * np.log(nodes) + 1)
    slack += EPS * np.log2(float(nodes) ** length) * entropies[-1]  # pairwise summation
    equal(entropies[-1] - entropies[-2], task.entropy_rate, slack, "growth of the block entropy")
    at_most(
        task.entropy_rate,
        np.log(task.out_degree.max()),
        8 * nodes * EPS,
        "entropy rate and log of the largest degree",
    )


@states(
    _MARKOV,
    **_CHAIN,
    weighting=Choice(("uniform", "stationary")),
    log10_scale=Number(-3.0, 1.0, 0.0),
)
def gap_is_never_negative(
    generator: np.random.Generator,
    nodes: int,
    density: float,
    weighting: RowWeights,
    log10_scale: float,
) -> None:
    """No attention row has a lower cross-entropy than the chain's own row: the gap to H* is the
    mean Kullback-Leibler divergence, zero at the logits log P*.
    """
    task = _connected(generator, nodes, density)
    target, weight = task.transition_matrix, task.row_weights(weighting)
    with np.errstate(divide="ignore"):
        truth = np.log(target)
    other = np.where(target > 0, truth, -1.0) + 10**log10_scale * generator.standard_normal(
        target.shape
    )
    logits = torch.from_numpy(np.stack([truth, other], -1))
    queries = Queries(torch.from_numpy(target)[..., None], torch.from_numpy(weight)[:, None])
    best, loss = cross_entropy(logits, queries).tolist()
    entropy = float(weight @ task.row_entropy)
    slack = 16 * nodes * EPS * (1 + float(np.abs(other).max()) + float(-truth[target > 0].min()))
    equal(best, entropy, slack, "cross-entropy of the logits log P*")
    ratio = np.where(target > 0, np.where(target > 0, truth, 0.0) - log_softmax(other, 1), 0.0)
    divergence = float(weight @ (target * ratio).sum(1))
    equal(loss - entropy, divergence, slack, "gap, and the mean divergence")
    at_most(
        entropy, loss, slack, "entropy of the rows, and the cross-entropy of another prediction"
    )


@states(_MARKOV, **_CHAIN, length=Integer(1, 8), share=Number(0.01, 1.0, 1.0))
def prompt_prediction(
    generator: np.random.Generator, nodes: int, density: float, length: int, share: float
) -> None:
    """Given a prompt, attention with the logits log P* that counts equal tokens is the Bayes
    prediction m_j P*_ij / sum; mixing anything into it raises the expected log loss.
    """
    task = _connected(generator, nodes, density)
    tokens = generator.integers(nodes, size=(1, length))
    follower = int(np.flatnonzero(task.transition_matrix[tokens[0, -1]])[0])
    tokens = np.concatenate([[[follower]], tokens], axis=1)  # a next token exists
    prompts = Prompts(tokens, np.zeros(1, dtype=np.int64))
    bayes, counts = task.bayes_predictive(prompts), prompts.counts(nodes)
    with np.errstate(divide="ignore"):
        logits = torch.from_numpy(np.log(task.transition_matrix[prompts.query])).unsqueeze(-1)
    predicted = log_predictive(
        logits, torch.from_numpy(counts.astype(np.float64)).unsqueeze(-1)
    ).exp()[..., 0]
    slack = (
        8 * nodes * EPS * (1 + float(-logits[torch.isfinite(logits)].min()) + np.log(length + 1))
    )
    equal(predicted, bayes, slack, "attention that counts, and the Bayes prediction")
    attended = np.bincount(
        tokens[0], weights=task.transition_matrix[prompts.query[0], tokens[0]], minlength=nodes
    )
    equal(
        bayes[0],
        attended / attended.sum(),
        slack,
        "Bayes prediction, and a sum over the places of the prompt",
    )
    mixed = (1 - share) * bayes[0] + share * generator.dirichlet(np.ones(nodes))
    possible = bayes[0] > 0
    loss = -(bayes[0][possible] * np.log(mixed[possible])).sum()
    at_most(
        entr(bayes[0]).sum(),
        loss,
        8 * nodes * EPS * (1 + loss),
        "entropy, and the log loss of a mixture",
    )


def _one_member(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).unsqueeze(-1)


@states(
    "noisy retrieval: Bayes is attention with tau = 1/s^2",
    dim=Integer(1, 8),
    keys=Integer(1, 16),
    log_noise=Number(-3.0, 3.0, 0.0),
    log_other=Number(-3.0, 3.0, 0.0),
)
def retrieval_posterior(
    generator: np.random.Generator, dim: int, keys: int, log_noise: float, log_other: float
) -> None:
    """The posterior of the target is softmax(q . k / s^2), the densities' ratio; attention with tau
    = 1/s^2 attains it, and every other temperature has a larger expected cross-entropy.
    """
    noise = float(np.exp(log_noise))
    task = NoisyRetrievalTask(dim=dim, keys=keys, noise_levels=(noise,))
    batch = task.sample(3, generator)
    log_p = task.log_posterior(batch)
    square = ((batch.query[:, None] - batch.keys) ** 2).sum(-1) / (2 * noise**2)
    size = float(square.max()) + (1 + float(np.abs(batch.query).max())) * dim / noise**2
    slack = 8 * (dim + keys) * EPS * (1 + size)
    equal(
        np.exp(log_p),
        np.exp(log_softmax(-square, 1)),
        slack,
        "posterior, and the ratio of densities",
    )
    layer = Layer(
        MECHANISMS["ssa-feature-exp"], Form(dim, query_dim=dim + 1, features=frozenset({"query"}))
    )
    scores = layer.scores(
        {
            "weight": _one_member(np.concatenate([np.eye(dim), np.zeros((1, dim))])),
            "query.slope": torch.tensor([-2.0], dtype=torch.float64),
            "query.offset": torch.zeros(1, dtype=torch.float64),
        },
        Inputs(
            Tokens(
                _one_member(np.concatenate([batch.query, np.log(batch.noise)[:, None]], 1)),
                _one_member(np.log(batch.noise)),
            ),
            Tokens(_one_member(batch.keys)),
        ),
    )
    equal(
        scores[..., 0].softmax(1),
        np.exp(log_p),
        slack,
        "attention with tau = 1/s^2, and the posterior",
    )
    dots = np.einsum("skd,sd->sk", batch.keys, batch.query)
    entropy = entr(np.exp(log_p)).sum(1)
    other = -(np.exp(log_p) * log_softmax(np.exp(log_other) * dots, axis=1)).sum(1)
    at_most(
        entropy,
        other,
        slack * (1 + other + np.log(keys)),
        "posterior entropy, and cross-entropy at another tau",
    )


@states(
    "growing contexts: attention is kernel regression, Bayes the Gaussian process posterior",
    dim=Integer(1, 5),
    length=Integer(1, 10),
    tau=Number(0.0, 50.0, 1.0),
    length_scale=Number(0.3, 2.0, 1.0),
    noise=Number(0.1, 2.0, 1.0),
)
def no_attention_beats_the_posterior(
    generator: np.random.Generator,
    dim: int,
    length: int,
    tau: float,
    length_scale: float,
    noise: float,
) -> None:
    """Given the keys, no attention over the values has a lower risk than the Gaussian process
    posterior, whose own weights attain it; one more pair never raises the Bayes risk.
    """
    task = KernelRegressionTask(dim, length_scale, noise)
    contexts = task.sample_contexts(1, length, generator, queries=2)
    bayes = task.bayes_variance(contexts)
    square = ((contexts.keys[0][:, None] - contexts.keys[0]) ** 2).sum(-1)
    covariance = np.exp(-square / (2 * length_scale**2)) + noise**2 * np.eye(length)
    condition = (
        length + noise**2
    ) / noise**2  # eigenvalues of K + sigma^2 I lie in [sigma^2, n + sigma^2]
    slack = 16 * length * EPS * (condition + dim / length_scale**2)
    risk = task.linear_risk(contexts, task.attention(contexts, np.array([tau])))[:, 0]
    at_most(bayes[..., -1], risk, slack * (1 + condition), "Bayes risk, and risk of attention")
    cross = task.kernel(contexts.query[0], contexts.keys[0])
    weights = np.linalg.solve(covariance, cross.T).T
    equal(
        task.linear_risk(contexts, weights[None, None])[:, 0],
        bayes[..., -1],
        slack * (1 + condition),
        "Bayes risk",
    )
    at_most(bayes[..., 1:], bayes[..., :-1], slack, "Bayes risk with one more pair")
    at_most(0.0, bayes, slack, "zero below the Bayes risk")


PROPERTIES = collect(globals())
