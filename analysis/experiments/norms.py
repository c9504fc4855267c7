"""Are norms smaller, and rows spikier, with a query temperature, at equal steps and at equal loss?"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from analysis.store.config import TrainingConfig
from analysis.experiments.base import Experiment, Progress
from analysis.experiments.norms_claims import judge
from analysis.experiments.norms_figure import draw
from analysis.fitting import FITTED, block_size, check_result_fits, exact_problem, fit
from analysis.problems.measures import effective_support, gini, hoyer, singular_values, token_norm, zero_fraction
from analysis.claims.statistics import mean_band
from ssa_theory import SingleLayerAttention, Tokens, Variant, resolve_device
from tasks import MarkovGraphTask, graph_from_family, text_from_file


class NormsConfig(TrainingConfig):
    """Learn transition matrices with and without a query temperature; compare what the models are made of."""

    nodes: int = Field(8, ge=4, le=512, description="number of nodes K of the ring")
    dim: int = Field(4, ge=1, le=512, description="embedding dimension d on the ring")
    steps: int = Field(200, ge=1, le=1_000_000, description="training steps on the ring")
    letters_dim: int = Field(12, ge=1, le=512, description="embedding dimension d on the letters of English text")
    letters_steps: int = Field(250, ge=0, le=1_000_000, description="training steps on the letters; 0: skip them")
    variants: tuple[Variant, ...] = Field(
        ("vanilla", "ssa", "ssa-free"), description="models to train; vanilla is the peer"
    )
    learning_rate: float = Field(0.05, gt=0, description="step size of Adam")

    @model_validator(mode="after")
    def _consistent(self) -> "NormsConfig":
        if len(set(self.variants)) != len(self.variants) or "vanilla" not in self.variants or len(self.variants) < 2:
            raise ValueError(
                f"variants must be vanilla, the peer, and at least one other, each once, got {self.variants}: list them so"
            )
        return self


COMPARISONS = ("steps", "loss")
PROGRESS = (0.5, 0.75, 0.9, 0.95, 0.99)  # shares of the slowest model's progress at which the norm is drawn
# The one of the common loss: where a model stalls its norm still grows, which would count against it.
COMMON_PROGRESS = 0.9
_TOKEN = {
    "token_norm": "||W^T e_i||, how far the query map stretches each token",
    "inverse_temperature": "learned tau of each token",
    "logit_scale": "tau_i ||W^T e_i||, the effective logit scale of each token",
    "effective_support": "exp(entropy) of each learned row: its effective number of next tokens",
    "row_max": "largest probability of each learned row",
    "row_hoyer": "Hoyer's measure of each learned row: 0 uniform, 1 for one next token",
    "row_gini": "Gini coefficient of each learned row: 0 uniform, 1 - 1/K for one next token",
    "zero_share": "share of exact zeros in each learned row",
}
_MODEL = {
    "weight_norm": "spectral norm ||W||_2",
    "weight_frobenius_norm": "Frobenius norm ||W||_F",
    "weight_nuclear_norm": "nuclear norm ||W||_*",
    "weight_stable_rank": "||W||_F^2 / ||W||_2^2, how many directions carry the norm",
}
_MEAN = {
    "mean_token_norm": "mean over tokens of token_norm",
    "mean_logit_scale": "mean over tokens of logit_scale",
    "sharp_support": "mean effective_support of the quarter of rows whose target is sharpest",
    "blunt_support": "mean effective_support of the quarter of rows whose target is bluntest",
}
_WHERE = "at the last step (comparison steps), or where the model first reaches the common loss (comparison loss)"
_OTHER = {
    **{name: FITTED[name][1] for name in ("diverged", "underflow", "rank_deficient")},
    "cross_entropy_gap": "cross-entropy above that of the Bayes predictor at the recorded steps (nats)",
    "weight_norm_by_step": "spectral norm ||W||_2 at the recorded steps",
    "weight_norm_by_progress": "spectral norm ||W||_2 where the model first reaches the loss at which the slowest model of its "
    "seed has made that share of its progress",
    "step": "the recorded steps, denser at the start",
    "common_loss": f"cross-entropy gap (nats) at which the seed's slowest model has made {COMMON_PROGRESS:g} of its progress; "
    "NaN: see `unmatched`",
    "common_loss_step": "step at which the model first reaches the common loss, interpolated between recorded steps",
    "unmatched": "whether the seed has no common loss: a model diverged, or ended no better than it began",
    "target_support": "exp(entropy) of each row of P*: its effective number of next tokens",
    "row_group": "sharp (the quarter of rows of least target_support), blunt (that of most), or middle",
    "label": "the name of each token",
}


def _settings(config: NormsConfig) -> list[tuple[str, MarkovGraphTask, int, int]]:
    """Name, chain, embedding dimension and steps of each setting."""
    settings = [("graded", MarkovGraphTask.from_graph(graph_from_family("graded", config.nodes)), config.dim, config.steps)]
    if config.letters_steps:
        letters = MarkovGraphTask.from_text(text_from_file())
        settings.append(("letters", letters, config.letters_dim, config.letters_steps))
    return settings


def seeds_per_block(config: NormsConfig) -> int:
    """By the memory of one seed in the largest setting."""
    sizes = [_numbers_per_seed(task.nodes, dim, steps) for _, task, dim, steps in _settings(config)]
    check_result_fits(config.seeds * len(config.variants) * sum(sizes))
    return block_size(config, 8 * max(sizes))


def train(config: NormsConfig, progress: Progress) -> xr.Dataset:
    """Train every variant on every seed and setting; measure weights and rows at equal steps and at equal loss."""
    device, settings = resolve_device(config.device), _settings(config)
    total = sum(steps for *_, steps in settings) * len(config.variants)
    advance = progress(f"training {config.seeds} seeds x {len(config.variants)} variants", total)
    parts = [_run_setting(config, *setting[1:], device, advance) for setting in settings]
    names = xr.DataArray([name for name, *_ in settings], dims="setting", name="setting")
    blank = {"label": "", "row_group": ""}  # settings of fewer tokens are filled up
    return xr.concat(parts, dim=names, join="outer", fill_value=blank)


def summarise(config: NormsConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add descriptions, and what the figure shows: means with 95 % intervals over seeds."""
    for name, about in (_TOKEN | _MODEL | _MEAN).items():
        dataset[name].attrs["description"] = f"{about}; {_WHERE}"
        if name in _MEAN or name == "weight_norm":
            dataset[f"{name}_band"] = mean_band(dataset[name])
    for name, about in _OTHER.items():
        dataset[name].attrs["description"] = about
    for name in ("effective_support", "weight_norm_by_progress"):
        dataset[f"{name}_band"] = mean_band(dataset[name])
    return dataset


def _numbers_per_seed(nodes: int, dim: int, steps: int) -> int:
    """Floats that one seed of one variant needs, counted generously: logits with their gradients, and the recorded measures."""
    training = 16 * nodes * nodes + 4 * nodes * dim * max(nodes, dim)
    return training + 2 * len(_recorded(steps)) * len(_TOKEN) * nodes


def _recorded(steps: int) -> np.ndarray:
    """At most 41 steps, dense at the start, where loss and norm move fast."""
    return np.unique(np.rint(steps * np.linspace(0, 1, 41) ** 2).astype(int))


def _run_setting(
    config: NormsConfig,
    task: MarkovGraphTask,
    dim: int,
    steps: int,
    device: torch.device,
    advance: Callable[[int], None],
) -> xr.Dataset:
    """One setting's part of the result."""
    fitted = [
        _fit(config, variant, task, config.seed_range, dim, steps, device, advance) for variant in config.variants
    ]
    values = {name: np.stack([f[name] for f in fitted]) for name in fitted[0]}

    gap = values["cross_entropy_gap"]
    step = _recorded(steps).astype(float)
    level, place = common_loss(gap, COMMON_PROGRESS)
    norm = values["weight_norm_by_step"]
    by_progress = [interpolate(norm, common_loss(gap, share)[1]) for share in PROGRESS]
    dataset = xr.Dataset(
        {
            **{name: (("variant", "seed"), values[name]) for name in ("diverged", "underflow", "rank_deficient")},
            "cross_entropy_gap": (("variant", "seed", "record"), gap),
            "weight_norm_by_step": (("variant", "seed", "record"), norm),
            "weight_norm_by_progress": (("variant", "seed", "progress"), np.stack(by_progress, axis=-1)),
            "step": ("record", step),
            "common_loss": ("seed", level),
            "common_loss_step": (("variant", "seed"), interpolate(np.broadcast_to(step, gap.shape), place)),
            "unmatched": ("seed", np.isnan(level)),
            "target_support": ("node", np.exp(task.row_entropy)),
            "row_group": ("node", row_groups(task.row_entropy)),
            "label": ("node", list(task.labels)),
        },
        coords={
            "variant": list(config.variants),
            "seed": list(config.seed_range),
            "node": np.arange(task.nodes),
            "record": np.arange(gap.shape[-1]),
            "comparison": list(COMPARISONS),
            "progress": list(PROGRESS),
        },
    )
    for name in (*_MODEL, *_TOKEN):
        by_step = values[f"{name}_by_step"]
        both = np.stack([by_step[:, :, -1], interpolate(by_step, place)], axis=-1)
        dataset[name] = (("variant", "seed", *(("node",) if name in _TOKEN else ()), "comparison"), both)
    for name in ("token_norm", "logit_scale"):
        dataset[f"mean_{name}"] = dataset[name].mean("node", skipna=False)
    for group in ("sharp", "blunt"):
        rows = dataset["effective_support"].isel(node=dataset["row_group"].values == group)
        dataset[f"{group}_support"] = rows.mean("node", skipna=False)
    return dataset


def _fit(
    config: NormsConfig,
    variant: Variant,
    task: MarkovGraphTask,
    seeds: Sequence[int],
    dim: int,
    steps: int,
    device: torch.device,
    advance: Callable[[int], None],
) -> dict[str, np.ndarray]:
    """Train one variant and measure it at the recorded steps."""
    tokens, exact = exact_problem(task, dim, seeds, device)
    model = SingleLayerAttention(variant)
    return fit(
        model,
        tokens,
        exact.target,
        exact,
        seeds,
        dtype=config.dtype,
        steps=steps,
        learning_rate=config.learning_rate,
        compile=config.compile,
        record=_recorded(steps),
        measure=lambda parameters: _measure(model, parameters, tokens),
        progress=advance,
    )


def _measure(model: SingleLayerAttention, parameters: dict[str, Tensor], tokens: Tokens) -> dict[str, Tensor]:
    """The measures of `_MODEL` (member,) and `_TOKEN` (node, member)."""
    weight, tau = parameters["weight"], model.inverse_temperature(parameters, tokens)
    row, norm = model.logits(parameters, tokens).softmax(1), token_norm(weight, tokens.embeddings)
    values = singular_values(weight)
    square = values.square().sum(0)
    return {
        "weight_norm": values[0],
        "weight_frobenius_norm": square.sqrt(),
        "weight_nuclear_norm": values.sum(0),
        "weight_stable_rank": square / values[0].square(),
        "token_norm": norm,
        "inverse_temperature": tau,
        "logit_scale": tau * norm,
        "effective_support": effective_support(row, dim=1),
        "row_max": row.amax(1),
        "row_hoyer": hoyer(row, dim=1),
        "row_gini": gini(row, dim=1),
        "zero_share": zero_fraction(row, dim=1),
    }


def common_loss(
    gap: Float[np.ndarray, "variant seed record"], progress: float
) -> tuple[Float[np.ndarray, " seed"], Float[np.ndarray, "variant seed"]]:
    """The common loss of each seed, and the place among the records at which each model first reaches it.

    The common loss is the one at which the slowest model of the seed, that of the largest final loss, has made the share
    `progress` of its way down from its first loss; the others end lower, so all models reach it. The place lies between two
    records, linear in the loss. Both are NaN for a seed in which a model diverged (NaN), or the slowest ended no better than
    some model began: nothing is learned at such a loss that could be compared.
    """
    first, final = gap[:, :, 0].min(0), gap[:, :, -1].max(0)
    level = np.where(final < first, first - progress * (first - final), np.nan)
    after = np.maximum((gap <= level[:, None]).argmax(-1), 1)[..., None]
    high, low = (np.take_along_axis(gap, after - back, -1)[..., 0] for back in (1, 0))
    return level, after[..., 0] - (level - low) / (high - low)


def interpolate(
    values: Float[np.ndarray, "variant seed record *rest"], place: Float[np.ndarray, "variant seed"]
) -> Float[np.ndarray, "variant seed *rest"]:
    """values at a place between two records, linearly; NaN where the place is NaN."""
    last = values.shape[2] - 1
    before = np.clip(np.nan_to_num(np.floor(place)).astype(int), 0, last - 1)
    variant, seed = np.indices(place.shape)
    share = (place - before).reshape(place.shape + (1,) * (values.ndim - 3))
    return (1 - share) * values[variant, seed, before] + share * values[variant, seed, before + 1]


def row_groups(row_entropy: Float[np.ndarray, " node"]) -> np.ndarray:
    """sharp for the quarter of rows of least entropy, blunt for the quarter of most, middle between. Needs 4 rows."""
    quarter = len(row_entropy) // 4
    order = np.argsort(row_entropy, kind="stable")
    groups = np.full(len(row_entropy), "middle")
    groups[order[:quarter]], groups[order[-quarter:]] = "sharp", "blunt"
    return groups


NORMS = Experiment(
    name="norms",
    question="Is the norm distribution of W and of tokens smaller, and the attention spikier, with a query temperature?",
    caption="Rows: a ring of mixed degree and the letters of English text, each after equal steps and at equal loss, where each "
    "model first reaches the loss at which the slowest model of its seed has made nine tenths of its progress. Columns: "
    "distributions of the spectral norm of W over models, and of the token norm ||W^T e_i|| and the effective logit scale "
    "tau_i ||W^T e_i|| over the tokens of all models (extremes in the outer bins), dashed lines at the means, marks above with "
    "their 95 % intervals over seeds; effective support exp(entropy) of each learned row against that of its target, means with "
    "95 % intervals; and the norm of W by the share of the slowest model's progress. A softmax row is spiky, never sparse.",
    config=NormsConfig,
    train=train,
    seeds_per_block=seeds_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={
        "smoke": {"seeds": 4, "steps": 60, "letters_steps": 20},
        "paper": {"seeds": 128},
        "large": {"seeds": 1024},
    },
)
