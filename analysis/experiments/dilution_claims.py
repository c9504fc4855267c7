"""The ledger lines of the dilution experiment. Thresholds are fixed here, before any run."""

from typing import Any, Literal

import numpy as np
import xarray as xr
from scipy.special import expit

from analysis.claims.claim import Claim
from analysis.claims.statistics import Estimate, mean

_THEORY = "this project, closed forms of dilution"
_PAPER = "paper, dilution argument for position-aware temperature"
_FROZEN = "random-energy model (Derrida 1981), Gaussian logits"
_LEAST_DEVIATION = 1e-7  # relative to the mass: below it the quadrature's variance is rounding


def judge(config: Any, dataset: xr.Dataset) -> list[Claim]:
    """Every claim that the stored schedules and lengths allow."""
    return _theory_claims(dataset) + _schedule_claims(dataset) + _freezing_claims(config, dataset)


def _claim(
    dataset: xr.Dataset,
    key: str,
    sentence: str,
    source: str,
    statistic: str,
    relation: Literal["<", ">"],
    threshold: float,
    found: Estimate | xr.DataArray,
    **parts: Estimate,
) -> Claim:
    """A ledger line; a bare number is a worst case over everything, without an interval."""
    asked = dataset.sizes["seed"]
    if isinstance(found, xr.DataArray):
        found = Estimate(float(found), float(found), float(found), asked, "worst case over all cells")
    return Claim(f"dilution-{key}", sentence, source, statistic, relation, threshold, found, asked, parts)


def _theory_claims(dataset: xr.Dataset) -> list[Claim]:
    """Does the measurement agree with the closed forms, and obey the bounds?"""
    mass, exact = dataset["needle_mass"], dataset["needle_mass_theory"]
    cells = "over all schedules, numbers of needles and lengths"
    lines = [
        _claim(
            dataset,
            "exact-equal",
            "equal distractors: measured needle mass equals the closed form",
            _THEORY,
            f"largest |measured - exact| {cells}",
            "<",
            1e-10,
            abs(mass - exact).sel(kind="equal").max(),
        )
    ]
    deviation = np.maximum(dataset["needle_mass_deviation"], _LEAST_DEVIATION * exact)
    score = abs(mass.mean("seed") - exact) / (deviation / np.sqrt(dataset.sizes["seed"]))
    lines += [
        _claim(
            dataset,
            f"exact-{kind}",
            f"{kind} distractors: mean needle mass equals its exact expectation within Monte-Carlo error",
            _THEORY,
            f"largest |mean over seeds - exact| in exact standard errors {cells}",
            "<",
            5.0,
            score.sel(kind=kind).max(),
        )
        for kind in ("bounded", "gaussian")
    ]
    lower, upper = (dataset["needle_mass_bound"].sel(bound=b) for b in ("lower", "upper"))
    bounded = dataset.sel(kind="bounded")
    violation = [lower - bounded["needle_mass"], bounded["needle_mass"] - upper]
    violation.append(dataset["entropy_bound"] - bounded["entropy"])
    lines.append(
        _claim(
            dataset,
            "bounds",
            "bounded distractors: needle mass and entropy obey their certified bounds in every sampled row",
            _THEORY,
            f"largest violation {cells} and seeds",
            "<",
            1e-9,
            xr.DataArray(max(float(v.max()) for v in violation)),
        )
    )
    critical, limits = dataset["critical_inverse_temperature"], dataset["critical_inverse_temperature_theory"]
    if critical.notnull().any():
        with np.errstate(invalid="ignore"):  # an infinite tau within an infinite bound violates nothing
            outside = np.maximum(limits.sel(bound="lower") - critical, critical - limits.sel(bound="upper"))
        lines += [
            _claim(
                dataset,
                f"critical-{kind}",
                f"{kind} distractors: the tau at which the needles reach the target mass {what}",
                _THEORY,
                "largest violation over all numbers of needles, seeds and measured lengths",
                "<",
                1e-8,
                outside.sel(kind=kind).max(),
            )
            for kind, what in (("equal", "equals its closed form"), ("bounded", "lies within its certified bounds"))
        ]
    return lines


def _schedule_claims(dataset: xr.Dataset) -> list[Claim]:
    """Which schedule keeps the needle at the longest context?"""
    last = dataset.isel(length=-1, needles=0)
    where = f"{int(last['needles'])} in {int(last['length']):,} keys"
    lines = []
    for schedule in dataset["schedule"].values:
        for kind in dataset["kind"].values:
            found = mean(last["needle_mass"].sel(schedule=schedule, kind=kind).values)
            what, relation, threshold = (
                ("dilutes the needles to nothing", "<", 0.01)
                if schedule == "constant"
                else ("keeps most attention on the needles", ">", 0.5)
            )
            lines.append(
                _claim(
                    dataset,
                    f"{schedule}-{kind}",
                    f"{schedule}: {what}, {where}, {kind} distractors",
                    _PAPER,
                    "mean over seeds of the needle mass",
                    relation,
                    threshold,
                    found,
                )
            )
    if "ssa" in dataset["schedule"] and dataset.sizes["length"] > 1:
        ends = dataset.isel(length=[-2, -1], needles=0).sel(schedule="ssa", kind="equal")
        rise = np.diff(np.log(ends["length"].values - int(ends["needles"])))
        lines.append(
            _claim(
                dataset,
                "ssa-growth",
                "ssa: the needles' log-odds grow with the context, equal distractors",
                _PAPER,
                "slope of log-odds in log(n - m) between the two longest contexts; about sigmoid(alpha) g - 1",
                ">",
                0.0,
                mean(np.diff(ends["log_odds"].transpose("seed", "length").values)[:, 0] / rise[0]),
            )
        )
    return lines


def _freezing_claims(config: Any, dataset: xr.Dataset) -> list[Claim]:
    """Is the freezing transition there, and what does it mean for a needle?"""
    seeds = dataset.sizes["seed"]
    longest = dataset.isel(freezing_length=-1)
    count = int(longest["freezing_length"])
    ceiling = config.deviation * np.sqrt(2 * np.log(count))
    slope = {t: longest["log_partition_slope"].sel(scaled_tau=t).values / ceiling for t in (0.5, 1.0, 2.0)}
    excess = dataset["log_partition_theory"] - dataset["log_partition_rem"]
    lines = [
        _claim(
            dataset,
            "rem-bound",
            "Gaussian distractors: the random-energy model bounds the expected log-partition from above",
            _FROZEN,
            "largest E log Z - model over all tau and numbers of distractors",
            "<",
            1e-9,
            excess.max(),
        ),
        _claim(
            dataset,
            "liquid",
            f"below freezing d log Z / dtau is tau s^2, {count:,} distractors",
            _FROZEN,
            "|mean over seeds of d log Z / dtau at tau_c / 2, over tau s^2, minus 1|",
            "<",
            0.02,
            abs(xr.DataArray(slope[0.5].mean() / 0.5 - 1)),
        ),
        _claim(
            dataset,
            "freezing",
            f"beyond freezing d log Z / dtau saturates, {count:,} distractors (without freezing it would double)",
            _FROZEN,
            "mean over seeds of d log Z / dtau at 2 tau_c over the same at tau_c",
            "<",
            1.25,
            mean(slope[2.0] / slope[1.0]),
            **{f"slope at {t:g} tau_c / (s sqrt(2 log N))": mean(v) for t, v in slope.items()},
        ),
    ]
    if seeds > 1:
        error = dataset["log_partition"].std("seed", ddof=1) / np.sqrt(seeds)
        score = abs(dataset["log_partition"].mean("seed") - dataset["log_partition_theory"]) / np.maximum(error, 1e-9)
        lines.append(
            _claim(
                dataset,
                "log-partition",
                "Gaussian distractors: mean log-partition equals its exact expectation within Monte-Carlo error",
                _THEORY,
                "largest |mean over seeds - exact| in standard errors over all tau and numbers of distractors",
                "<",
                5.0,
                score.max(),
            )
        )
    if config.gap < ceiling:
        tau = dataset["scaled_tau"] * ceiling / config.deviation**2
        best = expit(tau * config.gap - longest["log_partition"]).max("scaled_tau")
        lines.append(
            _claim(
                dataset,
                "lost",
                f"no tau saves one needle whose gap is below s sqrt(2 log N), {count:,} Gaussian distractors",
                _FROZEN,
                "mean over seeds of the largest needle mass at any tau up to 2 tau_c",
                "<",
                0.05,
                mean(best.values),
            )
        )
    return lines
