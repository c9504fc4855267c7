"""Config and training of the denoising experiment: one problem a setting of s_noise."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import xarray as xr
from pydantic import Field

from analysis.claims.bands import mean_band
from analysis.experiments.base import Progress
from analysis.experiments.mechanisms import Mechanisms
from analysis.experiments.settings import Steps, SweptConfig, join_settings, train_cells
from analysis.problems import DenoiseProblem
from analysis.problems.base import DIVERGED
from analysis.problems.denoise import DENOISE_MEASURES, HELD_OUT, DenoisingQuery
from ssa_theory.mechanism import VANILLA
from tasks.denoising import LONGEST_EXACT, DenoisingTask

SATURATED_SHARE = 0.99  # of a model's gates at their upper bound
CLOSED_FORMS = ("naive", "shrunk", "threshold", "additive", "oracle")
CURVES = ("naive", "shrunk", "additive", "oracle")  # drawn as lines over s_noise
_CURVE_POINTS = 30


class DenoiseConfig(SweptConfig):
    """Recover a Gaussian signal from L tokens, of which a share carries it with noise and the rest
    is noise alone.
    """

    dim: int = Field(8, ge=1, le=256, description="dimension d of signal and tokens")
    length: int = Field(
        10, ge=1, le=LONGEST_EXACT, description="tokens L; up to 14 the Bayes baseline is exact"
    )
    relevance: float = Field(
        0.3, gt=0, lt=1, description="probability rho that a token carries the signal"
    )
    prior_scale: float = Field(
        1.0, gt=0, description="standard deviation s_y of the signal, per coordinate"
    )
    signal_noise: float = Field(0.5, gt=0, description="noise s_signal on tokens that carry it")
    filler_noise: float = Field(
        2.5, gt=0, description="standard deviation s_noise of the others, at the default setting"
    )
    swept_filler_noise: tuple[float, ...] = Field(
        (0.6, 1.7, 4.0),
        description="further s_noise; the one at which norms carry no information is added to them",
    )
    query: DenoisingQuery = Field(
        "readout", description="attend from a learned constant, or from the last token"
    )
    mechanisms: Mechanisms = Field(
        (
            *(VANILLA, "ssa-mlp-value", "value-tanh", "value-sigmoid", "ssa-mlp-query"),
            *("ssa-mlp", "ssa-mlp-key", "ssa-mlp-key-shift", "gate-and-sink"),
        ),
        description="mechanisms to train at the default",
    )
    swept_mechanisms: Mechanisms = Field(
        (VANILLA, "ssa-mlp-value", "value-sigmoid", "gate-and-sink"),
        description="those to train at the other s_noise as well",
    )
    batch_size: int = Field(64, ge=1, le=65536, description="fresh samples a step")
    steps: Steps = 150
    held_out: int = Field(
        512, ge=2, le=1_000_000, description="held-out samples per seed and setting"
    )

    def check(self) -> None:
        if wrong := [s for s in self.swept_filler_noise if not s > 0]:
            raise ValueError(
                f"swept_filler_noise must be positive, got {wrong}: each is a standard deviation"
            )
        noises = sorted(self.noises.values())
        if any(np.isclose(a, b) for a, b in pairwise(noises)):
            raise ValueError(
                "filler_noise, swept_filler_noise and the point without information, "
                f"{self.no_information:.6g}, must all be different, got {noises}: drop or move one"
            )
        super().check()

    @property
    def no_information(self) -> float:
        """s_noise = sqrt(s_y^2 + s_signal^2): all tokens have one law, so a norm says nothing."""
        return float(np.hypot(self.prior_scale, self.signal_noise))

    @property
    def noises(self) -> dict[str, float]:
        """s_noise by the name of its setting, the default first."""
        swept = {f"s_noise {s:g}": s for s in self.swept_filler_noise}
        return {"default": self.filler_noise, "no information": self.no_information} | swept

    @property
    def problem(self) -> DenoiseProblem:
        """The problem at the default setting."""
        return self.build(DenoiseProblem, {"task": self.build(DenoisingTask)})

    @property
    def problems(self) -> dict[str, DenoiseProblem]:
        default = self.problem  # the others share its training data
        return {name: default.at(noise) for name, noise in self.noises.items()}


_ABOUT = {
    "bayes": "Bayes risk: mean exact posterior variance over the held-out samples of all seeds "
    "(per coordinate)",
    "bayes_error": "standard error of bayes over those samples",
    "naive": "risk of the mean token, in closed form",
    "shrunk": "risk of the best multiple of the mean token, in closed form",
    "threshold": "risk of the best norm threshold, by quadrature",
    "additive": "least risk of any sum of phi(x_i), by quadrature: bounds any value gate under "
    "uniform attention",
    "oracle": "risk with the relevant tokens known, in closed form",
    "gap_ratio": "(mse - held_out_bayes) / (naive - bayes): 0 for Bayes, 1 for the mean token",
    "gate_saturated": "whether all but 1 % of a model's gates are at their upper bound: it is "
    "vanilla, and no gradient says so",
    "relevance_by_norm": "pi(r), the probability that a token of that norm is relevant, at the "
    "default",
    "additive_gate": "h(r) of the best additive estimator sum h(||x||) x, at the default",
}


def train(config: DenoiseConfig, progress: Progress) -> xr.Dataset:
    """Train every mechanism on every seed and setting; NaN where it is not trained."""
    parts = [part.drop_dims("length") for part in train_cells(config, progress)]
    dataset = join_settings(config, [part.drop_dims("norm") for part in parts])
    dataset = dataset.assign_coords(filler_noise=("setting", list(config.noises.values())))
    return dataset.merge(parts[0][["gate_by_norm"]])


def summarise(config: DenoiseConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add the exact baselines, and what the figure shows: means with 95 % intervals over seeds."""
    dataset["bayes"] = dataset["held_out_bayes"].mean("seed")
    samples = config.seeds * config.held_out
    variance = dataset["held_out_square"].mean("seed") - dataset["bayes"] ** 2
    dataset["bayes_error"] = np.sqrt(variance.clip(min=0.0) / (samples - 1))
    noises, task = np.array(list(config.noises.values())), config.problem.task
    curve = np.linspace(0.8 * noises.min(), 1.05 * noises.max(), _CURVE_POINTS)
    curve = np.unique(np.append(curve, config.no_information))
    dataset = dataset.assign_coords(curve_filler_noise=curve)
    total = len(CLOSED_FORMS) * len(noises) + len(CURVES) * len(curve)
    advance = progress("exact risks", total)

    def risks(name: str, at: np.ndarray) -> np.ndarray:
        values = []
        for noise in at.tolist():  # each takes up to seconds where a noise is small
            values.append(replace(task, filler_noise=noise).risk(name))
            advance(1)
        return np.array(values)

    for name in CLOSED_FORMS:
        dataset[name] = ("setting", risks(name, noises))
    for name in CURVES:
        about = {"description": f"{name} by s_noise"}
        dataset[f"{name}_curve"] = ("curve_filler_noise", risks(name, curve), about)
    gap = (dataset["mse"] - dataset["held_out_bayes"]) / (dataset["naive"] - dataset["bayes"])
    dataset["gap_ratio"] = gap.transpose("mechanism", "seed", "setting")
    upper = dataset["gate_saturation"].sel(bound="upper", drop=True)
    dataset["gate_saturated"] = upper > SATURATED_SHARE
    radius = dataset["norm"].values
    dataset["relevance_by_norm"] = ("norm", task.relevance_given_norm(radius))
    dataset["additive_gate"] = ("norm", task.additive_gate(radius))
    measured = {name: measure.about for name, measure in (DENOISE_MEASURES | DIVERGED).items()}
    for name, about in (measured | HELD_OUT | _ABOUT).items():
        if name in dataset:
            dataset[name].attrs["description"] = about
    for name in ("mse", "gate_by_norm"):
        dataset[f"{name}_band"] = mean_band(dataset[name])
    return dataset
