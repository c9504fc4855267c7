"""The ledger lines of the convergence experiment. Thresholds are fixed here, before any run."""

from typing import Any, Literal

import numpy as np
import xarray as xr

from analysis.claims.claim import Claim
from analysis.claims.statistics import Estimate, mean, ratio

CHOICES: tuple[Literal["own", "same"], ...] = ("own", "same")
_RATE = {"own": "each at its own best learning rate", "same": "both at vanilla's best learning rate"}


def steps_ratio(dataset: xr.Dataset, choice: str, setting: str, variant: str, level: float) -> Estimate:
    """Ratio of restricted mean steps to a level, variant / vanilla, over the reporting seeds.

    Undefined where no model of either reached the level: both would count as the whole budget.
    """
    at = dataset.sel(choice=choice, setting=setting, level=level)
    both = at.sel(variant=[variant, "vanilla"])
    if not (both["compared_reached"] > 0).any():
        return Estimate(np.nan, np.nan, np.nan, int(dataset["reporting"].sum()), "no model reached the level")
    x, y = (at["compared_steps"].sel(variant=v).values for v in (variant, "vanilla"))
    return ratio(x, y)


def judge(config: Any, dataset: xr.Dataset) -> list[Claim]:
    """Fewer steps to each level that any model of the pair reached, for every setting; all comparisons are paired over seeds."""
    asked = int(dataset["reporting"].sum())
    lines = []
    for choice in CHOICES:
        for setting in map(str, dataset["setting"].values):
            for variant in (str(v) for v in dataset["variant"].values if v != "vanilla"):
                for level in dataset["level"].values.tolist():
                    found = steps_ratio(dataset, choice, setting, variant, level)
                    if np.isnan(found.value):
                        continue
                    at = dataset.sel(choice=choice, setting=setting, level=level)
                    pair = {v: at.sel(variant=v) for v in (variant, "vanilla")}
                    where = "the control d = K" if setting == "control" else f"the {setting}"
                    lines.append(
                        Claim(
                            id=f"convergence-{choice}-{setting}-{level:g}-{variant}",
                            sentence=f"{variant}: fewer steps than vanilla to {level:g} of the initial cross-entropy gap on "
                            f"{where}, {_RATE[choice]}",
                            source="paper, training curves",
                            statistic=f"ratio, {variant} / vanilla, of restricted mean steps to the level: a run that never "
                            f"reaches it counts as the budget of {float(at['budget']):g} steps",
                            relation="<",
                            threshold=1.0,
                            estimate=found,
                            asked=asked,
                            parts={f"{v} steps": mean(one["compared_steps"].values) for v, one in pair.items()}
                            | {f"{v} reached": mean(one["compared_reached"].values) for v, one in pair.items()},
                        )
                    )
    return lines
