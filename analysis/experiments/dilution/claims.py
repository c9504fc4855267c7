"""The ledger lines of the dilution experiment."""

from itertools import product
from typing import cast

import numpy as np
import xarray as xr
from scipy.special import expit

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import Estimate, mean
from analysis.experiments.dilution.config import DilutionConfig
from ssa_theory.mechanism import known
from ssa_theory.mechanism.temperature import Selective

SSA, HALF, MILLION = "ssa-position", 0.5, 1_000_000
"""Of the topics: the mechanism, the attention to keep, the number of keys."""
_CLOSED = "this project, closed forms of dilution"
_PAPER = "paper, dilution argument for position-aware temperature"
_REM = "random-energy model (Derrida 1981), Gaussian logits"
_LEAST_DEVIATION = 1e-7  # relative to the mass: below it the quadrature's variance is rounding


def judge(config: DilutionConfig, dataset: xr.Dataset) -> list[Claim]:
    """Every claim that the stored mechanisms and lengths allow."""
    lines = Lines("dilution", dataset.sizes["seed"])
    _add_theory(lines, dataset)
    _add_mechanisms(lines, dataset)
    _add_freezing(lines, config, dataset)
    return lines.claims


def _add_theory(lines: Lines, dataset: xr.Dataset) -> None:
    """Does the measurement agree with the closed forms, and obey the bounds?"""

    def worst(key: str, sentence: str, what: str, threshold: float, value: xr.DataArray) -> None:
        lines.check(key, sentence, what, "<", threshold, float(value), source=_CLOSED)

    mass, exact = dataset["needle_mass"], dataset["needle_mass_theory"]
    cells = "over all mechanisms, numbers of needles and lengths"
    apart = abs(mass - exact).sel(law="equal")
    sentence = "equal distractors: measured needle mass equals the closed form"
    worst("exact-equal", sentence, f"largest |measured - exact| {cells}", 1e-10, apart.max())
    deviation = np.maximum(dataset["needle_mass_deviation"], _LEAST_DEVIATION * exact)
    score = abs(mass.mean("seed") - exact) / (deviation / np.sqrt(dataset.sizes["seed"]))
    what = f"largest |mean over seeds - exact| in exact standard errors {cells}"
    sentence = "mean needle mass equals its exact expectation within Monte-Carlo error"
    for law in ("bounded", "gaussian"):
        at = score.sel(law=law).max()
        worst(f"exact-{law}", f"{law} distractors: {sentence}", what, 5.0, at)
    lower, upper = (dataset["needle_mass_bound"].sel(bound=b) for b in ("lower", "upper"))
    bounded = dataset.sel(law="bounded")
    violation = [lower - bounded["needle_mass"], bounded["needle_mass"] - upper]
    violation.append(dataset["entropy_bound"] - bounded["entropy"])
    sentence = "needle mass and entropy obey their certified bounds in every sampled row"
    what = f"largest violation {cells} and seeds"
    worst("bounds", f"bounded distractors: {sentence}", what, 1e-9, max(v.max() for v in violation))
    critical = dataset["critical_inverse_temperature"]
    if not critical.notnull().any():
        return
    limits = dataset["critical_inverse_temperature_theory"]
    with np.errstate(invalid="ignore"):  # an infinite tau within an infinite bound violates nothing
        ends = (limits.sel(bound="lower") - critical, critical - limits.sel(bound="upper"))
        outside = cast(xr.DataArray, np.maximum(*ends))  # numpy does not say that labels stay
    what = "largest violation over all numbers of needles, seeds and measured lengths"
    how = {"equal": "equals its closed form", "bounded": "lies within its certified bounds"}
    for law, does in how.items():
        sentence = f"{law} distractors: the tau at which the needles reach the target mass {does}"
        worst(f"critical-{law}", sentence, what, 1e-8, outside.sel(law=law).max())


def _add_mechanisms(lines: Lines, dataset: xr.Dataset) -> None:
    """Which mechanism keeps the needles at the longest context?"""
    for name in dataset["mechanism"].values.tolist():
        temperature, one = known(name).query, dataset.sel(mechanism=name)
        if temperature is None or not getattr(temperature, "position", True):
            count, most = int(dataset["length"][-1]), one["needle_mass"].isel(length=-1).max()
            sentence = f"without a position term, {name} takes most attention from the needles"
            what = f"largest needle mass among {count:,} keys over all laws, numbers of needles and seeds"
            lines.check(f"diluted-{name}", sentence, what, "<", HALF, float(most), source=_PAPER)
        elif name == SSA:
            _compare(lines, "dilution", {}, one)
        elif not isinstance(temperature, Selective):  # of which none differs from SSA's untrained
            _compare(lines, "other-schedules", {"schedule": name}, one)


def _compare(lines: Lines, topic: str, schedule: dict[str, str], one: xr.Dataset) -> None:
    """The needle mass of a mechanism among the most keys against a half."""
    count = int(one["length"][-1])
    among = "" if count == MILLION else f" of {count:,}"
    for law, m in product(one["law"].values.tolist(), one["needles"].values.tolist()):
        at = one.sel(law=law, needles=m)
        mass = at["needle_mass"].isel(length=-1).values
        cell = schedule | {"law": law, "needles": f"{m}{among}"}
        pair = {str(one["mechanism"].item()): mass, "half": np.full_like(mass, HALF)}
        lines.compare(topic, cell, "needle-mass", pair, _growth(at))


def _growth(at: xr.Dataset) -> dict[str, Estimate]:
    """How the log-odds of the needles grow between the two longest contexts."""
    if at.sizes["length"] < 2:
        return {}
    before, last = (at["log_odds"].isel(length=i).values for i in (-2, -1))
    shorter, longest = np.log(at["length"].values[-2:] - int(at["needles"])).tolist()
    return {"slope of log-odds in log(n - m)": mean((last - before) / (longest - shorter))}


def _add_freezing(lines: Lines, config: DilutionConfig, dataset: xr.Dataset) -> None:
    """Is the freezing transition there, and what does it mean for a needle?"""
    longest = dataset.isel(freezing_length=-1)
    count = int(longest["freezing_length"])
    ceiling = config.deviation * np.sqrt(2 * np.log(count))
    slope = {
        t: longest["log_partition_slope"].sel(scaled_tau=t).values / ceiling for t in (0.5, 1, 2)
    }
    log_z, expected = dataset["log_partition"], dataset["log_partition_theory"]
    bounds = "the random-energy model bounds the expected log-partition from above"
    sentence = f"Gaussian distractors: {bounds}"
    what = "largest E log Z - model over all tau and numbers of distractors"
    over = float((expected - dataset["log_partition_rem"]).max())
    lines.check("rem-bound", sentence, what, "<", 1e-9, over, source=_REM)
    sentence = f"below freezing d log Z / dtau is tau s^2, {count:,} distractors"
    what = "|mean over seeds of d log Z / dtau at tau_c / 2, over tau s^2, minus 1|"
    off = float(abs(slope[0.5].mean() / 0.5 - 1))
    lines.check("liquid", sentence, what, "<", 0.02, off, source=_REM)
    sentence = (
        f"beyond freezing d log Z / dtau saturates, {count:,} distractors "
        "(without freezing it would double)"
    )
    what = "mean over seeds of d log Z / dtau at 2 tau_c over the same at tau_c"
    parts = {f"slope at {t:g} tau_c / (s sqrt(2 log N))": mean(v) for t, v in slope.items()}
    ratio = mean(slope[2] / slope[1])
    lines.check("freezing", sentence, what, "<", 1.25, ratio, parts, _REM)
    if dataset.sizes["seed"] > 1:
        error = log_z.std("seed", ddof=1) / np.sqrt(dataset.sizes["seed"])
        score = float((abs(log_z.mean("seed") - expected) / np.maximum(error, 1e-9)).max())
        sentence = (
            "Gaussian distractors: mean log-partition equals its exact expectation within "
            "Monte-Carlo error"
        )
        what = (
            "largest |mean over seeds - exact| in standard errors over all tau and numbers of "
            "distractors"
        )
        lines.check("log-partition", sentence, what, "<", 5.0, score, source=_CLOSED)
    if config.gap < ceiling:
        tau = dataset["scaled_tau"] * ceiling / config.deviation**2
        best = expit(tau * config.gap - longest["log_partition"]).max("scaled_tau")
        lost = "no tau saves one needle whose gap is below s sqrt(2 log N)"
        sentence = f"{lost}, {count:,} Gaussian distractors"
        what = "mean over seeds of the largest needle mass at any tau up to 2 tau_c"
        lines.check("lost", sentence, what, "<", 0.05, mean(best.values), source=_REM)
