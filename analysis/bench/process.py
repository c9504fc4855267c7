"""Each measurement in a process of its own, so that threads, compiled code and peak memory are its
own.

The parent starts `python -m analysis.bench.process JOB`, which prepares, says so in a line of JSON,
and then answers each line that it reads with the result of one measurement.
"""

import contextlib
import gc
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from analysis.bench.ceilings import measure_rates
from analysis.bench.child import FIXED, FRESH, Job
from analysis.bench.peers import CONTENDERS, Training
from analysis.bench.workload import Arrays, Start, Workload
from analysis.bench.workloads import workload

COMPARED = 256  # models of each contender whose losses are compared
BATCHES = 16  # of fresh data, in turn: more than the caches near a core hold

Measure = Callable[[], dict[str, Any]]


def prepare(job: Job) -> tuple[dict[str, Any], Measure]:
    """Make ready to measure: what there is to say of it, and the measurement; `missing` says why
    there is none.

    A trainer that is to be compiled and goes on uncompiled counts as one that cannot run here.
    """
    tasks = {"contender": _contender, "blocks": _blocks, "ceilings": _ceilings}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "training goes on uncompiled", RuntimeWarning)
            return tasks[job.task](job)
    except Exception as error:  # whatever a contender's tool raises where it cannot work
        return {"missing": " ".join(str(error).split())[:160] or type(error).__name__}, dict


@dataclass(frozen=True)
class _Tried:
    """A training that was tried: it takes `seconds` once `first` seconds, with compilation, are
    over.
    """

    train: Training
    start: Start
    first: float
    seconds: float
    learned: Arrays


def _contender(job: Job) -> tuple[dict[str, Any], Measure]:
    """Train each size of block twice, for compilation and to know how long it takes; evaluate what
    was learned, in float64.
    """
    work, device = workload(job.workload), torch.device(job.device)
    dtype = getattr(torch, job.dtype)
    CONTENDERS[job.contender].warm_up()
    idle = _held_bytes(job.device)

    def tried(block: int, batches: int) -> _Tried:
        seeds = range(job.first_seed, job.first_seed + block)
        start = work.make(seeds, device, dtype, batches)
        train = CONTENDERS[job.contender].prepare(work, start, job.steps)
        first, _ = _timed(train, device)
        return _Tried(train, start, first, *_timed(train, device))

    def rate(one: _Tried) -> float:
        return one.start.members / one.seconds

    fixed = tried(job.blocks[0], 1)
    compiling = fixed.first - fixed.seconds
    for block in job.blocks[1:]:
        other = tried(block, 1)
        compiling = max(compiling, other.first - other.seconds)  # what serves both is compiled once
        fixed = max(fixed, other, key=rate)
    if len(job.blocks) > 1:  # what another size held is no part of this one's memory
        _forget_peak(job.device)
        _timed(fixed.train, device)
    training_bytes = max(0, _peak_bytes(job.device) - idle)
    trials = {FIXED: fixed}
    if FRESH in job.data:
        trials[FRESH] = tried(fixed.start.members, BATCHES)
    times = {
        data: job.trainings or max(1, math.ceil(job.min_seconds / one.seconds))
        for data, one in trials.items()
    }

    def measure() -> dict[str, Any]:
        def repeat(data: str) -> None:
            for _ in range(times[data]):
                trials[data].train()

        return {data: _timed(lambda data=data: repeat(data), device)[0] for data in trials}

    compared = range(job.first_seed, job.first_seed + min(COMPARED, fixed.start.members))
    exact = work.make(compared, torch.device("cpu"), torch.float64, 1)
    losses = {}
    for data, one in trials.items():
        own = {k: v[..., : len(compared)].double().cpu() for k, v in one.learned.items()}
        losses[data] = exact.loss(own, exact.batches[0]).tolist()
    return {
        "models": fixed.start.members,
        "compile_seconds": max(0.0, compiling),
        "training_bytes": training_bytes,
        "trainings": times,
        "losses": losses,
    }, measure


def _blocks(job: Job) -> tuple[dict[str, Any], Measure]:
    """Train ensembles in blocks. Every shape is compiled beforehand: that of a block, and that of
    each size's last one.
    """
    work, device = workload(job.workload), torch.device(job.device)
    CONTENDERS[job.contender].warm_up()
    idle = _held_bytes(job.device)
    ensembles = [_parts(job, size) for size in job.sizes]
    for seeds in {len(part): part for parts in ensembles for part in parts}.values():
        _train_block(work, job, seeds, device, steps=2)
    coming = iter(ensembles)

    def measure() -> dict[str, Any]:
        parts, trained, start = next(coming), [], time.perf_counter()
        while not trained or time.perf_counter() - start < job.min_seconds:
            trained += [_train_block(work, job, part, device, job.steps) for part in parts]
        return {
            "seconds": time.perf_counter() - start,
            "training_seconds": sum(seconds for seconds, _ in trained),
            "trainings": len(trained) // len(parts),
            "not_finite": sum(bad for _, bad in trained[: len(parts)]),
            "training_bytes": max(0, _peak_bytes(job.device) - idle),
        }

    return {}, measure


def _parts(job: Job, size: int) -> list[range]:
    """The seeds of each block of an ensemble."""
    stop = job.first_seed + size
    return [
        range(start, min(start + job.blocks[0], stop))
        for start in range(job.first_seed, stop, job.blocks[0])
    ]


def _train_block(
    work: Workload, job: Job, seeds: range, device: torch.device, steps: int
) -> tuple[float, int]:
    """Make a block's data, train, and drop data and models; the seconds of training, and how many losses are
    not finite.
    """
    start = work.make(seeds, device, getattr(torch, job.dtype), 1)
    seconds, learned = _timed(CONTENDERS[job.contender].prepare(work, start, steps), device)
    return seconds, int((~start.loss(learned, start.batches[0]).isfinite()).sum())


def _ceilings(job: Job) -> tuple[dict[str, Any], Measure]:
    return {}, lambda: measure_rates(torch.device(job.device), job.min_seconds)


def _timed(run: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds until the device is done, and what `run` returned."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def _status(name: str) -> int | None:
    """Bytes that the system says of this process; None where it does not say."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    return 1024 * int(status.read_text().split(f"{name}:")[1].split()[0])


def _held_bytes(device: str) -> int:
    """The memory that this process holds now; its peak where the system does not say."""
    if device == "cuda":
        return _peak_bytes(device)
    return _status("VmRSS") or _peak_bytes(device)


def _forget_peak(device: str) -> None:
    """Count the peak anew; where that cannot be, it stays."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes(device: str) -> int:
    """The most memory that this process held: on the device, or resident."""
    if device == "cuda":
        if "jax" in sys.modules:
            return sys.modules["jax"].devices()[0].memory_stats()["peak_bytes_in_use"]
        return torch.cuda.max_memory_allocated()
    if peak := _status("VmHWM"):  # getrusage begins at what the parent held
        return peak
    try:
        import resource  # of Unix
    except ImportError as error:
        raise OSError("this system does not say how much memory a process held") from error
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main(argument: str) -> None:
    """Answer on what was standard output; whatever else is printed goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    job = Job(**json.loads(argument))
    _stay_on(job.ready_on)
    torch.set_num_threads(1)
    ready, measure = prepare(job)
    _stay_on(job.core)
    say(ready)
    for _ in sys.stdin:
        say(measure())


def _stay_on(core: int) -> None:
    """Every thread of this process, where the system allows it."""
    threads = Path("/proc/self/task")
    if hasattr(os, "sched_setaffinity") and threads.is_dir():
        for thread in threads.iterdir():
            with contextlib.suppress(OSError):  # it has ended
                os.sched_setaffinity(int(thread.name), {core})


if __name__ == "__main__":
    main(sys.argv[1])
