"""The ledger lines of the imbalance experiment."""

import numpy as np
import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.experiments.imbalance.train import PAPERS, ImbalanceConfig, cell_name

ROUNDING = 1e-9
_LENGTH = {"loss": "within training", "loss_beyond": "beyond training"}


def judge(config: ImbalanceConfig, dataset: xr.Dataset) -> list[Claim]:
    """The paper's schedule in every cell, and the check of the exact optima."""
    lines = Lines("imbalance", dataset.sizes["seed"])
    for p in config.problems:
        at, power = dataset.sel(cell=cell_name(p)), f"{p.power:g}" + ", random sequences" * p.random
        for variable, length in _LENGTH.items():
            cell = {"power": power, "share": f"{p.share:g}", "length": length}
            lines.against("imbalance", cell, "loss", at[variable], PAPERS)
    sentence = "no trained model has a lower loss than the exact optimum of its schedules"
    what = "largest (exact least loss - loss) over all seeds, cells and mechanisms"
    below = float(np.nanmax((dataset["best_loss"] - dataset["loss"]).values))
    lines.check("optimum", sentence, what, "<", ROUNDING, below)
    return lines.claims
