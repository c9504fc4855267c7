"""The ledger lines of the graph experiments. Thresholds are fixed here, before any run."""

from typing import Any

import numpy as np
import xarray as xr

from analysis.claims.claim import Claim
from analysis.problems.measures import SMALLEST_TAU
from analysis.claims.statistics import estimate, mean, rank_correlation, ratio

_L1_THRESHOLD = {"graph": 0.7}  # elsewhere SSA has to be below vanilla: 1.0


def judge(config: Any, dataset: xr.Dataset) -> list[Claim]:
    """Every claim that the stored variants allow."""
    name = dataset.attrs["experiment"]
    variants = [v for v in dataset["variant"].values if v != "vanilla"]
    lines = []

    def values(variable: str, variant: str) -> np.ndarray:
        diverged = dataset["control_diverged" if variable.startswith("control") else "diverged"]
        kept = dataset[variable].where(~diverged).sel(variant=variant)
        return (kept.isel({d: -1 for d in kept.dims if d.endswith("step")})).values

    def against_vanilla(key: str, variable: str, variant: str, sentence: str, threshold: float = 1.0) -> None:
        x, y = values(variable, variant), values(variable, "vanilla")
        lines.append(
            Claim(
                id=f"{name}-{key}-{variant}",
                sentence=f"{variant}: {sentence}",
                source="paper, theory section: transition matrices of Markov graphs",
                statistic=f"ratio of means over seeds, {variant} / vanilla, of {variable}",
                relation="<",
                threshold=threshold,
                estimate=ratio(x, y),
                asked=config.seeds,
                parts={variant: mean(x), "vanilla": mean(y)},
            )
        )

    where = f"at d = {config.dim} after {config.steps} steps"
    for variant in variants if "vanilla" in dataset["variant"] else []:
        threshold = _L1_THRESHOLD.get(name, 1.0)
        against_vanilla("l1", "l1_error", variant, f"lower L1 error than vanilla {where}", threshold)
        against_vanilla("gap", "cross_entropy_gap", variant, f"lower cross-entropy than vanilla {where}")
        against_vanilla("norm", "weight_norm", variant, f"smaller spectral norm than vanilla {where}")
        if config.control_steps:
            against_vanilla(
                "control-l1",
                "control_l1_error",
                variant,
                f"lower L1 error than vanilla also at d = K after {config.control_steps} steps",
            )
    for variant in variants:
        lines += _temperature_claims(config, dataset, name, variant)
    return lines


def _temperature_claims(config: Any, dataset: xr.Dataset, name: str, variant: str) -> list[Claim]:
    """Is the learned temperature ordered by the (effective) number of neighbours?"""
    tau = dataset["inverse_temperature"].sel(variant=variant).transpose("seed", "node").values
    kept = ~dataset["diverged"].sel(variant=variant).values
    log_temperature = -np.log(np.clip(tau, SMALLEST_TAU, None))
    entropy = dataset["row_entropy"].transpose("seed", "node").values.round(9)
    source = "paper, theory section: temperature by number of neighbours"
    about = "of the temperature 1 / tau with the effective number of neighbours exp(row entropy)"
    each = rank_correlation(log_temperature, entropy)
    lines = [
        Claim(
            id=f"{name}-temperature-order-single-{variant}",
            sentence=f"{variant}: in a single trained model, temperature rises with the number of neighbours",
            source=source,
            statistic=f"mean over models of the rank correlation {about}",
            relation=">",
            threshold=0.8,
            estimate=mean(np.where(kept, each, np.nan)),
            asked=config.seeds,
        )
    ]
    if (entropy == entropy[0]).all():  # one graph for all seeds: a node's temperature can be averaged over models
        lines.append(
            Claim(
                id=f"{name}-temperature-order-{variant}",
                sentence=f"{variant}: averaged over models, temperature rises with the number of neighbours",
                source=source,
                statistic=f"rank correlation {about}, each node's log temperature averaged over seeds",
                relation=">",
                threshold=0.8,
                estimate=estimate(
                    lambda i: rank_correlation(log_temperature[i].mean(-2), entropy[0]), kept, smooth=False
                ),
                asked=config.seeds,
            )
        )
    if config.family == "letters" and "q" in dataset["node"]:
        q = list(dataset["node"].values).index("q")
        blunter = (log_temperature > log_temperature[:, [q]]).sum(1) / (tau.shape[1] - 1)
        lines.append(
            Claim(
                id=f"{name}-sharpens-q-{variant}",
                sentence=f"{variant}: the letter q, almost always followed by u, is among the sharpest",
                source="this project",
                statistic="mean share of the other symbols with a higher temperature than q",
                relation=">",
                threshold=0.75,
                estimate=mean(np.where(kept, blunter, np.nan)),
                asked=config.seeds,
            )
        )
    return lines
