"""Ensemble training: every member as if it were alone."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssa_theory.device import block_members, resolve_device
from ssa_theory.ensemble import Trained, train
from ssa_theory.losses import Queries, cross_entropy
from ssa_theory.mechanism import MECHANISMS, Form, Inputs, Layer, Tokens
from ssa_theory.seeds import Stream, member_generator

# One of each kind of part that a row as prediction feels.
VARIANTS = (
    "vanilla",
    "ssa",
    "ssa-mlp",
    "ssa-free",
    "ssa-degree",
    "ssa-key",
    "scaled",
    "key-bias",
    "qk-norm",
    "softcap",
)
MEMBERS, NODES, DIM = 5, 6, 3
Members = list[int]


def start(members: Members, seed: int = 0) -> dict[str, Tensor]:
    """A matrix, a vector and a scalar parameter of each member, which depend on its own number
    only.
    """
    draws = [np.random.default_rng([seed, m]).standard_normal(9) for m in members]
    stacked = torch.from_numpy(np.stack(draws, -1))
    return {"matrix": stacked[:6].reshape(2, 3, -1), "vector": stacked[6:8], "scalar": stacked[8]}


def data(members: Members, steps: int, seed: int = 1) -> list[Tensor]:
    """One batch (2, 3, member) a step."""
    draws = [np.random.default_rng([seed, m]).standard_normal((steps, 2, 3)) for m in members]
    return list(torch.from_numpy(np.stack(draws, -1)))


def loss(p: dict[str, Tensor], batch: Tensor | float) -> Tensor:
    """Neither convex nor separable, (..., member) to (member,)."""
    mixed = (p["matrix"] * batch + p["vector"].unsqueeze(1)).tanh() * p["scalar"]
    return (mixed - 0.5).square().sum((0, 1)) + 0.1 * p["matrix"].square().sum((0, 1))


# Each member alone


@pytest.mark.parametrize(("optimizer", "tolerance"), [("adam", 1e-6), ("sgd", 1e-12)])
def test_a_rate_of_its_own_is_that_learning_rate(optimizer: str, tolerance: float) -> None:
    members, rates = [0, 1, 2], [1.0, 0.3, 0.01]
    batches = data(members, 12)
    together = train(
        loss,
        start(members),
        steps=12,
        learning_rate=0.1,
        optimizer=optimizer,
        batches=batches,
        rates=rates,
        measure=lambda p: {"scalar": p["scalar"]},
        record=[0, 12],
    )
    torch.testing.assert_close(together.history["scalar"][0], start(members)["scalar"])
    for m, rate in zip(members, rates, strict=True):
        alone = train(
            loss,
            start([m]),
            steps=12,
            learning_rate=0.1 * rate,
            optimizer=optimizer,
            batches=[batch[..., [m]] for batch in batches],
        )
        for name, value in alone.parameters.items():
            learned = together.parameters[name][..., [m]]
            torch.testing.assert_close(learned, value, rtol=tolerance, atol=tolerance)
            assert (learned - start([m])[name]).abs().max() > 1e-3 * rate


@given(
    st.integers(0, 2**32), st.sampled_from(["adam", "sgd"]), st.integers(1, 6), st.integers(0, 25)
)
@settings(max_examples=15)
def test_training_is_that_of_each_member_alone(
    seed: int, optimizer: str, members: int, steps: int
) -> None:
    numbers = list(range(members))
    batches = data(numbers, steps, seed)
    trained = train(
        loss,
        start(numbers, seed),
        steps=steps,
        learning_rate=0.05,
        optimizer=optimizer,
        batches=batches,
    )
    assert not trained.diverged.any()
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]
    for m in numbers:
        single = {k: v[..., 0].clone().requires_grad_() for k, v in start([m], seed).items()}
        updater = kind(single.values(), lr=0.05, foreach=False)
        for batch in batches:
            updater.zero_grad()
            loss({k: v.unsqueeze(-1) for k, v in single.items()}, batch[..., [m]]).sum().backward()
            updater.step()
        for name, value in single.items():
            torch.testing.assert_close(
                trained.parameters[name][..., m], value.detach(), rtol=1e-9, atol=1e-9
            )
            if steps > 5:
                assert (value - start([m], seed)[name][..., 0]).abs().max() > 1e-4


def layer(name: str, position: bool = False) -> Layer:
    """The layer of a graph that wears a mechanism."""
    labels = {"token": NODES, "degree": NODES + 1}
    return Layer(MECHANISMS[name], Form(DIM, labels=labels, position=position))


def vocabulary(embeddings: Tensor, degree: Tensor) -> Inputs:
    """Every node once, as query and as key."""
    tokens = Tokens(embeddings, labels={"degree": degree})
    return Inputs(tokens, tokens, count=float(NODES))


def graph_model(variant: str, seeds: Members, steps: int = 25) -> Trained:
    """Train a graph model of some seeds on sampled answers; whatever a seed names comes from its
    own generators.
    """
    model = layer(variant)
    embeddings, targets, nodes, answers = [], [], [], []
    for s in seeds:
        embeddings.append(member_generator(s, Stream.EMBEDDING).standard_normal((NODES, DIM)))
        targets.append(member_generator(s, Stream.GRAPH).dirichlet(np.ones(NODES), NODES))
        generator = member_generator(s, Stream.DATA)
        nodes.append(generator.integers(0, NODES, (steps, 8)))
        answers.append(targets[-1][nodes[-1]])
    degree = torch.from_numpy(
        np.stack([member_generator(s, Stream.GRAPH).integers(1, NODES, NODES) for s in seeds], 1)
    )
    tokens = vocabulary(torch.from_numpy(np.stack(embeddings, -1)), degree)
    node = torch.from_numpy(np.stack(nodes, -1))
    answer = torch.from_numpy(np.stack(answers, -1))
    weight = torch.full((8, len(seeds)), 1 / 8, dtype=torch.float64)
    return train(
        lambda p, batch: cross_entropy(model.scores(p, tokens), batch),
        model.initial_parameters([member_generator(s, Stream.PARAMETER) for s in seeds]),
        steps=steps,
        learning_rate=0.05,
        batches=(Queries(answer[step], weight, node[step]) for step in range(steps)),
        measure=lambda p: {"logits": model.scores(p, tokens)},
        record=[0, 10, steps],
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_does_not_depend_on_what_is_trained_beside_it(variant: str) -> None:
    block = graph_model(variant, [3, 1, 4, 15, 9])
    assert (
        (block.history["logits"][-1] - block.history["logits"][0]).abs().amin((0, 1)).gt(1e-6).all()
    )
    for others in ([4], [4, 2], [9, 4, 3], [9, 15, 4, 1, 3], list(range(33))):
        beside = graph_model(variant, others)
        for seed in set(others) & {3, 1, 4, 15, 9}:
            here, there = [3, 1, 4, 15, 9].index(seed), others.index(seed)
            for name, value in block.parameters.items():
                torch.testing.assert_close(
                    beside.parameters[name][..., there], value[..., here], rtol=1e-9, atol=1e-9
                )
            torch.testing.assert_close(
                beside.history["logits"][..., there],
                block.history["logits"][..., here],
                rtol=1e-9,
                atol=1e-9,
            )
    different = block.parameters["weight"][..., 0] - block.parameters["weight"][..., 1]
    assert different.abs().max() > 0.01


def test_the_same_run_gives_the_same_bits() -> None:
    first, again = (graph_model("ssa", [0, 1, 2]) for _ in range(2))
    for name, value in first.parameters.items():
        assert torch.equal(again.parameters[name], value)


# Divergence


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e200])
def test_a_diverging_member_is_marked_and_alone(poison: float, optimizer: str) -> None:
    """From step 3 on one member's data are poisoned: with NaN, infinity, or numbers whose square
    overflows.
    """
    numbers = list(range(MEMBERS))

    def run(batches: list[Tensor], scale: float) -> Trained:
        factor = torch.ones(MEMBERS, dtype=torch.float64)
        factor[2] = scale
        return train(
            lambda p, batch: (p["matrix"] * batch).square().sum((0, 1)) * factor + loss(p, batch),
            start(numbers),
            steps=12,
            learning_rate=0.01,
            optimizer=optimizer,
            batches=batches,
            measure=lambda p: {"sum": p["matrix"].sum((0, 1))},
            record=range(13),
        )

    clean = run(data(numbers, 12), 1.0)
    assert not clean.diverged.any()
    batches = data(numbers, 12)
    for batch in batches[3:]:
        batch[..., 2] = poison
    sick = run(batches, 1.0)
    assert sick.diverged.tolist() == [False, False, True, False, False]
    others = torch.tensor([0, 1, 3, 4])
    for name, value in clean.parameters.items():
        assert torch.equal(sick.parameters[name][..., others], value[..., others])
    assert torch.equal(sick.history["sum"][:, others], clean.history["sum"][:, others])
    assert torch.equal(
        sick.history["sum"][:4], clean.history["sum"][:4]
    )  # the first three steps were healthy
    unstable = run(data(numbers, 12), 1e300)  # the same as a huge learning rate
    if optimizer == "sgd":
        assert unstable.diverged.tolist() == [False, False, True, False, False]
    assert torch.equal(
        unstable.parameters["matrix"][..., others], clean.parameters["matrix"][..., others]
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_member_with_broken_embeddings_disturbs_nobody(variant: str) -> None:
    model = layer(variant)
    rng = np.random.default_rng(0)
    embeddings = torch.from_numpy(rng.standard_normal((NODES, DIM, MEMBERS)))
    target = torch.from_numpy(rng.dirichlet(np.ones(NODES), (NODES, MEMBERS)).swapaxes(1, 2).copy())
    queries = Queries(target, torch.full((NODES, MEMBERS), 1 / NODES, dtype=torch.float64))
    degree = torch.ones((NODES, MEMBERS), dtype=torch.int64)
    initial = model.initial_parameters([np.random.default_rng(m) for m in range(MEMBERS)])

    def run(given_embeddings: Tensor) -> Trained:
        tokens = vocabulary(given_embeddings, degree)
        return train(
            lambda p, _: cross_entropy(model.scores(p, tokens), queries),
            initial,
            steps=10,
            learning_rate=0.1,
        )

    broken = embeddings.clone()
    broken[1, 0, 3] = math.nan
    clean, sick = run(embeddings), run(broken)
    assert sick.diverged.tolist() == [False, False, False, True, False]
    for name, value in clean.parameters.items():
        assert torch.equal(sick.parameters[name][..., [0, 1, 2, 4]], value[..., [0, 1, 2, 4]])
        assert name == "query.theta" or not torch.equal(
            sick.parameters[name][..., 3], value[..., 3]
        )


def test_a_loss_that_was_ever_infinite_is_remembered() -> None:
    """Its gradient may be finite, and so may all later losses."""
    batches = [torch.tensor([0.0, math.inf if step == 1 else 0.0, 0.0]) for step in range(4)]
    trained = train(
        lambda p, batch: p["x"].square() + batch,
        {"x": torch.ones(3)},
        steps=4,
        learning_rate=0.1,
        batches=batches,
    )
    assert trained.diverged.tolist() == [False, True, False]
    assert torch.isfinite(trained.parameters["x"]).all()


def test_a_last_step_into_infinity_is_seen() -> None:
    """The loss sqrt(x) is finite at 0 and its gradient is not: only the parameters tell."""
    trained = train(
        lambda p, _: p["x"].sqrt() + 0 * p["y"].sum(0),
        {"x": torch.tensor([1.0, 0.0, 4.0]), "y": torch.ones(2, 3)},
        steps=1,
        learning_rate=0.1,
        optimizer="sgd",
    )
    assert trained.diverged.tolist() == [False, True, False]


# History, batches, progress


def test_history_at_chosen_steps() -> None:
    numbers, steps = [0, 1, 2], 7
    batches = data(numbers, steps)
    seen = []

    def measure(p: dict[str, Tensor]) -> dict[str, Tensor]:
        assert not torch.is_grad_enabled()
        seen.append(1)
        return {
            "matrix": p["matrix"],
            "loss": loss(p, batches[0]),
        }  # a parameter itself, which goes on changing

    def run(record: list[int], until: int = steps) -> Trained:
        seen.clear()
        return train(
            loss,
            start(numbers),
            steps=until,
            learning_rate=0.05,
            batches=batches,
            measure=measure,
            record=record,
        )

    full = run(list(range(steps + 1)))
    assert len(seen) == steps + 1
    assert full.history["matrix"].shape == (steps + 1, 2, 3, 3)
    assert full.history["loss"].shape == (steps + 1, 3)
    assert torch.equal(full.history["matrix"][0], start(numbers)["matrix"])
    assert torch.equal(full.history["matrix"][-1], full.parameters["matrix"])
    for step in range(1, steps):
        shorter = train(loss, start(numbers), steps=step, learning_rate=0.05, batches=batches)
        assert torch.equal(full.history["matrix"][step], shorter.parameters["matrix"])
    assert (full.history["matrix"].diff(dim=0).abs().amax((1, 2)) > 1e-4).all()
    assert not full.history["matrix"].requires_grad
    for record in ([0], [steps], [0, 3, steps], [3, 0, 3]):
        some = run(record)
        assert len(seen) == len(set(record))
        assert torch.equal(some.history["loss"], full.history["loss"][sorted(set(record))])
    assert run([]).history == {}
    assert run([0], until=0).history["loss"].shape == (1, 3)


def test_no_steps_leave_the_start() -> None:
    trained = train(loss, start([0, 1]), steps=0, learning_rate=0.1, batches=[])
    for name, value in start([0, 1]).items():
        assert torch.equal(trained.parameters[name], value)
    assert trained.history == {}
    assert trained.diverged.tolist() == [False, False]


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_cooldown_is_a_training_at_a_tenth_of_the_rate(optimizer: str, compile: bool) -> None:
    """Which goes on from what was learned, and knows nothing of the moments."""
    numbers, steps, last = list(range(3)), 6, 5
    batches, options = data(numbers, steps + last), {"optimizer": optimizer, "compile": compile}
    whole = train(
        loss,
        start(numbers),
        steps=steps,
        cooldown_steps=last,
        learning_rate=0.1,
        batches=batches,
        measure=lambda p: dict(p),
        record=range(steps + last + 1),
        **options,
    )
    assert len(whole.history["scalar"]) == steps + 1
    first = {name: values[-1] for name, values in whole.history.items()}
    alone = train(loss, start(numbers), steps=steps, learning_rate=0.1, batches=batches, **options)
    then = train(
        loss, first, steps=last, learning_rate=0.01, batches=batches[steps:], **options
    ).parameters
    for name, value in whole.parameters.items():
        assert torch.equal(first[name], alone.parameters[name])
        torch.testing.assert_close(value, then[name], rtol=1e-12, atol=1e-12)
        assert (value - first[name]).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_given_parameters_stay_untouched(dtype: torch.dtype) -> None:
    given_parameters = {k: v.to(dtype) for k, v in start([0, 1, 2]).items()}
    kept = {k: v.clone() for k, v in given_parameters.items()}
    trained = train(loss, given_parameters, steps=3, learning_rate=0.1, batches=[0.3] * 3)
    for name, value in kept.items():
        assert torch.equal(given_parameters[name], value)
        assert not given_parameters[name].requires_grad
        assert given_parameters[name].grad is None
        assert not trained.parameters[name].requires_grad
        assert trained.parameters[name].dtype == dtype
        assert not torch.equal(trained.parameters[name], value)


def test_progress_counts_finished_steps() -> None:
    finished = []
    train(loss, start([0]), steps=6, learning_rate=0.1, batches=[0.3] * 6, progress=finished.append)
    assert sum(finished) == 6
    assert min(finished) > 0


def test_batches_are_taken_one_a_step_and_only_as_needed() -> None:
    source = iter([0.1, 0.2, 0.3, 0.4, 0.5])
    used = []

    def spy(p: dict[str, Tensor], batch: float) -> Tensor:
        used.append(batch)
        return loss(p, batch)

    train(spy, start([0]), steps=3, learning_rate=0.1, batches=source)
    assert used == [0.1, 0.2, 0.3]
    assert list(source) == [0.4, 0.5]
    with pytest.raises(ValueError, match="batches ran out after 2 of 4 steps: give one per step"):
        train(loss, start([0]), steps=4, learning_rate=0.1, batches=[0.1, 0.2])


# Bad input


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cooldown_steps": -1}, "number of steps must be at least 0, got -1: choose steps >= 0"),
        ({"steps": -1}, "number of steps must be at least 0, got -1: choose steps >= 0"),
        (
            {"learning_rate": 0.0},
            "learning rate must be positive and finite, got 0.0: choose one above 0",
        ),
        ({"learning_rate": -1.0}, "learning rate must be positive and finite, got -1.0"),
        ({"learning_rate": math.nan}, "learning rate must be positive and finite, got nan"),
        ({"learning_rate": math.inf}, "learning rate must be positive and finite, got inf"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion': choose adam or sgd"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(loss, start([0]), **{"steps": 1, "learning_rate": 0.1, "batches": [0.1]} | changed)


@pytest.mark.parametrize("present", [False, True])
def test_devices(present: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto") == torch.device("cuda" if present else "cpu")
    if present:
        assert resolve_device("cuda") == torch.device("cuda")
    else:
        with pytest.raises(
            ValueError,
            match="device cuda was asked for, but torch sees no CUDA device: set device",
        ):
            resolve_device("cuda")
    with pytest.raises(ValueError, match="unknown device 'tpu': choose auto, cpu or cuda"):
        resolve_device("tpu")


# CUDA


@pytest.mark.cuda
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_cuda_agrees_with_the_cpu_and_never_waits(variant: str, optimizer: str) -> None:
    model = layer(variant, position=True)
    rng = np.random.default_rng(0)
    embeddings = torch.from_numpy(rng.standard_normal((NODES, DIM, MEMBERS)))
    degree = torch.from_numpy(rng.integers(1, NODES, (NODES, MEMBERS)))
    target = torch.from_numpy(rng.dirichlet(np.ones(NODES), (NODES, MEMBERS)).swapaxes(1, 2).copy())
    weight = torch.full((NODES, MEMBERS), 1 / NODES, dtype=torch.float64)
    initial = model.initial_parameters([np.random.default_rng(m) for m in range(MEMBERS)])
    results = []
    for device in ("cpu", "cuda"):
        tokens = vocabulary(embeddings.to(device), degree.to(device))
        queries = Queries(target.to(device), weight.to(device))
        there = {k: v.to(device) for k, v in initial.items()}

        def run(
            tokens: Inputs = tokens, queries: Queries = queries, there: dict[str, Tensor] = there
        ) -> Trained:
            return train(
                lambda p, _: cross_entropy(model.scores(p, tokens), queries),
                there,
                steps=30,
                learning_rate=0.05,
                optimizer=optimizer,
                measure=lambda p: {"logits": model.scores(p, tokens)},
                record=[0, 15, 30],
            )

        run()  # the first run initialises libraries, which waits
        torch.cuda.set_sync_debug_mode("error")
        try:
            results.append(run())
        finally:
            torch.cuda.set_sync_debug_mode("default")
    on_cpu, on_cuda = results
    assert on_cuda.diverged.device.type == "cuda"
    assert not on_cuda.diverged.any()
    for name, value in on_cpu.parameters.items():
        torch.testing.assert_close(on_cuda.parameters[name].cpu(), value, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(
        on_cuda.history["logits"].cpu(), on_cpu.history["logits"], rtol=1e-7, atol=1e-8
    )


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_gradient_of_another_memory_layout_moves_the_right_entries(optimizer: str) -> None:
    """Fused optimisers read gradients by their place in memory; batched products return them
    transposed.
    """
    start = torch.zeros(3, 4, 5, dtype=torch.float64)
    wanted = torch.arange(60, dtype=torch.float64).reshape(3, 4, 5)

    class Transposed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient.permute(2, 0, 1).contiguous().permute(1, 2, 0)

    def loss(parameters: dict[str, torch.Tensor], batch: None) -> torch.Tensor:
        return ((Transposed.apply(parameters["x"]) - wanted) ** 2).sum((0, 1))

    steps, rate = (400, 0.5) if optimizer == "adam" else (60, 0.2)
    trained = train(loss, {"x": start}, steps=steps, learning_rate=rate, optimizer=optimizer)
    assert torch.allclose(trained.parameters["x"], wanted, atol=0.05)  # entries differ by 1


# Compiled


@pytest.fixture(scope="module")
def compiled() -> dict:
    """What `compiled.py` found in a process of its own: the runtime type checker of the tests
    cannot be compiled.
    """
    script = Path(__file__).with_name("compiled.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["vocabulary", "prompt", "denoise", "retrieval", "sparse"])
def test_compiled_training_equals_uncompiled(compiled: dict, name: str) -> None:
    found = compiled[name]
    assert found["notices"] == []
    assert found["graphs"] == 1
    assert found["moved"] > 0.01
    assert found["difference"] < 1e-9


def test_every_normalizer_can_be_traced(compiled: dict) -> None:
    normalizers = {entry.normalizer for entry in MECHANISMS.values()}
    assert len(compiled["traced"]) == len(normalizers)
    for name, differences in compiled["traced"].items():
        assert max(differences) <= 1e-12, name


def test_a_second_block_is_not_compiled_again(compiled: dict) -> None:
    """Other tensors and another instance of the same model: only shapes and code matter."""
    assert compiled["vocabulary again"] == {"notices": [], "graphs": 0}


def test_without_a_compiler_training_goes_on_with_one_notice(tmp_path: Path) -> None:
    code = (
        "import sys, warnings, torch\nfrom ssa_theory import train\ntorch.set_num_threads(1)\nstart ="
        " {'a': torch.linspace(1, 2, 64)}\ndef run(compile):\n    return train(lambda p, b: p['a']"
        " ** 2, start, steps=3, learning_rate=0.1,"
        " compile=compile).parameters['a']\nrun(None);"
        " print('torch._dynamo' in sys.modules)\nwarnings.simplefilter('default')\nwith"
        " warnings.catch_warnings(record=True) as caught:\n    found = [run(compile) for compile in"
        " (True, True, False)]\nprint([str(w.message) for w in caught if w.category is"
        " RuntimeWarning])\nprint(all(torch.equal(f, found[2]) and not torch.equal(f, start['a'])"
        " for f in found))\n"
    )
    environment = os.environ | {"PATH": str(tmp_path), "SSA_THEORY_CACHE": str(tmp_path / "cache")}
    environment.pop("CXX", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    dynamo, notice, equal = done.stdout.splitlines()
    assert dynamo == "False"  # it takes as long to import as torch, and nothing needs it here
    assert notice.count("training goes on uncompiled") == 1
    assert "no C++ compiler" in notice
    assert equal == "True"


def test_an_error_of_a_compiled_loss_is_the_losss_own() -> None:
    def wrong(parameters: dict[str, Tensor], batch: None) -> Tensor:
        raise ValueError("a rule of the loss")

    with pytest.raises(ValueError, match="a rule of the loss"):
        train(wrong, start([0]), steps=1, learning_rate=0.1, compile=True)


# Blocks


def test_a_block_fits_four_second_level_caches_within_bounds(machine: Any) -> None:
    """Known sizes of models: 512 bytes to 1 MiB. A virtual machine may report a cache of any size."""
    cpu = torch.device("cpu")
    room = {2**18: 2**21, 2**23: 2**23, 2**30: 2**23}[machine.l2]
    assert block_members(2048, cpu) == room // 2048
    assert block_members(1024, cpu) == room // 1024 in (2**11, 2**13)
    assert (
        block_members(1, cpu) == block_members(room // 2**14, cpu) == 2**13
    )  # so that a long run has many blocks
    assert block_members(2**25, cpu) == 64  # never fewer than the vector units want
    with pytest.raises(ValueError, match="a model needs at least 1 byte, got 0"):
        block_members(0, cpu)


@pytest.mark.parametrize(
    ("text", "room"),
    [
        ("1280K\n", 5 * 2**20),
        ("1310720", 5 * 2**20),
        ("2m", 2**23),
        ("1536K", 6 * 2**20),
        ("1G", 2**23),
        ("0K", 2**21),
        *(
            (odd, 2**22)
            for odd in ("", "K", "-1K", "1.5M", "2048 KiB", "1T", "²K", "1K 1K", "\udcff")
        ),
    ],
)
def test_a_cache_size_in_any_words(
    text: str, room: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What nobody understands counts as 1 MiB, as does what the system does not say."""
    size = tmp_path / "size"
    monkeypatch.setattr("ssa_theory.device._CACHE_SIZE", size)
    assert block_members(2048, torch.device("cpu")) == 2**22 // 2048
    size.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert block_members(2048, torch.device("cpu")) == room // 2048


@pytest.mark.parametrize(("memory", "members"), [(2**28, 2**13), (2**30, 2**15), (2**36, 2**15)])
def test_a_block_on_a_gpu_is_bounded_too(
    memory: int, members: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sixteenth of the memory, and so few models that a run of a million has many blocks."""
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=memory)
    )
    assert block_members(2048, torch.device("cuda")) == members
    assert block_members(2**36, torch.device("cuda")) == 64
