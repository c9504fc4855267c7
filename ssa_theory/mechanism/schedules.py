"""Position schedules: inverse temperatures that grow with the number n of keys that a query sees,
whatever it is.

    Released   c (1 + exp(-exp b) log n), b from 2    the authors' released code of arXiv 2411.12892
    LogPower   c (log n)^e                            e = 1: Scalable-Softmax, arXiv 2501.19399
    ASEntmax   delta + beta (log n)^gamma             ASEntmax's position part, arXiv 2506.16640
    YaRN       c (0.1 log(n / n_train) + 1)^2         beyond n_train, c up to it: arXiv 2309.00071
    Llama4     c (1 + 0.1 log(1 + floor(n / n_train)))   by steps: the released code of Llama 4
    Power      c n^gamma                              gamma of either sign: bandwidths of kernel regression
    Fixed      value                                  nothing is learned: a control

c = exp(log_scale), beta = exp(log_beta) and gamma of ASEntmax = exp(log_gamma) are positive. At n =
1 all are finite with finite gradients: LogPower gives 0, ASEntmax delta, the others c (Llama4
c (1 + 0.1 log 2) where n_train = 1).

`AdaptiveASEntmax` is ASEntmax's whole temperature, which reads the query token too.
"""

import abc
import math
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from ssa_theory.mechanism.parts import (
    Form,
    Generators,
    Misfit,
    Parameters,
    Role,
    Shape,
    View,
    log_count,
    zeros,
)
from ssa_theory.mechanism.temperature import Temperature


class Schedule(Temperature):
    """tau(n), with scalar parameters that start at the values of `start`."""

    start: ClassVar[dict[str, float]] = {"log_scale": 0.0}
    has_scale = True

    def shapes(self, role: Role, form: Form) -> dict[str, Shape]:
        return dict.fromkeys(self.start, ())

    def initial(self, role: Role, form: Form, generators: Generators) -> Parameters:
        return {name: zeros(generators) + value for name, value in self.start.items()}

    def fitted(self, role: Role, form: Form) -> "Temperature":
        super().fitted(role, form)
        if not form.position:
            raise Misfit("queries that see different numbers of keys (or position terms asked for)")
        return self

    def __call__(self, parameters: Parameters, view: View) -> Tensor:
        return parameters["log_scale"].exp() * self.growth(parameters, view.count)

    @abc.abstractmethod
    def growth(self, parameters: Parameters, count: Tensor | float) -> Tensor | float:
        """tau(n) over its scale c."""


@final
@dataclass(frozen=True)
class Fixed(Temperature):
    """tau = value at every token and every n: a constant scale that is chosen, not learned. Raises
    ValueError for a value that is not positive and finite.
    """

    value: float = 2.5

    def __post_init__(self) -> None:
        if not 0 < self.value < math.inf:
            raise ValueError(
                f"a constant scale must be positive and finite, got {self.value}: raise value"
            )

    def fitted(self, role: Role, form: Form) -> "Temperature":
        super().fitted(role, form)
        if form.given_scores or (role == "query" and form.constant_query):
            raise Misfit(
                f"{role} tokens: where there are none the layer learns such a scale anyway"
            )
        return self

    def __call__(self, parameters: Parameters, view: View) -> Tensor:
        assert view.token is not None  # else it does not pass `fitted`
        return view.token.new_full(view.token.shape[-1:], self.value)


@final
@dataclass(frozen=True)
class Released(Schedule):
    """c (1 + exp(-exp b) log n), b from 2."""

    start: ClassVar[dict[str, float]] = {"log_scale": 0.0, "b": 2.0}

    def growth(self, parameters: Parameters, count: Tensor | float) -> Tensor:
        return 1 + torch.exp(-parameters["b"].exp()) * log_count(count)


@final
@dataclass(frozen=True)
class LogPower(Schedule):
    """c (log n)^exponent: Scalable-Softmax at 1. The law of the scores decides which is needed to
    tell the largest of n from the others (arXiv 2605.12697): the root for Gaussian ones, 1 where
    all others lie a fixed gap below, 2 where they crowd at an upper end like exp(-1 / gap).

    Raises ValueError for an exponent that is not positive and finite.
    """

    exponent: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.exponent < math.inf:
            raise ValueError(
                f"a power of log n must be positive and finite, got {self.exponent}: raise exponent"
            )

    def growth(self, parameters: Parameters, count: Tensor | float) -> Tensor | float:
        return log_count(count) ** self.exponent


@final
@dataclass(frozen=True)
class ASEntmax(Schedule):
    """delta + beta (log n)^gamma; gamma is kept positive so that (log n)^gamma has a limit at n =
    1.
    """

    start: ClassVar[dict[str, float]] = {"delta": 1.0, "log_beta": 0.0, "log_gamma": 0.0}

    def __call__(self, parameters: Parameters, view: View) -> Tensor:
        return parameters["delta"] + parameters["log_beta"].exp() * self.growth(
            parameters, view.count
        )

    def growth(self, parameters: Parameters, count: Tensor | float) -> Tensor:
        # At n = 1 this is 0^gamma = 0, to which torch gives the gradient 0 in gamma (not 0 * log
        # 0).
        return log_count(count) ** parameters["log_gamma"].exp()


@final
@dataclass(frozen=True)
class AdaptiveASEntmax(Temperature):
    """delta + softplus(w . x) (log n)^(r tanh(u . x)): ASEntmax's temperature of a query token,
    arXiv 2506.16640. delta and r start at 1, w and u at 0.

    n counts as 2 at least: the power may be negative, and a row of one key does not feel tau.
    position: whether n is seen; where it is not the power is 1. Where no query token is seen it is
    the position part, `ASEntmax`.
    """

    position: bool = True

    def shapes(self, role: Role, form: Form) -> dict[str, Shape]:
        seen: dict[str, Shape] = {"reach": (), "exponent": (form.width(role),)}
        return {"delta": (), "vector": (form.width(role),)} | (seen if self.position else {})

    def initial(self, role: Role, form: Form, generators: Generators) -> Parameters:
        start = super().initial(role, form, generators)
        return start | {name: start[name] + 1 for name in ("delta", "reach") if name in start}

    def fitted(self, role: Role, form: Form) -> "Temperature":
        super().fitted(role, form)
        if form.given_scores or (role == "query" and form.constant_query):
            return ASEntmax().fitted(role, form)
        return replace(self, position=self.position and form.position)

    def __call__(self, parameters: Parameters, view: View) -> Tensor:
        if view.token is None:
            raise ValueError("this temperature needs tokens, which the inputs lack: add them")
        growth = F.softplus((view.token * parameters["vector"]).sum(-2))
        if self.position:
            n = view.count
            log_n = log_count(n.clamp(min=2) if isinstance(n, Tensor) else max(n, 2.0))
            power = torch.tanh((view.token * parameters["exponent"]).sum(-2))
            growth = growth * log_n ** (parameters["reach"] * power)
        return parameters["delta"] + growth


@dataclass(frozen=True)
class Extended(Schedule):
    """A schedule that departs from a constant at the trained length: for a model that is extended.

    trained_length: n_train; by default the layer's. Raises ValueError below 1.
    """

    trained_length: int | None = None

    def __post_init__(self) -> None:
        if self.trained_length is not None and self.trained_length < 1:
            raise ValueError(
                f"schedule {self._called} needs a trained length of at least 1, got "
                f"{self.trained_length}: raise it"
            )

    @property
    def _called(self) -> str:
        return type(self).__name__.lower()

    def fitted(self, role: Role, form: Form) -> "Temperature":
        super().fitted(role, form)
        if self.trained_length is not None:
            return self
        if form.trained_length is None:
            raise Misfit("the longest context of training")
        return replace(self, trained_length=form.trained_length)

    def over(self, count: Tensor | float) -> Tensor | float:
        """n / n_train."""
        if self.trained_length is None:
            raise ValueError(
                f"schedule {self._called} needs the longest trained length: give trained_length"
            )
        return count / self.trained_length


@final
@dataclass(frozen=True)
class YaRN(Extended):
    """c (0.1 log(n / n_train) + 1)^2 beyond n_train, c up to it. YaRN rescales a trained model,
    hence its c.
    """

    def growth(self, parameters: Parameters, count: Tensor | float) -> Tensor | float:
        over = self.over(count)
        log_over = over.clamp(min=1).log() if isinstance(over, Tensor) else math.log(max(over, 1.0))
        return (0.1 * log_over + 1) ** 2


@final
@dataclass(frozen=True)
class Llama4(Extended):
    """c (1 + 0.1 log(1 + floor(n / n_train))): a step at each multiple of n_train, 8192 in Llama 4."""

    def growth(self, parameters: Parameters, count: Tensor | float) -> Tensor | float:
        over = self.over(count)
        steps = over.floor() if isinstance(over, Tensor) else float(math.floor(over))
        return 1 + 0.1 * log_count(1 + steps)


@final
@dataclass(frozen=True)
class Power(Schedule):
    """c n^gamma."""

    start: ClassVar[dict[str, float]] = {"log_scale": 0.0, "gamma": 0.0}

    def growth(self, parameters: Parameters, count: Tensor | float) -> Tensor:
        return torch.exp(parameters["gamma"] * log_count(count))
