"""Links, the temperature of SSA, schedules: values by hand, bounds, slopes, limits, gradients."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ssa_theory.mechanism import Form, View
from ssa_theory.mechanism.schedules import (
    AdaptiveASEntmax,
    ASEntmax,
    Extended,
    Fixed,
    Llama4,
    LogPower,
    Power,
    Released,
    Schedule,
    YaRN,
)
from ssa_theory.mechanism.scores import MLP, Constant, Linear
from ssa_theory.mechanism.temperature import (
    Exp,
    Link,
    Selective,
    Sigmoid,
    Signed,
    Tanh,
    Temperature,
)

SCALE, TRAINED = math.log(1.7), 64
FORM = Form(3, given_scores=True, position=True, trained_length=TRAINED)
ssa = Selective(None)
# Parameters, and tau at n = 1 and n = 100 by hand; log 100 = 4.605170186.
BY_HAND: list[tuple[Temperature, dict[str, float], float, float]] = [
    (ssa, {"alpha": 0.4}, 1.0, 1 + 4.605170186 / (1 + math.exp(-0.4))),
    # exp(-exp 0.5) = 0.19229565
    (Released(), {"log_scale": SCALE, "b": 0.5}, 1.7, 1.7 * (1 + 0.19229565 * 4.605170186)),
    (LogPower(), {"log_scale": SCALE}, 0.0, 1.7 * 4.605170186),
    (LogPower(2.0), {"log_scale": SCALE}, 0.0, 1.7 * 21.20759244),
    (LogPower(0.5), {"log_scale": SCALE}, 0.0, 1.7 * 2.145966026),
    (
        ASEntmax(),
        {"delta": -0.6, "log_beta": math.log(2.5), "log_gamma": math.log(0.7)},
        -0.6,
        -0.6 + 2.5 * 4.605170186**0.7,
    ),
    # log(100 / 64) = 0.446287103
    (YaRN(TRAINED), {"log_scale": SCALE}, 1.7, 1.7 * (0.1 * 0.446287103 + 1) ** 2),
    # floor(100 / 64) = 1, log 2 = 0.693147181
    (Llama4(TRAINED), {"log_scale": SCALE}, 1.7, 1.7 * 1.0693147181),
    (Power(), {"log_scale": SCALE, "gamma": 0.3}, 1.7, 1.7 * 3.981071706),  # 100^0.3
]
by_schedule = pytest.mark.parametrize(
    ("schedule", "values", "at_one", "at_hundred"),
    BY_HAND,
    ids=[repr(s) for s, *_ in BY_HAND],
)
LINKS = [Tanh(), Sigmoid(), Exp(), Signed()]
by_link = pytest.mark.parametrize("link", LINKS, ids=repr)


def tensors(values: dict[str, float], members: int = 1) -> dict[str, Tensor]:
    return {k: torch.full((members,), v, dtype=torch.float64) for k, v in values.items()}


def test_every_kind_is_here() -> None:
    def ours(kind: type) -> set[type]:
        """Other tests may have made some of their own."""
        return {c for c in kind.__subclasses__() if c.__module__.startswith("ssa_theory")}

    assert ours(Link) == {type(link) for link in LINKS}
    by_hand = {type(s) for s, *_ in BY_HAND}
    assert by_hand == ours(Schedule) - {Extended} | ours(Extended) | {Selective}
    assert ours(Temperature) == {Schedule, Selective, AdaptiveASEntmax, Fixed}


@by_link
def test_links_are_one_at_zero_and_have_the_slope_and_floor_that_they_say(link: Link) -> None:
    f = torch.linspace(-8, 8, 81, dtype=torch.float64).requires_grad_()
    tau = link(f)
    assert link(torch.zeros(1)) == 1
    (slope,) = torch.autograd.grad(tau.sum(), f)
    torch.testing.assert_close(link.slope(f.detach()), slope, rtol=1e-12, atol=1e-12)
    assert (tau.diff() > 0).all()
    far = link(torch.tensor([-1e3], dtype=torch.float64)).item()
    if link.floor is None:
        assert far < -100
    else:
        assert (tau > link.floor).all()
        assert far == pytest.approx(link.floor, abs=1e-12)
    top = link(torch.tensor([300.0], dtype=torch.float64)).item()
    assert top == 2 if isinstance(link, Tanh | Sigmoid) else top > 300


@pytest.mark.parametrize("position", [False, True])
@by_link
def test_the_floor_bounds_tau_and_is_approached(link: Link, position: bool) -> None:
    n, part = 9.0, Selective(Linear(), link, position)
    parameters = tensors({"alpha": 0.3}, 2) | {"vector": torch.tensor([[1.0, 2.0]]).double()}
    if not position:
        del parameters["alpha"]
    floor = part.floor(parameters, n)
    added = math.log(n) / (1 + math.exp(-0.3)) * position
    wanted = -math.inf if link.floor is None else link.floor + added
    assert floor.tolist() == pytest.approx([wanted, wanted])
    token = torch.linspace(-40, 3, 50, dtype=torch.float64).reshape(-1, 1, 1).expand(-1, -1, 2)
    tau = part(parameters, View(token, count=n))
    assert (tau >= floor).all()
    assert link.floor is None or (tau.amin(0) - floor < 1e-6).all()


def test_the_floor_without_a_token_term_is_tau_itself() -> None:
    found = ssa.floor(tensors({"alpha": 0.3}), 9.0)
    assert torch.equal(found, ssa(tensors({"alpha": 0.3}), View(count=9.0)))


def test_ssa_lies_between_constant_and_its_limits() -> None:
    """alpha to -inf takes the position term away, to +inf it is log n."""
    counts = torch.tensor([[1.0], [7.0], [4096.0]], dtype=torch.float64)
    for alpha, limit in ((-math.inf, torch.zeros(3, 1).double()), (math.inf, counts.log())):
        found = ssa(tensors({"alpha": alpha}), View(count=counts))
        torch.testing.assert_close(found, 1 + limit)


def test_a_saturated_gate_is_told_by_its_slope() -> None:
    """2 sigmoid(f) has the slope 2 s (1 - s) = 1 / (1 + cosh f), a thousandth at f = +-edge."""
    edge = math.acosh(1 / 0.001 - 1)
    for sign in (-1, 1):
        inside, outside = (torch.tensor(sign * factor * edge).double() for factor in (0.99, 1.01))
        assert Sigmoid().slope(inside) > 0.001 > Sigmoid().slope(outside)


@by_schedule
def test_schedules_by_hand(
    schedule: Temperature, values: dict[str, float], at_one: float, at_hundred: float
) -> None:
    for n, wanted in ((1, at_one), (100, at_hundred)):
        number = schedule(tensors(values), View(count=float(n)))
        assert number.item() == pytest.approx(wanted, rel=1e-7, abs=1e-12)
        counts = torch.tensor([[float(n)], [3.0]], dtype=torch.float64)
        tensor = schedule(tensors(values), View(count=counts))
        assert tensor.shape == (2, 1)
        torch.testing.assert_close(tensor[0], number, rtol=1e-14, atol=1e-14)
    assert set(values) == set(schedule.shapes("query", FORM))


@by_schedule
def test_schedules_start_at_the_documented_values(
    schedule: Temperature, values: dict[str, float], at_one: float, at_hundred: float
) -> None:
    found = schedule.initial("query", FORM, [np.random.default_rng(0)] * 3)
    assert all(v.shape == (3,) and v.dtype == torch.float64 for v in found.values())
    log_n = math.log(TRAINED)
    wanted = {
        "Selective": 1 + 0.5 * log_n,
        "Released": 1 + math.exp(-math.exp(2)) * log_n,
        "ASEntmax": 1 + log_n,
        "Llama4": 1.0693147181,  # of a context as long as in training
    }.get(type(schedule).__name__, 1.0)
    if isinstance(schedule, LogPower):
        wanted = log_n**schedule.exponent
    start = schedule(found, View(count=float(TRAINED)))
    torch.testing.assert_close(start, torch.full((3,), wanted, dtype=torch.float64))
    assert schedule.has_scale == ("log_scale" in values or "log_beta" in values)


@by_schedule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_one_and_at_a_million(
    schedule: Temperature,
    values: dict[str, float],
    at_one: float,
    at_hundred: float,
    dtype: torch.dtype,
) -> None:
    leaves = {k: v.to(dtype).requires_grad_() for k, v in tensors(values).items()}
    for n in (1, 2, 10**6):
        for count in (float(n), torch.tensor([[n]], dtype=dtype)):
            tau = schedule(leaves, View(count=count))
            assert torch.isfinite(tau).all()
            found = torch.autograd.grad(tau.sum(), list(leaves.values()), allow_unused=True)
            assert all(g is not None and torch.isfinite(g).all() for g in found)


@by_schedule
def test_gradcheck(
    schedule: Temperature, values: dict[str, float], at_one: float, at_hundred: float
) -> None:
    leaves = {k: v.requires_grad_() for k, v in tensors(values, 2).items()}
    counts = torch.tensor([[1.0, 2.0], [90.0, 1000.0]], dtype=torch.float64)

    def function(*given: Tensor) -> Tensor:
        return schedule(dict(zip(leaves, given, strict=True)), View(count=counts))

    assert function(*leaves.values()).shape == (2, 2)
    assert torch.autograd.gradcheck(function, tuple(leaves.values()))


def test_yarn_is_constant_up_to_the_trained_length_and_grows_beyond() -> None:
    yarn = YaRN().fitted("query", FORM)
    assert yarn == YaRN(TRAINED)
    assert YaRN(3).fitted("query", FORM) == YaRN(3)
    counts = torch.tensor([[3.0], [TRAINED], [10.0 * TRAINED]], dtype=torch.float64)
    inside, edge, beyond = yarn(tensors({"log_scale": SCALE}), View(count=counts)).flatten()
    assert inside == edge == pytest.approx(1.7)
    assert beyond == pytest.approx(1.7 * (0.1 * math.log(10) + 1) ** 2)
    for wrong in (0, -3):
        with pytest.raises(ValueError, match=f"trained length of at least 1, got {wrong}: raise"):
            YaRN(wrong)
    with pytest.raises(ValueError, match="needs the longest trained length: give trained_length"):
        YaRN()(tensors({"log_scale": SCALE}), View(count=9.0))


def test_llama_grows_by_steps_of_the_trained_length() -> None:
    counts = torch.tensor([[1.0], [63.0], [64.0], [127.0], [128.0], [640.0]], dtype=torch.float64)
    for given in (counts, [float(n) for n in counts]):
        found = [
            Llama4(TRAINED)(tensors({"log_scale": 0.0}), View(count=n)).flatten() for n in given
        ]
        wanted = [1 + 0.1 * math.log(1 + k) for k in (0, 0, 1, 1, 2, 10)]
        assert torch.cat(found).tolist() == pytest.approx(wanted)
    with pytest.raises(ValueError, match="schedule llama4 needs the longest trained length: give"):
        Llama4()(tensors({"log_scale": SCALE}), View(count=9.0))


def test_powers_of_log_n_are_positive_and_finite() -> None:
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"must be positive and finite, got {wrong}: raise"):
            LogPower(wrong)


def test_asentmax_of_a_token_by_hand() -> None:
    """softplus(0.6) = 1.037488, tanh(0.4) = 0.379949; from two keys on."""
    token = torch.tensor([1.0, -2.0]).double()[:, None]
    parameters = tensors({"delta": -0.3, "reach": 1.5}) | {
        "vector": torch.tensor([[0.2], [-0.2]]).double(),
        "exponent": torch.tensor([[0.8], [0.2]]).double(),
    }
    for n in (1, 2, 100):
        wanted = -0.3 + 1.037488 * math.log(max(n, 2)) ** (1.5 * 0.379949)
        for count in (float(n), torch.tensor([n], dtype=torch.float64)):
            found = AdaptiveASEntmax()(parameters, View(token, count=count))
            assert found.item() == pytest.approx(wanted, rel=1e-5)
    without = AdaptiveASEntmax(position=False)(parameters, View(token, count=100.0))
    assert without.item() == pytest.approx(-0.3 + 1.037488, rel=1e-5)
    with pytest.raises(ValueError, match="this temperature needs tokens, which the inputs lack"):
        AdaptiveASEntmax()(parameters, View(count=2.0))


def test_scores_of_their_own_kind() -> None:
    with pytest.raises(ValueError, match="width must be at least 1, got 0: choose a positive size"):
        MLP(width=0)
    offset = tensors({"offset": 0.3})
    assert torch.equal(Constant()(offset, View()), offset["offset"])
    assert Selective(MLP()).shared_by_heads == {"hidden", "bias"}
    assert ssa.shared_by_heads == frozenset()
