"""The ledger lines of the denoising experiment."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import xarray as xr

from analysis.claims.builder import Lines, Values
from analysis.claims.claim import Claim, Relation
from analysis.claims.statistics import Estimate, mean, ratio
from analysis.experiments.denoise.train import DenoiseConfig
from analysis.experiments.mechanisms import chosen
from ssa_theory.mechanism import VANILLA, Mechanism
from ssa_theory.mechanism.temperature import Selective

PAPERS, SINK, ADDITIVE = "ssa-mlp-value", "gate-and-sink", "best additive estimator"
"""The paper's value temperature, a gate inside the softmax, and what bounds every value gate."""
REACHING_ZERO = ("value-tanh", "value-sigmoid")
_FLOOR = f"floor under the gate of {PAPERS} / the same before training"


def judge(config: DenoiseConfig, dataset: xr.Dataset) -> list[Claim]:
    """Every line that the stored mechanisms and settings allow, paired over seeds."""
    lines, at = Lines("denoise", config.seeds), dataset.sel(setting="default")
    models = [m.name for m in chosen(config.mechanisms)]
    excess = {name: at["excess"].sel(mechanism=name).values for name in models}
    excess[ADDITIVE] = np.full(config.seeds, float(at["additive"] - at["bayes"]))

    def compare(
        topic: str,
        cell: dict[str, str],
        first: str,
        second: str,
        parts: dict[str, Estimate] | None = None,
    ) -> None:
        if {first, second} <= set(excess):
            pair = {name: excess[name] for name in (first, second)}
            lines.compare(topic, cell, "excess", pair, parts)

    swept = [m.name for m in chosen(config.swept_mechanisms)]
    for setting, noise in config.noises.items():
        if setting != "no information":
            trained = models if setting == "default" else swept
            error = dataset["excess"].sel(setting=setting, mechanism=trained)
            lines.against("denoising", {"noise": f"{noise:g}"}, "excess", error, PAPERS)
    if PAPERS in excess:
        left = at["gate_floor"].sel(mechanism=PAPERS).values / (0.5 * np.log(config.length))
        for other in REACHING_ZERO:
            compare("floor", {"against": other}, other, PAPERS, {_FLOOR: mean(left)})
    for other in (PAPERS, *REACHING_ZERO, ADDITIVE):
        compare("beyond", {"against": other}, SINK, other)
    task = {"task": f"denoising, query {config.query}"}
    compare("query", task | {"how": "alone"}, "ssa-mlp-query", VANILLA)
    compare("query", task | {"how": "added to the others"}, "ssa-mlp", PAPERS)
    _calibrate(lines, config, dataset)
    return lines.claims


def _calibrate(lines: Lines, config: DenoiseConfig, dataset: xr.Dataset) -> None:
    """Does training come as far as the exact estimators say that it can, and no further?"""
    at, uninformed = (dataset.sel(setting=s) for s in ("default", "no information"))
    models, swept = chosen(config.mechanisms), chosen(config.swept_mechanisms)
    risk = {m.name: at["mse"].sel(mechanism=m.name).values for m in models}
    risk["naive"] = at["held_out_naive"].values
    for name in ("shrunk", "additive"):
        risk[name] = np.full(config.seeds, float(at[name]))

    def check(
        key: str, sentence: str, pair: Mapping[str, Values], relation: Relation, threshold: float
    ) -> None:
        parts = {name: mean(values) for name, values in pair.items()}
        statistic = f"ratio of geometric means over seeds, {' / '.join(pair)}, of the risk"
        lines.check(key, sentence, statistic, relation, threshold, ratio(*pair.values()), parts)

    def of(*names: str) -> dict[str, Values]:
        return {name: risk[name] for name in names}

    if VANILLA in risk:
        sentence = "trained vanilla attention has a smaller risk than the mean token"
        check("vanilla-naive", sentence, of(VANILLA, "naive"), "<", 1.0)
        if config.query == "readout":
            sentence = "from a constant query it has no less than the best multiple of that mean"
            check("vanilla-shrunk", sentence, of(VANILLA, "shrunk"), ">", 0.99)
    for gate in filter(_is_value_gate, models):
        sentence = f"{gate.name} comes within 8 % of the best value gate under uniform attention"
        check(f"bound-{gate.name}", sentence, of(gate.name, "additive"), "<", 1.08)
        if {gate.name, VANILLA} <= {m.name for m in swept}:
            pair = {n: uninformed["mse"].sel(mechanism=n).values for n in (gate.name, VANILLA)}
            sentence = f"{gate.name} gains less than 1 % on vanilla where norms say nothing"
            check(f"uninformed-{gate.name}", sentence, pair, ">", 0.99)


def _is_value_gate(mechanism: Mechanism) -> bool:
    """Whether a temperature of values, by token, is all that it has."""
    value = mechanism.value
    by_token = isinstance(value, Selective) and value.score is not None
    return by_token and replace(mechanism, value=None).is_vanilla
