"""Config and training of the ablation: the same question on two problems."""

from dataclasses import replace

import numpy as np
import xarray as xr
from pydantic import Field

from analysis.claims.bands import mean_band, ratio_band
from analysis.experiments.base import Progress
from analysis.experiments.mechanisms import ComparedMechanisms, chosen
from analysis.experiments.settings import Cell, CellsConfig, CooldownSteps, train_cells
from analysis.problems import DenoiseProblem, GraphProblem, Training
from analysis.problems.tuned import TUNED
from ssa_theory import Stream, member_generator
from ssa_theory.mechanism import VANILLA, Mechanism, Misfit
from tasks.denoising import LONGEST_EXACT, DenoisingTask


class AblationConfig(CellsConfig):
    """Leave temperatures out: on the bigrams of letters (query, key), and on denoising in growing
    contexts (all three).
    """

    letters_mechanisms: ComparedMechanisms = Field(
        (
            *(VANILLA, "ssa-constant", "ssa-position", "ssa-feature", "ssa-feature-key"),
            *("ssa-query", "ssa-key", "ssa-query-key", "ssa-mlp-query", "ssa-mlp-query-key"),
        ),
        description="mechanisms to train on letters; vanilla is the peer",
    )
    letters_dim: int = Field(
        12, ge=1, le=256, description="embedding dimension d of the 27 letters"
    )
    letters_steps: int = Field(600, ge=1, le=1_000_000, description="training steps on letters")
    denoise_mechanisms: ComparedMechanisms = Field(
        (
            *(VANILLA, "ssa-mlp-query", "ssa-mlp-key", "ssa-mlp-value", "ssa-mlp-query-key"),
            *("ssa-mlp", "ssa-mlp-key-value", "ssa-mlp-query-key-value"),
            *("ssa-mlp-token", "ssa-position", "ssa"),
        ),
        description="mechanisms to train on denoising; vanilla is the peer",
    )
    train_lengths: tuple[int, ...] = Field(
        (4, 8, 12),
        description="context lengths of denoising, in turn; up to 14 the Bayes baseline is exact",
    )
    longer_length: int = Field(
        48, ge=2, le=512, description="longer context of the test, where Bayes is bracketed"
    )
    bracket_samples: int = Field(1000, ge=2, le=1_000_000, description="samples of that bracket")
    denoise_steps: int = Field(
        320, ge=1, le=1_000_000, description="denoising steps at the full step size"
    )
    cooldown_steps: CooldownSteps = 80
    batch_size: int = Field(32, ge=1, le=65536, description="fresh denoising samples a step")
    held_out: int = Field(
        256, ge=2, le=1_000_000, description="held-out denoising samples per seed"
    )

    def check(self) -> None:
        lengths = self.train_lengths
        self.require_distinct("train_lengths")
        if wrong := [n for n in lengths if not 1 <= n <= LONGEST_EXACT]:
            raise ValueError(
                f"train_lengths must lie in [1, {LONGEST_EXACT}], where Bayes is exact, got "
                f"{wrong[0]}: choose others"
            )
        if self.longer_length <= max(lengths):
            raise ValueError(
                "longer_length must exceed the training lengths, got "
                f"{self.longer_length} for {lengths}: raise it"
            )
        super().check()

    @property
    def letters(self) -> list[Cell[GraphProblem]]:
        """The bigrams of English letters, with the mechanisms that are trained on them.

        Each row weighs as often as its letter occurs: the loss is the cross-entropy of predicting
        the text. All queries see the same n, so that W absorbs position terms; they act only in
        mechanisms that have no other.
        """
        plain = GraphProblem(
            family="letters", dim=self.letters_dim, row_weights="stationary", log_frequency=True
        )
        mechanisms = chosen(self.letters_mechanisms)
        by_position = [m for m in mechanisms if not _fits(plain, m)]
        others = [m for m in mechanisms if m not in by_position]
        training = self.training("letters")
        each = ((plain, others), (replace(plain, position=True), by_position))
        return [Cell("letters", p, training, models, (training.steps,)) for p, models in each]

    @property
    def denoise(self) -> Cell[DenoiseProblem]:
        """Denoising from the last token, with the mechanisms that are trained on it.

        A constant query would make the query temperature a constant that W absorbs.
        """
        task = DenoisingTask(length=self.longer_length)
        problem = DenoiseProblem(task, "last", self.batch_size, self.held_out, self.train_lengths)
        training, models = self.training("denoise"), chosen(self.denoise_mechanisms)
        return Cell("denoise", problem, training, models, ())

    @property
    def cells(self) -> list[Cell[GraphProblem] | Cell[DenoiseProblem]]:
        return [*(cell for cell in self.letters if cell.mechanisms), self.denoise]

    def training(self, part: str) -> Training:
        """How every model of a part is trained."""
        if part == "letters":
            return self.training_of(self.letters_steps)
        return self.training_of(self.denoise_steps, self.cooldown_steps)


_ABOUT = {
    "excess": "letters: cross-entropy above H* (nats); denoise: risk above Bayes (per coordinate), "
    "mean over train_lengths",
    "relative_excess": "excess over that of the part's vanilla attention, ratio of geometric means "
    "over seeds: 0 for Bayes, 1 for vanilla",
    "l1_error": "letters: L1 distance between learned and true rows, weighted by letter frequency; "
    "NaN: not letters",
    "relative_l1": "L1 error over that of vanilla attention, likewise; NaN: not letters",
    "risk": "denoise: risk given the seed's held-out samples up to the training lengths, squared "
    "error on them beyond (per coordinate); NaN: not denoise",
    "held_out_bayes": "exact Bayes risk given the seed's held-out samples, its posterior variance; "
    "NaN: beyond train_lengths",
    "bayes_lower": "lower end of a 95 % interval of the Bayes risk; beyond the training lengths, "
    "of a certified bracket",
    "bayes_upper": "upper end of the same",
    "shrunk": "risk of the best multiple of the mean token, in closed form",
    "additive": "least risk of any sum of phi(x_i), by quadrature: bounds any value gate under "
    "uniform attention",
    "additive_relative_excess": "relative excess that the least risk of any sum of phi(x_i) has",
    "entropy_rate": "H* of the letters, the cross-entropy of the true bigrams (nats)",
    "added_parameters": "parameters beyond those of the part's vanilla attention, counted",
    "learning_rate": TUNED,
    "diverged": "whether the loss was ever not finite; the model's other numbers are NaN",
}


def train(config: AblationConfig, progress: Progress) -> xr.Dataset:
    """Train every mechanism of each part on every seed."""
    *letters, denoise = [
        _labelled(cell, part)
        for cell, part in zip(config.cells, train_cells(config, progress), strict=True)
    ]
    joined = xr.concat([_excess(part) for part in letters], "mechanism", join="exact")
    rate = config.letters[0].problem.tasks([0])[0].entropy_rate
    names = [f"letters-{m.name}" for m in chosen(config.letters_mechanisms)]
    risk = denoise[["excess", "risk", "bayes_by_length", *_kept(denoise)]]
    parts = [
        joined.sel(mechanism=names).assign(entropy_rate=rate),
        risk.rename(bayes_by_length="held_out_bayes"),
    ]
    return xr.concat(parts, "mechanism", data_vars="minimal", join="exact")


def summarise(config: AblationConfig, dataset: xr.Dataset, progress: Progress) -> xr.Dataset:
    """Add the exact baselines, and what the figure shows: ratios and means with 95 % intervals."""
    _add_baselines(config, dataset)
    peer = dataset["peer"].values
    for name, own in (("relative_excess", "excess"), ("relative_l1", "l1_error")):
        vanilla = dataset[own].copy(data=dataset[own].sel(mechanism=peer))
        dataset[name] = ratio_band(dataset[own], vanilla, _ABOUT[name])
    dataset["risk_band"] = mean_band(dataset["risk"].sel(mechanism=dataset["part"] == "denoise"))
    for name, about in _ABOUT.items():
        dataset[name].attrs["description"] = about
    return dataset


def _add_baselines(config: AblationConfig, dataset: xr.Dataset) -> None:
    """The Bayes risk of every length, exact or in a bracket, and the closed-form risks."""
    exact, task = mean_band(dataset["held_out_bayes"]).values, config.denoise.problem.task
    # Whatever the seeds of the run, the same bracket.
    generator = member_generator(0, Stream.EVALUATION)
    bracket = task.bayes_bracket(config.bracket_samples, generator)
    lower = bracket.lower.value - 1.96 * bracket.lower.error
    upper = bracket.upper.value + 1.96 * bracket.upper.error
    dataset["bayes_lower"] = ("length", [*exact[:-1, 1], lower])
    dataset["bayes_upper"] = ("length", [*exact[:-1, 2], upper])
    for name in ("shrunk", "additive"):
        risks = [replace(task, length=n).risk(name) for n in dataset["length"].values.tolist()]
        dataset[name] = ("length", risks)
    bound = dataset["additive"].values[:-1].mean() - exact[:-1, 0].mean()
    vanilla = np.log(dataset["excess"].sel(mechanism=f"denoise-{VANILLA}")).mean().item()
    dataset["additive_relative_excess"] = bound / np.exp(vanilla)


def _kept(part: xr.Dataset) -> list[str]:
    """What is kept of both parts."""
    tuned = ("tuning_error", "longer_error", "longer_settled")
    always = ["diverged", "added_parameters", "learning_rate"]
    return always + [name for name in tuned if name in part]


def _excess(letters: xr.Dataset) -> xr.Dataset:
    """The excess cross-entropy of every mechanism, and its L1 error weighted as the loss is."""
    apart = abs(letters["learned_transition_matrix"] - letters["transition_matrix"])
    by_row = letters["stationary_distribution"] * apart.sum("next", skipna=False)
    kept = letters[_kept(letters)].assign(
        excess=letters["cross_entropy_gap"].isel(step=-1, drop=True),
        l1_error=by_row.sum("node", skipna=False).transpose("mechanism", "seed"),
    )
    return kept.drop_vars(["node", "next"], errors="ignore")


def _labelled(cell: Cell[GraphProblem] | Cell[DenoiseProblem], part: xr.Dataset) -> xr.Dataset:
    """With mechanisms named by part and name, and the parameters that they add."""
    added = [m.added_parameters(cell.problem.form) for m in cell.mechanisms]
    names = [f"{cell.name}-{m.name}" for m in cell.mechanisms]
    labelled = part.assign_coords(
        mechanism=names,
        part=("mechanism", [cell.name] * len(names)),
        peer=("mechanism", [f"{cell.name}-{VANILLA}"] * len(names)),
    )
    return labelled.assign(added_parameters=("mechanism", added))


def _fits(problem: GraphProblem, mechanism: Mechanism) -> bool:
    try:
        problem.layer(mechanism)
    except Misfit:
        return False
    return True
