"""Position schedules: how the inverse temperature of a query grows with the number n of keys that it sees. Design section 2."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssa_theory.temperature import inverse_temperature

ScheduleName = Literal["constant", "ssa", "released", "ssmax", "asentmax", "yarn", "power"]
SCHEDULES: tuple[ScheduleName, ...] = get_args(ScheduleName)

_INITIAL: dict[ScheduleName, dict[str, float]] = {
    "constant": {"log_scale": 0.0},
    "ssa": {"log_scale": 0.0, "alpha": 0.0},
    "released": {"log_scale": 0.0, "b": 2.0},
    "ssmax": {"log_scale": 0.0},
    "asentmax": {"delta": 1.0, "log_beta": 0.0, "log_gamma": 0.0},
    "yarn": {"log_scale": 0.0},
    "power": {"log_scale": 0.0, "gamma": 0.0},
}


@dataclass(frozen=True)
class PositionSchedule:
    """The inverse temperature tau(n) of a query that sees n keys, with one set of scalar parameters a member.

    With c = exp(log_scale) > 0, beta = exp(log_beta) > 0 and gamma = exp(log_gamma) > 0 where the table says so:

    - `constant`: c, vanilla attention
    - `ssa`: c (1 + sigmoid(alpha) log n), arXiv 2411.12892
    - `released`: c (1 + exp(-exp b) log n), b from 2, the authors' released code
    - `ssmax`: c log n, Scalable-Softmax, arXiv 2501.19399
    - `asentmax`: delta + beta (log n)^gamma, ASEntmax, arXiv 2506.16640
    - `yarn`: c (0.1 log(n / trained_length) + 1)^2 beyond trained_length, c up to it, YaRN, arXiv 2309.00071
    - `power`: c n^gamma, gamma of either sign, the optimal bandwidth theory of kernel regression

    At n = 1 all are finite with finite gradients: `ssmax` gives 0, `asentmax` delta, the others c. YaRN rescales a trained
    model, hence its c; asentmax's gamma is kept positive so that (log n)^gamma has a limit at n = 1.

    trained_length: the longest context of training, for `yarn` alone. Raises ValueError for an unknown name, and for a
    trained_length that is missing, below 1, or given to another schedule.

    >>> schedule = PositionSchedule("ssa")
    >>> schedule.inverse_temperature(schedule.initial_parameters(2), torch.tensor([1, 8])).tolist()[0]
    [1.0, 1.0]
    """

    name: ScheduleName
    trained_length: int | None = None

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise ValueError(f"unknown position schedule {self.name!r}: choose one of {', '.join(SCHEDULES)}")
        if self.name == "yarn" and (self.trained_length is None or self.trained_length < 1):
            raise ValueError(
                f"schedule yarn needs the longest trained length, at least 1, got {self.trained_length}: give trained_length"
            )
        if self.name != "yarn" and self.trained_length is not None:
            raise ValueError(
                f"trained_length applies only to schedule yarn, got {self.trained_length} for {self.name}: drop it"
            )

    def initial_parameters(self, members: int) -> dict[str, Float[Tensor, " {members}"]]:
        """The starting parameters, float64 on the CPU, the same for every member."""
        if members < 1:
            raise ValueError(f"the number of members must be at least 1, got {members}: ask for one or more")
        return {k: torch.full((members,), v, dtype=torch.float64) for k, v in _INITIAL[self.name].items()}

    def inverse_temperature(
        self, parameters: dict[str, Float[Tensor, " member"]], count: Int[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape member"]:
        """tau(n) of every member. count: n >= 1, on the parameters' device."""
        some = next(iter(parameters.values()))
        n = count.unsqueeze(-1).to(some.dtype)
        log_n = n.log()
        if self.name == "asentmax":
            # At n = 1 this is 0^gamma = 0, to which torch gives the gradient 0 in gamma (not 0 * log 0).
            return parameters["delta"] + parameters["log_beta"].exp() * log_n ** parameters["log_gamma"].exp()
        if self.name == "constant":
            shape = torch.ones_like(log_n)
        elif self.name == "ssa":
            shape = inverse_temperature(0.0, parameters["alpha"], n)
        elif self.name == "released":
            shape = 1 + torch.exp(-parameters["b"].exp()) * log_n
        elif self.name == "ssmax":
            shape = log_n
        elif self.name == "yarn":
            shape = (0.1 * (n / self.trained_length).clamp(min=1).log() + 1) ** 2
        else:
            shape = torch.exp(parameters["gamma"] * log_n)
        return parameters["log_scale"].exp() * shape
