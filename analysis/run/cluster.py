"""Independent jobs in this process, on a local Dask cluster, or on one that already runs."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, TypeVar

import torch

from analysis.experiments.base import Progress
from ssa_theory.device import cores

_TOPIC = "ssa-theory-progress"
ANSWER_TIMEOUT = "10s"  # of a running scheduler
_SECONDS_BETWEEN_EVENTS = 0.5
Result = TypeVar("Result")


def run_jobs(
    job: Callable[..., Result],
    arguments: Sequence[tuple[Any, ...]],
    workers: int,
    scheduler: str | None,
    progress: Progress,
) -> Iterator[Result]:
    """job(*arguments[i], progress) for every i; results come as they finish.

    workers: processes of a local cluster, among which the cores are shared out; 1 is this process
    itself. scheduler: the address of a running Dask cluster, in place of a local one, whose workers
    must see the same files: they work in the folder of this process, so that relative names mean
    the same. A worker that is killed is replaced and its job done again. Where a job
    raises, its error is raised here, and jobs that have not finished are dropped.

    Raises ValueError as `check_workers`, for workers that do not start, and for a scheduler that
    does not answer.
    """
    check_workers(workers)
    if not arguments:
        return
    if scheduler is None and min(workers, len(arguments)) <= 1:
        for some in arguments:
            yield job(*some, progress)
        return
    from distributed import (
        as_completed,
    )  # takes a second to import, which a run in this process need not wait for

    threads = None if scheduler else max(1, len(cores()) // workers)
    with _client(min(workers, len(arguments)), scheduler) as client:
        advances: dict[tuple[int, str], tuple[Callable[[int], None], int]] = {}

        def hear(event: tuple[float, dict[str, Any]]) -> None:
            state = event[1]
            key = (state["job"], state["description"])
            advance, done = advances.get(key) or (progress(state["description"], state["total"]), 0)
            advance(max(0, state["done"] - done))  # a job done again begins anew, its bar does not
            advances[key] = (advance, max(done, state["done"]))

        client.subscribe_topic(_TOPIC, hear)
        futures = [
            client.submit(_on_worker, job, some, index, threads, os.getcwd(), pure=False)
            for index, some in enumerate(arguments)
        ]
        try:
            for future in as_completed(futures, loop=client.loop):
                yield future.result()
        finally:
            client.cancel(futures, force=True)


def check_workers(workers: int) -> None:
    """Raise ValueError for a number of workers below 1 or far above that of the cores.

    >>> check_workers(2)
    """
    most = max(16, 4 * len(cores()))
    if not 1 <= workers <= most:
        raise ValueError(
            f"the number of workers must lie between 1 and {most}, four for each core of this"
            f" machine but never fewer than 16, got {workers}: choose another with --workers, or a"
            " cluster with --scheduler"
        )


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Any]:
    """A client of the running scheduler, or of a local cluster that lives as long as the context."""
    import dask.config
    from distributed import Client, LocalCluster
    from distributed.comm.addressing import get_address_host_port

    if scheduler is not None:
        try:
            get_address_host_port(scheduler)  # what is no address leaves a client half made
            client = Client(scheduler, timeout=ANSWER_TIMEOUT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"no Dask scheduler answers at {scheduler!r} ({type(error).__name__}): start one,"
                " or use --workers"
            ) from error
        with client:
            yield client
        return
    # Dask's own setting hands freed memory back at once, and every training step would fault its
    # tensors in again.
    with dask.config.set({"distributed.nanny.pre-spawn-environ": {}}):
        with _ctrl_c_later():
            try:
                cluster = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=":0",
                    silence_logs=logging.CRITICAL,
                )
            except RuntimeError as error:  # one was killed before it was ready
                raise ValueError(
                    f"{workers} workers could not be started ({error}): run the same command again,"
                    " or with fewer --workers"
                ) from error
        with cluster, Client(cluster, set_as_default=False) as client:
            yield client


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Hold Ctrl-C back, here until the end of the context, and for good in the processes that are
    started meanwhile.

    The terminal sends it to all processes at once, and each worker that is still importing would
    print a traceback. This process alone answers it: it ends the workers.
    """
    if not hasattr(signal, "pthread_sigmask"):  # a system without
        yield
        return
    resource_tracker.ensure_running()  # starting it later, with the first process, would let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _on_worker(
    job: Callable[..., Result],
    arguments: tuple[Any, ...],
    index: int,
    threads: int | None,
    folder: str,
) -> Result:
    """Do one job on a worker, in a folder, and tell the client of its progress now and then."""
    from distributed import get_worker

    worker = get_worker()
    try:
        os.chdir(folder)
    except OSError as error:
        raise ValueError(
            f"the worker at {worker.address} does not see {folder} ({error.strerror}): start workers"
            " where they see the files of this process"
        ) from error
    if threads is not None:
        torch.set_num_threads(threads)

    def progress(description: str, total: int) -> Callable[[int], None]:
        done, reported = 0, 0.0

        def advance(finished: int) -> None:
            nonlocal done, reported
            done += finished
            if done >= total or time.monotonic() - reported > _SECONDS_BETWEEN_EVENTS:
                reported = time.monotonic()
                worker.log_event(
                    _TOPIC, {"job": index, "description": description, "total": total, "done": done}
                )

        return advance

    return job(*arguments, progress)
