"""The ledger lines of the denoising experiment. Thresholds are fixed here, before any run."""

from typing import Any

import numpy as np
import xarray as xr

from analysis.claims.claim import Claim
from analysis.claims.statistics import Estimate, difference, estimate, mean, ratio

VALUE_GATES = ("value-additive", "value-tanh", "value-sigmoid")
_PAPER = "paper, denoising with value temperature"
_PROJECT = "this project"


def judge(config: Any, dataset: xr.Dataset) -> list[Claim]:
    """Every claim that the stored variants and settings allow. All comparisons are paired over seeds."""
    at = dataset.sel(setting="default")
    mse = {str(v): at["mse"].sel(variant=v).values for v in dataset["variant"].values}
    mse |= {name: at[f"held_out_{name}"].values for name in ("naive", "bayes", "oracle")}
    gates = [v for v in VALUE_GATES if v in mse]
    steps = config.steps + config.cooldown_steps
    lines = []

    def add(
        key: str,
        sentence: str,
        source: str,
        statistic: str,
        relation: str,
        threshold: float,
        estimate: Estimate,
        **parts: Estimate,
    ) -> None:
        lines.append(
            Claim(f"denoise-{key}", sentence, source, statistic, relation, threshold, estimate, config.seeds, parts)
        )

    def above(worse: str, better: str, source: str, sentence: str | None = None) -> None:
        if worse in mse and better in mse:
            add(
                f"{worse}-above-{better}",
                sentence or f"{worse} has a larger error than {better} at the default",
                source,
                f"mean over seeds of the conditional risk of {worse} minus that of {better}, on the same held-out samples",
                ">",
                0.0,
                difference(mse[worse], mse[better]),
                **{worse: mean(mse[worse]), better: mean(mse[better])},
            )

    above("naive", "vanilla", _PAPER)
    for gate in gates:
        above("vanilla", gate, _PAPER)
        above(gate, "bayes", _PROJECT)
    above("bayes", "oracle", _PROJECT)

    additive = float(at["additive"])
    for gate in gates:
        add(
            f"bound-{gate}",
            f"{gate} comes within 8 % of the best that any value gate under uniform attention can do, after {steps} steps",
            _PROJECT,
            f"mean risk of {gate} over the closed-form risk of the best additive estimator",
            "<",
            1.08,
            ratio(mse[gate], np.full_like(mse[gate], additive)),
            **{gate: mean(mse[gate])},
        )
    if "vanilla" in mse and config.query == "readout":
        add(
            "vanilla-linear",
            "vanilla attention from a constant query does no better than the best multiple of the mean token",
            _PROJECT,
            "mean risk of vanilla over the closed-form risk of the best multiple of the mean token",
            ">",
            0.99,
            ratio(mse["vanilla"], np.full_like(mse["vanilla"], float(at["shrunk"]))),
            vanilla=mean(mse["vanilla"]),
        )
    lines += _no_information(dataset, gates, config.seeds)

    for better in ("sink", "key-bias"):
        for gate in gates:
            sentence = f"{better}, a gate inside the softmax, has a smaller error than {gate}, the gate on the values"
            above(gate, better, _PROJECT, sentence)
    if "sink" in mse:
        add(
            "sink-beyond-additive",
            "a gate inside the softmax with a sink beats every value gate under uniform attention",
            _PROJECT,
            "mean risk of sink over the closed-form risk of the best additive estimator",
            "<",
            1.0,
            ratio(mse["sink"], np.full_like(mse["sink"], additive)),
            sink=mean(mse["sink"]),
        )
    sentence = "the paper's additive temperature, which has a floor above 0, has a larger error than one that reaches 0"
    for gate in ("value-tanh", "value-sigmoid"):
        above("value-additive", gate, _PROJECT, f"{sentence} ({gate})")
    if "value-additive" in mse:
        floor = at["gate_floor"].sel(variant="value-additive").values
        add(
            "additive-floor",
            "training drives the position term of the paper's value temperature out: the floor that it puts under the gate falls "
            "below a tenth of its start, log(L) / 2",
            _PROJECT,
            "mean over seeds of sigmoid(alpha) log L after training over its value before",
            "<",
            0.1,
            mean(floor / (0.5 * np.log(config.length))),
            floor=mean(floor),
        )
    above("vanilla", "query", _PAPER, "a query temperature alone has a smaller error than vanilla")
    above("value-additive", "query-value", _PAPER, "a query temperature beside the value temperature lowers the error")
    return lines


def _no_information(dataset: xr.Dataset, gates: list[str], asked: int) -> list[Claim]:
    """Where relevant tokens and fillers have the same law, a value gate must not gain, and should not lose."""
    mse = dataset["mse"].sel(setting="no information")
    if "vanilla" not in dataset["variant"]:
        return []
    y = mse.sel(variant="vanilla").values
    lines = []
    for gate in gates:
        x = mse.sel(variant=gate).values
        usable = np.isfinite(x) & np.isfinite(y)
        if not usable.any():  # not among the swept variants
            continue
        apart = estimate(lambda i, x=x: np.abs(x[i].mean(-1) / y[i].mean(-1) - 1), usable)
        lines.append(
            Claim(
                id=f"denoise-no-gain-{gate}",
                sentence=f"{gate} gains nothing over vanilla at s_noise^2 = s_y^2 + s_signal^2, where norms carry no information",
                source=_PROJECT,
                statistic=f"|ratio of means over seeds, {gate} / vanilla, of the risk - 1|",
                relation="<",
                threshold=0.01,
                estimate=apart,
                asked=asked,
                parts={"ratio": ratio(x, y), gate: mean(x), "vanilla": mean(y)},
            )
        )
    return lines
