"""The settings of the benchmark."""

from typing import Literal

from pydantic import Field, model_validator

from analysis.bench.workloads import WORKLOADS, WorkloadName
from analysis.store.config import TrainingConfig


class BenchConfig(TrainingConfig):
    """Train the same models with this trainer and with its peers, and compare models x steps per
    second, memory and scaling.
    """

    seeds: int = Field(
        default=8192,
        ge=1,
        le=10_000_000,
        description="models in one tensor program, at most: no more than a block",
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="on",
        description="unless off, include this trainer compiled, by itself and by torch, and measure "
        "its scaling rather than the eager one's",
    )
    workloads: tuple[WorkloadName, ...] = Field(
        default=WORKLOADS,
        description="what to train: the graph task with vanilla attention, with SSA, and with a "
        "classifier on it, its prompts, denoising, retrieval, kernel regression",
    )
    steps: int = Field(
        default=200,
        ge=2,
        description="training steps of each model, at most: heavy workloads take fewer",
    )
    repeats: int = Field(default=3, ge=1, le=100, description="rounds; the fastest counts")
    min_seconds: float = Field(
        default=0.15,
        ge=0,
        description="least length of one measurement: short trainings are repeated",
    )
    scaling: tuple[int, ...] = Field(
        default=(256, 1024, 4096, 16384, 65536),
        description="sizes of the graph ensembles trained block by block, smallest first; none: "
        "skip",
    )
    models: int = Field(
        default=0,
        ge=0,
        le=100_000_000,
        description="train this many models of each graph workload over all cores (1000000 takes "
        "minutes); 0: skip",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "BenchConfig":
        self.require_distinct("workloads")
        if list(self.scaling) != sorted(set(self.scaling)) or min(self.scaling, default=1) < 1:
            raise ValueError(
                f"scaling must be growing sizes of at least 1, got {self.scaling}: list each once, "
                "smallest first"
            )
        return self
