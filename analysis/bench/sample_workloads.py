"""Workloads of problems that draw samples: denoising, retrieval and kernel regression."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from analysis.bench import losses
from analysis.bench.operations import (
    adam,
    choice_loss,
    gelu,
    link,
    product,
    scale,
    shift,
    softmax,
    squared_error,
)
from analysis.bench.workload import Arrays, Start, Workload, initial, split, stack, training
from analysis.problems.denoise import DenoiseProblem
from analysis.problems.kernel_regression import POOL_QUERIES, KernelRegressionProblem
from analysis.problems.retrieval import RetrievalProblem
from ssa_theory.losses import squared_error as mean_squared_error
from ssa_theory.mechanism import MECHANISMS, Inputs, Tokens
from ssa_theory.seeds import Stream, member_generator

SAMPLES = 64  # a step, as in the denoising experiment
QUERIES = 32  # a step, as in the experiments of retrieval and of kernel regression


def _denoise(name: str) -> Workload:
    problem = DenoiseProblem(batch_size=SAMPLES)
    task, layer = problem.task, problem.layer(MECHANISMS["ssa-mlp-value"])

    def make(seeds: Sequence[int], device: torch.device, dtype: torch.dtype, batches: int) -> Start:
        drawn = [task.sample(SAMPLES * batches, member_generator(s, Stream.DATA)) for s in seeds]
        pool = {
            "tokens": stack([d.tokens for d in drawn], device, dtype),
            "target": stack([d.target for d in drawn], device, dtype),
        }

        def loss(parameters: Arrays, batch: Arrays) -> Tensor:
            inputs = problem.inputs(batch["tokens"])
            return mean_squared_error(layer.output(parameters, inputs), batch["target"])

        first = initial(layer.initial_parameters, seeds, device, dtype)
        return Start(first, {}, {}, split(pool, batches), loss)

    about = (
        f"value temperature, {SAMPLES} samples of {task.length} tokens in {task.dim} dimensions, "
        "squared error"
    )
    tokens, dim = SAMPLES * task.length, task.dim
    width = 2 * dim
    work = (
        product(tokens, dim, 1, 1)
        + softmax(SAMPLES, task.length)
        + product(tokens, dim, width, 1)
        + shift(tokens, width)
        + gelu(tokens * width)
        + product(tokens, width, 1, 2)
        + shift(tokens, 1)
        + link(tokens)
        + shift(tokens, 1)
        + scale(tokens, 1, 2)
        + SAMPLES * product(dim, task.length, 1, 1)
        + product(SAMPLES, dim, dim, 2)
        + squared_error(SAMPLES * dim)
        + adam(dim + dim**2 + dim * width + 2 * width + 2)
    )
    return Workload(name, about, 25, work, tokens * (2 * width + 4), make, losses.denoise)


def _retrieval(name: str) -> Workload:
    problem = RetrievalProblem(batch_size=QUERIES)
    layer = problem.layer(MECHANISMS["ssa-feature"])

    def make(seeds: Sequence[int], device: torch.device, dtype: torch.dtype, batches: int) -> Start:
        drawn = training(batches, dtype)
        block = problem.block(seeds, drawn, device)
        pool: list[Arrays] = []
        for inputs, target in block.batches(drawn):
            query, keys = inputs.query, inputs.keys
            assert query is not None  # of this problem all three are there
            assert query.feature is not None
            assert keys is not None
            own = {"token": query.vector, "feature": query.feature, "keys": keys.vector}
            pool.append(own | {"target": target})

        def loss(parameters: Arrays, batch: Arrays) -> Tensor:
            query = Tokens(batch["token"], batch["feature"])
            inputs = Inputs(query, Tokens(batch["keys"]), count=float(problem.keys))
            return block.loss(layer, parameters, (inputs, batch["target"]))

        first = initial(layer.initial_parameters, seeds, device, dtype)
        return Start(first, {}, {}, pool, loss)

    keys, dim = problem.keys, problem.dim
    about = (
        f"ssa-feature, {QUERIES} queries to {keys} keys each in {dim} dimensions, cross-entropy of "
        "the sampled answer"
    )
    work = (
        product(QUERIES, dim + 1, dim, 1)
        + product(QUERIES, 1, 1, 1)
        + shift(QUERIES, 1)
        + link(QUERIES)
        + scale(QUERIES, dim, 2)
        + QUERIES * product(keys, dim, 1, 1)
        + choice_loss(QUERIES, keys)
        + adam((dim + 1) * dim + 2)
    )
    activations = QUERIES * (2 * keys + 3 * dim)
    return Workload(name, about, 50, work, activations, make, losses.retrieval)


def _kernel_regression(name: str) -> Workload:
    plain = KernelRegressionProblem(batch_size=QUERIES)
    layer, lengths = plain.layer(MECHANISMS["ssa-position"]), plain.train_lengths

    def make(seeds: Sequence[int], device: torch.device, dtype: torch.dtype, batches: int) -> Start:
        contexts = batches * QUERIES // POOL_QUERIES
        problem = KernelRegressionProblem(batch_size=QUERIES, contexts=contexts)
        block = problem.block(seeds, training(batches, dtype), device)
        pool: list[Arrays] = [
            {"given": given, "values": values, "target": target}
            for given, values, target in block.pool
        ]

        def loss(parameters: Arrays, batch: Arrays) -> Tensor:
            parts = (batch["given"], batch["values"], batch["target"])
            return block.loss(layer, parameters, parts)

        first = initial(layer.initial_parameters, seeds, device, dtype)
        return Start(first, {}, {}, pool, loss)

    about = (
        f"ssa-position, {QUERIES} queries with their first {', '.join(map(str, lengths))} keys, "
        "squared errors"
    )
    work = adam(2)
    for n in lengths:
        work += scale(1, QUERIES * n, 1) + softmax(QUERIES, n) + squared_error(QUERIES)
        work += QUERIES * product(1, n, 1, 1)
    activations = 2 * QUERIES * sum(lengths)
    return Workload(name, about, 25, work, activations, make, losses.regression(lengths))


SAMPLE_WORKLOADS: dict[str, Callable[[str], Workload]] = {
    "denoise": _denoise,
    "retrieval": _retrieval,
    "kernel-regression": _kernel_regression,
}
"""By name."""
