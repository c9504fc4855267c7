"""The ledger lines of the retrieval experiment. Thresholds are fixed here, before any run."""

from typing import Any, Literal

import numpy as np
import xarray as xr

from analysis.claims.claim import Claim
from analysis.claims.statistics import Estimate, difference, mean, slopes

_SOURCE = "this project: noisy retrieval, where the posterior is attention with tau = 1 / s^2"


def judge(config: Any, dataset: xr.Dataset) -> list[Claim]:
    """Every claim that the stored variants and noise levels allow."""
    lines = []

    def add(
        key: str,
        sentence: str,
        statistic: str,
        relation: Literal["<", ">"],
        threshold: float,
        estimate: Estimate,
        parts: dict[str, Estimate],
    ) -> None:
        asked = dataset.sizes["seed"]
        lines.append(
            Claim(f"retrieval-{key}", sentence, _SOURCE, statistic, relation, threshold, estimate, asked, parts)
        )

    over_noise = dataset[["cross_entropy", "bayes", "common"]].mean("noise")
    bayes, common = over_noise["bayes"].values, over_noise["common"].values
    log_wanted = -2 * np.log(dataset["noise"].values)
    largest = int(dataset["keys"].max())
    above = "mean over seeds and noise levels of cross_entropy - bayes (nats)"
    for v in map(str, dataset["variant"].values):
        one = dataset.sel(variant=v)
        value = over_noise["cross_entropy"].sel(variant=v).values
        parts = {v: mean(value), "bayes": mean(bayes), "common": mean(common)}
        if v == "vanilla":
            sentence = "vanilla: cross-entropy at least 0.4 nats above exact Bayes"
            add("bayes-vanilla", sentence, above, ">", 0.4, difference(value, bayes), parts)
            continue
        sentence = f"{v}: cross-entropy within 0.03 nats of exact Bayes"
        add(f"bayes-{v}", sentence, above, "<", 0.03, difference(value, bayes), parts)
        sentence = (
            f"{v}: cross-entropy below that of the best single inverse temperature, which no training of vanilla beats"
        )
        statistic = "mean over seeds and noise levels of cross_entropy - common (nats)"
        add(f"common-{v}", sentence, statistic, "<", 0.0, difference(value, common), parts)
        far = one.sel(keys=largest)
        x, y = far["cross_entropy_by_keys"].values, far["bayes_by_keys"].values
        sentence = f"{v}: within 0.03 nats of exact Bayes also with {largest} keys, without further training"
        statistic = "mean over seeds of cross_entropy_by_keys - bayes_by_keys (nats)"
        add(f"keys-{v}", sentence, statistic, "<", 0.03, difference(x, y), {v: mean(x), "bayes": mean(y)})
        if len(log_wanted) > 1:
            log_tau = np.log(one["inverse_temperature"].clip(min=1e-12).transpose("seed", "noise").values)
            slope = slopes(log_wanted, log_tau)
            sentence = f"{v}: the learned inverse temperature is proportional to 1 / s^2"
            statistic = "mean over seeds of |slope - 1| of log tau on log(1 / s^2)"
            add(f"temperature-{v}", sentence, statistic, "<", 0.1, mean(np.abs(slope - 1)), {"slope": mean(slope)})
    return lines
