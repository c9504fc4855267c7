"""The exact baselines of `normalizers`, on the test problems of every seed."""

import numpy as np
from scipy.special import softmax

from analysis.experiments.length import LengthConfig, held_out_contexts
from analysis.experiments.normalizers_config import NormalizersConfig
from tasks.kernel_regression import Contexts, best_inverse_temperature

Baselines = dict[str, np.ndarray]


def graph_baselines(config: NormalizersConfig) -> Baselines:
    """`bayes`: Brier score of P* itself, the same for every seed; `uniform`: what uniform rows add to it."""
    squares = (config.graph_task.transition_matrix**2).sum(1).mean()
    return {
        "bayes": np.full(config.seeds, 1 - squares),
        "uniform": np.full(config.seeds, squares - 1 / config.graph_nodes),
    }


def retrieval_baselines(config: NormalizersConfig) -> Baselines:
    """On the test problems of each seed: `bayes`, the posterior's Brier score, `bayes_accuracy`, and what others add to it.

    The others are `uniform` rows and `best_softmax`, softmax_i(c q . k_i) with the one c that is best for all seeds and levels.
    """
    task = config.retrieval_task
    problems = (config.retrieval_problems(s) for s in config.seed_range)
    both = [(task.posterior(p), np.einsum("skd,sd->sk", p.keys, p.query)) for p in problems]
    posterior, scores = (np.stack(arrays) for arrays in zip(*both, strict=True))
    squares = (posterior**2).sum(2).mean(1)

    def excess(c: float) -> np.ndarray:
        return ((softmax(c * scores, axis=2) - posterior) ** 2).sum(2).mean(1)

    levels = np.array(config.retrieval_noise)
    grid = np.geomspace(1 / levels.max() ** 2, 1 / levels.min() ** 2, 25) if len(levels) > 1 else 1 / levels**2
    best = best_inverse_temperature(grid, np.array([excess(c).mean() for c in grid]))
    return {
        "bayes": 1 - squares,
        "bayes_accuracy": posterior.max(2).mean(1),
        "uniform": squares - 1 / config.retrieval_keys,
        "best_softmax": excess(best),
    }


def length_baselines(config: NormalizersConfig) -> Baselines:
    """Squared errors by test length, exact given keys and queries.

    `bayes_by_length`: the Gaussian process's posterior mean; `uniform_by_length`: the mean of the values;
    `best_softmax_by_length`: softmax attention at the temperature of each length that is best for all seeds.
    """
    length = config.length
    task, lengths = length.task, length.test_lengths
    grid = np.append(task.inverse_temperature_grid, 0.0)
    bayes = np.empty((config.seeds, len(lengths)))
    curve = np.empty((config.seeds, len(lengths), len(grid)))
    best = np.empty_like(bayes)
    for i, context in enumerate(held_out_contexts(length)):
        covariance = task.covariance(context.keys)
        bayes[i] = task.bayes_variance(context, covariance)[0].mean(0)[np.array(lengths) - 1]
        curve[i] = [_softmax_risk(length, context, n, grid, covariance) for n in lengths]
    chosen = [best_inverse_temperature(grid[:-1], risk[:-1]) for risk in curve.mean(0)]
    for i, context in enumerate(held_out_contexts(length)):
        covariance = task.covariance(context.keys)
        best[i] = [
            _softmax_risk(length, context, n, np.array([t]), covariance)[0]
            for n, t in zip(lengths, chosen, strict=True)
        ]
    return {"bayes_by_length": bayes, "uniform_by_length": curve[..., -1], "best_softmax_by_length": best}


def _softmax_risk(
    length: LengthConfig, context: Contexts, n: int, inverse_temperature: np.ndarray, covariance: np.ndarray
) -> np.ndarray:
    """The expected squared error of softmax attention over the first n keys at each inverse temperature."""
    part = context.prefix(n)
    weights = length.task.attention(part, inverse_temperature)
    return length.task.linear_risk(part, weights, covariance[:, :n, :n])[0].mean(1)
