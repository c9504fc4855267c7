"""A process that measures, as its parent sees it."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from analysis.bench.peers import COMPILED
from analysis.bench.workloads import WorkloadName

Pipe = TypeVar("Pipe")
DATA = FIXED, FRESH = ("fixed", "fresh")
"""Data that stay the same, and data that are new at each step."""


@dataclass(frozen=True)
class Job:
    """What a process measures.

    task: `contender` (train one block of models again and again, of the fastest of the sizes
    `blocks`, with each kind of `data`), `blocks` (ensembles of `sizes`
    models, one a measurement, in blocks of `blocks[0]`, with the data made and dropped), or
    `ceilings` (the machine's rates). core: the core to measure on. ready_on: the core to prepare
    on. trainings: of one measurement; 0: as many as last min_seconds.
    """

    task: str
    contender: str = COMPILED
    workload: WorkloadName = "graph"
    first_seed: int = 0
    blocks: tuple[int, ...] = (1,)
    data: tuple[str, ...] = DATA
    sizes: tuple[int, ...] = ()
    steps: int = 1
    dtype: str = "float32"
    device: str = "cpu"
    core: int = 0
    ready_on: int = 0
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

    def stop(self) -> None:
        """End the process, whatever it does, and release what it holds."""
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            _pipe(self._input).close()
        _pipe(self._output).close()
        self._process.wait()
        self._errors.close()

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
