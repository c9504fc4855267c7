"""The ledger lines of the norms experiment. Thresholds are fixed here, before any run."""

from typing import Any, Literal

import xarray as xr

from analysis.claims.claim import Claim
from analysis.claims.statistics import Estimate, mean, ratio

NOT_SPIKIER = 0.95  # "no spikier": an effective support at least this share of vanilla's
_PAPER = "paper, distribution of norms and spikiness with and without selective attention"
_WHERE = {"steps": "after equal steps", "loss": "at equal loss"}


def judge(config: Any, dataset: xr.Dataset) -> list[Claim]:
    """Every claim that the stored variants and settings allow. All comparisons are paired over seeds."""
    asked = dataset.sizes["seed"]
    lines = []
    for setting in map(str, dataset["setting"].values):
        at = dataset.sel(setting=setting)
        for variant in (str(v) for v in dataset["variant"].values if v != "vanilla"):

            def add(
                key: str,
                comparison: str,
                name: str,
                what: str,
                relation: Literal["<", ">"] = "<",
                threshold: float = 1.0,
                at: xr.Dataset = at,
                setting: str = setting,
                variant: str = variant,
            ) -> None:
                x, y = (at[name].sel(variant=v, comparison=comparison).values for v in (variant, "vanilla"))
                lines.append(
                    Claim(
                        id=f"norms-{key}-{setting}-{variant}",
                        sentence=f"{variant}, {setting}: {what} {_WHERE[comparison]}",
                        source=_PAPER,
                        statistic=f"ratio of means over seeds, {variant} / vanilla, of {name} {_WHERE[comparison]}",
                        relation=relation,
                        threshold=threshold,
                        estimate=ratio(x, y),
                        asked=asked,
                        parts={variant: mean(x), "vanilla": mean(y)},
                    )
                )

            for comparison in _WHERE:
                add(f"spectral-{comparison}", comparison, "weight_norm", "smaller spectral norm of W than vanilla")
                add(f"token-{comparison}", comparison, "mean_token_norm", "smaller mean token norm than vanilla")
            what = "smaller effective logit scale tau_i ||W^T e_i|| than vanilla"
            add("scale-loss", "loss", "mean_logit_scale", what)
            for comparison in _WHERE:
                what = "spikier rows than vanilla (smaller effective support) where the target is sharp"
                add(f"sharp-{comparison}", comparison, "sharp_support", what)
                what = "rows no spikier than vanilla's where the target is blunt"
                add(f"blunt-{comparison}", comparison, "blunt_support", what, ">", NOT_SPIKIER)
    zeros = float((dataset["zero_share"] > 0).sum())
    kept = int((~dataset["diverged"]).any(("variant", "setting")).sum())
    lines.append(
        Claim(
            id="norms-no-zeros",
            sentence="a learned attention row is spiky but never sparse: it has no exact zero",
            source="this project",
            statistic="number of learned rows with an exact zero, over all models, at equal steps and at equal loss",
            relation="<",
            threshold=1.0,
            estimate=Estimate(zeros, zeros, zeros, kept, "exact count"),
            asked=asked,
        )
    )
    return lines
