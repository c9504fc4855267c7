"""Are norms smaller, and rows spikier, with a query temperature, at equal steps and equal loss?"""

from analysis.experiments.base import Experiment
from analysis.experiments.norms import claims, figure, train

NORMS = Experiment(
    name="norms",
    question="Is the norm distribution of W and of tokens smaller, and the attention spikier, "
    "with a query temperature?",
    caption="The graded graph and the letters of English text, each after equal steps and at "
    "equal loss, where each model first reaches the loss at which the slowest model of its seed "
    "has made nine tenths of its progress. scaled is the control: vanilla with one learned scale, "
    "the same for every token. Above, as figure 2 of the paper: distributions over the tokens of "
    "all models of the effective weight tau_i ||W|| and of the spikiness 1 / (K sum s^2) of their "
    "rows, smaller being spikier (the paper's means, of a language model: 0.39 for vanilla "
    "attention, 0.26 for SSA); dashed lines are means, marks above them have their 95 % intervals "
    "over seeds, outer bins hold the extremes. Below, means with 95 % intervals: the spectral norm "
    "of W, the token norm ||W^T e_i|| and the effective logit scale tau_i ||W^T e_i||; effective "
    "support exp(entropy) of each learned row against that of its target; and the norm of W by the "
    "share of the slowest model's progress. A softmax row is spiky, never sparse.",
    config=train.NormsConfig,
    train=train.train,
    seeds_per_block=train.seeds_per_block,
    summarise=train.summarise,
    draw=figure.draw,
    judge=claims.judge,
    presets={
        "smoke": {"seeds": 4, "learning_rates": (0.06,), "steps": 60, "letters_steps": 20},
        "paper": {"seeds": 128},
        "large": {"seeds": 1024},
    },
    dimensions={
        "record": "place among the recorded steps; its step is `step`",
        "comparison": "of models at equal steps, or at an equal loss",
        "progress": "share of the slowest model's progress",
    },
)
