"""What a model of rows is made of, at any step of its training: its weights, its tokens, its rows."""

import torch
from torch import Tensor

from analysis.problems.base import Measure
from analysis.problems.measures import (
    effective_support,
    gini,
    hoyer,
    singular_values,
    spikiness,
    token_norm,
)
from analysis.problems.rows import RowBlock
from ssa_theory.mechanism import Layer, Parameters

WEIGHT_ANATOMY = {
    "weight_norm": Measure((), "spectral norm ||W||_2"),
    "weight_frobenius_norm": Measure((), "Frobenius norm ||W||_F"),
    "weight_nuclear_norm": Measure((), "nuclear norm ||W||_*"),
    "weight_stable_rank": Measure((), "||W||_F^2 / ||W||_2^2, how many directions carry the norm"),
}
TOKEN_ANATOMY = {
    "token_norm": Measure(("node",), "||W^T e_i||, how far the query map stretches each token"),
    "inverse_temperature": Measure(("node",), "learned tau of each token"),
    "logit_scale": Measure(("node",), "tau_i ||W^T e_i||, the effective logit scale of each token"),
    "effective_weight": Measure(
        ("node",),
        "tau_i ||W||_2, the paper's effective weight of each token: a bound on its logits, tokens "
        "being of unit norm",
    ),
    "effective_support": Measure(
        ("node",), "exp(entropy) of each learned row: its effective number of next tokens"
    ),
    "spikiness": Measure(
        ("node",),
        "1 / (K sum_j s_j^2) of each learned row, the paper's spikiness: 1 uniform, 1/K for one "
        "next token, smaller is spikier",
    ),
    "row_max": Measure(("node",), "largest probability of each learned row"),
    "row_hoyer": Measure(
        ("node",), "Hoyer's measure of each learned row: 0 uniform, 1 for one next token"
    ),
    "row_gini": Measure(
        ("node",), "Gini coefficient of each learned row: 0 uniform, 1 - 1/K for one next token"
    ),
}
ANATOMY = WEIGHT_ANATOMY | TOKEN_ANATOMY


def anatomy(block: RowBlock, layer: Layer, parameters: Parameters) -> dict[str, Tensor]:
    """The measures of `ANATOMY` (..., member), and the cross-entropy gap; a `measure` of `fit`.

    In float64; a parameter that is not finite counts as zero, but for the gap.
    """
    current = {k: v.double() for k, v in parameters.items()}
    gap = block.recorded(layer, current)["cross_entropy_gap"]
    current = {k: torch.where(v.isfinite(), v, 0.0) for k, v in current.items()}
    weight, row = current["weight"], layer.prediction(current, block.inputs)
    norm = token_norm(weight, block.tokens.vector)
    tau = layer.inverse_temperature("query", current, block.inputs).expand_as(norm)
    values = singular_values(weight)
    square = values.square().sum(0)
    return {
        "cross_entropy_gap": gap,
        "weight_norm": values[0],
        "weight_frobenius_norm": square.sqrt(),
        "weight_nuclear_norm": values.sum(0),
        "weight_stable_rank": square / values[0].square(),
        "token_norm": norm,
        "inverse_temperature": tau,
        "logit_scale": tau * norm,
        "effective_weight": tau * values[0],
        "effective_support": effective_support(row, dim=1),
        "spikiness": spikiness(row, dim=1),
        "row_max": row.amax(1),
        "row_hoyer": hoyer(row, dim=1),
        "row_gini": gini(row, dim=1),
    }
