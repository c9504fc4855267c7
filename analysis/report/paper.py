"""The paper's table: every statement, figure and table of the paper, the form in which it is tested
here, its number beside ours, and a status that is computed from our test.

Source: arXiv 2411.12892. Sentences are this project's words; numbers of the paper are quoted as its.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.claims.claim import Claim

_STATUS = {"supported": "holds", "not supported": "fails", "inconclusive": "open"}
_LANGUAGE = "a language model, which this project does not train"


@dataclass(frozen=True)
class Row:
    """One statement, figure or table.

    place: where it stands in the paper. says: what it says. form: in which form it is tested here;
    where it is not, why. claim: the id of the test whose verdict decides; empty where out of scope.
    number: the paper's number, where it gives one. telling: whether the README shows it.
    """

    place: str
    says: str
    form: str
    claim: str = ""
    number: str = ""
    telling: bool = False


@dataclass(frozen=True)
class Line:
    """A row with its result. ours: our estimate with its interval. status: `holds`, `holds as
    corrected`, `fails`, `vacuous`, `open`, `not run` or `out of scope`.
    """

    row: Row
    status: str
    ours: str = ""


_EXACT = "exact computation (paper-theory)"
PAPER: tuple[Row, ...] = (
    Row(
        "Lemma 1",
        "Queries of different sharpness need a norm that grows as they become alike.",
        _EXACT,
        "paper-theory-lemma-1",
    ),
    Row(
        "Proposition 1",
        "Vanilla attention needs at least a printed norm.",
        _EXACT,
        "paper-theory-prop-1-lower-bound",
    ),
    Row(
        "Proposition 1",
        "A printed norm is enough with a query temperature.",
        _EXACT,
        "paper-theory-prop-1-converse",
    ),
    Row(
        "Proposition 1",
        "A query temperature frees the norm from how alike the tokens are.",
        _EXACT,
        "paper-theory-prop-1-free-of-rho",
        telling=True,
    ),
    Row(
        "Section 4.2",
        "The norm has to grow like log L, or attention dilutes.",
        _EXACT,
        "paper-theory-dilution",
    ),
    Row(
        "Proposition 2",
        "A position temperature reaches zero loss on imbalanced tokens.",
        _EXACT,
        "paper-theory-prop-2-zero-loss",
    ),
    Row(
        "Proposition 2",
        "SSA's position term learns it from data.",
        "layers trained on counts kappa_n = sqrt(n), alpha = 1/2, beyond the training length "
        "(imbalance)",
        "imbalance-beyond-0.5-0.5",
    ),
    Row(
        "Proposition 2",
        "Without one the loss stays above 1/500.",
        _EXACT,
        "paper-theory-prop-2-converse",
        telling=True,
    ),
    Row(
        "Lemma 2",
        "A temperature acts like keeping a share of the scores.",
        _EXACT,
        "paper-theory-lemma-2",
    ),
    Row(
        "Section 3",
        "A token term near -1 suppresses a token fully.",
        _EXACT,
        "paper-theory-suppression",
    ),
    Row(
        "Fig. 3",
        "On a graph of 8 nodes SSA's attention map is closer to the transition matrix.",
        "all 11,117 connected graphs, the paper's model (paper-graph, head sampled)",
        "paper-graph-map-l1-sampled-ssa-degree",
        ".358 / .543 = .659, one run",
    ),
    Row(
        "Fig. 3",
        "(Control.) One learned constant on all scores brings the map closer, too.",
        "the same, mechanism scaled",
        "paper-graph-map-l1-sampled-scaled",
    ),
    Row(
        "Fig. 3",
        "On a graph of 8 nodes SSA's cross-entropy is lower.",
        "all 11,117 connected graphs, the paper's model (paper-graph, head sampled)",
        "paper-graph-final-gap-sampled-ssa-degree",
        ".009 / .0126 = .714, one run",
        telling=True,
    ),
    Row(
        "Section 4.1",
        "Where the attention row is the prediction, SSA's map is closer.",
        "all 11,117 graphs, d = 4 (paper-graph, head row)",
        "paper-graph-map-l1-row-ssa-query",
    ),
    Row(
        "Table 1",
        "Tokens with fewer neighbours get a lower temperature.",
        "sign of the slope in each of 11,117 models (paper-graph, head sampled)",
        "paper-graph-slope-sampled-ssa-degree",
        telling=True,
    ),
    Row(
        "Table 2",
        "A threshold on tokens, which stands for the value temperature, is near the optimum, and "
        "vanilla near the mean of all tokens.",
        "risk of trained vanilla attention over that mean (basis-denoise)",
        "basis-denoise-naive-default-vanilla",
    ),
    Row(
        "Table 2",
        "A value temperature denoises better than vanilla attention.",
        "risks of trained layers (basis-denoise)",
        "basis-denoise-gate-default-ssa-value",
    ),
    Row(
        "Table 2",
        "(Our correction.) The mean of the true signal tokens, there called Bayes-optimal, is not: "
        "its risk is above Bayes.",
        "its risk less that of the exact Bayes act (basis-denoise)",
        "basis-denoise-oracle-default",
    ),
    Row(
        "Appendix E, claim 1",
        "In a hierarchical vocabulary SSA's attention map is closer to the true one.",
        "trees, dimensions and contexts together (hierarchy, head row)",
        "hierarchy-row-vanilla",
    ),
    Row(
        "Appendix E, claim 1",
        "(Control.) SSA's attention map is closer than one learned constant brings it.",
        "trees, dimensions and contexts together (hierarchy, head row)",
        "hierarchy-row-scaled",
        telling=True,
    ),
    Row(
        "Appendix E, claim 2",
        "There SSA's prediction is closer to the true one.",
        "the same (hierarchy, head classifier)",
        "hierarchy-classifier-vanilla",
    ),
    Row(
        "Fig. 2",
        "With SSA the query-key weights are smaller.",
        "tau_i ||W|| of one layer on a Markov graph at equal loss (norms)",
        "norms-effective-loss-graded-ssa",
        "||W|| about a third, language model",
    ),
    Row(
        "Fig. 2",
        "With SSA attention is spikier.",
        "1/(n sum s^2) of one layer on a Markov graph at equal steps (norms)",
        "norms-spikiness-steps-graded-ssa",
        ".26 against .39, language model",
    ),
    Row(
        "Appendix, parameters",
        "Weight sharing adds less than 0.5 % parameters.",
        "counts on published architectures (overhead)",
        "overhead-shared-gpt-2",
        "< 0.5 %",
    ),
    Row(
        "Ablations",
        "Query and value temperature together lower the error.",
        "denoising over contexts of several lengths (ablation)",
        "ablation-denoise-default",
    ),
    Row(
        "Fig. 4", "Fine-tuning reaches the same perplexity sooner.", _LANGUAGE, number="1.45 times"
    ),
    Row("Table 3", "Perplexity and benchmarks of pretrained models.", _LANGUAGE),
    Row("Table 4", "Passkey retrieval improves.", _LANGUAGE, number="56.9 % to 74.4 %"),
    Row("Tables 5 to 8", "Ablations on language models.", _LANGUAGE),
)
"""In the order of the paper's argument."""


def paper_table(claims: Sequence[Claim], rows: Sequence[Row] = PAPER) -> list[Line]:
    """Every row with its status, computed from its test."""
    by_id: Mapping[str, Claim] = {claim.id: claim for claim in claims}
    return [_line(row, by_id.get(row.claim)) for row in rows]


def _line(row: Row, claim: Claim | None) -> Line:
    if not row.claim:
        return Line(row, "out of scope")
    if claim is None:
        return Line(row, "not run")
    exactly = claim.estimate.method.removeprefix("exact: ")
    if exactly != claim.estimate.method:  # a statement, whose status is computed with it
        return Line(row, exactly, claim.statistic.removeprefix(f"{exactly}. "))
    ours = f"{claim.estimate}, holds if {claim.relation} {claim.threshold:g}"
    return Line(row, _STATUS[claim.verdict], ours)
