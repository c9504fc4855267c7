"""What the benchmark trains: the starting point of a block of models, and one loss in three forms.

The ensemble's loss is the one that the experiments use. The loss of a single model is written as one writes it for one model,
once in PyTorch (trained one at a time, and under `torch.func.vmap`) and once in JAX.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssa_theory import (
    DenoisingAttention,
    Queries,
    SingleLayerAttention,
    Stream,
    Tokens,
    Variant,
    cross_entropy,
    member_generator,
)
from ssa_theory.denoising_models import squared_error
from tasks import DenoisingTask, MarkovGraphTask, graph_from_family

NODES, DIM = 8, 4  # of the graph, in the vocabulary and the prompt context
PROMPTS, PROMPT_LENGTH = 64, 16  # a step, as in the graph experiment
SAMPLES = 64  # a step, as in the denoising experiment
LEARNING_RATE = 0.05  # of Adam, in every experiment's default

WorkloadName = Literal["graph", "graph-ssa", "prompt", "denoise"]
WORKLOADS: tuple[WorkloadName, ...] = get_args(WorkloadName)
GRAPH_VARIANTS: dict[str, Variant] = {"graph": "vanilla", "graph-ssa": "ssa"}
Arrays = dict[str, Tensor]


@dataclass(frozen=True)
class Problem:
    """What a block of models starts from.

    parameters and own: initial parameters and data of each model, (..., member). shared: data that all have in common.
    """

    parameters: Arrays
    own: Arrays
    shared: Arrays

    @property
    def members(self) -> int:
        """The number of models."""
        return next(iter(self.parameters.values())).shape[-1]


@dataclass(frozen=True)
class Workload:
    """One loss on one kind of data.

    make(seeds, device, dtype) gives the starting point of one model a seed. ensemble_loss(problem) is a function of parameters
    and batch, as `train` wants it, with one value a member. torch_loss and jax_loss(parameters, data) are those of one model, on
    the tensors of one member (without the model axis) and the shared ones. steps: of one training, at most: a heavy one is
    timed by fewer. activations: numbers that a step keeps of one model between forward and backward; they size the blocks.
    """

    name: str
    about: str
    steps: int
    activations: int
    make: Callable[[Sequence[int], torch.device, torch.dtype], Problem]
    ensemble_loss: Callable[[Problem], Callable[[Arrays, Any], Tensor]]
    torch_loss: Callable[[Arrays, Arrays], Tensor]
    jax_loss: Callable[[dict[str, Any], dict[str, Any]], Any]

    def bytes_per_member(self, dtype: torch.dtype) -> int:
        """What a training step touches of one model: data, activations, and parameters with gradient and Adam's two moments."""
        problem = self.make([0], torch.device("cpu"), dtype)
        parameters = 4 * sum(p.numel() for p in problem.parameters.values())
        data = sum(d.numel() * d.element_size() for d in problem.own.values())
        return data + dtype.itemsize * (parameters + self.activations)


def workload(name: WorkloadName) -> Workload:
    """The workload of that name."""
    return _graph(name) if name in GRAPH_VARIANTS else {"prompt": _prompt, "denoise": _denoise}[name]()


def graph_operations(name: WorkloadName) -> tuple[int, int]:
    """Float operations and transcendental functions of one training step of one model of a graph workload.

    With K nodes, d dimensions and P parameters: products 4 K d^2 + 4 K^2 d (E W, its product with E^T, and the gradients by
    both), softmax and loss 9 K^2, Adam 12 P, and K^2 + K exponentials and logarithms. `graph-ssa` adds 20 K d for gelu,
    score, scaling and their gradients, and 2 K d + K of erf, exp and tanh.
    """
    k, d = NODES, DIM
    if name == "graph":
        return 4 * k * d**2 + 4 * k**2 * d + 9 * k**2 + 12 * d**2, k**2 + k
    plain, functions = graph_operations("graph")
    return plain + 20 * k * d + 12 * d, functions + 2 * k * d + k


@cache
def _ring() -> MarkovGraphTask:
    return MarkovGraphTask.from_graph(graph_from_family("graded", NODES))


def _stack(arrays: Sequence[np.ndarray], device: torch.device, dtype: torch.dtype) -> Tensor:
    """One array a member to (..., member); whole numbers stay whole."""
    stacked = torch.from_numpy(np.stack(arrays, axis=-1))
    return stacked.to(device, dtype if stacked.is_floating_point() else None)


def _graph_start(
    model: SingleLayerAttention, seeds: Sequence[int], device: torch.device, dtype: torch.dtype
) -> tuple[Arrays, Arrays]:
    """Initial parameters, and embeddings of uniform directions."""
    initial = model.initial_parameters(NODES, DIM, [member_generator(s, Stream.PARAMETER) for s in seeds])
    # The law of `unit_embeddings`, normalised for all models at once: a million models want their data in seconds.
    drawn = [member_generator(s, Stream.EMBEDDING).standard_normal((NODES, DIM)) for s in seeds]
    embeddings = F.normalize(_stack(drawn, device, torch.float64), dim=1).to(dtype)
    return {k: v.to(device, dtype) for k, v in initial.items()}, {"embeddings": embeddings}


def _tokens(problem: Problem, keys: int) -> Tokens:
    embeddings = problem.own["embeddings"]
    unused = torch.zeros(1, 1, dtype=torch.int64, device=embeddings.device)  # the degree, which only ssa-degree reads
    return Tokens(embeddings, unused.expand(NODES, problem.members), keys)


def _torch_logits(parameters: Arrays, embeddings: Tensor) -> Tensor:
    query = embeddings @ parameters["weight"]
    if "vector" in parameters:
        query = query * (1 + torch.tanh(F.gelu(query) @ parameters["vector"])).unsqueeze(-1)
    return query @ embeddings.T


def _jax_logits(parameters: dict[str, Any], embeddings: Any) -> Any:
    import jax

    query = embeddings @ parameters["weight"]
    if "vector" in parameters:
        score = jax.nn.gelu(query, approximate=False) @ parameters["vector"]
        query = query * (1 + jax.numpy.tanh(score))[:, None]
    return query @ embeddings.T


def _graph(name: WorkloadName) -> Workload:
    variant = GRAPH_VARIANTS[name]
    model = SingleLayerAttention(variant)

    def make(seeds: Sequence[int], device: torch.device, dtype: torch.dtype) -> Problem:
        target = torch.from_numpy(_ring().transition_matrix).to(device, dtype)
        return Problem(*_graph_start(model, seeds, device, dtype), {"target": target})

    def ensemble_loss(problem: Problem) -> Callable[[Arrays, Any], Tensor]:
        target = problem.shared["target"].unsqueeze(-1).expand(-1, -1, problem.members)
        weight = torch.full_like(target[:, 0, :1], 1 / NODES).expand(-1, problem.members)
        tokens, queries = _tokens(problem, NODES), Queries(target, weight)
        return lambda parameters, _: cross_entropy(model.logits(parameters, tokens), queries)

    def torch_loss(parameters: Arrays, data: Arrays) -> Tensor:
        log_p = _torch_logits(parameters, data["embeddings"]).log_softmax(-1)
        return -(data["target"] * log_p).sum(-1).mean()

    def jax_loss(parameters: dict[str, Any], data: dict[str, Any]) -> Any:
        import jax

        log_p = jax.nn.log_softmax(_jax_logits(parameters, data["embeddings"]), axis=-1)
        return -(data["target"] * log_p).sum(-1).mean()

    about = f"{variant}, ring of {NODES} nodes, d = {DIM}, every token once as key, exact cross-entropy"
    activations = 3 * NODES * DIM + 2 * NODES**2
    return Workload(name, about, 200, activations, make, ensemble_loss, torch_loss, jax_loss)


def _prompt() -> Workload:
    model = SingleLayerAttention("ssa")

    def make(seeds: Sequence[int], device: torch.device, dtype: torch.dtype) -> Problem:
        parameters, own = _graph_start(model, seeds, device, dtype)
        drawn = [_ring().sample_prompts(PROMPTS, PROMPT_LENGTH, member_generator(s, Stream.DATA)) for s in seeds]
        own["node"] = _stack([p.query for p in drawn], device, dtype)
        own["target"] = _stack([_ring().bayes_predictive(p) for p in drawn], device, dtype)
        own["counts"] = _stack([p.counts(NODES).astype(np.float64) for p in drawn], device, dtype)
        return Problem(parameters, own, {})

    def ensemble_loss(problem: Problem) -> Callable[[Arrays, Any], Tensor]:
        own = problem.own
        weight = torch.full_like(own["target"][:, 0], 1 / PROMPTS)
        tokens = _tokens(problem, PROMPT_LENGTH)
        queries = Queries(own["target"], weight, own["node"], own["counts"])
        return lambda parameters, _: cross_entropy(model.logits(parameters, tokens), queries)

    def torch_loss(parameters: Arrays, data: Arrays) -> Tensor:
        logits = _torch_logits(parameters, data["embeddings"])[data["node"]]
        log_p = (logits + data["counts"].log()).log_softmax(-1)
        return -torch.where(data["target"] > 0, data["target"] * log_p, 0.0).sum(-1).mean()

    def jax_loss(parameters: dict[str, Any], data: dict[str, Any]) -> Any:
        import jax
        import jax.numpy as jnp

        logits = _jax_logits(parameters, data["embeddings"])[data["node"]]
        log_p = jax.nn.log_softmax(logits + jnp.log(data["counts"]), axis=-1)
        return -jnp.where(data["target"] > 0, data["target"] * log_p, 0.0).sum(-1).mean()

    about = f"ssa, ring of {NODES} nodes, d = {DIM}, {PROMPTS} prompts of {PROMPT_LENGTH} tokens, exact cross-entropy"
    activations = 3 * NODES * DIM + 2 * PROMPTS * NODES
    return Workload("prompt", about, 200, activations, make, ensemble_loss, torch_loss, jax_loss)


def _denoise() -> Workload:
    task, model = DenoisingTask(), DenoisingAttention("value-additive")
    root, log_length = math.sqrt(task.dim), math.log(task.length)

    def make(seeds: Sequence[int], device: torch.device, dtype: torch.dtype) -> Problem:
        initial = model.initial_parameters(task.dim, [member_generator(s, Stream.PARAMETER) for s in seeds])
        drawn = [task.sample(SAMPLES, member_generator(s, Stream.DATA)) for s in seeds]
        own = {
            "tokens": _stack([d.tokens for d in drawn], device, dtype),
            "target": _stack([d.target for d in drawn], device, dtype),
        }
        return Problem({k: v.to(device, dtype) for k, v in initial.items()}, own, {})

    def ensemble_loss(problem: Problem) -> Callable[[Arrays, Any], Tensor]:
        tokens, target = problem.own["tokens"], problem.own["target"]
        return lambda parameters, _: squared_error(model.estimate(parameters, tokens), target)

    def torch_loss(parameters: Arrays, data: Arrays) -> Tensor:
        p, tokens = parameters, data["tokens"]
        weight = (tokens @ p["score"] / root).softmax(-1)
        score = F.gelu(tokens @ p["value_hidden"] + p["value_bias"]) @ p["value_vector"] + p["value_offset"]
        weight = weight * (1 + torch.tanh(score) + torch.sigmoid(p["value_alpha"]) * log_length)
        estimate = (weight.unsqueeze(-1) * tokens).sum(-2) @ p["value"]
        return (estimate - data["target"]).square().mean()

    def jax_loss(parameters: dict[str, Any], data: dict[str, Any]) -> Any:
        import jax
        import jax.numpy as jnp

        p, tokens = parameters, data["tokens"]
        weight = jax.nn.softmax(tokens @ p["score"] / root, axis=-1)
        inner = jax.nn.gelu(tokens @ p["value_hidden"] + p["value_bias"], approximate=False)
        score = inner @ p["value_vector"] + p["value_offset"]
        weight = weight * (1 + jnp.tanh(score) + jax.nn.sigmoid(p["value_alpha"]) * log_length)
        estimate = (weight[..., None] * tokens).sum(-2) @ p["value"]
        return jnp.square(estimate - data["target"]).mean()

    about = f"value temperature, {SAMPLES} samples of {task.length} tokens in {task.dim} dimensions, squared error"
    activations = SAMPLES * task.length * (2 * 2 * task.dim + 4)
    return Workload("denoise", about, 50, activations, make, ensemble_loss, torch_loss, jax_loss)
