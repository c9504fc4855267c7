"""What the models of a comparison have learned: their parameters, and the tokens they read."""

from collections import defaultdict

import numpy as np
import xarray as xr

from analysis.problems.base import Block, Fitted
from analysis.problems.rows import RowBlock
from ssa_theory.mechanism import Layer


class Learned:
    """The parameters of every model, by mechanism and name (member, ...), NaN where it diverged;
    embeddings: E of the members of each block (member, node, coordinate), of problems whose rows
    are over a vocabulary.
    """

    def __init__(self) -> None:
        self.parameters: dict[str, dict[str, list[np.ndarray]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self.embeddings: dict[tuple[int, ...], np.ndarray] = {}

    def keep(self, block: Block, layer: Layer, fitted: Fitted) -> None:
        """Write down what a mechanism has learned on a block; `keep` of `train_all`."""
        for name, values in fitted.by_member(fitted.parameters).items():
            self.parameters[layer.mechanism.name][name].append(values)
        if isinstance(block, RowBlock):
            vector = block.tokens.vector.permute(2, 0, 1)
            self.embeddings[tuple(block.seeds)] = vector.cpu().numpy()

    def variables(self) -> dict[str, xr.DataArray]:
        """`MECHANISM.PARAMETER` (seed, ...) and `embedding` (seed, node, coordinate)."""
        arrays = {}
        for mechanism, own in self.parameters.items():
            for name, parts in own.items():
                values, whole = np.concatenate(parts), f"{mechanism}.{name}"
                dims = ["seed", *(f"{whole}_dim_{i}" for i in range(values.ndim - 1))]
                about = {"description": f"parameter {name} of the layer of {mechanism}"}
                arrays[whole] = xr.DataArray(values, dims=dims, attrs=about)
        if self.embeddings:
            about = {"description": "E, the embedding of each token"}
            values = np.concatenate([*self.embeddings.values()])
            dims = ("seed", "node", "coordinate")
            arrays["embedding"] = xr.DataArray(values, dims=dims, attrs=about)
        return arrays
