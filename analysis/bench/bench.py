"""How fast an ensemble trains, beside its peers on the same work in the same run, and how that
scales: `ssa-theory bench`.
"""

import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from analysis.bench.compare import compared, idle_peaks
from analysis.bench.config import BenchConfig
from analysis.bench.process import cores
from analysis.bench.scaling import large, sizes, two_cores
from analysis.bench.workloads import GRAPHS
from analysis.experiments.base import Progress
from analysis.store.dependencies import code_digest
from analysis.store.results import prepare_folder, provenance, write_whole
from ssa_theory.ensemble import resolve_device


def bench(config: BenchConfig, out: Path, progress: Progress) -> dict[str, Any]:
    """Measure everything and store the report as out/bench/bench.json, whole."""
    device, start = resolve_device(config.device), time.perf_counter()
    folder = out / "bench"
    prepare_folder(folder)
    with _fresh_compilations():
        report = {
            "machine": {"processor": _processor(), "cores": len(cores())},
            "idle_peak_bytes": idle_peaks(config, device, progress),
            "workloads": {
                name: compared(config, name, device, progress) for name in config.workloads
            },
            "ensembles": {
                name: {
                    "cores": two_cores(config, name, device, progress),
                    "sizes": sizes(config, name, device, progress),
                    "large": large(config, name, device, progress),
                }
                for name in config.workloads
                if name in GRAPHS  # heavier ones would take too long
            },
        }
    _add_memory(report)
    report |= provenance("bench", config, device, code_digest(bench, BenchConfig)) | {
        "wall_seconds": round(time.perf_counter() - start, 2)
    }
    write_whole(
        folder / "bench.json",
        lambda path: path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8"),
    )
    return report


def load_report(out: Path) -> dict[str, Any]:
    """The stored report. Raises ValueError where there is none, or a damaged one."""
    path = out / "bench" / "bench.json"
    if not path.is_file():
        raise ValueError(
            f"there is no stored benchmark at {path}: run `ssa-theory bench`, or choose its folder "
            "with --out"
        )
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if missing := {"workloads", "ensembles", "versions"} - set(report):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"the stored benchmark {path} is damaged ({error}): run `ssa-theory bench` again"
        ) from error
    return report


def _add_memory(report: dict[str, Any]) -> None:
    """Beside each peak, what of it the training needed: the peak above that of the idle process."""
    idle = report["idle_peak_bytes"]
    for work in report["workloads"].values():
        for name, row in work["contenders"].items():
            if "peak_bytes" in row:
                row["training_bytes"] = max(0, row["peak_bytes"] - idle[name])
    for grown in (e["sizes"] for e in report["ensembles"].values()):
        for row in grown.get("rows", []):
            row["training_bytes"] = max(0, row["peak_bytes"] - idle[grown["trainer"]])


@contextmanager
def _fresh_compilations() -> Iterator[None]:
    """A cache of compiled code of this run's own, so that it compiles from scratch."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory(prefix="ssa-bench-", ignore_cleanup_errors=True) as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            os.environ.pop(name)
            if before is not None:
                os.environ[name] = before


def _processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    names = (
        [line for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.is_file()
        else []
    )
    return (
        names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()
    )
