"""The benchmark: every peer learns the same, one that does not is noticed, and the report says what
was measured.
"""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from analysis.bench.bench import bench, load_report
from analysis.bench.config import BenchConfig
from analysis.bench.jobs import block_of
from analysis.bench.peers import COMPILED, CONTENDERS, EAGER, ONE_AT_A_TIME
from analysis.bench.process import Child, Job, cores, prepare
from analysis.bench.tables import SCALING, SPEED, notes, scaling_rows, speed_rows, tables
from analysis.bench.workloads import DIM, NODES, WORKLOADS, graph_operations, workload
from analysis.cli import main
from analysis.experiments.base import silent

CPU = torch.device("cpu")
VMAP, JAX = "torch.func.vmap", "JAX jit(vmap(scan))"
# Compiled code is tested in a process of its own: the tests' type checker, which wraps every
# function here, is not traced.
HERE = [
    name for name, contender in CONTENDERS.items() if name != COMPILED and not contender.missing
]
TINY = BenchConfig(
    seeds=6,
    steps=10,
    repeats=2,
    min_seconds=0,
    compile=False,
    block_seeds=4,
    workloads=("graph-ssa",),
    scaling=(3, 10),
    models=9,
)


QUICK = (
    "--seeds 3 --steps 2 --repeats 1 --min-seconds 0 --no-compile --block-seeds 3 "
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

    def finish(self) -> int:
        return 2**28

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


@pytest.mark.parametrize("name", WORKLOADS)
def test_all_learn_the_same(name):
    work = workload(name)
    start = work.make(range(5), CPU, torch.float64)
    before = work.ensemble_loss(start)(start.parameters, None)
    losses = {}
    for contender in HERE:
        learned = CONTENDERS[contender].prepare(work, start, 15)()
        assert {k: v.shape for k, v in learned.items()} == {
            k: v.shape for k, v in start.parameters.items()
        }
        losses[contender] = work.ensemble_loss(start)(learned, None)
        torch.testing.assert_close(losses[contender], losses[HERE[0]], rtol=1e-8, atol=1e-9)
    assert len(losses) >= 3
    assert (losses[EAGER] < before - 1e-3).all()
    assert len(set(losses[EAGER].tolist())) == 5  # each model is its own


@pytest.mark.parametrize("name", WORKLOADS)
def test_one_model_has_the_loss_of_the_ensemble(name):
    work = workload(name)
    start = work.make(range(3, 6), CPU, torch.float64)
    generator = torch.Generator().manual_seed(0)
    parameters = {
        k: torch.randn(v.shape, generator=generator, dtype=v.dtype)
        for k, v in start.parameters.items()
    }
    together = work.ensemble_loss(start)(parameters, None)
    for member in range(3):
        data = {k: v[..., member] for k, v in start.own.items()} | start.shared
        own = {k: v[..., member] for k, v in parameters.items()}
        torch.testing.assert_close(work.torch_loss(own, data), together[member])
    alone = work.make([4], CPU, torch.float64)  # a seed names a model, whatever is made beside it
    for arrays, single in ((start.parameters, alone.parameters), (start.own, alone.own)):
        for key in arrays:
            torch.testing.assert_close(arrays[key][..., 1:2], single[key], rtol=0, atol=0)


def test_operations_are_those_that_pytorch_counts():
    work = workload("graph")
    start = work.make([0], CPU, torch.float32)
    own = {k: v[..., 0].requires_grad_() for k, v in start.parameters.items()}
    data = {k: v[..., 0] for k, v in start.own.items()} | start.shared
    with FlopCounterMode(display=False) as counted:
        work.torch_loss(own, data).backward()
    products = 4 * NODES * DIM**2 + 4 * NODES**2 * DIM
    assert counted.get_total_flops() == products
    plain, functions = graph_operations("graph")
    assert plain == products + 9 * NODES**2 + 12 * DIM**2
    assert functions == NODES**2 + NODES  # an exponential a logit, a logarithm a row
    assert graph_operations("graph-ssa") == (
        plain + 20 * NODES * DIM + 12 * DIM,
        functions + 2 * NODES * DIM + NODES,
    )


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
    assert list(rows) == [name for name in CONTENDERS if name != COMPILED]
    ceiling = graph["ceiling"]
    assert ceiling["operations_per_second"] > 1e8
    assert ceiling["operations_per_model_step"] == np.dot(graph_operations("graph-ssa"), (1, 20))
    for name in HERE:
        row = rows[name]
        assert len(row["seconds"]) == 2
        work = row["models"] * 10 * row["trainings"]
        assert row["models_steps_per_second"] == pytest.approx(work / min(row["seconds"]))
        speed = row["models_steps_per_second"]
        assert row["times_one_at_a_time"] == pytest.approx(
            speed / rows[ONE_AT_A_TIME]["models_steps_per_second"]
        )
        assert row["trainer_is_times"] == pytest.approx(
            rows[EAGER]["models_steps_per_second"] / speed
        )
        assert row["fraction_of_ceiling"] * ceiling["operations_per_second"] == pytest.approx(
            speed * ceiling["operations_per_model_step"]
        )
        assert row["learned_the_same"]
        assert row["learned"]["models"] == 4
        assert row["learned"]["largest_difference"] >= row["learned"]["median_difference"] >= 0
        assert row["training_bytes"] == 0  # the stand-in's processes are all alike
        assert "losses" not in row
    assert rows[EAGER]["learned"]["largest_difference"] == 0
    assert rows[VMAP]["learned"]["largest_difference"] > 0
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
        work = row.get("models", 0) * 10 * row.get("trainings", 0)
        said = row.get("missing") or f": {work / row['seconds'][0]:,.0f} models x steps / s"
        assert said in line


class Stopping(Inside):
    """Ctrl-C comes at the measurement of that number."""

    left = 0

    def result(self) -> dict:
        Stopping.left -= 1
        if Stopping.left < 0:
            raise KeyboardInterrupt
        return super().result()

    measure = result

    def finish(self) -> int:
        assert Stopping.left >= 0  # Ctrl-C has ended it, or it is in the middle of its work
        return super().finish()


# The workload has one measurement a contender and one of the ceiling, two cores three, growing
# ensembles two, the large one two.
@pytest.mark.parametrize(
    "done", [0, 1, 2, len(HERE), len(HERE) + 1, len(HERE) + 4, len(HERE) + 5, len(HERE) + 7]
)
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
    assert said.err.count(" models x steps / s, round 1 of 1") == len(measured)
    for name in measured:
        assert f"{rows[name]['models_steps_per_second']:,.0f}" in said.out
        assert ("learned" in rows[name]) == (EAGER in measured)
        assert ("training_bytes" in rows[name]) == (done > len(HERE))
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
    speed, scaling = speed_rows(report), scaling_rows(report)
    assert {len(row) for row in speed} == {len(SPEED)}
    assert {len(row) for row in scaling} == {len(SCALING)}
    assert [row[1] for row in speed] == list(report["workloads"]["graph-ssa"]["contenders"])
    one = report["workloads"]["graph-ssa"]["contenders"][ONE_AT_A_TIME]
    assert speed[0][2] == f"{one['models_steps_per_second']:,.0f}"
    assert [row[2] for row in scaling] == ["4", "2 x 4", "3", "10", "9"]
    assert [table.row_count for table in tables(report)] == [len(speed), len(scaling)]
    text = "\n".join(notes(load_report(out)))
    assert "4 models (4 one at a time) x 10 steps of Adam" in text
    assert "multiply-adds in float32 matrix products" in text


def test_a_peer_that_learns_something_else_is_noticed(inside, tmp_path, monkeypatch):
    right = CONTENDERS[VMAP]

    def wrong(work, start, steps):
        def without(p, data):
            return work.torch_loss(p | {"query.vector": 0 * p["query.vector"]}, data)

        return right.prepare(replace(work, torch_loss=without), start, steps)

    monkeypatch.setitem(CONTENDERS, VMAP, replace(right, prepare=wrong))
    monkeypatch.delitem(CONTENDERS, JAX)
    report = bench(
        TINY.model_copy(update={"scaling": (), "models": 0, "steps": 40}), tmp_path, silent
    )
    rows = report["workloads"]["graph-ssa"]["contenders"]
    assert not rows[VMAP]["learned_the_same"]
    assert rows[VMAP]["learned"]["median_difference"] > 1e-3
    assert not {"times_one_at_a_time", "trainer_is_times", "fraction_of_ceiling"} & set(rows[VMAP])
    assert rows[ONE_AT_A_TIME]["learned_the_same"]
    shown = {row[1]: row for row in speed_rows(report)}
    assert "learned something else" in shown[VMAP][-1]
    assert shown[VMAP][3] == "-"
    assert report["ensembles"]["graph-ssa"]["large"] is None
    assert report["ensembles"]["graph-ssa"]["sizes"]["rows"] == []


def test_without_jax_its_row_says_how_to_install_it(inside, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "analysis.bench.peers.find_spec", lambda name: None if name == "jax" else object()
    )
    report = bench(TINY.model_copy(update={"scaling": (), "models": 0}), tmp_path, silent)
    sentence = 'not installed: pip install "ssa-theory[jax]"'
    assert report["workloads"]["graph-ssa"]["contenders"][JAX] == {"missing": sentence}
    assert [sentence in row for row in speed_rows(report)].count(True) == 1
    assert JAX not in report["idle_peak_bytes"]


def test_command_prints_both_tables(inside, tmp_path, capsys):
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
        Job("blocks", contender=EAGER, first_seed=5, block=4, sizes=(3, 8, 10), steps=7)
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


def test_process_measures_and_ends():
    child = Child(
        Job(
            "contender",
            contender=EAGER,
            workload="graph-ssa",
            block=8,
            steps=5,
            trainings=2,
            core=cores()[0],
        )
    )
    try:
        child.wait_ready()
        assert child.ready["trainings"] == 2
        work = workload("graph-ssa")
        start = work.make(range(8), CPU, torch.float32)
        learned = CONTENDERS[EAGER].prepare(work, start, 5)()
        exact = work.ensemble_loss(work.make(range(8), CPU, torch.float64))(
            {k: v.double() for k, v in learned.items()}, None
        )
        np.testing.assert_allclose(child.ready["losses"], exact.numpy(), atol=1e-6)
        first, second = child.measure()["seconds"], child.measure()["seconds"]
        assert min(first, second) > 0
        assert 50 * 2**20 < child.finish() < 2**33
    finally:
        child.stop()
    child.stop()  # again: nothing is left to end


def test_training_needs_memory_above_that_of_its_tool():
    """An idle process that imported more than the training needs would hide what the training
    takes.
    """
    block, common = 16384, {"contender": EAGER, "core": cores()[0]}
    jobs = [Job("idle", **common), Job("contender", block=block, steps=2, **common)]
    peaks = []
    for job in jobs:
        child = Child(job)
        try:
            assert "missing" not in child.wait_ready().ready
            peaks.append(child.finish())
        finally:
            child.stop()
    logits = 4 * block * NODES**2  # bytes: the largest tensor, of which a step holds several
    assert peaks[1] - peaks[0] > 3 * logits


def test_a_process_that_dies_says_so():
    child = Child(Job("idle", contender=EAGER, core=cores()[0]))
    try:
        os.kill(child._process.pid, 9)
        assert child.wait_ready().ready["missing"].startswith("its process ended with code -9")
        assert "missing" in child.measure()
    finally:
        child.stop()


def test_without_a_compiler_the_row_says_so(inside, tmp_path, monkeypatch):
    def none():
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr("ssa_theory.lanes.build.compiler", none)
    for name in (VMAP, JAX):
        monkeypatch.delitem(CONTENDERS, name)
    monkeypatch.setitem(CONTENDERS, COMPILED, replace(CONTENDERS[COMPILED], warm_up=lambda: None))
    config = TINY.model_copy(update={"compile": True})
    report = bench(config, tmp_path, silent)
    parts = (
        report["workloads"]["graph-ssa"]["contenders"][COMPILED],
        *report["ensembles"]["graph-ssa"].values(),
    )
    assert all("No working C++ compiler found" in part["missing"] for part in parts)
    eager = report["workloads"]["graph-ssa"]["contenders"][EAGER]
    assert eager["learned_the_same"]
    assert eager["trainer_is_times"] is None
    shown = str([speed_rows(report), scaling_rows(report)])
    assert shown.count("No working C++ compiler found") == 4
