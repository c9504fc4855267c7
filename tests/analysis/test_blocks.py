"""Blocks of seeds: never done twice, never lost, and the same whoever trains them."""

import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import wraps

import numpy as np
import pytest
import torch
import xarray as xr
from filelock import FileLock, Timeout

from analysis.cli import main
from analysis.experiments import EXPERIMENTS
from analysis.experiments.base import Experiment, silent
from analysis.experiments.graph import GRAPH, GraphConfig
from analysis.problems.sizes import block_size
from analysis.run.blocks import made_and_stored, run_blocks
from analysis.run.runner import execute, present
from analysis.store.claims import result_path
from analysis.store.files import UNFINISHED
from analysis.store.results import load, save

TINY = GraphConfig(
    seeds=5,
    steps=12,
    control_steps=0,
    mechanisms=("vanilla", "ssa"),
    learning_rates=(0.05,),
    block_seeds=2,
    device="cpu",
)


def counting(trained: list[range]) -> Experiment:
    """The graph experiment, which notes the seeds that it trains."""

    @wraps(GRAPH.train)  # stands for it: the same source made the result
    def train(config, progress):
        trained.append(config.seed_range)
        return GRAPH.train(config, progress)

    return replace(GRAPH, train=train)


def same(one: xr.Dataset, other: xr.Dataset) -> bool:
    """Whether all data are equal bit for bit; the attributes tell of time."""
    return one.drop_attrs().identical(other.drop_attrs())


def test_blocks_are_the_seeds_in_order(machine):
    assert [list(b.seed_range) for b in GRAPH.blocks(TINY)] == [[0, 1], [2, 3], [4]]
    assert {b.model_dump_json(exclude={"seeds", "first_seed"}) for b in GRAPH.blocks(TINY)} == {
        TINY.model_dump_json(exclude={"seeds", "first_seed"})
    }
    assert len(GRAPH.blocks(TINY.model_copy(update={"block_seeds": None}))) == 1  # fits any cache
    large = GRAPH.blocks(GRAPH.preset("large"))
    assert len(large) == {2**18: 16, 2**23: 4, 2**30: 4}[machine.l2]
    assert [seed for b in large for seed in b.seed_range] == list(GRAPH.preset("large").seed_range)


@pytest.mark.parametrize(
    ("bytes_per_seed", "models", "block"), [(2**31, 1, 1), (2**30, 1, 2), (2**20, 10**4, 64)]
)
def test_a_block_has_a_bound_on_memory_and_no_fewer_than_64_seeds_within_it(
    machine, bytes_per_seed, models, block
):
    assert (
        block_size(TINY.model_copy(update={"block_seeds": None}), bytes_per_seed, models) == block
    )


def test_an_experiment_that_is_not_cut_says_so():
    whole = replace(GRAPH, seeds_per_block=None)
    with pytest.raises(
        ValueError, match="graph takes all seeds together, got block_seeds=2: drop block_seeds"
    ):
        whole.blocks(TINY)
    config = TINY.model_copy(update={"block_seeds": None})
    assert whole.blocks(config) == [config]


def test_a_run_that_was_cut_off_goes_on(tmp_path, quick_figures):
    """Stopped in the second block: the first is kept, as is a third that is there, and only the
    others are trained.
    """
    trained = []
    experiment = counting(trained)
    undisturbed, _, _ = execute(experiment, TINY, tmp_path / "undisturbed")
    assert trained == [range(0, 2), range(2, 4), range(4, 5)]
    trained.clear()

    def stop(description, total):
        if "seed 2" in description:
            raise KeyboardInterrupt
        return lambda finished: None

    with pytest.raises(KeyboardInterrupt):
        execute(experiment, TINY, tmp_path, progress=stop)
    blocks = tmp_path / "graph" / "blocks"
    assert [p.name for p in blocks.iterdir()] == ["seeds-0-to-1.nc"]
    assert not result_path("graph", tmp_path).exists()
    trained.clear()
    result, _, now = execute(experiment, TINY, tmp_path)
    assert now
    assert trained == [range(2, 4), range(4, 5)]
    assert same(result, undisturbed)
    assert same(load(result_path("graph", tmp_path)), undisturbed)
    assert not blocks.exists()


@pytest.fixture
def room():
    """room(n): this process can write no file of more than n bytes, as on a disk that fills; None
    lifts that.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(
        resource.RLIMIT_FSIZE, (before[0] if size is None else size, before[1])
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("missing", ["blocks/seeds-0-to-1.nc", "result.nc", "figure.svg"])
def test_a_full_disk_loses_nothing_and_the_run_goes_on(
    tmp_path, capsys, quick_figures, room, missing
):
    undisturbed, _, _ = execute(GRAPH, TINY, tmp_path / "undisturbed")
    sizes = {p.name: p.stat().st_size for p in (tmp_path / "undisturbed" / "graph").iterdir()}
    command = [
        "run",
        "graph",
        "--seeds",
        "5",
        "--steps",
        "12",
        "--control-steps",
        "0",
        "--mechanisms",
        "vanilla",
        "ssa",
        "--learning-rates",
        "0.05",
    ]
    command += ["--block-seeds", "2", "--device", "cpu", "--out", str(tmp_path)]
    room(sizes.get(missing, 1000) - 1)
    assert main(command) == 2
    room(None)
    said = capsys.readouterr().err.splitlines()[-1]
    path = tmp_path / "graph" / missing
    assert said.startswith(
        f"ssa-theory: cannot write {path} (File too large): make room, or choose another folder"
        " with --out"
    )
    left = {
        p.relative_to(tmp_path / "graph").as_posix()
        for p in (tmp_path / "graph").rglob("*")
        if p.is_file()
    }
    blocks = {f"blocks/seeds-{seeds}.nc" for seeds in ("0-to-1", "2-to-3", "4-to-4")}
    assert (
        left
        == {"blocks/seeds-0-to-1.nc": set(), "result.nc": blocks, "figure.svg": {"result.nc"}}[
            missing
        ]
    )
    trained = []
    result, _, _ = execute(counting(trained), TINY, tmp_path)
    assert len(trained) == (0 if left else 3)
    assert same(result, undisturbed)
    assert path.is_file() or missing.startswith("blocks")


@pytest.mark.parametrize("change", [{"steps": 13}, {"block_seeds": 3}, {"dtype": "float64"}])
def test_blocks_of_another_config_are_trained_anew(tmp_path, change):
    run_blocks(GRAPH, TINY, tmp_path, 1, None, silent)
    trained = []
    config = TINY.model_copy(update=change)
    result = run_blocks(counting(trained), config, tmp_path, 1, None, silent)
    assert len(trained) == {"steps": 3, "block_seeds": 2, "dtype": 3}[next(iter(change))]
    assert same(result, GRAPH.run(config))


def test_damaged_blocks_are_trained_anew(tmp_path):
    trained = []
    experiment, folder = counting(trained), tmp_path / "blocks"
    whole = run_blocks(experiment, TINY, folder, 1, None, silent)
    file = folder / "seeds-2-to-3.nc"
    file.write_bytes(file.read_bytes()[:2000])
    trained.clear()
    assert same(run_blocks(experiment, TINY, folder, 1, None, silent), whole)
    assert trained == [range(2, 4)]


def test_a_result_says_where_its_blocks_were_trained(tmp_path):
    alone = run_blocks(GRAPH, TINY, tmp_path, 1, None, silent)
    files = sorted(tmp_path.iterdir())
    seconds = [load(file).attrs["wall_seconds"] for file in files]
    assert (alone.attrs["blocks"], alone.attrs["threads"]) == (3, 1)
    assert alone.attrs["block_seconds"] == pytest.approx(sum(seconds))
    save(load(files[1]).assign_attrs(threads=7, device="cuda (H100)"), files[1])
    files[2].unlink()
    both = run_blocks(GRAPH, TINY, tmp_path, 1, None, silent)
    assert both.attrs["threads"] == "1, 7"
    assert both.attrs["device"] == f"{alone.attrs['device']}, cuda (H100)"
    stored = made_and_stored(GRAPH, TINY, tmp_path / "result.nc", lambda: both)
    assert (stored.attrs["threads"], stored.attrs["revision"]) == ("1, 7", alone.attrs["revision"])


@pytest.mark.parametrize("part", ["versions", "source", "inputs"])
def test_blocks_of_workers_with_another_version_are_refused(tmp_path, monkeypatch, part):
    def elsewhere(job, arguments, workers, scheduler, progress):
        for experiment, config, path, outside in arguments:
            job(experiment, config, path, outside, progress)
            yield save(load(path).assign_attrs({part: "other"}), path)

    monkeypatch.setattr("analysis.run.blocks.run_jobs", elsewhere)
    with pytest.raises(
        ValueError,
        match="another version of this code or of its packages, or from other files, than are here",
    ):
        run_blocks(GRAPH, TINY, tmp_path, 2, None, silent)


def test_a_sweep_on_workers_of_which_one_is_killed_equals_that_of_this_process(tmp_path):
    marker = tmp_path / "killed"

    def train(config, progress):
        import os  # the function travels to the worker by value
        import signal

        if config.first_seed == 2 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return GRAPH.train(config, progress)

    train.__module__ = "__main__"
    config = TINY.model_copy(update={"seeds": 8})
    swept = run_blocks(replace(GRAPH, train=train), config, tmp_path / "blocks", 2, None, silent)
    assert marker.exists()
    assert len(list((tmp_path / "blocks").iterdir())) == 4
    assert same(swept, GRAPH.run(config))


@pytest.mark.parametrize("name", ["graph", "phase", "twins", "retrieval", "denoise", "length"])
def test_the_same_block_size_gives_the_same_bits_in_any_company_and_order(name):
    """Seed 5 as the sixth of 0..63, as the first of 5..68 and after other blocks: only its own
    streams matter.
    """
    experiment, short = EXPERIMENTS[name], {"device": "cpu", "learning_rates": (0.06,)}
    if name == "denoise":
        short |= {"held_out": 8, "batch_size": 4}
    if name == "phase":
        short |= {"steps": (5, 20), "mechanisms": ("vanilla", "ssa")}
    config = experiment.config(**experiment.presets["smoke"] | short)
    first = experiment.train(config.of_seeds(range(64)), silent)
    second = experiment.train(config.of_seeds(range(5, 69)), silent)
    numbers = 0
    for name, values in first.data_vars.items():
        if "seed" in values.dims:
            one, other = (d[name].sel(seed=slice(5, 63)).values for d in (first, second))
            np.testing.assert_array_equal(one, other, err_msg=name)
            numbers += one.size
    assert numbers > 50


def test_a_second_process_waits_for_the_first(tmp_path):
    """The first is stopped (SIGSTOP) while it holds the folder; the second says that it waits, and
    then finds all done.
    """
    code = (
        "import sys; from pathlib import Path; from analysis.run import runner\nfrom"
        " analysis.run.runner import execute\nrunner.save_figure = lambda *_: None\nfrom"
        " analysis.experiments.graph import GRAPH, GraphConfig\nconfig ="
        f" GraphConfig.model_validate_json({TINY.model_dump_json()!r})\ndef progress(about,"
        " total):\n    print(about, flush=True)\n    return lambda n: None\nprint('trained',"
        f" execute(GRAPH, config, Path({str(tmp_path)!r}), progress=progress)[2], flush=True)"
    )

    def start():
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)

    first = start()
    assert "blocks" in first.stdout.readline()
    os.kill(first.pid, signal.SIGSTOP)
    second = start()
    try:
        assert "waiting for another process that works in" in second.stdout.readline()
        time.sleep(0.3)
        assert second.poll() is None
    finally:
        os.kill(first.pid, signal.SIGCONT)
    for process, said in ((first, "trained True"), (second, "trained False")):
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert said in out


def test_the_lock_of_a_killed_process_is_free(tmp_path, quick_figures):
    code = (
        "from filelock import FileLock; import time\n"
        f"lock = FileLock({str(tmp_path / '.graph.lock')!r})\n"
        "lock.acquire()\n"
        "print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(Timeout):
                FileLock(tmp_path / ".graph.lock").acquire(timeout=0)
        finally:
            holder.kill()
    execute(GRAPH, TINY.model_copy(update={"block_seeds": None}), tmp_path)
    assert result_path("graph", tmp_path).is_file()
    with FileLock(tmp_path / ".graph.lock").acquire(timeout=0):
        pass


def test_drawing_waits_too_and_what_kills_left_is_deleted(tmp_path, quick_figures):
    execute(GRAPH, TINY.model_copy(update={"block_seeds": None}), tmp_path)
    folder = result_path("graph", tmp_path).parent
    (folder / "blocks").mkdir()
    left = [folder / f"{UNFINISHED}1.svg", folder / "blocks" / f"{UNFINISHED}2.nc"]
    for path in left:
        path.touch()
    other, waited = FileLock(tmp_path / ".graph.lock"), []
    other.acquire()

    def progress(about, total):
        waited.append(about)
        assert all(path.is_file() for path in left)  # they may be the other's, which still works
        other.release()
        return lambda n: None

    present(GRAPH, tmp_path, progress)
    assert waited == [f"waiting for another process that works in {folder}"]
    assert not any(path.exists() for path in left)
    assert (folder / "figure.svg").is_file()


def test_other_instructions_and_threads_agree_to_rounding(tmp_path):
    """Two threads without the processor's vector instructions stand in for another machine: the
    same draws, other sums.
    """
    update = {"seeds": 64, "steps": 40, "block_seeds": None}
    configs = {
        dtype: TINY.model_copy(update=update | {"dtype": dtype}) for dtype in ("float32", "float64")
    }
    code = (
        "import pickle, torch; from pathlib import Path\n"
        "from analysis.experiments.base import silent\n"
        "from analysis.experiments.graph import GRAPH, GraphConfig\ntorch.set_num_threads(2)\n"
    )
    for dtype, config in configs.items():
        code += (
            f"config = GraphConfig.model_validate_json({config.model_dump_json()!r})\n"
            "trained = pickle.dumps(GRAPH.train(config, silent))\n"
            f"Path({str(tmp_path / dtype)!r}).write_bytes(trained)\n"
        )
    subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"ATEN_CPU_CAPABILITY": "default"},
        check=True,
    )
    for dtype, tolerance in (("float32", 1e-3), ("float64", 1e-10)):
        here = GRAPH.train(configs[dtype], silent)
        there = pickle.loads((tmp_path / dtype).read_bytes())
        # Else this processor has no other instructions.
        if torch.backends.cpu.get_cpu_capability() != "DEFAULT":
            assert not same(here, there)  # else this would show nothing
        for name in here.data_vars:
            if here[name].dtype.kind == "f":
                np.testing.assert_allclose(
                    there[name], here[name], rtol=tolerance, atol=tolerance, err_msg=name
                )
            else:
                assert here[name].equals(there[name]), name


def test_memory_is_bounded_by_the_block_and_not_by_the_ensemble(tmp_path):
    """Peak memory of a process of its own: eight blocks need what two need, but for their results;
    one large block does not.
    """
    code = (
        "import re; from pathlib import Path; import torch; from analysis.run.blocks import"
        " run_blocks\n"
        "from analysis.experiments.base import silent; from analysis.experiments.phase import"
        " PHASE, PhaseConfig\n"
        "torch.set_num_threads(1)\n"
        "def peak(seeds, block):\n"
        "    config = PhaseConfig(seeds=seeds, block_seeds=block, families=('graded',), nodes=16,"
        " dims=(16,), steps=(2,),\n"
        "        mechanisms=('vanilla', 'ssa'), learning_rates=(0.06,), dtype='float64',"
        " device='cpu')\n"
        f"    run_blocks(PHASE, config, Path({str(tmp_path)!r}) / str(block), 1, None, silent)\n"
        "    status = Path('/proc/self/status').read_text()\n"  # ru_maxrss would start at the parent's peak
        "    return int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]) / 1024\n"
        "two, eight, large = peak(128, 64), peak(512, 64), peak(512, 512)\n"
        "print(eight - two, large - eight)"
    )
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # the peak is then the same in every run
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env
    )
    growth, large = map(float, done.stdout.split())
    assert large > 60  # MiB: the measure sees a block
    assert growth < 0.25 * large
