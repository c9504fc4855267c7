"""What is compiled once serves every loss of the same operations, and no other."""

import gc
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ssa_theory.ensemble import train
from ssa_theory.lanes import kernel
from ssa_theory.mechanism import Parameters
from tests.lanes.cases import MEMBERS

Loss = Callable[[Parameters, Any], Tensor]


@pytest.fixture(autouse=True)
def _nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssa_theory.lanes.build._LEVEL", "-O0")
    kernel.FUNCTIONS.clear()


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, MEMBERS, generator=generator, dtype=torch.float64)


START = {"x": normal(3, 4, seed=1)}


def trained(loss: Loss, compile: bool, batches: Any = None) -> Tensor:
    return train(
        loss, START, steps=2, learning_rate=0.1, optimizer="sgd", compile=compile, batches=batches
    ).parameters["x"]


def functions_of(*losses: Loss, batches: Any = None) -> int:
    """How many are compiled for losses that are trained one after another, each as torch trains it."""
    for loss in losses:
        expected = trained(loss, False, batches)
        assert (expected - START["x"]).abs().max() > 1e-3
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made = trained(loss, True, batches)
        torch.testing.assert_close(made, expected, rtol=1e-12, atol=1e-12)
    return len(kernel.FUNCTIONS)


def total(x: Tensor) -> Tensor:
    return x.square().sum((0, 1))


def times(by: Any, at: int = 0, mask: bool = False) -> Loss:
    """A loss that holds a number or a tensor."""

    def loss(p: Parameters, _: None) -> Tensor:
        x = p["x"].exp() if mask else p["x"]
        return total((x - 1)[at:] * by)

    return loss


def test_other_values_are_the_same_function() -> None:
    assert functions_of(*(times(normal(3, 4, seed=s)) for s in (2, 3, 4))) == 1


@pytest.mark.parametrize(
    "others",
    [
        (times(2.0), times(3.0)),
        (times(1.0), times(1)),
        (times(2.0), times(2.0, at=1)),
        (times(2.0), times(2.0, mask=True)),
        (times(normal(3, 4)), times(normal(1, 4))),
        (times(normal(3, 4)), times(normal(3, 4)[..., :1])),
        (times(normal(3, 4)), times(normal(3, 4).float())),
        (times(normal(3, 4)), times(normal(4, 3).transpose(0, 1))),
        (times(normal(3, 1)), times(normal(3, 1).expand(3, 4, MEMBERS))),
        (times(normal(3, 4)), times(normal(3, 4)[..., :1].expand(3, 4, MEMBERS))),
        (times(normal(3, 4) > 0), times(normal(3, 4).long())),
        (times(normal()), times(normal()[0])),
    ],
    ids=[
        "number", "type", "index", "branch", "shape", "member", "dtype", "stride", "expanded",
        "expanded members", "mask", "one number",
    ],
)  # fmt: skip
def test_other_operations_are_another_function(others: tuple[Loss, Loss]) -> None:
    assert functions_of(*others) == 2


def test_numbers_that_python_takes_from_tensors_are_part_of_the_function() -> None:
    """The values decide, read in any way; where they lead to the same, it is the same."""

    def loss(p: Parameters, _: None, held: Tensor, read: Callable[[Tensor], Any]) -> Tensor:
        return total(p["x"] - 1 if read(held) else p["x"] + 2)

    ways: list[Callable[[Tensor], Any]] = [
        lambda t: bool((t > 0).all()),
        lambda t: t[0].item() > 0,
        lambda t: min(t.tolist()) > 0,
        lambda t: (t.numpy() > 0).all(),
        lambda t: len(t.nonzero()) == 0 or t.sum() > 0,
    ]
    tensors = torch.ones(2), -torch.ones(2), torch.full((2,), 3.0)
    for read in ways:
        for held in tensors:
            functions_of(partial(loss, held=held, read=read))
    assert functions_of() <= 2 * len(ways)
    factor = [partial(lambda p, _, t: total(p["x"] * t.item()), t=t[0]) for t in tensors]
    kernel.FUNCTIONS.clear()
    assert functions_of(*factor) == 3


def test_tensors_made_within_a_loss_are_its_constants() -> None:
    def loss(p: Parameters, _: None, number: float) -> Tensor:
        scale = torch.tensor([number, 2.0], dtype=torch.float64)
        shift = torch.arange(4.0, dtype=torch.float64).unsqueeze(-1)
        return total((p["x"] - shift) * scale[0]) * scale[1]

    assert functions_of(partial(loss, number=2.0), partial(loss, number=0.5)) == 1


@pytest.mark.parametrize("plain", [torch.no_grad, torch.enable_grad])
def test_what_has_no_gradient_is_another_function(plain: Any) -> None:
    def loss(p: Parameters, _: None, quiet: Any) -> Tensor:
        with quiet():
            weight = p["x"] * p["x"]
        return total(p["x"] * weight)

    assert functions_of(partial(loss, quiet=plain)) == 1
    assert functions_of(partial(loss, quiet=torch.no_grad)) == 1 + (plain is torch.enable_grad)


def test_a_gradient_of_ones_own_is_another_function() -> None:
    def slope(factor: Tensor) -> Any:
        class Own(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Tensor) -> Tensor:
                return x * 2

            @staticmethod
            def backward(ctx: Any, *slopes: Tensor) -> Tensor:
                return slopes[0] * factor

        return Own

    def loss(p: Parameters, _: None, own: Any) -> Tensor:
        return total(own.apply(p["x"]))

    three, four = (partial(loss, own=slope(normal(seed=s))) for s in (3, 4))
    assert functions_of(three, four) == 1
    assert functions_of(partial(loss, own=slope(normal(3, 4)))) == 2


def test_one_tensor_twice_is_another_function_than_two() -> None:
    def loss(p: Parameters, _: None, first: Tensor, second: Tensor) -> Tensor:
        return total(p["x"] * first) + total(p["x"] + second)

    a, b, c = (normal(3, 4, seed=s) for s in (2, 3, 4))
    same, other = partial(loss, first=a, second=a), partial(loss, first=a, second=b)
    views = partial(loss, first=a[:1], second=a[1:2]), partial(loss, first=b[:1], second=c[1:2])
    assert functions_of(same, other, partial(loss, first=b, second=c)) == 2
    assert functions_of(*views) == 4


def test_a_batch_is_no_constant_though_a_loss_holds_it_too() -> None:
    batches = [normal(3, 4, seed=s) for s in (2, 3)]

    def loss(p: Parameters, batch: Tensor) -> Tensor:
        return total(p["x"] * batch - batches[0])

    def both(p: Parameters, batch: tuple[Tensor, Tensor]) -> Tensor:
        return total(p["x"] * batch[0] - batch[1])

    assert functions_of(loss, batches=batches) == 1
    first, second = batches
    assert functions_of(both, batches=[(first, first), (first, second)]) == 2


def test_the_start_of_a_sum_of_put_entries_may_be_anything() -> None:
    at = torch.tensor([[0, 2, 2]]).T.unsqueeze(-1).expand(3, 4, MEMBERS)

    def loss(p: Parameters, _: None, start: Tensor) -> Tensor:
        return total(start.scatter_add(0, at, p["x"]) - 1)

    zeros = torch.zeros(3, 4, MEMBERS, dtype=torch.float64)
    assert functions_of(partial(loss, start=zeros), partial(loss, start=normal(3, 4))) == 1


def test_a_mask_that_all_models_share() -> None:
    def loss(p: Parameters, _: None, mask: Tensor) -> Tensor:
        return total(torch.where(~(mask & (p["x"] < 5)), p["x"], 2 * p["x"] - 1))

    masks = [torch.arange(3).reshape(3, 1, 1) < n for n in (1, 2)]
    assert functions_of(*(partial(loss, mask=m) for m in masks)) == 1


def test_what_is_drawn_at_random_is_refused() -> None:
    def loss(p: Parameters, _: None) -> Tensor:
        return total(p["x"] * torch.rand(3, 4, MEMBERS))

    with pytest.warns(RuntimeWarning, match="drawn at random"):
        trained(loss, True)


def test_a_write_that_shows_elsewhere_is_refused_and_others_are_not() -> None:
    def through_a_view(p: Parameters, _: None) -> Tensor:
        y = p["x"] * 2
        y[0] += 1
        return total(y)

    def before_and_after(p: Parameters, _: None) -> Tensor:
        y = torch.ones(3, 4, MEMBERS, dtype=torch.float64)
        z = p["x"] + y
        y.mul_(3)
        return total(z + p["x"] * y)

    def own(p: Parameters, _: None) -> Tensor:
        y = p["x"] * 2
        y.add_(p["x"])
        return total(y - 1)

    count = torch.zeros(1, dtype=torch.float64)

    def lasting(p: Parameters, _: None) -> Tensor:
        return total(p["x"] * count.add_(1))

    assert functions_of(before_and_after, own) == 2
    from ssa_theory.steps import notice

    for loss in (through_a_view, lasting):
        notice.cache_clear()
        with pytest.warns(RuntimeWarning, match="another name"):
            trained(loss, True)
    notice.cache_clear()
    with pytest.warns(RuntimeWarning, match="another name"):
        fast = trained(through_a_view, True)
    assert torch.equal(fast, trained(through_a_view, False))


def test_a_kernel_holds_no_data_of_the_block_that_it_was_compiled_for() -> None:
    held, batch = normal(3, 4, seed=2), normal(3, 4, seed=3)
    gone = weakref.ref(held), weakref.ref(batch)
    trained(lambda p, b, held=held: total(p["x"] * held.exp() - b), True, [batch, batch])
    assert kernel.FUNCTIONS
    del held, batch
    gc.collect()
    assert [g() for g in gone] == [None, None]


def test_the_oldest_function_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_HELD", 2)
    assert functions_of(times(2.0), times(3.0), times(4.0)) == 2
    first, second = kernel.FUNCTIONS.values()
    assert functions_of(times(3.0), times(4.0)) == 2
    assert list(kernel.FUNCTIONS.values()) == [first, second]
