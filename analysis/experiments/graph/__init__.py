"""Does SSA learn the transition matrix of a graph better, and which temperature has each node?"""

from analysis.experiments.base import Experiment
from analysis.experiments.graph.claims import judge
from analysis.experiments.graph.figure import draw
from analysis.experiments.graph.train import GraphConfig, seeds_per_block, summarise, train

__all__ = ["GRAPH", "LES_MISERABLES", "LETTERS", "GraphConfig"]

_RUN = {
    "caption": (
        "Top: the graph (darker nodes have more entropy in their row), its transition matrix, and "
        "what vanilla and selective attention learned of it in the median seed; the error of the "
        "quarter of rows whose target is sharpest, of the quarter that is bluntest, and of those "
        "between. Bottom: cross-entropy above Bayes by step; learned temperature 1 / tau by the number of "
        "neighbours, or by row entropy; spectral norm of W over seeds; and L1 error, in the "
        "experiment graph in the control regime d = K; and the share of rows that attention never "
        "told apart from uniform. Lines and points are means over seeds, "
        "bands and bars their 95 % intervals."
    ),
    "config": GraphConfig,
    "train": train,
    "seeds_per_block": seeds_per_block,
    "summarise": summarise,
    "draw": draw,
    "judge": judge,
}
GRAPH = Experiment(
    name="graph",
    question="Does SSA learn the transition matrix of a small graph better, and which temperature "
    "does each node get?",
    presets={
        "smoke": {"seeds": 4, "steps": 60, "control_steps": 120, "learning_rates": (0.06,)},
        "paper": {"seeds": 128},
        "large": {"seeds": 4096},
    },
    **_RUN,
)
_LETTERS = {"family": "letters", "dim": 12, "steps": 1000, "control_steps": 0}
LETTERS = Experiment(
    name="letters",
    question="The letters of English text: does SSA learn their bigrams better, and which letters "
    "does it sharpen?",
    presets={
        "smoke": _LETTERS | {"seeds": 4, "steps": 60, "learning_rates": (0.06,)},
        "paper": _LETTERS | {"seeds": 64},
        "large": _LETTERS | {"seeds": 1024},
    },
    **_RUN,
)
_LES_MISERABLES = {"family": "les-miserables", "dim": 16, "steps": 500, "control_steps": 0}
LES_MISERABLES = Experiment(
    name="les-miserables",
    question="The characters of Les Miserables, linked by shared chapters: does SSA learn their "
    "transitions better?",
    presets={
        "smoke": _LES_MISERABLES | {"seeds": 4, "steps": 20, "learning_rates": (0.06,)},
        "paper": _LES_MISERABLES | {"seeds": 64},
        "large": _LES_MISERABLES | {"seeds": 1024},
    },
    **_RUN,
)
