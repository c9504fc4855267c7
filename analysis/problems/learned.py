"""What the models of a comparison have learned: their parameters, and the tokens they read."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from analysis.problems.base import Block, Fitted, Problem, Training
from analysis.problems.rows import RowBlock
from ssa_theory.mechanism import Form, Layer, Mechanism, Parameters
from ssa_theory.mechanism.parts import Generators


class Learned:
    """The parameters of every model, by mechanism and name (member, ...), NaN where it diverged;
    embeddings: E of every member (member, node, coordinate), of problems whose rows are over a
    vocabulary.
    """

    def __init__(self) -> None:
        self.parameters: dict[str, dict[str, list[np.ndarray]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self.embeddings: list[np.ndarray] = []

    def variables(self) -> dict[str, xr.DataArray]:
        """`MECHANISM.PARAMETER` (seed, ...) and `embedding` (seed, node, coordinate)."""
        found = {}
        for mechanism, own in self.parameters.items():
            for name, parts in own.items():
                values, whole = np.concatenate(parts), f"{mechanism}.{name}"
                dims = ["seed", *(f"{whole}_dim_{i}" for i in range(values.ndim - 1))]
                about = {"description": f"parameter {name} of the layer of {mechanism}"}
                found[whole] = xr.DataArray(values, dims=dims, attrs=about)
        if self.embeddings:
            about = {"description": "E, the embedding of each token"}
            values, dims = np.concatenate(self.embeddings), ("seed", "node", "coordinate")
            found["embedding"] = xr.DataArray(values, dims=dims, attrs=about)
        return found


@dataclass(frozen=True)
class _KeptBlock(Block):
    """A block that writes down what is learned on it."""

    own: Block
    learned: Learned

    def initial_parameters(self, layer: Layer, generators: Generators) -> Parameters:
        return self.own.initial_parameters(layer, generators)

    def loss(self, layer: Layer, parameters: Parameters, batch: Any) -> Tensor:
        return self.own.loss(layer, parameters, batch)

    def batches(self, training: Training) -> Iterator[Any] | None:
        return self.own.batches(training)

    def recorded(self, layer: Layer, parameters: Parameters) -> dict[str, Tensor]:
        return self.own.recorded(layer, parameters)

    def loss_of(self, recorded: Mapping[str, Tensor]) -> Tensor | None:
        return self.own.loss_of(recorded)

    def evaluate(self, layer: Layer, fitted: Fitted) -> dict[str, Tensor]:
        for name, values in fitted.by_member(fitted.parameters).items():
            self.learned.parameters[layer.mechanism.name][name].append(values)
        return self.own.evaluate(layer, fitted)


class Keeping(Problem):
    """A problem of which what is learned on it is kept."""

    def __init__(self, own: Problem, learned: Learned) -> None:
        self.own, self.learned = own, learned
        self.measures = own.measures  # type: ignore[misc]  # of this one

    @property
    def form(self) -> Form:
        return self.own.form

    def layer(self, mechanism: Mechanism) -> Layer:
        return self.own.layer(mechanism)

    def block(self, seeds: Sequence[int], training: Training, device: torch.device) -> Block:
        block = self.own.block(seeds, training, device)
        if isinstance(block, RowBlock):
            vector = block.tokens.vector.permute(2, 0, 1)
            self.learned.embeddings.append(vector.cpu().numpy())
        return _KeptBlock(seeds, device, block, self.learned)

    def bytes_per_seed(self, training: Training) -> int:
        return self.own.bytes_per_seed(training)

    def describe(self, seeds: Sequence[int]) -> xr.Dataset:
        return self.own.describe(seeds)

    def coordinates(self, training: Training) -> dict[str, Any]:
        return self.own.coordinates(training)
