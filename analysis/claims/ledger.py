"""The ledger: what the paper claims, by topic, and which tests of the experiments decide it."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from analysis.claims.claim import Claim, Verdict, correct, count_verdicts
from analysis.claims.topics import TOPICS, Topic

_PATTERNS: dict[str, tuple[str, ...]] = {
    "error": (
        "graph-l1-ssa*",
        "graph-gap-ssa*",
        "letters-l1-ssa*",
        "letters-gap-ssa*",
        "les-miserables-l1-ssa*",
        "les-miserables-gap-ssa*",
    ),
    "norm": (
        "norms-spectral-*",
        "norms-token-*",
        "norms-scale-*",
        "graph-norm-*",
        "letters-norm-*",
        "les-miserables-norm-*",
    ),
    "spikiness": ("norms-sharp-*", "norms-blunt-*", "norms-no-zeros"),
    "order": ("*-temperature-order-*", "*-sharpens-q-*"),
    "twins": ("twins-*",),
    "dilution": ("dilution-ssa-*", "dilution-constant-*", "length-dilution"),
    "extrapolation": ("length-constant-*", "length-oracle-*"),
    "denoising": (
        "denoise-vanilla-above-value-*",
        "denoise-*-above-bayes",
        "denoise-naive-*",
        "denoise-bound-*",
    ),
    "retrieval": ("retrieval-*",),
    "limits": ("graph-control-*", "phase-full-rank-*", "convergence-*-control-*"),
    "optimisation": ("convergence-*",),
    "alternatives": ("length-ssa-*", "ablation-*-beyond-*"),
    "sharing": ("ablation-*-mlp",),
    "position-term": ("ablation-*-position*",),
    "token-term": ("ablation-*-token*",),
    "key": ("ablation-*-key*",),
    "query": ("ablation-*-query*", "denoise-vanilla-above-query", "denoise-*-above-query-value"),
    "default": ("ablation-*",),
    "overhead": ("overhead-*",),
    "normalizers": ("normalizers-*",),
    "where": ("phase-*",),
    "floor": ("denoise-additive-floor", "denoise-value-additive-above-value-*"),
    "beyond": ("denoise-*",),
    "other-schedules": (
        "dilution-released-*",
        "dilution-ssmax-*",
        "dilution-asentmax-*",
        "dilution-yarn-*",
        "dilution-power-*",
    ),
    "theory": ("dilution-*",),
}
"""Of the ids of claims that do not name their topic yet."""


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
        if any(fnmatch(claim_id, pattern) for pattern in _PATTERNS[topic.name]):
            return topic
    raise ValueError(
        f"claim {claim_id!r} belongs to no topic: add a pattern to analysis/claims/ledger.py"
    )


def ledger(claims: Sequence[Claim]) -> list[Entry]:
    """Every topic with its tests among `claims`, their p-values corrected together."""
    by_topic: dict[str, list[Claim]] = {topic.name: [] for topic in TOPICS}
    for claim in correct(claims):
        by_topic[claim.topic or topic_of(claim.id).name].append(claim)
    entries = []
    for topic in TOPICS:
        tests = tuple(by_topic[topic.name])
        entries.append(
            Entry(topic, next((c for c in tests if c.id == topic.decided_by), None), tests)
        )
    return entries
