"""Imbalanced tokens (arXiv 2411.12892, Proposition 2): trained layers beside exact optima."""

from analysis.experiments.base import Experiment
from analysis.experiments.imbalance.claims import judge
from analysis.experiments.imbalance.figure import draw
from analysis.experiments.imbalance.train import ImbalanceConfig, seeds_per_block, summarise, train
from analysis.experiments.settings import QUICK

__all__ = ["IMBALANCE", "ImbalanceConfig"]

_SMALL = {"positions": 16, "powers": (0.0, 0.5, 1.0), "shares": (0.5,)}
IMBALANCE = Experiment(
    name="imbalance",
    question="Does a position temperature keep a prediction while one token crowds out the other, "
    "and does training find the best that a schedule can do?",
    caption=(
        "(a) Squared error by position within and beyond the training length (vertical line), "
        "beside the exact optimum of a constant and of the paper's schedule (counts are whole, hence "
        "the teeth); (b) trained loss "
        "against the exact least loss of the mechanism's schedules, every power and share; (c) "
        "loss by power, trained and exact; (d) learned margin of a over b beside that of zero loss. "
        "Medians and 95 % of the initialisations."
    ),
    config=ImbalanceConfig,
    train=train,
    seeds_per_block=seeds_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={
        "smoke": QUICK | _SMALL | {"steps": 60, "cooldown_steps": 20},
        "large": {"seeds": 256, "steps": 4000, "cooldown_steps": 400},
    },
)
