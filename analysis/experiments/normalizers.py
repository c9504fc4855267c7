"""Are sparse normalisers a substitute for temperature? Softmax and its rivals with and without SSA on three tasks."""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from analysis.experiments.base import Experiment, Progress
from analysis.experiments.normalizers_baselines import (
    Baselines,
    graph_baselines,
    length_baselines,
    retrieval_baselines,
)
from analysis.experiments.normalizers_claims import judge
from analysis.experiments.normalizers_config import TASKS, TEMPERATURES, NormalizersConfig
from analysis.experiments.normalizers_figure import draw
from analysis.experiments.normalizers_tasks import Found, train_graph, train_length, train_retrieval
from analysis.fitting import block_size, check_result_fits
from analysis.claims.statistics import mean_band, ratio
from ssa_theory import resolve_device

TRAIN: dict[str, Callable[..., list[Found]]] = {
    "graph": train_graph,
    "retrieval": train_retrieval,
    "length": train_length,
}
BASELINES: dict[str, Callable[[NormalizersConfig], Baselines]] = {
    "graph": graph_baselines,
    "retrieval": retrieval_baselines,
    "length": length_baselines,
}
_MODEL = ("normalizer", "temperature", "seed")
_BY_TASK = {
    "score": "graph, retrieval: expected Brier score of the row; length: squared error of f(q) at the longest test length",
    "error": "score less the Bayes score; graph, retrieval: the mean squared distance of the row from the true one",
    "l1_error": "mean over rows of the L1 distance from the true row, P* or the posterior; NaN for length",
    "effective_support": "exp(entropy) of the rows with a key left, mean (keys): how spiky; length: longest context",
    "largest_weight": "largest weight of the rows with a key left, mean: how spiky",
    "zero_fraction": "share of exact zeros in the rows: how sparse",
    "dead_rows": "share of rows with at most one key left, whose weights have no gradient",
    "stuck_rows": "share of dead rows with most of their mass misplaced (L1 distance above 1); NaN for length",
    "alpha": "learned alpha of entmax; NaN for the other normalisers",
    "unmoved": "whether training changed no parameter at all, as none ever had a gradient",
    "diverged": "whether the loss was ever not finite; the model's other numbers are NaN",
}
_BASELINES = {
    "bayes": "Bayes score: expected Brier score of the true row, squared error of the Gaussian process's posterior mean",
    "uniform": "what uniform attention adds to the Bayes score",
    "best_softmax": "what softmax at its one best temperature (of the longest length; for all noise levels, W the identity) adds "
    "to the Bayes score; NaN for graph",
}
_SINGLE = {
    "accuracy": (_MODEL, "retrieval: expected share of test problems in which the largest weight is the target's"),
    "bayes_accuracy": (("seed",), "retrieval: accuracy of the exact posterior on the same problems"),
    "mse_by_length": ((*_MODEL, "length"), "length: squared error of f(q), exact given keys and queries"),
    "effective_support_by_length": (
        (*_MODEL, "length"),
        "length: exp(entropy) of the rows with a key left, mean (keys)",
    ),
    "bayes_by_length": (("seed", "length"), "length: squared error of the Gaussian process's posterior mean"),
    "uniform_by_length": (("seed", "length"), "length: squared error of the mean of the values"),
    "best_softmax_by_length": (
        ("seed", "length"),
        "length: squared error of softmax at the best temperature of each length",
    ),
}


def seeds_per_block(config: NormalizersConfig) -> int:
    """By the data as drawn and as moved, attention rows of every model, and their gradients, counted generously."""
    check_result_fits(
        config.seeds * 2 * len(config.normalizers) * (len(TASKS) * len(_BY_TASK) + 2 * len(config.length_test))
    )
    keys, dim = config.retrieval_keys, config.retrieval_dim
    problems = config.retrieval_steps * config.retrieval_batch + len(config.retrieval_noise) * config.retrieval_held_out
    lengths = (
        2 * len(config.normalizers) * sum(config.length_test) + 16 * max(config.length_test)
    ) * config.length_held_out
    return block_size(config, 8 * (3 * problems * ((keys + 1) * dim + 2 * keys) + lengths + 32 * config.graph_nodes**3))


def train(config: NormalizersConfig, progress: Progress) -> xr.Dataset:
    """Train every normaliser on every task and seed, with and without temperature."""
    device, kinds = resolve_device(config.device), len(config.normalizers)
    steps = config.graph_steps + config.retrieval_steps + config.length_steps
    advance = progress(f"training {config.seeds} seeds x {kinds} normalisers, twice", 2 * steps * kinds)
    found = {task: _by_model(TRAIN[task](config, config.seed_range, device, advance)) for task in TASKS}
    found["length"]["score"] = found["length"]["mse_by_length"][..., -1]
    dataset = xr.Dataset(
        coords={
            "task": list(TASKS),
            "normalizer": list(config.normalizers),
            "temperature": list(TEMPERATURES),
            "seed": list(config.seed_range),
            "length": list(config.length.test_lengths),
        }
    )
    return _add(dataset, found, _MODEL, _BY_TASK)


def _add(dataset: xr.Dataset, parts: dict[str, Found], dims: tuple[str, ...], by_task: dict[str, str]) -> xr.Dataset:
    """Add what each task has of `by_task`, NaN where it lacks it, and what only one task has."""
    shape = [dataset.sizes[d] for d in dims]
    for name, about in by_task.items():
        if any(name in part for part in parts.values()):
            values = np.stack([parts[task].get(name, np.full(shape, np.nan)) for task in TASKS])
            dataset[name] = (("task", *dims), values, {"description": about})
    for name, (single, about) in _SINGLE.items():
        for part in parts.values():
            if name in part:
                dataset[name] = (single, part[name], {"description": about})
    return dataset


def _by_model(models: Sequence[Found]) -> Found:
    """One entry a model to arrays (normalizer, temperature, seed, ...), NaN where a model diverged."""
    found = {name: np.stack([model[name] for model in models]) for name in models[0]}
    found = {name: values.reshape(-1, len(TEMPERATURES), *values.shape[1:]) for name, values in found.items()}
    for name, values in found.items():
        if name not in ("diverged", "unmoved"):
            values[found["diverged"]] = np.nan
    return found


def summarise(config: NormalizersConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Compare with the exact baselines; add what the figure shows: means with 95 % intervals over the seeds left."""
    advance = progress("exact baselines", len(TASKS))
    baselines = {}
    for task in TASKS:
        baselines[task] = BASELINES[task](config)
        advance(1)
    known = baselines["length"]
    known["bayes"] = known["bayes_by_length"][:, -1]
    for name in ("uniform", "best_softmax"):
        known[name] = known[f"{name}_by_length"][:, -1] - known["bayes"]
    dataset = _add(dataset, baselines, ("seed",), _BASELINES)
    # A task is trained on its score or on its error, whichever is exact; the other follows by the Bayes score.
    score, error = dataset["score"], dataset["error"]
    dataset["score"] = score.fillna(error + dataset["bayes"]).transpose(*score.dims).assign_attrs(score.attrs)
    dataset["error"] = error.fillna(score - dataset["bayes"]).transpose(*error.dims).assign_attrs(error.attrs)
    for name in (
        "error",
        "effective_support",
        "zero_fraction",
        "uniform",
        "best_softmax",
        "effective_support_by_length",
    ):
        dataset[f"{name}_band"] = mean_band(dataset[name])
    mse, best = dataset["mse_by_length"].transpose(..., "seed"), dataset["best_softmax_by_length"].T.values
    table = [[[ratio(x, y) for x, y in zip(cell, best, strict=True)] for cell in row] for row in mse.values]
    dataset["mse_over_best_band"] = (
        (*mse.dims[:-1], "estimate"),
        np.array([[[(e.value, e.low, e.high) for e in cell] for cell in row] for row in table]),
        {"description": "length: ratio of means over seeds, mse_by_length / best_softmax_by_length"},
    )
    return dataset


NORMALIZERS = Experiment(
    name="normalizers",
    question="Are sparse normalisers a substitute for temperature?",
    caption=(
        "Upper row: error above the Bayes score of each normaliser without (open marks) and with (filled marks) an SSA "
        "temperature, all trained on the same proper score, beside exact baselines (lines); last panel: squared error at growing "
        "context lengths (trained in the grey range) without a temperature, and of softmax with one, over that of softmax at the "
        "best temperature of each length. Lower row: how spiky (effective support, in keys) and how sparse (share of exact "
        "zeros) the same rows are; last panel: effective support at growing lengths. Means and 95 % intervals over seeds."
    ),
    config=NormalizersConfig,
    train=train,
    seeds_per_block=seeds_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={
        "smoke": {
            "seeds": 4,
            "graph_steps": 15,
            "retrieval_steps": 15,
            "retrieval_held_out": 8,
            "length_steps": 10,
            "length_train": (4, 16),
            "length_test": (4, 16, 32, 64),
        },
        "large": {"seeds": 512, "retrieval_held_out": 256},
    },
)
