"""What the attention of a decoder is made of: norms, temperatures and spikiness, token by token."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssa_theory.language.decoder import Decoder
from ssa_theory.module import SelfAttention


def query_key_norm(layer: SelfAttention) -> Float[Tensor, " head"]:
    """||W_q W_k^T||_2 of every head, over sqrt(d_k) as in the scores."""
    width = layer.form.dim
    query, key = (
        w.weight.unflatten(0, (layer.heads, width)).double().transpose(-1, -2)
        for w in (layer.query, layer.key)
    )
    return norm_of_product(query, key) / math.sqrt(width)


def norm_of_product(
    query: Float[Tensor, "head dim width"], key: Float[Tensor, "head dim width"]
) -> Float[Tensor, " head"]:
    """||W_q W_k^T||_2 of every head, that of R_q R_k^T of their triangles, width x width; NaN where
    it is not finite.
    """
    first, second = (torch.linalg.qr(w).R for w in (query, key))
    product = first @ second.transpose(-1, -2)
    finite = product.isfinite().all(-1).all(-1)  # of a diverged model it is not
    norm = torch.linalg.matrix_norm(product.nan_to_num(), 2)
    return norm.where(finite, torch.nan)


@torch.no_grad()
def attention_anatomy(
    model: Decoder, tokens: Int[np.ndarray, "window length"], batch: int = 16
) -> dict[str, np.ndarray]:
    """By layer, of every token of some windows, means over heads:

    effective_weight (layer, token): tau_q(x) tau_k(x) ||W_q W_k^T||, the paper's own norm; the key
    temperature, as that of the query, is the token's own. inverse_temperature (layer, token):
    tau_q tau_k. spikiness (layer, token): 1 / (n sum_j s_j^2) of its row s over n keys, divided by its sum, in (0, 1],
    smaller being spikier; from the second token of a window on, as the first has one key.
    weight_norm (layer): ||W_q W_k^T||.
    """
    model.eval()
    norms = [query_key_norm(layer) for layer in model.layers]
    measured: dict[str, list[list[Tensor]]] = {
        name: [[] for _ in norms]
        for name in ("effective_weight", "inverse_temperature", "spikiness")
    }
    for part in np.array_split(tokens, -(-len(tokens) // batch)):
        seen = torch.from_numpy(part).to(norms[0].device)

        def look(place: int, layer: SelfAttention, x: Tensor, extra: dict[str, Any]) -> None:
            tau = layer.inverse_temperature("query", x, **extra)
            tau = tau * layer.inverse_temperature("key", x, **extra)
            rows = layer.attention(x, **extra)
            count = torch.arange(1, rows.shape[-1] + 1, device=rows.device)
            spread = rows.sum(-1).square() / (count * rows.square().sum(-1))
            effective = tau * norms[place].unsqueeze(-1).to(tau.dtype)
            for name, value in zip(measured, (effective, tau, spread), strict=True):
                measured[name][place].append(value[..., 1:].mean(1).flatten())

        _visit(model, seen, look)
    values = {
        name: torch.stack([torch.cat(parts) for parts in by_layer]).double().cpu().numpy()
        for name, by_layer in measured.items()
    }
    return values | {"weight_norm": torch.stack([n.mean() for n in norms]).cpu().numpy()}


def _visit(
    model: Decoder,
    tokens: Int[Tensor, "batch length"],
    look: Callable[[int, SelfAttention, Tensor, dict[str, Any]], None],
) -> None:
    """Call with the input of every layer's attention."""
    handles = [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs, place=place, own=layer: look(place, own, args[0], kwargs),
            with_kwargs=True,
        )
        for place, layer in enumerate(model.layers)
    ]
    try:
        model(tokens)
    finally:
        for handle in handles:
            handle.remove()
