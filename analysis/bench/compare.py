"""All contenders on one workload: speed in rounds, memory, and whether they learn the same."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from analysis.bench.config import BenchConfig
from analysis.bench.jobs import UNMEASURED, Log, block_of, children, job, trainer
from analysis.bench.peers import COMPILED, CONTENDERS, EAGER, ONE_AT_A_TIME, Contender
from analysis.bench.workloads import GRAPHS, WorkloadName, graph_operations, workload
from analysis.experiments.base import Progress

SINGLE_MODELS = 4  # trained one at a time
TOLERANCE = 1e-4  # nats, or squared error: the median over models of the difference in final loss
# Of an exponential or the like: a float32 polynomial with its range reduction is about ten
# multiply-adds.
FUNCTION_OPERATIONS = 20


def idle_peaks(config: BenchConfig, device: torch.device, progress: Progress) -> dict[str, int]:
    """Peak memory by contender of a process that trains nothing; those that warm up alike are the
    same process.
    """
    present = [c for c in contenders(config) if not c.missing]
    by_warm_up = {c.warm_up: c.name for c in present}
    jobs = {name: job(config, device, "idle", contender=name) for name in by_warm_up.values()}
    with children(jobs, progress("bench: memory of idle processes", len(jobs))) as running:
        peaks = {name: child.finish() for name, child in running.items()}
    return {c.name: peaks[by_warm_up[c.warm_up]] for c in present}


def compared(
    config: BenchConfig, name: WorkloadName, device: torch.device, progress: Progress, log: Log
) -> tuple[dict[str, Any], bool]:
    """All contenders on one workload, in rounds: each measures in turn, so that a change of the
    machine's speed meets all.

    Also whether Ctrl-C ended the rounds; then those that were measured have their speed from the
    rounds before, and no memory.
    """
    work = workload(name)
    models, steps = min(config.seeds, block_of(config, name, device)), min(config.steps, work.steps)
    rivals = contenders(config)
    members = {c.name: min(models, SINGLE_MODELS) if c.single else models for c in rivals}
    jobs = {
        c.name: job(
            config,
            device,
            "contender",
            contender=c.name,
            workload=name,
            block=members[c.name],
            steps=steps,
        )
        for c in rivals
        if not c.missing
    }
    if name in GRAPHS:  # whose operations are counted
        jobs["multiply-add"] = job(config, device, "multiply-add")
    advance = progress(f"bench: {name}", len(jobs) * (1 + config.repeats))
    rows: dict[str, dict[str, Any]] = {c.name: {"missing": c.missing} for c in rivals if c.missing}
    for key, row in rows.items():
        log(f"bench: {name}: {key}: {row['missing']}")
    stopped = False
    with children(jobs, advance) as running:
        measured: dict[str, list[dict[str, Any]]] = {key: [] for key in jobs}
        try:
            for turn in range(config.repeats):
                for key, child in running.items():
                    if "missing" not in child.ready:
                        measured[key].append(child.measure())
                    if turn == 0 and key != "multiply-add":
                        last = measured[key][-1] if measured[key] else child.ready
                        speed = (
                            None
                            if "missing" in last
                            else _speed(members[key], steps, child.ready, [last])
                        )
                        outcome = (
                            last["missing"] if speed is None else f"{speed:,.0f} models x steps / s"
                        )
                        log(f"bench: {name}: {key}: {outcome}, round 1 of {config.repeats}")
                    advance(1)
        except KeyboardInterrupt:
            stopped = True
        for key in jobs:
            ready = running[key].ready
            missing = next((m["missing"] for m in (ready, *measured[key]) if "missing" in m), None)
            if key == "multiply-add":
                continue
            if missing is not None or not measured[key]:
                rows[key] = {"missing": missing or UNMEASURED}
                continue
            rows[key] = {
                "models": members[key],
                "trainings": ready["trainings"],
                "seconds": [m["seconds"] for m in measured[key]],
                "models_steps_per_second": _speed(members[key], steps, ready, measured[key]),
                "compile_seconds": ready["compile_seconds"] if CONTENDERS[key].compiles else None,
                "losses": ready["losses"],
            }
            # A stopped process is in the middle of its work, or Ctrl-C has ended it too.
            if not stopped:
                rows[key]["peak_bytes"] = running[key].finish()
    ceiling = None
    rates = [
        m["operations_per_second"] for m in measured.get("multiply-add", []) if "missing" not in m
    ]
    if rates:
        plain, functions = graph_operations(name)
        ceiling = {
            "operations_per_model_step": plain + FUNCTION_OPERATIONS * functions,
            "of_which_functions": functions,
            "operations_per_function": FUNCTION_OPERATIONS,
            "operations_per_second": max(rates),
        }
    if stopped and "missing" in rows[EAGER]:  # nothing to compare with yet
        for row in rows.values():
            row.pop("losses", None)
    else:
        _relate(rows, ceiling, trainer(config))
    rows = {c.name: rows[c.name] for c in rivals}
    return {"about": work.about, "steps": steps, "ceiling": ceiling, "contenders": rows}, stopped


def _speed(
    models: int, steps: int, ready: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]
) -> float:
    """Models x steps per second in the fastest of the rounds."""
    return models * steps * ready["trainings"] / min(m["seconds"] for m in measured)


def _relate(rows: dict[str, dict[str, Any]], ceiling: dict[str, Any] | None, trainer: str) -> None:
    """Add to each row how it stands to others: in speed, and in what it learned.

    The losses are those after training, by the ensemble's own loss in float64; `this trainer,
    eager` is what all are compared with, over the models that both trained. Speeds of trainers that
    learned something else are not comparable: they get no ratio. Raises ValueError where `this
    trainer, eager` itself could not run.
    """
    if "missing" in rows[EAGER]:
        raise ValueError(
            "there is nothing to compare with, as this trainer cannot run here: "
            f"{rows[EAGER]['missing']}"
        )
    reference = np.array(rows[EAGER]["losses"])
    for row in (r for r in rows.values() if "missing" not in r):
        losses = np.array(row.pop("losses"))
        shared = min(len(losses), len(reference))
        difference = np.abs(losses[:shared] - reference[:shared])
        median, largest = float(np.median(difference)), float(difference.max())
        row["learned"] = {
            "models": shared,
            "median_difference": median,
            "largest_difference": largest,
        }
        row["learned_the_same"] = median <= TOLERANCE  # NaN is not
    for row in (r for r in rows.values() if r.get("learned_the_same")):
        speed = row["models_steps_per_second"]
        for key, other, inverse in (
            ("times_one_at_a_time", ONE_AT_A_TIME, False),
            ("trainer_is_times", trainer, True),
        ):
            peer = rows[other] if rows[other].get("learned_the_same") else None
            ratio = None if peer is None else speed / peer["models_steps_per_second"]
            row[key] = 1 / ratio if ratio and inverse else ratio
        if ceiling is not None:
            row["fraction_of_ceiling"] = (
                speed * ceiling["operations_per_model_step"] / ceiling["operations_per_second"]
            )


def contenders(config: BenchConfig) -> list[Contender]:
    return [c for c in CONTENDERS.values() if config.compile or c.name != COMPILED]
