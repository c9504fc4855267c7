"""The ledger lines of the denoising experiment. Thresholds are fixed here, before any run."""

from dataclasses import replace

import numpy as np
import xarray as xr

from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import mean
from analysis.claims.topics import BEYOND, DENOISING, FLOOR, PROJECT, QUERY, Topic
from analysis.experiments.denoise.train import DenoiseConfig
from analysis.experiments.mechanisms import chosen
from ssa_theory.mechanism import VANILLA, Mechanism
from ssa_theory.mechanism.normalizers import SoftmaxSink
from ssa_theory.mechanism.temperature import Selective


def judge(config: DenoiseConfig, dataset: xr.Dataset) -> list[Claim]:
    """Every claim that the stored mechanisms and settings allow. All comparisons are paired."""
    lines, at = Lines("denoise", config.seeds), dataset.sel(setting="default")
    mechanisms = chosen(config.mechanisms)
    mse = {m.name: at["mse"].sel(mechanism=m.name).values for m in mechanisms}
    mse |= {name: at[f"held_out_{name}"].values for name in ("naive", "bayes", "oracle")}
    gates = {m.name: gate for m in mechanisms if (gate := _value_gate(m)) is not None}
    closed = {name: np.full(config.seeds, float(at[name])) for name in ("additive", "shrunk")}

    def above(
        topic: Topic, worse: str, better: str, source: str, sentence: str | None = None
    ) -> None:
        if worse in mse and better in mse:
            lines.difference(
                topic,
                f"{worse}-above-{better}",
                sentence or f"{worse} has a larger error than {better} at the default",
                f"mean over seeds of the conditional risk of {worse} minus that of {better}, on "
                "the same held-out samples",
                {worse: mse[worse], better: mse[better]},
                ">",
                0.0,
                source=source,
            )

    above(DENOISING, "naive", VANILLA, DENOISING.source)
    for gate in gates:
        above(DENOISING, VANILLA, gate, DENOISING.source)
        above(DENOISING, gate, "bayes", PROJECT)
    above(BEYOND, "bayes", "oracle", PROJECT)

    best = {"best additive estimator": closed["additive"]}
    for gate in gates:
        lines.ratio(
            DENOISING,
            f"bound-{gate}",
            f"{gate} comes within 8 % of the best that any value gate under uniform attention can "
            f"do, after {config.training.total_steps} steps",
            "the risk, the second's in closed form",
            {gate: mse[gate]} | best,
            "<",
            1.08,
            source=PROJECT,
        )
    if VANILLA in mse and config.query == "readout":
        lines.ratio(
            BEYOND,
            "vanilla-linear",
            "vanilla attention from a constant query does no better than the best multiple of the "
            "mean token",
            "the risk, the second's in closed form",
            {VANILLA: mse[VANILLA], "best multiple of the mean token": closed["shrunk"]},
            ">",
            0.99,
        )
    _no_information(lines, dataset, list(gates))

    inside = [m for m in mechanisms if _is_inside_the_softmax(m)]
    for better in inside:
        for gate in gates:
            sentence = (
                f"{better.name}, a gate inside the softmax, has a smaller error than {gate}, the "
                "gate on the values"
            )
            above(BEYOND, gate, better.name, PROJECT, sentence)
    for better in inside:
        if isinstance(better.normalizer, SoftmaxSink):
            lines.ratio(
                BEYOND,
                f"{better.name}-beyond-additive",
                "a gate inside the softmax with a sink beats every value gate under uniform "
                "attention",
                "the risk, the second's in closed form",
                {better.name: mse[better.name]} | best,
                "<",
                1.0,
            )
    sentence = (
        "the paper's additive temperature, which has a floor above 0, has a larger error than one "
        "that reaches 0"
    )
    additive = {name: gate for name, gate in gates.items() if gate.position}
    for worse, gate in additive.items():
        for better, other in gates.items():
            if other.score == gate.score and not other.position and other.link.floor == 0:
                above(FLOOR, worse, better, PROJECT, f"{sentence} ({better})")
        floor = at["gate_floor"].sel(mechanism=worse).values
        lines.add(
            FLOOR,
            f"{worse}-floor",
            f"training drives the position term of {worse} out: the floor that it puts under the "
            "gate falls below a tenth of its start, log(L) / 2",
            "mean over seeds of sigmoid(alpha) log L after training over its value before",
            "<",
            0.1,
            mean(floor / (0.5 * np.log(config.length))),
            {"floor": mean(floor)},
        )
    for without in mechanisms:
        for added in mechanisms:
            if added.query is None or not _same(replace(added, query=None), without):
                continue
            sentence = (
                "a query temperature alone has a smaller error than vanilla"
                if without.is_vanilla
                else "a query temperature beside the value temperature lowers the error"
            )
            above(QUERY, without.name, added.name, QUERY.source, sentence)
    return lines.claims


def _no_information(lines: Lines, dataset: xr.Dataset, gates: list[str]) -> None:
    """Where relevant tokens and fillers have one law, a value gate must not gain, and should not
    lose.
    """
    at = dataset["mse"].sel(setting="no information")
    mse = {str(name): at.sel(mechanism=name).values for name in at["mechanism"].values}
    for gate in gates:
        if VANILLA in mse and np.isfinite(mse[gate] + mse[VANILLA]).any():  # else not swept
            lines.unchanged(
                BEYOND,
                f"no-gain-{gate}",
                f"{gate} gains nothing over vanilla at s_noise^2 = s_y^2 + s_signal^2, where norms "
                "carry no information",
                "the risk",
                {gate: mse[gate], VANILLA: mse[VANILLA]},
                0.01,
            )


def _value_gate(mechanism: Mechanism) -> Selective | None:
    """Its value temperature, if that has a token term and is all that it has."""
    value = mechanism.value
    if not isinstance(value, Selective) or value.score is None:
        return None
    return value if replace(mechanism, value=None).is_vanilla else None


def _is_inside_the_softmax(mechanism: Mechanism) -> bool:
    """Whether it can tell a filler by a gate inside the softmax: a bias, or shifted scores that a
    key temperature scales.
    """
    shifted = mechanism.shift is not None and mechanism.key is not None
    gated = mechanism.bias is not None or shifted
    return gated and mechanism.normalizer.exponential and mechanism.value is None


def _same(one: Mechanism, other: Mechanism) -> bool:
    """Whether two mechanisms have the same parts, whatever their names."""
    return one.parts() == other.parts()
