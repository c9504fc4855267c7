"""Which of the temperatures contributes? Every role and term switched on and off, on the tasks where it can matter.

Position schedules against one another (constant, YaRN, SSA and others) are the experiment `length`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from pydantic import Field, model_validator
from torch import Tensor

from analysis.store.config import TrainingConfig
from analysis.experiments.ablation_claims import judge
from analysis.experiments.ablation_figure import draw
from analysis.experiments.base import Experiment, Progress
from analysis.fitting import block_size, stack_members, train_with_cooldown
from analysis.claims.statistics import mean_band, ratio
from ssa_theory import Queries, Stream, Trained, cross_entropy, ensemble, member_generator, resolve_device
from ssa_theory.ablation_models import AblationLayer, Terms
from ssa_theory.denoising_models import squared_error
from tasks import DenoisingTask, MarkovGraphTask, text_from_file, unit_embeddings
from tasks.denoising import LONGEST_EXACT

_SHARED, _MLP = Terms("shared"), Terms("mlp")
_BOTH = Terms("mlp", position=True)
LETTERS: Mapping[str, AblationLayer] = {
    name: AblationLayer(**roles, value_map=False)
    for name, roles in {
        "vanilla": {},
        "constant": {"query": Terms("constant")},
        "position": {"query": Terms(None, position=True)},
        "query-frequency": {"query": Terms("feature")},
        "key-frequency": {"key": Terms("feature")},
        "query": {"query": _SHARED},
        "key": {"key": _SHARED},
        "query-key": {"query": _SHARED, "key": _SHARED},
        "query-mlp": {"query": _MLP},
        "query-key-mlp": {"query": _MLP, "key": _MLP},
    }.items()
}
"""Letters: tau = 1 + tanh f(x), f weight-shared where the name does not say otherwise."""
DENOISE: Mapping[str, AblationLayer] = {
    "vanilla": AblationLayer(),
    "query": AblationLayer(query=_BOTH),
    "key": AblationLayer(key=_BOTH),
    "value": AblationLayer(value=_BOTH),
    "query-key": AblationLayer(query=_BOTH, key=_BOTH),
    "query-value": AblationLayer(query=_BOTH, value=_BOTH),
    "key-value": AblationLayer(key=_BOTH, value=_BOTH),
    "query-key-value": AblationLayer(query=_BOTH, key=_BOTH, value=_BOTH),
    "query-value-token": AblationLayer(query=_MLP, value=_MLP),
    "query-value-position": AblationLayer(query=Terms(None, position=True), value=Terms(None, position=True)),
    "query-value-shared": AblationLayer(query=Terms("shared", position=True), value=Terms("shared", position=True)),
}
"""Denoising: tau = 1 + tanh f(x) + sigmoid(alpha) log n, f an own MLP, where the name does not say otherwise."""


class AblationConfig(TrainingConfig):
    """Leave temperatures out: on the bigrams of letters (query, key), and on denoising in growing contexts (all three)."""

    letters_dim: int = Field(12, ge=1, le=256, description="embedding dimension d of the 27 letters")
    letters_learning_rate: float = Field(0.05, gt=0, description="step size of Adam on letters")
    letters_steps: int = Field(600, ge=1, le=1_000_000, description="training steps on letters")
    train_lengths: tuple[int, ...] = Field(
        (4, 8, 12), description="context lengths of denoising, in turn; up to 14 the Bayes baseline is exact"
    )
    longer_length: int = Field(48, ge=2, le=512, description="longer context of the test, where Bayes is bracketed")
    bracket_samples: int = Field(1000, ge=2, le=1_000_000, description="samples of that bracket")
    denoise_learning_rate: float = Field(0.04, gt=0, description="step size of Adam on denoising")
    denoise_steps: int = Field(320, ge=1, le=1_000_000, description="denoising steps at the full step size")
    cooldown_steps: int = Field(80, ge=0, le=1_000_000, description="further steps at a tenth of the step size")
    batch_size: int = Field(32, ge=1, le=65536, description="fresh denoising samples a step")
    held_out: int = Field(256, ge=2, le=1_000_000, description="held-out denoising samples per seed")

    @model_validator(mode="after")
    def _consistent(self) -> "AblationConfig":
        lengths = self.train_lengths
        self.require_distinct("train_lengths")
        if wrong := [n for n in lengths if not 1 <= n <= LONGEST_EXACT]:
            raise ValueError(
                f"train_lengths must lie in [1, {LONGEST_EXACT}], where Bayes is exact, got {wrong[0]}: choose others"
            )
        if self.longer_length <= max(lengths):
            raise ValueError(
                f"longer_length must exceed the training lengths, got {self.longer_length} for {lengths}: raise it"
            )
        return self

    @property
    def test_lengths(self) -> list[int]:
        """The training lengths in order, then the longer one."""
        return [*sorted(self.train_lengths), self.longer_length]


_ABOUT = {
    "excess": "letters: cross-entropy above H* (nats); denoise: risk above Bayes (per coordinate), mean over train_lengths",
    "relative_excess": "mean excess over that of the part's vanilla attention, paired over seeds: 0 for Bayes, 1 for vanilla",
    "l1_error": "letters: L1 distance between learned and true rows, weighted by letter frequency; NaN: not letters",
    "relative_l1": "mean L1 error over that of vanilla attention, paired over seeds; NaN: not letters",
    "risk": "denoise: risk given the seed's held-out samples up to the training lengths, squared error on them beyond (per "
    "coordinate); NaN: not denoise",
    "held_out_bayes": "exact Bayes risk given the seed's held-out samples, its posterior variance; NaN: beyond train_lengths",
    "bayes_lower": "lower end of a 95 % interval of the Bayes risk; beyond the training lengths, of a certified bracket",
    "bayes_upper": "upper end of the same",
    "shrunk": "risk of the best multiple of the mean token, in closed form",
    "additive": "least risk of any sum of phi(x_i), by quadrature: bounds any value gate under uniform attention",
    "additive_relative_excess": "relative excess that the least risk of any sum of phi(x_i) would have",
    "entropy_rate": "H* of the letters, the cross-entropy of the true bigrams (nats)",
    "added_parameters": "parameters beyond those of the part's vanilla attention, counted",
    "diverged": "whether the loss was ever not finite; the model's other numbers are NaN",
}


def seeds_per_block(config: AblationConfig) -> int:
    """By the training data, and the tokens and hidden units of the longest evaluation, each with a copy."""
    dim = DenoisingTask().dim
    steps = config.denoise_steps + config.cooldown_steps
    numbers = steps * config.batch_size * max(config.train_lengths) * (dim + 1)
    numbers += config.held_out * config.longer_length * 5 * dim
    return block_size(config, 16 * numbers)


def train(config: AblationConfig, progress: Progress) -> xr.Dataset:
    """Train every variant of both parts on every seed."""
    device, steps = resolve_device(config.device), config.denoise_steps + config.cooldown_steps
    total = len(LETTERS) * config.letters_steps + len(DENOISE) * steps
    advance = progress(f"training {config.seeds} seeds x {len(LETTERS) + len(DENOISE)} variants", total)
    parts = [fit(config, config.seed_range, device, advance) for fit in (_letters, _denoise)]
    return xr.concat(parts, "variant", data_vars="minimal", join="exact")


def summarise(config: AblationConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add the exact baselines, and what the figure shows: ratios and means with 95 % intervals over seeds."""
    _add_baselines(config, dataset)
    peer = [f"{part}-vanilla" for part in dataset["part"].values]
    for name, values in (("relative_excess", dataset["excess"]), ("relative_l1", dataset["l1_error"])):
        bands = [ratio(x, y) for x, y in zip(values.values, values.sel(variant=peer).values, strict=True)]
        dataset[name] = (("variant", "estimate"), [[e.value, e.low, e.high] for e in bands])
    dataset["risk_band"] = mean_band(dataset["risk"].sel(variant=dataset["part"] == "denoise"))
    for name, about in _ABOUT.items():
        dataset[name].attrs["description"] = about
    return dataset


def _add_baselines(config: AblationConfig, dataset: xr.Dataset) -> None:
    """The Bayes risk of every length, exact or in a bracket, and the closed-form risks."""
    exact = mean_band(dataset["held_out_bayes"]).values
    # Whatever the seeds of the run, the same bracket.
    bracket = DenoisingTask(length=config.longer_length).bayes_bracket(
        config.bracket_samples, member_generator(0, Stream.EVALUATION)
    )
    ends = [bracket.lower.value - 1.96 * bracket.lower.error, bracket.upper.value + 1.96 * bracket.upper.error]
    dataset["bayes_lower"] = ("length", [*exact[:-1, 1], ends[0]])
    dataset["bayes_upper"] = ("length", [*exact[:-1, 2], ends[1]])
    for name in ("shrunk", "additive"):
        dataset[name] = ("length", [DenoisingTask(length=n).risk(name) for n in config.test_lengths])
    bound = dataset["additive"].values[:-1].mean() - exact[:-1, 0].mean()
    dataset["additive_relative_excess"] = bound / dataset["excess"].sel(variant="denoise-vanilla").mean().item()


def _letters(
    config: AblationConfig, seeds: Sequence[int], device: torch.device, advance: Callable[[int], None]
) -> xr.Dataset:
    """The bigrams of English letters in the vocabulary context, exact loss; each row weighs as often as its letter occurs.

    That is the cross-entropy of predicting the text, whose Bayes value is the entropy rate H*.
    """
    kind = getattr(torch, config.dtype)
    task = MarkovGraphTask.from_text(text_from_file())
    embeddings = [unit_embeddings(task.nodes, config.letters_dim, member_generator(s, Stream.EMBEDDING)) for s in seeds]
    tokens = stack_members(embeddings, device)
    target = stack_members([task.transition_matrix] * len(seeds), device)
    weight = stack_members([task.stationary_distribution] * len(seeds), device)
    log_frequency = weight.log() - weight.log().mean(0)  # centred: a and b of the feature-based term are then apart
    working, feature = tokens.to(kind), log_frequency.to(kind)
    queries = Queries(target.to(kind), weight.to(kind))

    def fit(layer: AblationLayer) -> dict[str, Tensor]:
        def loss(parameters: dict[str, Tensor], batch: None) -> Tensor:
            return cross_entropy(layer.logits(parameters, working, feature), queries)

        trained = ensemble.train(
            loss,
            _initial(layer, config.letters_dim, seeds, device, kind),
            steps=config.letters_steps,
            learning_rate=config.letters_learning_rate,
            compile=config.compile,
            progress=advance,
        )
        logits = layer.logits(_final(trained), tokens, log_frequency)
        l1 = (weight * (logits.softmax(1) - target).abs().sum(1)).sum(0)
        excess = cross_entropy(logits, Queries(target, weight)) - task.entropy_rate
        return _kept(trained, {"excess": excess, "l1_error": l1})

    return _part("letters", LETTERS, fit, config.letters_dim, seeds).assign(entropy_rate=task.entropy_rate)


def _denoise(
    config: AblationConfig, seeds: Sequence[int], device: torch.device, advance: Callable[[int], None]
) -> xr.Dataset:
    """Denoising from the last token: a constant query would make the query temperature a constant that W absorbs.

    Training contexts have the lengths in turn; held-out ones are the first tokens of one long context a sample.
    """
    kind, steps = getattr(torch, config.dtype), config.denoise_steps + config.cooldown_steps
    task, lengths = DenoisingTask(length=config.longer_length), config.train_lengths
    drawn = []
    for seed in seeds:
        sample = DenoisingTask(length=max(lengths)).sample(
            steps * config.batch_size, member_generator(seed, Stream.DATA)
        )
        drawn.append((sample.tokens.astype(config.dtype), sample.target.astype(config.dtype)))
    data = [stack_members(arrays, device).split(config.batch_size) for arrays in zip(*drawn, strict=True)]

    held_out = [task.sample(config.held_out, member_generator(s, Stream.EVALUATION)) for s in seeds]
    tokens, target = (stack_members([getattr(h, name) for h in held_out], device) for name in ("tokens", "target"))
    posteriors = {
        n: [DenoisingTask(length=n).bayes_posterior(h.tokens[:, :n]) for h in held_out] for n in sorted(lengths)
    }
    answers = {n: stack_members([p.mean for p in posteriors[n]], device) for n in posteriors}
    bayes = {n: torch.tensor([p.variance.mean() for p in posteriors[n]], device=device) for n in posteriors}

    def fit(layer: AblationLayer) -> dict[str, Tensor]:
        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for step, (x, y) in enumerate(zip(*data, strict=True)):
                yield x[:, : lengths[step % len(lengths)]], y

        trained = train_with_cooldown(
            lambda parameters, batch: squared_error(layer.output(parameters, batch[0]), batch[1]),
            _initial(layer, task.dim, seeds, device, kind),
            steps=config.denoise_steps,
            cooldown_steps=config.cooldown_steps,
            learning_rate=config.denoise_learning_rate,
            batches=batches(),
            compile=config.compile,
            progress=advance,
        )
        final = _final(trained)
        # Given X, a prediction's risk is the posterior variance plus its distance from the posterior mean.
        distance = {n: squared_error(layer.output(final, tokens[:, :n]), answers[n]) for n in posteriors}
        risk = [distance[n] + bayes[n] for n in posteriors] + [squared_error(layer.output(final, tokens), target)]
        return _kept(trained, {"excess": sum(distance.values()) / len(distance), "risk": torch.stack(risk)})

    found = _part("denoise", DENOISE, fit, task.dim, seeds).assign_coords(length=config.test_lengths)
    variance = [bayes[n].cpu().numpy() for n in posteriors]
    return found.assign(held_out_bayes=(("seed", "length"), np.stack([*variance, np.full(len(seeds), np.nan)], axis=1)))


def _initial(
    layer: AblationLayer, dim: int, seeds: Sequence[int], device: torch.device, kind: torch.dtype
) -> dict[str, Tensor]:
    initial = layer.initial_parameters(dim, [member_generator(s, Stream.PARAMETER) for s in seeds])
    return {name: p.to(device, kind) for name, p in initial.items()}


def _final(trained: Trained) -> dict[str, Tensor]:
    return {name: p.double() for name, p in trained.parameters.items()}


def _kept(trained: Trained, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """What was found, NaN where a member diverged, and which did."""
    kept = {name: torch.where(trained.diverged, torch.nan, values) for name, values in found.items()}
    return kept | {"diverged": trained.diverged}


def _part(
    part: str,
    layers: Mapping[str, AblationLayer],
    fit: Callable[[AblationLayer], dict[str, Tensor]],
    dim: int,
    seeds: Sequence[int],
) -> xr.Dataset:
    """Fit every variant of one part: what was found, by variant, which is named by part and layer."""
    fitted = [fit(layer) for layer in layers.values()]
    dataset = xr.Dataset(coords={"variant": [f"{part}-{name}" for name in layers], "seed": list(seeds)})
    dataset = dataset.assign_coords(part=("variant", [part] * len(layers)))
    for name in fitted[0]:
        values = np.stack([np.moveaxis(f[name].cpu().numpy(), -1, 0) for f in fitted])
        dataset[name] = (("variant", "seed", "length")[: values.ndim], values)
    return dataset.assign(added_parameters=("variant", [layer.added_parameters(dim) for layer in layers.values()]))


ABLATION = Experiment(
    name="ablation",
    question="Which of the temperatures contributes: query, key or value, token or position, shared weights or an own MLP?",
    caption=(
        "Left and middle: error above the Bayes predictor of each variant as a share of vanilla attention's, on the bigrams of "
        "letters and on denoising in growing contexts, with the parameters that it adds; 0 is Bayes, 1 is vanilla. Right: mean "
        "squared error of denoising (per coordinate) by context length, trained in the grey range, above the exact Bayes risk "
        "(bracketed beyond). Means and 95 % intervals over seeds, paired; some are narrower than their mark."
    ),
    config=AblationConfig,
    train=train,
    seeds_per_block=seeds_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={
        "smoke": {
            "seeds": 4,
            "letters_steps": 60,
            "denoise_steps": 30,
            "cooldown_steps": 10,
            "train_lengths": (4, 8),
            "longer_length": 16,
            "bracket_samples": 100,
            "held_out": 64,
        },
        "large": {"seeds": 512, "letters_steps": 4000, "denoise_steps": 2000, "cooldown_steps": 500},
    },
)
