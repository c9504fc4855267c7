"""From which inverse temperature on does the largest of n scores win? Predicted, and measured."""

from analysis.experiments.base import Experiment
from analysis.experiments.critical.claims import judge
from analysis.experiments.critical.config import CriticalConfig
from analysis.experiments.critical.figure import draw
from analysis.experiments.critical.train import summarise, train
from analysis.experiments.settings import cells_per_block

__all__ = ["CRITICAL", "CriticalConfig"]

_SHORT = {"lengths": (10, 32, 100, 1000), "trained_length": 32}
CRITICAL = Experiment(
    name="critical",
    question="From which temperature on does the largest of n scores win, and who keeps to it?",
    caption=(
        "(a) The tau from which on the largest of n scores has the share that is asked for, for "
        "seven laws of scores: predicted before any score is seen by counting gaps (lines), and "
        "measured (points, medians over seeds). (b) How far position schedules are from it a "
        "hundred times beyond the lengths that they are fitted to, means over seeds; bold: the "
        "nearest of a law. (c) Of rows of models trained on letters: the count of a row's gaps "
        "brackets its critical tau; left of the dotted line the row is concentrated."
    ),
    config=CriticalConfig,
    train=train,
    seeds_per_block=cells_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    dimensions={
        "law": "of the scores",
        "length": "n, the number of scores of a row",
        "model": "mechanism of the trained models whose rows are measured",
        "row": "current token of a trained row, by its place",
    },
    presets={
        "smoke": _SHORT | {"seeds": 3, "steps": 10, "cooldown_steps": 2},
        "large": {"seeds": 256},
    },
)
