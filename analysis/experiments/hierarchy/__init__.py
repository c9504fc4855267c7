"""The paper's two claims on a hierarchical vocabulary (arXiv 2411.12892, appendix E)."""

from analysis.experiments.base import Experiment
from analysis.experiments.hierarchy.claims import judge
from analysis.experiments.hierarchy.figure import draw
from analysis.experiments.hierarchy.train import HierarchyConfig, seeds_per_block, summarise, train
from analysis.experiments.settings import QUICK

__all__ = ["HIERARCHY", "HierarchyConfig"]

_SMALL = {"branchings": (2,), "most_nodes": 7, "dim_shares": (0.5, 1.0), "held_out": 64}
HIERARCHY = Experiment(
    name="hierarchy",
    question="In a tree of tokens, general ones above special ones: when is SSA's map, or its "
    "prediction, closer to the truth than vanilla's, and than that of one common scale?",
    caption=(
        "Ratio of errors to vanilla's by embedding dimension over tokens, one line a tree "
        "(k children, D levels), of ssa-query (solid) and of a common scale (dotted, open): L1 "
        "error of the attention map of the row head with (a) every token once and (b) prompts; "
        "total variation of a classifier's prediction likewise (d, e); (c) errors of the row head "
        "on the largest tree by dimension, and the least that any scores reach in prompts; (f) "
        "learned temperature by height above the leaves. Means, of ratios "
        "geometric ones, with 95 % intervals over seeds."
    ),
    config=HierarchyConfig,
    train=train,
    seeds_per_block=seeds_per_block,
    summarise=summarise,
    draw=draw,
    judge=judge,
    presets={
        "smoke": QUICK | _SMALL | {"seeds": 6, "steps": 20, "cooldown_steps": 5},
        "large": {"seeds": 256, "steps": 2000, "cooldown_steps": 200},
    },
    dimensions={"level": "depth of the query in the tree, the root 0"},
)
