"""How many steps to a given loss, at a mechanism's own best step size and at vanilla's?"""

from analysis.experiments.base import Experiment
from analysis.experiments.convergence import claims, config, figure, train

CONVERGENCE = Experiment(
    name="convergence",
    question="How many steps to a given loss: does selective attention optimise faster?",
    caption="Columns: the graded graph, the letters of English text, and the control, the graded "
    "graph with d = K. Top: cross-entropy above Bayes by step, each mechanism at its own best "
    "learning rate for the level of the upper dotted line; the lower one is vanilla's exact "
    "optimum. Middle: restricted mean of the steps to that "
    "level by learning rate; a run that never reaches it counts as the budget (dotted). Bottom: "
    "ratio of geometric mean steps, mechanism / vanilla, to each level, at each mechanism's own "
    "best learning rate (large marks) and at vanilla's best (small); hollow marks: some run did "
    "not reach the level; no mark: none did. Learning rates are chosen on the first quarter of the "
    "seeds; means and 95 % intervals are over the rest.",
    config=config.ConvergenceConfig,
    train=train.train,
    seeds_per_block=train.seeds_per_block,
    summarise=train.summarise,
    draw=figure.draw,
    judge=claims.judge,
    presets={
        "smoke": {"seeds": 4, "steps": 60, "letters_steps": 20, "control_steps": 60},
        "large": {"seeds": 512},
    },
    dimensions={
        "level": "of the loss: share of the initial cross-entropy gap",
        "point": "place along a curve; its step is curve_step",
        "choice": "of the learning rate: each mechanism's own best, or vanilla's for all",
        "other": "mechanism that is compared with vanilla",
    },
)
