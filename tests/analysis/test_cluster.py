"""Jobs give the same in this process and on workers, survive a killed worker, and report their
progress.
"""

import os
import signal
from pathlib import Path

import pytest

from analysis.experiments import EXPERIMENTS
from analysis.experiments.base import silent
from analysis.run.blocks import run_blocks
from analysis.run.cluster import _on_worker, run_jobs


def allow(monkeypatch, cores):
    """Let this process use so many cores, whatever the machine has; None: the system does not say
    of either.
    """
    monkeypatch.setattr("os.cpu_count", lambda: cores and 128)
    if cores is None:
        monkeypatch.delattr("os.sched_getaffinity", raising=False)
    else:
        used = set(range(cores))
        monkeypatch.setattr("os.sched_getaffinity", lambda process: used, raising=False)


def test_jobs_in_this_process_come_in_order():
    def job(number, progress):
        progress("counting", 1)(1)
        return number, os.getpid()

    assert list(run_jobs(job, [(3,), (5,)], 1, None, silent)) == [
        (3, os.getpid()),
        (5, os.getpid()),
    ]
    assert list(run_jobs(job, [(3,)], 2, None, silent)) == [
        (3, os.getpid())
    ]  # one job needs no cluster


@pytest.mark.parametrize("cores", [1, 4])
def test_a_killed_worker_does_not_lose_its_job(tmp_path, monkeypatch, cores):
    """Job 0 kills its worker at the first attempt, half-way. Two workers share the cores out."""
    allow(monkeypatch, cores)

    def job(number, folder, progress):
        import torch

        marker = folder / "killed"
        advance = progress(f"job {number}", 4)
        advance(2)
        if number == 0 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        advance(2)
        return number, os.getpid(), torch.get_num_threads()

    bars = {}

    def progress(description, total):
        bars[description] = [total]
        return bars[description].append

    done = sorted(run_jobs(job, [(i, tmp_path) for i in range(4)], 2, None, progress))
    assert [number for number, *_ in done] == [0, 1, 2, 3]
    assert (tmp_path / "killed").exists()
    assert os.getpid() not in {pid for _, pid, _ in done}
    assert {threads for *_, threads in done} == {{1: 1, 4: 2}[cores]}
    assert set(bars) == {f"job {i}" for i in range(4)}
    for total, *steps in bars.values():
        assert sum(steps) == total == 4
        assert min(steps) >= 0


def test_an_error_of_a_job_is_raised_here():
    def job(number, progress):
        if number == 1:
            raise ValueError("a rule, a value, a remedy")
        return number

    with pytest.raises(ValueError, match="a rule, a value, a remedy"):
        list(run_jobs(job, [(0,), (1,)], 2, None, silent))


@pytest.mark.parametrize("scheduler", ["nonsense://", "tcp://127.0.0.1:1"])
def test_a_scheduler_that_does_not_answer_is_named(scheduler, monkeypatch):
    monkeypatch.setattr("analysis.run.cluster.ANSWER_TIMEOUT", "1s")
    with pytest.raises(ValueError, match=f"no Dask scheduler answers at '{scheduler}'"):
        list(run_jobs(lambda progress: None, [()], 1, scheduler, silent))


@pytest.mark.parametrize("scheduler", ["foo", "nonsense://", "tcp://localhost"])
def test_what_is_no_address_makes_no_client(scheduler, monkeypatch):
    """It would be left half made, and end in a traceback when the command does."""
    monkeypatch.setattr("distributed.Client", None)
    with pytest.raises(ValueError, match=f"no Dask scheduler answers at '{scheduler}'"):
        list(run_jobs(lambda progress: None, [()], 1, scheduler, silent))


def test_workers_leave_ctrl_c_to_this_process():
    """It comes to all processes of a terminal: a worker that answers it while it starts prints a
    traceback.
    """

    def job(number, progress):
        return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())

    assert list(run_jobs(job, [(0,), (1,)], 2, None, silent)) == [True, True]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize("workers", [-1, 0, 33, 5000])
def test_a_senseless_number_of_workers_is_refused(workers, monkeypatch):
    allow(monkeypatch, 8)
    with pytest.raises(
        ValueError,
        match=rf"the number of workers must lie between 1 and 32, .* got {workers}: choose",
    ):
        list(run_jobs(print, [(0,), (1,)], workers, None, silent))


@pytest.mark.parametrize(("cores", "most"), [(None, 16), (1, 16), (4, 16), (128, 512)])
def test_as_many_workers_as_make_sense_are_allowed(cores, most, monkeypatch):
    allow(monkeypatch, cores)
    assert list(run_jobs(print, [], most, None, silent)) == []
    with pytest.raises(ValueError, match=f"between 1 and {most}, "):
        list(run_jobs(print, [], most + 1, None, silent))


class OwnWorker:
    """Stands for the worker that this process is."""

    address = "tcp://10.0.0.1:1"

    def log_event(self, topic, message):
        pass


def test_a_worker_works_where_the_command_was_given(tmp_path, monkeypatch):
    """Elsewhere relative names would mean other files."""
    monkeypatch.setattr("distributed.get_worker", OwnWorker)
    monkeypatch.chdir("/")
    (tmp_path / "my.gml").write_text("graph")
    read = _on_worker(
        lambda name, progress: Path(name).read_text(), ("my.gml",), 0, 1, f"{tmp_path}"
    )
    assert read == "graph"
    with pytest.raises(ValueError, match=r"worker at tcp://10.0.0.1:1 does not see /nowhere"):
        _on_worker(print, (), 0, 1, "/nowhere")


def test_a_scheduler_is_asked_even_for_one_block(tmp_path, monkeypatch):
    monkeypatch.setattr("analysis.run.cluster.ANSWER_TIMEOUT", "1s")
    graph = EXPERIMENTS["graph"]
    with pytest.raises(ValueError, match="no Dask scheduler answers at 'nonsense://'"):
        run_blocks(graph, graph.preset("smoke"), tmp_path, 1, "nonsense://", silent)
