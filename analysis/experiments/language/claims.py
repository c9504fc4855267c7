"""The ledger lines of the language experiment."""

from itertools import product

import numpy as np
import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.registry import registry
from analysis.claims.statistics import mean
from analysis.experiments.language.config import LanguageConfig
from analysis.experiments.language.train import COMPARISONS, LENGTHS
from analysis.experiments.mechanisms import SELECTIVE
from analysis.problems.curves import common_loss, interpolate
from tasks.passkey import CHANCE

_NORMS = {
    "mean_weight_norm": ("language-norm", {"weight": "||W||"}, "query-key-norm"),
    "mean_effective_weight": ("language-norm", {"weight": "tau ||W||"}, "query-key-norm"),
    "mean_spikiness": ("language-spikiness", {}, "map-spread"),
}
"""By variable: its topic, that topic's own factor, the measure."""
_PROGRESS = {"75 %": 0.75, "90 %": 0.9, "all": 1.0}


def judge(config: LanguageConfig, dataset: xr.Dataset) -> list[Claim]:
    """The tests that the stored mechanisms allow."""
    lines = Lines("language", dataset.sizes["seed"])

    def compare(topic: str, cell: dict[str, str], measure: str, errors: xr.DataArray) -> None:
        """Each mechanism of a topic."""
        for name in registry().topics[topic].factors["mechanism"]:
            lines.against(topic, {"mechanism": name} | cell, measure, errors, name)

    for topic in ("language-loss", "language-beyond-constant"):
        compare(topic, {}, "perplexity", dataset["perplexity"])
    for (variable, (topic, own, measure)), equal in product(_NORMS.items(), COMPARISONS):
        at = dataset[variable].sel(comparison=equal)
        lines.against(topic, {"compared": f"equal {equal}"} | own, measure, at, SELECTIVE)
    for progress, share in _PROGRESS.items():
        for peer in registry().topics["language-speed"].factors["against"]:
            if {SELECTIVE, peer} <= set(dataset["mechanism"].values):
                tokens = tokens_to(dataset, (SELECTIVE, peer), share)
                cell = {"progress": progress, "against": peer}
                lines.compare("language-speed", cell, "tokens", tokens)
    for length in LENGTHS[1:] if "perplexity_by_length" in dataset else ():
        at = dataset["perplexity_by_length"].sel(length=length)
        compare("language-length", {"length": length}, "perplexity", at)
    for length in dataset["multiple"].values.tolist():
        at = dataset["passkey_error"].sel(multiple=length)
        compare("language-passkey", {"context": length}, "passkey-error", at)
    over_chance = dataset["passkey_error"].isel(multiple=0) / (1 - CHANCE)
    best = over_chance[int(np.argmin(over_chance.mean("seed").fillna(np.inf).values))]
    sentence = "Some mechanism finds passkeys at the training length: else they tell none apart."
    what = "wrong digits over chance of the mechanism with the fewest"
    lines.check("passkey-found", sentence, what, "<", 0.95, mean(best.values))
    return lines.claims


def tokens_to(dataset: xr.Dataset, pair: tuple[str, str], share: float) -> dict[str, np.ndarray]:
    """Training tokens after which each of two reaches the loss at which the slower has made this
    share of its progress: both always do. NaN where one diverged.
    """
    loss = dataset["loss"].sel(mechanism=list(pair)).values
    _, place = common_loss(loss, share)
    tokens = interpolate(np.broadcast_to(dataset["tokens"].values, loss.shape), place)
    return dict(zip(pair, tokens, strict=True))
