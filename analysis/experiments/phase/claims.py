"""The ledger lines of the phase experiment. Thresholds are fixed here, before any run."""

from typing import Any, Literal

import numpy as np
import xarray as xr

from analysis.claims.claim import Claim
from analysis.claims.statistics import Estimate, difference, mean

_PAPER = "paper, theory section: transition matrices of Markov graphs"
_OURS = "this project: phase maps"
_BETTER = 0.5  # SSA has to be significantly better in more than half of the cells
_WORSE = 0.05  # and significantly worse in fewer than one in twenty


def judge(config: Any, dataset: xr.Dataset) -> list[Claim]:
    """Every claim that the stored cells allow.

    The main setting is d = K / 2, the least similarity and the middle of the recorded steps; the full-rank control is d = K
    after the longest training, where tokens need not compete for directions.
    """
    selective = [str(v) for v in dataset["selective"].values]
    dims, half, full = dataset["dim"].values, config.nodes // 2, config.nodes
    similarities = dataset["similarity"].values
    steps = dataset["step"].values
    middle, last = int(steps[len(steps) // 2]), int(steps[-1])
    error = dataset["l1_error"]
    lines = []

    def add(
        key: str,
        sentence: str,
        source: str,
        statistic: str,
        relation: Literal["<", ">"],
        threshold: float,
        estimate: Estimate,
        parts: dict[str, Estimate],
    ) -> None:
        asked = dataset.sizes["seed"]
        lines.append(Claim(f"phase-{key}", sentence, source, statistic, relation, threshold, estimate, asked, parts))

    def seeds(of: xr.DataArray, variant: str, **at: object) -> np.ndarray:
        """One error a seed, averaged over the families that are left; a seed with a diverged model is not usable."""
        chosen = of.sel(variant=variant, **at)
        return (chosen.mean("family", skipna=False) if "family" in chosen.dims else chosen).values

    def lower(key: str, sentence: str, source: str, variant: str, **at: object) -> None:
        x, y = seeds(error, variant, **at), seeds(error, "vanilla", **at)
        statistic = f"mean over seeds of the L1 error of {variant} - vanilla, paired"
        add(key, sentence, source, statistic, "<", 0.0, difference(x, y), {variant: mean(x), "vanilla": mean(y)})

    for variant in selective:
        least = float(similarities[0])
        if half in dims:
            at = {"dim": half, "similarity": least, "step": middle}
            where = f"at d = K / 2 and similarity {least:g} after {middle} steps"
            for family in map(str, dataset["family"].values):
                sentence = f"{variant}: lower L1 error than vanilla on {family} graphs, {where}"
                lower(f"l1-{family}-{variant}", sentence, _PAPER, variant, **at, family=family)
        if full in dims:
            sentence = (
                f"{variant}: lower L1 error than vanilla also at d = K and similarity {least:g}, after {last} steps"
            )
            at = {"dim": full, "similarity": least, "step": last}
            lower(f"full-rank-{variant}", sentence, _OURS, variant, **at)
        if half in dims and len(similarities) > 1:
            most = float(similarities[-1])
            gain = {
                s: seeds(error, "vanilla", dim=half, similarity=s, step=middle)
                - seeds(error, variant, dim=half, similarity=s, step=middle)
                for s in (least, most)
            }
            add(
                f"similarity-{variant}",
                f"{variant}: the gain in L1 error over vanilla is larger for similar tokens, at d = K / 2 after {middle} steps",
                _PAPER,
                f"mean over seeds of the gain at similarity {most:g} minus that at {least:g}, families averaged",
                ">",
                0.0,
                difference(gain[most], gain[least]),
                {f"gain at similarity {s:g}": mean(values) for s, values in gain.items()},
            )
        for direction, relation, threshold, how in (
            ("better", ">", _BETTER, "more than half"),
            ("worse", "<", _WORSE, "fewer than one in twenty"),
        ):
            add(
                f"{direction}-{variant}",
                f"{variant}: significantly {direction} L1 error than vanilla in {how} of the cells",
                _OURS,
                "share of the families' cells, significant after Benjamini and Hochberg; interval: share of cells of that true "
                "sign, from the cells of either sign at a family-wise error rate of 5 %",
                relation,
                threshold,
                _share(dataset, "l1_error", variant, direction),
                {"cross-entropy": _share(dataset, "cross_entropy_gap", variant, direction)},
            )
    return lines


def _share(dataset: xr.Dataset, measure: str, variant: str, direction: str) -> Estimate:
    value, low, high = map(float, dataset["share"].sel(measure=measure, selective=variant, direction=direction).values)
    return Estimate(value, low, high, dataset.sizes["seed"], "family-wise sign-flip tests")
