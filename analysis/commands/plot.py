"""`ssa-theory plot NAME ...`: redraw figures and claims from stored results."""

from collections.abc import Sequence

from analysis.claims.show import print_claims
from analysis.experiments import EXPERIMENTS
from analysis.flags import named
from analysis.parse import OUT, parse
from analysis.progress import progress_display
from analysis.report.report import write_report
from analysis.run.runner import present


def main(arguments: Sequence[str]) -> None:
    experiments, flags = named(arguments)
    about = "Redraw figures and claims from stored results, without training."
    own = (str, "", "of the run's own folder")
    options = parse("plot NAME ...", flags, about, out=OUT, name=own)
    failures = []
    with progress_display() as progress:
        for experiment in experiments:
            place = f"{experiment.name}@{options.name}" if options.name else experiment.name
            try:
                _, claims = present(experiment, options.out, progress, place)
            except (ValueError, OSError) as error:  # the others are drawn all the same
                failures.append(str(error))
            else:
                print_claims(claims, f"{place}: redrawn in {options.out / place}")
    if len(failures) < len(experiments):
        print(f"report: {write_report(EXPERIMENTS, options.out)}")
    if failures:
        raise ValueError("; ".join(failures))
