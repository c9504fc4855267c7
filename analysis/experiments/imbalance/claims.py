"""The ledger lines of the imbalance experiment."""

import numpy as np
import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.experiments.imbalance.train import CONTROL, PAPERS, ImbalanceConfig, cell_name
from ssa_theory.mechanism import VANILLA

ROUNDING = 1e-9
_LENGTH = {"loss": "within training", "loss_beyond": "beyond training"}


def judge(config: ImbalanceConfig, dataset: xr.Dataset) -> list[Claim]:
    """The paper's schedule in every cell, as far as mechanisms allow, and the check of the exact
    optima.
    """
    lines, names = Lines("imbalance", dataset.sizes["seed"]), set(dataset["mechanism"].values)
    for p in config.problems:
        at = dataset.sel(cell=cell_name(p))
        where = {
            "power": f"{p.power:g}" + ", random sequences" * p.random,
            "share": f"{p.share:g}",
        }
        for peer in (m for m in (VANILLA, CONTROL) if {PAPERS, m} <= names):
            for variable, length in _LENGTH.items():
                pair = {m: at[variable].sel(mechanism=m).values for m in (PAPERS, peer)}
                own = where | {"length": length, "against": peer}
                lines.compare("imbalance", own, "loss", pair)
    lines.check(
        "optimum",
        "no trained model has a lower loss than the exact optimum of its schedules",
        "largest (exact least loss - loss) over all seeds, cells and mechanisms",
        "<",
        ROUNDING,
        float(np.nanmax((dataset["best_loss"] - dataset["loss"]).values)),
    )
    return lines.claims
