"""The settings of `normalizers`, and the three tasks that they name."""

from dataclasses import replace

from pydantic import Field

from analysis.experiments.mechanisms import ComparedMechanisms, chosen
from analysis.experiments.settings import Cell, CellsConfig
from analysis.problems.base import Training
from analysis.problems.graph import GraphProblem
from analysis.problems.kernel_regression import KernelRegressionProblem
from analysis.problems.retrieval import RetrievalProblem
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


class NormalizersConfig(CellsConfig):
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
    graph_steps: int = Field(200, ge=1, le=1_000_000, description="graph: training steps")
    retrieval_dim: int = Field(8, ge=1, le=64, description="retrieval: dimension d")
    retrieval_keys: int = Field(16, ge=2, le=512, description="retrieval: number of keys n")
    retrieval_noise: tuple[float, ...] = Field(
        (0.1, 0.2, 0.4, 0.8), description="retrieval: noise levels s, equally likely"
    )
    retrieval_top: int = Field(4, ge=1, description="retrieval: keys that top-k keeps")
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
    length_steps: int = Field(64, ge=1, le=1_000_000, description="length: training steps")
    length_batch: int = Field(
        8, ge=1, le=65536, description="length: queries a step, of a pool of 256"
    )
    length_held_out: int = Field(
        4, ge=1, le=4096, description="length: queries to each test context"
    )

    @property
    def cells(self) -> list[Cell[RowProblem]]:
        """The tasks; mechanisms of each are without and with a temperature, in turn."""
        graph = GraphProblem(nodes=self.graph_nodes, dim=self.graph_dim, score="brier")
        retrieval = RetrievalProblem(
            self.retrieval_dim,
            self.retrieval_keys,
            self.retrieval_noise,
            self.retrieval_batch,
            self.retrieval_held_out,
            score="brier",
        )
        tasks = {
            "graph": (graph, "ssa-query", self.graph_top),
            "retrieval": (retrieval, "ssa-feature", self.retrieval_top),
            "length": (self.growing, "ssa-position", self.length_top),
        }
        return [
            Cell(name, problem, self._training(name), self._models(temperature, top))
            for name, (problem, temperature, top) in tasks.items()
        ]

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
        steps = getattr(self, f"{task}_steps")
        last = steps // _COOLDOWN_SHARE
        return self.training_of(steps - last, last)

    def _models(self, temperature: str, top: int) -> list[Mechanism]:
        """Every mechanism, top-k with so many keys, without and with another's temperature."""
        models = []
        for m in chosen(self.mechanisms):
            if isinstance(m.normalizer, TopK):
                m = replace(m, normalizer=replace(m.normalizer, top=top))
            models += [m, m.with_parts_of(MECHANISMS[temperature])]
        return models
