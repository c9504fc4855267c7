"""Are sparse normalisers a substitute for temperature? Softmax and its rivals with and without SSA
on three tasks, each trained on a proper score that exact zeros do not make infinite.
"""

from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from analysis.claims.bands import mean_band, ratio_band
from analysis.experiments.base import Experiment, Progress
from analysis.experiments.mechanisms import chosen
from analysis.experiments.normalizers.claims import judge
from analysis.experiments.normalizers.config import SOFTMAX, TEMPERATURES, NormalizersConfig
from analysis.experiments.normalizers.figure import draw
from analysis.experiments.settings import QUICK, steps_of
from analysis.problems.base import Fitted, fit
from analysis.problems.kernel_regression import KernelRegressionBlock
from analysis.problems.measures import row_l1, row_shape
from analysis.problems.retrieval import RetrievalBlock
from analysis.problems.rows import RowBlock
from analysis.problems.sizes import block_size, check_result_fits
from analysis.problems.tuning import tune
from ssa_theory.device import resolve_device
from ssa_theory.losses import squared_distance
from ssa_theory.mechanism import Layer
from ssa_theory.mechanism.normalizers import Entmax
from ssa_theory.mechanism.parts import own

_MODEL = ("normalizer", "temperature", "seed")
_BY_TASK = {
    "score": "Brier score of the row; length: squared error of f(q) at the longest test length",
    "error": "score above that of Bayes; of rows, the mean squared distance from the true ones",
    "l1_error": "mean L1 distance of the rows from P* or the posterior; NaN for length",
    "effective_support": "exp(entropy) of rows with a key left (keys); length: longest context",
    "largest_weight": "largest weight of the rows with a key left, mean: how spiky",
    "zero_fraction": "share of exact zeros in the rows: how sparse",
    "dead_rows": "share of rows with at most one key left, whose weights have no gradient",
    "stuck_rows": "share of rows that are dead and misplaced (L1 distance above 1); NaN for length",
    "alpha": "learned alpha of entmax; NaN for the other normalisers",
    "unmoved": "whether training changed no parameter at all, as none ever had a gradient",
    "diverged": "whether the loss was ever not finite; the model's other numbers are NaN",
}
_BASELINES = {
    "bayes": "score of the true row, or of the Gaussian process's posterior mean",
    "uniform": "what uniform attention adds to the Bayes score",
    "best_softmax": "what softmax at its best temperature, of the longest length or of all noise "
    "levels, adds to the Bayes score; NaN for graph",
}
_LENGTH, _EXACT = (*_MODEL, "length"), ("seed", "length")
_SINGLE = {
    "accuracy": (_MODEL, "retrieval: share of test problems where the target weighs most"),
    "bayes_accuracy": (("seed",), "retrieval: that of the exact posterior"),
    "mse_by_length": (_LENGTH, "length: squared error of f(q), exact given keys and queries"),
    "effective_support_by_length": (_LENGTH, "length: effective_support of each length"),
    "bayes_by_length": (_EXACT, "length: squared error of the posterior mean"),
    "uniform_by_length": (_EXACT, "length: squared error of the mean of the values"),
    "best_softmax_by_length": (_EXACT, "length: squared error of softmax at its best temperature"),
}
Values = dict[str, np.ndarray]


def seeds_per_block(config: NormalizersConfig) -> int:
    """By what every task holds of a seed."""
    cells = config.cells
    numbers = len(cells) * len(_BY_TASK) + 2 * len(config.length_test)
    check_result_fits(config.seeds * 2 * len(config.mechanisms) * numbers)
    return block_size(config, sum(c.problem.bytes_per_seed(c.training) for c in cells))


def train(config: NormalizersConfig, progress: Progress) -> xr.Dataset:
    """Train every normaliser on every task and seed, with and without temperature."""
    device, mechanisms = resolve_device(config.device), chosen(config.mechanisms)
    each = sum(steps_of(c.training, config.learning_rates) for c in config.cells)
    what = f"training {config.seeds} seeds x {len(mechanisms)} normalisers, twice"
    advance = progress(what, 2 * len(mechanisms) * each)
    measured: dict[str, Values] = {}
    tuned = []
    for cell in config.cells:
        block = cell.problem.block(config.seed_range, cell.training, device)
        models, rates = [], config.learning_rates
        one = tune(cell.problem, cell.mechanisms, cell.training, rates, device, advance)
        tuned.append(xr.Dataset(replace(one, tracked={}).variables))
        for layer, rate in zip(map(cell.problem.layer, cell.mechanisms), one.rate, strict=True):
            fitted = fit(block, layer, cell.training.at(float(rate)), progress=advance)
            models.append(_measure(block, layer, fitted))
        shape = (len(mechanisms), len(TEMPERATURES))
        stacked = {key: np.stack([model[key] for model in models]) for key in models[0]}
        measured[cell.name] = {key: v.reshape(*shape, *v.shape[1:]) for key, v in stacked.items()}
    measured["length"]["score"] = measured["length"]["mse_by_length"][..., -1]
    pairs = [(m.name, f"{m.name} with a temperature") for m in mechanisms]
    dataset = xr.concat(tuned, "task").assign_coords(
        {
            "mechanism": [name for names in pairs for name in names],
            "task": [cell.name for cell in config.cells],
            "normalizer": [SOFTMAX if m.is_vanilla else m.name for m in mechanisms],
            "temperature": list(TEMPERATURES),
            "seed": list(config.seed_range),
            "length": config.growing.lengths,
        }
    )
    return _add(dataset, measured, _MODEL, _BY_TASK)


def _measure(
    block: RowBlock | RetrievalBlock | KernelRegressionBlock, layer: Layer, fitted: Fitted
) -> Values:
    """Of one model on one task, by seed: what `_BY_TASK` and `_SINGLE` name."""
    layer = layer.evaluated
    rows, target = block.rows(layer, fitted.parameters)
    evaluated, measured = block.evaluate(layer, fitted), measure_rows(rows, target)
    if target is None:
        for name in ("mse", "effective_support"):
            measured[f"{name}_by_length"] = evaluated[name]
    if "accuracy" in evaluated:
        measured["accuracy"] = evaluated["accuracy"].mean(0)
    alpha = torch.full_like(measured["dead_rows"], torch.nan)
    if isinstance(layer.normalizer, Entmax):
        alpha = layer.normalizer.alpha(own(fitted.parameters, "normalizer"))
    states = {"alpha": alpha, "unmoved": fitted.unmoved, "diverged": fitted.diverged}
    return fitted.by_member(measured | states)


def measure_rows(rows: Tensor, target: Tensor | None) -> dict[str, Tensor]:
    """How spiky and sparse rows are, and how far from the distributions that they predict."""
    if target is None:
        return row_shape(rows)
    stuck = ((rows > 0).sum(1) <= 1) & ((rows - target).abs().sum(1) > 1)
    return row_shape(rows) | {
        "error": squared_distance(rows, target),
        "l1_error": row_l1(rows, target),
        "stuck_rows": stuck.double().mean(0),
    }


def _add(
    dataset: xr.Dataset, parts: dict[str, Values], dims: tuple[str, ...], by_task: dict[str, str]
) -> xr.Dataset:
    """Add what each task has of `by_task`, NaN where it lacks it, and what only one task has."""
    lacking = np.full([dataset.sizes[d] for d in dims], np.nan)
    for name, about in by_task.items():
        if any(name in part for part in parts.values()):
            values = np.stack([part.get(name, lacking) for part in parts.values()])
            dataset[name] = (("task", *dims), values, {"description": about})
    for name, (single, about) in _SINGLE.items():
        for part in parts.values():
            if name in part:
                dataset[name] = (single, part[name], {"description": about})
    return dataset


def _baselines(config: NormalizersConfig, progress: Progress) -> dict[str, Values]:
    """What needs no training, by task: of `_BASELINES` and `_SINGLE`."""
    advance = progress("exact baselines", len(config.cells))
    described = {}
    for cell in config.cells:
        described[cell.name] = cell.problem.summarise(cell.problem.describe(config.seed_range))
        advance(1)
    rows, length = described["graph"]["transition_matrix"], described["length"]
    squares, uniform = (rows**2).sum("next").mean("node"), 1 / rows.sizes["next"]
    retrieval, longest = described["retrieval"].mean("noise"), length.isel(length=-1)
    bayes, least = retrieval["bayes"], longest["bayes"]
    exact = {
        "graph": {"bayes": 1 - squares, "uniform": squares - uniform},
        "retrieval": {
            "bayes": bayes,
            "bayes_accuracy": retrieval["bayes_accuracy"],
            "uniform": retrieval["naive"] - bayes,
            "best_softmax": retrieval["common"] - bayes,
        },
        "length": {
            "bayes": least,
            "uniform": longest["naive"] - least,
            "best_softmax": longest["oracle"] - least,
            "bayes_by_length": length["bayes"],
            "uniform_by_length": length["naive"],
            "best_softmax_by_length": length["oracle"],
        },
    }
    return {task: {name: v.values for name, v in part.items()} for task, part in exact.items()}


def summarise(config: NormalizersConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Compare with the exact baselines; add means with 95 % intervals over the seeds left."""
    dataset = _add(dataset, _baselines(config, progress), ("seed",), _BASELINES)
    # A task measures its score or its error; the other follows by the Bayes score.
    score, error = dataset["score"], dataset["error"]
    other = {"score": score.fillna(error + dataset["bayes"])}
    other["error"] = error.fillna(score - dataset["bayes"])
    for name, values in other.items():
        dataset[name] = values.transpose("task", *_MODEL).assign_attrs(description=_BY_TASK[name])
    for name in ("error", "effective_support", "zero_fraction", "uniform", "best_softmax"):
        dataset[f"{name}_band"] = mean_band(dataset[name])
    dataset["effective_support_by_length_band"] = mean_band(dataset["effective_support_by_length"])
    about = "length: ratio of geometric means over seeds, mse_by_length / best_softmax_by_length"
    mse, best = dataset["mse_by_length"], dataset["best_softmax_by_length"]
    return dataset.assign(mse_over_best_band=ratio_band(mse, best, about))


_STEPS = {"graph_steps": 15, "retrieval_steps": 15, "length_steps": 10}
_SIZES = {"retrieval_held_out": 8, "length_train": (4, 16), "length_test": (4, 16, 32, 64)}
NORMALIZERS = Experiment(
    name="normalizers",
    question="Are sparse normalisers a substitute for temperature?",
    caption=(
        "Upper row: error above the Bayes score of each normaliser without (open marks) and with "
        "(filled marks) an SSA temperature, all trained on the same proper score, beside exact "
        "baselines (lines); last panel: squared error at growing context lengths (trained in the "
        "grey range) without a temperature, and of softmax with one, over that of softmax at the "
        "best temperature of each length. Lower row: how spiky (effective support, in keys) and "
        "how sparse (share of exact zeros) the same rows are; last panel: effective support at "
        "growing lengths. Means and 95 % intervals over seeds."
    ),
    config=NormalizersConfig,
    train=train,
    seeds_per_block=seeds_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={"smoke": QUICK | _STEPS | _SIZES, "large": {"seeds": 512, "retrieval_held_out": 256}},
    dimensions={
        "task": "that the normalisers are compared on",
        "normalizer": "of the scores of a row",
        "temperature": "whether a query temperature is learned",
    },
)
