"""How fast an ensemble trains, beside its peers on the same work in the same run, and how that
scales: `ssa-theory bench`.
"""

import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from analysis.bench.ceilings import vector_instructions
from analysis.bench.compare import compared
from analysis.bench.config import BenchConfig
from analysis.bench.jobs import UNMEASURED, Log, block_of, children, job, trainer
from analysis.bench.scaling import large, sizes, two_cores
from analysis.bench.workloads import GROWN
from analysis.experiments.base import Progress
from analysis.store.dependencies import code_digest
from analysis.store.files import prepare_folder, write_whole
from analysis.store.results import provenance
from ssa_theory.device import cores, resolve_device

_STOPPED = "stopped.json"


def _silent(line: str) -> None:
    """Log nothing."""


def bench(config: BenchConfig, out: Path, progress: Progress, log: Log = _silent) -> dict[str, Any]:
    """Measure everything and store the report as out/bench/bench.json, whole. log(line) receives a
    line at each measurement.

    Ctrl-C ends the measuring: the report then says `stopped`, holds what was measured by then, and
    is stored as stopped.json beside an earlier whole one.
    """
    device, start = resolve_device(config.device), time.perf_counter()
    folder = out / "bench"
    prepare_folder(folder)
    about = provenance("bench", config, device, code_digest(bench, BenchConfig))
    report = {
        "machine": {
            "processor": _processor(),
            "cores": len(cores()),
            "vector_instructions": vector_instructions(),
        },
        "workloads": {},
        "ensembles": {},
    }
    try:
        with _fresh_compilations():
            _measure_all(config, device, report, progress, log)
    except KeyboardInterrupt:
        report["stopped"] = True
    report |= about | {"wall_seconds": round(time.perf_counter() - start, 2)}
    path = stored_at(report, out)
    write_whole(
        path, lambda path: path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    )
    if "stopped" not in report:
        path.with_name(_STOPPED).unlink(missing_ok=True)
    return report


def _measure_all(
    config: BenchConfig,
    device: torch.device,
    report: dict[str, Any],
    progress: Progress,
    log: Log,
) -> None:
    """Fill the report part by part, so that it holds what was measured if KeyboardInterrupt ends
    it.
    """
    rates = {"": job(config, device, "ceilings")}
    with children(rates, progress("bench: the machine", 1)) as running:
        for name in config.workloads:
            report["workloads"][name], stopped = compared(
                config, name, device, running[""].measure, progress, log
            )
            if stopped:
                raise KeyboardInterrupt
    for name in config.workloads:
        if name not in GROWN:
            continue
        grown = {"trainer": trainer(config), "block": block_of(config, name, device), "rows": []}
        parts = {"cores": {"missing": UNMEASURED}, "sizes": grown, "large": None}
        report["ensembles"][name] = parts
        parts["cores"] = two_cores(config, name, device, progress, log)
        sizes(config, name, device, progress, log, grown)
        parts["large"] = large(config, name, device, progress, log)


def stored_at(report: Mapping[str, Any], out: Path) -> Path:
    """The file of a report: one that was stopped does not take the place of a whole one."""
    return out / "bench" / (_STOPPED if "stopped" in report else "bench.json")


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


@contextmanager
def _fresh_compilations() -> Iterator[None]:
    """A cache of compiled code of this run's own, so that it compiles from scratch."""
    names = ("SSA_THEORY_CACHE", "TORCHINDUCTOR_CACHE_DIR")
    before = {name: os.environ.get(name) for name in names}
    with tempfile.TemporaryDirectory(prefix="ssa-bench-", ignore_cleanup_errors=True) as folder:
        os.environ.update(dict.fromkeys(names, folder))
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


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
