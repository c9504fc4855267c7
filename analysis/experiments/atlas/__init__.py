"""Every mechanism on every problem, on one scale between exact Bayes and the naive predictor."""

from analysis.experiments.atlas.claims import judge
from analysis.experiments.atlas.figure import draw
from analysis.experiments.atlas.train import AtlasConfig, join_units, summarise, train, units
from analysis.experiments.base import Experiment, Units
from analysis.experiments.settings import QUICK
from ssa_theory.mechanism import MECHANISMS, VANILLA

__all__ = ["ATLAS", "AtlasConfig"]

_FEW = {"mechanisms": (VANILLA, "ssa", "sink"), "problems": ("graph", "trigger")}
ATLAS = Experiment(
    name="atlas",
    question="Which mechanism is best on which problem, and how far is it from Bayes?",
    caption=(
        "(a) Error above Bayes, 0 exact Bayes and 1 the naive predictor, means over seeds, of every "
        "mechanism at its own best step size, after equally many steps; bold: the best of a "
        "problem; mechanisms and problems in an order in which neighbours are alike; grey: no "
        "number, the letter says why. (b) Its mean over all problems, of which those that a mechanism "
        "cannot wear count as vanilla's, against the parameters that it adds (median over "
        "problems); on the line no other is both smaller and better. (c) By problem the best two "
        "mechanisms by their means: the error of the first over that of the second (filled), and "
        "SSA's over that of the first (open), as ratios of geometric means, paired by seed; above 1 "
        "where few seeds make up the mean. 95 % intervals over seeds."
    ),
    config=AtlasConfig,
    train=train,
    summarise=summarise,
    dimensions={"problem": "a column of the atlas: a task with what is tested of it"},
    units=Units(units, join_units),
    draw=draw,
    judge=judge,
    presets={
        "smoke": QUICK | _FEW | {"steps": 20, "cooldown_steps": 5},
        "large": {"mechanisms": tuple(MECHANISMS)},
    },
)
