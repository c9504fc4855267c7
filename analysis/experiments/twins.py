"""What norm does each need as twin tokens approach each other?"""

from dataclasses import replace

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from pydantic import Field

from analysis.claims.bands import mean_band
from analysis.claims.builder import Lines
from analysis.claims.claim import Claim
from analysis.claims.statistics import mean, slopes
from analysis.draw.figures import (
    draw_band,
    draw_each,
    draw_points,
    label_axes,
    left_out,
    new_figure,
)
from analysis.experiments.base import Experiment, Progress
from analysis.experiments.mechanisms import Mechanisms, chosen
from analysis.experiments.settings import Cell, CellsConfig, cells_per_block, train_cell
from analysis.problems.grid import Grid
from analysis.problems.sizes import check_result_fits
from analysis.problems.twins import THEORIES, TwinsProblem
from ssa_theory.mechanism import VANILLA


class TwinsConfig(CellsConfig):
    """Pairs of twin tokens that rank the same targets with different sharpness; sweep the angle
    between them.
    """

    pairs: int = Field(
        4, ge=2, le=64, description="number of twin pairs; the vocabulary has twice as many tokens"
    )
    dim: int = Field(
        12,
        ge=2,
        le=256,
        description="embedding dimension d; at least twice the pairs, so that every map is "
        "realisable",
    )
    angles: tuple[float, ...] = Field(
        (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001),
        description="angles between twins in radians, each in (0, pi/2]",
    )
    shown_angle: float = Field(
        0.1, description="the angle (one of angles) at which the learning curves are drawn"
    )
    beta_general: float = Field(0.5, gt=0, description="sharpness of the base token of a pair")
    beta_specific: float = Field(4.0, gt=0, description="sharpness of its twin")
    max_inverse_temperature: float = Field(
        2.0, gt=0, description="largest tau allowed to both minimal-norm solutions"
    )
    mechanisms: Mechanisms = Field(
        ("vanilla", "ssa", "ssa-free"), description="mechanisms to train"
    )
    steps: int = Field(1000, ge=1, le=10_000_000, description="training steps")

    def check(self) -> None:
        wrong = [a for a in self.angles if not 0 < a <= np.pi / 2]
        if wrong or not self.angles:
            raise ValueError(
                f"angles must lie in (0, pi/2] radians, got {wrong or 'none'}: choose values in "
                "that range"
            )
        self.require_listed("shown_angle", "angles")
        if self.dim < 2 * self.pairs:
            raise ValueError(
                "dim must be at least twice the pairs for every map to be realisable, got "
                f"dim={self.dim} for {self.pairs} pairs: raise dim"
            )
        self.require_distinct("angles")
        super().check()

    @property
    def problem(self) -> TwinsProblem:
        """At the shown angle."""
        return self.build(TwinsProblem, {"angle": self.shown_angle})

    @property
    def cells(self) -> list[Cell[Grid]]:
        """All angles in one program."""
        problems = tuple(replace(self.problem, angle=angle) for angle in self.angles)
        grid = Grid("angle", self.angles, problems)
        return [Cell("", grid, self.training_of(self.steps), chosen(self.mechanisms))]


_BANDS = (
    *("minimal_norm", "norm_lower_bound"),
    *("weight_norm", "capped_weight_norm", "cross_entropy_gap"),
)


def seeds_per_block(config: TwinsConfig) -> int:
    """By the memory of one seed at all angles."""
    nodes, angles, models = 2 * config.pairs, len(config.angles), len(config.mechanisms)
    check_result_fits(config.seeds * angles * nodes**2 * (1 + models))
    return cells_per_block(config)


def summarise(config: TwinsConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add what the figure shows: means with 95 % intervals over seeds."""
    dataset["angle"].attrs["units"] = "radian"
    return dataset.assign({f"{name}_band": mean_band(dataset[name]) for name in _BANDS})


def draw(config: TwinsConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    figure = new_figure(11.0, 5.0)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    angle, order = dataset["angle"].values, np.argsort(dataset["angle"].values)
    for theory, peer in zip(THEORIES, (VANILLA, "ssa"), strict=True):
        for name, line in (("norm_lower_bound", ":"), ("minimal_norm", "-")):
            band = dataset[f"{name}_band"].sel(theory=theory).isel(angle=order)
            label = f"{name.removeprefix('norm_').replace('_', ' ')}, {theory}"
            draw_band(left, angle[order], band, peer, linestyle=line, label=label)
    for name in dataset["mechanism"].values.tolist():
        band = dataset["capped_weight_norm_band"].sel(mechanism=name)
        draw_points(left, angle, band, name, label=f"{name}, trained")
    gap = dataset["cross_entropy_gap_band"].sel(angle=config.shown_angle)
    draw_each(draw_band, right, dataset["step"].values, gap)
    left.set(xscale="log", yscale="log")
    title = (
        f"norm with the largest tau at {config.max_inverse_temperature:g}: closed forms (lines), "
        "trained (points)\na vanilla point below its lower bound does not realise the target"
    )
    label_axes(left, "angle between twins (radian)", "spectral norm of W", title)
    right.set_yscale("log")
    title = f"learning at angle {config.shown_angle:g}"
    label_axes(right, "training step", "cross-entropy gap to the target (nats)", title)
    left.legend(fontsize=8)
    right.legend()
    figure.suptitle(
        f"{config.pairs} pairs of twins, d = {config.dim}, sharpness {config.beta_general:g} and "
        f"{config.beta_specific:g}, {config.adam}, {config.steps} steps; "
        f"means and 95 % intervals over {config.seeds} seeds" + left_out(dataset)
    )
    return figure


_SOURCE = "paper (arXiv 2411.12892), expressivity proposition, sharp form: twin tokens"
_SLOPES = (
    ("vanilla", -1, "vanilla's minimal norm grows as 1 / angle"),
    ("selective", 0, "the minimal norm with selective temperatures stays bounded"),
)


def judge(config: TwinsConfig, dataset: xr.Dataset) -> list[Claim]:
    """Norms, all with one largest tau: least and learned ones. Checks of the theory."""
    lines, names = Lines("twins", dataset.sizes["seed"]), dataset["mechanism"].values.tolist()
    least = dataset["minimal_norm"].sel(angle=dataset["angle"].min())
    pair = {theory: least.sel(theory=theory).values for theory in reversed(THEORIES)}
    lines.compare("twins", {"weights": "least, at the smallest angle"}, "norm", pair)
    at = dataset.sel(angle=config.shown_angle)
    norm, gap = at["capped_weight_norm"], at["cross_entropy_gap"].isel(step=-1)
    for name in (m for m in names if m != VANILLA and VANILLA in names):
        pair = {m: norm.sel(mechanism=m).values for m in (name, VANILLA)}
        parts = {f"{m}, gap (nats)": mean(gap.sel(mechanism=m).values) for m in pair}
        lines.compare("twins", {"weights": f"learned by {name}"}, "norm", pair, parts)

    small = dataset["angle"].values <= 0.03
    for theory, slope, sentence in _SLOPES if small.sum() >= 2 else ():
        norm = dataset["minimal_norm"].sel(theory=theory).transpose("seed", "angle")
        fitted = slopes(np.log(dataset["angle"].values[small]), np.log(norm.values[:, small]))
        statistic = f"mean |slope - ({slope})| of log minimal norm on log angle, angles <= 0.03"
        error, parts = mean(np.abs(fitted - slope)), {"slope": mean(fitted)}
        lines.check(f"slope-{theory}", sentence, statistic, "<", 0.05, error, parts, _SOURCE)
    closed = (dataset["norm_lower_bound"] / dataset["minimal_norm"]).max()
    learned = (dataset["learned_norm_lower_bound"] / dataset["weight_norm"]).max()
    sentence = "no minimal and no learned norm is below the lower bound at the same temperatures"
    what = "largest lower bound / norm over all seeds, angles, closed forms and trained models"
    largest = float(np.fmax(closed, learned))
    lines.check("lower-bound", sentence, what, "<", 1 + 1e-6, largest, source=_SOURCE)
    return lines.claims


TWINS = Experiment(
    name="twins",
    question="What norm does each need as twin tokens approach each other?",
    caption="Left: spectral norm of W against the angle between twin tokens, all with the same "
    "largest tau: minimal norms and lower bounds in closed form (lines), trained models (points). "
    "Right: cross-entropy above the target by training step at one angle. Means and 95 % intervals "
    "over seeds.",
    config=TwinsConfig,
    train=train_cell,
    seeds_per_block=seeds_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={
        "smoke": {"seeds": 4, "learning_rates": (0.06,), "steps": 60},
        "large": {"seeds": 1024},
    },
    dimensions={
        "theory": "whether temperatures may differ between tokens",
        "angle": "between the tokens of a pair (radian)",
    },
)
