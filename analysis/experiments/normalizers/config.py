"""The settings of `normalizers`, and the three tasks that they name."""

from dataclasses import dataclass, replace

from pydantic import Field, model_validator

from analysis.experiments.mechanisms import ComparedMechanisms, chosen
from analysis.problems.base import Training
from analysis.problems.graph import GraphProblem
from analysis.problems.kernel_regression import KernelRegressionProblem
from analysis.problems.retrieval import RetrievalProblem
from analysis.store.config import TrainingConfig
from ssa_theory.mechanism import MECHANISMS, VANILLA, Mechanism, known
from ssa_theory.mechanism.normalizers import Sparse, TopK

SOFTMAX = "softmax"
"""What vanilla attention is called among normalisers."""
RowProblem = GraphProblem | RetrievalProblem | KernelRegressionProblem
TEMPERATURES = ("without", "with")
_CONTEXTS = 32  # training contexts a seed of task length
_COOLDOWN_SHARE = 5  # the last fifth of the steps is made at a tenth of the step size


def mechanism_of(normalizer: str) -> Mechanism:
    """The mechanism that is labelled so."""
    return known(VANILLA if normalizer == SOFTMAX else normalizer)


def is_sparse(normalizer: str) -> bool:
    """Whether its rows may have exact zeros."""
    return isinstance(mechanism_of(normalizer).normalizer, Sparse)


@dataclass(frozen=True)
class Task:
    """One of the tasks. temperature: the mechanism that a temperature is taken from. top: the keys
    that top-k keeps.
    """

    problem: RowProblem
    training: Training
    temperature: str
    top: int

    def models(self, mechanisms: list[Mechanism]) -> list[Mechanism]:
        """Every mechanism as the task uses it, without and with the temperature."""
        models = []
        for m in mechanisms:
            if isinstance(m.normalizer, TopK):
                m = replace(m, normalizer=replace(m.normalizer, top=self.top))
            models += [m, m.with_parts_of(MECHANISMS[self.temperature])]
        return models


class NormalizersConfig(TrainingConfig):
    """Train every normaliser with and without SSA's temperature on a graph, on noisy retrieval and
    on growing contexts.
    """

    mechanisms: ComparedMechanisms = Field(
        (VANILLA, "sparsemax", "entmax15", "entmax", "top-k", "threshold", "rela"),
        description=f"mechanisms to train, here normalisers; {VANILLA}, softmax, is the peer",
    )
    graph_nodes: int = Field(8, ge=2, le=64, description="graph: number of nodes K, graded")
    graph_dim: int = Field(4, ge=1, le=64, description="graph: embedding dimension d")
    graph_top: int = Field(4, ge=1, description="graph: keys that top-k keeps")
    graph_learning_rate: float = Field(0.1, gt=0, description="graph: step size of Adam")
    graph_steps: int = Field(200, ge=1, le=1_000_000, description="graph: training steps")
    retrieval_dim: int = Field(8, ge=1, le=64, description="retrieval: dimension d")
    retrieval_keys: int = Field(16, ge=2, le=512, description="retrieval: number of keys n")
    retrieval_noise: tuple[float, ...] = Field(
        (0.1, 0.2, 0.4, 0.8), description="retrieval: noise levels s, equally likely"
    )
    retrieval_top: int = Field(4, ge=1, description="retrieval: keys that top-k keeps")
    retrieval_learning_rate: float = Field(0.1, gt=0, description="retrieval: step size of Adam")
    retrieval_steps: int = Field(200, ge=1, le=1_000_000, description="retrieval: training steps")
    retrieval_batch: int = Field(16, ge=1, le=65536, description="retrieval: fresh problems a step")
    retrieval_held_out: int = Field(
        64, ge=1, le=100_000, description="retrieval: test problems by noise level"
    )
    length_train: tuple[int, ...] = Field(
        (8, 32, 128), description="length: context lengths of training, all in every step"
    )
    length_test: tuple[int, ...] = Field(
        (8, 32, 128, 256, 512, 1024),
        description="length: those of the test; errors are of the longest",
    )
    length_top: int = Field(8, ge=1, description="length: keys that top-k keeps")
    length_learning_rate: float = Field(0.1, gt=0, description="length: step size of Adam")
    length_steps: int = Field(64, ge=1, le=1_000_000, description="length: training steps")
    length_batch: int = Field(
        8, ge=1, le=65536, description="length: queries a step, of a pool of 256"
    )
    length_held_out: int = Field(
        4, ge=1, le=4096, description="length: queries to each test context"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "NormalizersConfig":
        for task in self.tasks.values():
            for m in task.models(chosen(self.mechanisms)):
                task.problem.layer(m)
        return self

    @property
    def tasks(self) -> dict[str, Task]:
        """What is trained on, by name."""
        graph = GraphProblem(nodes=self.graph_nodes, dim=self.graph_dim, score="brier")
        retrieval = RetrievalProblem(
            self.retrieval_dim,
            self.retrieval_keys,
            self.retrieval_noise,
            self.retrieval_batch,
            self.retrieval_held_out,
            score="brier",
        )
        return {
            "graph": Task(graph, self._training("graph"), "ssa-query", self.graph_top),
            "retrieval": Task(
                retrieval, self._training("retrieval"), "ssa-feature", self.retrieval_top
            ),
            "length": Task(self.growing, self._training("length"), "ssa-position", self.length_top),
        }

    @property
    def growing(self) -> KernelRegressionProblem:
        """That of task length."""
        return KernelRegressionProblem(
            train_lengths=self.length_train,
            test_lengths=self.length_test,
            contexts=_CONTEXTS,
            batch_size=self.length_batch,
            held_out=self.length_held_out,
        )

    def _training(self, task: str) -> Training:
        steps, rate = getattr(self, f"{task}_steps"), getattr(self, f"{task}_learning_rate")
        last = steps // _COOLDOWN_SHARE
        return Training(steps - last, rate, last, dtype=self.dtype, compile=self.compile)
