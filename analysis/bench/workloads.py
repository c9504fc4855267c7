"""The workloads by name."""

from typing import Literal, get_args

from analysis.bench.graph_workloads import GRAPH_WORKLOADS
from analysis.bench.sample_workloads import SAMPLE_WORKLOADS
from analysis.bench.workload import Workload

WorkloadName = Literal[
    "graph",
    "graph-ssa",
    "graph-classifier",
    "prompt",
    "denoise",
    "retrieval",
    "kernel-regression",
]
WORKLOADS: tuple[WorkloadName, ...] = get_args(WorkloadName)
GROWN: tuple[WorkloadName, ...] = ("graph", "graph-ssa")
"""Those whose scaling is measured; a heavier one would take too long."""


def workload(name: WorkloadName) -> Workload:
    """The workload of that name."""
    return (GRAPH_WORKLOADS | SAMPLE_WORKLOADS)[name](name)
