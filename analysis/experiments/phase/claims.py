"""The ledger lines of the phase experiment. Thresholds are fixed here, before any run."""

from typing import Any

import numpy as np
import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim, Relation
from analysis.claims.statistics import Estimate
from analysis.claims.topics import LIMITS, PAPER, WHERE, Topic
from analysis.experiments.phase.train import PhaseConfig
from ssa_theory.mechanism import VANILLA

_PAPER = f"{PAPER}, theory"
_BETTER = 0.5  # SSA has to be significantly better in more than half of the cells
_WORSE = 0.05  # and significantly worse in fewer than one in twenty

_DIRECTIONS: tuple[tuple[str, Relation, float, str], ...] = (
    ("better", ">", _BETTER, "more than half"),
    ("worse", "<", _WORSE, "fewer than one in twenty"),
)


def judge(config: PhaseConfig, dataset: xr.Dataset) -> list[Claim]:
    """Every claim that the stored cells allow.

    The main setting is d = K / 2, the least similarity and the middle of the recorded steps; the
    full-rank control is d = K after the longest training, where tokens need not compete for
    directions.
    """
    lines = Lines("phase", dataset.sizes["seed"])
    for mechanism in map(str, dataset["selective"].values):
        _add_errors(lines, config, dataset, mechanism)
        for direction, relation, threshold, how in _DIRECTIONS:
            lines.add(
                WHERE,
                f"{direction}-{mechanism}",
                f"{mechanism}: significantly {direction} L1 error than vanilla in {how} of the "
                "cells",
                "share of the families' cells, significant after Benjamini and Hochberg; interval: "
                "share of cells of that true sign, from the cells of either sign at a family-wise "
                "error rate of 5 %",
                relation,
                threshold,
                _share(dataset, "l1_error", mechanism, direction),
                {"cross-entropy": _share(dataset, "cross_entropy_gap", mechanism, direction)},
            )
    return lines.claims


def _add_errors(lines: Lines, config: PhaseConfig, dataset: xr.Dataset, mechanism: str) -> None:
    """Against vanilla in the main setting, at full rank, and at both ends of similarity."""
    dims, half, full = dataset["dim"].values, config.nodes // 2, config.nodes
    least, most = map(float, dataset["similarity"].values[[0, -1]])
    steps = dataset["step"].values
    middle, last = int(steps[len(steps) // 2]), int(steps[-1])

    def pair(**at: object) -> dict[str, np.ndarray]:
        """One error a seed, averaged over the families that are left; a seed with a diverged model
        is not usable.
        """
        chosen = dataset["l1_error"].sel(at)
        if "family" in chosen.dims:
            chosen = chosen.mean("family", skipna=False)
        return {m: chosen.sel(mechanism=m).values for m in (mechanism, VANILLA)}

    families = map(str, dataset["family"].values) if half in dims else []
    main = {"dim": half, "similarity": least, "step": middle}
    where = f"graphs, at d = K / 2 and similarity {least:g} after {middle} steps"
    tests: list[tuple[Topic, str, str, dict[str, Any], str | None]] = [
        (WHERE, f"l1-{f}", f"on {f} {where}", main | {"family": f}, _PAPER) for f in families
    ]
    if full in dims:
        where = f"also at d = K and similarity {least:g}, after {last} steps"
        at = {"dim": full, "similarity": least, "step": last}
        tests.append((LIMITS, "full-rank", where, at, None))
    paired = f"mean over seeds of the L1 error of {mechanism} - vanilla, paired"
    for topic, key, where, at, source in tests:
        sentence = f"{mechanism}: lower L1 error than vanilla {where}"
        key = f"{key}-{mechanism}"
        lines.difference(topic, key, sentence, paired, pair(**at), "<", 0.0, source=source)
    if half in dims and most > least:
        errors = {s: pair(dim=half, similarity=s, step=middle) for s in (most, least)}
        lines.difference(
            WHERE,
            f"similarity-{mechanism}",
            f"{mechanism}: the gain in L1 error over vanilla is larger for similar tokens, at "
            f"d = K / 2 after {middle} steps",
            f"mean over seeds of the gain at similarity {most:g} minus that at {least:g}, families "
            "averaged",
            {f"gain at similarity {s:g}": e[VANILLA] - e[mechanism] for s, e in errors.items()},
            ">",
            0.0,
            source=_PAPER,
        )


def _share(dataset: xr.Dataset, measure: str, mechanism: str, direction: str) -> Estimate:
    share = dataset["share"].sel(measure=measure, selective=mechanism, direction=direction)
    value, low, high = map(float, share.values)
    return Estimate(value, low, high, dataset.sizes["seed"], "family-wise sign-flip tests")
