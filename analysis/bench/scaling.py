"""How training scales: on two cores, to growing ensembles, and to a large one on all cores."""

import time
from typing import Any

import numpy as np
import torch

from analysis.bench.child import FIXED
from analysis.bench.config import BenchConfig
from analysis.bench.jobs import Log, block_of, children, job, trainer
from analysis.bench.workloads import WorkloadName
from analysis.experiments.base import Progress
from ssa_theory.device import cores


def two_cores(
    config: BenchConfig, name: WorkloadName, device: torch.device, progress: Progress, log: Log
) -> dict[str, Any]:
    """A block in one process, and in two at once, each with a core and models of its own."""
    if device.type != "cpu":
        return {"missing": "one process drives the GPU"}
    if len(cores()) < 2:
        return {"missing": "needs two cores"}
    block = min(config.seeds, block_of(config, name, device))
    jobs = {
        str(i): job(
            config,
            device,
            "contender",
            contender=trainer(config),
            workload=name,
            blocks=(block,),
            data=(FIXED,),
            core=cores()[i],
            first_seed=config.first_seed + i * block,
        )
        for i in range(2)
    }
    advance = progress(f"bench: {name} on two cores", 2 + 2 * config.repeats)
    with children(jobs, advance) as running:
        if missing := next(
            (c.ready["missing"] for c in running.values() if "missing" in c.ready), None
        ):
            return {"missing": missing}
        first, second = running.values()
        work = {
            child: block * config.steps * child.ready["trainings"][FIXED]
            for child in running.values()
        }
        alone, together = [], []
        for _ in range(config.repeats):
            alone.append(work[first] / first.measure()[FIXED])
            advance(1)
            for child in running.values():
                child.go()
            together.append(sum(work[child] / child.result()[FIXED] for child in (first, second)))
            advance(1)
    one, two = max(alone), max(together)
    log(
        f"bench: {name} on two cores: {two:,.0f} models x steps / s, {two / one:.2f} times those "
        "of one"
    )
    return {"one": one, "two": two, "ratio": two / one, "models": block}


def sizes(
    config: BenchConfig,
    name: WorkloadName,
    device: torch.device,
    progress: Progress,
    log: Log,
    into: dict[str, Any],
) -> None:
    """Ensembles of growing size in one process, block by block: what memory a smaller one needed is
    no part of a larger one's.

    Adds to the rows of `into` as they are measured, or says there what is missing.
    """
    if not config.scaling:
        return
    name_of_trainer, block = into["trainer"], into["block"]
    work = job(
        config,
        device,
        "blocks",
        contender=name_of_trainer,
        workload=name,
        blocks=(block,),
        sizes=config.scaling,
    )
    advance = progress(f"bench: {name}, growing ensembles", 1 + len(config.scaling))
    with children({"": work}, advance) as running:
        child = running[""]
        for size in config.scaling:
            measured = child.ready if "missing" in child.ready else child.measure()
            if "missing" in measured:
                into.update(missing=measured["missing"], rows=[])
                return
            done = size * config.steps * measured["trainings"]
            speeds = {
                "models_steps_per_second": done / measured["training_seconds"],
                "with_data": done / measured["seconds"],
            }
            into["rows"].append({"models": size} | measured | speeds)
            log(
                f"bench: {name}, {size:,} models in blocks: "
                f"{speeds['models_steps_per_second']:,.0f} models x steps / s"
            )
            advance(1)


def large(
    config: BenchConfig, name: WorkloadName, device: torch.device, progress: Progress, log: Log
) -> dict[str, Any] | None:
    """One ensemble of `models` models in blocks over all cores: the seconds from the common start
    to the last end.
    """
    if not config.models:
        return None
    used = cores() if device.type == "cpu" else cores()[:1]
    shares = np.diff(np.linspace(0, config.models, len(used) + 1).astype(int)).tolist()
    starts = (config.first_seed + np.cumsum([0, *shares])).tolist()
    jobs = {
        str(core): job(
            config,
            device,
            "blocks",
            contender=trainer(config),
            workload=name,
            blocks=(block_of(config, name, device),),
            sizes=(share,),
            first_seed=first,
            core=core,
            min_seconds=0.0,
        )
        for core, share, first in zip(used, shares, starts[:-1], strict=True)
        if share
    }
    advance = progress(f"bench: {name}, {config.models} models", 2 * len(jobs))
    with children(jobs, advance) as running:
        if missing := next(
            (c.ready["missing"] for c in running.values() if "missing" in c.ready), None
        ):
            return {"missing": missing}
        start = time.perf_counter()
        for child in running.values():
            child.go()
        measured = []
        for child in running.values():
            measured.append(child.result())
            advance(1)
        seconds = time.perf_counter() - start
    if missing := next((f["missing"] for f in measured if "missing" in f), None):
        return {"missing": missing}
    log(f"bench: {name}, {config.models:,} models over all cores: {seconds:.0f} s")
    return {
        "models": config.models,
        "steps": config.steps,
        "processes": len(jobs),
        "seconds": seconds,
        "models_steps_per_second": config.models * config.steps / seconds,
        "training_seconds": max(f["training_seconds"] for f in measured),
        "training_bytes": max(f["training_bytes"] for f in measured),
        "not_finite": sum(f["not_finite"] for f in measured),
    }
