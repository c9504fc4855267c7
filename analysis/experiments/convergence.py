"""How many steps to a given loss: does selective attention optimise faster, at its own best step size and at vanilla's?"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from analysis.store.config import TrainingConfig
from analysis.experiments.base import Experiment, Progress
from analysis.experiments.convergence_claims import CHOICES, judge, steps_ratio
from analysis.experiments.convergence_figure import draw
from analysis.fitting import block_size, check_result_fits, exact_problem
from analysis.claims.statistics import mean_band
from ssa_theory import (
    Queries,
    SingleLayerAttention,
    Stream,
    Tokens,
    Variant,
    cross_entropy,
    ensemble,
    member_generator,
    resolve_device,
)
from tasks import MarkovGraphTask, graph_from_family, text_from_file

_CURVE_POINTS = 16
_TIE = 1e-6  # steps that the whole initial gap is worth: decides between rates only where their steps are equal


class ConvergenceConfig(TrainingConfig):
    """Learn transition matrices at several learning rates; count the steps to fixed shares of the initial loss."""

    seeds: int = Field(
        88,
        ge=2,
        le=10_000_000,
        description="number of seeds; the first quarter chooses learning rates, the rest reports",
    )
    nodes: int = Field(8, ge=2, le=512, description="number of nodes K of the ring")
    dim: int = Field(4, ge=1, le=512, description="embedding dimension d on the ring")
    steps: int = Field(400, ge=1, le=1_000_000, description="training steps on the ring, the budget of every run")
    letters_dim: int = Field(12, ge=1, le=512, description="embedding dimension d on the letters of English text")
    letters_steps: int = Field(200, ge=0, le=1_000_000, description="training steps on the letters; 0: skip them")
    control_steps: int = Field(400, ge=0, le=1_000_000, description="training steps on the ring with d = K; 0: skip it")
    learning_rates: tuple[float, ...] = Field(
        (0.03, 0.1, 0.3, 1.0, 3.0), description="step sizes of Adam, each tried by every variant"
    )
    levels: tuple[float, ...] = Field(
        (0.75, 0.5, 0.25, 0.0625),
        description="losses to reach, as shares of the cross-entropy gap at initialisation, each in (0, 1)",
    )
    shown_level: float = Field(0.5, description="the level (one of levels) of the curves by learning rate and by step")
    variants: tuple[Variant, ...] = Field(
        ("vanilla", "ssa", "ssa-free"), description="models to train; vanilla is the peer"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "ConvergenceConfig":
        self.require_distinct("learning_rates", "levels")
        if wrong := [rate for rate in self.learning_rates if not rate > 0]:
            raise ValueError(f"learning_rates must be positive, got {wrong}: each is a step size")
        if wrong := [level for level in self.levels if not 0 < level < 1]:
            raise ValueError(f"levels must lie in (0, 1), got {wrong}: each is a share of the initial gap")
        if self.shown_level not in self.levels:
            raise ValueError(
                f"shown_level must be one of the levels {self.levels}, got {self.shown_level}: choose one of them"
            )
        if len(set(self.variants)) != len(self.variants) or "vanilla" not in self.variants or len(self.variants) < 2:
            raise ValueError(
                f"variants must be vanilla, the peer, and at least one other, each once, got {self.variants}: list them so"
            )
        return self

    @property
    def tuning_seeds(self) -> int:
        """How many seeds, the first ones, choose the learning rates and report nothing."""
        return max(1, self.seeds // 4)


_ABOUT = {
    "steps_to_level": "first step at which the cross-entropy gap is at most the level; the budget where the run never reaches "
    "it (right-censored), so that its mean is a restricted mean (steps)",
    "reached": "whether the run reached the level within the budget; a run whose loss was ever not finite reached none",
    "diverged": "whether the loss was ever not finite",
    "initial_gap": "cross-entropy above that of the Bayes predictor at initialisation (nats), of which levels are shares",
    "final_gap": "cross-entropy above that of the Bayes predictor after the last step (nats)",
    "gap_curve": "cross-entropy above that of the Bayes predictor (nats) at curve_step",
    "curve_step": "the steps of gap_curve",
    "budget": "training steps of every run of the setting",
    "best_learning_rate": "the learning rate of the least mean steps_to_level over the tuning seeds; between equals, as "
    "where no run reaches the level, the one of the lower final loss",
    "compared_steps": "steps_to_level at the variant's own best learning rate (choice own) or at vanilla's best (choice "
    "same); NaN for tuning seeds",
    "compared_reached": "whether that run reached the level; NaN for tuning seeds",
    "ratio": "ratio of restricted means of compared_steps over the reporting seeds, variant / vanilla, with its 95 % "
    "interval; NaN where no model of either reached the level",
}


def _settings(config: ConvergenceConfig) -> list[tuple[str, MarkovGraphTask, int, int]]:
    """Name, chain, embedding dimension and steps of each setting."""
    ring = MarkovGraphTask.from_graph(graph_from_family("graded", config.nodes))
    settings = [("graded", ring, config.dim, config.steps)]
    if config.letters_steps:
        letters = MarkovGraphTask.from_text(text_from_file())
        settings.append(("letters", letters, config.letters_dim, config.letters_steps))
    if config.control_steps:
        settings.append(("control", ring, config.nodes, config.control_steps))
    return settings


def seeds_per_block(config: ConvergenceConfig) -> int:
    """By the memory of one seed in the largest setting: logits and their gradients, and the loss of every step."""
    settings, rates = _settings(config), len(config.learning_rates)
    points = len(config.levels) * 2 + _CURVE_POINTS
    check_result_fits(len(settings) * config.seeds * len(config.variants) * rates * points)
    numbers = max(4 * task.nodes**2 * (4 + dim) + 2 * steps for _, task, dim, steps in settings)
    return block_size(config, 8 * rates * numbers, rates)


def train(config: ConvergenceConfig, progress: Progress) -> xr.Dataset:
    """Train every variant at every learning rate on every seed."""
    device, settings, rates = resolve_device(config.device), _settings(config), len(config.learning_rates)
    total = sum(steps for *_, steps in settings) * len(config.variants)
    advance = progress(f"training {config.seeds} seeds x {rates} rates x {len(config.variants)} variants", total)
    parts = []
    for _, task, dim, steps in settings:
        by_variant = [_train_variant(config, v, task, dim, steps, device, advance) for v in config.variants]
        part = xr.concat(by_variant, dim=xr.DataArray(list(config.variants), dims="variant", name="variant"))
        part["initial_gap"] = part["initial_gap"].isel(variant=0)  # temperatures start at 1: the same for all
        curve = _curve_steps(steps)
        part["curve_step"] = ("point", curve.astype(float))
        parts.append(part.assign(budget=float(steps)).assign_coords(point=np.arange(len(curve))))
    names = xr.DataArray([name for name, *_ in settings], dims="setting", name="setting")
    return xr.concat(parts, dim=names, join="outer")


def _curve_steps(steps: int) -> np.ndarray:
    """The steps at which the loss is stored: evenly spaced on a logarithmic axis."""
    return np.unique(np.rint(np.geomspace(1, steps, _CURVE_POINTS)).astype(int))


def _train_variant(
    config: ConvergenceConfig,
    variant: Variant,
    task: MarkovGraphTask,
    dim: int,
    steps: int,
    device: torch.device,
    advance: Callable[[int], None],
) -> xr.Dataset:
    """One variant at all learning rates."""
    seeds, kind = config.seed_range, getattr(torch, config.dtype)
    gap, diverged = gap_by_step(
        variant, task, dim, seeds, config.learning_rates, steps, kind, device, config.compile, advance
    )
    shape = (len(config.learning_rates), len(seeds), len(config.levels))
    taken, reached = np.empty(shape), np.empty(shape, dtype=bool)
    for i, level in enumerate(config.levels):
        taken[..., i], reached[..., i] = first_passage(gap, level * gap[0])
    taken[diverged], reached[diverged] = steps, False
    by_run = ("learning_rate", "seed")
    return xr.Dataset(
        {
            "steps_to_level": ((*by_run, "level"), taken),
            "reached": ((*by_run, "level"), reached),
            "diverged": (by_run, diverged),
            "initial_gap": ("seed", gap[0, 0]),
            "final_gap": (by_run, gap[-1]),
            "gap_curve": ((*by_run, "point"), np.moveaxis(gap[_curve_steps(steps)], 0, -1)),
        },
        coords={"learning_rate": list(config.learning_rates), "seed": list(seeds), "level": list(config.levels)},
    )


def gap_by_step(
    variant: Variant,
    task: MarkovGraphTask,
    dim: int,
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    steps: int,
    dtype: torch.dtype,
    device: torch.device,
    compile: bool = False,
    progress: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The cross-entropy gap in nats (step, rate, seed) after every step of Adam, 0 included, and what diverged (rate, seed).

    All learning rates are members of one ensemble. Adam's step does not depend on the scale of the gradient, so a parameter
    written as s phi, phi trained at the largest rate, moves as it would at s times that rate (but for Adam's epsilon, 1e-8).
    """
    rates = len(learning_rates)
    largest = max(learning_rates)
    tokens, exact = exact_problem(task, dim, seeds, device)
    embeddings = tokens.embeddings.to(dtype).repeat(1, 1, rates)
    working = Tokens(embeddings, tokens.degree.repeat(1, rates), tokens.keys)
    queries = Queries(exact.target.to(dtype).repeat(1, 1, rates), exact.weight.to(dtype).repeat(1, rates))
    scale = torch.tensor(learning_rates, dtype=torch.float64, device=device).repeat_interleave(len(seeds)) / largest
    model = SingleLayerAttention(variant)
    initial = model.initial_parameters(task.nodes, dim, [member_generator(s, Stream.PARAMETER) for s in seeds])
    repeated = {k: v.to(device).repeat(*[1] * (v.ndim - 1), rates) / scale for k, v in initial.items()}
    scale = scale.to(dtype)

    def loss(parameters: dict[str, Tensor], _: None = None) -> Tensor:
        return cross_entropy(model.logits({k: v * scale for k, v in parameters.items()}, working), queries)

    trained = ensemble.train(
        loss,
        {k: v.to(dtype) for k, v in repeated.items()},
        steps=steps,
        learning_rate=largest,
        compile=compile,
        measure=lambda parameters: {"loss": loss(parameters)},
        record=range(steps + 1),
        progress=progress,
    )
    bayes = float(task.row_weights("uniform") @ task.row_entropy)
    gap = trained.history["loss"].double().cpu().numpy() - bayes
    return gap.reshape(steps + 1, rates, -1), trained.diverged.cpu().numpy().reshape(rates, -1)


def first_passage(
    gap: Float[np.ndarray, " step *run"], level: Float[np.ndarray, "*#run"]
) -> tuple[Float[np.ndarray, "*run"], np.ndarray]:
    """The first step at which the gap is at most the level (the last step where it never is), and whether it ever is.

    A loss that is not finite reaches nothing.
    """
    with np.errstate(invalid="ignore"):
        below = gap <= level
    reached = below.any(0)
    return np.where(reached, below.argmax(0), len(gap) - 1).astype(float), reached


def summarise(config: ConvergenceConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Choose learning rates on the tuning seeds; add what is compared, and shown, on the others."""
    taken = dataset["steps_to_level"]
    final = dataset["final_gap"] / dataset["initial_gap"]
    tuned = taken + _TIE * final.fillna(1.0).clip(max=1.0)
    best = tuned.isel(seed=slice(config.tuning_seeds)).mean("seed").idxmin("learning_rate")
    dataset = dataset.assign_coords(reporting=("seed", np.arange(config.seeds) >= config.tuning_seeds))
    reporting = dataset["reporting"]
    rates = {"own": best, "same": best.sel(variant="vanilla", drop=True)}
    choice = xr.DataArray(list(CHOICES), dims="choice", name="choice")
    for name, source in (("compared_steps", taken), ("compared_reached", dataset["reached"].astype(float))):
        chosen = [source.sel(learning_rate=rates[c]).drop_vars("learning_rate") for c in CHOICES]
        dataset[name] = xr.concat(chosen, dim=choice).where(reporting)
    dataset["best_learning_rate"] = best
    others = [v for v in config.variants if v != "vanilla"]
    table = [
        [
            [[steps_ratio(dataset, c, s, v, level) for level in config.levels] for s in dataset["setting"].values]
            for v in others
        ]
        for c in CHOICES
    ]
    bounds = [[[[(e.value, e.low, e.high) for e in levels] for levels in s] for s in v] for v in table]
    dataset = dataset.assign_coords(other=others, estimate=["value", "low", "high"])
    dataset["ratio"] = (("choice", "other", "setting", "level", "estimate"), np.array(bounds))
    shown = best.sel(level=config.shown_level, drop=True)
    curve = dataset["gap_curve"].sel(learning_rate=shown).drop_vars("learning_rate").where(reporting)
    dataset["gap_curve_band"] = mean_band(curve)
    dataset["steps_by_rate_band"] = mean_band(taken.sel(level=config.shown_level, drop=True).where(reporting))
    for name, about in _ABOUT.items():
        dataset[name].attrs["description"] = about
    return dataset


CONVERGENCE = Experiment(
    name="convergence",
    question="How many steps to a given loss: does selective attention optimise faster?",
    caption="Columns: a ring of mixed degree, the letters of English text, and the control, the ring with d = K. Top: "
    "cross-entropy above Bayes by step, each variant at its own best learning rate for the level of the dotted line. Middle: "
    "restricted mean of the steps to that level by learning rate; a run that never reaches it counts as the budget (dotted). "
    "Bottom: ratio of restricted mean steps, variant / vanilla, to each level, at each variant's own best learning rate (large "
    "marks) and at vanilla's best (small); hollow marks: some run did not reach the level; no mark: none did. Learning rates are "
    "chosen on the first quarter of the seeds; means and 95 % intervals are over the rest.",
    config=ConvergenceConfig,
    train=train,
    seeds_per_block=seeds_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={
        "smoke": {"seeds": 4, "steps": 60, "letters_steps": 20, "control_steps": 60},
        "large": {"seeds": 512},
    },
)
