"""Workloads of the graph problem: the rows of a transition matrix, and prompts."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from analysis.bench import losses
from analysis.bench.operations import (
    Work,
    adam,
    added,
    gelu,
    link,
    product,
    row_loss,
    scale,
    softmax,
    taken,
)
from analysis.bench.workload import Arrays, Start, Workload, initial, split, stack, training
from analysis.problems.graph import GraphProblem
from analysis.problems.heads import ClassifierHead, Head, RowHead
from analysis.problems.rows import RowBlock
from ssa_theory.losses import Queries
from ssa_theory.mechanism import MECHANISMS, VANILLA, Inputs, Layer, Tokens
from ssa_theory.seeds import Stream, member_generator

NODES, DIM = 8, 4
PROMPTS, PROMPT_LENGTH = 64, 16  # a step, as in the graph experiment
TRANSITIONS = 64  # a step of fresh data


def _embeddings(seeds: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Embeddings of uniform directions: the law of `unit_embeddings`, normalised for all models at
    once, as a million models want their data in seconds.
    """
    drawn = [member_generator(s, Stream.EMBEDDING).standard_normal((NODES, DIM)) for s in seeds]
    return F.normalize(stack(drawn, device, torch.float64), dim=1).to(dtype)


def _row_block(problem: GraphProblem, head: Head, embeddings: Tensor, queries: Queries) -> RowBlock:
    """A block of the graph problem, whose data are in the precision of training."""
    tokens = Tokens(embeddings)
    inputs = Inputs(tokens, tokens, count=float(problem.keys))
    members, once = range(embeddings.shape[-1]), training(1, embeddings.dtype)
    return RowBlock(members, embeddings.device, inputs, queries.target, queries, once, head=head)


def _query_work(nodes: int, dim: int) -> Work:
    """tau_i = 1 + tanh(w . gelu(q_i)), and tau_i q_i, for which q is used twice."""
    score = gelu(nodes * dim) + product(nodes, dim, 1, 2) + link(nodes)
    return score + scale(nodes, dim, 2) + added(nodes * dim) + adam(dim)


_SCORES = product(NODES, DIM, DIM, 1) + product(NODES, DIM, NODES, 1) + adam(DIM**2)
"""E W E^T and the update of W."""
_SSA_SCORES = _SCORES + _query_work(NODES, DIM)
_CLASSIFIED = (
    _SSA_SCORES
    + softmax(NODES, NODES)
    + product(NODES, NODES, DIM, 1)
    + product(NODES, DIM, DIM, 2)
    + product(NODES, DIM, NODES, 2)
    + adam(DIM**2 + NODES * DIM)
)


def _vocabulary(
    mechanism: str, head: Head, work: Work, loss: losses.Loss
) -> Callable[[str], Workload]:
    return partial(_of_vocabulary, mechanism, head, work, loss)


def _of_vocabulary(
    mechanism: str, head: Head, scores: Work, loss: losses.Loss, name: str
) -> Workload:
    problem = GraphProblem(nodes=NODES, dim=DIM)
    layer = Layer(MECHANISMS[mechanism], replace(problem.form, values=head.values))
    task = problem.tasks([0])[0]  # the graph is the same for every seed

    def frequencies(seed: int, batches: int) -> np.ndarray:
        """How often each pair of node and next node was drawn, by batch."""
        node, following = task.sample_transitions(
            TRANSITIONS * batches, member_generator(seed, Stream.DATA)
        )
        place = np.arange(TRANSITIONS * batches) // TRANSITIONS * NODES + node
        counts = np.bincount(place * NODES + following, minlength=batches * NODES**2)
        return counts.reshape(batches * NODES, NODES).astype(np.float64)

    def make(seeds: Sequence[int], device: torch.device, dtype: torch.dtype, batches: int) -> Start:
        embeddings = _embeddings(seeds, device, dtype)
        target = torch.from_numpy(task.transition_matrix).to(device, dtype)
        weight = torch.full_like(target[0], 1 / NODES)
        members = embeddings.shape[-1]
        exact = Queries(
            target.unsqueeze(-1).expand(-1, -1, members), weight.unsqueeze(-1).expand(-1, members)
        )
        block = _row_block(problem, head, embeddings, exact)

        def ensemble_loss(parameters: Arrays, batch: Arrays) -> Tensor:
            queries = Queries(**batch) if batch else None
            return block.loss(layer, parameters, queries)

        pool: list[Arrays] = [{}]
        if batches > 1:
            counts = stack([frequencies(s, batches) for s in seeds], device, dtype)
            drawn = counts.sum(1)
            pool = split(
                {"target": counts / drawn.clamp(min=1).unsqueeze(1), "weight": drawn / TRANSITIONS},
                batches,
            )
        first = initial(partial(block.initial_parameters, layer), seeds, device, dtype)
        shared = {"target": target, "weight": weight}
        return Start(first, {"embeddings": embeddings}, shared, pool, ensemble_loss)

    about = (
        f"{mechanism}, graded graph of {NODES} nodes, d = {DIM}, every token once as key, exact "
        f"cross-entropy (fresh data: of the frequencies of {TRANSITIONS} transitions)"
    )
    activations = 3 * NODES * DIM + 2 * NODES**2
    if head.values:
        about += ", of a learned classifier on the layer's output"
        activations += 4 * NODES * DIM + 2 * NODES**2
    work = scores + row_loss(NODES, NODES)
    return Workload(name, about, 100, work, activations, make, loss)


def _prompt(name: str) -> Workload:
    problem = GraphProblem(
        nodes=NODES, dim=DIM, context="prompt", prompt_length=PROMPT_LENGTH, batch_size=PROMPTS
    )
    layer, task = problem.layer(MECHANISMS["ssa"]), problem.tasks([0])[0]

    def make(seeds: Sequence[int], device: torch.device, dtype: torch.dtype, batches: int) -> Start:
        drawn = [
            task.sample_prompts(PROMPTS * batches, PROMPT_LENGTH, member_generator(s, Stream.DATA))
            for s in seeds
        ]
        counts = [p.counts(NODES).astype(np.float64) for p in drawn]
        pool = {
            "node": stack([p.query for p in drawn], device, dtype),
            "target": stack([task.bayes_predictive(p) for p in drawn], device, dtype),
            "counts": stack(counts, device, dtype),
        }
        embeddings = _embeddings(seeds, device, dtype)

        def queries(batch: Arrays) -> Queries:
            weight = torch.full_like(batch["target"][:, 0], 1 / PROMPTS)
            return Queries(batch["target"], weight, batch["node"], batch["counts"])

        steps = split(pool, batches)
        block = _row_block(problem, RowHead(), embeddings, queries(steps[0]))

        def ensemble_loss(parameters: Arrays, batch: Arrays) -> Tensor:
            return block.loss(layer, parameters, queries(batch))

        first = initial(layer.initial_parameters, seeds, device, dtype)
        return Start(first, {"embeddings": embeddings}, {}, steps, ensemble_loss)

    about = (
        f"ssa, graded graph of {NODES} nodes, d = {DIM}, {PROMPTS} prompts of {PROMPT_LENGTH} "
        "tokens, exact cross-entropy"
    )
    activations = 3 * NODES * DIM + 2 * PROMPTS * NODES
    # log m is added to the rows; the counts themselves could be given as their logarithms.
    rows = taken(PROMPTS, NODES, NODES) + added(PROMPTS * NODES)
    work = _SSA_SCORES + rows + row_loss(PROMPTS, NODES)
    return Workload(name, about, 50, work, activations, make, losses.prompt)


GRAPH_WORKLOADS: dict[str, Callable[[str], Workload]] = {
    "graph": _vocabulary(VANILLA, RowHead(), _SCORES, losses.graph),
    "graph-ssa": _vocabulary("ssa", RowHead(), _SSA_SCORES, losses.graph),
    "graph-classifier": _vocabulary("ssa-query", ClassifierHead(), _CLASSIFIED, losses.classifier),
    "prompt": _prompt,
}
"""By name."""
