"""The ledger lines of the norms experiment."""

from itertools import product

import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.experiments.mechanisms import SELECTIVE
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
    lines = Lines("norms", dataset.sizes["seed"])
    for graph, comparison in product(dataset["setting"].values.tolist(), COMPARISONS):
        where = {"graph": graph, "compared": f"equal {comparison}"}
        at = dataset.sel(setting=graph, comparison=comparison)
        for variable, (topic, own, measure) in _COMPARED.items():
            lines.against(topic, where | own, measure, at[variable], SELECTIVE)
    return lines.claims
