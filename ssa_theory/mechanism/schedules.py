"""Position schedules: inverse temperatures that grow with the number n of keys that a query sees,
whatever it is.

    Released   c (1 + exp(-exp b) log n), b from 2    the authors' released code of arXiv 2411.12892
    SSMax      c log n                                Scalable-Softmax, arXiv 2501.19399
    ASEntmax   delta + beta (log n)^gamma             ASEntmax's position part, arXiv 2506.16640
    YaRN       c (0.1 log(n / n_train) + 1)^2         beyond n_train, c up to it: arXiv 2309.00071
    Power      c n^gamma                              gamma of either sign: bandwidths of kernel regression

c = exp(log_scale), beta = exp(log_beta) and gamma of ASEntmax = exp(log_gamma) are positive. At n =
1 all are finite with finite gradients: SSMax gives 0, ASEntmax delta, the others c.
"""

import abc
import math
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
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
class Released(Schedule):
    """c (1 + exp(-exp b) log n), b from 2."""

    start: ClassVar[dict[str, float]] = {"log_scale": 0.0, "b": 2.0}

    def growth(self, parameters: Parameters, count: Tensor | float) -> Tensor:
        return 1 + torch.exp(-parameters["b"].exp()) * log_count(count)


@final
@dataclass(frozen=True)
class SSMax(Schedule):
    """c log n."""

    def growth(self, parameters: Parameters, count: Tensor | float) -> Tensor | float:
        return log_count(count)


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
class YaRN(Schedule):
    """c (0.1 log(n / n_train) + 1)^2 beyond n_train, c up to it. YaRN rescales a trained model,
    hence its c.

    trained_length: n_train; by default the layer's. Raises ValueError below 1.
    """

    trained_length: int | None = None

    def __post_init__(self) -> None:
        if self.trained_length is not None and self.trained_length < 1:
            raise ValueError(
                f"schedule yarn needs a trained length of at least 1, got "
                f"{self.trained_length}: raise it"
            )

    def fitted(self, role: Role, form: Form) -> "Temperature":
        super().fitted(role, form)
        if self.trained_length is not None:
            return self
        if form.trained_length is None:
            raise Misfit("the longest context of training")
        return replace(self, trained_length=form.trained_length)

    def growth(self, parameters: Parameters, count: Tensor | float) -> Tensor | float:
        if self.trained_length is None:
            raise ValueError("schedule yarn needs the longest trained length: give trained_length")
        over = count / self.trained_length
        log_over = over.clamp(min=1).log() if isinstance(over, Tensor) else math.log(max(over, 1.0))
        return (0.1 * log_over + 1) ** 2


@final
@dataclass(frozen=True)
class Power(Schedule):
    """c n^gamma."""

    start: ClassVar[dict[str, float]] = {"log_scale": 0.0, "gamma": 0.0}

    def growth(self, parameters: Parameters, count: Tensor | float) -> Tensor:
        return torch.exp(parameters["gamma"] * log_count(count))
