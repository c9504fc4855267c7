"""Graphs: the setting, the training at dimension d and at d = K, and the numbers of the figure."""

from dataclasses import fields, replace
from typing import Literal, cast

import numpy as np
import xarray as xr
from pydantic import Field

from analysis.claims.bands import mean_band
from analysis.experiments.base import Progress
from analysis.experiments.graph.sources import SourceConfig
from analysis.experiments.mechanisms import SELECTIVE, Mechanisms, chosen
from analysis.experiments.settings import RATES, STARTS, LearningRates, Starts, steps_of
from analysis.problems import GraphProblem, Training, train_all
from analysis.problems.measures import ROW_GROUPS, SMALLEST_TAU, row_groups
from analysis.problems.sizes import block_size, check_result_fits, told_cost
from analysis.problems.tuning import tuning_models
from ssa_theory.device import resolve_device
from ssa_theory.mechanism import VANILLA
from tasks.markov import RowWeights

_HOTTEST = 100.0
"""Of a log temperature: beyond, the end of an interval means only that it is open."""
_SECONDS = 1.5e-7
"""Of a training step for each entry of an attention map, measured on one core."""


class GraphConfig(SourceConfig):
    """Learn the transition matrix P* of a graph as the rows of one attention layer.

    P_hat = softmax(diag(tau) E W E^T), or what another mechanism makes of the scores.
    """

    context: Literal["vocabulary", "prompt"] = Field(
        "vocabulary", description="keys are all tokens once, or the tokens of a sampled prompt"
    )
    loss: Literal["exact", "sampled"] = Field(
        "exact", description="expectation over the next token computed, or next tokens sampled"
    )
    prompt_length: int | None = Field(
        None, ge=1, le=4096, description="tokens in a prompt (context prompt; default 16)"
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="prompts or transitions a step (context prompt or loss sampled; default 64)",
    )
    row_weights: RowWeights = Field(
        "uniform", description="weight of each row in the loss; law of the tokens of a prompt"
    )
    dim: int = Field(
        4, ge=1, le=4096, description="embedding dimension d; below K tokens compete for directions"
    )
    similarity: float = Field(
        0.0, ge=0, le=1, description="strength of the component common to all embeddings"
    )
    mechanisms: Mechanisms = Field(
        (VANILLA, "scaled", "key-bias", "ssa", "ssa-free"),
        description="what is trained; vanilla is the peer, scaled and key-bias are controls",
    )
    position: bool = Field(
        False, description="let position terms act (one learned scale: all queries see the same n)"
    )
    optimizer: Literal["adam", "sgd"] = Field("adam", description="optimiser")
    learning_rates: LearningRates = RATES
    starts: Starts = ()
    steps: int = Field(200, ge=1, le=10_000_000, description="training steps")
    control_steps: int = Field(
        2000,
        ge=0,
        le=10_000_000,
        description="steps of the control regime d = K, trained long, where vanilla suffices; "
        "0: skip it",
    )

    def check(self) -> None:
        super().check()
        self.require_ascending("learning_rates", 0, 1_000_000)
        if self.starts:
            self.require_ascending("starts", 0, 1000)
        self.require_applicable(
            {
                "prompt_length": (self.context == "prompt", "context prompt"),
                "batch_size": (self.problem.sampled, "context prompt or loss sampled"),
            }
        )
        # What can be worn depends on no graph: a result is drawn without the file of its graph.
        source = dict.fromkeys(("nodes", "mean_degree", "text_file", "graph_file"))
        worn = replace(self.problem, family="graded", **source)
        for mechanism in chosen(self.mechanisms):
            worn.layer(mechanism)

    @property
    def problem(self) -> GraphProblem:
        """The settings of the same names; what is not set is the problem's default."""
        given = {f.name: getattr(self, f.name, None) for f in fields(GraphProblem)}
        return GraphProblem(**{name: v for name, v in given.items() if v is not None})

    def notes(self) -> list[str]:
        problem = self.problem
        sentences = [sentence for sentence in [problem.understood] if sentence]
        if self.nodes is None and not sentences:  # a default graph is small
            return sentences
        seeds_per_block(self)
        models = (self.seeds + tuning_models(self.learning_rates, self.tried_starts)) * len(
            self.mechanisms
        )
        seconds = _SECONDS * problem.size**2 * models * (self.steps + self.control_steps)
        return sentences + told_cost(seconds, _stored(self))

    @property
    def tried_starts(self) -> tuple[float, ...]:
        """`starts`, or their default."""
        return self.starts or (STARTS if len(self.learning_rates) > 1 else (1.0,))

    def training(self, steps: int) -> Training:
        """Of so many steps."""
        highest = max(self.learning_rates)
        return Training(steps, highest, 0, self.optimizer, self.dtype, self.compiled)


def _stored(config: GraphConfig) -> int:
    """How many numbers the result holds: the true matrix and every learned one."""
    return config.seeds * config.problem.size**2 * (1 + len(config.mechanisms))


def seeds_per_block(config: GraphConfig) -> int:
    """By the memory of training one model."""
    problem = config.problem
    check_result_fits(_stored(config))
    return block_size(config, problem.bytes_per_seed(config.training(config.steps)))


def train(config: GraphConfig, progress: Progress) -> xr.Dataset:
    """Every mechanism on every seed, at dimension d and in the control regime d = K."""
    device, problem = resolve_device(config.device), config.problem
    mechanisms = chosen(config.mechanisms)
    grid = config.learning_rates, config.tried_starts
    regimes = map(config.training, (config.steps, config.control_steps))
    total = sum(steps_of(training, *grid) for training in regimes) * len(mechanisms)
    about = f"training {config.seeds} seeds x {len(mechanisms)} mechanisms"
    advance = progress(about, total)

    def trained(regime: GraphProblem, steps: int) -> xr.Dataset:
        seeds, how = config.seed_range, config.training(steps)
        rates, starts = grid
        options = {"rates": rates, "starts": starts, "progress": advance}
        return train_all(regime, mechanisms, seeds, how, device, **options)

    dataset = trained(problem, config.steps)
    if config.control_steps:
        control = trained(replace(problem, dim=problem.size), config.control_steps)
        kept = [name for name in _CONTROL if name in control]
        control = control[kept].rename(step="control_step")
        dataset = dataset.merge(control.rename({name: f"control_{name}" for name in kept}))
    return dataset


_CONTROL = (
    *("cross_entropy_gap", "l1_by_step", "l1_error", "weight_norm", "diverged", "settled"),
    *("learning_rate", "start", "tuning_error", "longer_error", "longer_settled"),
)
"""What is kept of the control regime, where it is there."""


def summarise(config: GraphConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add what is drawn: means with 95 % intervals over seeds that did not diverge, and a seed."""
    for name in ("cross_entropy_gap", "l1_by_step", "weight_norm", "control_l1_by_step"):
        if name in dataset:
            dataset[f"{name}_band"] = mean_band(dataset[name].where(~diverged(dataset, name)))
    # Nodes with the same effective number of neighbours share a point; it equals the degree where
    # a row is uniform.
    neighbours = np.exp(dataset["row_entropy"]).round(6)
    tau = dataset["inverse_temperature"].where(~dataset["diverged"])
    # Cast, as numpy does not say that labels stay.
    log_temperature = cast(xr.DataArray, -np.log(tau.clip(min=SMALLEST_TAU)))
    levels = np.unique(neighbours)
    by_level = xr.concat(
        [log_temperature.where(neighbours == level).mean("node") for level in levels],
        dim="neighbours",
    ).assign_coords(neighbours=levels)
    ends = mean_band(by_level).clip(max=_HOTTEST)
    dataset["temperature_by_neighbours"] = np.exp(ends)
    dataset = dataset.merge(_by_row(dataset))
    for name in ("l1_by_row_group", "uniform_rows"):
        dataset[f"{name}_band"] = mean_band(dataset[name].where(~dataset["diverged"]))
    name = drawn(dataset)
    error = dataset["l1_error"].sel(mechanism=name).fillna(np.inf)
    about = {"description": f"the seed of the median L1 error of {name}, which the figure draws"}
    shown = dataset["seed"].values[error.argsort()[len(error) // 2]]
    dataset["shown_seed"] = ((), shown, about)
    return dataset


_UNIFORM = 0.9
_BY_ROW = {
    "l1_by_row_group": "mean L1 error of the quarter of rows whose target is sharpest, of those "
    "between, and of the quarter whose target is bluntest",
    "uniform_rows": f"share of rows left uniform: spread, exp(H), over more than {_UNIFORM:.0%} of "
    "all nodes",
    "uniform_targets": f"share of rows of P* that spread over more than {_UNIFORM:.0%} of all nodes",
}


def _by_row(dataset: xr.Dataset) -> xr.Dataset:
    """Which rows err, and which were never told apart."""
    truth, entropy = dataset["transition_matrix"], dataset["row_entropy"]
    error = abs(dataset["learned_transition_matrix"] - truth).sum("next", skipna=False)
    group = xr.zeros_like(entropy, dtype=object)
    group.values = np.stack([row_groups(one) for one in entropy.values])
    each = [error.where(group == name).mean("node") for name in ROW_GROUPS]
    spread = _UNIFORM * dataset.sizes["node"]
    values = {
        "l1_by_row_group": xr.concat(each, xr.Variable("row_group", list(ROW_GROUPS))),
        "uniform_rows": (dataset["effective_support"] > spread).mean("node"),
        "uniform_targets": (entropy > np.log(spread)).mean("node"),
    }
    return xr.Dataset(
        {name: v.assign_attrs(description=_BY_ROW[name]) for name, v in values.items()}
    )


def diverged(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """Which models of the regime of a variable diverged."""
    return dataset["control_diverged" if name.startswith("control") else "diverged"]


def drawn(dataset: xr.Dataset) -> str:
    """The mechanism whose matrix is drawn beside vanilla's: SSA, else the first other one."""
    names = others(dataset)
    return SELECTIVE if SELECTIVE in names else next(iter(names), VANILLA)


def others(dataset: xr.Dataset) -> list[str]:
    """All mechanisms but vanilla."""
    return [m for m in map(str, dataset["mechanism"].values) if m != VANILLA]


def with_temperatures(dataset: xr.Dataset) -> list[str]:
    """Those of them whose query temperature is not the same for all nodes."""
    tau = dataset["inverse_temperature"]
    same = ((tau == tau.isel(node=0)) | tau.isnull()).all(("seed", "node"))  # NaN: all diverged
    return [m for m in others(dataset) if not same.sel(mechanism=m)]
