"""The paper's denoising task (arXiv 2411.12892, Table 2): how near does each come to Bayes?"""

from analysis.experiments.base import Experiment
from analysis.experiments.basis_denoise.claims import judge
from analysis.experiments.basis_denoise.figure import draw
from analysis.experiments.basis_denoise.train import BasisDenoiseConfig, summarise, train
from analysis.experiments.settings import QUICK, cells_per_block
from ssa_theory.mechanism import VANILLA

__all__ = ["BASIS_DENOISE", "BasisDenoiseConfig"]

_SMALL = {"swept_noises": (1.0,), "swept_lengths": (4,), "held_out": 64}
_SWEPT = (VANILLA, "key-bias", "ssa-value", "value-sigmoid", "gate-and-sink")
_LARGE = {"swept_lengths": (16, 32, 64), "swept_mechanisms": _SWEPT}
BASIS_DENOISE = Experiment(
    name="basis-denoise",
    question="On the paper's denoising task, does a learned value temperature reach the threshold "
    "that stands for it, is vanilla as bad as the mean token, and how far is each from Bayes?",
    caption=(
        "Risk of the normalised output, at most 4; 2 - 2 / sqrt(K) without information. (a) At the "
        "default, every trained mechanism (with its number of parameters beyond vanilla's) beside "
        "the exact estimators; (b) by noise, (c) by length, over the risk of the mean token, exact "
        "ones without markers; (d) learned tau_v of a token by its largest coordinate, over its mean "
        "for tokens that carry the signal, beside the paper's hard threshold at 1/2; at every length "
        "and noise (e) vanilla over the mean token, (f) learned value temperatures over that "
        "threshold. Means and 95 % intervals over seeds."
    ),
    config=BasisDenoiseConfig,
    train=train,
    seeds_per_block=cells_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={
        "smoke": QUICK | _SMALL | {"steps": 30, "cooldown_steps": 10},
        "large": _LARGE | {"seeds": 512, "steps": 1000, "cooldown_steps": 300},
    },
    dimensions={"peak": "largest coordinate of a token, the middle of its bin"},
)
