"""All contenders on one workload: speed in rounds, memory, and whether they learn the same."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from analysis.bench.ceilings import ceilings
from analysis.bench.child import DATA
from analysis.bench.config import BenchConfig
from analysis.bench.jobs import UNMEASURED, Log, block_of, children, job
from analysis.bench.peers import (
    COMPILED,
    CONTENDERS,
    EAGER,
    JAX,
    JAX_LAST,
    ONE_AT_A_TIME,
    TORCH_COMPILE,
    Contender,
)
from analysis.bench.process import BATCHES
from analysis.bench.workloads import WorkloadName, workload
from analysis.experiments.base import Progress

SINGLE_MODELS = 4  # trained one at a time
TOLERANCE = 1e-4  # nats, or squared error: the median over models of the difference in final loss
Row = dict[str, Any]


def compared(
    config: BenchConfig,
    name: WorkloadName,
    device: torch.device,
    machine: Callable[[], Row],
    progress: Progress,
    log: Log,
) -> tuple[dict[str, Any], bool]:
    """All contenders on one workload, in rounds: each measures in turn, so that a change of the
    machine's speed meets all. machine: measures what the machine could do.

    Also whether Ctrl-C ended the rounds; then those that were measured have their speed from the
    rounds before.
    """
    work = workload(name)
    block, steps = block_of(config, name, device), min(config.steps, work.steps)
    rivals = contenders(config, device)
    jobs = {
        c.name: job(
            config,
            device,
            "contender",
            contender=c.name,
            workload=name,
            blocks=_sizes(c, min(config.seeds, block)),
            steps=steps,
        )
        for c in rivals
        if not c.missing
    }
    advance = progress(f"bench: {name}", len(jobs) * (1 + config.repeats))
    rows: dict[str, Row] = {c.name: {"missing": c.missing} for c in rivals if c.missing}
    for key, row in rows.items():
        log(f"bench: {name}: {key}: {row['missing']}")
    stopped, rates = False, []
    with children(jobs, advance) as running:
        measured: dict[str, list[dict[str, Any]]] = {key: [] for key in jobs}
        try:
            for turn in range(config.repeats):
                for key, child in running.items():
                    if "missing" not in child.ready:
                        measured[key].append(child.measure())
                    if turn == 0:
                        last = measured[key][-1] if measured[key] else child.ready
                        said = _said(steps, child.ready, last)
                        log(f"bench: {name}: {key}: {said}, round 1 of {config.repeats}")
                    advance(1)
                rates.append(machine())
        except KeyboardInterrupt:
            stopped = True
        for key in jobs:
            rows[key] = _row(steps, CONTENDERS[key], running[key].ready, measured[key])
    ceiling = None
    if rates := [r for r in rates if "missing" not in r]:
        dtype = getattr(torch, config.dtype)
        data = work.batch_bytes(dtype)
        pool = BATCHES * data * min(config.seeds, block)
        ceiling = ceilings(work.work, dtype.itemsize, data, pool, _best(rates))
    if stopped and "missing" in rows[EAGER]:  # nothing to compare with yet
        for row in rows.values():
            row.pop("losses", None)
    else:
        _relate(rows, ceiling)
    rows = {c.name: rows[c.name] for c in rivals}
    return {"about": work.about, "steps": steps, "ceiling": ceiling, "contenders": rows}, stopped


def contenders(config: BenchConfig, device: torch.device) -> list[Contender]:
    """Those asked for. On a GPU this trainer itself is compiled by torch."""
    left_out = set() if config.compile != "off" else {COMPILED, TORCH_COMPILE}
    if device.type != "cpu":
        left_out.add(TORCH_COMPILE)
    return [c for c in CONTENDERS.values() if c.name not in left_out]


def _sizes(contender: Contender, block: int) -> tuple[int, ...]:
    """Of the blocks that a contender tries: powers of two, which fill vectors and chunks."""
    if contender.single:
        return (min(block, SINGLE_MODELS),)
    return tuple(sorted({2 ** int(math.log2(max(1, n * block))) for n in contender.tried}))


def _said(steps: int, ready: Row, last: Row) -> str:
    if "missing" in last:
        return last["missing"]
    fixed, fresh = (_speed(steps, ready, [last], data) for data in DATA)
    return f"{fixed:,.0f} models x steps / s, {fresh:,.0f} with fresh data"


def _speed(steps: int, ready: Row, measured: Sequence[Row], data: str) -> float:
    """Models x steps per second in the fastest of the rounds."""
    done = ready["models"] * steps * ready["trainings"][data]
    return done / min(m[data] for m in measured)


def _row(steps: int, contender: Contender, ready: Row, measured: Sequence[Row]) -> Row:
    missing = next((m["missing"] for m in (ready, *measured) if "missing" in m), None)
    if missing is not None or not measured:
        return {"missing": missing or UNMEASURED}
    by_data = {
        data: {
            "trainings": ready["trainings"][data],
            "seconds": [m[data] for m in measured],
            "models_steps_per_second": _speed(steps, ready, measured, data),
        }
        for data in DATA
    }
    return {
        "models": ready["models"],
        "compile_seconds": ready["compile_seconds"] if contender.compiles else None,
        "training_bytes": ready["training_bytes"],
        "losses": ready["losses"],
        **by_data,
    }


def _best(rates: Sequence[Row]) -> Row:
    """Each rate in its fastest round."""
    sizes = rates[0]["bytes_per_second"]
    return {
        "operations_per_second": max(r["operations_per_second"] for r in rates),
        "bytes_per_second": {n: max(r["bytes_per_second"][n] for r in rates) for n in sizes},
    }


def _relate(rows: Mapping[str, Row], ceiling: Row | None) -> None:
    """Add to each row how it stands to others: in speed, and in what it learned.

    The losses are those after training, by the ensemble's own loss in float64 on the fixed data;
    `this trainer, eager` is what all are compared with, over the models that both trained. Speeds
    of trainers that learned something else are not comparable: they get no ratio. Raises ValueError
    where `this trainer, eager` itself could not run.
    """
    if "missing" in rows[EAGER]:
        raise ValueError(
            "there is nothing to compare with, as this trainer cannot run here: "
            f"{rows[EAGER]['missing']}"
        )
    present = {key: row for key, row in rows.items() if "missing" not in row}
    losses = {key: row.pop("losses") for key, row in present.items()}
    for data in DATA:
        reference = np.array(losses[EAGER][data])
        for key, row in present.items():
            own = np.array(losses[key][data])
            shared = min(len(own), len(reference))
            difference = np.abs(own[:shared] - reference[:shared])
            median, largest = float(np.median(difference)), float(difference.max())
            row[data]["learned"] = {
                "models": shared,
                "median_difference": median,
                "largest_difference": largest,
            }
            row[data]["learned_the_same"] = median <= TOLERANCE  # NaN is not
        speeds = {
            key: row[data]["models_steps_per_second"]
            for key, row in present.items()
            if row[data]["learned_the_same"]
        }
        strongest = max((speeds[key] for key in (JAX, JAX_LAST) if key in speeds), default=None)
        for key, speed in speeds.items():
            peers = {
                "times_one_at_a_time": speeds.get(ONE_AT_A_TIME),
                "times_jax": speeds.get(JAX),
                "times_strongest_jax": strongest,
            }
            present[key][data] |= {
                name: None if peer is None else speed / peer for name, peer in peers.items()
            }
            if ceiling is not None:
                most = ceiling[data]["models_steps_per_second"]
                present[key][data]["fraction_of_ceiling"] = speed / most
