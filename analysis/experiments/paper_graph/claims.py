"""The ledger lines of the paper's graph experiment."""

from itertools import product

import numpy as np
import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import mean
from analysis.experiments.paper_graph.train import PaperGraphConfig
from ssa_theory.mechanism import VANILLA

RECOVERED = 0.1
"""The L1 distance to P* at which a map counts as recovered; the largest possible is 2."""
_COMPARED = {"paper-map": ("map-l1", "map_l1"), "paper-loss": ("gap", "final_gap")}


def judge(config: PaperGraphConfig, dataset: xr.Dataset) -> list[Claim]:
    """Every line that the stored heads and mechanisms allow, paired over graphs."""
    lines, tau = Lines("paper-graph", dataset.sizes["seed"]), dataset["inverse_temperature"]
    varied = (tau.max("node") > tau.min("node")).any(("cell", "seed"))
    for head, name in product(*(dataset[dim].values.tolist() for dim in ("cell", "mechanism"))):
        at, cell = dataset.sel(cell=head), {"head": head, "mechanism": name}
        one = at.sel(mechanism=name)
        for topic, (measure, variable) in _COMPARED.items() if name != VANILLA else ():
            lines.against(topic, cell, measure, at[variable], name)
        map_l1 = one["map_l1"].values
        recovered = {name: map_l1, "recovered": np.full_like(map_l1, RECOVERED)}
        prediction = {"L1 distance of the prediction": mean(one["l1_error"].values)}
        lines.compare("identification", cell, "map-l1", recovered, prediction)
        if varied.sel(mechanism=name):
            slope = one["temperature_slope"].values
            rising = np.where(np.isfinite(slope), slope > 0, np.nan)
            parts = {"share of models in which it rises": mean(rising)}
            lines.single("paper-order", cell, "slope-by-degree", slope, parts)
    return lines.claims
