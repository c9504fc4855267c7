"""What the machine could do at most: the rate of its multiply-adds, and how fast a core reads and
writes what the caches hold, or the memory. And which of them a workload meets first.
"""

import ctypes
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch

from analysis.bench.operations import Work
from ssa_theory.lanes import Unsupported
from ssa_theory.lanes.build import build, instructions, vector_bytes

_PRODUCTS = {"cpu": (128, 192, 256, 384), "cuda": (4096, 8192)}
"""Matrices whose products are fastest: within the caches of one core, or large ones."""
SIZES = (2**17, 2**23, 2**26)
"""Bytes that bandwidth is measured with: beyond the first-level cache and within the second, within
the last, and beyond.
"""
_SUM = r"""
extern "C" void add(REAL* into, const REAL* of, int64_t vectors, int64_t repeats) {
  V* y = (V*)into; const V* x = (const V*)of;
  for (int64_t r = 0; r < repeats; r++) {
#pragma GCC unroll 8
    for (int64_t i = 0; i < vectors; i++) y[i] += x[i];
    asm volatile("" ::: "memory");
  }
}
"""


@dataclass(frozen=True)
class Ceiling:
    """models_steps_per_second: at most. binds: `compute`, `cache` or `memory`, which is slowest."""

    models_steps_per_second: float
    binds: str


def ceilings(
    work: Work, itemsize: int, batch_bytes: int, pool_bytes: int, rates: Mapping[str, Any]
) -> dict[str, Any]:
    """Of a workload with fixed and with fresh data: no part of a step is faster than its operations,
    nor than what it moves within the caches, nor than its fresh data arrive.

    batch_bytes: fresh data of a model's step. pool_bytes: from among how many they come. rates:
    what `measure_rates` measured.
    """
    seconds = {"compute": work.all_operations / rates["operations_per_second"]}
    fresh = dict(seconds)
    if bandwidth := {int(size): r for size, r in rates["bytes_per_second"].items()}:
        seconds["cache"] = itemsize * work.moved / bandwidth[SIZES[0]]
        held = next((size for size in SIZES if size >= pool_bytes), SIZES[-1])
        fresh = seconds | {"memory": batch_bytes / bandwidth[held]}
    return {
        "operations": work.operations,
        "functions": work.functions,
        "bytes": itemsize * work.moved,
        "fresh_bytes": batch_bytes,
        "rates": dict(rates),
        "fixed": asdict(_slowest(seconds)),
        "fresh": asdict(_slowest(fresh)),
    }


def _slowest(seconds: Mapping[str, float]) -> Ceiling:
    binds = max(seconds, key=lambda name: seconds[name])
    return Ceiling(1 / seconds[binds], binds)


def measure_rates(device: torch.device, min_seconds: float) -> dict[str, Any]:
    """operations_per_second: of float32 matrix products, two a multiply-add. bytes_per_second: by
    size, of y += x, which reads two numbers and writes one; none on a GPU, or without a compiler.
    """
    sizes = _PRODUCTS[device.type]
    each = min_seconds / (len(sizes) + len(SIZES))
    return {
        "operations_per_second": max(_products(n, device, each) for n in sizes),
        "bytes_per_second": _bandwidths(each) if device.type == "cpu" else {},
    }


def vector_instructions() -> str | None:
    """Which of them this trainer's compiled steps use; None without a compiler."""
    try:
        return instructions()
    except Unsupported:
        return None


def _products(n: int, device: torch.device, min_seconds: float) -> float:
    factor = torch.rand(n, n, device=device)
    into = torch.empty_like(factor)

    def run(repeats: int) -> None:
        for _ in range(repeats):
            torch.mm(factor, factor, out=into)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return 2 * n**3 * _rate(run, min_seconds)


def _bandwidths(min_seconds: float) -> dict[str, float]:
    try:
        add = _adder()
    except Unsupported:
        return {}
    bandwidths = {}
    for size in SIZES:
        numbers = size // 8  # of each of two arrays
        x, y = torch.ones(numbers), torch.zeros(numbers)
        # Arrays of torch stand at multiples of 64 bytes.
        vectors = ctypes.c_int64(numbers * 4 // vector_bytes())
        to, of = ctypes.c_void_p(y.data_ptr()), ctypes.c_void_p(x.data_ptr())

        def run(
            repeats: int,
            to: ctypes.c_void_p = to,
            of: ctypes.c_void_p = of,
            vectors: ctypes.c_int64 = vectors,
        ) -> None:
            add(to, of, vectors, ctypes.c_int64(repeats))

        bandwidths[str(size)] = 12 * numbers * _rate(run, min_seconds)
    return bandwidths


@cache
def _adder() -> Any:
    made = build(_SUM, torch.float32).add
    made.restype = None
    return made


def _rate(run: Callable[[int], None], min_seconds: float) -> float:
    """Repetitions per second."""
    run(1)
    start = time.perf_counter()
    run(1)
    repeats = max(1, int(min_seconds / max(1e-7, time.perf_counter() - start)))
    start = time.perf_counter()
    run(repeats)
    return repeats / (time.perf_counter() - start)
