"""What a value temperature does to tokens: a gate tau_v, looked at by the norm of a token."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from analysis.problems.base import Measure
from ssa_theory.mechanism import Inputs, Layer, Parameters
from ssa_theory.mechanism.parts import own
from ssa_theory.mechanism.temperature import Selective

BOUNDS = ("lower", "upper")
VANISHED = 1e-3
"""d tau_v / d f below this is a gate at its bound: it no longer learns."""
_DIRECTIONS = 8  # samples whose tokens give the directions in which the gate is looked at

GATE_MEASURES = {
    "gate_saturation": Measure(
        ("bound",),
        "share of value gates at their bound, where d tau_v / d f < 0.001; NaN without such f",
    ),
    "gate_floor": Measure(
        (),
        "least tau_v that the trained gate can give, the position term sigmoid(alpha) log L "
        "with the link's least value; NaN without a value gate",
    ),
    "gate_by_norm": Measure(
        ("norm",), "learned tau_v of a token by its norm, over directions; NaN without a value gate"
    ),
}


def value_gates(
    layer: Layer,
    parameters: Parameters,
    tokens: Float[Tensor, "sample length dim member"],
    inputs: Callable[[Tensor], Inputs],
    radii: Sequence[float],
) -> dict[str, Float[Tensor, "*place member"]]:
    """The numbers of `GATE_MEASURES`; NaN where the mechanism has no value gate of SSA's form.

    inputs: of tokens. radii: the norms. Many gates at the lower bound are fillers that they have
    shut out. All at the upper one are a gate that does nothing: the model is vanilla, and no
    gradient tells it so.
    """
    value, places = layer.mechanism.value, tokens.select(2, 0)
    nothing = torch.full_like(places[0, 0], torch.nan)
    measured = {
        "gate_saturation": nothing.expand(len(BOUNDS), -1),
        "gate_floor": nothing,
        "gate_by_norm": nothing.expand(len(radii), -1),
    }
    if not isinstance(value, Selective):
        return measured
    measured["gate_floor"] = value.floor(own(parameters, "value"), float(tokens.shape[1]))
    some = tokens[:_DIRECTIONS]
    direction = some / some.norm(dim=2, keepdim=True)

    def gate(radius: float) -> Tensor:
        tau = layer.inverse_temperature("value", parameters, inputs(radius * direction))
        return tau.expand_as(places[:_DIRECTIONS]).mean((0, 1))

    measured["gate_by_norm"] = torch.stack([gate(r) for r in radii])
    if value.score is not None:
        f = layer.token_score("value", parameters, inputs(tokens)).expand_as(places)
        still = value.link.slope(f) < VANISHED
        shares = (still & (f < 0), still & (f > 0))
        measured["gate_saturation"] = torch.stack([s.to(f.dtype).mean((0, 1)) for s in shares])
    return measured
