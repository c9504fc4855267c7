"""The processes of the benchmark: what each is given to do, and that none outlives an error."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch

from analysis.bench.child import Child, Job
from analysis.bench.config import BenchConfig
from analysis.bench.peers import COMPILED, EAGER
from analysis.bench.workloads import WorkloadName, workload
from ssa_theory.device import block_members, cores

Advance = Callable[[int], None]
Log = Callable[[str], None]
"""Receives a line at each measurement."""
UNMEASURED = "stopped before it was measured"


def trainer(config: BenchConfig) -> str:
    return COMPILED if config.compile != "off" else EAGER


def block_of(config: BenchConfig, name: WorkloadName, device: torch.device) -> int:
    """Models in one tensor program of this workload."""
    needed = workload(name).bytes_per_member(getattr(torch, config.dtype))
    return config.block_seeds or block_members(needed, device)


def job(config: BenchConfig, device: torch.device, task: str, **changes: Any) -> Job:
    common = {
        name: getattr(config, name) for name in ("first_seed", "steps", "dtype", "min_seconds")
    }
    return Job(task, **(common | {"device": device.type, "core": cores()[0]} | changes))


@contextmanager
def children(jobs: Mapping[str, Job], advance: Advance) -> Iterator[dict[str, Child]]:
    """The processes of these jobs, ended at once on an error. They are made ready one after another
    on each core, and so as many at a time as there are cores; what is measured is alone.
    """
    used, running, waiting = cores(), {}, []
    with ExitStack() as stack:
        for i, (name, todo) in enumerate(jobs.items()):
            if len(waiting) == len(used):
                waiting.pop(0).wait_ready()
                advance(1)
            running[name] = Child(replace(todo, ready_on=used[i % len(used)]))
            stack.callback(running[name].stop)
            waiting.append(running[name])
        for child in waiting:
            child.wait_ready()
            advance(1)
        yield running
