"""The ledger lines of the normalisers. Thresholds are fixed here, before any run.

`rela` is a known exception to the gain of a temperature: its rows do not feel a positive factor on their scores.
"""

from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Float

from analysis.claims.claim import Claim
from analysis.experiments.length import LengthConfig
from analysis.experiments.normalizers_config import NormalizersConfig
from analysis.claims.statistics import Estimate, estimate, mean, ratio, slopes
from ssa_theory.normalizers import support_exponent

GAIN = 0.95  # a temperature "gains" where it removes at least a twentieth of the error
DILUTED = 0.9  # an exponent below it: the effective support grows clearly slower than the context
_PEER = "softmax with a temperature"
_RELATED = "paper, related work: sparse normalisers"
_OURS = "this project: normalisers with and without temperature"
_ALPHA = {"sparsemax": 2.0, "entmax15": 1.5}


def judge(config: NormalizersConfig, dataset: xr.Dataset) -> list[Claim]:
    """Every claim that the stored normalisers allow."""
    names = [str(n) for n in dataset["normalizer"].values]
    tasks, sparse = [str(t) for t in dataset["task"].values], [n for n in names if n != "softmax"]
    error = dataset["error"].transpose("task", "normalizer", "temperature", "seed")
    lines = []

    def add(
        key: str,
        sentence: str,
        source: str,
        statistic: str,
        relation: Literal["<", ">"],
        threshold: float,
        found: Estimate,
        parts: dict[str, Estimate],
    ) -> None:
        asked = dataset.sizes["seed"]
        lines.append(Claim(f"normalizers-{key}", sentence, source, statistic, relation, threshold, found, asked, parts))

    if sparse:
        with_it = error.sel(normalizer="softmax", temperature="with").values
        without = error.sel(normalizer=sparse, temperature="without").values
        statistic = "least over sparse normalisers of the largest over tasks of the ratio of mean errors, without / softmax with"
        sentence = "every sparse normaliser without a temperature has a larger error than softmax with SSA's on at least one task"
        add("substitute", sentence, _RELATED, statistic, ">", 1.0, _best_substitute(without, with_it), {})
    for i, task in enumerate(tasks):
        for j, n in enumerate(sparse):
            sentence = f"{task}: {n} without a temperature has a larger error than softmax with SSA's"
            statistic = f"ratio of means over seeds, {n} without / softmax with, of the error above Bayes"
            parts = {f"{n} without": mean(without[i, j]), _PEER: mean(with_it[i])}
            add(f"{task}-{n}", sentence, _RELATED, statistic, ">", 1.0, ratio(without[i, j], with_it[i]), parts)

    for n in names:
        x, y = (error.sel(normalizer=n, temperature=t).values for t in ("with", "without"))
        sentence = f"{n}: a temperature lowers the error by a twentieth or more, all tasks together"
        statistic = (
            "geometric mean over tasks of the ratio of means over seeds, with / without, of the error above Bayes"
        )
        parts = {task: ratio(a, b) for task, a, b in zip(tasks, x, y, strict=True)}
        add(f"gain-{n}", sentence, _OURS, statistic, "<", GAIN, _mean_ratio(x, y), parts)

    zeros = dataset["zero_fraction"].transpose("normalizer", ...)
    against = int((zeros.sel(normalizer="softmax") > 0).sum()) + int((zeros.sel(normalizer=sparse) == 0).sum())
    sentence = (
        "exact zeros are what the sparse normalisers add: every model of theirs has some, and none of softmax has"
    )
    statistic = "number of trained models against the rule, all tasks, with and without temperature"
    count = Estimate(float(against), float(against), float(against), dataset.sizes["seed"], "exact count")
    shares = {n: mean(zeros.sel(normalizer=n).mean(("task", "temperature")).values) for n in names}
    add("zeros", sentence, _OURS, statistic, "<", 1.0, count, shares)

    for n in (n for n in ("sparsemax", "entmax15", "entmax") if n in names):
        slope = _support_slope(config, dataset, n)
        if slope is not None:
            sentence = f"{n} resists dilution without a temperature: its support grows slower than the context"
            statistic = "mean over seeds of the slope of log effective support on log n, n at least that of training"
            add(f"dilution-{n}", sentence, _OURS, statistic, "<", DILUTED, mean(slope), _exponents(config, dataset, n))
    return lines


def _best_substitute(
    without: Float[np.ndarray, "task normalizer seed"], peer: Float[np.ndarray, "task seed"]
) -> Estimate:
    """min over normalisers of max over tasks of mean(without) / mean(peer); a seed counts where all its models do."""
    usable = np.isfinite(without).all((0, 1)) & np.isfinite(peer).all(0)
    return estimate(
        lambda i: (without[..., i].mean(-1) / peer[:, None, i].mean(-1)).max(0).min(0), usable, smooth=False
    )


def _mean_ratio(x: Float[np.ndarray, "task seed"], y: Float[np.ndarray, "task seed"]) -> Estimate:
    """The geometric mean over tasks of mean(x) / mean(y), paired."""
    usable = np.isfinite(x).all(0) & np.isfinite(y).all(0)
    return estimate(lambda i: np.exp(np.log(x[:, i].mean(-1) / y[:, i].mean(-1)).mean(0)), usable)


def _support_slope(
    config: NormalizersConfig, dataset: xr.Dataset, normalizer: str
) -> Float[np.ndarray, " seed"] | None:
    """The slope of log effective support on log n of every model without temperature, beyond training; None for one length."""
    longest = max(config.length_train)
    beyond = dataset["effective_support_by_length"].sel(length=dataset["length"] >= longest)
    if beyond.sizes["length"] < 2:
        return None
    support = beyond.sel(normalizer=normalizer, temperature="without").transpose("seed", "length").values
    return slopes(np.log(beyond["length"].values), np.log(support))


def _exponents(config: NormalizersConfig, dataset: xr.Dataset, normalizer: str) -> dict[str, Estimate]:
    """The exponent of the closed form in the limit of long contexts, and softmax's as measured."""
    dim = LengthConfig.model_fields["dim"].default
    alpha = dataset["alpha"].sel(task="length", normalizer=normalizer, temperature="without").values
    alpha = np.full(alpha.shape, _ALPHA[normalizer]) if normalizer in _ALPHA else alpha
    limit = [support_exponent(float(a), dim) if np.isfinite(a) else np.nan for a in alpha]
    return {
        "limit of long contexts": mean(np.array(limit)),
        "softmax": mean(_support_slope(config, dataset, "softmax")),
    }
