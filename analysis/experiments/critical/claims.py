"""The ledger lines of the critical temperatures."""

import numpy as np
import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import mean
from analysis.experiments.critical.config import LAWS, PAPERS, CriticalConfig
from ssa_theory.theory import critical as theory

FACTOR = 3.0
"""Within which a prediction before any score is seen has to be."""
ROUNDING = 1e-9


def judge(config: CriticalConfig, dataset: xr.Dataset) -> list[Claim]:
    """Whether SSA's schedule follows each law beyond training; and the checks of the prediction."""
    lines, beyond = Lines("critical", dataset.sizes["seed"]), dataset["distance"].isel(length=-2)
    for law in LAWS:
        lines.against("critical", {"law": law}, "critical-distance", beyond.sel(law=law), PAPERS)
    theta = theory.slack(config.share)
    for prefix, what in (("", "row of independent scores"), ("trained_", "trained row")):
        low, tau = (dataset[f"{prefix}{one}"] for one in ("counted", "measured"))
        low = low.where(np.isfinite(low))  # both are infinite where two scores are the largest
        off = float(np.nanmax(np.maximum(low / tau - 1, tau / (theta * low) - 1)))
        key = f"{prefix or 'drawn_'}bracket".replace("_", "-")
        sentence = f"the critical tau of every {what} lies between the count of its gaps and theta"
        statistic = "largest violation relative to the critical tau, of all rows"
        lines.check(key, f"{sentence} times it", statistic, "<", ROUNDING, off)
    sharp, early = dataset["trained_largest"] > config.share, dataset["trained_measured"] < 1
    wrong = int((sharp != early).where(dataset["trained_measured"].notnull(), False).sum())
    sentence = (
        "a trained row is concentrated where its critical tau is below its own, and only there"
    )
    lines.check("trained-sharp", sentence, "number of trained rows against it", "<", 1, wrong)
    statistic = (
        "log of the critical tau over its prediction, mean over lengths and seeds, either way"
    )
    for law in LAWS:
        at = dataset.sel(law=law)
        ratio = (at["measured"] / at["predicted"]).transpose("seed", "length").values
        off = np.nanmean(np.log(ratio), axis=1)  # not every seed measures the longest
        sentence = (
            f"the critical tau is predicted within a factor of {FACTOR:g} before any score is seen"
        )
        largest, either = np.log(FACTOR), mean(off * np.sign(off.mean()))
        lines.check(f"predicted-{law}", f"law {law}: {sentence}", statistic, "<", largest, either)
    return lines.claims
