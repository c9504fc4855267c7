"""The settings of the convergence experiment."""

from pydantic import Field

from analysis.experiments.chains import Chain, ChainsConfig
from analysis.experiments.settings import LearningRates


class ConvergenceConfig(ChainsConfig):
    """Learn transition matrices at several learning rates; count the steps to losses between
    vanilla's initial one and its exact optimum, and below.
    """

    seeds: int = Field(
        88,
        ge=2,
        le=10_000_000,
        description="number of seeds; the first quarter chooses learning rates, the rest reports",
    )
    steps: int = Field(
        400,
        ge=1,
        le=1_000_000,
        description="training steps on the graded graph, every run's budget",
    )
    letters_steps: int = Field(
        200, ge=0, le=1_000_000, description="training steps on the letters; 0: skip them"
    )
    control_steps: int = Field(
        400, ge=0, le=1_000_000, description="training steps with d = K; 0: skip this control"
    )
    learning_rates: LearningRates = (0.03, 0.1, 0.3, 1.0, 3.0)
    levels: tuple[float, ...] = Field(
        (0.5, 0.25, 0.0625, -0.25),
        description="losses to reach, each in (-1, 1): 1 is vanilla's loss at initialisation, 0 its "
        "exact optimum, -1 the loss of Bayes",
    )
    shown_level: float = Field(
        0.5, description="the level (one of levels) of the curves by learning rate and by step"
    )

    def check(self) -> None:
        self.require_distinct("levels")
        if wrong := [level for level in self.levels if not -1 < level < 1]:
            raise ValueError(
                f"levels must lie in (-1, 1), got {wrong}: 1 is vanilla's initial loss, -1 Bayes"
            )
        self.require_listed("shown_level", "levels")
        super().check()

    @property
    def cells(self) -> list[Chain]:
        return super().cells + ([self.control(self.control_steps)] if self.control_steps else [])

    @property
    def tuning_seeds(self) -> int:
        """How many seeds, the first ones, choose the learning rates and report nothing."""
        return max(1, self.seeds // 4)
