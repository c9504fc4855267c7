"""Each measurement in a process of its own, so that threads, compiled code and peak memory are its
own.

The parent starts `python -m analysis.bench.process JOB`, which prepares, says so in a line of JSON,
and then answers each line that it reads with the result of one measurement, and the end of its
input with its peak memory.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from analysis.bench.peers import COMPILED, CONTENDERS
from analysis.bench.workloads import Workload, WorkloadName, workload

Pipe = TypeVar("Pipe")

COMPARED = 256  # models of each contender whose losses are compared
_MM_SIZES = (128, 192, 256, 384)  # matrices within the caches of one core

Measure = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """What a process measures.

    task: `contender` (train one block of `block` models again and again), `blocks` (ensembles of
    `sizes` models, one a measurement, block after block, with the data made and dropped), `idle`
    (only what the contender's tool costs), or `multiply-add` (the machine's rate). core: the core
    to stay on. trainings: of one measurement; 0: as many as last min_seconds.
    """

    task: str
    contender: str = COMPILED
    workload: WorkloadName = "graph"
    first_seed: int = 0
    block: int = 1
    sizes: tuple[int, ...] = ()
    steps: int = 1
    dtype: str = "float32"
    device: str = "cpu"
    core: int = 0
    trainings: int = 0
    min_seconds: float = 0.0


class Child:
    """A process that measures one job on one core, with one thread.

    `ready` is what it said after preparing: where it holds `missing`, a sentence, there is nothing
    to measure.
    """

    def __init__(self, job: Job) -> None:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        threads: dict[str, str] = dict.fromkeys(names, "1")
        flags = os.environ.get("XLA_FLAGS", "")
        threads["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "analysis.bench.process", json.dumps(asdict(job))],
            env=os.environ | threads,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.ready: dict[str, Any] = {}
        self._input, self._output = self._process.stdin, self._process.stdout

    def wait_ready(self) -> "Child":
        self.ready = self._answer()
        return self

    def go(self) -> None:
        """Begin one measurement."""
        with contextlib.suppress(BrokenPipeError):  # it has ended: `result` says so
            print(file=self._input, flush=True)

    def result(self) -> dict[str, Any]:
        """Of the measurement; `missing` with a sentence where the process ended instead."""
        return self._answer()

    def measure(self) -> dict[str, Any]:
        self.go()
        return self.result()

    def finish(self) -> int:
        """Let the process end; its peak memory in bytes."""
        self._close_input()
        return self._answer().get("peak_bytes", 0)

    def stop(self) -> None:
        """End the process, whatever it does, and release what it holds."""
        self._process.kill()
        self._close_input()
        _pipe(self._output).close()
        self._process.wait()
        self._errors.close()

    def _close_input(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            _pipe(self._input).close()

    def _answer(self) -> dict[str, Any]:
        line = _pipe(self._output).readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
        return {"missing": " ".join([f"its process ended with code {code}", *last])[:160]}


def _pipe(stream: Pipe | None) -> Pipe:
    """A stream of a process that was started with pipes."""
    assert stream is not None
    return stream


def cores() -> list[int]:
    """The cores that this process may use; on systems that do not say, as many as there are."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def prepare(job: Job) -> tuple[dict[str, Any], Measure]:
    """Make ready to measure: what there is to say of it, and the measurement; `missing` says why
    there is none.

    A trainer that is to be compiled and goes on uncompiled counts as one that cannot run here.
    """
    tasks = {"contender": _contender, "blocks": _blocks, "idle": _idle, "multiply-add": _flops}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "training goes on uncompiled", RuntimeWarning)
            return tasks[job.task](job)
    except Exception as error:  # whatever a contender's tool raises where it cannot work
        return {"missing": " ".join(str(error).split())[:160] or type(error).__name__}, dict


def _idle(job: Job) -> tuple[dict[str, Any], Measure]:
    CONTENDERS[job.contender].warm_up()
    return {}, dict


def _contender(job: Job) -> tuple[dict[str, Any], Measure]:
    """Train a block twice, for compilation and to know how long it takes; evaluate what was
    learned, in float64.
    """
    work, device = workload(job.workload), torch.device(job.device)
    dtype = getattr(torch, job.dtype)
    seeds = range(job.first_seed, job.first_seed + job.block)
    train = CONTENDERS[job.contender].prepare(work, work.make(seeds, device, dtype), job.steps)
    first, _ = _timed(train, device)
    seconds, learned = _timed(train, device)
    trainings = job.trainings or max(1, round(job.min_seconds / seconds + 0.5))

    def measure() -> dict[str, Any]:
        def repeat() -> None:
            for _ in range(trainings):
                train()

        return {"seconds": _timed(repeat, device)[0]}

    compared = seeds[:COMPARED]
    exact = work.make(compared, torch.device("cpu"), torch.float64)
    parameters = {k: v[..., : len(compared)].double().cpu() for k, v in learned.items()}
    losses = work.ensemble_loss(exact)(parameters, None)
    return {
        "compile_seconds": max(0.0, first - seconds),
        "trainings": trainings,
        "losses": losses.tolist(),
    }, measure


def _blocks(job: Job) -> tuple[dict[str, Any], Measure]:
    """Train ensembles in blocks. Every shape is compiled beforehand: that of a block, and that of
    each size's last one.
    """
    work, device = workload(job.workload), torch.device(job.device)
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
            "peak_bytes": _peak_bytes(job.device),
        }

    return {}, measure


def _parts(job: Job, size: int) -> list[range]:
    """The seeds of each block of an ensemble."""
    stop = job.first_seed + size
    return [
        range(start, min(start + job.block, stop))
        for start in range(job.first_seed, stop, job.block)
    ]


def _train_block(
    work: Workload, job: Job, seeds: range, device: torch.device, steps: int
) -> tuple[float, int]:
    """Make a block's data, train, and drop data and models; the seconds of training, and how many losses are
    not finite.
    """
    start = work.make(seeds, device, getattr(torch, job.dtype))
    seconds, learned = _timed(CONTENDERS[job.contender].prepare(work, start, steps), device)
    return seconds, int((~work.ensemble_loss(start)(learned, None).isfinite()).sum())


def _flops(job: Job) -> tuple[dict[str, Any], Measure]:
    """The best rate of float32 matrix products that stay in the caches, in operations (2 a
    multiply-add) per second.
    """
    device = torch.device(job.device)
    sizes = (4096, 8192) if device.type == "cuda" else _MM_SIZES
    factors = {n: torch.rand(n, n, device=device) for n in sizes}

    def rate(n: int) -> float:
        def products() -> None:
            for _ in range(repeats):
                torch.mm(factors[n], factors[n], out=into)

        into, repeats = torch.empty_like(factors[n]), 1
        repeats = max(1, int(job.min_seconds / len(sizes) / _timed(products, device)[0]))
        return 2 * n**3 * repeats / _timed(products, device)[0]

    return {}, lambda: {"operations_per_second": max(rate(n) for n in sizes)}


def _timed(run: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds until the device is done, and what `run` returned."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def _peak_bytes(device: str) -> int:
    """The most memory that this process ever held: on the device, or resident."""
    if device == "cuda":
        if "jax" in sys.modules:
            return sys.modules["jax"].devices()[0].memory_stats()["peak_bytes_in_use"]
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage begins at what the parent held when it started this process
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main(argument: str) -> None:
    """Answer on what was standard output; whatever else is printed goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    job = Job(**json.loads(argument))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {job.core})
    torch.set_num_threads(1)
    ready, measure = prepare(job)
    say(ready)
    for _ in sys.stdin:
        say(measure())
    say({"peak_bytes": _peak_bytes(job.device)})


if __name__ == "__main__":
    main(sys.argv[1])
