"""The paper's graph experiment (arXiv 2411.12892, Fig. 3, Table 1), on all its graphs."""

from analysis.experiments.base import Experiment
from analysis.experiments.paper_graph.claims import judge
from analysis.experiments.paper_graph.figure import draw
from analysis.experiments.paper_graph.train import (
    PaperGraphConfig,
    seeds_per_block,
    summarise,
    train,
)
from analysis.experiments.settings import QUICK

__all__ = ["PAPER_GRAPH", "PaperGraphConfig"]

_LEAST = {"row_steps": 40, "steps": 30, "cooldown_steps": 10}
_LONG = {"row_steps": 4000, "steps": 4000, "cooldown_steps": 400}
PAPER_GRAPH = Experiment(
    name="paper-graph",
    question="On all connected graphs of the paper's size: does SSA learn a better map or a lower "
    "loss, and does the loss fix the map at all?",
    caption=(
        "Over graphs, by head: (a) L1 error of the attention map and (b) cross-entropy above Bayes, "
        "each over vanilla's, as median, quartiles (thick) and 95 % of the graphs (thin), beside "
        "the paper's ratio of one run on one graph; (c) the whole distribution of (a) in the "
        "paper's own form: a classifier, learned embeddings, sampled labels; (d) the map's ratio in "
        "the row head by the spread of the graph's row entropies; (e) learned temperature by number "
        "of neighbours, geometric means with 95 % intervals; (f) L1 error of the map against that "
        "of the prediction: only on the diagonal does the loss fix the map."
    ),
    config=PaperGraphConfig,
    train=train,
    seeds_per_block=seeds_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={
        "smoke": QUICK | _LEAST | {"seeds": 12},
        "paper": {"compile": "on"},
        "large": _LONG | {"seeds": 33_351, "compile": "on"},
    },
    dimensions={"stage": "of training at which it is measured"},
)
