"""Which position schedule extrapolates to contexts far longer than those of training?"""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from pydantic import Field

from analysis.claims.bands import mean_band
from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import mean, slopes
from analysis.draw.figures import draw_band, label_axes, left_out, new_figure, style
from analysis.experiments.base import Experiment, Progress
from analysis.experiments.mechanisms import Mechanisms, chosen
from analysis.experiments.settings import QUICK, Cell, CooldownConfig, cells_per_block, train_cell
from analysis.problems.kernel_regression import KernelRegressionProblem
from ssa_theory.mechanism import VANILLA

PAPERS = "ssa-position"
"""The paper's schedule, which is compared with every other."""


class LengthConfig(CooldownConfig):
    """Predict f(q) from n noisy values of a Gaussian process by attention with logits tau(n) q . k,
    tau a position schedule.
    """

    dim: int = Field(
        4, ge=1, le=1024, description="dimension d of keys and query, on the unit sphere"
    )
    length_scale: float = Field(1.0, gt=0, description="length scale l of the Gaussian process")
    noise: float = Field(
        0.3, gt=0, description="standard deviation sigma of the noise of the values"
    )
    train_lengths: tuple[int, ...] = Field(
        (4, 8, 16, 32, 64, 128),
        description="context lengths of training, all in every step, equally weighted",
    )
    test_lengths: tuple[int, ...] = Field(
        (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048), description="context lengths of the test"
    )
    mechanisms: Mechanisms = Field(
        (VANILLA, PAPERS, "released", "ssmax", "asentmax-position", "yarn", "power"),
        description=f"mechanisms to train, here position schedules; {VANILLA}, a constant "
        "temperature, is the peer",
    )
    contexts: int = Field(
        128, ge=1, le=100_000, description="training contexts a seed, eight queries each"
    )
    batch_size: int = Field(32, ge=1, le=65536, description="queries a step")
    held_out: int = Field(
        8, ge=1, le=4096, description="queries to the held-out context of each seed"
    )

    @property
    def problem(self) -> KernelRegressionProblem:
        """What is trained on."""
        return self.build(KernelRegressionProblem)

    @property
    def cells(self) -> list[Cell[KernelRegressionProblem]]:
        return [Cell("", self.problem, self.training, chosen(self.mechanisms))]


def summarise(config: LengthConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add the best temperatures, those of all seeds, and what the figure shows."""
    dataset = config.problem.summarise(dataset)
    gap, span = dataset["mse"] - dataset["bayes"], dataset["naive"] - dataset["bayes"]
    about = "(mse - bayes) / (naive - bayes): 0 for Bayes, 1 for the mean of the values"
    gap = (gap / span).transpose("mechanism", "seed", "length")
    dataset["gap_ratio"] = gap.assign_attrs(description=about)
    for name in ("mse", *_BASELINE, "learned_inverse_temperature", "effective_support"):
        dataset[f"{name}_band"] = mean_band(dataset[name])
    return dataset


def judge(config: LengthConfig, dataset: xr.Dataset) -> list[Claim]:
    """Every length beyond those of training, and the check that a constant temperature dilutes."""
    lines, trained = Lines("length", dataset.sizes["seed"]), max(config.train_lengths)
    names = [str(m) for m in dataset["mechanism"].values]
    lengths = dataset["length"].values
    for n in lengths[lengths > trained].tolist():
        at, length = dataset.sel(length=n), {"length": str(n)}
        error = {m: at["mse"].sel(mechanism=m).values for m in names}
        for m in names:
            pair = {m: error[m], "best temperature of the length": at["oracle"].values}
            lines.compare("position-optimum", {"schedule": m} | length, "mse", pair)
        constant = {"best constant": at["best_vanilla"].values}
        if VANILLA in error:
            constant["learned constant"] = error[VANILLA]
        others = {m: e for m, e in error.items() if m not in (PAPERS, VANILLA)}
        bayes = at["bayes"].values
        for topic, peers in {"extrapolation": constant, "schedules": others}.items():
            for peer, theirs in peers.items() if PAPERS in error else ():
                pair = {PAPERS: error[PAPERS] - bayes, peer: theirs - bayes}
                lines.compare(topic, length | {"against": peer}, "excess", pair)

    beyond = dataset.sel(length=lengths[lengths >= trained])
    if VANILLA in names and beyond.sizes["length"] >= 2:
        support = beyond["effective_support"].sel(mechanism=VANILLA).transpose("seed", "length")
        slope = slopes(np.log(beyond["length"].values), np.log(support.values))
        sentence = f"{VANILLA}: the effective support of attention grows linearly with the context"
        what = f"mean over seeds of |slope - 1| of log effective support on log n, n >= {trained}"
        off, parts = mean(np.abs(slope - 1)), {"slope": mean(slope)}
        source = "paper (arXiv 2411.12892), dilution argument"
        lines.check("dilution", sentence, what, "<", 0.1, off, parts, source)
    return lines.claims


_BASELINE = {
    "naive": {"label": "uniform attention (τ = 0)", "c": "#aaaaaa", "ls": (0, (1, 3)), "lw": 3},
    "best_vanilla": {"label": "best single τ", "c": "#555555", "ls": (0, (6, 4)), "lw": 1.2},
    "oracle": {"label": "best τ per n", "c": "#bbbbbb", "lw": 5},
    "bayes": {"label": "exact Bayes (GP posterior)", "c": "#e0b000", "lw": 3},
}
_PANELS = {
    "mse": ("mean squared error of f(q)", "error"),
    "learned_inverse_temperature": ("inverse temperature τ(n)", "learned schedules"),
    "effective_support": ("effective support exp(H) of the row (keys)", "dilution"),
}


def draw(config: LengthConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    length = dataset["length"].values
    figure = new_figure(14.0, 5.4)
    axes = left, middle, right = figure.subplots(1, 3)
    span = min(config.train_lengths), max(config.train_lengths)
    for ax in axes:
        ax.axvspan(*span, color="#eeeeee", zorder=-5, label="training")
    for name, look in _BASELINE.items():
        left.plot(length, dataset[f"{name}_band"].sel(estimate="value"), zorder=0, **look)
    middle.plot(length, dataset["best_inverse_temperature"], zorder=0, **_BASELINE["oracle"])
    single = float(dataset["best_vanilla_inverse_temperature"])
    middle.axhline(single, zorder=0, **_BASELINE["best_vanilla"])
    right.plot(length, length, zorder=0, **_BASELINE["naive"])
    for ax, (name, (label, title)) in zip(axes, _PANELS.items(), strict=True):
        for place, m in enumerate(map(str, dataset["mechanism"].values)):
            # Markers start at different points, so that equal curves stay readable.
            mark = {"marker": style(m)["marker"], "markersize": 4.5, "markevery": (place % 2, 2)}
            draw_band(ax, length, dataset[f"{name}_band"].sel(mechanism=m), m, 0.15, **mark)
        label_axes(ax, "context length n", label, title)
        ax.set(xscale="log", yscale="log")
        ax.set_xticks(length, [str(n) for n in length], fontsize=8)
        ax.minorticks_off()
    middle.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    middle.yaxis.set_major_formatter("{x:g}")
    handles = left.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=6, fontsize=8)
    figure.suptitle(
        f"kernel regression: d = {config.dim}, l = {config.length_scale:g}, σ = {config.noise:g}, "
        f"trained on n = {span[0]} to {span[1]}; means and 95 % intervals over {config.seeds} seeds"
        + left_out(dataset)
    )
    return figure


_SHORT = {"train_lengths": (4, 16, 32), "test_lengths": (4, 16, 32, 64, 128)}
LENGTH = Experiment(
    name="length",
    question="Which position schedule extrapolates to contexts far longer than those of training?",
    caption=(
        "Left: mean squared error of trained position schedules by context length, trained in the "
        "grey range, between uniform attention and the exact posterior mean. Middle: the learned "
        "tau(n) beside the best temperature of each length. Right: effective support of the "
        "attention row. Means and 95 % intervals over seeds."
    ),
    config=LengthConfig,
    train=train_cell,
    seeds_per_block=cells_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={
        "smoke": QUICK | _SHORT | {"contexts": 16, "steps": 40, "cooldown_steps": 10},
        "large": {"seeds": 512, "contexts": 512, "held_out": 16},
    },
    dimensions={"tau": "inverse temperature of the curves"},
)
