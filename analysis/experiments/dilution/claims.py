"""The ledger lines of the dilution experiment. Thresholds are fixed here, before any run."""

from typing import cast

import numpy as np
import xarray as xr
from scipy.special import expit

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import mean
from analysis.claims.topics import DILUTION, OTHER_SCHEDULES, THEORY
from analysis.experiments.dilution.config import DilutionConfig
from ssa_theory.mechanism import known
from ssa_theory.mechanism.temperature import Selective, Temperature

_CLOSED = "this project, closed forms of dilution"
_PAPER = "paper, dilution argument for position-aware temperature"
_FROZEN = "random-energy model (Derrida 1981), Gaussian logits"
_WORST = "worst case over all cells"
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
        own = (THEORY, key, sentence, what, "<", threshold, float(value), _WORST)
        lines.exact(*own, source=_CLOSED)

    mass, exact = dataset["needle_mass"], dataset["needle_mass_theory"]
    cells = "over all mechanisms, numbers of needles and lengths"
    worst(
        "exact-equal",
        "equal distractors: measured needle mass equals the closed form",
        f"largest |measured - exact| {cells}",
        1e-10,
        abs(mass - exact).sel(law="equal").max(),
    )
    deviation = np.maximum(dataset["needle_mass_deviation"], _LEAST_DEVIATION * exact)
    score = abs(mass.mean("seed") - exact) / (deviation / np.sqrt(dataset.sizes["seed"]))
    for law in ("bounded", "gaussian"):
        worst(
            f"exact-{law}",
            f"{law} distractors: mean needle mass equals its exact expectation within Monte-Carlo "
            "error",
            f"largest |mean over seeds - exact| in exact standard errors {cells}",
            5.0,
            score.sel(law=law).max(),
        )
    lower, upper = (dataset["needle_mass_bound"].sel(bound=b) for b in ("lower", "upper"))
    bounded = dataset.sel(law="bounded")
    violation = [lower - bounded["needle_mass"], bounded["needle_mass"] - upper]
    violation.append(dataset["entropy_bound"] - bounded["entropy"])
    worst(
        "bounds",
        "bounded distractors: needle mass and entropy obey their certified bounds in every sampled "
        "row",
        f"largest violation {cells} and seeds",
        1e-9,
        max(v.max() for v in violation),
    )
    critical = dataset["critical_inverse_temperature"]
    if not critical.notnull().any():
        return
    limits = dataset["critical_inverse_temperature_theory"]
    with np.errstate(invalid="ignore"):  # an infinite tau within an infinite bound violates nothing
        apart = (limits.sel(bound="lower") - critical, critical - limits.sel(bound="upper"))
        outside = cast(xr.DataArray, np.maximum(*apart))  # numpy does not say that labels stay
    for law, what in (
        ("equal", "equals its closed form"),
        ("bounded", "lies within its certified bounds"),
    ):
        worst(
            f"critical-{law}",
            f"{law} distractors: the tau at which the needles reach the target mass {what}",
            "largest violation over all numbers of needles, seeds and measured lengths",
            1e-8,
            outside.sel(law=law).max(),
        )


def _add_mechanisms(lines: Lines, dataset: xr.Dataset) -> None:
    """Which mechanism keeps the needle at the longest context?"""
    last = dataset.isel(length=-1, needles=0)
    where = f"{int(last['needles'])} in {int(last['length']):,} keys"
    for name in dataset["mechanism"].values:
        temperature = known(name).query
        growing = _grows(temperature)
        ours = not growing or isinstance(temperature, Selective)
        what = (
            "keeps most attention on the needles" if growing else "dilutes the needles to nothing"
        )
        for law in dataset["law"].values:
            lines.add(
                DILUTION if ours else OTHER_SCHEDULES,
                f"{name}-{law}",
                f"{name}: {what}, {where}, {law} distractors",
                "mean over seeds of the needle mass",
                ">" if growing else "<",
                0.5 if growing else 0.01,
                mean(last["needle_mass"].sel(mechanism=name, law=law).values),
                source=_PAPER,
            )
    if dataset.sizes["length"] < 2:
        return
    ends = dataset.isel(length=[-2, -1], needles=0).sel(law="equal")
    (rise,) = np.diff(np.log(ends["length"].values - int(ends["needles"])))
    for name in dataset["mechanism"].values:
        if isinstance(known(name).query, Selective) and _grows(known(name).query):
            odds = ends["log_odds"].sel(mechanism=name).transpose("seed", "length").values
            lines.add(
                DILUTION,
                f"{name}-growth",
                f"{name}: the needles' log-odds grow with the context, equal distractors",
                "slope of log-odds in log(n - m) between the two longest contexts; about "
                "sigmoid(alpha) g - 1",
                ">",
                0.0,
                mean(np.diff(odds)[:, 0] / rise),
                source=_PAPER,
            )


def _grows(temperature: Temperature | None) -> bool:
    """Whether a query temperature knows the number of keys."""
    return temperature is not None and getattr(temperature, "position", True)


def _add_freezing(lines: Lines, config: DilutionConfig, dataset: xr.Dataset) -> None:
    """Is the freezing transition there, and what does it mean for a needle?"""
    longest = dataset.isel(freezing_length=-1)
    count = int(longest["freezing_length"])
    ceiling = config.deviation * np.sqrt(2 * np.log(count))
    slope = {
        t: longest["log_partition_slope"].sel(scaled_tau=t).values / ceiling for t in (0.5, 1, 2)
    }
    lines.exact(
        THEORY,
        "rem-bound",
        "Gaussian distractors: the random-energy model bounds the expected log-partition from "
        "above",
        "largest E log Z - model over all tau and numbers of distractors",
        "<",
        1e-9,
        float((dataset["log_partition_theory"] - dataset["log_partition_rem"]).max()),
        _WORST,
        source=_FROZEN,
    )
    lines.exact(
        THEORY,
        "liquid",
        f"below freezing d log Z / dtau is tau s^2, {count:,} distractors",
        "|mean over seeds of d log Z / dtau at tau_c / 2, over tau s^2, minus 1|",
        "<",
        0.02,
        float(abs(slope[0.5].mean() / 0.5 - 1)),
        _WORST,
        source=_FROZEN,
    )
    lines.add(
        THEORY,
        "freezing",
        f"beyond freezing d log Z / dtau saturates, {count:,} distractors (without freezing it "
        "would double)",
        "mean over seeds of d log Z / dtau at 2 tau_c over the same at tau_c",
        "<",
        1.25,
        mean(slope[2] / slope[1]),
        {f"slope at {t:g} tau_c / (s sqrt(2 log N))": mean(v) for t, v in slope.items()},
        source=_FROZEN,
    )
    if dataset.sizes["seed"] > 1:
        log_z = dataset["log_partition"]
        error = log_z.std("seed", ddof=1) / np.sqrt(dataset.sizes["seed"])
        score = abs(log_z.mean("seed") - dataset["log_partition_theory"]) / np.maximum(error, 1e-9)
        lines.exact(
            THEORY,
            "log-partition",
            "Gaussian distractors: mean log-partition equals its exact expectation within "
            "Monte-Carlo error",
            "largest |mean over seeds - exact| in standard errors over all tau and numbers of "
            "distractors",
            "<",
            5.0,
            float(score.max()),
            _WORST,
            source=_CLOSED,
        )
    if config.gap < ceiling:
        tau = dataset["scaled_tau"] * ceiling / config.deviation**2
        best = expit(tau * config.gap - longest["log_partition"]).max("scaled_tau")
        lines.add(
            THEORY,
            "lost",
            "no tau saves one needle whose gap is below s sqrt(2 log N), "
            f"{count:,} Gaussian distractors",
            "mean over seeds of the largest needle mass at any tau up to 2 tau_c",
            "<",
            0.05,
            mean(best.values),
            source=_FROZEN,
        )
