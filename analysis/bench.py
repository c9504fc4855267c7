"""How much faster an ensemble trains than its models one after another: a ratio measured in one run."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import Field
from torch import nn

from analysis.config import ExperimentConfig
from analysis.experiments.base import Progress, silent
from analysis.fitting import stack_members
from analysis.results import prepare_folder, provenance, write_whole
from ssa_theory import (
    Queries,
    SingleLayerAttention,
    Stream,
    Tokens,
    cross_entropy,
    member_generator,
    resolve_device,
    train,
)
from tasks import MarkovGraphTask, graph_from_family, unit_embeddings


class BenchConfig(ExperimentConfig):
    """Train the same models as one ensemble and one after another, and compare models x steps per second."""

    seeds: int = Field(128, ge=1, le=100_000, description="number of models")
    dim: int = Field(4, ge=1, le=256, description="embedding dimension")
    steps: int = Field(200, ge=1, description="training steps of each model")
    variant: str = Field("ssa", pattern="^(vanilla|ssa)$", description="vanilla or ssa")


class OneModel(nn.Module):
    """The graph model as one would write it for a single training: matrices, no model axis."""

    def __init__(self, weight: torch.Tensor, selective: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.vector = (
            nn.Parameter(torch.zeros(len(weight), device=weight.device, dtype=weight.dtype)) if selective else None
        )

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        query = embeddings @ self.weight
        if self.vector is not None:
            query = query * (1 + torch.tanh(nn.functional.gelu(query) @ self.vector)).unsqueeze(1)
        return (query @ embeddings.T).log_softmax(1)


def bench(config: BenchConfig, out: Path, progress: Progress) -> dict:
    """Measure, check that both learned the same, and store the report as out/bench/bench.json."""
    device = resolve_device(config.device)
    folder = out / "bench"
    prepare_folder(folder)
    dtype = getattr(torch, config.dtype)
    task = MarkovGraphTask.from_graph(graph_from_family("ring"))
    embeddings = stack_members(
        [unit_embeddings(task.nodes, config.dim, member_generator(s, Stream.EMBEDDING)) for s in config.seed_range],
        device,
    ).to(dtype)
    target = torch.from_numpy(task.transition_matrix).to(device, dtype)
    model = SingleLayerAttention(config.variant)
    generators = [member_generator(s, Stream.PARAMETER) for s in config.seed_range]
    initial = {k: v.to(device, dtype) for k, v in model.initial_parameters(task.nodes, config.dim, generators).items()}
    learning_rate = 0.05

    tokens = Tokens(embeddings, torch.full((task.nodes, config.seeds), task.nodes, device=device), task.nodes)
    weight = torch.full((task.nodes, config.seeds), 1 / task.nodes, device=device, dtype=dtype)
    queries = Queries(target.unsqueeze(-1).expand(-1, -1, config.seeds), weight)

    def ensemble(steps: int) -> torch.Tensor:
        trained = train(
            lambda p, _: cross_entropy(model.logits(p, tokens), queries),
            initial,
            steps=steps,
            learning_rate=learning_rate,
        )
        return trained.parameters["weight"]

    def one_by_one(steps: int, models: int, progress: Progress = silent) -> torch.Tensor:
        learned = []
        advance = progress("one model at a time", models)
        for member in range(models):
            single = OneModel(initial["weight"][..., member].contiguous(), config.variant == "ssa").to(device)
            keys = embeddings[..., member].contiguous()
            optimizer = torch.optim.Adam(single.parameters(), lr=learning_rate)
            for _ in range(steps):
                optimizer.zero_grad()
                loss = -(target * single(keys)).sum(1).mean()
                loss.backward()
                optimizer.step()
            learned.append(single.weight.detach())
            advance(1)
        return torch.stack(learned, -1)

    def timed(run: Callable[..., torch.Tensor], *arguments: object) -> tuple[torch.Tensor, float]:
        _wait(device)
        start = time.perf_counter()
        learned = run(*arguments)
        _wait(device)
        return learned, time.perf_counter() - start

    ensemble(5), one_by_one(5, 1)  # warm up both
    together, ensemble_seconds = timed(ensemble, config.steps)
    apart, apart_seconds = timed(one_by_one, config.steps, config.seeds, progress)
    work = config.seeds * config.steps
    speed = {"one model at a time": work / apart_seconds, "this ensemble": work / ensemble_seconds}
    report = {
        "workload": f"{config.seeds} models x {config.steps} steps: {config.variant}, ring of {task.nodes} nodes, "
        f"d = {config.dim}, exact loss, Adam, {config.dtype}, {device.type}, {torch.get_num_threads()} threads",
        "trainers": {
            name: {"models_steps_per_second": s, "ratio": s / speed["one model at a time"]} for name, s in speed.items()
        },
        "median_weight_difference": float((together - apart).abs().median()),
    } | provenance("bench", config, device, ensemble_seconds + apart_seconds, __name__)
    write_whole(
        folder / "bench.json",
        lambda path: path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8"),
    )
    return report


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
