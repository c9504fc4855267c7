"""The ledger lines of the graph experiments, each on a single graph, or on one a seed."""

from itertools import product

import numpy as np
import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import mean, slopes
from analysis.experiments.graph.train import GraphConfig, diverged, with_temperatures
from analysis.experiments.mechanisms import SELECTIVE
from analysis.problems.measures import SMALLEST_TAU
from ssa_theory.mechanism import VANILLA

_MEASURES = {"l1": "l1_error", "gap": "cross_entropy_gap"}


def judge(config: GraphConfig, dataset: xr.Dataset) -> list[Claim]:
    """Every test that the stored mechanisms allow, paired over seeds, and the optimum's check."""
    lines = Lines(dataset.attrs["experiment"], config.seeds)
    below = "d < K" if config.dim < dataset.sizes["node"] else "d >= K"
    regimes = {below: "", "d = K": "control_"}
    for (regime, prefix), (measure, name) in product(regimes.items(), _MEASURES.items()):
        if prefix + name in dataset:
            cell = {"graph": config.family, "dimension": regime}
            error = _after(dataset, prefix + name)
            lines.against("error-on-cases", cell, measure, error, SELECTIVE)
    if SELECTIVE in with_temperatures(dataset):
        _add_order(lines, config, dataset)
    trained = VANILLA in dataset["mechanism"]
    if "vanilla_optimum_gap" in dataset and trained and config.loss == "exact":
        _add_optimum(lines, dataset)
    return lines.claims


def _after(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """A measure after training, NaN where the model diverged."""
    kept = dataset[name].where(~diverged(dataset, name))
    return kept.isel({d: -1 for d in kept.dims if str(d).endswith("step")})


def _add_order(lines: Lines, config: GraphConfig, dataset: xr.Dataset) -> None:
    """Does log(1 / tau) rise with the row entropy in a single model?"""
    tau = dataset["inverse_temperature"].sel(mechanism=SELECTIVE).transpose("seed", "node").values
    kept = ~dataset["diverged"].sel(mechanism=SELECTIVE).values
    log_temperature = -np.log(np.clip(tau, SMALLEST_TAU, None))
    entropy = dataset["row_entropy"].transpose("seed", "node").values
    slope = np.where(kept, slopes(entropy, log_temperature), np.nan)
    positive = np.where(np.isfinite(slope), (slope > 0).astype(float), np.nan)
    share = {"share of models with a positive slope": mean(positive)}
    lines.single("order", {"graph": config.family}, "slope", slope, share)


def _add_optimum(lines: Lines, dataset: xr.Dataset) -> None:
    """Nothing trained may be below what is the least, and how near training came to it."""
    trained = _after(dataset, "cross_entropy_gap").sel(mechanism=VANILLA)
    above = (trained - dataset["vanilla_optimum_gap"]).values
    if not np.isfinite(above).any():
        return
    sentence = "no trained vanilla model is below the exact optimum of vanilla attention"
    what = "largest (optimum - cross-entropy gap) over seeds (nats); the optimum by Newton's method"
    parts = {
        "vanilla's optimum (nats)": mean(dataset["vanilla_optimum_gap"].values),
        "best constant row (nats)": mean(dataset["constant_gap"].values),
        "trained above the optimum (nats)": mean(above),
    }
    lines.check("optimum", sentence, what, "<", 1e-6, float(np.nanmax(-above)), parts)
