"""The ledger lines of the norms experiment. Thresholds are fixed here, before any run."""

import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim, Relation
from analysis.claims.topics import NORM, PAPER, PROJECT, SPIKINESS, Topic
from analysis.experiments.norms.train import COMPARISONS, NormsConfig
from ssa_theory.mechanism import VANILLA

NOT_SPIKIER = 0.95
""" "No spikier": an effective support at least this share of vanilla's."""
_AT = {"steps": "after equal steps", "loss": "at equal loss"}
_SCALE = "smaller mean effective logit scale tau_i ||W^T e_i|| than vanilla"
_EFFECTIVE = "smaller mean effective weight tau_i ||W|| than vanilla"
_SPIKIER = "spikier rows than vanilla (smaller mean spikiness 1 / (K sum s^2))"
_SHARP = "spikier rows than vanilla (smaller effective support) where the target is sharp"
_BLUNT = "rows no spikier than vanilla's where the target is blunt"
_COMPARED: tuple[tuple[Topic, str, str, str, Relation, float], ...] = (
    (NORM, "spectral", "weight_norm", "smaller spectral norm of W than vanilla", "<", 1.0),
    (NORM, "token", "mean_token_norm", "smaller mean token norm than vanilla", "<", 1.0),
    (NORM, "scale", "mean_logit_scale", _SCALE, "<", 1.0),
    (NORM, "effective", "mean_effective_weight", _EFFECTIVE, "<", 1.0),
    (SPIKINESS, "spikiness", "mean_spikiness", _SPIKIER, "<", 1.0),
    (SPIKINESS, "sharp", "sharp_support", _SHARP, "<", 1.0),
    (SPIKINESS, "blunt", "blunt_support", _BLUNT, ">", NOT_SPIKIER),
)


def judge(config: NormsConfig, dataset: xr.Dataset) -> list[Claim]:
    """Every claim that the stored mechanisms and settings allow, paired over seeds."""
    source = f"{PAPER}, distribution of norms and spikiness with and without selective attention"
    lines = Lines("norms", dataset.sizes["seed"], source)
    for setting in dataset["setting"].values.tolist():
        for name in (m for m in dataset["mechanism"].values.tolist() if m != VANILLA):
            for topic, key, variable, what, relation, threshold in _COMPARED:
                for comparison in COMPARISONS:
                    at = dataset[variable].sel(setting=setting, comparison=comparison)
                    lines.ratio(
                        topic,
                        f"{key}-{comparison}-{setting}-{name}",
                        f"{name}, {setting}: {what} {_AT[comparison]}",
                        f"{variable} {_AT[comparison]}",
                        {m: at.sel(mechanism=m).values for m in (name, VANILLA)},
                        relation,
                        threshold,
                    )
    lines.exact(
        SPIKINESS,
        "no-zeros",
        "a learned attention row is spiky but never sparse: it has no exact zero",
        "number of learned rows with an exact zero, over all models, at equal steps and at equal "
        "loss",
        "<",
        1.0,
        float((dataset["zero_share"] > 0).sum()),
        seeds=int((~dataset["diverged"]).any(("mechanism", "setting")).sum()),
        source=PROJECT,
    )
    return lines.claims
