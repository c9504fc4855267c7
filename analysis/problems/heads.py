"""Heads: how the next token is predicted from an attention layer whose keys are all tokens, once."""

import abc
import math
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from ssa_theory.losses import Queries, query_cross_entropy, query_logits
from ssa_theory.mechanism import Inputs, Layer, Parameters
from ssa_theory.mechanism.parts import Generators, matmul, normal, own


@dataclass(frozen=True)
class Head(abc.ABC):
    """P_hat(next | i) from a layer.

    values: whether it reads the layer's output, which needs a value map, rather than its rows.
    """

    values: ClassVar[bool]

    def require(self, nodes: int, dim: int) -> None:
        """Raise ValueError where it cannot be worn with embeddings (nodes, dim)."""
        return

    def initial(self, embeddings: Tensor, generators: Generators) -> Parameters:
        """What it learns, at the start, float64; embeddings (node, dim, member) are the task's."""
        return {}

    def inputs(self, parameters: Parameters, inputs: Inputs) -> Inputs:
        """What the layer sees."""
        return inputs

    @abc.abstractmethod
    def logits(self, layer: Layer, parameters: Parameters, inputs: Inputs) -> Tensor:
        """log P_hat up to a constant a query, (query, next, member)."""

    def prediction(self, layer: Layer, parameters: Parameters, inputs: Inputs) -> Tensor:
        """P_hat (query, next, member)."""
        return self.logits(layer, parameters, inputs).softmax(1)

    def query_logits(
        self, layer: Layer, parameters: Parameters, inputs: Inputs, queries: Queries
    ) -> Tensor:
        """log P_hat of queries up to a constant each (query, next, member): in a prompt equal
        tokens share their attention.
        """
        return query_logits(self.logits(layer, parameters, inputs), queries)

    def loss(
        self, layer: Layer, parameters: Parameters, inputs: Inputs, queries: Queries
    ) -> Tensor:
        """The cross-entropy of queries (member,), in nats."""
        return query_cross_entropy(self.query_logits(layer, parameters, inputs, queries), queries)


@dataclass(frozen=True)
class RowHead(Head):
    """The attention row is the prediction: P_hat = softmax(z), the paper's theory (arXiv 2411.12892,
    section 4.1). The head fixes the map: the loss has its minimum where the row is the target.
    """

    values = False

    def logits(self, layer: Layer, parameters: Parameters, inputs: Inputs) -> Tensor:
        return layer.logits(parameters, inputs)

    def prediction(self, layer: Layer, parameters: Parameters, inputs: Inputs) -> Tensor:
        return layer.prediction(parameters, inputs)


@dataclass(frozen=True)
class TiedHead(RowHead):
    """A linear classifier C tied to the embeddings by C E^T = I: P_hat = C sum_j p_ij e_j = p_i.

    That is the row again, and so it is computed. Such a C exists where the embeddings are linearly
    independent, hence d >= K.
    """

    def require(self, nodes: int, dim: int) -> None:
        if dim < nodes:
            raise ValueError(
                f"a tied classifier C E^T = I needs dim >= nodes = {nodes}, got {dim}: raise dim, or"
                " take another head"
            )


@dataclass(frozen=True)
class ClassifierHead(Head):
    """P_hat = softmax(C y_i), y_i = sum_j p_ij W_v e_j the layer's output, C (node, dim) learned:
    the model of the paper's graph experiment (arXiv 2411.12892, Fig. 3 and Table 1).

    learned_embeddings: whether E is trained too, from the task's as start. With C and W_v free the
    loss does not fix the map: any rows p_i that tell queries apart can predict any target.
    """

    learned_embeddings: bool = False

    values = True

    def initial(self, embeddings: Tensor, generators: Generators) -> Parameters:
        nodes, dim, _ = embeddings.shape
        start = {"classifier": normal(generators, nodes, dim) / math.sqrt(dim)}
        return start | ({"embedding": embeddings.cpu()} if self.learned_embeddings else {})

    def inputs(self, parameters: Parameters, inputs: Inputs) -> Inputs:
        if not self.learned_embeddings or inputs.query is None:
            return inputs
        tokens = replace(inputs.query, vector=parameters["embedding"])
        return replace(inputs, query=tokens, keys=tokens)

    def logits(self, layer: Layer, parameters: Parameters, inputs: Inputs) -> Tensor:
        output = layer.output(parameters, self.inputs(parameters, inputs))
        return matmul(output, parameters["classifier"].transpose(0, 1))

    def query_logits(
        self, layer: Layer, parameters: Parameters, inputs: Inputs, queries: Queries
    ) -> Tensor:
        """Of prompts p = softmax(z + log m) over the vocabulary, by a layer without a gate."""
        if queries.counts is None:
            return super().query_logits(layer, parameters, inputs, queries)
        seen = self.inputs(parameters, inputs)
        z = query_logits(layer.scores(parameters, seen), queries)
        rows = layer.normalizer.rows(own(parameters, "normalizer"), z, 1)
        output = layer.mixed(parameters, seen, rows)
        return matmul(output, parameters["classifier"].transpose(0, 1))
