"""The problems of the atlas, each with the two ends of its scale: exact Bayes, and naive."""

from collections.abc import Callable, Mapping, Sequence
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


def _vocabulary(block: Any) -> list[Inputs]:
    return [block.inputs]


def _held_out(block: Any) -> list[Inputs]:
    return block.tested_inputs


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


def _counted(block: Any) -> list[Inputs]:
    return [block.counted.inputs]


def _counted_spikiness(block: Any, layer: Layer, parameters: Parameters) -> Tensor:
    """1 / (n sum_j p_j^2) of rows in which n_a keys share w and n_b keys 1 - w; 1 of a single kind."""
    counted = block.counted
    weight = torch.sigmoid(counted.margin(layer, parameters) - counted.log_kappa)
    share = torch.sigmoid(-counted.log_kappa)  # n_a / n
    square = weight**2 / share + (1 - weight) ** 2 / (1 - share)
    return torch.where(counted.seen, 1 / square, 1.0).mean(0)


def _at_length(place: int, block: Any) -> list[Inputs]:
    return [block.tested(block.problem.lengths[place])]


def _rows(problem: Problem, name: str) -> World:
    """Of a problem whose answer is the row of every token."""
    return World(
        problem,
        {name: Column(partial(_mean, "final_gap"), _constant_row, _vocabulary)},
    )


def _single(
    problem: Problem,
    name: str,
    measure: str,
    ends: Callable[[Any], Ends],
    inputs: Callable[[Any], Sequence[Inputs]],
) -> World:
    return World(problem, {name: Column(partial(_mean, measure), ends, inputs)})


def _growing() -> World:
    """Trained on short contexts, tested on those and on one eight times as long."""
    lengths = (4, 16, 64)
    problem = KernelRegressionProblem(
        train_lengths=lengths,
        test_lengths=(*lengths, _BEYOND * lengths[-1]),
        contexts=32,
        batch_size=16,
    )
    within, beyond = slice(0, len(lengths)), slice(len(lengths), None)
    places = {"length": (within, len(lengths) - 1), "length-beyond": (beyond, len(lengths))}
    return World(
        problem,
        {
            name: Column(
                partial(_mean, "mse", places=part), partial(_lengths, part), partial(_at_length, at)
            )
            for name, (part, at) in places.items()
        },
    )


def _worlds() -> dict[str, World]:
    named = partial(_described, "bayes", "naive")
    denoise = DenoiseProblem(query="last", batch_size=16, held_out=128)
    return {
        "graph": _rows(GraphProblem(dim=4), "graph"),
        "graph-wide": _rows(GraphProblem(dim=8), "graph-wide"),
        "letters": _rows(GraphProblem("letters", dim=12), "letters"),
        "paper-graph": _rows(SmallGraphProblem(head=ClassifierHead()), "paper-graph"),
        "hierarchy": _rows(HierarchyProblem(), "hierarchy"),
        "denoise": _single(
            denoise,
            "denoise",
            "mse",
            partial(_described, "held_out_bayes", "held_out_naive"),
            _tokens,
        ),
        "basis-denoise": _single(
            BasisDenoiseProblem(batch_size=16), "basis-denoise", "risk", named, _from_the_last
        ),
        "retrieval": _single(
            RetrievalProblem(keys=16, batch_size=16, held_out=64),
            "retrieval",
            "cross_entropy",
            named,
            _held_out,
        ),
        "imbalance": World(
            ImbalanceProblem(),
            {
                "imbalance": Column(
                    partial(_mean, "loss"), _uniform_weights, _counted, _counted_spikiness
                )
            },
        ),
        "length": _growing(),
        "trigger": _single(
            TRIGGER,
            "trigger",
            "risk",
            partial(_described, "bayes", "held_out_zero"),
            _two_queries,
        ),
        "location": _single(LocationProblem(), "location", "risk", named, _tokens),
    }


WORLDS: dict[str, World] = _worlds()
"""By name; a run is cut into one unit for each of them and each mechanism."""
COLUMNS = [name for world in WORLDS.values() for name in world.columns]
