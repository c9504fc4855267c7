"""Output gates: y_i = g(x_i) * sum_j p_ij tau_v,j W_v x_j, g in (0, 1) from the query token (arXiv
2505.06708).
"""

import abc
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ssa_theory.mechanism.parts import Form, Misfit, Parameters, Part, Role, Shape, project


class Gate(Part):
    """g of every query token, (query, #width, member)."""

    @abc.abstractmethod
    def __call__(self, parameters: Parameters, token: Tensor) -> Tensor: ...

    def fitted(self, role: Role, form: Form) -> "Gate":
        missing = [] if form.values else ["a value map"]
        missing += ["query tokens"] if form.constant_query or form.given_scores else []
        if missing:
            raise Misfit(" and ".join(missing))
        return self


@final
@dataclass(frozen=True)
class ElementwiseGate(Gate):
    """g = sigmoid(x W_g), one number for each coordinate of the output. W_g starts at 0: g = 1/2,
    which W_v absorbs.
    """

    def shapes(self, role: Role, form: Form) -> dict[str, Shape]:
        return {"weight": (form.width("query"), form.dim)}

    def __call__(self, parameters: Parameters, token: Tensor) -> Tensor:
        return torch.sigmoid(project(token, parameters["weight"]))


@final
@dataclass(frozen=True)
class HeadGate(Gate):
    """g = sigmoid(w . x), one number for a head's whole output. w starts at 0: g = 1/2, which W_v
    absorbs.
    """

    def shapes(self, role: Role, form: Form) -> dict[str, Shape]:
        return {"vector": (form.width("query"),)}

    def __call__(self, parameters: Parameters, token: Tensor) -> Tensor:
        return torch.sigmoid((token * parameters["vector"]).sum(-2, keepdim=True))
