"""The ledger lines of the normalisers.

`rela` is a known exception to the gain of a temperature: its rows do not feel a positive factor on
their scores.
"""

import numpy as np
import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import mean, slopes
from analysis.experiments.normalizers.config import (
    SOFTMAX,
    TEMPERATURES,
    NormalizersConfig,
    is_sparse,
    mechanism_of,
)
from ssa_theory.mechanism.normalizers import Entmax, Entmax15, Sparsemax, support_exponent

DILUTED = 0.9
"""An exponent below it: the effective support grows clearly slower than the context."""
_ALPHA = {Sparsemax: 2.0, Entmax15: 1.5, Entmax: None}
"""alpha of the normalisers of the entmax family; None where it is learned."""


def judge(config: NormalizersConfig, dataset: xr.Dataset) -> list[Claim]:
    """Every line that the stored normalisers allow, paired over seeds."""
    lines = Lines("normalizers", dataset.sizes["seed"])
    names = dataset["normalizer"].values.tolist()
    for task in dataset["task"].values.tolist():
        error = dataset["error"].sel(task=task)
        peer = error.sel(normalizer=SOFTMAX, temperature="with").values
        for n in names:
            own = {t: error.sel(normalizer=n, temperature=t).values for t in TEMPERATURES}
            without = {f"{n} without": own["without"]}
            cell = {"task": task, "normalizer": n}
            gain = {f"{n} with a temperature": own["with"]} | without
            lines.compare("normalizer-gain", cell, "excess", gain)
            if is_sparse(n):
                pair = {f"{SOFTMAX} with a temperature": peer} | without
                lines.compare("normalizers", cell, "excess", pair)

    zeros = dataset["zero_fraction"]
    shares = zeros.mean(("task", "temperature"))
    sentence = "exact zeros are what the sparse normalisers add: no model of softmax has any"
    what = (
        "number of trained models of softmax with an exact zero, all tasks, with and without "
        "temperature; beside it the mean share of zeros of each normaliser"
    )
    some = int((zeros.sel(normalizer=SOFTMAX) > 0).sum())
    parts = {n: mean(shares.sel(normalizer=n).values) for n in names}
    lines.check("zeros", sentence, what, "<", 1, some, parts)
    _check_dilution(lines, config, dataset.sel(temperature="without"))
    return lines.claims


def _check_dilution(lines: Lines, config: NormalizersConfig, without: xr.Dataset) -> None:
    """The slope of log effective support on log n of every model without temperature, beyond
    training; beside it the exponent of the closed form in the limit of long contexts.
    """
    support = without["effective_support_by_length"].transpose("normalizer", "seed", "length")
    support = support.sel(length=support["length"] >= max(config.length_train))
    if support.sizes["length"] < 2:
        return
    log_length = np.log(support["length"].values)
    slope = {
        n: slopes(log_length, np.log(support.sel(normalizer=n).values))
        for n in support["normalizer"].values.tolist()
    }
    what = "mean over seeds of the slope of log effective support on log n, n at least that of training"
    for n in slope:
        normalizer = type(mechanism_of(n).normalizer)
        if normalizer not in _ALPHA:
            continue
        learned = without["alpha"].sel(task="length", normalizer=n).values
        alpha = (
            learned if _ALPHA[normalizer] is None else np.full(learned.shape, _ALPHA[normalizer])
        )
        dim = config.growing.form.dim
        limit = [support_exponent(float(a), dim) if np.isfinite(a) else np.nan for a in alpha]
        parts = {"limit of long contexts": mean(np.array(limit)), SOFTMAX: mean(slope[SOFTMAX])}
        sentence = (
            "resists dilution without a temperature: its support grows slower than the context"
        )
        lines.check(f"dilution-{n}", f"{n} {sentence}", what, "<", DILUTED, mean(slope[n]), parts)
