"""Claims and the ledger on a terminal."""

from collections.abc import Sequence

from analysis.claims.claim import Claim
from analysis.claims.ledger import Entry
from analysis.terminal import print_rows


def print_claims(claims: Sequence[Claim], title: str) -> None:
    """One line a claim."""
    heads = ("verdict", "estimate [95 % interval]", "holds if", "seeds", "test", "claim")
    rows = [
        (
            c.verdict,
            str(c.estimate),
            f"{c.relation} {c.threshold:g}",
            f"{c.estimate.seeds}/{c.requested_seeds}",
            c.id,
            c.sentence,
        )
        for c in claims
    ]
    print_rows(heads, rows, title)


def print_ledger(entries: Sequence[Entry]) -> None:
    """Every test by topic, then one line a topic."""
    for entry in entries:
        if entry.claims:
            print_claims(entry.claims, f"{entry.topic.sentence} ({entry.topic.source})")
            print()
    heads = ("verdict", "estimate [95 % interval]", "tests +/-/?", "claim")
    rows = [
        (
            entry.verdict or "not run",
            "" if entry.claim is None else str(entry.claim.estimate),
            "/".join(str(n) for n in entry.counts.values()),
            entry.topic.sentence,
        )
        for entry in entries
    ]
    print_rows(heads, rows, "Ledger")
