"""The benchmark: every peer learns the same, one that does not is noticed, and the report says what
was measured.
"""

import itertools
import json
import os
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from analysis.bench.bench import bench, load_report
from analysis.bench.ceilings import _adder
from analysis.bench.child import DATA, FIXED, FRESH, Child, Job
from analysis.bench.compare import contenders
from analysis.bench.config import BenchConfig
from analysis.bench.graph_workloads import DIM, NODES
from analysis.bench.jobs import block_of
from analysis.bench.losses import TORCH
from analysis.bench.peers import (
    COMPILED,
    CONTENDERS,
    EAGER,
    JAX,
    JAX_LAST,
    ONE_AT_A_TIME,
    TORCH_COMPILE,
)
from analysis.bench.process import prepare
from analysis.bench.tables import (
    COST,
    SCALING,
    SPEED,
    cost_rows,
    notes,
    scaling_rows,
    speed_rows,
    tables,
)
from analysis.bench.workloads import WORKLOADS, workload
from analysis.cli import main
from analysis.experiments.base import silent
from ssa_theory.device import cores
from ssa_theory.lanes import Unsupported
from ssa_theory.steps import steps_for

CPU = torch.device("cpu")
VMAP = "torch.func.vmap"
# What torch compiles is tested in a process of its own: the tests' type checker, which wraps every
# function here, is not traced.
HERE = [
    name
    for name, contender in CONTENDERS.items()
    if name not in (COMPILED, TORCH_COMPILE) and not contender.missing
]
TINY = BenchConfig(
    seeds=6,
    steps=10,
    repeats=2,
    min_seconds=0,
    compile="off",
    block_seeds=4,
    workloads=("graph-ssa",),
    scaling=(3, 10),
    models=9,
)


QUICK = (
    "--seeds 3 --steps 2 --repeats 1 --min-seconds 0 --compile off --block-seeds 3 "
    "--workloads graph-ssa"
)


class Inside:
    """Stands in for `Child`: the same work without a process, which takes seconds to start."""

    def __init__(self, job: Job) -> None:
        self.ready, self._measure = prepare(job)

    def wait_ready(self) -> "Inside":
        return self

    def go(self) -> None:
        pass

    def result(self) -> dict:
        return self._measure()

    measure = result

    def stop(self) -> None:
        pass


def stay_inside(patch, used=(0, 1)):
    patch.setattr("analysis.bench.jobs.Child", Inside)
    for module in ("bench", "jobs", "scaling"):
        patch.setattr(f"analysis.bench.{module}.cores", lambda: list(used))


@pytest.fixture
def inside(monkeypatch):
    stay_inside(monkeypatch)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A report, the folder it was stored in, the progress that was told, and the lines."""
    folder, told = tmp_path_factory.mktemp("bench"), []
    with pytest.MonkeyPatch.context() as patch:
        stay_inside(patch)
        lines = []
        report = bench(
            TINY,
            folder,
            lambda about, total: told.append((about, total)) or (lambda n: None),
            lines.append,
        )
    return report, folder, told, lines


@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize("name", WORKLOADS)
def test_all_learn_the_same(name, batches):
    work = workload(name)
    start = work.make(range(5), CPU, torch.float64, batches)
    before = start.loss(start.parameters, start.batches[0])
    also = [COMPILED] if (name, batches) in (("graph-ssa", 1), ("prompt", 3)) else []
    losses = {}
    for contender in [*HERE, *also]:
        train = CONTENDERS[contender].prepare(work, start, 15)
        train()
        learned = train()  # again from the start
        assert {k: v.shape for k, v in learned.items()} == {
            k: v.shape for k, v in start.parameters.items()
        }
        losses[contender] = start.loss(learned, start.batches[0])
        torch.testing.assert_close(losses[contender], losses[HERE[0]], rtol=1e-8, atol=1e-9)
    assert len(losses) >= 3
    assert (losses[EAGER] < before).all()
    assert len(set(losses[EAGER].tolist())) == 5  # each model is its own


def test_compiling_is_a_part_of_the_first_training_alone(monkeypatch):
    made = []

    def counted(*given, **named):
        made.append(given)
        return steps_for(*given, **named)

    monkeypatch.setattr("analysis.bench.peers.steps_for", counted)
    work = workload("graph-ssa")
    start = work.make(range(5), CPU, torch.float64, 1)
    train = CONTENDERS[COMPILED].prepare(work, start, 2)
    assert not made
    train()
    train()
    assert len(made) == 1


@pytest.mark.parametrize("name", WORKLOADS)
def test_one_model_has_the_loss_of_the_ensemble(name):
    work = workload(name)
    start = work.make(range(3, 6), CPU, torch.float64, 2)
    assert len(start.batches) == 2
    generator = torch.Generator().manual_seed(0)
    parameters = {
        k: torch.randn(v.shape, generator=generator, dtype=v.dtype)
        for k, v in start.parameters.items()
    }
    both = []
    for batch in start.batches:
        together = start.loss(parameters, batch)
        both.append(together)
        for member in range(3):
            data = start.shared | {k: v[..., member] for k, v in (start.own | batch).items()}
            own = {k: v[..., member] for k, v in parameters.items()}
            torch.testing.assert_close(work.loss(TORCH, own, data), together[member])
    assert (both[0] != both[1]).all()  # each step has data of its own
    alone = work.make([4], CPU, torch.float64, 2)  # a seed names a model, whatever stands beside it
    pairs = [(start.parameters, alone.parameters), (start.own, alone.own)]
    for arrays, single in [*pairs, *zip(start.batches, alone.batches, strict=True)]:
        for key in arrays:
            torch.testing.assert_close(arrays[key][..., 1:2], single[key], rtol=0, atol=0)


def test_more_models_than_a_chunk_learn_the_same(monkeypatch):
    monkeypatch.setattr("analysis.bench.jax_peers.CHUNK", 2)
    work = workload("graph-ssa")
    start = work.make(range(5), CPU, torch.float64, 1)
    exact = CONTENDERS[EAGER].prepare(work, start, 15)()
    for name in HERE:
        for key, value in CONTENDERS[name].prepare(work, start, 15)().items():
            torch.testing.assert_close(value, exact[key], rtol=1e-7, atol=1e-9)


def test_a_gpu_has_one_compiler():
    config = BenchConfig()
    names = [c.name for c in contenders(config, CPU)]
    assert names == list(CONTENDERS)
    on_gpu = [c.name for c in contenders(config, torch.device("cuda"))]
    assert on_gpu == [name for name in CONTENDERS if name != TORCH_COMPILE]
    plain = [c.name for c in contenders(TINY, CPU)]
    assert plain == [name for name in CONTENDERS if name not in (COMPILED, TORCH_COMPILE)]


def test_bytes_grow_with_precision_and_batch():
    graph, prompt = (workload(name) for name in ("graph-ssa", "prompt"))
    assert graph.bytes_per_member(torch.float64) == 2 * graph.bytes_per_member(torch.float32)
    parameters, data = DIM**2 + DIM, NODES * DIM
    assert (
        workload("graph").bytes_per_member(torch.float32)
        == graph.bytes_per_member(torch.float32) - 4 * 4 * DIM
    )
    assert graph.bytes_per_member(torch.float32) == 4 * (4 * parameters + data + graph.activations)
    assert prompt.bytes_per_member(torch.float32) > 5 * graph.bytes_per_member(torch.float32)


def test_report_is_consistent_and_stored_whole(measured):
    report, out, told, _ = measured
    assert load_report(out) == report
    assert json.loads(report["config"])["steps"] == 10
    assert [p.name for p in (out / "bench").iterdir()] == ["bench.json"]
    graph = report["workloads"]["graph-ssa"]
    rows = graph["contenders"]
    assert list(rows) == [name for name in CONTENDERS if name not in (COMPILED, TORCH_COMPILE)]
    ceiling = graph["ceiling"]
    work = workload("graph-ssa").work
    assert (ceiling["operations"], ceiling["functions"]) == (work.operations, work.functions)
    assert ceiling["bytes"] == 4 * work.moved
    assert ceiling["fresh_bytes"] == 4 * (NODES**2 + NODES)
    assert ceiling["rates"]["operations_per_second"] > 1e8
    for name, kind in itertools.product(HERE, DATA):
        row, found = rows[name], rows[name][kind]
        assert len(found["seconds"]) == 2
        work = row["models"] * 10 * found["trainings"]
        speed = found["models_steps_per_second"]
        assert speed == pytest.approx(work / min(found["seconds"]))
        alone = rows[ONE_AT_A_TIME][kind]["models_steps_per_second"]
        assert found["times_one_at_a_time"] == pytest.approx(speed / alone)
        most = ceiling[kind]["models_steps_per_second"]
        assert found["fraction_of_ceiling"] == pytest.approx(speed / most)
        assert found["learned_the_same"]
        assert found["learned"]["models"] == min(row["models"], rows[EAGER]["models"])
        assert found["learned"]["largest_difference"] >= found["learned"]["median_difference"] >= 0
        assert row["training_bytes"] >= 0
        assert "losses" not in row
        peers = [rows[peer][kind] for peer in (JAX, JAX_LAST) if peer in HERE]
        assert (found["times_jax"] is None) == (peers == [])
        if peers:
            speeds = [peer["models_steps_per_second"] for peer in peers]
            assert found["times_jax"] == pytest.approx(speed / speeds[0])
            assert found["times_strongest_jax"] == pytest.approx(speed / max(speeds))
    assert rows[EAGER][FIXED]["learned"]["largest_difference"] == 0
    assert rows[VMAP][FRESH]["learned"]["largest_difference"] > 0
    assert list(report["ensembles"]) == ["graph-ssa"]
    both, scaling, large = (
        report["ensembles"]["graph-ssa"][part] for part in ("cores", "sizes", "large")
    )
    assert both["ratio"] == pytest.approx(both["two"] / both["one"])
    assert (scaling["block"], [row["models"] for row in scaling["rows"]]) == (4, [3, 10])
    for row in scaling["rows"]:
        assert row["models_steps_per_second"] > row["with_data"] > 0
        assert row["not_finite"] == 0
    assert (large["models"], large["processes"], large["not_finite"]) == (9, 2, 0)
    assert large["models_steps_per_second"] == pytest.approx(9 * 10 / large["seconds"])
    assert all(total > 0 for _, total in told)
    about = {
        "bench: graph-ssa",
        "bench: graph-ssa on two cores",
        "bench: graph-ssa, growing ensembles",
    }
    assert {told_of for told_of, _ in told} >= about | {"bench: graph-ssa, 9 models"}


def test_a_line_tells_of_each_measurement(measured):
    report, _, _, lines = measured
    rows = report["workloads"]["graph-ssa"]["contenders"]
    begins = [f"bench: graph-ssa: {name}: " for name in rows]
    begins += ["bench: graph-ssa on two cores: ", "bench: graph-ssa, 3 models in blocks: "]
    begins += [
        "bench: graph-ssa, 10 models in blocks: ",
        "bench: graph-ssa, 9 models over all cores: ",
    ]
    assert all(any(line.startswith(begin) for line in lines) for begin in begins)
    assert len(lines) == len(begins)
    for name, row in rows.items():
        (line,) = (line for line in lines if line.startswith(f"bench: graph-ssa: {name}: "))
        if "missing" in row:
            assert row["missing"] in line
            continue
        fixed, fresh = (
            row["models"] * 10 * row[kind]["trainings"] / row[kind]["seconds"][0] for kind in DATA
        )
        assert f": {fixed:,.0f} models x steps / s, {fresh:,.0f} with fresh data" in line


class Stopping(Inside):
    """Ctrl-C comes at the measurement of that number."""

    left = 0

    def result(self) -> dict:
        Stopping.left -= 1
        if Stopping.left < 0:
            raise KeyboardInterrupt
        return super().result()

    measure = result


# The workload has one measurement a contender and one of the machine, two cores three, growing
# ensembles two, the large one two.
@pytest.mark.parametrize("done", [0, 1, len(HERE) + 1, len(HERE) + 5, len(HERE) + 7])
def test_ctrl_c_keeps_what_was_measured(inside, monkeypatch, capsys, tmp_path, done):
    monkeypatch.setattr("analysis.bench.jobs.Child", Stopping)
    whole = tmp_path / "bench" / "bench.json"
    whole.parent.mkdir()
    whole.write_text("an earlier one")
    Stopping.left = done
    flags = QUICK
    command = [
        "bench",
        *flags.split(),
        "--scaling",
        "3",
        "6",
        "--models",
        "6",
        "--device",
        "cpu",
        "--out",
        str(tmp_path),
    ]
    assert main(command) == 130
    said = capsys.readouterr()
    stored = tmp_path / "bench" / "stopped.json"
    assert said.err.splitlines()[-1] == (
        f"ssa-theory: stopped; what was measured is kept in {stored}, the same command measures it "
        "all anew"
    )
    assert whole.read_text() == "an earlier one"
    report = json.loads(stored.read_text())
    rows = report["workloads"]["graph-ssa"]["contenders"]
    measured = [name for name in HERE if "missing" not in rows[name]]
    assert measured == HERE[:done]
    for name in HERE[done:]:
        assert rows[name] == {"missing": "stopped before it was measured"}
    assert said.err.count(" with fresh data, round 1 of 1") == len(measured)
    for name, kind in itertools.product(measured, DATA):
        assert f"{rows[name][kind]['models_steps_per_second']:,.0f}" in said.out
        assert ("learned" in rows[name][kind]) == (EAGER in measured)
    assert (report["workloads"]["graph-ssa"]["ceiling"] is None) == (done <= len(HERE))
    assert (report["ensembles"] != {}) == (done > len(HERE))
    if report["ensembles"]:
        parts = report["ensembles"]["graph-ssa"]
        assert (parts["cores"] == {"missing": "stopped before it was measured"}) == (
            done < len(HERE) + 4
        )
        assert [row["models"] for row in parts["sizes"]["rows"]] == [3, 6][
            : max(0, done - len(HERE) - 4)
        ]
        assert parts["large"] is None
    if done:  # once is enough
        return
    Stopping.left = 100
    assert main(command) == 0
    assert not stored.exists()
    assert load_report(tmp_path)["ensembles"]["graph-ssa"]["large"]["models"] == 6


def test_ctrl_c_before_anything_is_ready_is_told(inside, monkeypatch, capsys, tmp_path):
    def interrupt(job):
        raise KeyboardInterrupt

    monkeypatch.setattr("analysis.bench.jobs.Child", interrupt)
    assert main(["bench", "--workloads", "graph", "--out", str(tmp_path)]) == 130
    assert "stopped" in capsys.readouterr().err
    assert json.loads((tmp_path / "bench" / "stopped.json").read_text())["workloads"] == {}


@pytest.mark.parametrize("terminal", [False, True])
def test_lines_are_for_those_without_a_display(inside, monkeypatch, capsys, tmp_path, terminal):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    flags = f"{QUICK} --scaling 3"
    assert main(["bench", *flags.split(), "--device", "cpu", "--out", str(tmp_path)]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "models x steps / s" in line]
    assert len(lines) == (0 if terminal else len(HERE) + 2)


def test_a_block_of_the_benchmark_suits_every_machine(machine):
    """The smallest models, and those whose data alone fill a block."""
    config = TINY.model_copy(update={"block_seeds": None})
    graph, denoise = {2**18: (1638, 64), 2**23: (6553, 70), 2**30: (6553, 70)}[machine.l2]
    assert block_of(config, "graph", CPU) == graph
    assert block_of(config, "denoise", CPU) == denoise


def test_one_core_is_enough(inside, tmp_path, monkeypatch):
    stay_inside(monkeypatch, used=(0,))
    report = bench(TINY.model_copy(update={"repeats": 1}), tmp_path, silent)
    assert report["machine"]["cores"] == report["ensembles"]["graph-ssa"]["large"]["processes"] == 1
    assert report["ensembles"]["graph-ssa"]["cores"] == {"missing": "needs two cores"}
    assert ["needs two cores" in row for row in scaling_rows(report)].count(True) == 1


def test_tables_show_the_report(measured):
    report, out, *_ = measured
    speed, cost, scaling = speed_rows(report), cost_rows(report), scaling_rows(report)
    assert {len(row) for row in speed} == {len(SPEED)}
    assert {len(row) for row in cost} == {len(COST)}
    assert {len(row) for row in scaling} == {len(SCALING)}
    assert [row[1] for row in speed] == list(report["workloads"]["graph-ssa"]["contenders"])
    one = report["workloads"]["graph-ssa"]["contenders"][ONE_AT_A_TIME]
    for kind in DATA:
        column = SPEED.index({FIXED: "models x steps / s", FRESH: "with fresh data"}[kind])
        assert speed[0][column] == f"{one[kind]['models_steps_per_second']:,.0f}"
    assert [row[1] for row in cost] == HERE
    assert [row[2] for row in scaling] == ["4", "2 x 4", "3", "10", "9"]
    assert [table.row_count for table in tables(report)] == [len(speed), len(cost), len(scaling)]
    text = "\n".join(notes(load_report(out)))
    assert "10 steps of Adam (4 models one at a time)" in text
    assert "bound by " in text
    assert f"vector instructions: {report['machine']['vector_instructions'] or 'none'}" in text


def test_a_peer_that_learns_something_else_is_noticed(inside, tmp_path, monkeypatch):
    right = CONTENDERS[VMAP]

    def wrong(work, start, steps):
        def without(ops, p, data):
            return work.loss(ops, p | {"query.vector": 0 * p["query.vector"]}, data)

        return right.prepare(replace(work, loss=without), start, steps)

    monkeypatch.setitem(CONTENDERS, VMAP, replace(right, prepare=wrong))
    for name in (JAX, JAX_LAST):
        monkeypatch.delitem(CONTENDERS, name)
    config = TINY.model_copy(update={"scaling": (), "models": 0, "steps": 40})
    report = bench(config, tmp_path, silent)
    rows = report["workloads"]["graph-ssa"]["contenders"]
    for kind in DATA:
        found = rows[VMAP][kind]
        assert not found["learned_the_same"]
        assert found["learned"]["median_difference"] > 1e-3
        assert not {"times_one_at_a_time", "times_jax", "fraction_of_ceiling"} & set(found)
        assert rows[ONE_AT_A_TIME][kind]["learned_the_same"]
    shown = {row[1]: row for row in speed_rows(report)}
    assert shown[VMAP][3] == "-"
    (cost,) = (row for row in cost_rows(report) if row[1] == VMAP)
    assert all("learned something else" in cell for cell in cost[-2:])
    assert report["ensembles"]["graph-ssa"]["large"] is None
    assert report["ensembles"]["graph-ssa"]["sizes"]["rows"] == []


def test_without_jax_its_row_says_how_to_install_it(inside, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "analysis.bench.peers.find_spec", lambda name: None if name == "jax" else object()
    )
    report = bench(TINY.model_copy(update={"scaling": (), "models": 0}), tmp_path, silent)
    sentence = 'not installed: pip install "ssa-theory[jax]"'
    for name in (JAX, JAX_LAST):
        assert report["workloads"]["graph-ssa"]["contenders"][name] == {"missing": sentence}
    assert [sentence in row for row in speed_rows(report)].count(True) == 2


def test_command_prints_the_tables(inside, tmp_path, capsys):
    flags = f"{QUICK} --scaling 3"
    assert main(["bench", *flags.split(), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "models x steps / s" in printed
    assert "in blocks of 3" in printed
    assert main(["bench", "--scaling", "4", "2", "--out", str(tmp_path)]) == 2
    assert "scaling must be growing sizes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [{"scaling": (4, 2)}, {"scaling": (2, 2)}, {"scaling": (0,)}, {"workloads": ()}, {"steps": 1}],
)
def test_bad_configs_are_refused(change):
    with pytest.raises(ValidationError):
        BenchConfig(**change)


def test_blocks_cover_every_seed_once(monkeypatch):
    trained = []
    monkeypatch.setattr(
        "analysis.bench.process._train_block",
        lambda work, job, seeds, device, steps: trained.append((seeds, steps)) or (0.5, 1),
    )
    _, measure = prepare(
        Job("blocks", contender=EAGER, first_seed=5, blocks=(4,), sizes=(3, 8, 10), steps=7)
    )
    assert sorted((len(seeds), steps) for seeds, steps in trained) == [
        (2, 2),
        (3, 2),
        (4, 2),
    ]  # each shape, two steps
    for size, blocks in ((3, 1), (8, 2), (10, 3)):
        trained.clear()
        found = measure()
        assert [seed for seeds, _ in trained for seed in seeds] == list(range(5, 5 + size))
        assert {steps for _, steps in trained} == {7}
        assert (found["trainings"], found["not_finite"], found["training_seconds"]) == (
            1,
            blocks,
            0.5 * blocks,
        )


def test_missing_and_damaged_reports_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no stored benchmark"):
        load_report(tmp_path)
    (tmp_path / "bench").mkdir()
    for text in ("{", "[]", '{"workloads": {}}'):
        (tmp_path / "bench" / "bench.json").write_text(text)
        with pytest.raises(ValueError, match="is damaged"):
            load_report(tmp_path)


@pytest.mark.parametrize("contender", [EAGER, TORCH_COMPILE])
def test_process_measures_and_ends(contender, monkeypatch):
    # Torch believes what the processor says of its instructions; it tries each else, for 14 s.
    monkeypatch.setenv("TORCHINDUCTOR_VEC_ISA_OK", "1")
    child = Child(
        Job(
            "contender",
            contender=contender,
            workload="graph-ssa",
            blocks=(8,),
            data=DATA if contender == EAGER else (FIXED,),
            steps=5,
            trainings=2,
            core=cores()[0],
            ready_on=cores()[-1],
        )
    )
    try:
        ready = child.wait_ready().ready
        assert "missing" not in ready
        assert ready["models"] == 8
        assert set(ready["trainings"].values()) == {2}
        work = workload("graph-ssa")
        start = work.make(range(8), CPU, torch.float32, 1)
        learned = CONTENDERS[EAGER].prepare(work, start, 5)()
        exact = work.make(range(8), CPU, torch.float64, 1)
        losses = exact.loss({k: v.double() for k, v in learned.items()}, exact.batches[0])
        np.testing.assert_allclose(ready["losses"][FIXED], losses.numpy(), atol=1e-6)
        first, second = child.measure(), child.measure()
        assert set(first) == set(second) == set(ready["trainings"])
        assert min(*first.values(), *second.values()) > 0
    finally:
        child.stop()
    child.stop()  # again: nothing is left to end


def test_the_fastest_block_is_measured(monkeypatch):
    def prepare_it(work, start, steps):
        pause = {2: 0.02, 4: 0.01, 8: 0.2}[start.members]
        return lambda: time.sleep(pause) or start.parameters

    slow = replace(CONTENDERS[EAGER], prepare=prepare_it)
    monkeypatch.setitem(CONTENDERS, EAGER, slow)
    ready, measure = prepare(Job("contender", contender=EAGER, blocks=(2, 4, 8), trainings=3))
    assert ready["models"] == 4
    assert len(ready["losses"][FRESH]) == 4
    for seconds in measure().values():
        assert 0.03 < seconds < 0.3


def test_compiling_takes_what_it_took_in_the_first_of_the_blocks(monkeypatch):
    """The second finds it compiled, and is the faster one."""
    work = workload("graph")
    learned = work.make(range(4), CPU, torch.float32, 1).parameters
    seconds = iter([9.0, 2.0, 0.6, 0.5, 0.5, 3.0, 1.0])  # two blocks, the memory, fresh data
    monkeypatch.setattr(
        "analysis.bench.process._timed", lambda run, device: (next(seconds), learned)
    )
    ready, _ = prepare(Job("contender", contender=EAGER, blocks=(2, 4), trainings=1))
    assert (ready["models"], ready["compile_seconds"]) == (4, 7.0)


def test_training_needs_memory_above_that_of_its_tool():
    """An idle process that imported more than the training needs would hide what the training
    takes; a larger block that was tried is no part of it.
    """
    block, common = 16384, {"contender": EAGER, "core": cores()[0], "data": (FIXED,)}
    jobs = [Job("contender", blocks=n, steps=2, **common) for n in ((block,), (64, block))]
    needed = []
    for job in jobs:
        child = Child(replace(job, ready_on=cores()[0]))
        try:
            needed.append(child.wait_ready().ready)
        finally:
            child.stop()
    logits = 4 * block * NODES**2  # bytes: the largest tensor, of which a step holds several
    for ready in needed:
        if ready["models"] == block:
            assert 3 * logits < ready["training_bytes"] < 60 * logits
        else:
            assert ready["training_bytes"] < 3 * logits
    assert needed[0]["models"] == block


def test_a_process_that_dies_says_so():
    child = Child(Job("idle", contender=EAGER, core=cores()[0]))
    try:
        os.kill(child._process.pid, 9)
        assert child.wait_ready().ready["missing"].startswith("its process ended with code -9")
        assert "missing" in child.measure()
    finally:
        child.stop()


def test_without_a_compiler_the_row_says_so(inside, tmp_path, monkeypatch):
    def none(*given):
        raise Unsupported("No working C++ compiler found")

    for name in ("ssa_theory.lanes.build.compiler", "analysis.bench.ceilings.build"):
        monkeypatch.setattr(name, none)
    monkeypatch.setattr("analysis.bench.ceilings.instructions", none)
    monkeypatch.setattr("analysis.bench.ceilings._adder", _adder.__wrapped__)  # made anew
    for name in (VMAP, JAX, JAX_LAST, TORCH_COMPILE):
        monkeypatch.delitem(CONTENDERS, name)
    monkeypatch.setitem(CONTENDERS, COMPILED, replace(CONTENDERS[COMPILED], warm_up=lambda: None))
    config = TINY.model_copy(update={"compile": "on"})
    report = bench(config, tmp_path, silent)
    parts = (
        report["workloads"]["graph-ssa"]["contenders"][COMPILED],
        *report["ensembles"]["graph-ssa"].values(),
    )
    assert all("No working C++ compiler found" in part["missing"] for part in parts)
    assert report["workloads"]["graph-ssa"]["contenders"][EAGER][FIXED]["learned_the_same"]
    ceiling = report["workloads"]["graph-ssa"]["ceiling"]
    assert report["machine"]["vector_instructions"] is None
    assert ceiling["rates"]["bytes_per_second"] == {}
    assert ceiling[FRESH]["binds"] == "compute"
    shown = str([speed_rows(report), scaling_rows(report)])
    assert shown.count("No working C++ compiler found") == 4
