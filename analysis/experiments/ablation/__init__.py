"""Which of the temperatures contributes? Every role and term switched on and off, on the tasks
where it can matter.

Position schedules against one another (vanilla, YaRN, SSA and others) are the experiment `length`.
"""

from analysis.experiments.ablation.claims import judge
from analysis.experiments.ablation.figure import draw
from analysis.experiments.ablation.train import AblationConfig, summarise, train
from analysis.experiments.base import Experiment
from analysis.experiments.settings import QUICK, cells_per_block

__all__ = ["ABLATION", "AblationConfig"]

_STEPS = {"letters_steps": 60, "denoise_steps": 30, "cooldown_steps": 10}
_LONG = {"letters_steps": 4000, "denoise_steps": 2000, "cooldown_steps": 500}
_SIZES = {"train_lengths": (4, 8), "longer_length": 16, "bracket_samples": 100, "held_out": 64}
ABLATION = Experiment(
    name="ablation",
    question="Which of the temperatures contributes: query, key or value, token or position, "
    "shared weights or an own MLP?",
    caption=(
        "Left and middle: error above the Bayes predictor of each mechanism as a share of vanilla "
        "attention's, on the bigrams of letters and on denoising in growing contexts, with the "
        "parameters that it adds; 0 is Bayes, 1 is vanilla. Right: mean squared error of denoising "
        "(per coordinate) by context length, trained in the grey range, above the exact Bayes risk "
        "(bracketed beyond). Means and 95 % intervals over seeds, paired; some are narrower than "
        "their mark."
    ),
    config=AblationConfig,
    train=train,
    seeds_per_block=cells_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={"smoke": QUICK | _STEPS | _SIZES, "large": _LONG | {"seeds": 512}},
    dimensions={"part": "of the experiment: the task of the mechanism"},
)
