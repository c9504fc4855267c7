"""`ssa-theory claims`: the ledger, from what is stored."""

import json
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from analysis.claims.ledger import Ledger, as_record, ledger_of
from analysis.claims.registry import of_name, registry
from analysis.claims.show import print_differences, print_topic, print_topics
from analysis.experiments import EXPERIMENTS
from analysis.parse import OUT, parse
from analysis.store.claims import load_evidence, not_run


def main(arguments: Sequence[str]) -> None:
    about = (
        "Print the ledger of the stored results: the verdict of every topic and when it holds; of "
        "the topics that are named (`claims error norm`), every cell. The exit code is 0 whatever "
        "the verdicts are."
    )
    names = list(takewhile(lambda word: not word.startswith("-"), arguments))
    whole = (bool, False, "print JSON: topics with their cells; of all topics, the checks too")
    other = (
        Path | None,
        None,
        "a second folder of results, such as of other seeds (run all --first-seed 100000 --out it): "
        "print the topics whose verdicts differ",
    )
    options = parse("claims", arguments[len(names) :], about, out=OUT, against=other, json=whole)
    if options.json and options.against is not None:
        raise ValueError("json does not apply to against, whose topics are printed: drop one")
    for name in names:
        of_name("topic", name, registry().topics)
    here, missing = _stored(options.out, "--out")
    chosen = [here.entry(name) for name in names]
    if options.against is not None:
        there, _ = _stored(options.against, "--against")
        print_differences(chosen or here.entries, there)
        return
    if options.json:
        every = as_record(chosen or here.entries, () if chosen else here.checks)
        print(json.dumps(every, indent=1))
        return
    for entry in chosen:
        print_topic(entry)
    if not chosen:
        print_topics(here)
        for line in missing:
            print(line)
        for path in sorted(options.out.glob("*@*/result.nc")):
            print(f"{path.parent.name}: left out, as a run of its own data or settings")


def _stored(folder: Path, flag: str) -> tuple[Ledger, list[str]]:
    """The ledger of a folder, and the experiments that it lacks, with the reason."""
    evidence, missing = [], {}
    for name in EXPERIMENTS:
        try:
            evidence.append(load_evidence(name, folder))
        except (ValueError, OSError) as error:
            missing[name] = str(error)
    if not evidence:
        none = f"there are no stored claims in {folder}: run an experiment, or choose its folder "
        damaged = (about for name, about in missing.items() if about != not_run(name))
        raise ValueError(next(damaged, f"{none}with {flag}"))
    return ledger_of(evidence, registry()), [f"{name}: {about}" for name, about in missing.items()]
