"""What norm does each need as twin tokens approach each other?"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from pydantic import Field, model_validator

from analysis.claims.claim import Claim
from analysis.store.config import TrainingConfig
from analysis.experiments.base import Experiment, Progress
from analysis.draw.figures import STYLE, draw_band, draw_points, left_out, new_figure
from analysis.fitting import FITTED, block_size, check_result_fits, fit, record_steps, stack_members
from analysis.claims.statistics import Estimate, mean, mean_band, ratio, slopes
from ssa_theory import (
    Queries,
    SingleLayerAttention,
    Stream,
    Tokens,
    Variant,
    member_generator,
    minimal_norm,
    norm_lower_bound,
    resolve_device,
)
from tasks import TwinTokenTask

THEORIES = ("vanilla", "selective")


class TwinsConfig(TrainingConfig):
    """Pairs of twin tokens that rank the same targets with different sharpness; sweep the angle between them."""

    pairs: int = Field(4, ge=2, le=64, description="number of twin pairs; the vocabulary has twice as many tokens")
    dim: int = Field(
        12,
        ge=2,
        le=256,
        description="embedding dimension d; at least twice the pairs, so that every map is realisable",
    )
    angles: tuple[float, ...] = Field(
        (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001),
        description="angles between twins in radians, each in (0, pi/2]",
    )
    shown_angle: float = Field(0.1, description="the angle (one of angles) at which the learning curves are drawn")
    beta_general: float = Field(0.5, gt=0, description="sharpness of the base token of a pair")
    beta_specific: float = Field(4.0, gt=0, description="sharpness of its twin")
    max_inverse_temperature: float = Field(2.0, gt=0, description="largest tau allowed to both minimal-norm solutions")
    variants: tuple[Variant, ...] = Field(("vanilla", "ssa", "ssa-free"), description="models to train")
    learning_rate: float = Field(0.05, gt=0, description="step size of Adam")
    steps: int = Field(1000, ge=1, le=10_000_000, description="training steps")

    @model_validator(mode="after")
    def _consistent(self) -> "TwinsConfig":
        wrong = [a for a in self.angles if not 0 < a <= np.pi / 2]
        if wrong or not self.angles:
            raise ValueError(
                f"angles must lie in (0, pi/2] radians, got {wrong or 'none'}: choose values in that range"
            )
        if self.shown_angle not in self.angles:
            raise ValueError(
                f"shown_angle must be one of the angles {self.angles}, got {self.shown_angle}: choose one of them"
            )
        if self.dim < 2 * self.pairs:
            raise ValueError(
                f"dim must be at least twice the pairs for every map to be realisable, got dim={self.dim} for "
                f"{self.pairs} pairs: raise dim"
            )
        self.require_distinct("variants", "angles")
        if "ssa-degree" in self.variants:
            raise ValueError(
                "twins have no out-degree, so variant ssa-degree means nothing here: drop it from variants"
            )
        return self


def seeds_per_block(config: TwinsConfig) -> int:
    """By the memory of one seed at all angles: logits and their gradients."""
    nodes, settings = 2 * config.pairs, len(config.angles)
    check_result_fits(config.seeds * settings * nodes**2 * (1 + len(config.variants)))
    numbers = 16 * nodes * nodes + nodes * config.dim * max(nodes, config.dim)
    return block_size(config, 8 * settings * numbers, settings)


def train(config: TwinsConfig, progress: Progress) -> xr.Dataset:
    """Closed-form norms and trained models for every seed and angle."""
    device, settings = resolve_device(config.device), len(config.angles)
    cells = [(s, a) for s in config.seed_range for a in config.angles]
    advance = progress("twin tasks: minimal norms and lower bounds", len(cells))
    tasks, theory = [], []
    for seed, angle in cells:
        tasks.append(_task(config, seed, angle))
        theory.append(_closed_form(tasks[-1], config.max_inverse_temperature))
        advance(1)

    advance = progress(
        f"training {len(tasks)} tasks x {len(config.variants)} variants",
        config.steps * len(config.variants),
    )
    fitted = [_fit(config, v, tasks, [s for s, _ in cells], device, advance) for v in config.variants]

    dataset = xr.Dataset(
        coords={
            "variant": list(config.variants),
            "theory": list(THEORIES),
            "seed": list(config.seed_range),
            "angle": list(config.angles),
            "step": record_steps(config.steps),
        }
    )
    dataset["angle"].attrs["units"] = "radian"
    for name, (dims, about) in _CLOSED_FORM.items():
        values = np.stack([t[name] for t in theory])
        values = values.reshape(config.seeds, settings, *values.shape[1:])
        dataset[name] = (("seed", "angle", *dims), values, {"description": about})
    for name, (dims, about) in (FITTED | _BOUND).items():
        values = np.stack([f[name] for f in fitted])
        values = values.reshape(len(config.variants), config.seeds, settings, *values.shape[2:])
        dataset[name] = (("variant", "seed", "angle", *dims), values, {"description": about})
    # (W, tau) and (s W, tau / s) give the same attention: a norm is compared at the same largest tau.
    capped = dataset["weight_norm"] * dataset["inverse_temperature"].max("node") / config.max_inverse_temperature
    about = "||W||_2 after scaling W up and tau down until the largest tau is max_inverse_temperature"
    return dataset.assign(capped_weight_norm=capped.assign_attrs(description=about))


def summarise(config: TwinsConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add what the figure shows: means with 95 % intervals over seeds."""
    for name in ("minimal_norm", "norm_lower_bound", "weight_norm", "capped_weight_norm", "cross_entropy_gap"):
        dataset[f"{name}_band"] = mean_band(dataset[name])
    return dataset


_CLOSED_FORM = {
    "target": (
        ("node", "next"),
        "the target attention of every token (probability); base tokens first, then their twins",
    ),
    "minimal_norm": (
        ("theory",),
        "spectral norm ||W||_2 of the W of least Frobenius norm that realises the target",
    ),
    "unsolved": (("theory",), "whether that minimum was not found; its norm is then NaN"),
    "minimal_inverse_temperature": (
        ("theory", "node"),
        "tau of each row in that solution, at most max_inverse_temperature",
    ),
    "norm_lower_bound": (("theory",), "least spectral norm of any W that realises the target at those tau"),
}
_BOUND = {
    "learned_norm_lower_bound": (
        (),
        "least spectral norm of any W that gives the learned attention at the learned tau",
    ),
}
_LEAST_TAU = 1e-6  # below this a row is uniform to rounding and log A / tau is noise: no bound is computed


def _task(config: TwinsConfig, seed: int, angle: float) -> TwinTokenTask:
    return TwinTokenTask.sample(
        pairs=config.pairs,
        dim=config.dim,
        angle=angle,
        generator=member_generator(seed, Stream.EMBEDDING),
        beta_general=config.beta_general,
        beta_specific=config.beta_specific,
    )


def _closed_form(task: TwinTokenTask, max_inverse_temperature: float) -> dict[str, np.ndarray]:
    solutions = [
        minimal_norm(task.embeddings, task.target, max_inverse_temperature, name == "selective") for name in THEORIES
    ]
    bounds = [norm_lower_bound(task.embeddings, task.target, s.inverse_temperature) for s in solutions]
    return {
        "target": task.target,
        "minimal_norm": np.array([s.spectral_norm if s.converged else np.nan for s in solutions]),
        "unsolved": np.array([not s.converged for s in solutions]),
        "minimal_inverse_temperature": np.stack([s.inverse_temperature for s in solutions]),
        "norm_lower_bound": np.array(bounds),
    }


def _fit(
    config: TwinsConfig,
    variant: Variant,
    tasks: Sequence[TwinTokenTask],
    seeds: Sequence[int],
    device: torch.device,
    advance: Callable[[int], None],
) -> dict[str, np.ndarray]:
    """Train one variant on every task and bound the norm of what it learned."""
    embeddings = stack_members([t.embeddings for t in tasks], device)
    target = stack_members([t.target for t in tasks], device)
    nodes = len(embeddings)
    degree = torch.full((nodes, len(tasks)), nodes, device=device)
    weight = torch.full((nodes, len(tasks)), 1 / nodes, dtype=torch.float64, device=device)
    found = fit(
        SingleLayerAttention(variant),
        Tokens(embeddings, degree, nodes),
        target,
        Queries(target, weight),
        seeds,
        dtype=config.dtype,
        steps=config.steps,
        learning_rate=config.learning_rate,
        compile=config.compile,
        progress=advance,
    )
    bounds = [
        norm_lower_bound(task.embeddings, learned, tau) if (tau > _LEAST_TAU).all() and (learned > 0).all() else np.nan
        for task, learned, tau in zip(
            tasks, found["learned_transition_matrix"], found["inverse_temperature"], strict=True
        )
    ]
    return found | {"learned_norm_lower_bound": np.array(bounds)}


def draw(config: TwinsConfig, dataset: xr.Dataset) -> Figure:
    """Draw a stored result; nothing is trained or estimated here."""
    figure = new_figure(11.0, 5.0)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    angle = dataset["angle"].values
    order = np.argsort(angle)
    shades = {"vanilla": STYLE["vanilla"]["color"], "selective": STYLE["ssa"]["color"]}
    for theory in THEORIES:
        for name, style, label in (
            ("norm_lower_bound", ":", "lower bound"),
            ("minimal_norm", "-", "minimal norm"),
        ):
            band = dataset[f"{name}_band"].sel(theory=theory).isel(angle=order)
            values = {e: band.sel(estimate=e).values for e in ("value", "low", "high")}
            left.plot(angle[order], values["value"], style, color=shades[theory], label=f"{label}, {theory}")
            left.fill_between(
                angle[order], values["low"], values["high"], color=shades[theory], alpha=0.15, linewidth=0
            )
    for v in dataset["variant"].values:
        draw_points(left, angle, dataset["capped_weight_norm_band"].sel(variant=v), v)
        draw_band(
            right,
            dataset["step"].values,
            dataset["cross_entropy_gap_band"].sel(variant=v, angle=config.shown_angle),
            v,
        )
    left.set(
        xscale="log",
        yscale="log",
        xlabel="angle between twins (radian)",
        ylabel="spectral norm of W",
        title=f"norm with the largest tau at {config.max_inverse_temperature:g}: closed forms (lines), trained (points)\n"
        "a vanilla point below its lower bound does not realise the target",
    )
    right.set(
        yscale="log",
        xlabel="training step",
        ylabel="cross-entropy gap to the target (nats)",
        title=f"learning at angle {config.shown_angle:g}",
    )
    handles, labels = left.get_legend_handles_labels()
    names = [f"{name}, trained" if name in STYLE else name for name in labels]
    left.legend(handles, names, fontsize=8)
    right.legend()
    figure.suptitle(
        f"{config.pairs} pairs of twins, d = {config.dim}, sharpness {config.beta_general:g} and "
        f"{config.beta_specific:g}, adam {config.learning_rate:g}, {config.steps} steps; "
        f"means and 95 % intervals over {config.seeds} seeds" + left_out(dataset)
    )
    return figure


def judge(config: TwinsConfig, dataset: xr.Dataset) -> list[Claim]:
    """The ledger lines. Thresholds are fixed here, before any run."""
    asked, small = config.seeds, dataset["angle"].values <= 0.03
    lines = []

    def add(
        key: str,
        sentence: str,
        statistic: str,
        relation: str,
        threshold: float,
        estimate: Estimate,
        **parts: Estimate,
    ) -> None:
        source = "paper, expressivity proposition (sharp form: twin tokens)"
        lines.append(Claim(f"twins-{key}", sentence, source, statistic, relation, threshold, estimate, asked, parts))

    if small.sum() >= 2:
        log_angle = np.log(dataset["angle"].values[small])
        for theory, wanted, sentence in (
            ("vanilla", -1, "vanilla's minimal norm grows as 1 / angle"),
            ("selective", 0, "the minimal norm with selective temperatures stays bounded"),
        ):
            log_norm = np.log(dataset["minimal_norm"].sel(theory=theory).transpose("seed", "angle").values[:, small])
            slope = slopes(log_angle, log_norm)
            statistic = f"mean |slope - ({wanted})| of log minimal norm on log angle, angles <= 0.03"
            add(
                f"slope-{theory}",
                sentence,
                statistic,
                "<",
                0.05,
                mean(np.abs(slope - wanted)),
                slope=mean(slope),
            )

    worst = [
        (dataset["norm_lower_bound"] / dataset["minimal_norm"]).max(("angle", "theory")).values,
        (dataset["learned_norm_lower_bound"] / dataset["weight_norm"]).max(("angle", "variant")).values,
    ]
    largest = float(np.nanmax(worst))
    add(
        "lower-bound",
        "no minimal and no learned norm is below the lower bound at the same temperatures",
        "largest lower bound / norm over all seeds, angles, closed forms and trained models",
        "<",
        1 + 1e-6,
        Estimate(largest, largest, largest, int(np.isfinite(worst).all(0).sum()), "exact inequality, worst case"),
    )
    at = dataset.sel(angle=config.shown_angle)
    if "vanilla" in dataset["variant"]:
        for variant in (v for v in dataset["variant"].values if v != "vanilla"):
            for key, name, what in (
                ("gap", "cross_entropy_gap", "lower cross-entropy"),
                ("norm", "weight_norm", "smaller spectral norm"),
                ("capped-norm", "capped_weight_norm", "smaller spectral norm, both at the same largest tau,"),
            ):
                series = at[name].isel(step=-1) if "step" in at[name].dims else at[name]
                x, y = series.sel(variant=variant).values, series.sel(variant="vanilla").values
                sentence = f"{variant}: {what} than vanilla at angle {config.shown_angle:g} after {config.steps} steps"
                statistic = f"ratio of means over seeds, {variant} / vanilla, of {name}"
                add(
                    f"{key}-{variant}",
                    sentence,
                    statistic,
                    "<",
                    1.0,
                    ratio(x, y),
                    **{variant: mean(x), "vanilla": mean(y)},
                )
    return lines


TWINS = Experiment(
    name="twins",
    question="What norm does each need as twin tokens approach each other?",
    caption=(
        "Left: spectral norm of W against the angle between twin tokens, all with the same largest tau: minimal norms "
        "and lower bounds in closed form (lines), trained models (points). Right: cross-entropy above the target by "
        "training step at one angle. Means and 95 % intervals over seeds."
    ),
    config=TwinsConfig,
    train=train,
    seeds_per_block=seeds_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={"smoke": {"seeds": 4, "steps": 60}, "large": {"seeds": 1024}},
)
