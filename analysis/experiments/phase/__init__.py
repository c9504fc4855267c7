"""Where does selective attention help, and where not? Dimension x similarity x training time x
graph family.
"""

from analysis.experiments.base import Experiment
from analysis.experiments.phase.claims import judge
from analysis.experiments.phase.figure import draw
from analysis.experiments.phase.train import PhaseConfig, seeds_per_block, summarise, train

__all__ = ["PHASE", "PhaseConfig"]

PHASE = Experiment(
    name="phase",
    question="Where does SSA help, and where not: embedding dimension, similarity of tokens, "
    "training time, graph family?",
    caption=(
        "Maps of the error of a mechanism minus that of vanilla attention, paired by seed and "
        "averaged over seeds; rows are training steps, columns graph families, each map embedding "
        "dimension over vocabulary size (d / K) against similarity of the embeddings. Blue, "
        "negative: the mechanism is better; red, positive, framed in black: vanilla is "
        "significantly better. Hatched: no significant difference (sign-flip test, "
        "Benjamini-Hochberg over all cells, 5 %)."
    ),
    config=PhaseConfig,
    train=train,
    seeds_per_block=seeds_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={
        "smoke": {"seeds": 4, "dims": (4, 8), "similarities": (0.0, 0.9), "steps": (50, 200)},
        "large": {"seeds": 3400, "compile": "on"},
    },
)
