"""The ledger lines of the paper's graph experiment. Thresholds are fixed here, before any run."""

import numpy as np
import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import correlation, mean
from analysis.claims.topics import (
    IDENTIFICATION,
    ORDER,
    PAPER,
    PAPER_GRAPH,
    PAPER_GRAPH_LOSS,
    WHERE,
)
from analysis.experiments.paper_graph.train import THEORY, PaperGraphConfig
from ssa_theory.mechanism import VANILLA

PAPER_RATIO = {"map_l1": 0.659, "final_gap": 0.714}
"""The paper's ratios SSA / vanilla, of one run on one graph: L1 .358 / .543, and .009 / .0126."""
RECOVERED = 0.2
"""A map counts as recovered below this L1 distance, a tenth of the largest possible."""
_WHAT = {
    "map_l1": (PAPER_GRAPH, "the L1 distance of the attention map to P*"),
    "final_gap": (PAPER_GRAPH_LOSS, "the cross-entropy above Bayes"),
}


def judge(config: PaperGraphConfig, dataset: xr.Dataset) -> list[Claim]:
    """Every claim that the stored cells and mechanisms allow, paired over graphs."""
    lines = Lines("paper-graph", dataset.sizes["seed"], f"{PAPER}, Fig. 3 and Table 1")
    for cell in dataset["cell"].values.tolist():
        at = dataset.sel(cell=cell)
        for name in dataset["mechanism"].values.tolist():
            one = at.sel(mechanism=name)
            if name != VANILLA:
                _add_ratios(lines, cell, name, one, at.sel(mechanism=VANILLA))
            if name != VANILLA and cell == THEORY:
                _add_explanation(lines, cell, name, one, at.sel(mechanism=VANILLA))
            if np.ptp(one["inverse_temperature"].values, axis=-1).max() > 0:
                _add_slope(lines, cell, name, one["temperature_slope"].values)
            lines.add(
                IDENTIFICATION,
                f"recovered-{_key(cell)}-{name}",
                f"{name}, {cell}: the trained attention map is the transition matrix",
                "mean over graphs of the L1 distance of the attention map to P*",
                "<",
                RECOVERED,
                mean(one["map_l1"].values),
                {"L1 distance of the prediction to P*": mean(one["l1_error"].values)},
            )
    return lines.claims


def _add_ratios(lines: Lines, cell: str, name: str, one: xr.Dataset, vanilla: xr.Dataset) -> None:
    """Map and loss against vanilla."""
    for measure, (topic, what) in _WHAT.items():
        x, y = one[measure].values, vanilla[measure].values
        lines.ratio(
            topic,
            f"{measure.replace('_', '-')}-{_key(cell)}-{name}",
            f"{name}, {cell}: over all graphs, {what} is smaller than vanilla's",
            f"{what}; the paper's ratio is {PAPER_RATIO[measure]:g}",
            {name: x, VANILLA: y},
            parts={"share of graphs with the smaller": mean(np.where(x < y, 1.0, 0.0))},
        )


def _add_explanation(
    lines: Lines, cell: str, name: str, one: xr.Dataset, vanilla: xr.Dataset
) -> None:
    """What explains the gain of a map that the loss fixes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log_ratio = np.log(one["map_l1"].values / vanilla["map_l1"].values)
    usable = np.where(np.isfinite(log_ratio), log_ratio, np.nan)
    facts = ("entropy_spread", "degree_classes", "density")
    spread, *others = (correlation(one[fact].values.astype(float), usable) for fact in facts)
    lines.add(
        WHERE,
        f"spread-{_key(cell)}-{name}",
        f"{name}, {cell}: the more the row entropies of a graph differ, the more the map gains",
        "correlation over graphs of the log ratio of the map's L1 error with the standard deviation "
        "of row entropies",
        "<",
        0.0,
        spread,
        {f"with {fact.replace('_', ' ')}": e for fact, e in zip(facts[1:], others, strict=True)},
    )


def _add_slope(lines: Lines, cell: str, name: str, slope: np.ndarray) -> None:
    """Does the temperature rise with the number of neighbours in a single model (Table 1)?"""
    lines.add(
        ORDER,
        f"slope-{_key(cell)}-{name}",
        f"{name}, {cell}: in a single model the temperature rises with the number of neighbours",
        "share of models whose slope of log(1 / tau) on the number of neighbours is positive",
        ">",
        0.5,
        mean(np.where(np.isfinite(slope), (slope > 0).astype(float), np.nan)),
        {"slope (per neighbour)": mean(slope)},
    )


def _key(cell: str) -> str:
    return cell.lower().replace(" ", "-")
