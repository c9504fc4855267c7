"""Is the learned query temperature the posterior's 1 / s^2? Noisy retrieval, where Bayes has it."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from pydantic import Field

from analysis.claims.bands import mean_band
from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import mean, slopes
from analysis.draw.figures import draw_each, draw_points, label_axes, left_out, new_figure
from analysis.experiments.base import Experiment, Progress
from analysis.experiments.mechanisms import Mechanisms, chosen
from analysis.experiments.settings import (
    QUICK,
    Cell,
    CooldownConfig,
    CooldownSteps,
    Steps,
    cells_per_block,
    train_cell,
)
from analysis.problems.retrieval import RetrievalProblem
from ssa_theory.mechanism import VANILLA


class RetrievalConfig(CooldownConfig):
    """Retrieve the key that a noisy query stems from; the noise level s of each query is visible to
    the model.
    """

    dim: int = Field(8, ge=1, le=1024, description="dimension d of keys and query")
    keys: int = Field(
        32, ge=2, le=4096, description="number of keys n in training and in the main evaluation"
    )
    noise_levels: tuple[float, ...] = Field(
        (0.1, 0.2, 0.4, 0.8),
        description="noise levels s, equally likely in training; each evaluated apart",
    )
    tested_keys: tuple[int, ...] = Field(
        (8, 16, 32, 64, 128),
        description="numbers of keys at which the trained models are evaluated as well",
    )
    mechanisms: Mechanisms = Field(
        (VANILLA, "ssa-feature", "ssa-feature-exp"), description="mechanisms to train"
    )
    batch_size: int = Field(32, ge=1, le=65536, description="fresh problems a step")
    steps: Steps = 400
    cooldown_steps: CooldownSteps = 100
    held_out: int = Field(
        256, ge=2, le=1_000_000, description="held-out problems per seed and noise level"
    )

    def check(self) -> None:
        self.require_distinct("noise_levels", "tested_keys")
        super().check()

    @property
    def problem(self) -> RetrievalProblem:
        """What is trained on."""
        return self.build(RetrievalProblem)

    @property
    def cells(self) -> list[Cell[RetrievalProblem]]:
        return [Cell("", self.problem, self.training, chosen(self.mechanisms))]


def summarise(config: RetrievalConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add what the figure shows: means with 95 % intervals over seeds that did not diverge."""
    gap = dataset["cross_entropy"] - dataset["bayes"]
    gap = (gap / (dataset["naive"] - dataset["bayes"])).transpose("mechanism", "seed", "noise")
    about = "(cross_entropy - bayes) / (naive - bayes): 0 for Bayes, 1 for a guess"
    dataset["gap_ratio"] = gap.assign_attrs(description=about)
    for name in ("cross_entropy", "inverse_temperature", "bayes", "common"):
        dataset[f"{name}_band"] = mean_band(dataset[name])
    by_keys = dataset["cross_entropy_by_keys"] - dataset["bayes_by_keys"]
    dataset["gap_by_keys_band"] = mean_band(by_keys)
    return dataset


_LINKS = {"ssa-feature": "1 + tanh", "ssa-feature-exp": "exp"}
"""What links a query's noise level to its temperature, by the name of the mechanism."""


def judge(config: RetrievalConfig, dataset: xr.Dataset) -> list[Claim]:
    """The tests that the stored mechanisms allow.

    Cross-entropies are means over all noise levels.
    """
    lines = Lines("retrieval", dataset.sizes["seed"])
    most = dataset.sel(keys=dataset["keys"].max())
    over_noise = dataset[["cross_entropy", "bayes", "common"]].mean("noise", skipna=False)
    bayes, value = over_noise["bayes"].values, over_noise["cross_entropy"]
    peers = {"best constant": over_noise["common"].values}
    if VANILLA in dataset["mechanism"]:
        peers[VANILLA] = value.sel(mechanism=VANILLA).values
    log_wanted = -2 * np.log(dataset["noise"].values)
    for m in map(str, dataset["mechanism"].values):
        link, own = {"link": _LINKS.get(m, m)}, value.sel(mechanism=m).values
        far = most["cross_entropy_by_keys"].sel(mechanism=m).values
        pairs = {
            "as trained": {m: own, "Bayes": bayes},
            "the most": {m: far, "Bayes": most["bayes_by_keys"].values},
        }
        for keys, pair in pairs.items():
            lines.compare("retrieval", link | {"keys": keys}, "cross-entropy", pair)
        if m == VANILLA:
            continue
        for peer, theirs in peers.items():
            pair = {m: own - bayes, peer: theirs - bayes}
            lines.compare("retrieval-gain", link | {"against": peer}, "excess", pair)
        if len(log_wanted) > 1:
            tau = dataset["inverse_temperature"].sel(mechanism=m).transpose("seed", "noise")
            slope = slopes(log_wanted, np.log(tau.clip(min=1e-12).values))
            off, parts = np.abs(slope - 1), {"slope": mean(slope)}
            lines.single("retrieval-temperature", link, "off-slope", off, parts)
    return lines.claims


def draw(config: RetrievalConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    figure = new_figure(13.0, 4.4)
    left, middle, right = figure.subplots(1, 3)
    data = dataset.sortby(["noise", "keys"])
    noise, keys = data["noise"].values, data["keys"].values
    wanted = 1 / noise**2
    exact = {"color": "#009e73", "linewidth": 5, "alpha": 0.45}
    dashed = {"color": "#aaaaaa", "linestyle": (0, (6, 4))}

    def value(name: str) -> np.ndarray:
        return data[f"{name}_band"].sel(estimate="value").values

    left.plot(noise, value("bayes"), label="exact Bayes", **exact)
    common = {"color": "#777777", "linestyle": ":", "label": "best single temperature"}
    left.plot(noise, value("common"), **common)
    left.axhline(float(data["naive"]), label="uniform guess, log n", **dashed)
    draw_each(draw_points, left, noise, data["cross_entropy_band"], joined=True)
    left.set_xscale("log")
    label_axes(left, "noise level s", "cross-entropy (nats)", "cross-entropy by noise level")
    left.set_xticks(noise, [f"{s:g}" for s in noise])
    left.set_ylim(bottom=0)

    middle.plot(wanted, wanted, label="posterior, 1/s²", **exact)
    draw_each(draw_points, middle, wanted, data["inverse_temperature_band"], joined=True)
    middle.set(xscale="log", yscale="log")
    title = "learned inverse temperature"
    label_axes(middle, "1/s²", f"{title}, τ(s) tr(W)/d", title)

    draw_each(draw_points, right, keys, data["gap_by_keys_band"], joined=True)
    right.axvline(config.keys, linewidth=1, label="n in training", **dashed)
    right.set(xscale="log", yscale="log")
    title = "other numbers of keys, without further training"
    y = "cross-entropy above exact Bayes (nats)"
    label_axes(right, "number of keys n in the test", y, title)
    right.set_xticks(keys, [str(k) for k in keys])
    for ax in (left, right):
        ax.minorticks_off()
    for ax in (left, middle, right):
        ax.legend(fontsize=8)
    figure.suptitle(
        f"noisy retrieval: d = {config.dim}, n = {config.keys}, {config.steps} + "
        f"{config.cooldown_steps} steps of {config.adam}; means and 95 % intervals "
        f"over {config.seeds} seeds" + left_out(dataset)
    )
    return figure


RETRIEVAL = Experiment(
    name="retrieval",
    question="Is the query temperature that SSA learns the posterior's 1 / s^2, and how near does "
    "it come to exact Bayes?",
    caption=(
        "Left: cross-entropy by the noise level of the query, against the exact posterior and the "
        "best single temperature. Middle: the learned inverse temperature, in the units of the "
        "posterior's 1 / s². Right: cross-entropy above exact Bayes at other numbers of keys, "
        "without further training. Means and 95 % intervals over seeds."
    ),
    config=RetrievalConfig,
    train=train_cell,
    seeds_per_block=cells_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={
        "smoke": QUICK | {"steps": 60, "cooldown_steps": 20, "held_out": 64},
        "large": {"seeds": 512, "held_out": 1024},
    },
)
