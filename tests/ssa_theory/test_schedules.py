"""Position schedules: formulas against hand values, limits at n = 1, monotonicity, gradients."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ssa_theory import train
from ssa_theory.schedules import SCHEDULES, PositionSchedule

TRAINED = 64
SCALE = math.log(1.7)
SIGMOID = 1 / (1 + math.exp(-0.4))
PARAMETERS = {
    "constant": {"log_scale": SCALE},
    "ssa": {"log_scale": SCALE, "alpha": 0.4},
    "released": {"log_scale": SCALE, "b": 0.5},
    "ssmax": {"log_scale": SCALE},
    "asentmax": {"delta": -0.6, "log_beta": math.log(2.5), "log_gamma": math.log(0.7)},
    "yarn": {"log_scale": SCALE},
    "power": {"log_scale": SCALE, "gamma": 0.3},
}
AT_HUNDRED = {  # log 100 = 4.605170186
    "constant": 1.7,
    "ssa": 1.7 * (1 + SIGMOID * 4.605170186),
    "released": 1.7 * (1 + 0.19229565 * 4.605170186),  # exp(-exp 0.5) = 0.19229565
    "ssmax": 1.7 * 4.605170186,
    "asentmax": -0.6 + 2.5 * 4.605170186**0.7,
    "yarn": 1.7 * (0.1 * 0.446287103 + 1) ** 2,  # log(100 / 64) = 0.446287103
    "power": 1.7 * 3.981071706,  # 100^0.3
}
AT_ONE = dict.fromkeys(SCHEDULES, 1.7) | {"ssmax": 0.0, "asentmax": -0.6}


def schedule(name: str) -> PositionSchedule:
    return PositionSchedule(name, TRAINED if name == "yarn" else None)


def parameters(name: str, members: int = 1) -> dict[str, torch.Tensor]:
    return {k: torch.full((members,), v, dtype=torch.float64) for k, v in PARAMETERS[name].items()}


def tau(name: str, *lengths: int) -> torch.Tensor:
    return schedule(name).inverse_temperature(parameters(name), torch.tensor(lengths))[:, 0]


@pytest.mark.parametrize("name", SCHEDULES)
def test_formula_against_hand_values(name: str) -> None:
    one, hundred = tau(name, 1, 100).tolist()
    assert hundred == pytest.approx(AT_HUNDRED[name], rel=1e-7)
    assert one == pytest.approx(AT_ONE[name], abs=1e-12)
    assert set(parameters(name)) == set(schedule(name).initial_parameters(1))


@pytest.mark.parametrize("name", SCHEDULES)
def test_starts_at_the_documented_values(name: str) -> None:
    found = schedule(name).initial_parameters(3)
    assert all(v.shape == (3,) and v.dtype == torch.float64 for v in found.values())
    start = schedule(name).inverse_temperature(found, torch.tensor([TRAINED]))[0]
    log_n = math.log(TRAINED)
    wanted = {
        "ssa": 1 + 0.5 * log_n,
        "released": 1 + math.exp(-math.exp(2)) * log_n,
        "ssmax": log_n,
        "asentmax": 1 + log_n,
    }
    torch.testing.assert_close(start, torch.full((3,), wanted.get(name, 1.0), dtype=torch.float64))


def test_yarn_is_constant_up_to_the_trained_length_and_grows_beyond() -> None:
    inside, edge, beyond = tau("yarn", 3, TRAINED, 10 * TRAINED).tolist()
    assert inside == edge == pytest.approx(1.7)
    assert beyond == pytest.approx(1.7 * (0.1 * math.log(10) + 1) ** 2)


def test_ssa_lies_between_constant_and_its_limits() -> None:
    counts = torch.tensor([1, 7, 4096])
    for alpha, limit in ((-60.0, torch.zeros(3)), (60.0, counts.double().log())):
        extreme = {"log_scale": torch.zeros(1).double(), "alpha": torch.tensor([alpha]).double()}
        found = schedule("ssa").inverse_temperature(extreme, counts)[:, 0]
        torch.testing.assert_close(found, 1 + limit.double())


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_one_and_at_a_million(name: str, dtype: torch.dtype) -> None:
    given_parameters = {k: v.to(dtype).requires_grad_() for k, v in parameters(name).items()}
    for n in (1, 2, 10**6):
        found = schedule(name).inverse_temperature(given_parameters, torch.tensor([n]))
        assert torch.isfinite(found).all()
        gradients = torch.autograd.grad(found.sum(), list(given_parameters.values()), allow_unused=True)
        assert all(g is not None and torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("name", SCHEDULES)
def test_gradcheck(name: str) -> None:
    leaves = {k: v.requires_grad_() for k, v in parameters(name, members=2).items()}
    counts = torch.tensor([[1, 2], [90, 1000]])

    def function(*values: torch.Tensor) -> torch.Tensor:
        return schedule(name).inverse_temperature(dict(zip(leaves, values, strict=True)), counts)

    assert function(*leaves.values()).shape == (2, 2, 2)
    assert torch.autograd.gradcheck(function, tuple(leaves.values()))


@pytest.mark.usefixtures("unchecked")
def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"unknown position schedule 'alibi': choose one of constant, ssa"):
        PositionSchedule("alibi").initial_parameters(1)
    for length in (None, 0):
        with pytest.raises(ValueError, match=r"yarn needs the longest trained length, at least 1, got"):
            PositionSchedule("yarn", length)
    with pytest.raises(ValueError, match=r"trained_length applies only to schedule yarn, got 8 for ssa: drop it"):
        PositionSchedule("ssa", 8)
    with pytest.raises(ValueError, match=r"number of members must be at least 1, got 0"):
        PositionSchedule("ssa").initial_parameters(0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_training_stays_on_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training steps on a pretended CUDA device, with stand-ins for what a torch build without CUDA lacks there."""
    monkeypatch.setattr(torch.Tensor, "__invert__", lambda tensor: torch.bitwise_not(tensor))
    monkeypatch.setattr(torch.autograd, "grad", lambda loss, leaves: [torch.zeros_like(leaf) for leaf in leaves])
    with FakeTensorMode() as fake, torch.no_grad():
        start = {k: torch.empty(3, device="cuda") for k in PARAMETERS[name]}
        counts = torch.empty(5, dtype=torch.int64, device="cuda")
        trained = train(
            lambda p, batch: schedule(name).inverse_temperature(p, counts).sum(0), start, steps=2, learning_rate=0.1
        )
        for value in (*trained.parameters.values(), trained.diverged):
            assert fake.is_our_fake(value)
            assert value.device.type == "cuda"
            assert value.shape == (3,)
