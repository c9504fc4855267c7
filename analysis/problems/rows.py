"""Problems whose answer is a distribution over the next token, for each token of a vocabulary.

P_hat = the row of softmax(tau_i e_i W e_j), or of another normaliser, as a distribution; or what
another head makes of the layer
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from analysis.problems.base import Block, Fitted, Measure, Training, stack_members
from analysis.problems.heads import Head, RowHead
from analysis.problems.measures import effective_support, row_l1, singular_values, token_norm
from ssa_theory.losses import Queries, squared_distance
from ssa_theory.mechanism import Inputs, Layer, Misfit, Parameters, Tokens
from ssa_theory.mechanism.parts import Generators
from ssa_theory.seeds import Stream, member_generator
from ssa_theory.theory.optimum import LARGEST_DIM, constant_row, vanilla_optimum
from tasks import unit_embeddings

Rows = TypeVar("Rows", bound="RowBlock")
LossScore = Literal["log", "brier"]
ROW_MEASURES = {
    "learned_transition_matrix": Measure(
        ("node", "next"), "P_hat, the attention rows as distributions (probability)"
    ),
    "cross_entropy_gap": Measure(
        ("step",), "cross-entropy above that of the Bayes predictor (nats), by step"
    ),
    "l1_by_step": Measure(
        ("step",), "mean over rows of the L1 distance between P_hat and the target, by step"
    ),
    "l1_error": Measure(
        (), "mean over rows of the L1 distance between P_hat and the target after training"
    ),
    "weight_norm": Measure((), "spectral norm ||W||_2 of the trained W"),
    "weight_frobenius_norm": Measure((), "Frobenius norm ||W||_F of the trained W"),
    "inverse_temperature": Measure(
        ("node",), "learned tau of each node; the paper's temperature is 1 / tau"
    ),
    "token_norm": Measure(("node",), "||W^T e_i||; times tau_i, the effective logit scale"),
    "effective_support": Measure(
        ("node",), "exp(entropy) of each learned row: its effective number of next tokens"
    ),
    "row_mass": Measure(
        ("node",), "sum of each attention row: 1 but for what a sink or a dead row withholds"
    ),
    "underflow": Measure(
        (), "whether a learned weight is below the smallest normal number of the training precision"
    ),
    "rank_deficient": Measure(
        (), "whether the embeddings have a lower rank than their number and dimension allow"
    ),
}
"""What is measured of a trained model whose rows are the prediction."""
ROW_BASELINES = {
    "vanilla_optimum_gap": "least cross-entropy above Bayes (nats) of vanilla attention over all W; "
    "NaN for d above 64",
    "vanilla_optimum_l1": "L1 error of the rows of least cross-entropy over all W, as l1_error",
    "vanilla_optimum_promised": "what one more Newton step promises to take off "
    "vanilla_optimum_gap (nats)",
    "constant_gap": "cross-entropy above Bayes (nats) of the best single distribution in place of "
    "all rows",
    "constant_l1": "its L1 error, as l1_error",
}
"""What needs no training, of rows in the vocabulary context."""
_AFTER = {"cross_entropy_gap": "final_gap"}
"""What is measured after training, the cooldown included, under a name of its own."""


@dataclass(frozen=True)
class RowBlock(Block):
    """Members that each predict the rows of a target in the vocabulary context, or of prompts.

    inputs: the vocabulary as queries and keys, float64. target: the rows P* (node, next, member).
    evaluation: the exact loss, from which the gap is computed, and which is trained on where there
    are no batches. training: precision. score: `log`, or `brier`, mean_i sum_j (P_ij - P*_ij)^2,
    which exact zeros do not make infinite. sampled: the training data of all steps; None for the
    exact loss. head: what predicts.
    """

    inputs: Inputs
    target: Tensor
    evaluation: Queries
    training: Training
    score: LossScore = "log"
    sampled: Callable[[], Iterator[Queries]] | None = None
    head: Head = field(default_factory=RowHead)

    @classmethod
    def of_vocabulary(
        cls: type[Rows],
        seeds: Sequence[int],
        tokens: Tokens,
        target: Tensor,
        training: Training,
        *,
        keys: int | None = None,
        **others: Any,
    ) -> Rows:
        """Every token once as query, equally weighted, in the exact loss.

        keys: how many a query sees, by default every token once. others: further fields.
        """
        inputs = Inputs(tokens, tokens, count=float(len(target) if keys is None else keys))
        queries = Queries(target, torch.full_like(target[:, 0], 1 / len(target)))
        return cls(seeds, target.device, inputs, target, queries, training, **others)

    def __post_init__(self) -> None:
        dtype = self.training.torch_dtype
        tokens = _as(self.tokens, dtype)
        object.__setattr__(self, "_working", Inputs(tokens, tokens, count=self.inputs.count))
        object.__setattr__(self, "_exact", self.evaluation.to(dtype))
        weight, target = self.evaluation.weight, self.evaluation.target
        bayes = (weight * torch.special.entr(target).sum(1)).sum(0)
        object.__setattr__(self, "_bayes", bayes)

    def initial_parameters(self, layer: Layer, generators: Generators) -> Parameters:
        own = layer.initial_parameters(generators)
        return own | self.head.initial(self.tokens.vector, generators)

    def batches(self, training: Training) -> Iterator[Any] | None:
        return None if self.sampled is None else self.sampled()

    def loss(self, layer: Layer, parameters: Parameters, batch: Queries | None) -> Tensor:
        working: Inputs = self._working  # type: ignore[attr-defined]
        queries: Queries = self._exact if batch is None else batch  # type: ignore[attr-defined]
        if self.score == "brier":
            return squared_distance(layer.rows(parameters, working), queries.target)
        return self.head.loss(layer, parameters, working, queries)

    def recorded(self, layer: Layer, parameters: Parameters) -> dict[str, Tensor]:
        if self.score == "brier":
            return {}
        logits = self.head.logits(layer, parameters, self.inputs)
        loss = self.head.loss(layer, parameters, self.inputs, self.evaluation)
        gap = loss - self._bayes  # type: ignore[attr-defined]
        return {"cross_entropy_gap": gap, "l1_by_step": row_l1(logits.softmax(1), self.target)}

    def loss_of(self, recorded: Mapping[str, Tensor]) -> Tensor | None:
        gap = recorded.get("cross_entropy_gap")
        return None if gap is None else gap + self._bayes  # type: ignore[attr-defined]

    @property
    def tokens(self) -> Tokens:
        """The vocabulary."""
        return _queries(self.inputs)

    def rows(self, layer: Layer, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """The attention rows and those that they should be (node, next, member)."""
        return layer.rows(parameters, self.inputs), self.target

    def evaluate(self, layer: Layer, fitted: Fitted) -> dict[str, Tensor]:
        final = fitted.parameters
        inputs = self.head.inputs(final, self.inputs)
        learned = self.head.prediction(layer, final, self.inputs)
        vector = _queries(inputs).vector
        nodes, dim, _ = vector.shape
        rank = torch.linalg.matrix_rank(vector.permute(2, 0, 1))
        weight_norm = singular_values(final["weight"])[0]
        tau = layer.inverse_temperature("query", final, inputs).expand(nodes, -1)
        recorded = self.recorded(layer, final)
        return {name: recorded[own] for own, name in _AFTER.items() if own in recorded} | {
            "learned_transition_matrix": learned,
            "l1_error": row_l1(learned, self.target),
            "brier_gap": squared_distance(layer.rows(final, self.inputs), self.target),
            "map_l1": row_l1(layer.prediction(final, inputs), self.target),
            "weight_norm": weight_norm,
            "effective_weight": (tau * weight_norm).mean(0),
            "weight_frobenius_norm": final["weight"].square().sum((0, 1)).sqrt(),
            "inverse_temperature": tau,
            "token_norm": token_norm(final["weight"], vector),
            "effective_support": effective_support(learned, dim=1),
            "row_mass": layer.rows(final, inputs).sum(1),
            "underflow": (learned < torch.finfo(self.training.torch_dtype).tiny).any(0).any(0),
            "rank_deficient": rank < min(nodes, dim),
        }


def row_baselines(
    embeddings: Tensor, target: np.ndarray, weight: np.ndarray
) -> dict[str, np.ndarray]:
    """`ROW_BASELINES` of tokens (token, dim, member), rows P* (member, token, next) and their
    weights (member, token).
    """
    vector = embeddings.permute(2, 0, 1).numpy()
    gap, l1 = constant_row(target, weight)
    if vector.shape[-1] > LARGEST_DIM:
        optimum = [np.full(len(gap), np.nan)] * 3
    else:
        best = vanilla_optimum(vector, target, weight)
        optimum = [best.gap, best.l1, best.promised]
    return dict(zip(ROW_BASELINES, [*optimum, gap, l1], strict=True))


def require_exponential(layer: Layer, why: str) -> Layer:
    """The layer, if its rows are a softmax up to a factor. Raises Misfit, saying why, where not."""
    if not layer.exponential:
        raise Misfit(f"mechanism {layer.mechanism.name} needs {why}")
    return layer


def require_counts(layer: Layer, why: str) -> Layer:
    """The layer, if m equal keys can share a weight by log m added to their score. Raises Misfit,
    saying why, where not.
    """
    if layer.evaluated.normalizer != layer.normalizer:
        raise Misfit(f"mechanism {layer.mechanism.name} needs {why}")
    return require_exponential(layer, why)


def _queries(inputs: Inputs) -> Tokens:
    assert inputs.query is not None  # of a vocabulary, queries are keys
    return inputs.query


def draw_embeddings(
    seeds: Sequence[int], nodes: int, dim: int, device: torch.device, similarity: float = 0.0
) -> Tensor:
    """Unit embeddings of each seed's tokens (node, dim, member)."""
    drawn = [
        unit_embeddings(nodes, dim, member_generator(s, Stream.EMBEDDING), similarity)
        for s in seeds
    ]
    return stack_members(drawn, device)


def _as(tokens: Tokens, dtype: torch.dtype) -> Tokens:
    feature = None if tokens.feature is None else tokens.feature.to(dtype)
    return Tokens(tokens.vector.to(dtype), feature, tokens.labels)
