"""The problems of the atlas, each with the two ends of its scale: exact Bayes, and naive."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.experiments.atlas.world import Column, Ends, World
from analysis.problems.base import Problem
from analysis.problems.basis_denoise import BasisDenoiseProblem
from analysis.problems.denoise import DenoiseProblem
from analysis.problems.graph import GraphProblem
from analysis.problems.heads import ClassifierHead
from analysis.problems.hierarchy import HierarchyProblem
from analysis.problems.imbalance import ImbalanceProblem
from analysis.problems.kernel_regression import KernelRegressionProblem
from analysis.problems.location import LocationProblem
from analysis.problems.retrieval import RetrievalProblem
from analysis.problems.small_graphs import SmallGraphProblem
from analysis.problems.trigger import TriggerProblem
from ssa_theory.mechanism import Inputs, Layer, Parameters, Tokens
from ssa_theory.theory.optimum import constant_row

TRIGGER = TriggerProblem()
_BEYOND = 8
"""How far length goes beyond training."""


def _mean(name: str, values: Mapping[str, Tensor], places: slice = slice(None)) -> Tensor:
    """Of a measure over all axes but that of the members."""
    measured = values[name]
    return measured if measured.ndim == 1 else measured[places].flatten(0, -2).mean(0)


def _described(bayes: str, naive: str, block: Any) -> Ends:
    """As the problem's description names them."""
    described = block.problem.describe(block.seeds)
    values = (described[name] for name in (bayes, naive))
    low, high = (v.mean([d for d in v.dims if d != "seed"]).values for v in values)
    return low, np.broadcast_to(high, low.shape)


def _constant_row(block: Any) -> Ends:
    """Of gaps to the Bayes cross-entropy: 0, and that of the best single row, the mean."""
    target = block.target.permute(2, 0, 1).cpu().numpy()
    gap, _ = constant_row(target, block.evaluation.weight.T.cpu().numpy())
    return 0 * gap, gap


def _uniform_weights(block: Any) -> Ends:
    """Of the squared error of a mixture: 0, and that of the mean of all tokens."""
    counted = block.counted
    error = counted.error(torch.zeros_like(counted.log_kappa))[: block.trained].mean(0)
    return np.zeros(len(error)), error.cpu().numpy()


def _lengths(places: slice, block: Any) -> Ends:
    """The posterior variance, and the squared error of the mean of the values."""
    problem, ends = block.problem, []
    lengths = problem.lengths[places]
    for seed in block.seeds:
        context = problem.test_context(seed)
        known = problem.task.covariance(context.keys)
        bayes = problem.task.bayes_variance(context, known)[0].mean(0)[np.array(lengths) - 1]
        naive = []
        for n in lengths:
            uniform = np.full((1, 1, problem.held_out, n), 1 / n)
            risk = problem.task.linear_risk(context.prefix(n), uniform, known[:, :n, :n])
            naive.append(risk.mean())
        ends.append((bayes.mean(), np.mean(naive)))
    low, high = np.array(ends).T
    return low, high


def _tokens(block: Any) -> list[Inputs]:
    return [block.problem.inputs(block.tokens)]


def _from_the_last(block: Any) -> list[Inputs]:
    tokens = block.tokens
    return [Inputs(Tokens(tokens[:, -1]), Tokens(tokens), count=float(tokens.shape[1]))]


def _two_queries(block: Any) -> list[Inputs]:
    """With the trigger, and without."""
    shape = (len(block.keys), 2, block.keys.shape[-1])
    queries = torch.eye(2, dtype=torch.float64, device=block.device)
    return [block.problem.inputs(q[:, None].expand(shape), block.keys) for q in queries]


def _counted_spikiness(block: Any, layer: Layer, parameters: Parameters) -> Tensor:
    """1 / (n sum_j p_j^2) of rows in which n_a keys share w and n_b keys 1 - w; 1 of a single kind."""
    counted = block.counted
    weight = torch.sigmoid(counted.margin(layer, parameters) - counted.log_kappa)
    share = torch.sigmoid(-counted.log_kappa)  # n_a / n
    square = weight**2 / share + (1 - weight) ** 2 / (1 - share)
    return torch.where(counted.seen, 1 / square, 1.0).mean(0)


def _at_length(place: int, block: Any) -> list[Inputs]:
    return [block.tested(block.problem.lengths[place])]


def _growing() -> World:
    """Trained on short contexts, tested on those and on one eight times as long."""
    lengths = (4, 16, 64)
    tested = (*lengths, _BEYOND * lengths[-1])
    problem = KernelRegressionProblem(
        train_lengths=lengths, test_lengths=tested, contexts=32, batch_size=16
    )

    def column(places: slice, longest: int) -> Column:
        risk = partial(_mean, "mse", places=places)
        return Column(risk, partial(_lengths, places), partial(_at_length, longest))

    within, beyond = slice(0, len(lengths)), slice(len(lengths), None)
    columns = {"length": column(within, len(lengths) - 1), "length-beyond": column(beyond, -1)}
    return World(problem, columns)


def _alone(single: Mapping[str, tuple[Problem, Column]]) -> dict[str, World]:
    """Problems with one column each, of the same name."""
    return {name: World(problem, {name: column}) for name, (problem, column) in single.items()}


def _worlds() -> dict[str, World]:
    row = Column(partial(_mean, "final_gap"), _constant_row, lambda block: [block.inputs])
    risk, named = partial(_mean, "risk"), partial(_described, "bayes", "naive")
    held_out = partial(_described, "held_out_bayes", "held_out_naive")
    denoise = Column(partial(_mean, "mse"), held_out, _tokens)
    choice = Column(partial(_mean, "cross_entropy"), named, lambda block: block.tested_inputs)
    counted, loss = lambda block: [block.counted.inputs], partial(_mean, "loss")
    mixture = Column(loss, _uniform_weights, counted, _counted_spikiness)
    to_zero = Column(risk, partial(_described, "bayes", "held_out_zero"), _two_queries)
    before: dict[str, tuple[Problem, Column]] = {
        "graph": (GraphProblem(dim=4), row),
        "graph-wide": (GraphProblem(dim=8), row),
        "letters": (GraphProblem("letters", dim=12), row),
        "paper-graph": (SmallGraphProblem(head=ClassifierHead()), row),
        "hierarchy": (HierarchyProblem(), row),
        "denoise": (DenoiseProblem(query="last", batch_size=16, held_out=128), denoise),
        "basis-denoise": (BasisDenoiseProblem(batch_size=16), Column(risk, named, _from_the_last)),
        "retrieval": (RetrievalProblem(keys=16, batch_size=16, held_out=64), choice),
        "imbalance": (ImbalanceProblem(), mixture),
    }
    after = {
        "trigger": (TRIGGER, to_zero),
        "location": (LocationProblem(), Column(risk, named, _tokens)),
    }
    return {**_alone(before), "length": _growing(), **_alone(after)}


WORLDS: dict[str, World] = _worlds()
"""By name; a run is cut into one unit for each of them and each mechanism."""
COLUMNS = [name for world in WORLDS.values() for name in world.columns]
