"""The ledger: what the paper claims, by topic, and which tests of the experiments decide it."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from analysis.claims.claim import Claim, Verdict, correct, count_verdicts

_GRAPHS = ("graph", "letters", "les-miserables")
_PAPER, _PROJECT = "paper (arXiv 2411.12892)", "this project"
_ABLATION = f"{_PAPER}, ablation"


@dataclass(frozen=True)
class Topic:
    """One claim of the paper, or of this project, in our words.

    decided_by: the id of the one test whose verdict is the topic's, whatever it comes out as. tests: patterns of the ids of all
    its tests, in which the reader finds where it holds and where not; a test belongs to the first topic that matches it.
    """

    name: str
    sentence: str
    source: str
    decided_by: str
    tests: tuple[str, ...]


TOPICS: tuple[Topic, ...] = (
    Topic(
        "error",
        "A query temperature lowers loss and error of the learned transition matrix of a graph.",
        f"{_PAPER}, theory",
        "graph-l1-ssa",
        tuple(f"{graph}-{measure}-ssa*" for graph in _GRAPHS for measure in ("l1", "gap")),
    ),
    Topic(
        "norm",
        "The same map is learned with smaller weights.",
        f"{_PAPER}, theory",
        "norms-spectral-loss-ring-ssa",
        ("norms-spectral-*", "norms-token-*", "norms-scale-*", *(f"{graph}-norm-*" for graph in _GRAPHS)),
    ),
    Topic(
        "spikiness",
        "Attention is spikier where its target is spiky.",
        f"{_PAPER}, theory",
        "norms-sharp-steps-ring-ssa",
        ("norms-sharp-*", "norms-blunt-*", "norms-no-zeros"),
    ),
    Topic(
        "order",
        "The learned temperature rises with the number of neighbours of a node.",
        f"{_PAPER}, theory",
        "graph-temperature-order-ssa",
        ("*-temperature-order-*", "*-sharpens-q-*"),
    ),
    Topic(
        "twins",
        "Alike tokens of different sharpness need unbounded weights, but not with a query temperature.",
        f"{_PAPER}, expressivity proposition",
        "twins-slope-selective",
        ("twins-*",),
    ),
    Topic(
        "dilution",
        "A position temperature stops attention from diluting as the context grows.",
        f"{_PAPER}, dilution argument",
        "dilution-ssa-bounded",
        ("dilution-ssa-*", "dilution-constant-*", "length-dilution"),
    ),
    Topic(
        "extrapolation",
        "A position temperature helps beyond the training length.",
        f"{_PAPER}, position-aware temperature",
        "length-constant-ssa",
        ("length-constant-*", "length-oracle-*"),
    ),
    Topic(
        "denoising",
        "A value temperature suppresses noisy tokens.",
        f"{_PAPER}, denoising",
        "denoise-vanilla-above-value-additive",
        ("denoise-vanilla-above-value-*", "denoise-*-above-bayes", "denoise-naive-*", "denoise-bound-*"),
    ),
    Topic(
        "retrieval",
        "A query temperature reaches the Bayes-optimal predictor on noisy retrieval, which vanilla attention cannot.",
        _PROJECT,
        "retrieval-bayes-ssa-tanh",
        ("retrieval-*",),
    ),
    Topic(
        "limits",
        "SSA also helps where vanilla attention has what it needs: d = K and long training.",
        _PROJECT,
        "graph-control-l1-ssa",
        ("graph-control-*", "phase-full-rank-*", "convergence-*-control-*"),
    ),
    Topic(
        "optimisation",
        "Training is faster.",
        f"{_PAPER}, training speed",
        "convergence-own-ring-0.5-ssa",
        ("convergence-*",),
    ),
    Topic(
        "alternatives",
        "SSA is better than constant, frequency-based and YaRN temperatures.",
        _ABLATION,
        "length-ssa-yarn",
        ("length-ssa-*", "ablation-*-beyond-*"),
    ),
    Topic(
        "sharing",
        "An MLP of its own makes a better temperature than weight sharing.",
        _PROJECT,
        "ablation-denoise-mlp",
        ("ablation-*-mlp",),
    ),
    Topic(
        "position-term",
        "The position term adds to the token term.",
        _ABLATION,
        "ablation-denoise-position-added",
        ("ablation-*-position*",),
    ),
    Topic(
        "token-term",
        "The token term adds to the position term.",
        _ABLATION,
        "ablation-denoise-token-added",
        ("ablation-*-token*",),
    ),
    Topic(
        "key",
        "A key temperature adds to the others.",
        _ABLATION,
        "ablation-letters-key-added",
        ("ablation-*-key*",),
    ),
    Topic(
        "query",
        "A query temperature adds to the others.",
        _ABLATION,
        "ablation-denoise-query-added",
        ("ablation-*-query*", "denoise-vanilla-above-query", "denoise-*-above-query-value"),
    ),
    Topic(
        "default",
        "Query and value temperature together lower the error.",
        _ABLATION,
        "ablation-denoise-default",
        ("ablation-*",),
    ),
    Topic(
        "overhead",
        "SSA adds less than 0.5 % parameters.",
        f"{_PAPER}, abstract",
        "overhead-shared-gpt-2",
        ("overhead-*",),
    ),
    Topic(
        "normalizers",
        "Sparse normalisers are no substitute for a temperature.",
        f"{_PAPER}, related work",
        "normalizers-substitute",
        ("normalizers-*",),
    ),
    Topic(
        "where",
        "SSA helps across dimension, similarity, training time and graph family.",
        _PROJECT,
        "phase-better-ssa",
        ("phase-*",),
    ),
    Topic(
        "floor",
        "The paper's additive value temperature cannot reach zero, and pays for it.",
        _PROJECT,
        "denoise-value-additive-above-value-tanh",
        ("denoise-additive-floor", "denoise-value-additive-above-value-*"),
    ),
    Topic(
        "beyond",
        "A gate inside the softmax with a sink suppresses noise better than a value temperature.",
        _PROJECT,
        "denoise-sink-beyond-additive",
        ("denoise-*",),
    ),
    Topic(
        "other-schedules",
        "Other position schedules stop dilution as well.",
        _PROJECT,
        "dilution-ssmax-bounded",
        tuple(f"dilution-{name}-*" for name in ("released", "ssmax", "asentmax", "yarn", "power")),
    ),
    Topic(
        "theory",
        "Measurement agrees with the closed forms.",
        _PROJECT,
        "dilution-exact-gaussian",
        ("dilution-*",),
    ),
)


@dataclass(frozen=True)
class Entry:
    """A topic with its tests, as far as their experiments were run.

    claim: the test that decides the topic; None where its experiment was not run. claims: all its tests.
    """

    topic: Topic
    claim: Claim | None
    claims: tuple[Claim, ...]

    @property
    def verdict(self) -> Verdict | None:
        """That of the deciding test; None where it was not run."""
        return None if self.claim is None else self.claim.verdict

    @property
    def counts(self) -> dict[Verdict, int]:
        """How many tests have each verdict."""
        return count_verdicts(self.claims)


def topic_of(claim_id: str) -> Topic:
    """The first topic with a pattern that matches. Raises ValueError for an id that none does."""
    for topic in TOPICS:
        if any(fnmatch(claim_id, pattern) for pattern in topic.tests):
            return topic
    raise ValueError(f"claim {claim_id!r} belongs to no topic: add a pattern to analysis/claims/ledger.py")


def ledger(claims: Sequence[Claim]) -> list[Entry]:
    """Every topic with its tests among `claims`, their p-values corrected together."""
    by_topic: dict[str, list[Claim]] = {topic.name: [] for topic in TOPICS}
    for claim in correct(claims):
        by_topic[topic_of(claim.id).name].append(claim)
    entries = []
    for topic in TOPICS:
        tests = tuple(by_topic[topic.name])
        entries.append(Entry(topic, next((c for c in tests if c.id == topic.decided_by), None), tests))
    return entries
