"""Every mechanism on every problem, on one scale between exact Bayes and the naive predictor.

Not yet among the experiments of the report: it makes no claims.
"""

from analysis.experiments.atlas.figure import draw
from analysis.experiments.atlas.train import AtlasConfig, summarise, train
from analysis.experiments.base import Experiment
from ssa_theory.mechanism import VANILLA

__all__ = ["ATLAS", "AtlasConfig"]

ATLAS = Experiment(
    name="atlas",
    question="Which mechanism is best on which problem, and how far is it from Bayes?",
    caption=(
        "(a) Excess over Bayes, 0 exact Bayes and 1 the naive predictor, means over seeds, of every "
        "mechanism at its own best step size; mechanisms and problems in an order in which "
        "neighbours are alike; grey where a problem cannot be worn. (b) Its mean over the problems "
        "that a mechanism can wear against the parameters that it adds."
    ),
    config=AtlasConfig,
    train=train,
    summarise=summarise,
    draw=draw,
    judge=lambda config, result: [],
    presets={
        "smoke": {
            "seeds": 4,
            "mechanisms": (VANILLA, "ssa", "sink"),
            "worlds": ("graph", "trigger", "location"),
            "steps": 40,
            "cooldown_steps": 10,
            "tuning_seeds": 2,
        },
        "large": {"seeds": 256, "steps": 2000, "cooldown_steps": 200},
    },
)
