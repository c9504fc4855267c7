"""What the benchmark trains: where a block of models starts, and one loss in three forms.

The ensemble's loss is the one that the experiments use: the layer, its problem's block, and the
losses of `ssa_theory.losses`. The loss of a single model is written as one writes it for one model,
once in PyTorch (trained one at a time, and under `torch.func.vmap`) and once in JAX.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from analysis.problems.base import Training
from analysis.problems.denoise import DenoiseProblem
from analysis.problems.graph import GraphProblem
from analysis.problems.rows import RowBlock
from ssa_theory.losses import Queries, squared_error
from ssa_theory.mechanism import MECHANISMS, Inputs, Layer, Tokens
from ssa_theory.seeds import Stream, member_generator
from tasks import MarkovGraphTask

NODES, DIM = 8, 4  # of the graph, in the vocabulary and the prompt context
PROMPTS, PROMPT_LENGTH = 64, 16  # a step, as in the graph experiment
SAMPLES = 64  # a step, as in the denoising experiment
LEARNING_RATE = 0.05  # of Adam, in every experiment's default

WorkloadName = Literal["graph", "graph-ssa", "prompt", "denoise"]
WORKLOADS: tuple[WorkloadName, ...] = get_args(WorkloadName)
GRAPHS: dict[WorkloadName, str] = {"graph": "vanilla", "graph-ssa": "ssa"}
"""The mechanism of each workload in the vocabulary context, whose operations are counted."""
Arrays = dict[str, Tensor]
Precision = Literal["float32", "float64"]


@dataclass(frozen=True)
class Start:
    """Where a block of models starts.

    parameters and own: initial parameters and data of each model, (..., member). shared: data that
    all have in common.
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

    make(seeds, device, dtype) gives the start of one model a seed. ensemble_loss(start) is a
    function of parameters and batch, as `train` wants it, with one value a member. torch_loss and
    jax_loss(parameters, data) are those of one model, on the tensors of one member (without the
    model axis) and the shared ones. steps: of one training, at most: a heavy one is timed by fewer.
    activations: numbers that a step keeps of one model between forward and backward; they size the
    blocks.
    """

    name: str
    about: str
    steps: int
    activations: int
    make: Callable[[Sequence[int], torch.device, torch.dtype], Start]
    ensemble_loss: Callable[[Start], Callable[[Arrays, Any], Tensor]]
    torch_loss: Callable[[Arrays, Arrays], Tensor]
    jax_loss: Callable[[dict[str, Any], dict[str, Any]], Any]

    def bytes_per_member(self, dtype: torch.dtype) -> int:
        """What a training step touches of one model: data, activations, and parameters with their
        gradient and Adam's two moments.
        """
        start = self.make([0], torch.device("cpu"), dtype)
        parameters = 4 * sum(p.numel() for p in start.parameters.values())
        data = sum(d.numel() * d.element_size() for d in start.own.values())
        return data + dtype.itemsize * (parameters + self.activations)


def workload(name: WorkloadName) -> Workload:
    """The workload of that name."""
    return _graph(name) if name in GRAPHS else {"prompt": _prompt, "denoise": _denoise}[name]()


def graph_operations(name: WorkloadName) -> tuple[int, int]:
    """Float operations and transcendental functions of one training step of one graph model.

    With K nodes, d dimensions and P parameters: products 4 K d^2 + 4 K^2 d (E W, its product with
    E^T, and the gradients by both), softmax and loss 9 K^2, Adam 12 P, and K^2 + K exponentials and
    logarithms. `graph-ssa` adds 20 K d for gelu, score, scaling and their gradients, and 2 K d + K
    of erf, exp and tanh.
    """
    k, d = NODES, DIM
    if name == "graph":
        return 4 * k * d**2 + 4 * k**2 * d + 9 * k**2 + 12 * d**2, k**2 + k
    plain, functions = graph_operations("graph")
    return plain + 20 * k * d + 12 * d, functions + 2 * k * d + k


def _stack(arrays: Sequence[np.ndarray], device: torch.device, dtype: torch.dtype) -> Tensor:
    """One array a member to (..., member); whole numbers stay whole."""
    stacked = torch.from_numpy(np.stack(arrays, axis=-1))
    return stacked.to(device, dtype if stacked.is_floating_point() else None)


def _initial(
    layer: Layer, seeds: Sequence[int], device: torch.device, dtype: torch.dtype
) -> Arrays:
    initial = layer.initial_parameters([member_generator(s, Stream.PARAMETER) for s in seeds])
    return {k: v.to(device, dtype) for k, v in initial.items()}


def _embeddings(seeds: Sequence[int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Embeddings of uniform directions: the law of `unit_embeddings`, normalised for all models at
    once, as a million models want their data in seconds.
    """
    drawn = [member_generator(s, Stream.EMBEDDING).standard_normal((NODES, DIM)) for s in seeds]
    return F.normalize(_stack(drawn, device, torch.float64), dim=1).to(dtype)


def _row_loss(
    problem: GraphProblem, layer: Layer, start: Start, queries: Queries
) -> Callable[[Arrays, Any], Tensor]:
    """The loss of a block of the graph problem, whose data are in the precision of training."""
    embeddings = start.own["embeddings"]
    tokens = Tokens(embeddings)
    inputs = Inputs(tokens, tokens, count=float(problem.keys))
    precision: Precision = "float64" if embeddings.dtype == torch.float64 else "float32"
    training = Training(1, LEARNING_RATE, dtype=precision)
    members, device = range(start.members), embeddings.device
    block = RowBlock(members, device, inputs, queries.target, queries, training)
    return lambda parameters, batch: block.loss(layer, parameters, batch)


def _task(problem: GraphProblem) -> MarkovGraphTask:
    return problem.tasks([0])[0]  # the graph is the same for every seed


def _torch_logits(parameters: Arrays, embeddings: Tensor) -> Tensor:
    query = embeddings @ parameters["weight"]
    if "query.vector" in parameters:
        score = F.gelu(query) @ parameters["query.vector"]
        query = query * (1 + torch.tanh(score)).unsqueeze(-1)
    return query @ embeddings.T


def import_jax() -> Any:
    """JAX, a peer that only `make readme` installs."""
    import jax  # pyright: ignore[reportMissingImports], as nothing else needs it installed

    return jax


def _jax_logits(parameters: dict[str, Any], embeddings: Any) -> Any:
    jax = import_jax()
    query = embeddings @ parameters["weight"]
    if "query.vector" in parameters:
        score = jax.nn.gelu(query, approximate=False) @ parameters["query.vector"]
        query = query * (1 + jax.numpy.tanh(score))[:, None]
    return query @ embeddings.T


def _graph(name: WorkloadName) -> Workload:
    problem = GraphProblem(nodes=NODES, dim=DIM)
    layer = problem.layer(MECHANISMS[GRAPHS[name]])

    def make(seeds: Sequence[int], device: torch.device, dtype: torch.dtype) -> Start:
        target = torch.from_numpy(_task(problem).transition_matrix).to(device, dtype)
        own = {"embeddings": _embeddings(seeds, device, dtype)}
        return Start(_initial(layer, seeds, device, dtype), own, {"target": target})

    def ensemble_loss(start: Start) -> Callable[[Arrays, Any], Tensor]:
        target = start.shared["target"].unsqueeze(-1).expand(-1, -1, start.members)
        weight = torch.full_like(target[:, 0, :1], 1 / NODES).expand(-1, start.members)
        return _row_loss(problem, layer, start, Queries(target, weight))

    def torch_loss(parameters: Arrays, data: Arrays) -> Tensor:
        log_p = _torch_logits(parameters, data["embeddings"]).log_softmax(-1)
        return -(data["target"] * log_p).sum(-1).mean()

    def jax_loss(parameters: dict[str, Any], data: dict[str, Any]) -> Any:
        jax = import_jax()
        log_p = jax.nn.log_softmax(_jax_logits(parameters, data["embeddings"]), axis=-1)
        return -(data["target"] * log_p).sum(-1).mean()

    about = (
        f"{GRAPHS[name]}, graded graph of {NODES} nodes, d = {DIM}, every token once as key, exact "
        "cross-entropy"
    )
    activations = 3 * NODES * DIM + 2 * NODES**2
    return Workload(name, about, 200, activations, make, ensemble_loss, torch_loss, jax_loss)


def _prompt() -> Workload:
    problem = GraphProblem(
        nodes=NODES, dim=DIM, context="prompt", prompt_length=PROMPT_LENGTH, batch_size=PROMPTS
    )
    layer = problem.layer(MECHANISMS["ssa"])

    def make(seeds: Sequence[int], device: torch.device, dtype: torch.dtype) -> Start:
        task = _task(problem)
        drawn = [
            task.sample_prompts(PROMPTS, PROMPT_LENGTH, member_generator(s, Stream.DATA))
            for s in seeds
        ]
        counts = [p.counts(NODES).astype(np.float64) for p in drawn]
        own = {
            "embeddings": _embeddings(seeds, device, dtype),
            "node": _stack([p.query for p in drawn], device, dtype),
            "target": _stack([task.bayes_predictive(p) for p in drawn], device, dtype),
            "counts": _stack(counts, device, dtype),
        }
        return Start(_initial(layer, seeds, device, dtype), own, {})

    def ensemble_loss(start: Start) -> Callable[[Arrays, Any], Tensor]:
        own = start.own
        weight = torch.full_like(own["target"][:, 0], 1 / PROMPTS)
        queries = Queries(own["target"], weight, own["node"], own["counts"])
        return _row_loss(problem, layer, start, queries)

    def torch_loss(parameters: Arrays, data: Arrays) -> Tensor:
        logits = _torch_logits(parameters, data["embeddings"])[data["node"]]
        log_p = (logits + data["counts"].log()).log_softmax(-1)
        return -torch.where(data["target"] > 0, data["target"] * log_p, 0.0).sum(-1).mean()

    def jax_loss(parameters: dict[str, Any], data: dict[str, Any]) -> Any:
        jax = import_jax()
        jnp = jax.numpy
        logits = _jax_logits(parameters, data["embeddings"])[data["node"]]
        log_p = jax.nn.log_softmax(logits + jnp.log(data["counts"]), axis=-1)
        return -jnp.where(data["target"] > 0, data["target"] * log_p, 0.0).sum(-1).mean()

    about = (
        f"ssa, graded graph of {NODES} nodes, d = {DIM}, {PROMPTS} prompts of {PROMPT_LENGTH} "
        "tokens, exact cross-entropy"
    )
    activations = 3 * NODES * DIM + 2 * PROMPTS * NODES
    return Workload("prompt", about, 200, activations, make, ensemble_loss, torch_loss, jax_loss)


def _denoise() -> Workload:
    problem = DenoiseProblem(batch_size=SAMPLES)
    task, layer = problem.task, problem.layer(MECHANISMS["ssa-mlp-value"])
    root, log_length = math.sqrt(task.dim), math.log(task.length)

    def make(seeds: Sequence[int], device: torch.device, dtype: torch.dtype) -> Start:
        drawn = [task.sample(SAMPLES, member_generator(s, Stream.DATA)) for s in seeds]
        own = {
            "tokens": _stack([d.tokens for d in drawn], device, dtype),
            "target": _stack([d.target for d in drawn], device, dtype),
        }
        return Start(_initial(layer, seeds, device, dtype), own, {})

    def ensemble_loss(start: Start) -> Callable[[Arrays, Any], Tensor]:
        inputs, target = problem.inputs(start.own["tokens"]), start.own["target"]
        return lambda parameters, _: squared_error(layer.output(parameters, inputs), target)

    def torch_loss(parameters: Arrays, data: Arrays) -> Tensor:
        p, tokens = parameters, data["tokens"]
        weight = (tokens @ p["weight"] / root).softmax(-1)
        inner = F.gelu(tokens @ p["value.hidden"] + p["value.bias"])
        score = inner @ p["value.vector"] + p["value.offset"]
        weight = weight * (1 + torch.tanh(score) + torch.sigmoid(p["value.alpha"]) * log_length)
        estimate = (weight.unsqueeze(-1) * tokens).sum(-2) @ p["value"]
        return (estimate - data["target"]).square().mean()

    def jax_loss(parameters: dict[str, Any], data: dict[str, Any]) -> Any:
        jax = import_jax()
        jnp = jax.numpy
        p, tokens = parameters, data["tokens"]
        weight = jax.nn.softmax(tokens @ p["weight"] / root, axis=-1)
        inner = jax.nn.gelu(tokens @ p["value.hidden"] + p["value.bias"], approximate=False)
        score = inner @ p["value.vector"] + p["value.offset"]
        weight = weight * (1 + jnp.tanh(score) + jax.nn.sigmoid(p["value.alpha"]) * log_length)
        estimate = (weight[..., None] * tokens).sum(-2) @ p["value"]
        return jnp.square(estimate - data["target"]).mean()

    about = (
        f"value temperature, {SAMPLES} samples of {task.length} tokens in {task.dim} dimensions, "
        "squared error"
    )
    activations = SAMPLES * task.length * (2 * 2 * task.dim + 4)
    return Workload("denoise", about, 50, activations, make, ensemble_loss, torch_loss, jax_loss)
