"""The ledger lines of the norms experiment."""

import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.experiments.mechanisms import PEERS, SELECTIVE
from analysis.experiments.norms.train import COMPARISONS, NormsConfig

_COMPARED = {
    "weight_norm": ("norm", {"weight": "||W||"}, "norm"),
    "mean_effective_weight": ("norm", {"weight": "tau ||W||"}, "norm"),
    "mean_spikiness": ("spikiness", {"rows": "all rows"}, "spread"),
    "sharp_support": ("spikiness", {"rows": "sharp rows"}, "spread"),
    "blunt_support": ("bluntness", {}, "support"),
}
"""By variable: its topic, that topic's own factor, the measure."""


def judge(config: NormsConfig, dataset: xr.Dataset) -> list[Claim]:
    """The tests that the stored mechanisms and settings allow."""
    lines, names = Lines("norms", dataset.sizes["seed"]), dataset["mechanism"].values.tolist()
    for peer in (p for p in PEERS if {SELECTIVE, p} <= set(names)):
        for graph in dataset["setting"].values.tolist():
            for comparison in COMPARISONS:
                where = {"graph": graph, "compared": f"equal {comparison}", "against": peer}
                at = dataset.sel(setting=graph, comparison=comparison)
                for variable, (topic, own, measure) in _COMPARED.items():
                    pair = {m: at[variable].sel(mechanism=m).values for m in (SELECTIVE, peer)}
                    lines.compare(topic, where | own, measure, pair)
    return lines.claims
