"""Config and training of the paper's denoising task: one problem a setting of length and noise."""

import numpy as np
import xarray as xr
from pydantic import Field

from analysis.claims.bands import mean_band
from analysis.experiments.base import Progress
from analysis.experiments.mechanisms import ComparedMechanisms, chosen
from analysis.experiments.settings import Steps, SweptConfig, join_settings, train_cells
from analysis.problems.basis_denoise import BASELINES, BasisDenoiseProblem, SharedDraws
from ssa_theory.mechanism import VANILLA
from tasks.basis_denoising import BasisDenoisingTask

DEFAULT = "default"
"""The setting at which every mechanism is trained."""


class BasisDenoiseConfig(SweptConfig):
    """Predict a direction e_q from L tokens of which a share carries it, all with the same noise,
    attending from the last token, which does carry it.
    """

    dim: int = Field(8, ge=2, le=256, description="dimension d and number K of directions")
    relevance: float = Field(
        0.25,
        gt=0,
        lt=1,
        description="probability alpha that a token but the last carries the signal",
    )
    length: int = Field(8, ge=2, le=4096, description="tokens L at the default setting")
    noise: float = Field(
        0.3,
        gt=0,
        description="standard deviation sigma of the noise, per coordinate, at the default setting",
    )
    swept_noises: tuple[float, ...] = Field((0.1, 0.5, 1.0), description="further sigma")
    swept_lengths: tuple[int, ...] = Field(
        (16, 32), description="further L; every length is trained at every noise"
    )
    mechanisms: ComparedMechanisms = Field(
        (
            *(VANILLA, "scaled", "key-bias", "sink"),
            *("ssa-value", "value-tanh", "value-sigmoid", "gate-and-sink"),
        ),
        description="mechanisms to train at the default; vanilla is the peer",
    )
    swept_mechanisms: ComparedMechanisms = Field(
        (VANILLA, "ssa-value", "value-sigmoid"),
        description="those to train at the other settings as well",
    )
    batch_size: int = Field(32, ge=1, le=65_536, description="fresh samples a step")
    steps: Steps = 100
    held_out: int = Field(
        256, ge=2, le=1_000_000, description="held-out samples per seed and setting"
    )

    def check(self) -> None:
        if wrong := [n for n in self.swept_lengths if not 2 <= n <= 4096]:
            raise ValueError(f"swept_lengths must lie in [2, 4096], got {wrong}: choose others")
        for name, all_of in (
            ("noise", (self.noise, *self.swept_noises)),
            ("length", (self.length, *self.swept_lengths)),
        ):
            if len(set(all_of)) != len(all_of):
                raise ValueError(
                    f"{name} and swept_{name}s must all be different, got {all_of}: drop one"
                )
        super().check()

    @property
    def problems(self) -> dict[str, BasisDenoiseProblem]:
        """Every length at every noise, named by what is not the default's; the default first."""
        lengths = {n: f"length {n}" for n in self.swept_lengths}
        noises = {s: f"noise {s:g}" for s in self.swept_noises}
        draws = SharedDraws()
        return {
            " ".join(filter(None, (long, loud))) or DEFAULT: BasisDenoiseProblem(
                BasisDenoisingTask(self.dim, length, self.relevance, noise),
                self.batch_size,
                self.held_out,
                draws,
            )
            for length, long in {self.length: "", **lengths}.items()
            for noise, loud in {self.noise: "", **noises}.items()
        }


def train(config: BasisDenoiseConfig, progress: Progress) -> xr.Dataset:
    """Every mechanism on every seed and setting; NaN where it is not trained."""
    tasks = [problem.task for problem in config.problems.values()]
    return join_settings(config, train_cells(config, progress)).assign_coords(
        noise=("setting", [t.noise for t in tasks]), length=("setting", [t.length for t in tasks])
    )


def summarise(config: BasisDenoiseConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add means with 95 % intervals over seeds, and the numbers of parameters."""
    for name in ("risk", *BASELINES):
        dataset[f"{name}_band"] = mean_band(dataset[name])
    at = dataset.sel(setting=DEFAULT, drop=True)
    dataset["gate_band"] = mean_band(at["gate_by_peak"])
    form = config.problems[DEFAULT].form
    added = np.array([m.added_parameters(form) for m in chosen(config.mechanisms)])
    about = "number of parameters beyond those of vanilla"
    dataset["added_parameters"] = ("mechanism", added, {"description": about})
    return dataset
