"""The settings of the critical temperatures: laws of scores, schedules, lengths."""

from collections.abc import Mapping

from pydantic import Field

from analysis.experiments.mechanisms import Mechanisms, chosen
from analysis.experiments.settings import Cell, CooldownConfig
from analysis.problems.graph import GraphProblem
from analysis.problems.schedules import schedules
from ssa_theory.mechanism import VANILLA, Form, Layer, Misfit
from ssa_theory.theory import critical as theory
from ssa_theory.theory.paper.schedules import Family

LAWS: Mapping[str, theory.ScoreLaw] = {
    "equal": theory.Equal(2.0),
    "simplex": theory.Simplex(0.05, 0.5),
    "gaussian": theory.Gaussian(1.0),
    "exponential": theory.Exponential(1.0),
    "power-law": theory.PowerLaw(1.0, 3.0),
    "bounded": theory.Bounded(1.0),
    "crowded": theory.Crowded(1.0),
}
PAPERS, PEERS = "ssa-position", (VANILLA, "root", "ssmax", "log2", "power", "asentmax-position")
TRAINED = (VANILLA, "ssa-query")


class CriticalConfig(CooldownConfig):
    """Rows of independent scores of several laws, and rows of trained models."""

    mechanisms: Mechanisms = Field(
        (PAPERS, *PEERS, "yarn"), description="position schedules, fitted to the critical tau"
    )
    lengths: tuple[int, ...] = Field(
        (10, 32, 100, 316, 1000, 10_000, 100_000, 1_000_000),
        description="numbers of scores n, ascending; one seed in 16 measures the last",
    )
    trained_length: int = Field(
        1000, ge=2, description="schedules are fitted up to this n, and tested beyond"
    )
    share: float = Field(
        theory.SHARE, gt=0.5, lt=1, description="weight of the largest score at the critical tau"
    )

    def check(self) -> None:
        self.require_ascending("lengths", 2, 10_000_000)
        if len([n for n in self.lengths if n <= self.trained_length]) < 2 or len(self.lengths) < 4:
            raise ValueError(
                f"lengths must be at least four, two of them up to trained_length "
                f"{self.trained_length}, got {self.lengths}: add shorter ones"
            )
        for one in chosen(self.mechanisms):
            self.family(one.name)
        super().check()

    def family(self, name: str) -> Family:
        """The schedules that a mechanism can have, up to a factor. Raises Misfit without any."""
        (one,) = (m for m in chosen(self.mechanisms) if m.name == name)
        form = Form(1, given_scores=True, position=True, trained_length=self.trained_length)
        least = schedules(Layer(one, form).mechanism)
        if least is None:
            raise Misfit(f"mechanism {name} needs a schedule of n alone")
        return least.family

    @property
    def cells(self) -> list[Cell[GraphProblem]]:
        """The models whose rows are measured."""
        models = chosen(TRAINED)
        return [Cell("letters", GraphProblem("letters", dim=12), self.training, models, ())]
