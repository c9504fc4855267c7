"""`ssa-theory run NAME ...`: run, store, draw, test the claims."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.claims.claim import Claim
from analysis.claims.show import print_claims
from analysis.experiments import EXPERIMENTS, LONGEST
from analysis.experiments.base import Experiment
from analysis.flags import flags_of, named, parse_run
from analysis.progress import Progress, progress_display
from analysis.report.report import write_report
from analysis.run.cluster import check_workers, run_jobs
from analysis.run.places import make_way, place_of
from analysis.run.runner import execute, is_unchanged
from analysis.store.config import ExperimentConfig


def main(arguments: Sequence[str]) -> None:
    experiments, flags = named(arguments)
    # Every experiment's flags are checked before the first one trains.
    plans = [(e, parse_run(e, flags_of(e, experiments, flags))) for e in experiments]
    check_workers(plans[0][1].workers)
    for experiment, options in plans:
        for note in options.config.notes():
            print(f"{experiment.name}: {note}", flush=True)
    common = plans[0][1]
    jobs = [
        (experiment, options.config, options.out.absolute(), _place(experiment, options))
        for experiment, options in plans
    ]
    # No worker is started for what is stored already.
    stored = [job for job in jobs if not common.fresh and is_unchanged(*job)]
    to_train = [job for job in jobs if job not in stored]
    # The workers share the blocks of a single experiment; several experiments are shared out whole.
    alone, local = (1, None), stored
    if len(to_train) == 1:
        alone, local, to_train = (common.workers, common.scheduler), [*stored, *to_train], []
    if common.workers > 1:
        rank = {name: place for place, name in enumerate(LONGEST)}
        to_train.sort(key=lambda job: rank.get(job[0].name, len(rank)))
    with progress_display() as progress:
        for part, workers, scheduler in (
            (local, 1, None),
            (to_train, common.workers, common.scheduler),
        ):
            calls = [(*job, common.fresh, *alone) for job in part]
            for place, seconds, claims, trained in run_jobs(
                _run_one, calls, workers, scheduler, progress
            ):
                how = f"run in {seconds:.0f} s" if trained else "unchanged, not run again"
                print_claims(claims, f"{place}: {how}, in {common.out / place}")
    print(f"report: {write_report(EXPERIMENTS, common.out)}")


def _run_one(
    experiment: Experiment,
    config: ExperimentConfig,
    out: Path,
    place: str,
    fresh: bool,
    workers: int,
    scheduler: str | None,
    progress: Progress,
) -> tuple[str, float, list[Claim], bool]:
    """What is printed of one experiment: folder, seconds, claims, and whether it was trained now."""
    start = time.perf_counter()
    _, claims, trained = execute(
        experiment,
        config,
        out,
        fresh,
        lambda about, total: progress(f"{place}: {about}", total),
        workers,
        scheduler,
        place,
    )
    return place, time.perf_counter() - start, claims, trained


def _place(experiment: Experiment, options: Any) -> str:
    """The folder of a run; says where a stored result stays or makes way."""
    place = place_of(experiment, options.config, options.out, options.name)
    if place != experiment.name and not options.name:
        print(
            f"{experiment.name}: {options.out / experiment.name} holds a result of other data or "
            f"settings and stays; this run goes to {options.out / place}",
            flush=True,
        )
    if place == experiment.name:
        way = make_way(experiment, options.config, options.out)
        if way is not None:
            print(f"{experiment.name}: the result that was stored is now in {way}", flush=True)
    return place
