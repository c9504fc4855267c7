"""The ledger lines of the ablation."""

import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import ratio
from analysis.experiments.ablation.train import AblationConfig
from ssa_theory.mechanism import VANILLA

_ALONE, _ADDED = {"how": "alone"}, {"how": "added to the others"}
_LETTERS, _DENOISE = {"task": "letters"}, {"task": "denoising"}
_MEASURES = {"excess": "excess", "risk": "mse"}
_DEFAULT, _ALL = "ssa-mlp", "ssa-mlp-query-key-value"
_LETTERS_PAIRS = (
    ("query", _LETTERS | _ALONE, "ssa-query", VANILLA),
    ("query", _LETTERS | _ADDED, "ssa-query-key", "ssa-key"),
    ("key", _LETTERS | _ALONE, "ssa-key", VANILLA),
    ("key", _LETTERS | _ADDED, "ssa-query-key", "ssa-query"),
    ("alternatives", {"alternative": "constant"}, "ssa-query", "ssa-constant"),
    ("alternatives", {"alternative": "frequency"}, "ssa-query", "ssa-feature"),
    ("alternatives", {"alternative": "frequency, on keys"}, "ssa-key", "ssa-feature-key"),
    ("sharing", {"temperature": "query, letters"}, "ssa-mlp-query", "ssa-query"),
    ("sharing", {"temperature": "query and key, letters"}, "ssa-mlp-query-key", "ssa-query-key"),
    # Beyond the scope: what W absorbs, as all queries see the same number of keys.
    ("query", _LETTERS | {"how": "alone, as a constant"}, "ssa-constant", VANILLA),
    ("position-term", _LETTERS | _ALONE, "ssa-position", VANILLA),
)
_DENOISE_PAIRS = (
    ("query", _DENOISE | _ALONE, "ssa-mlp-query", VANILLA),
    ("query", _DENOISE | _ADDED, _ALL, "ssa-mlp-key-value"),
    ("key", _DENOISE | _ALONE, "ssa-mlp-key", VANILLA),
    ("key", _DENOISE | _ADDED, _ALL, _DEFAULT),
    ("value", _DENOISE | _ALONE, "ssa-mlp-value", VANILLA),
    ("value", _DENOISE | _ADDED, _ALL, "ssa-mlp-query-key"),
    ("default", _DENOISE | {"against": VANILLA}, _DEFAULT, VANILLA),
    ("token-term", _DENOISE | _ALONE, "ssa-mlp-token", VANILLA),
    ("token-term", _DENOISE | _ADDED, _DEFAULT, "ssa-position"),
    ("position-term", _DENOISE | _ALONE, "ssa-position", VANILLA),
    ("position-term", _DENOISE | _ADDED, _DEFAULT, "ssa-mlp-token"),
    ("sharing", {"temperature": "query and value, denoising"}, _DEFAULT, "ssa"),
)


def judge(config: AblationConfig, dataset: xr.Dataset) -> list[Claim]:
    """Every comparison that the trained mechanisms allow, paired over seeds."""
    lines, trained = Lines("ablation", config.seeds), set(dataset["mechanism"].values.tolist())

    def compare(
        topic: str, cell: dict[str, str], part: str, first: str, second: str, at: xr.DataArray
    ) -> None:
        labels = {name: f"{part}-{name}" for name in (first, second)}
        if trained.issuperset(labels.values()):
            pair = {name: at.sel(mechanism=label).values for name, label in labels.items()}
            rows = [dataset["l1_error"].sel(mechanism=label).values for label in labels.values()]
            parts = {"L1 error of the rows, ratio": ratio(*rows)} if part == "letters" else {}
            lines.compare(topic, cell, _MEASURES[str(at.name)], pair, parts)

    for part, pairs in (("letters", _LETTERS_PAIRS), ("denoise", _DENOISE_PAIRS)):
        for topic, cell, first, second in pairs:
            compare(topic, cell, part, first, second, dataset["excess"])
    longer = dataset["risk"].isel(length=-1)
    cell = {"task": f"denoising, {int(longer['length'])} tokens"} | _ADDED
    compare("position-term", cell, "denoise", _DEFAULT, "ssa-mlp-token", longer)
    return lines.claims
