"""Where does selective attention help? Dimension x similarity x training time x graph family."""

from analysis.experiments.base import Experiment
from analysis.experiments.phase.claims import judge
from analysis.experiments.phase.figure import draw
from analysis.experiments.phase.train import PhaseConfig, seeds_per_block, summarise, train

__all__ = ["PHASE", "PhaseConfig"]

_SMALL = {"families": ("graded", "erdos-renyi"), "dims": (4, 8), "similarities": (0.0, 0.9)}
PHASE = Experiment(
    name="phase",
    question="Where does SSA help, and where not: embedding dimension, similarity of tokens, "
    "training time, graph family?",
    caption=(
        "Maps of the error of a mechanism against that of vanilla attention, in percent, each at "
        "its best learning rate, paired by seed; geometric means. Rows are training steps; each map "
        "is embedding dimension over vocabulary size (d / K) against similarity of the embeddings. "
        "Bold: mean over graph families, for every mechanism. Blue: the mechanism is better; red, "
        "framed in black: vanilla is. Hatched: within 5 %. Below: the same by learning rate, both at "
        "the same one, median over all cells and seeds."
    ),
    config=PhaseConfig,
    train=train,
    seeds_per_block=seeds_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={
        "smoke": _SMALL | {"seeds": 4, "steps": (50, 200), "learning_rates": (0.06, 0.2)},
        "large": {"seeds": 500, "compile": "on"},
    },
    dimensions={
        "dim": "d, width of the embeddings",
        "family": "of the random graphs",
        "similarity": "strength of the component that all embeddings share",
        "selective": "mechanism that is compared with vanilla",
        "measure": "of the error",
    },
)
