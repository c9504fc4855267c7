"""The ledger lines of the phase experiment: its cells of the topic `error`."""

from itertools import product

import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.experiments.mechanisms import SELECTIVE
from analysis.experiments.phase.train import PhaseConfig

_MEASURES = {"l1": "tuned_l1_error", "gap": "tuned_cross_entropy_gap"}


def judge(config: PhaseConfig, dataset: xr.Dataset) -> list[Claim]:
    """SSA at d = K/2 and d = K, for the least and the most alike tokens, at the last two steps."""
    lines = Lines("phase", int(dataset["reporting"].sum()))
    reported = dataset.sel(seed=dataset["reporting"].values)
    dims = {"d = K/2": config.nodes // 2, "d = K": config.nodes}
    least, *more = config.similarities
    tokens = {"unlike": least} | ({"alike": more[-1]} if more else {})
    training = dict(zip(("short", "long"), config.steps[-2:], strict=False))
    axes = (config.families, dims.items(), tokens.items(), training.items())
    for family, (dim, d), (alike, similarity), (budget, step) in product(*axes):
        if d not in dataset["dim"]:
            continue
        at = reported.sel(family=family, dim=d, similarity=similarity, step=step)
        cell = {"graph": family, "dimension": dim, "tokens": alike, "training": budget}
        for measure, name in _MEASURES.items():
            lines.against("error", cell, measure, at[name], SELECTIVE)
    return lines.claims
