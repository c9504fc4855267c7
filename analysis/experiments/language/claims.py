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
    names = dataset["mechanism"].values.tolist()

    def pairs(topic: str) -> list[tuple[str, str]]:
        """The mechanisms and peers of a topic that are there."""
        factors = registry().topics[topic].factors
        both = product(factors.get("mechanism", (SELECTIVE,)), factors["against"])
        return [pair for pair in both if set(pair) <= set(names)]

    def of(values: xr.DataArray, pair: tuple[str, str]) -> dict[str, np.ndarray]:
        return {name: values.sel(mechanism=name).values for name in pair}

    for topic in ("language-loss", "language-beyond-constant"):
        for pair in pairs(topic):
            cell = {"mechanism": pair[0], "against": pair[1]}
            lines.compare(topic, cell, "perplexity", of(dataset["perplexity"], pair))
    for variable, (topic, own, measure) in _NORMS.items():
        for pair, comparison in product(pairs(topic), COMPARISONS):
            cell = {"compared": f"equal {comparison}", **own, "against": pair[1]}
            at = dataset[variable].sel(comparison=comparison)
            lines.compare(topic, cell, measure, of(at, pair))
    for pair, (progress, share) in product(pairs("language-speed"), _PROGRESS.items()):
        cell = {"progress": progress, "against": pair[1]}
        lines.compare("language-speed", cell, "tokens", tokens_to(dataset, pair, share))
    if "perplexity_by_length" in dataset:
        for pair, length in product(pairs("language-length"), LENGTHS[1:]):
            cell = {"mechanism": pair[0], "length": length, "against": pair[1]}
            at = dataset["perplexity_by_length"].sel(length=length)
            lines.compare("language-length", cell, "perplexity", of(at, pair))
    for pair, length in product(pairs("language-passkey"), dataset["multiple"].values.tolist()):
        cell = {"mechanism": pair[0], "context": length, "against": pair[1]}
        at = dataset["passkey_error"].sel(multiple=length)
        lines.compare("language-passkey", cell, "passkey-error", of(at, pair))
    over_chance = dataset["passkey_error"].isel(multiple=0) / (1 - CHANCE)
    best = over_chance[int(np.argmin(over_chance.mean("seed").fillna(np.inf).values))]
    lines.check(
        "passkey-found",
        "Some mechanism finds passkeys at the training length: else they tell none apart.",
        "wrong digits over chance of the mechanism with the fewest",
        "<",
        0.95,
        mean(best.values),
    )
    return lines.claims


def tokens_to(dataset: xr.Dataset, pair: tuple[str, str], share: float) -> dict[str, np.ndarray]:
    """Training tokens after which each of two reaches the loss at which the slower has made this
    share of its progress: both always do. NaN where one diverged.
    """
    loss = dataset["loss"].sel(mechanism=list(pair)).values
    _, place = common_loss(loss, share)
    tokens = interpolate(np.broadcast_to(dataset["tokens"].values, loss.shape), place)
    return dict(zip(pair, tokens, strict=True))
