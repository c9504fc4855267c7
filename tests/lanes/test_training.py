"""Compiled trainings: the same models, in any block, in any number of calls, cut into slices or not."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ssa_theory import steps
from ssa_theory.ensemble import train
from ssa_theory.lanes import Kernel, build, leaves, plan
from ssa_theory.lanes.kernel import FUNCTIONS
from ssa_theory.lanes.program import Map, Program, Source, View
from ssa_theory.losses import Queries, cross_entropy
from ssa_theory.mechanism import Parameters
from ssa_theory.steps import notice
from ssa_theory.work import work
from tests.lanes.cases import MEMBERS, case, kernel_steps, loss_of

STEPS = 7


@pytest.fixture(autouse=True)
def _alone(tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No thread but this one, and a notice for each test."""
    notice.cache_clear()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def prompts(members: int = MEMBERS, queries: int = 12) -> list[Queries]:
    """Prompts over 7 tokens, of every step anew; a member's depend on its number."""
    steps = []
    for step in range(STEPS):
        rngs = [np.random.default_rng([5, step, m]) for m in range(members)]
        node = np.stack([r.integers(0, 7, queries) for r in rngs], -1)
        counts = np.stack([r.integers(0, 3, (queries, 7)) + np.eye(7)[0] for r in rngs], -1)
        target = counts / counts.sum(1, keepdims=True)
        weight = np.full((queries, members), 1 / queries)
        arrays = map(torch.from_numpy, (target, weight, node, counts))
        steps.append(Queries(*arrays))
    return steps


def prompt_case(members: int = MEMBERS) -> tuple[Any, Parameters]:
    layer, parameters, inputs = case("ssa", "graph-position", members)
    return (lambda p, b: cross_entropy(layer.scores(p, inputs), b)), parameters


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_training_on_fresh_batches_is_torchs(optimizer: str) -> None:
    loss, start = prompt_case()
    options: dict[str, Any] = {"steps": STEPS, "learning_rate": 0.05, "optimizer": optimizer}
    options |= {"record": [0, 3, STEPS], "measure": lambda p: {"weight": p["weight"]}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = train(loss, start, batches=prompts(), compile=True, **options)
    slow = train(loss, start, batches=prompts(), **options)
    for name, value in slow.parameters.items():
        torch.testing.assert_close(fast.parameters[name], value, rtol=1e-11, atol=1e-12)
        assert (value - start[name]).abs().max() > 0.01
    torch.testing.assert_close(
        fast.history["weight"], slow.history["weight"], rtol=1e-11, atol=1e-12
    )
    assert fast.diverged.tolist() == slow.diverged.tolist() == [False] * MEMBERS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_is_the_same_in_any_block_and_in_any_number_of_calls(dtype: torch.dtype) -> None:
    def of(members: slice, threads: int = 1, once: bool = True) -> Parameters:
        loss, start = prompt_case()
        layer, _, inputs = case("ssa", "graph-position")
        del loss
        from tests.mechanism.cases import mapped

        own = mapped(
            inputs,
            lambda t: t[..., members].to(dtype) if t.is_floating_point() else t[..., members],
        )
        cut = {k: v[..., members].to(dtype) for k, v in start.items()}
        batches = [
            Queries(
                *(t[..., members].to(dtype) for t in (q.target, q.weight)),
                q.node[..., members],
                q.counts[..., members].to(dtype),
            )
            for q in prompts()
        ]
        torch.set_num_threads(threads)
        if once:
            return kernel_steps(
                lambda p, b: cross_entropy(layer.scores(p, own), b), cut, batches, "adam"
            )[0]
        return train(
            lambda p, b: cross_entropy(layer.scores(p, own), b),
            cut,
            steps=STEPS,
            learning_rate=0.1,
            batches=batches,
            compile=True,
            record=range(STEPS),
            measure=lambda p: {},
        ).parameters

    whole = of(slice(0, MEMBERS))
    for part in (slice(0, 1), slice(3, 20), slice(20, 21)):
        alone = of(part)
        assert all(torch.equal(alone[k], v[..., part]) for k, v in whole.items())
    for other in (of(slice(0, MEMBERS), threads=2), of(slice(0, MEMBERS), once=False)):
        assert all(torch.equal(other[k], v) for k, v in whole.items())


@pytest.mark.parametrize("name", ["ssa", "ssa-mlp-key-value", "gated"])
def test_slices_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, parameters, inputs = case(name, "denoise-last")
    loss = partial(loss_of, layer)
    results = []
    for room in (10**9, 60):
        monkeypatch.setattr(plan, "ROOM", room)
        kernel = Kernel(loss, parameters, inputs, "sgd")
        results.append(
            (
                kernel.function.plan.slices,
                kernel.function.plan.size,
                kernel_steps(loss, parameters, [inputs] * 3),
            )
        )
    (one, large, whole), (many, small, cut) = results
    assert one == 1 < many
    assert small < large
    for k, v in whole[0].items():
        torch.testing.assert_close(cut[0][k], v, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(cut[1], whole[1], rtol=1e-12, atol=1e-12)


def test_what_a_slice_reads_of_the_data_has_room_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "ROOM", 100)
    parameters, x = {"w": torch.rand(3, 2)}, torch.rand(48, 3, 2)  # two models
    kernel = Kernel(lambda p, b: (p["w"] * b).exp().sum((0, 1)), parameters, x, "sgd")
    own = kernel.function.plan
    assert own.size == sum(size for size, _ in own.slots) + 48 * 3 // own.slices <= 100


@pytest.mark.parametrize("name", ["ssa", "ssa-mlp-query-key", "softcap", "sink"])
def test_float32_is_as_near_to_float64_as_torchs_float32(name: str) -> None:
    layer, start, inputs = case(name, "graph-position", 64)
    from tests.mechanism.cases import mapped

    single = mapped(inputs, lambda t: t.float() if t.is_floating_point() else t)
    loss = partial(loss_of, layer)
    options: dict[str, Any] = {"steps": 40, "learning_rate": 0.02}
    exact = train(loss, start, batches=[inputs] * 40, **options).parameters
    low = {k: v.float() for k, v in start.items()}
    ours = train(loss, low, batches=[single] * 40, compile=True, **options).parameters
    theirs = train(loss, low, batches=[single] * 40, **options).parameters

    def error(parameters: Parameters) -> float:
        far = loss({k: v.double() for k, v in parameters.items()}, inputs) - loss(exact, inputs)
        return float(far.abs().mean())

    assert error(theirs) > 0
    assert error(ours) < 3 * error(theirs) + 1e-7


def test_a_member_that_diverges_is_marked_and_leaves_the_others_alone() -> None:
    start = {"x": torch.linspace(-2, 2, MEMBERS, dtype=torch.float64)}

    def loss(p: Parameters, batch: None) -> Tensor:
        return p["x"].log() + p["x"] ** 2

    fast = train(loss, start, steps=3, learning_rate=0.1, compile=True)
    slow = train(loss, start, steps=3, learning_rate=0.1)
    assert torch.equal(fast.diverged, slow.diverged)
    assert 0 < int(fast.diverged.sum()) < MEMBERS
    kept = ~fast.diverged
    torch.testing.assert_close(
        fast.parameters["x"][kept], slow.parameters["x"][kept], rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("length", [1, 2, 3, 4, 6, 9, 12, 40])
def test_a_long_sum_in_parts_is_the_sum(length: int) -> None:
    """Every number of it counts once, of a sum, a largest and a least one; over two axes, too."""
    start = torch.randn(
        3, length, MEMBERS, dtype=torch.float64, generator=torch.Generator().manual_seed(length)
    )

    def loss(p: Parameters, batch: None) -> Tensor:
        x = p["x"]
        by_row = x.square().sum(1) + x.amax(1) - 2 * x.amin(1)
        return by_row.sum(0) + x.tanh().sum((0, 1)) + x[0].amax(0)

    options: dict[str, Any] = {"steps": 5, "learning_rate": 0.1, "optimizer": "sgd"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = train(loss, {"x": start}, compile=True, **options)
    slow = train(loss, {"x": start}, **options)
    torch.testing.assert_close(fast.parameters["x"], slow.parameters["x"], rtol=1e-12, atol=1e-13)


def test_an_operation_without_a_rule_is_named_once_and_training_goes_on() -> None:
    start = {"x": torch.linspace(1, 2, 2 * MEMBERS, dtype=torch.float64).reshape(2, MEMBERS)}

    def loss(p: Parameters, batch: None) -> Tensor:
        return torch.lgamma(p["x"]).sum(0)

    with pytest.warns(RuntimeWarning, match="goes on uncompiled.*lgamma") as caught:
        fast = [train(loss, start, steps=3, learning_rate=0.1, compile=True) for _ in range(2)]
    assert len(caught) == 1
    slow = train(loss, start, steps=3, learning_rate=0.1)
    assert all(torch.equal(f.parameters["x"], slow.parameters["x"]) for f in fast)


def test_a_loss_that_mixes_models_is_refused() -> None:
    start = {"x": torch.ones(2, MEMBERS, dtype=torch.float64)}
    with pytest.warns(RuntimeWarning, match="over the models"):
        train(
            lambda p, b: (p["x"] - p["x"].mean(1, keepdim=True)).sum(0),
            start,
            steps=1,
            learning_rate=0.1,
            compile=True,
        )


def test_compiled_code_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSA_THEORY_CACHE", str(tmp_path / "cache"))
    loss, start = prompt_case()
    FUNCTIONS.clear()
    made = Kernel(loss, start, prompts()[0], "adam").function
    files = list((tmp_path / "cache").iterdir())
    assert sorted(f.suffix for f in files) == [".gch", ".hpp", ".so"]

    def none(*args: object, **kwargs: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(build.subprocess, "run", none)
    FUNCTIONS.clear()  # as another process would
    assert Kernel(loss, start, prompts()[0], "adam").function.source == made.source
    assert list((tmp_path / "cache").iterdir()) == files
    fewer = {k: v[..., :5] for k, v in start.items()}
    layer, _, inputs = case("ssa", "graph-position", 5)
    again = Kernel(
        lambda p, b: cross_entropy(layer.scores(p, inputs), b), fewer, prompts(5)[0], "adam"
    )
    assert again.function.source == made.source  # whatever the number of models


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSA_THEORY_CACHE", str(tmp_path / "file" / "cache"))
    loss, start = prompt_case()
    Kernel(loss, start, prompts()[0], "sgd")
    monkeypatch.delenv("SSA_THEORY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert build.cache_folder() == tmp_path / "own" / "ssa_theory"


@given(st.data())
def test_views_read_what_torch_reads(data: st.DataObject) -> None:
    """Reshapes of any shape, against numpy; the place of every entry."""
    sizes = data.draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=4))
    total = int(np.prod(sizes))
    after, rest = [], total
    while rest > 1:
        size = data.draw(
            st.sampled_from([n for n in range(1, rest + 1) if rest % n == 0 and n > 1])
        )
        after.append(size)
        rest //= size
    after = data.draw(st.permutations([*after, 1]))
    program = Program()
    source = program.add(Source(tuple(sizes), "real", "constant", 0, True))
    view = program.reshape(source, tuple(after))
    flat = np.arange(total).reshape(sizes)

    def at(node: Any, place: tuple[int, ...]) -> int:
        while isinstance(node, View):
            place = tuple(
                sum((place[p.axis] // p.div % (p.mod or 10**9)) * p.times for p in i.parts)
                + i.offset
                for i in node.index
            )
            node = node.of
        return int(flat[place])

    expected = flat.reshape(after)
    for place in np.ndindex(*after):
        assert at(view, place) == expected[place]


def test_equal_computations_are_one_node() -> None:
    program = Program()
    x = program.add(Source((3,), "real", "parameter", 0, True))
    first, second = (program.map("({0} + {1})", x, program.scalar(1.0)) for _ in range(2))
    assert first is second
    assert isinstance(first, Map)
    assert program.map("({0} + {1})", x, program.scalar(2.0)) is not first


@pytest.mark.parametrize(
    "felt",
    [
        lambda x: F.log_softmax(x, 0)[0],
        lambda x: (x - x.detach().amax(0)).exp().sum(0).log() - x[0],
        lambda x: F.gelu(x).sum(0),
    ],
    ids=["log_softmax", "less its most", "gelu"],
)
def test_value_and_slope_share_one_exponential(felt: Callable[[Tensor], Tensor]) -> None:
    start = {"x": torch.randn(5, 3)}
    source = Kernel(lambda p, _: felt(p["x"]), start, None, "adam").function.source
    assert source.count("vexp_falling(") == 1
    assert source.count("vexp(") == 0


def test_leaves_are_taken_from_any_batch() -> None:
    one, two = torch.ones(2), torch.zeros(3)
    assert leaves({"a": [one, None], "b": (two, 3.0)}) == [one, two]
    assert leaves(None) == leaves(1.5) == []


def test_compiled_where_it_pays_by_an_estimate_that_a_clock_has_no_part_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Few steps are not compiled, many are, and the count is that of one step."""
    loss, start = prompt_case()
    state = steps.State.of(start)
    batch = prompts()[0]
    one = work(loss, state.parameters, batch)
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)
    enough = int(one.compile_seconds / one.plain_seconds(1)) + 1
    assert not steps.pays(loss, state, [batch], enough - 1)
    assert steps.pays(loss, state, [batch], enough)
    assert not steps.pays(loss, state, [], enough)
    twice = {k: v.repeat_interleave(2, -1) for k, v in start.items()}
    layer, _, inputs = case("ssa", "graph-position", 2 * MEMBERS)
    large = work(
        lambda p, b: cross_entropy(layer.scores(p, inputs), b),
        steps.State.of(twice).parameters,
        prompts(2 * MEMBERS)[0],
    )
    assert large.operations == one.operations
    assert one.numbers < large.numbers <= 2 * one.numbers
    assert type(steps.steps_for(loss, state, "adam", 0.1, False)) is steps.Plain
    assert type(steps.steps_for(loss, state, "adam", 0.1, True)) is steps.Lanes


def test_a_further_training_goes_on_with_what_was_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cooldown, or a block of other data."""
    start = {"x": torch.linspace(1, 2, MEMBERS, dtype=torch.float64)}

    def loss(p: Parameters, batch: None, shift: Tensor) -> Tensor:
        return (p["x"] - shift) ** 2

    options: dict[str, Any] = {"steps": 5, "learning_rate": 0.1}
    zeros = torch.zeros(MEMBERS, dtype=torch.float64)
    train(partial(loss, shift=zeros), start, compile=True, **options)

    def none(*args: object) -> None:
        raise AssertionError("written again")

    monkeypatch.setattr("ssa_theory.lanes.kernel.Lowering", none)
    for shift in (zeros, zeros + 3):
        fast, slow = (
            train(partial(loss, shift=shift), start, compile=c, **options).parameters["x"]
            for c in (True, False)
        )
        torch.testing.assert_close(fast, slow, rtol=1e-12, atol=0)


def test_one_function_trains_at_any_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """To tune, rates differ; after that they may be the same."""
    start = {"x": torch.linspace(1, 2, MEMBERS, dtype=torch.float64)}

    def loss(p: Parameters, batch: None) -> Tensor:
        return (p["x"] + 0.5) ** 2

    apart, same = [1.0] * (MEMBERS - 1) + [0.1], [1.0] * MEMBERS
    options: dict[str, Any] = {"steps": 5, "learning_rate": 0.1}
    train(loss, start, compile=True, rates=apart, **options)

    def none(*args: object) -> None:
        raise AssertionError("written again")

    monkeypatch.setattr("ssa_theory.lanes.kernel.Lowering", none)
    fast, slow = (
        train(loss, start, compile=c, rates=same, **options).parameters["x"] for c in (True, False)
    )
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=0)
