"""The ledger lines of the hierarchy experiment."""

import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.experiments.hierarchy.train import HEADS, HierarchyConfig
from analysis.experiments.mechanisms import PEERS

SELECTIVE = "ssa-query"
_TOPIC = {HEADS["row"]: "hierarchy-map", HEADS["classifier"]: "hierarchy-prediction"}


def judge(config: HierarchyConfig, dataset: xr.Dataset) -> list[Claim]:
    """Both claims of the paper in every cell, as far as mechanisms allow."""
    lines, names = Lines("hierarchy", dataset.sizes["seed"]), set(dataset["mechanism"].values)
    for cell in config.cells:
        p, error = cell.problem, dataset["error"].sel(cell=cell.name)
        where = {
            "context": p.context,
            "tree": f"k = {p.branching}, D = {p.depth}",
            "dimension": config.share_of(p),
        }
        for peer in (m for m in PEERS if {SELECTIVE, m} <= names):
            pair = {m: error.sel(mechanism=m).values for m in (SELECTIVE, peer)}
            lines.compare(_TOPIC[p.head], where | {"against": peer}, "tree-error", pair)
    return lines.claims
