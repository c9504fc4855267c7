"""Does selective attention learn the transition matrix of a graph better, and which temperature does each node get?"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from pydantic import Field, model_validator
from torch import Tensor

from analysis.store.config import TrainingConfig
from analysis.experiments.base import Experiment, Progress
from analysis.experiments.graph_claims import judge
from analysis.experiments.graph_figure import draw
from analysis.fitting import FITTED, block_size, check_result_fits, fit, record_steps, stack_members
from analysis.problems.measures import SMALLEST_TAU
from analysis.claims.statistics import mean_band
from ssa_theory import (
    Queries,
    SingleLayerAttention,
    Stream,
    Tokens,
    Variant,
    member_generator,
    resolve_device,
)
from tasks import MarkovGraphTask, graph_from_family, graph_from_file, text_from_file, unit_embeddings
from tasks.families import RandomFamily, RealFamily
from tasks.markov import Prompts, RowWeights

EVALUATION_PROMPTS = 512
_CHUNK = 25  # steps of sampled data drawn at once: bounds memory, does not change the data


class GraphConfig(TrainingConfig):
    """Learn the transition matrix P* of a graph by a single attention layer P_hat = softmax(diag(tau) E W E^T)."""

    family: Literal[RandomFamily, RealFamily, "letters", "file"] = Field(
        "graded", description="graph family, the letters of a text, or a graph file"
    )
    nodes: int | None = Field(
        None, ge=2, le=4096, description="number of nodes K (ring and random families; default 8)"
    )
    mean_degree: float | None = Field(None, gt=0, description="mean number of neighbours (random families; default 3)")
    text_file: Path | None = Field(None, description="UTF-8 text for family letters (default: Python's documentation)")
    graph_file: Path | None = Field(None, description="GraphML or edge list for family file")
    context: Literal["vocabulary", "prompt"] = Field(
        "vocabulary", description="keys are all tokens once, or the tokens of a sampled prompt"
    )
    loss: Literal["exact", "sampled"] = Field(
        "exact", description="expectation over the next token computed, or next tokens sampled"
    )
    prompt_length: int | None = Field(
        None, ge=1, le=4096, description="tokens in a prompt (context prompt; default 16)"
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="prompts or transitions a step (context prompt or loss sampled; default 64)",
    )
    row_weights: RowWeights = Field(
        "uniform", description="weight of each row in the loss; law of the tokens of a prompt"
    )
    dim: int = Field(4, ge=1, le=4096, description="embedding dimension d; below K tokens compete for directions")
    similarity: float = Field(0.0, ge=0, le=1, description="strength of the component common to all embeddings")
    variants: tuple[Variant, ...] = Field(
        ("vanilla", "ssa", "ssa-free"), description="models to train; vanilla is the peer"
    )
    position: bool = Field(
        False,
        description="add the position term to ssa and ssa-mlp (one learned scale: all queries see the same n)",
    )
    optimizer: Literal["adam", "sgd"] = Field("adam", description="optimiser")
    learning_rate: float = Field(0.05, gt=0, description="step size")
    steps: int = Field(200, ge=1, le=10_000_000, description="training steps")
    control_steps: int = Field(
        2000,
        ge=0,
        le=10_000_000,
        description="steps of the control regime d = K, trained long, where vanilla suffices; 0: skip it",
    )

    @model_validator(mode="after")
    def _no_ignored_flag(self) -> "GraphConfig":
        random, sized = get_args(RandomFamily)[1:], get_args(RandomFamily)
        prompt, sampled = self.context == "prompt", self.context == "prompt" or self.loss == "sampled"
        rules = {
            "nodes": (self.family in sized, f"family {', '.join(sized)}"),
            "mean_degree": (self.family in random, f"family {', '.join(random)}"),
            "text_file": (self.family == "letters", "family letters"),
            "graph_file": (self.family == "file", "family file"),
            "prompt_length": (prompt, "context prompt"),
            "batch_size": (sampled, "context prompt or loss sampled"),
        }
        for name, (applies, where) in rules.items():
            if getattr(self, name) is not None and not applies:
                raise ValueError(
                    f"{name} applies only to {where}, got {name}={getattr(self, name)}: drop it, or change the other"
                )
        if self.family == "file" and self.graph_file is None:
            raise ValueError("family file needs a graph file: give graph_file")
        self.require_distinct("variants")
        return self


def seeds_per_block(config: GraphConfig) -> int:
    """By the memory of training one model, counted generously: logits and their gradients, and a chunk of data."""
    nodes = _tasks(config.of_seeds(config.seed_range[:1]))[0].nodes
    check_result_fits(config.seeds * nodes**2 * (1 + len(config.variants)))
    queries, data = nodes, 0
    if config.context == "prompt" or config.loss == "sampled":
        queries = max(_batch_size(config), EVALUATION_PROMPTS if config.context == "prompt" else 0)
        data = _CHUNK * _batch_size(config) * (_prompt_length(config) + 3 * nodes)
    return block_size(config, 8 * (8 * nodes * (nodes + queries) + data))


def train(config: GraphConfig, progress: Progress) -> xr.Dataset:
    """Train every variant on every seed, at the asked-for setting and in the control regime."""
    device = resolve_device(config.device)
    tasks = _tasks(config)
    regimes = [("", config.dim, config.steps)]
    if config.control_steps:
        regimes.append(("control_", tasks[0].nodes, config.control_steps))
    total = sum(steps for *_, steps in regimes) * len(config.variants)
    advance = progress(f"training {config.seeds} seeds x {len(config.variants)} variants", total)
    dataset = _describe_tasks(config, tasks).assign_coords(variant=list(config.variants))
    for prefix, dim, steps in regimes:
        dataset = dataset.assign_coords({f"{prefix}step": record_steps(steps)})
        fitted = [_fit(config, v, tasks, dim, steps, device, advance) for v in config.variants]
        for name, (dims, about) in FITTED.items():
            if prefix and name not in _CONTROL:
                continue
            dims = ("variant", "seed", *(f"{prefix}step" if d == "step" else d for d in dims))
            dataset[prefix + name] = (dims, np.stack([found[name] for found in fitted]), {"description": about})
    return dataset


_CONTROL = ("cross_entropy_gap", "l1_by_step", "l1_error", "weight_norm", "diverged")
_TASK = {
    "transition_matrix": "P*, the true transition matrix (probability)",
    "conditional_entropy": "H* under the loss's row weights: the Bayes cross-entropy (nats)",
    "entropy_rate": "H* under the stationary distribution (nats); NaN where that is not unique",
    "stationary_distribution": "pi (probability); NaN where it is not unique",
    "out_degree": "number of out-neighbours",
    "row_entropy": "entropy of each row of P* (nats)",
    "prompt_acceptance": "probability that independent tokens make a valid prompt; NaN in the vocabulary context",
}


def _tasks(config: GraphConfig) -> list[MarkovGraphTask]:
    """One task a seed; families that are not random share one."""
    if config.family in get_args(RandomFamily)[1:]:
        return [
            MarkovGraphTask.from_graph(
                graph_from_family(config.family, config.nodes, config.mean_degree, member_generator(s, Stream.GRAPH))
            )
            for s in config.seed_range
        ]
    if config.family == "letters":
        task = MarkovGraphTask.from_text(text_from_file(config.text_file))
    elif config.family == "file":
        task = MarkovGraphTask.from_graph(graph_from_file(config.graph_file))
    else:
        task = MarkovGraphTask.from_graph(graph_from_family(config.family, config.nodes))
    return [task] * config.seeds


def _describe_tasks(config: GraphConfig, tasks: Sequence[MarkovGraphTask]) -> xr.Dataset:
    """The part of the result that needs no training."""

    def stationary(task: MarkovGraphTask) -> np.ndarray:
        try:
            return task.stationary_distribution
        except ValueError:
            if config.row_weights == "stationary":
                raise
            return np.full(task.nodes, np.nan)

    def acceptance(task: MarkovGraphTask) -> float:
        if config.context == "vocabulary":
            return np.nan
        return task.prompt_acceptance(_prompt_length(config), config.row_weights)

    pi = np.stack([stationary(t) for t in tasks])
    entropy = np.stack([t.row_entropy for t in tasks])
    weights = np.stack([t.row_weights(config.row_weights) for t in tasks])
    dataset = xr.Dataset(
        {
            "transition_matrix": (("seed", "node", "next"), np.stack([t.transition_matrix for t in tasks])),
            "stationary_distribution": (("seed", "node"), pi),
            "out_degree": (("seed", "node"), np.stack([t.out_degree for t in tasks])),
            "row_entropy": (("seed", "node"), entropy),
            "conditional_entropy": ("seed", (weights * entropy).sum(1)),
            "entropy_rate": ("seed", (pi * entropy).sum(1)),
            "prompt_acceptance": ("seed", [acceptance(t) for t in tasks]),
        }
    )
    for name, about in _TASK.items():
        dataset[name].attrs["description"] = about
    labels = list(tasks[0].labels)
    return dataset.assign_coords(seed=np.array(config.seed_range), node=labels, next=labels)


def _fit(
    config: GraphConfig,
    variant: Variant,
    tasks: Sequence[MarkovGraphTask],
    dim: int,
    steps: int,
    device: torch.device,
    advance: Callable[[int], None],
) -> dict[str, np.ndarray]:
    """Train one variant on every seed."""
    seeds = config.seed_range
    nodes, prompt = tasks[0].nodes, config.context == "prompt"
    embeddings = [unit_embeddings(nodes, dim, member_generator(s, Stream.EMBEDDING), config.similarity) for s in seeds]
    keys = _prompt_length(config) if prompt else nodes
    tokens = Tokens(stack_members(embeddings, device), stack_members([t.out_degree for t in tasks], device), keys)
    target = stack_members([t.transition_matrix for t in tasks], device)
    if prompt:
        held_out = [
            t.sample_prompts(EVALUATION_PROMPTS, keys, member_generator(s, Stream.EVALUATION), config.row_weights)
            for t, s in zip(tasks, seeds, strict=True)
        ]
        evaluation = _prompt_queries(*_upload(held_out, device), target, "exact")
    else:
        evaluation = Queries(target, stack_members([t.row_weights(config.row_weights) for t in tasks], device))
    sampled = prompt or config.loss == "sampled"
    return fit(
        SingleLayerAttention(variant, config.position),
        tokens,
        target,
        evaluation,
        seeds,
        dtype=config.dtype,
        steps=steps,
        learning_rate=config.learning_rate,
        optimizer=config.optimizer,
        compile=config.compile,
        batches=_batches(config, tasks, seeds, target.to(getattr(torch, config.dtype)), steps) if sampled else None,
        progress=advance,
    )


def _prompt_length(config: GraphConfig) -> int:
    return 16 if config.prompt_length is None else config.prompt_length


def _batch_size(config: GraphConfig) -> int:
    return 64 if config.batch_size is None else config.batch_size


def _batches(
    config: GraphConfig, tasks: Sequence[MarkovGraphTask], seeds: Sequence[int], target: Tensor, steps: int
) -> Iterator[Queries]:
    """The training data, step by step: each member's own stream, the same in any block and for every variant."""
    generators = [member_generator(s, Stream.DATA) for s in seeds]
    batch = _batch_size(config)
    for start in range(0, steps, _CHUNK):
        count = min(_CHUNK, steps - start) * batch
        drawn = []
        for task, generator in zip(tasks, generators, strict=True):
            if config.context == "prompt":
                drawn.append(task.sample_prompts(count, _prompt_length(config), generator, config.row_weights))
            else:
                current, following = task.sample_transitions(count, generator, config.row_weights)
                drawn.append(Prompts(current[:, None], following))
        tokens, following = _upload(drawn, target.device)
        for first in range(0, count, batch):
            part = slice(first, first + batch)
            if config.context == "prompt":
                yield _prompt_queries(tokens[part], following[part], target, config.loss)
            else:
                yield _transition_queries(tokens[part], following[part], target)


def _upload(prompts: Sequence[Prompts], device: torch.device) -> tuple[Tensor, Tensor]:
    """Tokens (prompt, length, member) and next tokens (prompt, member)."""
    return stack_members([p.tokens for p in prompts], device), stack_members([p.target for p in prompts], device)


def _transition_queries(tokens: Tensor, following: Tensor, target: Tensor) -> Queries:
    """Queries from the last token with a sampled answer, in the dtype of `target`."""
    answer = F.one_hot(following, target.shape[1]).movedim(-1, 1).to(target.dtype)
    return Queries(answer, torch.full_like(answer[:, 0], 1 / len(tokens)), tokens[:, -1])


def _prompt_queries(tokens: Tensor, following: Tensor, target: Tensor, loss: str) -> Queries:
    """Queries with their counts m; the answer is P(j | X) = m_j P*_ij / sum (loss exact) or the sampled token."""
    sampled = _transition_queries(tokens, following, target)
    counts = torch.zeros_like(sampled.target).scatter_add_(1, tokens, torch.ones_like(tokens, dtype=target.dtype))
    if loss == "sampled":
        return Queries(sampled.target, sampled.weight, sampled.node, counts)
    mass = counts * target.gather(0, sampled.node.unsqueeze(1).expand(counts.shape))
    return Queries(mass / mass.sum(1, keepdim=True), sampled.weight, sampled.node, counts)


def summarise(config: GraphConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add what the figure shows: means with 95 % intervals over seeds that did not diverge, and the seed to draw."""
    kept = ~dataset["diverged"]
    for name in ("cross_entropy_gap", "l1_by_step", "weight_norm", "control_l1_by_step"):
        if name in dataset:
            valid = ~dataset["control_diverged"] if name.startswith("control") else kept
            dataset[f"{name}_band"] = mean_band(dataset[name].where(valid))
    # Nodes with the same effective number of neighbours share a point; it equals the degree where a row is uniform.
    neighbours = np.exp(dataset["row_entropy"]).round(6)
    log_temperature = -np.log(dataset["inverse_temperature"].where(kept).clip(min=SMALLEST_TAU))
    levels = np.unique(neighbours)
    by_level = xr.concat(
        [log_temperature.where(neighbours == level).mean("node") for level in levels], dim="neighbours"
    ).assign_coords(neighbours=levels)
    dataset["temperature_by_neighbours"] = np.exp(mean_band(by_level))
    peer = "ssa" if "ssa" in dataset["variant"] else dataset["variant"].values[0]
    error = dataset["l1_error"].sel(variant=peer).fillna(np.inf)
    about = {"description": f"the seed of the median L1 error of {peer}, which the figure draws"}
    dataset["shown_seed"] = ((), dataset["seed"].values[error.argsort()[len(error) // 2]], about)
    return dataset


_CAPTION = (
    "Top: the graph (darker nodes have more entropy in their row), its transition matrix, and what vanilla and "
    "selective attention learned of it in the median seed. Bottom: cross-entropy above Bayes by step; learned "
    "temperature 1 / tau by the number of neighbours, or by row entropy; spectral norm of W over seeds; and L1 "
    "error, in the experiment graph in the control regime d = K. Lines and points are means over seeds, bands and bars their 95 "
    "% intervals."
)
_RUN = {
    "caption": _CAPTION,
    "config": GraphConfig,
    "train": train,
    "seeds_per_block": seeds_per_block,
    "summarise": summarise,
    "draw": draw,
    "judge": judge,
}
GRAPH = Experiment(
    name="graph",
    question="Does SSA learn the transition matrix of a small graph better, and which temperature does each node get?",
    presets={
        "smoke": {"seeds": 4, "steps": 60, "control_steps": 120},
        "paper": {"seeds": 128},
        "large": {"seeds": 4096},
    },
    **_RUN,
)
_LETTERS = {"family": "letters", "dim": 12, "steps": 1000, "control_steps": 0}
LETTERS = Experiment(
    name="letters",
    question="The letters of English text: does SSA learn their bigrams better, and which letters does it sharpen?",
    presets={
        "smoke": _LETTERS | {"seeds": 4, "steps": 60},
        "paper": _LETTERS | {"seeds": 64},
        "large": _LETTERS | {"seeds": 1024},
    },
    **_RUN,
)
_LES_MISERABLES = {"family": "les-miserables", "dim": 16, "steps": 500, "control_steps": 0}
LES_MISERABLES = Experiment(
    name="les-miserables",
    question="The characters of Les Miserables, linked by shared chapters: does SSA learn their transitions better?",
    presets={
        "smoke": _LES_MISERABLES | {"seeds": 4, "steps": 20},
        "paper": _LES_MISERABLES | {"seeds": 64},
        "large": _LES_MISERABLES | {"seeds": 1024},
    },
    **_RUN,
)
