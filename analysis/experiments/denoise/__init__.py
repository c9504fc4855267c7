"""How near to Bayes does each temperature come in denoising?"""

from analysis.experiments.base import Experiment
from analysis.experiments.denoise.claims import judge
from analysis.experiments.denoise.figure import draw
from analysis.experiments.denoise.train import DenoiseConfig, summarise, train
from analysis.experiments.settings import QUICK, cells_per_block

__all__ = ["DENOISE", "DenoiseConfig"]

_SMALL = {"swept_filler_noise": (4.0,), "held_out": 64}
DENOISE = Experiment(
    name="denoise",
    question="How near to the best possible does each temperature come in denoising, between the "
    "naive mean and Bayes?",
    caption=(
        "Left: mean squared error of every trained mechanism and of the exact baselines, per "
        "coordinate. Middle: the same by the noise of the fillers, theory as lines. Right: the "
        "learned value temperature of a token by its norm, beside the posterior probability that "
        "such a token is relevant. Means and 95 % intervals over seeds."
    ),
    config=DenoiseConfig,
    train=train,
    seeds_per_block=cells_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={
        "smoke": QUICK | _SMALL | {"steps": 30, "cooldown_steps": 10},
        "large": {"seeds": 512, "steps": 1000, "cooldown_steps": 300},
    },
    dimensions={
        "norm": "Euclidean norm of a token",
        "filler_noise": "s_noise, standard deviation of a noise token in each coordinate",
        "curve_filler_noise": "s_noise of the curves of exact baselines",
    },
)
