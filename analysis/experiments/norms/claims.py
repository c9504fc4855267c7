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
    """The tests that the stored mechanisms and settings allow, and the check that no row is sparse."""
    lines, names = Lines("norms", dataset.sizes["seed"]), dataset["mechanism"].values.tolist()
    for peer in (p for p in PEERS if {SELECTIVE, p} <= set(names)):
        for graph in dataset["setting"].values.tolist():
            for comparison in COMPARISONS:
                where = {"graph": graph, "compared": f"equal {comparison}", "against": peer}
                at = dataset.sel(setting=graph, comparison=comparison)
                for variable, (topic, own, measure) in _COMPARED.items():
                    pair = {m: at[variable].sel(mechanism=m).values for m in (SELECTIVE, peer)}
                    lines.compare(topic, where | own, measure, pair)
    lines.check(
        "no-zeros",
        "a learned attention row is spiky but never sparse: it has no exact zero",
        "number of learned rows with an exact zero, over all models, at equal steps and at equal "
        "loss",
        "<",
        1,
        int((dataset["zero_share"] > 0).sum()),
    )
    return lines.claims
