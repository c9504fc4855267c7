"""The problems of the atlas, each with the two ends of its scale: exact Bayes, and naive."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import xarray as xr
from torch import Tensor

from analysis.problems.base import Problem
from analysis.problems.basis_denoise import BasisDenoiseProblem
from analysis.problems.denoise import DenoiseProblem
from analysis.problems.graph import GraphProblem
from analysis.problems.kernel_regression import KernelRegressionProblem
from analysis.problems.location import LocationProblem
from analysis.problems.retrieval import RetrievalProblem
from analysis.problems.trigger import TriggerProblem

Values = Mapping[str, Tensor]
"""What a block's `evaluate` returns."""


@dataclass(frozen=True)
class World:
    """A problem, the risk of a trained model (member,), and by seed the risks of Bayes and of the
    naive predictor, of the problem's description.
    """

    problem: Problem
    risk: Callable[[Values], Tensor]
    ends: Callable[[xr.Dataset], tuple[xr.DataArray, xr.DataArray]]


def _mean(name: str, values: Values, places: slice = slice(None)) -> Tensor:
    """Of a measure over all axes but that of the members."""
    measured = values[name]
    return measured if measured.ndim == 1 else measured[places].flatten(0, -2).mean(0)


def _named(bayes: str, naive: str, described: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    return described[bayes], described[naive]


def _constant_row(described: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Of gaps to the Bayes cross-entropy: 0, and that of the best single row, the mean."""
    gap = described["constant_gap"]
    return 0 * gap, gap


def _noises(described: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    bayes = described["bayes"].mean("noise")
    return bayes, 0 * bayes + described["naive"]


def _lengths(places: slice, described: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    part = described.isel(length=places)
    return part["bayes"].mean("length"), part["naive"].mean("length")


def _worlds() -> dict[str, World]:
    gap = partial(_mean, "final_gap")
    risk, above_zero = partial(_mean, "risk"), partial(_named, "bayes", "held_out_zero")
    length = KernelRegressionProblem()
    inside = sum(n <= max(length.train_lengths) for n in length.lengths)
    within, beyond = slice(0, inside), slice(inside, None)
    return {
        "graph": World(GraphProblem(dim=4), gap, _constant_row),
        "graph-wide": World(GraphProblem(dim=8), gap, _constant_row),
        "letters": World(GraphProblem("letters", dim=12), gap, _constant_row),
        "denoise": World(
            DenoiseProblem(query="last"),
            partial(_mean, "mse"),
            partial(_named, "held_out_bayes", "held_out_naive"),
        ),
        "basis-denoise": World(BasisDenoiseProblem(), risk, partial(_named, "bayes", "naive")),
        "retrieval": World(RetrievalProblem(), partial(_mean, "cross_entropy"), _noises),
        "length": World(length, partial(_mean, "mse", places=within), partial(_lengths, within)),
        "length-beyond": World(
            length, partial(_mean, "mse", places=beyond), partial(_lengths, beyond)
        ),
        "trigger": World(TriggerProblem(), risk, above_zero),
        "location": World(LocationProblem(), risk, partial(_named, "bayes", "naive")),
    }


WORLDS: dict[str, World] = _worlds()
