"""`ssa-theory verify`: try the theory's properties on fresh random cases."""

from collections.abc import Sequence

from analysis.parse import parse
from analysis.progress import progress_display
from analysis.properties.verify import Outcome, VerifyConfig, verify
from analysis.terminal import print_rows


def main(arguments: Sequence[str]) -> int:
    config = parse("verify", arguments, VerifyConfig.__doc__, VerifyConfig()).config
    properties, seed = config.properties, config.first_seed
    outcomes = {p.name: Outcome(p) for p in properties}
    try:
        with progress_display() as progress:
            for outcome in verify(config.seconds, seed, properties, progress):
                outcomes[outcome.property.name] = outcome
    finally:  # after Ctrl-C too
        violated = _print_outcomes(list(outcomes.values()), seed)
    return 1 if violated else 0


def _print_outcomes(outcomes: Sequence[Outcome], seed: int) -> int:
    """What `verify` tried, from this seed on; returns how many properties are violated."""
    columns = ("cases survived", "verdict", "property", "what holds")
    rows = [(f"{o.cases:,}", o.verdict, o.property.name, o.property.sentence) for o in outcomes]
    print_rows(columns, rows)
    violations = ((o.property.name, o.counterexample) for o in outcomes)
    violated = [(name, against) for name, against in violations if against is not None]
    for name, against in violated:
        print(f"{name} is violated: {against}")
        print(f"  again: ssa-theory verify --only {name} --seed {against.seed}")
    cases = sum(o.cases for o in outcomes)
    print(
        f"{len(outcomes)} properties, {cases:,} cases, {len(violated)} violated (from seed {seed})"
    )
    return len(violated)
