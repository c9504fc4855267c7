"""The ledger lines of the hierarchy experiment. Thresholds are fixed here, before any run."""

import numpy as np
import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import Estimate, estimate
from analysis.claims.topics import HIERARCHY1, HIERARCHY2
from analysis.experiments.hierarchy.train import HEADS, HierarchyConfig
from ssa_theory.mechanism import VANILLA

SELECTIVE = "ssa-query"
PEERS = (VANILLA, "scaled")
"""Against `scaled` a gain is of selectivity, and not of a mere scale."""
_TOPIC = {"row": HIERARCHY1, "classifier": HIERARCHY2}
_WHAT = {
    "row": "the L1 distance of the attention map to the true one",
    "classifier": "the total variation of the prediction from the true one",
}


def judge(config: HierarchyConfig, dataset: xr.Dataset) -> list[Claim]:
    """Both claims of the paper over all cells, and in every one, as far as mechanisms allow."""
    lines = Lines("hierarchy", dataset.sizes["seed"])
    error = dataset["error"].transpose("mechanism", "cell", "seed")
    names = error["mechanism"].values.tolist()
    peers = [p for p in PEERS if p in names and SELECTIVE in names]
    for head, topic in _TOPIC.items():
        cells = [c for c in config.cells if c.problem.head == HEADS[head]]
        at = error.sel(cell=[c.name for c in cells])
        for peer in peers:
            own, other = at.sel(mechanism=SELECTIVE), at.sel(mechanism=peer)
            lines.add(
                topic,
                f"{head}-{peer}",
                f"{SELECTIVE}, head {head}, all cells together: {_WHAT[head]} is smaller than that "
                f"of {peer}",
                f"geometric mean over cells of the ratio of means over seeds, {SELECTIVE} / {peer}",
                "<",
                1.0,
                pooled_ratio(own.values, other.values),
            )
            for cell, x, y in zip(cells, own.values, other.values, strict=True):
                p = cell.problem
                lines.ratio(
                    topic,
                    f"{head}-{peer}-{p.context}-{p.tree}-d{p.dim}".lower(),
                    f"{SELECTIVE}, head {head}, context {p.context}, k = {p.branching}, D = "
                    f"{p.depth}, d = {p.dim} of N = {p.task.nodes}: {_WHAT[head]} is smaller than "
                    f"that of {peer}",
                    _WHAT[head],
                    {SELECTIVE: x, peer: y},
                )
    return lines.claims


def pooled_ratio(x: np.ndarray, y: np.ndarray) -> Estimate:
    """exp of the mean over cells of log(mean(x) / mean(y)), of errors (cell, seed)."""

    def pooled(index: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            log_ratio = np.log(x[:, index].mean(-1) / y[:, index].mean(-1))
        return np.asarray(np.exp(log_ratio.mean(0)))

    return estimate(pooled, np.asarray(np.isfinite(x + y).all(0)))
