"""`ssa-theory claims`: the ledger, from what is stored."""

from collections.abc import Sequence

from analysis.claims.ledger import ledger
from analysis.claims.show import print_ledger
from analysis.experiments import EXPERIMENTS
from analysis.parse import OUT, parse
from analysis.store.claims import load_claims


def main(arguments: Sequence[str]) -> None:
    about = (
        "Print the ledger of the stored results: every test by topic, p-values corrected over all "
        "of them, then one line a topic. The exit code is 0 whatever the verdicts are."
    )
    options = parse("claims", arguments, about, out=OUT)
    claims, missing = [], []
    for name in EXPERIMENTS:
        try:
            claims += load_claims(name, options.out)
        except (ValueError, OSError) as error:
            missing.append(f"{name}: {error}")
    if not claims:
        raise ValueError(
            f"there are no stored claims in {options.out}: run an experiment, or choose its folder "
            "with --out"
        )
    print_ledger(ledger(claims))
    for line in missing:
        print(line)
