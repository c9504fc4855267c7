"""One call for a comparison: any mechanisms on one problem, as a labelled dataset."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import xarray as xr
from pydantic import ValidationError

from analysis.problems.base import Problem, Training
from analysis.problems.learned import Learned
from analysis.problems.sizes import block_size
from analysis.problems.train import train_all
from analysis.store.config import TrainingConfig
from analysis.store.dimensions import described
from analysis.terminal import explain
from ssa_theory.device import resolve_device
from ssa_theory.mechanism import Mechanism, mechanism


def compare(
    problem: Problem,
    mechanisms: Sequence[str | Mechanism],
    *,
    seeds: int = 64,
    first_seed: int = 0,
    steps: int = 200,
    learning_rate: float = 0.05,
    cooldown_steps: int = 0,
    optimizer: Literal["adam", "sgd"] = "adam",
    dtype: Literal["float32", "float64"] = "float32",
    compile: bool | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> xr.Dataset:
    """Train every mechanism on every seed of a problem, all in the same way, and measure it.

    problem: such as `GraphProblem(dim=4)`. mechanisms: names of the registry, `PATH.py:NAME`, or
    `Mechanism`s of your own. A seed names task, initialisation and data, the same for all
    mechanisms: compare by seed. cooldown_steps: further steps at a tenth of the learning rate.
    compile: see `train`; by default where it pays.

    Returns the problem's measures (mechanism, seed, ...), its task and exact baselines (seed, ...),
    `added_parameters` (mechanism), and what every model has learned: `MECHANISM.PARAMETER` (seed,
    ...), such as `vanilla.weight`, W, and where rows are over a vocabulary its `embedding` E. Each
    variable has a description. Raises ValueError before training for a setting out of range, an
    unknown mechanism, two of one name, or one that the problem cannot wear, with the reason.

    >>> from analysis.problems import GraphProblem
    >>> result = compare(GraphProblem(dim=4), ["vanilla", "ssa"], seeds=2, steps=5)
    >>> result["l1_error"].dims, result["mechanism"].values.tolist()
    (('mechanism', 'seed'), ['vanilla', 'ssa'])
    >>> result["vanilla.weight"].shape, result["embedding"].shape
    ((2, 4, 4), (2, 8, 4))
    """
    try:
        config = TrainingConfig(seeds=seeds, first_seed=first_seed, device=device, dtype=dtype)
    except ValidationError as error:
        raise ValueError(explain(error, flags=False)) from None
    if isinstance(mechanisms, str):
        raise ValueError(f"mechanisms must be a list, got {mechanisms!r:.60}: put it in brackets")
    chosen = [mechanism(m) for m in mechanisms]
    names = [m.name for m in chosen]
    if not names or len(set(names)) != len(names):
        raise ValueError(
            f"mechanisms must be different and at least one, got {names}: list each once"
        )
    if not isinstance(problem, Problem):
        raise ValueError(
            f"compare takes a problem, got {type(problem).__name__}: such as GraphProblem(dim=4)"
        )
    if np.ndim(learning_rate) or not 0 < learning_rate < np.inf:
        raise ValueError(
            f"learning_rate must be one positive and finite number, got {learning_rate}: change "
            "learning_rate"
        )
    training = Training(steps, learning_rate, cooldown_steps, optimizer, dtype, compile)
    added = [m.added_parameters(problem.layer(m).form) for m in chosen]
    size = block_size(config, problem.bytes_per_seed(training))
    every, on = config.seed_range, resolve_device(device)
    learned = Learned()
    parts = [
        train_all(problem, chosen, every[first : first + size], training, on, keep=learned.keep)
        for first in range(0, len(every), size)
    ]
    dataset = xr.concat(
        parts, "seed", data_vars="minimal", coords="minimal", compat="equals", join="exact"
    )
    dataset = problem.summarise(dataset)
    about = {"description": "parameters beyond those of a vanilla layer, one model"}
    dataset["added_parameters"] = ("mechanism", added, about)
    return described(dataset.assign(learned.variables()))
