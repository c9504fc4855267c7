"""How does a needle's attention decay as the context grows, and which temperature schedule stops it? No training."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from scipy.special import logit
from torch import Tensor

from analysis.store.config import SeededConfig
from analysis.experiments.base import Experiment, Progress
from analysis.experiments.dilution_claims import judge
from analysis.experiments.dilution_figure import draw
from analysis.fitting import stack_members
from analysis.claims.statistics import mean_band
from ssa_theory import Stream, member_generator, resolve_device
from ssa_theory.theory import dilution as theory
from ssa_theory.schedules import SCHEDULES, PositionSchedule, ScheduleName
from tasks.dilution import PROBE_KINDS, DilutionProbe, ProbeKind

SCALED_TAU = np.arange(0, 2.01, 0.25)
"""tau / tau_c at which the freezing transition is measured; 0.5, 1 and 2 are among them."""
_GROUP = 64  # seeds measured at once
_BLOCK = 2**17  # logits held at once, times the number of schedules
_NEWTON = 60  # more passes than any row has needed


class DilutionConfig(SeededConfig):
    """m needles with logit g among distractors with logits that are equal, bounded (uniform on [-B, B]) or Gaussian."""

    schedules: tuple[ScheduleName, ...] = Field(
        SCHEDULES, description="position schedules, each at its starting parameters"
    )
    lengths: tuple[int, ...] = Field(
        (10, 32, 100, 316, 1000, 3162, 10_000, 31_623, 100_000, 316_228, 1_000_000),
        description="numbers of keys n, needles included, ascending",
    )
    needles: tuple[int, ...] = Field((1, 4), description="numbers of needles m; the figure's curves show the first")
    gap: float = Field(4.0, gt=0, description="logit g of every needle over the mean distractor")
    bound: float = Field(1.0, gt=0, description="B of bounded distractors, in logits")
    deviation: float = Field(1.0, gt=0, description="standard deviation s of Gaussian distractors, in logits")
    trained_length: int = Field(128, ge=1, description="length up to which schedule yarn leaves tau at 1")
    power_exponent: float = Field(
        0.1, ge=0, le=1, description="gamma of schedule power (at its starting value 0 it would be constant)"
    )
    target_mass: float = Field(0.5, gt=0, lt=1, description="mass on the needles that defines the critical tau")
    critical_length: int = Field(
        31_623,
        ge=2,
        description="largest n at which the critical tau is also measured: each Newton step reads all keys",
    )
    freezing_lengths: tuple[int, ...] = Field(
        (100, 10_000, 1_000_000), description="numbers of Gaussian distractors of the freezing transition, ascending"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "DilutionConfig":
        self.require_distinct("schedules", "needles")
        for name in ("lengths", "freezing_lengths"):
            values = getattr(self, name)
            if not values or list(values) != sorted(set(values)) or not 2 <= values[0] <= values[-1] <= 100_000_000:
                raise ValueError(f"{name} must ascend and lie in [2, 100000000], got {values}: sort and bound them")
        if min(self.needles) < 1 or max(self.needles) >= self.lengths[0]:
            raise ValueError(
                f"needles must be at least 1 and fewer than the shortest length {self.lengths[0]}, got {self.needles}: use "
                "fewer needles or longer rows"
            )
        return self

    def spread(self, kind: ProbeKind) -> float:
        """The spread of the distractors of a kind, in logits."""
        return {"equal": 0.0, "bounded": self.bound, "gaussian": self.deviation}[kind]


def train(config: DilutionConfig, progress: Progress) -> xr.Dataset:
    """Measure every schedule, kind, number of needles and length on the same distractors, and compute the theory."""
    device = resolve_device(config.device)
    tau = schedule_temperatures(config)
    dataset = xr.Dataset(
        coords={
            "schedule": list(config.schedules),
            "kind": list(PROBE_KINDS),
            "needles": list(config.needles),
            "seed": list(config.seed_range),
            "length": list(config.lengths),
            "bound": ["lower", "upper"],
            "freezing_length": list(config.freezing_lengths),
            "scaled_tau": SCALED_TAU,
        }
    )
    dataset["inverse_temperature"] = (("schedule", "length"), tau, {"description": "tau(n) of each schedule"})
    groups = [config.seed_range[i : i + _GROUP] for i in range(0, config.seeds, _GROUP)]
    advance = progress(f"probing {config.seeds} seeds up to n = {config.lengths[-1]:,}", 3 + 5 * len(groups))
    _add_theory(dataset, config)
    advance(1)
    found = {name: [] for name in _MEASURED}
    for kind in PROBE_KINDS:
        # Equal distractors are not random: one seed stands for all.
        parts = [_measure(config, kind, g, tau, device, advance) for g in (groups if kind != "equal" else [[0]])]
        for name, (dims, _) in _MEASURED.items():
            axis = dims.index("seed") - 1
            whole = np.concatenate([part[name] for part in parts], axis)
            found[name].append(np.repeat(whole, config.seeds, axis) if kind == "equal" else whole)
    for name, (dims, about) in _MEASURED.items():
        dataset[name] = (dims, np.stack(found[name], dims.index("kind")), {"description": about})
    frozen = [_measure_freezing(config, group, device, advance) for group in groups]
    for i, (name, about) in enumerate(_FREEZING.items()):
        values = np.concatenate([f[i] for f in frozen], axis=-1)
        dataset[name] = (("scaled_tau", "freezing_length", "seed"), values, {"description": about})
    return _summarise(dataset)


def _summarise(dataset: xr.Dataset) -> xr.Dataset:
    """Add what the figure shows: means with 95 % intervals over seeds, and the median critical tau, which may be infinite."""
    shown = dataset.isel(needles=0, drop=True)
    for name in ("needle_mass", "entropy"):
        dataset[f"{name}_band"] = mean_band(shown[name])
    dataset["log_partition_band"] = mean_band(dataset["log_partition"])
    critical = dataset["critical_inverse_temperature"]
    dims = tuple(d for d in critical.dims if d != "seed")
    # The lower of two middle values: their mean would be infinite, or NaN, where one row in two has no critical tau.
    median = np.quantile(critical.values, 0.5, axis=critical.dims.index("seed"), method="lower")
    dataset["critical_inverse_temperature_median"] = (dims, median)
    return dataset


_MEASURED = {
    "needle_mass": (("schedule", "kind", "needles", "seed", "length"), "total attention on the needles (probability)"),
    "log_odds": (
        ("schedule", "kind", "needles", "seed", "length"),
        "log of the needles' mass over the distractors' mass",
    ),
    "entropy": (("schedule", "kind", "needles", "seed", "length"), "entropy of the attention row (nats)"),
    "effective_support": (
        ("schedule", "kind", "needles", "seed", "length"),
        "exp(entropy): the effective number of keys",
    ),
    "critical_inverse_temperature": (
        ("kind", "needles", "seed", "length"),
        "least tau at which the needles hold target_mass; infinite where no tau does, NaN beyond critical_length",
    ),
}
_FREEZING = {
    "log_partition": "log of the partition function of Gaussian distractors at tau = scaled_tau * sqrt(2 log n) / s",
    "log_partition_slope": "its derivative in tau: the mean logit under the attention weights",
}


def schedule_temperatures(config: DilutionConfig) -> Float[np.ndarray, "schedule length"]:
    """tau(n) of every schedule at its starting parameters, except for the exponent of `power`."""
    count, rows = torch.tensor(config.lengths), []
    for name in config.schedules:
        schedule = PositionSchedule(name, config.trained_length if name == "yarn" else None)
        parameters = schedule.initial_parameters(1)
        if name == "power":
            parameters["gamma"] = torch.full_like(parameters["gamma"], config.power_exponent)
        rows.append(schedule.inverse_temperature(parameters, count).expand(len(count), 1)[:, 0].numpy())
    return np.stack(rows)


def stream_partition(
    draw: Callable[[int], Float[Tensor, "key member"]],
    tau: Float[Tensor, "setting length member"],
    counts: Int[np.ndarray, "length cut"],
    block: int = _BLOCK,
) -> tuple[Float[Tensor, "setting length cut member"], Float[Tensor, "setting length cut member"]]:
    """log sum_j exp(tau z_j) and its derivative in tau, the mean logit, over the first `counts` logits of a stream.

    draw(k) returns the next k logits of every member. tau: one per setting, length and member. counts: for each length, the
    numbers of logits at which to read the sums; 0 gives log 0 = -inf and a mean of 0. At most `block` logits are held
    at once, times the number of settings. The sums of two blocks are merged by log-sum-exp, so nothing overflows.
    """
    settings, _, members = tau.shape
    log_sum, mean = torch.full_like(tau, -torch.inf), torch.zeros_like(tau)
    shape = (settings, *counts.shape, members)
    found = tau.new_full(shape, -torch.inf), tau.new_zeros(shape)
    start, rows = 0, max(1, block // members)
    for stop in np.unique(counts[counts > 0]).tolist():
        while start < stop:
            size = min(rows, stop - start)
            z = draw(size)
            start += size
            largest = z.amax(0)
            shifted = z - largest
            for i in np.flatnonzero(counts.max(1) >= start):
                weight = (tau[:, i, None] * shifted).exp_()
                total = weight.sum(1)
                part_mean = weight.mul_(z).sum(1) / total
                part_log = tau[:, i] * largest + total.log()
                merged = torch.logaddexp(log_sum[:, i], part_log)
                share = (part_log - merged).exp()
                mean[:, i] += share * (part_mean - mean[:, i])
                log_sum[:, i] = merged
        for i, k in np.argwhere(counts == stop):
            found[0][:, i, k], found[1][:, i, k] = log_sum[:, i], mean[:, i]
    return found


def _stream(
    config: DilutionConfig, kind: ProbeKind, seeds: Sequence[int], device: torch.device
) -> Callable[[int], Tensor]:
    """The distractors of every seed from their beginning; host-drawn, so that every device sees the same bits."""
    probe = DilutionProbe(kind, max(config.needles), config.gap, config.spread(kind))
    generators = [member_generator(s, Stream.DATA) for s in seeds]
    return lambda count: stack_members([probe.distractors(count, g) for g in generators], device)


def _measure(
    config: DilutionConfig,
    kind: ProbeKind,
    seeds: Sequence[int],
    schedule_tau: np.ndarray,
    device: torch.device,
    advance: Callable[[int], None],
) -> dict[str, np.ndarray]:
    """The arrays of `_MEASURED` for one kind and a group of seeds."""
    needles = torch.tensor(config.needles, dtype=torch.float64, device=device)[:, None]
    counts = np.array(config.lengths)[:, None] - np.array(config.needles)
    tau = torch.from_numpy(schedule_tau).to(device)[..., None].expand(*schedule_tau.shape, len(seeds)).contiguous()
    log_rest, mean_rest = stream_partition(_stream(config, kind, seeds, device), tau, counts)
    tau = tau[:, :, None]
    log_needles = needles.log() + tau * config.gap
    log_partition = torch.logaddexp(log_needles, log_rest)
    mass, rest = (log_needles - log_partition).exp(), (log_rest - log_partition).exp()
    entropy = (log_partition - tau * (mass * config.gap + rest * mean_rest)).clamp(min=0)
    advance(1)
    critical = np.full((len(config.lengths), len(config.needles), len(seeds)), np.nan)
    reachable = np.array(config.lengths) <= config.critical_length
    if reachable.any():
        critical[reachable] = _critical(config, kind, seeds, counts[reachable], device)
    advance(1)
    values = {
        "needle_mass": mass,
        "log_odds": log_needles - log_rest,
        "entropy": entropy,
        "effective_support": entropy.exp(),
    }
    values = {name: value.permute(0, 2, 3, 1).cpu().numpy() for name, value in values.items()}
    return values | {"critical_inverse_temperature": critical.transpose(1, 2, 0)}


def _critical(
    config: DilutionConfig, kind: ProbeKind, seeds: Sequence[int], counts: np.ndarray, device: torch.device
) -> Float[np.ndarray, "length needles seed"]:
    """The least tau >= 0 at which the needles hold target_mass in each sampled row; infinite where none does.

    The needles' log-odds tau g + log m - log Z(tau) are concave in tau, so Newton's method from 0 climbs to the least root
    without overshooting it, and a slope that is no longer positive below the wanted level proves that there is none.
    """
    needles = torch.tensor(config.needles, dtype=torch.float64, device=device)
    wanted = float(logit(config.target_mass)) - needles.log()[:, None, None]
    tau = torch.zeros(len(config.needles), len(counts), len(seeds), dtype=torch.float64, device=device)
    answer = torch.full_like(tau, torch.nan)
    for _ in range(_NEWTON):
        both = stream_partition(_stream(config, kind, seeds, device), tau, counts)
        log_rest, mean_rest = (torch.stack([x[k, :, k] for k in range(len(needles))]) for x in both)
        short = wanted - (tau * config.gap - log_rest)
        slope = config.gap - mean_rest
        open_ = answer.isnan()
        answer = torch.where(open_ & (short <= 1e-10), tau, answer)
        answer = torch.where(open_ & (short > 1e-10) & (slope <= 0), torch.inf, answer)
        if not answer.isnan().any():
            break
        tau = torch.where(answer.isnan(), tau + short / slope, 0.0)
    return answer.permute(1, 0, 2).cpu().numpy()


def _measure_freezing(
    config: DilutionConfig, seeds: Sequence[int], device: torch.device, advance: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """log Z of Gaussian distractors and its slope, (scaled_tau, freezing_length, seed)."""
    counts = np.array(config.freezing_lengths)
    tau = torch.from_numpy(SCALED_TAU[:, None] * theory.gaussian_freezing(counts, config.deviation)).to(device)
    tau = tau[..., None].expand(*tau.shape, len(seeds)).contiguous()
    found = stream_partition(_stream(config, "gaussian", seeds, device), tau, counts[:, None])
    advance(1)
    return found[0][:, :, 0].cpu().numpy(), found[1][:, :, 0].cpu().numpy()


_THEORY = {
    "needle_mass_theory": (
        ("schedule", "kind", "needles", "length"),
        "exact expectation of needle_mass: closed form for equal distractors, quadrature for bounded and Gaussian ones",
    ),
    "needle_mass_deviation": (
        ("schedule", "kind", "needles", "length"),
        "exact standard deviation of needle_mass over rows (0 for equal distractors)",
    ),
    "entropy_theory": (("schedule", "kind", "needles", "length"), "exact expectation of entropy (nats), likewise"),
    "needle_mass_bound": (
        ("bound", "schedule", "needles", "length"),
        "certified bounds of needle_mass for any distractors in [-B, B]",
    ),
    "entropy_bound": (("schedule", "length"), "certified lower bound of entropy for any distractors in [-B, B] (nats)"),
    "needle_mass_rem": (
        ("schedule", "needles", "length"),
        "needle_mass among Gaussian distractors by the random-energy model (asymptotic)",
    ),
    "critical_inverse_temperature_theory": (
        ("bound", "kind", "needles", "length"),
        "equal: exact; bounded: certified necessary and sufficient tau; Gaussian: random-energy model (asymptotic)",
    ),
    "log_partition_theory": (
        ("scaled_tau", "freezing_length"),
        "exact expectation of log_partition by quadrature",
    ),
    "log_partition_rem": (
        ("scaled_tau", "freezing_length"),
        "log_partition by the random-energy model (asymptotic; an upper bound of the expectation)",
    ),
}


def _add_theory(dataset: xr.Dataset, config: DilutionConfig) -> None:
    """Add the variables of `_THEORY`."""
    n, tau, gap = np.array(config.lengths), dataset["inverse_temperature"].values, config.gap
    values = {name: np.full([dataset.sizes[d] for d in dims], np.nan) for name, (dims, _) in _THEORY.items()}
    laws = {"bounded": "uniform", "gaussian": "gaussian"}
    for j, m in enumerate(config.needles):
        values["needle_mass_theory"][:, 0, j] = theory.equal_needle_mass(n, tau, m, gap)
        values["needle_mass_deviation"][:, 0, j] = 0
        values["entropy_theory"][:, 0, j] = theory.equal_entropy(n, tau, m, gap)
        for k, (kind, law) in enumerate(laws.items(), start=1):
            for cell in np.ndindex(tau.shape):
                row = theory.expected_row(law, config.spread(kind), int(n[cell[1]]) - m, float(tau[cell]), m, gap)
                at = (cell[0], k, j, cell[1])
                values["needle_mass_theory"][at] = row.needle_mass
                values["needle_mass_deviation"][at] = row.needle_mass_deviation
                values["entropy_theory"][at] = row.entropy
        values["needle_mass_bound"][:, :, j] = theory.bounded_needle_mass(n, tau, m, gap, config.bound)
        values["needle_mass_rem"][:, j] = theory.gaussian_needle_mass(n, tau, m, gap, config.deviation)
        critical = values["critical_inverse_temperature_theory"]
        critical[:, 0, j] = theory.equal_critical_inverse_temperature(n, config.target_mass, m, gap)
        critical[:, 1, j] = theory.bounded_critical_inverse_temperature(n, config.target_mass, m, gap, config.bound)
        critical[:, 2, j] = theory.gaussian_critical_inverse_temperature(
            n, config.target_mass, m, gap, config.deviation
        )
    values["entropy_bound"][:] = theory.bounded_entropy_bound(n, tau, gap, config.bound)
    counts = np.array(config.freezing_lengths)
    beta = SCALED_TAU[:, None] * theory.gaussian_freezing(counts, config.deviation)
    values["log_partition_rem"][:] = theory.gaussian_log_partition(counts, beta, config.deviation)
    for cell in np.ndindex(beta.shape):
        row = theory.expected_row("gaussian", config.deviation, int(counts[cell[1]]), float(beta[cell]))
        values["log_partition_theory"][cell] = row.log_partition
    for name, (dims, about) in _THEORY.items():
        dataset[name] = (dims, values[name], {"description": about})


DILUTION = Experiment(
    name="dilution",
    question="How does a needle's attention decay as the context grows, and which temperature schedule stops it?",
    caption=(
        "Top: attention on the needle by context length for three kinds of distractors; lines are exact expectations, "
        "shades certified bounds, points means over seeds with 95 % intervals. Bottom: effective support; the "
        "log-partition of Gaussian distractors against the random-energy model; and the tau at which the needle reaches"
        " the target mass."
    ),
    config=DilutionConfig,
    train=train,
    draw=draw,
    judge=judge,
    presets={
        "smoke": {
            "seeds": 4,
            "lengths": (10, 100, 1000, 10_000),
            "freezing_lengths": (100, 10_000),
            "critical_length": 1000,
        },
        "large": {"seeds": 512},
    },
)
