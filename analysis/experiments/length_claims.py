"""The ledger lines of the length experiment. Thresholds are fixed here, before any run."""

from typing import Any

import numpy as np
import xarray as xr

from analysis.claims.claim import Claim
from analysis.claims.statistics import mean, ratio, slopes

NEAR_ORACLE = 1.5  # "near" the best temperature of a length: at most half as much error again
_RIVALS = ("yarn", "ssmax", "asentmax", "power")


def judge(config: Any, dataset: xr.Dataset) -> list[Claim]:
    """Every claim that the stored schedules and lengths allow; errors are compared at the longest test length."""
    trained, longest = max(config.train_lengths), int(dataset["length"].max())
    variants = [str(v) for v in dataset["variant"].values]
    at, oracle = dataset["mse"].sel(length=longest), dataset["oracle"].sel(length=longest).values
    where = f"at n = {longest}, trained to n = {trained}"
    lines = []

    def add(key: str, sentence: str, source: str, threshold: float, x: np.ndarray, y: np.ndarray, names: tuple) -> None:
        lines.append(
            Claim(
                id=f"length-{key}",
                sentence=sentence,
                source=source,
                statistic=f"ratio of means over seeds, {names[0]} / {names[1]}, of the mean squared error",
                relation="<",
                threshold=threshold,
                estimate=ratio(x, y),
                asked=config.seeds,
                parts={name: mean(values) for name, values in zip(names, (x, y), strict=True)},
            )
        )

    if longest > trained:
        paper, ours = "paper, position-aware temperature", "this project: kernel regression over growing contexts"
        errors = {v: at.sel(variant=v).values for v in variants}
        for v in variants:
            if v != "constant" and "constant" in errors:
                sentence = f"{v}: lower error than a constant temperature {where}"
                add(f"constant-{v}", sentence, paper, 1.0, errors[v], errors["constant"], (v, "constant"))
        for rival in _RIVALS:
            if "ssa" in errors and rival in errors:
                sentence = f"ssa: lower error than {rival} {where}"
                add(f"ssa-{rival}", sentence, ours, 1.0, errors["ssa"], errors[rival], ("ssa", rival))
        for v in variants:
            sentence = f"{v}: error within {NEAR_ORACLE:g} times that of the best temperature of that length, {where}"
            add(f"oracle-{v}", sentence, ours, NEAR_ORACLE, errors[v], oracle, (v, "oracle"))

    beyond = dataset.sel(length=dataset["length"] >= trained).sortby("length")
    if "constant" in variants and beyond.sizes["length"] >= 2:
        support = np.log(beyond["effective_support"].sel(variant="constant").transpose("seed", "length").values)
        slope = slopes(np.log(beyond["length"].values), support)
        lines.append(
            Claim(
                id="length-dilution",
                sentence="constant: the effective support of attention grows linearly with the context",
                source="paper, dilution argument",
                statistic=f"mean over seeds of |slope - 1| of log effective support on log n, n >= {trained}",
                relation="<",
                threshold=0.1,
                estimate=mean(np.abs(slope - 1)),
                asked=config.seeds,
                parts={"slope": mean(slope)},
            )
        )
    return lines
