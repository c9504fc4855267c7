"""How fast an ensemble trains, beside its peers on the same work in the same run, and how that scales: `ssa-theory bench`."""

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator

from analysis.bench.peers import COMPILED, CONTENDERS, EAGER, ONE_AT_A_TIME
from analysis.bench.process import Child, Job, cores
from analysis.bench.workloads import GRAPH_VARIANTS, WORKLOADS, WorkloadName, graph_operations, workload
from analysis.store.config import TrainingConfig
from analysis.store.dependencies import code_digest
from analysis.experiments.base import Progress
from analysis.store.results import prepare_folder, provenance, write_whole
from ssa_theory import block_members, resolve_device

SINGLE_MODELS = 4  # trained one at a time
TOLERANCE = 1e-4  # nats, or squared error: the median over models of the difference in final loss
# Of an exponential or the like: a float32 polynomial with its range reduction is about ten multiply-adds.
FUNCTION_OPERATIONS = 20


class BenchConfig(TrainingConfig):
    """Train the same models with this trainer and with its peers, and compare models x steps per second, memory and scaling."""

    seeds: int = Field(
        8192, ge=1, le=10_000_000, description="models in one tensor program, at most: no more than a block"
    )
    compile: bool = Field(
        True, description="include this trainer compiled, and measure its scaling rather than the eager one's"
    )
    workloads: tuple[WorkloadName, ...] = Field(
        WORKLOADS,
        description="what to train: the graph task with vanilla attention and with SSA, its prompts, denoising",
    )
    steps: int = Field(200, ge=2, description="training steps of each model, at most: heavy workloads take fewer")
    repeats: int = Field(3, ge=1, le=100, description="rounds; the fastest counts")
    min_seconds: float = Field(1.0, ge=0, description="least length of one measurement: short trainings are repeated")
    scaling: tuple[int, ...] = Field(
        (1024, 4096, 16384, 65536),
        description="sizes of the graph ensembles trained block by block, smallest first; none: skip",
    )
    models: int = Field(
        0,
        ge=0,
        le=100_000_000,
        description="train this many models of each graph workload over all cores (1000000 takes minutes); 0: skip",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "BenchConfig":
        self.require_distinct("workloads")
        if list(self.scaling) != sorted(set(self.scaling)) or min(self.scaling, default=1) < 1:
            raise ValueError(
                f"scaling must be growing sizes of at least 1, got {self.scaling}: list each once, smallest first"
            )
        return self


Advance = Callable[[int], None]
Tell = Callable[[str], None]
_STOPPED, _UNMEASURED = "stopped.json", "stopped before it was measured"


def _unheard(line: str) -> None:
    """Nobody listens."""


def bench(config: BenchConfig, out: Path, progress: Progress, tell: Tell = _unheard) -> dict[str, Any]:
    """Measure everything and store the report as out/bench/bench.json, whole. tell(line) is told of each measurement at once.

    Ctrl-C ends the measuring: the report then says `stopped`, holds what was measured by then, and is stored as stopped.json
    beside an earlier whole one.
    """
    device, start = resolve_device(config.device), time.perf_counter()
    folder = out / "bench"
    prepare_folder(folder)
    about = provenance("bench", config, device, code_digest(bench, BenchConfig))
    report = {"machine": {"processor": _processor(), "cores": len(cores())}, "workloads": {}, "ensembles": {}}
    try:
        with _fresh_compilations():
            _measure_all(config, device, report, progress, tell)
    except KeyboardInterrupt:
        report["stopped"] = True
    _add_memory(report)
    report |= about | {"wall_seconds": round(time.perf_counter() - start, 2)}
    path = stored_at(report, out)
    write_whole(path, lambda path: path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8"))
    if "stopped" not in report:
        path.with_name(_STOPPED).unlink(missing_ok=True)
    return report


def _measure_all(
    config: BenchConfig, device: torch.device, report: dict[str, Any], progress: Progress, tell: Tell
) -> None:
    """Fill the report part by part, so that it holds what was measured if KeyboardInterrupt ends it."""
    report["idle_peak_bytes"] = _idle(config, device, progress)
    for name in config.workloads:
        report["workloads"][name], stopped = _compare(config, name, device, progress, tell)
        if stopped:
            raise KeyboardInterrupt
    for name in (n for n in config.workloads if n in GRAPH_VARIANTS):  # heavier ones would take too long
        sizes = {"trainer": _trainer(config), "block": _block(config, name, device), "rows": []}
        parts = {"cores": {"missing": _UNMEASURED}, "sizes": sizes, "large": None}
        report["ensembles"][name] = parts
        parts["cores"] = _two_cores(config, name, device, progress, tell)
        _sizes(config, name, device, progress, tell, sizes)
        parts["large"] = _large(config, name, device, progress, tell)


def stored_at(report: Mapping[str, Any], out: Path) -> Path:
    """The file of a report: one that was stopped does not take the place of a whole one."""
    return out / "bench" / (_STOPPED if "stopped" in report else "bench.json")


def load_report(out: Path) -> dict[str, Any]:
    """The stored report. Raises ValueError where there is none, or a damaged one."""
    path = out / "bench" / "bench.json"
    if not path.is_file():
        raise ValueError(
            f"there is no stored benchmark at {path}: run `ssa-theory bench`, or choose its folder with --out"
        )
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if missing := {"workloads", "ensembles", "versions"} - set(report):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except (ValueError, TypeError) as error:
        raise ValueError(f"the stored benchmark {path} is damaged ({error}): run `ssa-theory bench` again") from error
    return report


def _trainer(config: BenchConfig) -> str:
    return COMPILED if config.compile else EAGER


def _block(config: BenchConfig, name: WorkloadName, device: torch.device) -> int:
    """Models in one tensor program of this workload."""
    needed = workload(name).bytes_per_member(getattr(torch, config.dtype))
    return config.block_seeds or block_members(needed, device)


def _job(config: BenchConfig, device: torch.device, task: str, **changes: Any) -> Job:
    common = {name: getattr(config, name) for name in ("first_seed", "steps", "dtype", "min_seconds")}
    return Job(task, **(common | {"device": device.type, "core": cores()[0]} | changes))


@contextmanager
def _children(jobs: Mapping[str, Job], advance: Advance) -> Iterator[dict[str, Child]]:
    """The processes of these jobs, made ready one after another, so that none disturbs another; ended at once on an error."""
    with ExitStack() as stack:
        children = {}
        for name, job in jobs.items():
            children[name] = Child(job)
            stack.callback(children[name].stop)
            children[name].wait_ready()
            advance(1)
        yield children


def _idle(config: BenchConfig, device: torch.device, progress: Progress) -> dict[str, int]:
    """Peak memory by contender of a process that trains nothing; those that warm up alike are the same process."""
    present = [c for c in _contenders(config) if not c.missing]
    kinds = {c.warm_up: c.name for c in present}
    jobs = {name: _job(config, device, "idle", contender=name) for name in kinds.values()}
    with _children(jobs, progress("bench: memory of idle processes", len(jobs))) as children:
        peaks = {name: child.finish() for name, child in children.items()}
    return {c.name: peaks[kinds[c.warm_up]] for c in present}


def _contenders(config: BenchConfig) -> list:
    return [c for c in CONTENDERS.values() if config.compile or c.name != COMPILED]


def _compare(
    config: BenchConfig, name: WorkloadName, device: torch.device, progress: Progress, tell: Tell
) -> tuple[dict[str, Any], bool]:
    """All contenders on one workload, in rounds: each measures in turn, so that a change of the machine's speed meets all.

    Also whether Ctrl-C ended the rounds; then those that were measured have their speed from the rounds before, and no memory.
    """
    work = workload(name)
    models, steps = min(config.seeds, _block(config, name, device)), min(config.steps, work.steps)
    contenders = _contenders(config)
    sizes = {c.name: min(models, SINGLE_MODELS) if c.single else models for c in contenders}
    jobs = {
        c.name: _job(config, device, "contender", contender=c.name, workload=name, block=sizes[c.name], steps=steps)
        for c in contenders
        if not c.missing
    }
    if name in GRAPH_VARIANTS:  # whose operations are counted
        jobs["multiply-add"] = _job(config, device, "multiply-add")
    advance = progress(f"bench: {name}", len(jobs) * (1 + config.repeats))
    rows: dict[str, dict[str, Any]] = {c.name: {"missing": c.missing} for c in contenders if c.missing}
    for key, row in rows.items():
        tell(f"bench: {name}: {key}: {row['missing']}")
    stopped = False
    with _children(jobs, advance) as children:
        found: dict[str, list[dict[str, Any]]] = {key: [] for key in jobs}
        try:
            for turn in range(config.repeats):
                for key, child in children.items():
                    if "missing" not in child.ready:
                        found[key].append(child.measure())
                    if turn == 0 and key != "multiply-add":
                        last = found[key][-1] if found[key] else child.ready
                        speed = None if "missing" in last else _speed(sizes[key], steps, child.ready, [last])
                        said = last["missing"] if speed is None else f"{speed:,.0f} models x steps / s"
                        tell(f"bench: {name}: {key}: {said}, round 1 of {config.repeats}")
                    advance(1)
        except KeyboardInterrupt:
            stopped = True
        for key in jobs:
            ready = children[key].ready
            gone = next((m["missing"] for m in (ready, *found[key]) if "missing" in m), None)
            if key == "multiply-add":
                continue
            if gone is not None or not found[key]:
                rows[key] = {"missing": gone or _UNMEASURED}
                continue
            rows[key] = {
                "models": sizes[key],
                "trainings": ready["trainings"],
                "seconds": [m["seconds"] for m in found[key]],
                "models_steps_per_second": _speed(sizes[key], steps, ready, found[key]),
                "compile_seconds": ready["compile_seconds"] if CONTENDERS[key].compiles else None,
                "losses": ready["losses"],
            }
            if not stopped:  # else the process is in the middle of its work, or Ctrl-C has ended it too
                rows[key]["peak_bytes"] = children[key].finish()
    ceiling = None
    rates = [m["operations_per_second"] for m in found.get("multiply-add", []) if "missing" not in m]
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
        _relate(rows, ceiling, _trainer(config))
    rows = {c.name: rows[c.name] for c in contenders}
    return {"about": work.about, "steps": steps, "ceiling": ceiling, "contenders": rows}, stopped


def _speed(models: int, steps: int, ready: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> float:
    """Models x steps per second in the fastest of the rounds."""
    return models * steps * ready["trainings"] / min(m["seconds"] for m in found)


def _relate(rows: dict[str, dict[str, Any]], ceiling: dict[str, Any] | None, trainer: str) -> None:
    """Add to each row how it stands to others: in speed, and in what it learned.

    The losses are those after training, by the ensemble's own loss in float64; `this trainer, eager` is what all are compared
    with, over the models that both trained. Speeds of trainers that learned something else are not comparable: they get no
    ratio. Raises ValueError where `this trainer, eager` itself could not run.
    """
    if "missing" in rows[EAGER]:
        raise ValueError(f"there is nothing to compare with, as this trainer cannot run here: {rows[EAGER]['missing']}")
    reference = np.array(rows[EAGER]["losses"])
    for row in (r for r in rows.values() if "missing" not in r):
        losses = np.array(row.pop("losses"))
        shared = min(len(losses), len(reference))
        difference = np.abs(losses[:shared] - reference[:shared])
        median, largest = float(np.median(difference)), float(difference.max())
        row["learned"] = {"models": shared, "median_difference": median, "largest_difference": largest}
        row["learned_the_same"] = median <= TOLERANCE  # NaN is not
    for row in (r for r in rows.values() if r.get("learned_the_same")):
        speed = row["models_steps_per_second"]
        for key, other, inverse in (("times_one_at_a_time", ONE_AT_A_TIME, False), ("trainer_is_times", trainer, True)):
            peer = rows[other] if rows[other].get("learned_the_same") else None
            ratio = None if peer is None else speed / peer["models_steps_per_second"]
            row[key] = 1 / ratio if ratio and inverse else ratio
        if ceiling is not None:
            row["fraction_of_ceiling"] = speed * ceiling["operations_per_model_step"] / ceiling["operations_per_second"]


def _two_cores(
    config: BenchConfig, name: WorkloadName, device: torch.device, progress: Progress, tell: Tell
) -> dict[str, Any]:
    """A block in one process, and in two at once, each on a core of its own with models of its own."""
    if device.type != "cpu":
        return {"missing": "one process drives the GPU"}
    if len(cores()) < 2:
        return {"missing": "needs two cores"}
    block = min(config.seeds, _block(config, name, device))
    jobs = {
        str(i): _job(
            config,
            device,
            "contender",
            contender=_trainer(config),
            workload=name,
            block=block,
            core=cores()[i],
            first_seed=config.first_seed + i * block,
        )
        for i in range(2)
    }
    advance = progress(f"bench: {name} on two cores", 2 + 2 * config.repeats)
    with _children(jobs, advance) as children:
        if gone := next((c.ready["missing"] for c in children.values() if "missing" in c.ready), None):
            return {"missing": gone}
        first, second = children.values()
        work = {child: block * config.steps * child.ready["trainings"] for child in children.values()}
        alone, together = [], []
        for _ in range(config.repeats):
            alone.append(work[first] / first.measure()["seconds"])
            advance(1)
            for child in children.values():
                child.go()
            together.append(sum(work[child] / child.result()["seconds"] for child in (first, second)))
            advance(1)
    one, two = max(alone), max(together)
    tell(f"bench: {name} on two cores: {two:,.0f} models x steps / s, {two / one:.2f} times those of one")
    return {"one": one, "two": two, "ratio": two / one, "models": block}


def _sizes(
    config: BenchConfig,
    name: WorkloadName,
    device: torch.device,
    progress: Progress,
    tell: Tell,
    into: dict[str, Any],
) -> None:
    """Ensembles of growing size in one process, block by block: what memory a smaller one needed is no part of a larger one's.

    Adds to the rows of `into` as they are measured, or says there what is missing.
    """
    if not config.scaling:
        return
    trainer, block = into["trainer"], into["block"]
    job = _job(config, device, "blocks", contender=trainer, workload=name, block=block, sizes=config.scaling)
    advance = progress(f"bench: {name}, growing ensembles", 1 + len(config.scaling))
    with _children({"": job}, advance) as children:
        child = children[""]
        for size in config.scaling:
            found = child.ready if "missing" in child.ready else child.measure()
            if "missing" in found:
                into.update(missing=found["missing"], rows=[])
                return
            work = size * config.steps * found["trainings"]
            speeds = {
                "models_steps_per_second": work / found["training_seconds"],
                "with_data": work / found["seconds"],
            }
            into["rows"].append({"models": size} | found | speeds)
            tell(
                f"bench: {name}, {size:,} models in blocks: {speeds['models_steps_per_second']:,.0f} models x steps / s"
            )
            advance(1)


def _large(
    config: BenchConfig, name: WorkloadName, device: torch.device, progress: Progress, tell: Tell
) -> dict[str, Any] | None:
    """One ensemble of `models` models in blocks over all cores: the seconds from the common start to the last end."""
    if not config.models:
        return None
    used = cores() if device.type == "cpu" else cores()[:1]
    shares = np.diff(np.linspace(0, config.models, len(used) + 1).astype(int)).tolist()
    starts = (config.first_seed + np.cumsum([0, *shares])).tolist()
    jobs = {
        str(core): _job(
            config,
            device,
            "blocks",
            contender=_trainer(config),
            workload=name,
            block=_block(config, name, device),
            sizes=(share,),
            first_seed=first,
            core=core,
            min_seconds=0.0,
        )
        for core, share, first in zip(used, shares, starts[:-1], strict=True)
        if share
    }
    advance = progress(f"bench: {name}, {config.models} models", 2 * len(jobs))
    with _children(jobs, advance) as children:
        if gone := next((c.ready["missing"] for c in children.values() if "missing" in c.ready), None):
            return {"missing": gone}
        start = time.perf_counter()
        for child in children.values():
            child.go()
        found = []
        for child in children.values():
            found.append(child.result())
            advance(1)
        seconds = time.perf_counter() - start
    if gone := next((f["missing"] for f in found if "missing" in f), None):
        return {"missing": gone}
    tell(f"bench: {name}, {config.models:,} models over all cores: {seconds:.0f} s")
    return {
        "models": config.models,
        "steps": config.steps,
        "processes": len(jobs),
        "seconds": seconds,
        "models_steps_per_second": config.models * config.steps / seconds,
        "training_seconds": max(f["training_seconds"] for f in found),
        "peak_bytes": max(f["peak_bytes"] for f in found),
        "not_finite": sum(f["not_finite"] for f in found),
    }


def _add_memory(report: dict[str, Any]) -> None:
    """Beside each peak, what of it the training needed: the peak above that of the idle process."""
    idle = report.get("idle_peak_bytes", {})
    for work in report["workloads"].values():
        for name, row in work["contenders"].items():
            if "peak_bytes" in row:
                row["training_bytes"] = max(0, row["peak_bytes"] - idle[name])
    for sizes in (e["sizes"] for e in report["ensembles"].values()):
        for row in sizes.get("rows", []):
            row["training_bytes"] = max(0, row["peak_bytes"] - idle[sizes["trainer"]])


@contextmanager
def _fresh_compilations() -> Iterator[None]:
    """A cache of compiled code of this run's own: what it compiles first, it compiles from scratch."""
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
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()
