"""The ledger lines of the normalisers.

`rela` is a known exception to the gain of a temperature: its rows do not feel a positive factor on
their scores.
"""

import numpy as np
import xarray as xr
from jaxtyping import Float

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import Estimate, mean, slopes
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
    lines.check(
        "zeros",
        "exact zeros are what the sparse normalisers add: no model of softmax has any",
        "number of trained models of softmax with an exact zero, all tasks, with and without "
        "temperature; beside it the mean share of zeros of each normaliser",
        "<",
        1,
        int((zeros.sel(normalizer=SOFTMAX) > 0).sum()),
        {n: mean(shares.sel(normalizer=n).values) for n in names},
    )
    for n in (n for n in names if type(mechanism_of(n).normalizer) in _ALPHA):
        slope, peer = (_support_slope(config, dataset, m) for m in (n, SOFTMAX))
        if slope is not None and peer is not None:
            lines.check(
                f"dilution-{n}",
                f"{n} resists dilution without a temperature: its support grows slower than the "
                "context",
                "mean over seeds of the slope of log effective support on log n, n at least that "
                "of training",
                "<",
                DILUTED,
                mean(slope),
                _exponents(config, dataset, n, peer),
            )
    return lines.claims


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
