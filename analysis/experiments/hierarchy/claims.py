"""The ledger lines of the hierarchy experiment."""

import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.experiments.hierarchy.train import HEADS, HierarchyConfig

SELECTIVE = "ssa-query"
_TOPIC = {HEADS["row"]: "hierarchy-map", HEADS["classifier"]: "hierarchy-prediction"}


def judge(config: HierarchyConfig, dataset: xr.Dataset) -> list[Claim]:
    """Both claims of the paper in every cell, as far as mechanisms allow."""
    lines = Lines("hierarchy", dataset.sizes["seed"])
    for cell in config.cells:
        p, error = cell.problem, dataset["error"].sel(cell=cell.name)
        tree = f"k = {p.branching}, D = {p.depth}"
        where = {"context": p.context, "tree": tree, "dimension": config.share_of(p)}
        lines.against(_TOPIC[p.head], where, "tree-error", error, SELECTIVE)
    return lines.claims
