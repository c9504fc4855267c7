"""The inverse temperature of SSA (arXiv 2411.12892): tau(x, n) = tanh(f(x)) + 1 + sigmoid(alpha) log n.

Elementwise in its arguments, hence the same for the module (batch, head, token) and for ensembles (token, member).
A larger tau is a spikier attention row; the paper's temperature is 1 / tau.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def inverse_temperature(
    score: Tensor | float = 0.0, alpha: Tensor | None = None, count: Tensor | float = 1.0
) -> Tensor | float:
    """tau = tau_tok + tau_pos with tau_tok = tanh(score) and tau_pos = 1 + sigmoid(alpha) log(count).

    score: f(x), any shape; 0 switches the token term off. alpha: the position parameter; None switches the position
    term off. count: n >= 1, the number of keys that the token sees. All broadcast against one another. With both
    terms off tau = 1, vanilla attention.
    """
    token = torch.tanh(score) if isinstance(score, Tensor) else math.tanh(score)
    if alpha is None:
        return 1.0 + token
    # A count that is no tensor stays on the host: moved to a device, it would make every training step wait.
    log_count = torch.log(count) if isinstance(count, Tensor) else math.log(count)
    return 1.0 + token + torch.sigmoid(alpha) * log_count


def weight_shared_score(projection: Tensor, vector: Tensor, dim: int) -> Tensor:
    """f(x) = w . gelu(W x) with the layer's own projection W x, so that only the vector w is new.

    projection: W x, with the features along `dim`; vector: w, broadcastable against it.
    """
    return (F.gelu(projection) * vector).sum(dim)
