"""The settings of `normalizers`, and the tasks and test problems that they name."""

from collections.abc import Iterator
from dataclasses import fields

import numpy as np
from pydantic import Field, model_validator

from analysis.store.config import TrainingConfig
from analysis.experiments.length import POOL_QUERIES, LengthConfig
from ssa_theory import Stream, member_generator
from ssa_theory.normalizers import ROW_NORMALIZERS, Normalizer, NormalizerName
from tasks import MarkovGraphTask, NoisyRetrievalTask, graph_from_family
from tasks.retrieval import Retrievals

TASKS = ("graph", "retrieval", "length")
TEMPERATURES = ("without", "with")
_CONTEXTS = 32  # training contexts a seed of task length


class NormalizersConfig(TrainingConfig):
    """Train every normaliser with and without SSA's temperature on a graph, on noisy retrieval and on growing contexts."""

    normalizers: tuple[NormalizerName, ...] = Field(
        ROW_NORMALIZERS, description="normalisers to train; softmax, the peer, among them"
    )
    graph_nodes: int = Field(8, ge=2, le=64, description="graph: number of nodes K of the ring")
    graph_dim: int = Field(4, ge=1, le=64, description="graph: embedding dimension d")
    graph_top: int = Field(4, ge=1, description="graph: keys that top-k keeps")
    graph_learning_rate: float = Field(0.1, gt=0, description="graph: step size of Adam")
    graph_steps: int = Field(200, ge=1, le=1_000_000, description="graph: training steps")
    retrieval_dim: int = Field(8, ge=1, le=64, description="retrieval: dimension d of keys and query")
    retrieval_keys: int = Field(16, ge=2, le=512, description="retrieval: number of keys n")
    retrieval_noise: tuple[float, ...] = Field(
        (0.1, 0.2, 0.4, 0.8), description="retrieval: noise levels s, equally likely in training and test"
    )
    retrieval_top: int = Field(4, ge=1, description="retrieval: keys that top-k keeps")
    retrieval_learning_rate: float = Field(0.1, gt=0, description="retrieval: step size of Adam")
    retrieval_steps: int = Field(200, ge=1, le=1_000_000, description="retrieval: training steps")
    retrieval_batch: int = Field(16, ge=1, le=65536, description="retrieval: fresh problems a step")
    retrieval_held_out: int = Field(64, ge=1, le=100_000, description="retrieval: test problems a seed and noise level")
    length_train: tuple[int, ...] = Field(
        (8, 32, 128), description="length: context lengths of training, all in every step, equally weighted"
    )
    length_test: tuple[int, ...] = Field(
        (8, 32, 128, 256, 512, 1024), description="length: context lengths of the test; errors are those of the longest"
    )
    length_top: int = Field(8, ge=1, description="length: keys that top-k keeps")
    length_learning_rate: float = Field(0.1, gt=0, description="length: step size of Adam")
    length_steps: int = Field(64, ge=1, le=1_000_000, description="length: training steps")
    length_batch: int = Field(8, ge=1, le=65536, description="length: queries a step, from a pool of 256")
    length_held_out: int = Field(4, ge=1, le=4096, description="length: queries to the test context of each seed")

    @model_validator(mode="after")
    def _consistent(self) -> "NormalizersConfig":
        if len(set(self.normalizers)) != len(self.normalizers) or "softmax" not in self.normalizers:
            raise ValueError(
                f"normalizers must be different and softmax among them, got {self.normalizers}: list each once, and softmax"
            )
        for name, values in (("length_train", self.length_train), ("length_test", self.length_test)):
            if not values or len(set(values)) != len(values) or not 1 <= min(values) <= max(values) <= 8192:
                raise ValueError(f"{name} must be different lengths in [1, 8192], got {values}: list each once")
        pool = _CONTEXTS * POOL_QUERIES
        if pool % self.length_batch:
            raise ValueError(
                f"length_batch must divide the {pool} training queries, got {self.length_batch}: choose a power of 2"
            )
        _ = self.retrieval_task  # rejects bad noise levels
        return self

    @property
    def length(self) -> LengthConfig:
        """The experiment `length` with the settings of this one; its task, training data and test contexts are used here."""
        return LengthConfig(
            seeds=self.seeds,
            first_seed=self.first_seed,
            train_lengths=self.length_train,
            test_lengths=tuple(sorted(self.length_test)),
            contexts=_CONTEXTS,
            batch_size=self.length_batch,
            held_out=self.length_held_out,
        )

    def variants(self, task: str) -> Iterator[tuple[Normalizer, bool]]:
        """Every normaliser as the task uses it, without and with a temperature."""
        for name in self.normalizers:
            for selective in (False, True):
                yield Normalizer(name, getattr(self, f"{task}_top") if name == "top-k" else None), selective

    @property
    def graph_task(self) -> MarkovGraphTask:
        """The ring."""
        return MarkovGraphTask.from_graph(graph_from_family("graded", self.graph_nodes))

    @property
    def retrieval_task(self) -> NoisyRetrievalTask:
        """Noisy retrieval as trained, with all noise levels."""
        return NoisyRetrievalTask(self.retrieval_dim, self.retrieval_keys, self.retrieval_noise)

    def retrieval_problems(self, seed: int) -> Retrievals:
        """The test problems of a seed, as many of each noise level."""
        generator = member_generator(seed, Stream.EVALUATION)
        drawn = [
            NoisyRetrievalTask(self.retrieval_dim, self.retrieval_keys, (s,)).sample(self.retrieval_held_out, generator)
            for s in self.retrieval_noise
        ]
        return Retrievals(*(np.concatenate([getattr(d, f.name) for d in drawn]) for f in fields(Retrievals)))
