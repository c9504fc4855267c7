"""The ledger: what the paper claims, by topic, and which tests of the experiments decide it."""

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.claims.claim import Claim, Verdict, correct, count_verdicts
from analysis.claims.topics import TOPICS, Topic


@dataclass(frozen=True)
class Entry:
    """A topic with its tests, as far as their experiments were run.

    claim: the test that decides the topic; None where its experiment was not run. claims: all its
    tests.
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


def ledger(claims: Sequence[Claim]) -> list[Entry]:
    """Every topic with its tests among `claims`, their p-values corrected together.

    A topic of the user's own, which `TOPICS` does not hold, comes last; no single test decides it.
    """
    by_topic: dict[str, list[Claim]] = {topic.name: [] for topic in TOPICS}
    for claim in correct(claims):
        by_topic.setdefault(claim.topic, []).append(claim)
    known = {topic.name: topic for topic in TOPICS}
    entries = []
    for name, lines in by_topic.items():
        topic = known.get(name) or Topic(name, name, "not in the registry of topics", "")
        deciding = next((c for c in lines if c.id == topic.decided_by), None)
        entries.append(Entry(topic, deciding, tuple(lines)))
    return entries
