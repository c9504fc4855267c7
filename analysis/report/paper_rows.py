"""The rows of the paper's table: every statement, figure and table of the paper, with the cells of our
topics in which each is tested.

Source: arXiv 2411.12892. Sentences are this project's words; numbers of the paper are quoted as its.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ssa_theory.mechanism import VANILLA

_SMALL = "a small model of two layers (language)"


@dataclass(frozen=True)
class Row:
    """One statement, figure or table.

    place: where it stands in the paper. says: what it says. form: in which form it is tested here;
    where it is not, why. topic: of the registry; empty where out of scope. at: the levels of the
    topic's cells that are meant, by factor; the cells that match decide together. number: the
    paper's number, where it gives one. telling: whether the README shows it.
    """

    place: str
    says: str
    form: str
    topic: str = ""
    at: Mapping[str, str] = field(default_factory=dict)
    number: str = ""
    telling: bool = False


_EXACT = "exact computation (paper-theory)"
PAPER: tuple[Row, ...] = (
    Row(
        "Lemma 1",
        "Queries of different sharpness need a norm that grows as they become alike.",
        _EXACT,
        "paper-theory",
        {"statement": "lemma-1"},
    ),
    Row(
        "Proposition 1",
        "Vanilla attention needs at least a printed norm.",
        _EXACT,
        "paper-theory",
        {"statement": "prop-1-lower-bound"},
    ),
    Row(
        "Proposition 1",
        "A printed norm is enough with a query temperature.",
        _EXACT,
        "paper-theory",
        {"statement": "prop-1-converse"},
    ),
    Row(
        "Proposition 1",
        "A query temperature frees the norm from how alike the tokens are.",
        _EXACT,
        "paper-theory",
        {"statement": "prop-1-free-of-rho"},
        telling=True,
    ),
    Row(
        "Section 4.2",
        "The norm has to grow like log L, or attention dilutes.",
        _EXACT,
        "paper-theory",
        {"statement": "dilution"},
    ),
    Row(
        "Proposition 2",
        "A position temperature reaches zero loss on imbalanced tokens.",
        _EXACT,
        "paper-theory",
        {"statement": "prop-2-zero-loss"},
    ),
    Row(
        "Proposition 2",
        "SSA's position term learns it from data.",
        "layers trained on counts kappa_n = sqrt(n), alpha = 1/2, beyond the training length "
        "(imbalance)",
        "imbalance",
        {"power": "0.5", "share": "0.5", "length": "beyond training", "against": VANILLA},
    ),
    Row(
        "Proposition 2",
        "Without one the loss stays above 1/500.",
        _EXACT,
        "paper-theory",
        {"statement": "prop-2-converse"},
        telling=True,
    ),
    Row(
        "Lemma 2",
        "A temperature acts like keeping a share of the scores.",
        _EXACT,
        "paper-theory",
        {"statement": "lemma-2"},
    ),
    Row(
        "Section 3",
        "A token term near -1 suppresses a token fully.",
        _EXACT,
        "paper-theory",
        {"statement": "suppression"},
    ),
    Row(
        "Fig. 3",
        "On a graph of 8 nodes SSA's attention map is closer to the transition matrix.",
        "all 11,117 connected graphs, the paper's model (paper-graph, head sampled)",
        "paper-map",
        {"head": "sampled", "mechanism": "ssa-degree", "against": VANILLA},
        number=".358 / .543 = .659, one run",
    ),
    Row(
        "Fig. 3",
        "(Control.) It is closer than one learned constant on all scores brings it.",
        "the same, against scaled",
        "paper-map",
        {"head": "sampled", "mechanism": "ssa-degree", "against": "scaled"},
    ),
    Row(
        "Fig. 3",
        "On a graph of 8 nodes SSA's cross-entropy is lower.",
        "all 11,117 connected graphs, the paper's model (paper-graph, head sampled)",
        "paper-loss",
        {"head": "sampled", "mechanism": "ssa-degree", "against": VANILLA},
        number=".009 / .0126 = .714, one run",
        telling=True,
    ),
    Row(
        "Section 4.1",
        "Where the attention row is the prediction, SSA's map is closer.",
        "all 11,117 graphs, d = 4 (paper-graph, head row)",
        "paper-map",
        {"head": "row", "mechanism": "ssa-query", "against": VANILLA},
    ),
    Row(
        "Table 1",
        "Tokens with fewer neighbours get a lower temperature.",
        "slope in each of 11,117 models, for a new graph (paper-graph, head sampled)",
        "paper-order",
        {"head": "sampled", "mechanism": "ssa-degree"},
        telling=True,
    ),
    Row(
        "Table 2",
        "A threshold on tokens, which stands for the value temperature, is near the optimum, and "
        "vanilla near the mean of all tokens.",
        "risk of that mean against trained vanilla attention (basis-denoise)",
        "basis-naive",
        {"length": "8", "noise": "0.3"},
    ),
    Row(
        "Table 2",
        "A value temperature denoises better than vanilla attention.",
        "risks of trained layers (basis-denoise)",
        "basis-denoising",
        {"length": "8", "noise": "0.3"},
    ),
    Row(
        "Table 2",
        "A learned value temperature is near the threshold on tokens.",
        "risk of trained layers against the threshold, all lengths and noises (basis-denoise)",
        "basis-threshold",
    ),
    Row(
        "Appendix E, claim 1",
        "In a hierarchical vocabulary SSA's attention map is closer to the true one.",
        "trees, dimensions and contexts together (hierarchy, head row)",
        "hierarchy-map",
        {"against": VANILLA},
    ),
    Row(
        "Appendix E, claim 1",
        "(Control.) SSA's attention map is closer than one learned constant brings it.",
        "trees, dimensions and contexts together (hierarchy, head row)",
        "hierarchy-map",
        {"against": "scaled"},
        telling=True,
    ),
    Row(
        "Appendix E, claim 2",
        "There SSA's prediction is closer to the true one.",
        "the same (hierarchy, head classifier)",
        "hierarchy-prediction",
        {"against": VANILLA},
    ),
    Row(
        "Fig. 2",
        "With SSA the query-key weights are smaller.",
        "tau_i ||W|| of one layer on a Markov graph at equal loss (norms)",
        "norm",
        {"graph": "graded", "compared": "equal loss", "weight": "tau ||W||", "against": VANILLA},
        number="||W|| about a third, language model",
    ),
    Row(
        "Fig. 2",
        "With SSA attention is spikier.",
        "1/(n sum s^2) of one layer on a Markov graph at equal steps (norms)",
        "spikiness",
        {"graph": "graded", "compared": "equal steps", "rows": "all rows", "against": VANILLA},
        number=".26 against .39, language model",
    ),
    Row(
        "Appendix, parameters",
        "Weight sharing adds less than 0.5 % parameters.",
        "counts on published architectures (overhead)",
        "overhead",
        {"model": "GPT-2 124M"},
        number="< 0.5 %",
    ),
    Row(
        "Ablations",
        "Query and value temperature together lower the error.",
        "denoising over contexts of several lengths (ablation)",
        "default",
    ),
    Row(
        "Fig. 2",
        "In a language model the query-key weights are smaller with SSA.",
        f"||W_q W_k^T|| at equal steps, {_SMALL}",
        "language-norm",
        {"compared": "equal steps", "weight": "||W||", "against": VANILLA},
        number="about a third",
    ),
    Row(
        "Fig. 2",
        "In a language model attention is spikier with SSA.",
        f"1/(n sum s^2) at equal steps, {_SMALL}",
        "language-spikiness",
        {"compared": "equal steps", "against": VANILLA},
        number=".26 against .39",
    ),
    Row(
        "Fig. 2",
        "(Control.) It is spikier than a constant scale makes it.",
        "the same, against the best given constant",
        "language-spikiness",
        {"compared": "equal steps", "against": "constant-scale"},
    ),
    Row(
        "Fig. 4",
        "Training reaches the same loss after fewer tokens.",
        f"the final loss of the slower, trained from scratch, {_SMALL}",
        "language-speed",
        {"progress": "all", "against": VANILLA},
        number="1.45 times, fine-tuning",
    ),
    Row(
        "Table 3",
        "SSA lowers the perplexity of a language model.",
        f"validation text, {_SMALL}",
        "language-loss",
        {"mechanism": "ssa", "against": VANILLA},
    ),
    Row(
        "Table 4",
        "Passkey retrieval improves.",
        f"digits of a key in text that are wrong, {_SMALL}",
        "language-passkey",
        {"mechanism": "ssa", "against": VANILLA},
        number="56.9 % to 74.4 %",
    ),
    Row(
        "Tables 5 to 8",
        "Query or value temperatures, token or position terms each lower the perplexity.",
        f"every mechanism of the ablations against vanilla, {_SMALL}",
        "language-loss",
        {"against": VANILLA},
    ),
    Row(
        "Table 8",
        "(Control.) SSA lowers the perplexity beyond a constant scale.",
        f"against the best given constant, {_SMALL}",
        "language-beyond-constant",
        {"mechanism": "ssa", "against": "constant-scale"},
    ),
)
"""In the order of the paper's argument."""
