"""The ledger lines of the imbalance experiment. Thresholds are fixed here, before any run."""

import numpy as np
import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import ratio
from analysis.claims.topics import IMBALANCE, PAPER, THEORY
from analysis.experiments.imbalance.train import CONTROL, PAPERS, RANDOM, ImbalanceConfig
from ssa_theory.mechanism import VANILLA

SUCCESS = 0.1
"""Zero loss counts as reached below this share of vanilla's loss."""
CONSTANT = 0.5
"""A constant scale does not undo the imbalance while its loss is above this share of vanilla's."""
ROUNDING = 1e-9
_WHERE = {"loss": "within", "loss_beyond": "beyond"}


def judge(config: ImbalanceConfig, dataset: xr.Dataset) -> list[Claim]:
    """Every claim that the stored cells and mechanisms allow, paired over seeds."""
    lines = Lines("imbalance", dataset.sizes["seed"], f"{PAPER}, Proposition 2")
    names = dataset["mechanism"].values.tolist()
    for cell in dataset["cell"].values.tolist() if PAPERS in names else ():
        at = dataset.sel(cell=cell)
        key = cell.replace(", ", "-")
        where = f"power {at['power'].item():g}, alpha {at['share'].item():g}"
        where += ", random sequences" * cell.endswith(RANDOM)
        for measure, place in _WHERE.items():
            lines.ratio(
                IMBALANCE,
                f"{place}-{key}",
                f"{PAPERS}: lower loss than vanilla {place} the training length, {where}",
                dataset[measure].attrs["description"],
                _pair(at, measure, PAPERS),
            )
        if at["power"] == 0.5:
            lines.ratio(
                IMBALANCE,
                f"success-{key}",
                f"{PAPERS} reaches zero loss, {where}",
                f"{dataset['loss'].attrs['description']}; zero counts as reached below the threshold",
                _pair(at, "loss", PAPERS),
                "<",
                SUCCESS,
                {"exact optima": ratio(*_pair(at, "best_loss", PAPERS).values())},
            )
            if CONTROL in names:
                lines.ratio(
                    IMBALANCE,
                    f"constant-{key}",
                    f"a learned constant temperature does not undo the imbalance, {where}",
                    dataset["loss"].attrs["description"],
                    _pair(at, "loss", CONTROL),
                    ">",
                    CONSTANT,
                )
    lines.exact(
        THEORY,
        "optimum",
        "no trained model has a lower loss than the exact optimum of its schedules",
        "largest (exact least loss - loss) over all seeds, cells and mechanisms",
        "<",
        ROUNDING,
        np.nanmax((dataset["best_loss"] - dataset["loss"]).values),
        "exact inequality, worst case",
    )
    return lines.claims


def _pair(at: xr.Dataset, measure: str, name: str) -> dict[str, np.ndarray]:
    return {m: at[measure].sel(mechanism=m).values for m in (name, VANILLA)}
