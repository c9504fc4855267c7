"""The topics of the ledger: what the paper claims, or this project, in our words. Claims name
theirs.
"""

from dataclasses import dataclass

PAPER, PROJECT = "paper (arXiv 2411.12892)", "this project"


@dataclass(frozen=True)
class Topic:
    """One claim of the paper, or of this project, in our words.

    decided_by: the id of the one test whose verdict is the topic's, whatever it comes out as.
    """

    name: str
    sentence: str
    source: str
    decided_by: str


ERROR = Topic(
    "error",
    "A query temperature lowers loss and error of the learned transition matrix of a graph.",
    f"{PAPER}, theory",
    "graph-l1-ssa",
)
NORM = Topic(
    "norm",
    "The same map is learned with smaller weights.",
    f"{PAPER}, theory",
    "norms-spectral-loss-graded-ssa",
)
SPIKINESS = Topic(
    "spikiness",
    "Attention is spikier where its target is spiky.",
    f"{PAPER}, theory",
    "norms-sharp-steps-graded-ssa",
)
ORDER = Topic(
    "order",
    "The learned temperature rises with the number of neighbours of a node.",
    f"{PAPER}, theory",
    "graph-temperature-order-ssa",
)
PAPER_THEORY = Topic(
    "paper-theory",
    "The paper's statements hold as printed: a query temperature frees the norm from how alike tokens are.",
    f"{PAPER}, section 4 and appendix",
    "paper-theory-prop-1-free-of-rho",
)
PAPER_GRAPH = Topic(
    "paper-graph",
    "On the paper's graphs SSA's attention map is closer to the transition matrix.",
    f"{PAPER}, Fig. 3",
    "paper-graph-map-l1-sampled-ssa-degree",
)
PAPER_GRAPH_LOSS = Topic(
    "paper-graph-loss",
    "On the paper's graphs SSA's cross-entropy is lower.",
    f"{PAPER}, Fig. 3",
    "paper-graph-final-gap-sampled-ssa-degree",
)
IDENTIFICATION = Topic(
    "identification",
    "Training a layer with a classifier recovers the transition matrix as its attention map.",
    f"{PAPER}, Fig. 3",
    "paper-graph-recovered-sampled-ssa-degree",
)
HIERARCHY1 = Topic(
    "hierarchy-map",
    "In a hierarchical vocabulary SSA's attention map is closer to the true one than vanilla's.",
    f"{PAPER}, appendix E, claim 1",
    "hierarchy-row-vanilla",
)
HIERARCHY2 = Topic(
    "hierarchy-prediction",
    "In a hierarchical vocabulary SSA's prediction is closer to the true one than vanilla's.",
    f"{PAPER}, appendix E, claim 2",
    "hierarchy-classifier-vanilla",
)
TWINS = Topic(
    "twins",
    "Alike tokens of different sharpness need unbounded weights, but not with a query temperature.",
    f"{PAPER}, expressivity proposition",
    "twins-slope-selective",
)
DILUTION = Topic(
    "dilution",
    "A position temperature stops attention from diluting as the context grows.",
    f"{PAPER}, dilution argument",
    "dilution-ssa-position-bounded",
)
IMBALANCE = Topic(
    "imbalance",
    "A position temperature keeps a prediction while one token crowds out the other.",
    f"{PAPER}, Proposition 2",
    "imbalance-success-0.5-0.5",
)
EXTRAPOLATION = Topic(
    "extrapolation",
    "A position temperature helps beyond the training length.",
    f"{PAPER}, position-aware temperature",
    "length-constant-ssa-position",
)
DENOISING = Topic(
    "denoising",
    "A value temperature suppresses noisy tokens.",
    f"{PAPER}, denoising",
    "denoise-vanilla-above-ssa-mlp-value",
)
BASIS = Topic(
    "basis-denoising",
    "On the paper's denoising task a value temperature reaches the threshold, and vanilla only the mean token.",
    f"{PAPER}, Table 2",
    "basis-denoise-threshold-default-ssa-value",
)
RETRIEVAL = Topic(
    "retrieval",
    "A query temperature reaches the Bayes-optimal predictor on noisy retrieval, which vanilla attention cannot.",
    PROJECT,
    "retrieval-bayes-ssa-feature",
)
LIMITS = Topic(
    "limits",
    "SSA also helps where vanilla attention has what it needs: d = K and long training.",
    PROJECT,
    "graph-control-l1-ssa",
)
OPTIMISATION = Topic(
    "optimisation",
    "Training is faster.",
    f"{PAPER}, training speed",
    "convergence-own-graded-0.5-ssa",
)
ALTERNATIVES = Topic(
    "alternatives",
    "SSA is better than constant, frequency-based and YaRN temperatures.",
    f"{PAPER}, ablation",
    "length-ssa-position-yarn",
)
SHARING = Topic(
    "sharing",
    "An MLP of its own makes a better temperature than weight sharing.",
    PROJECT,
    "ablation-denoise-mlp",
)
POSITION_TERM = Topic(
    "position-term",
    "The position term adds to the token term.",
    f"{PAPER}, ablation",
    "ablation-denoise-position-added",
)
TOKEN_TERM = Topic(
    "token-term",
    "The token term adds to the position term.",
    f"{PAPER}, ablation",
    "ablation-denoise-token-added",
)
KEY = Topic(
    "key",
    "A key temperature adds to the others.",
    f"{PAPER}, ablation",
    "ablation-letters-key-added",
)
QUERY = Topic(
    "query",
    "A query temperature adds to the others.",
    f"{PAPER}, ablation",
    "ablation-denoise-query-added",
)
DEFAULT = Topic(
    "default",
    "Query and value temperature together lower the error.",
    f"{PAPER}, ablation",
    "ablation-denoise-default",
)
OVERHEAD = Topic(
    "overhead",
    "SSA adds less than 0.5 % parameters.",
    f"{PAPER}, abstract",
    "overhead-shared-gpt-2",
)
NORMALIZERS = Topic(
    "normalizers",
    "Sparse normalisers are no substitute for a temperature.",
    f"{PAPER}, related work",
    "normalizers-substitute",
)
WHERE = Topic(
    "where",
    "SSA helps across dimension, similarity, training time and graph family.",
    PROJECT,
    "phase-better-ssa",
)
FLOOR = Topic(
    "floor",
    "The paper's additive value temperature cannot reach zero, and pays for it.",
    PROJECT,
    "denoise-ssa-mlp-value-above-value-tanh",
)
BEYOND = Topic(
    "beyond",
    "A gate inside the softmax with a sink suppresses noise better than a value temperature.",
    PROJECT,
    "denoise-gate-and-sink-beyond-additive",
)
OTHER_SCHEDULES = Topic(
    "other-schedules",
    "Other position schedules stop dilution as well.",
    PROJECT,
    "dilution-ssmax-bounded",
)
THEORY = Topic(
    "theory", "Measurement agrees with the closed forms.", PROJECT, "dilution-exact-gaussian"
)
TOPICS: tuple[Topic, ...] = (
    ERROR,
    NORM,
    SPIKINESS,
    ORDER,
    PAPER_THEORY,
    PAPER_GRAPH,
    PAPER_GRAPH_LOSS,
    IDENTIFICATION,
    HIERARCHY1,
    HIERARCHY2,
    TWINS,
    DILUTION,
    IMBALANCE,
    EXTRAPOLATION,
    DENOISING,
    BASIS,
    RETRIEVAL,
    LIMITS,
    OPTIMISATION,
    ALTERNATIVES,
    SHARING,
    POSITION_TERM,
    TOKEN_TERM,
    KEY,
    QUERY,
    DEFAULT,
    OVERHEAD,
    NORMALIZERS,
    WHERE,
    FLOOR,
    BEYOND,
    OTHER_SCHEDULES,
    THEORY,
)
"""In the order of the ledger."""
