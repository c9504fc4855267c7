"""The ledger lines of the normalisers. Thresholds are fixed here, before any run.

`rela` is a known exception to the gain of a temperature: its rows do not feel a positive factor on
their scores.
"""

import numpy as np
import xarray as xr
from jaxtyping import Float

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import Estimate, estimate, mean, ratio, slopes
from analysis.claims.topics import NORMALIZERS as TOPIC
from analysis.experiments.normalizers.config import (
    SOFTMAX,
    NormalizersConfig,
    is_sparse,
    mechanism_of,
)
from ssa_theory.mechanism.normalizers import Entmax, Entmax15, Sparsemax, support_exponent

GAIN = 0.95
"""A temperature "gains" where it removes at least a twentieth of the error."""
DILUTED = 0.9
"""An exponent below it: the effective support grows clearly slower than the context."""
_RELATED = "paper, related work: sparse normalisers"
_ALPHA = {Sparsemax: 2.0, Entmax15: 1.5, Entmax: None}
"""alpha of the normalisers of the entmax family; None where it is learned."""


def judge(config: NormalizersConfig, dataset: xr.Dataset) -> list[Claim]:
    """Every claim that the stored normalisers allow."""
    names = [str(n) for n in dataset["normalizer"].values]
    tasks, sparse = [str(t) for t in dataset["task"].values], [n for n in names if is_sparse(n)]
    error = dataset["error"].transpose("task", "normalizer", "temperature", "seed")
    seeds = dataset.sizes["seed"]
    lines = Lines("normalizers", seeds, "this project: normalisers with and without temperature")

    peer = error.sel(normalizer=SOFTMAX, temperature="with").values
    without = error.sel(normalizer=sparse, temperature="without").values
    if sparse:
        sentence = (
            "every sparse normaliser without a temperature has a larger error than softmax with "
            "SSA's on at least one task"
        )
        statistic = (
            "least over sparse normalisers of the largest over tasks of the ratio of mean errors, "
            "without / softmax with"
        )
        best = _best_substitute(without, peer)
        lines.add(TOPIC, "substitute", sentence, statistic, ">", 1.0, best, source=_RELATED)
    for i, task in enumerate(tasks):
        for j, n in enumerate(sparse):
            sentence = (
                f"{task}: {n} without a temperature has a larger error than softmax with SSA's"
            )
            statistic = (
                f"ratio of means over seeds, {n} without / softmax with, of the error above Bayes"
            )
            x, y = without[i, j], peer[i]
            parts = {f"{n} without": mean(x), "softmax with a temperature": mean(y)}
            key, larger = f"{task}-{n}", ratio(x, y)
            lines.add(TOPIC, key, sentence, statistic, ">", 1.0, larger, parts, _RELATED)

    statistic = (
        "geometric mean over tasks of the ratio of means over seeds, with / without, of the error "
        "above Bayes"
    )
    for n in names:
        x, y = (error.sel(normalizer=n, temperature=t).values for t in ("with", "without"))
        sentence = f"{n}: a temperature lowers the error by a twentieth or more, all tasks together"
        parts = {task: ratio(a, b) for task, a, b in zip(tasks, x, y, strict=True)}
        lines.add(TOPIC, f"gain-{n}", sentence, statistic, "<", GAIN, _mean_ratio(x, y), parts)

    zeros = dataset["zero_fraction"].transpose("normalizer", ...)
    missing = (zeros.sel(normalizer=sparse) == 0).sum()
    against = float((zeros.sel(normalizer=SOFTMAX) > 0).sum() + missing)
    shares = zeros.mean(("task", "temperature"))
    lines.add(
        TOPIC,
        "zeros",
        "exact zeros are what the sparse normalisers add: every model of theirs has some, and none "
        "of softmax has",
        "number of trained models against the rule, all tasks, with and without temperature",
        "<",
        1.0,
        Estimate(against, against, against, seeds, "exact count"),
        {n: mean(shares.sel(normalizer=n).values) for n in names},
    )

    statistic = (
        "mean over seeds of the slope of log effective support on log n, n at least that of "
        "training"
    )
    for n in (n for n in names if type(mechanism_of(n).normalizer) in _ALPHA):
        slope, peer = (_support_slope(config, dataset, m) for m in (n, SOFTMAX))
        if slope is not None and peer is not None:
            sentence = (
                f"{n} resists dilution without a temperature: its support grows slower than the "
                "context"
            )
            parts, grows = _exponents(config, dataset, n, peer), mean(slope)
            lines.add(TOPIC, f"dilution-{n}", sentence, statistic, "<", DILUTED, grows, parts)
    return lines.claims


def _best_substitute(
    without: Float[np.ndarray, "task normalizer seed"], peer: Float[np.ndarray, "task seed"]
) -> Estimate:
    """min over normalisers of max over tasks of mean(without) / mean(peer); a seed counts where all
    its models do.
    """
    usable = np.asarray(np.isfinite(without).all((0, 1)) & np.isfinite(peer).all(0))
    return estimate(
        lambda i: (without[..., i].mean(-1) / peer[:, None, i].mean(-1)).max(0).min(0),
        usable,
        smooth=False,
    )


def _mean_ratio(x: Float[np.ndarray, "task seed"], y: Float[np.ndarray, "task seed"]) -> Estimate:
    """The geometric mean over tasks of mean(x) / mean(y), paired."""
    usable = np.asarray(np.isfinite(x).all(0) & np.isfinite(y).all(0))
    return estimate(lambda i: np.exp(np.log(x[:, i].mean(-1) / y[:, i].mean(-1)).mean(0)), usable)


def _support_slope(
    config: NormalizersConfig, dataset: xr.Dataset, normalizer: str
) -> Float[np.ndarray, " seed"] | None:
    """The slope of log effective support on log n of every model without temperature, beyond
    training; None for one length.
    """
    longest = max(config.length_train)
    beyond = dataset["effective_support_by_length"].sel(length=dataset["length"] >= longest)
    if beyond.sizes["length"] < 2:
        return None
    support = beyond.sel(normalizer=normalizer, temperature="without").transpose("seed", "length")
    return slopes(np.log(beyond["length"].values), np.log(support.values))


def _exponents(
    config: NormalizersConfig,
    dataset: xr.Dataset,
    normalizer: str,
    softmax: Float[np.ndarray, " seed"],
) -> dict[str, Estimate]:
    """The exponent of the closed form in the limit of long contexts, and softmax's as measured."""
    dim = config.growing.form.dim
    learned = dataset["alpha"].sel(task="length", normalizer=normalizer, temperature="without")
    fixed = _ALPHA[type(mechanism_of(normalizer).normalizer)]
    alpha = learned.values if fixed is None else np.full(learned.shape, fixed)
    limit = [support_exponent(float(a), dim) if np.isfinite(a) else np.nan for a in alpha]
    return {"limit of long contexts": mean(np.array(limit)), SOFTMAX: mean(softmax)}
