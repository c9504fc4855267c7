"""The ledger lines of the paper's graph experiment. A seed is a graph: all is paired over graphs."""

import numpy as np
import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import mean
from analysis.experiments.paper_graph.train import PaperGraphConfig
from ssa_theory.mechanism import VANILLA

PEERS = (VANILLA, "scaled")
"""Against `scaled` a gain is of selectivity, and not of a mere scale."""
RECOVERED = 0.1
"""The L1 distance from P* to which a map is to be recovered; the largest possible is 2."""
_COMPARED = {"paper-map": ("map-l1", "map_l1"), "paper-loss": ("gap", "final_gap")}


def judge(config: PaperGraphConfig, dataset: xr.Dataset) -> list[Claim]:
    """Every line that the stored heads and mechanisms allow."""
    lines = Lines("paper-graph", dataset.sizes["seed"])
    names = dataset["mechanism"].values.tolist()
    tau = dataset["inverse_temperature"]
    varied = (tau.max("node") > tau.min("node")).any(("cell", "seed"))
    for head in dataset["cell"].values.tolist():
        at = dataset.sel(cell=head)
        for name in names:
            cell = {"head": head, "mechanism": name}
            for peer in PEERS[: PEERS.index(name) if name in PEERS else None]:
                ...
