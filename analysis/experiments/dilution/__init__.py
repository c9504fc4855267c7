"""How does a needle's attention decay with the context, and which mechanism stops it? Untrained."""

import numpy as np
import xarray as xr

from analysis.claims.bands import mean_band
from analysis.experiments.base import Experiment, Progress
from analysis.experiments.dilution.claims import judge
from analysis.experiments.dilution.config import DilutionConfig
from analysis.experiments.dilution.figure import draw
from analysis.problems.dilution import GROUP, MEASURED, THEORY
from ssa_theory.device import resolve_device
from ssa_theory.mechanism import mechanism


def train(config: DilutionConfig, progress: Progress) -> xr.Dataset:
    """Measure all mechanisms on the same distractors of every law, and compute the theory."""
    haystack, tau = config.haystack, config.temperatures()
    names = [mechanism(name).name for name in config.mechanisms]
    dataset = xr.Dataset(
        {"inverse_temperature": (("mechanism", "length"), tau)},
        haystack.coordinates() | {"mechanism": names, "seed": list(config.seed_range)},
    )
    dataset["inverse_temperature"].attrs["description"] = "tau(n) of each mechanism"
    groups = -(-config.seeds // GROUP)
    about = f"probing {config.seeds} seeds up to n = {config.lengths[-1]:,}"
    advance = progress(about, 3 + 5 * groups)
    values = haystack.theory(tau)
    advance(1)
    values |= haystack.measure(tau, config.seed_range, resolve_device(config.device), advance)
    for name, measure in (THEORY | MEASURED).items():
        dataset[name] = (measure.dims, values[name], {"description": measure.about})
    return _summarise(dataset)


def _summarise(dataset: xr.Dataset) -> xr.Dataset:
    """Add means with 95 % intervals, and the median critical tau, which may be infinite."""
    shown = dataset.isel(needles=0, drop=True)
    for name in ("needle_mass", "entropy"):
        dataset[f"{name}_band"] = mean_band(shown[name])
    dataset["log_partition_band"] = mean_band(dataset["log_partition"])
    critical = dataset["critical_inverse_temperature"]
    dims = tuple(d for d in critical.dims if d != "seed")
    # The lower of two middle values: their mean would be infinite, or NaN, where one row in two has
    # no critical tau.
    median = np.quantile(critical.values, 0.5, axis=critical.dims.index("seed"), method="lower")
    about = {"description": "median over seeds; infinite where half of the rows have none"}
    dataset["critical_inverse_temperature_median"] = (dims, median, about)
    return dataset


_SHORT = {"lengths": (10, 100, 1000, 10_000), "freezing_lengths": (100, 10_000)}
DILUTION = Experiment(
    name="dilution",
    question=(
        "How does a needle's attention decay as the context grows, and which temperature schedule "
        "stops it?"
    ),
    caption=(
        "Top: attention on the needle by context length for three laws of distractors; lines are "
        "exact expectations, shades certified bounds, points means over seeds with 95 % intervals. "
        "Bottom: effective support; the log-partition of Gaussian distractors against the "
        "random-energy model; and the tau at which the needle reaches the target mass."
    ),
    config=DilutionConfig,
    train=train,
    draw=draw,
    judge=judge,
    presets={"smoke": _SHORT | {"seeds": 4, "critical_length": 1000}, "large": {"seeds": 512}},
    dimensions={
        "law": "of the distractors' scores",
        "needles": "number of keys that matter",
        "freezing_length": "n of the curves by scaled tau",
        "scaled_tau": "tau over its critical value",
    },
)
