"""The ledger lines of the graph experiments. Thresholds are fixed here, before any run."""

import numpy as np
import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import estimate, mean, rank_correlation
from analysis.claims.topics import ERROR, LIMITS, NORM, ORDER, PROJECT
from analysis.experiments.graph.train import GraphConfig, diverged, others, with_temperatures
from analysis.problems.measures import SMALLEST_TAU
from ssa_theory.mechanism import VANILLA

_L1_THRESHOLD = {"graph": 0.7}  # elsewhere SSA has to be below vanilla: 1.0


def judge(config: GraphConfig, dataset: xr.Dataset) -> list[Claim]:
    """Every claim that the stored mechanisms allow."""
    name = dataset.attrs["experiment"]
    lines = Lines(name, config.seeds)
    for mechanism in others(dataset) if VANILLA in dataset["mechanism"] else []:
        _add_comparisons(lines, config, dataset, mechanism, _L1_THRESHOLD.get(name, 1.0))
    for mechanism in with_temperatures(dataset):
        _add_temperatures(lines, config, dataset, mechanism)
    return lines.claims


def _add_comparisons(
    lines: Lines, config: GraphConfig, dataset: xr.Dataset, mechanism: str, l1_threshold: float
) -> None:
    """Error and norm against vanilla."""

    def pair(variable: str) -> dict[str, np.ndarray]:
        kept = dataset[variable].where(~diverged(dataset, variable))
        last = kept.isel({d: -1 for d in kept.dims if str(d).endswith("step")})
        return {m: last.sel(mechanism=m).values for m in (mechanism, VANILLA)}

    where = f"at d = {config.dim} after {config.steps} steps"
    long = f"also at d = K after {config.control_steps} steps"
    for topic, key, variable, what, threshold in (
        (ERROR, "l1", "l1_error", f"lower L1 error than vanilla {where}", l1_threshold),
        (ERROR, "gap", "cross_entropy_gap", f"lower cross-entropy than vanilla {where}", 1.0),
        (NORM, "norm", "weight_norm", f"smaller spectral norm than vanilla {where}", 1.0),
        (LIMITS, "control-l1", "control_l1_error", f"lower L1 error than vanilla {long}", 1.0),
    ):
        if variable in dataset:
            sentence = f"{mechanism}: {what}"
            key = f"{key}-{mechanism}"
            lines.ratio(topic, key, sentence, variable, pair(variable), threshold=threshold)


def _add_temperatures(
    lines: Lines, config: GraphConfig, dataset: xr.Dataset, mechanism: str
) -> None:
    """Is the learned temperature ordered by the (effective) number of neighbours?"""
    tau = dataset["inverse_temperature"].sel(mechanism=mechanism).transpose("seed", "node").values
    kept = ~dataset["diverged"].sel(mechanism=mechanism).values
    log_temperature = -np.log(np.clip(tau, SMALLEST_TAU, None))
    entropy = dataset["row_entropy"].transpose("seed", "node").values.round(9)
    about = "of the temperature 1 / tau with the effective number of neighbours exp(row entropy)"
    each = rank_correlation(log_temperature, entropy)
    lines.add(
        ORDER,
        f"temperature-order-single-{mechanism}",
        f"{mechanism}: in a single trained model, temperature rises with the number of neighbours",
        f"mean over models of the rank correlation {about}",
        ">",
        0.8,
        mean(np.where(kept, each, np.nan)),
    )
    if (entropy == entropy[0]).all():  # one graph for all seeds: nodes can be averaged over models
        lines.add(
            ORDER,
            f"temperature-order-{mechanism}",
            f"{mechanism}: averaged over models, temperature rises with the number of neighbours",
            f"rank correlation {about}, each node's log temperature averaged over seeds",
            ">",
            0.8,
            estimate(
                lambda i: rank_correlation(log_temperature[i].mean(-2), entropy[0]),
                kept,
                smooth=False,
            ),
        )
    if config.family == "letters" and "q" in dataset["node"]:
        q = list(dataset["node"].values).index("q")
        blunter = (log_temperature > log_temperature[:, [q]]).sum(1) / (tau.shape[1] - 1)
        lines.add(
            ORDER,
            f"sharpens-q-{mechanism}",
            f"{mechanism}: the letter q, almost always followed by u, is among the sharpest",
            "mean share of the other symbols with a higher temperature than q",
            ">",
            0.75,
            mean(np.where(kept, blunter, np.nan)),
            source=PROJECT,
        )
