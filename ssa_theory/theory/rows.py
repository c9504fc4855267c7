"""What an inverse temperature tau does to an attention row p = softmax(tau z).

tau' > tau >= 0 gives a row that majorises the other, so its entropy falls and its maximum rises:
the larger tau, the more focused is attention (arXiv 2411.12892).
"""

import torch
from jaxtyping import Float
from torch import Tensor


def entropy(row: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """H(p) = -sum_j p_j log p_j in nats, with 0 log 0 = 0.

    >>> round(entropy(torch.tensor([0.5, 0.5, 0.0])).item(), 4)  # log 2
    0.6931
    """
    return torch.special.entr(row).sum(-1)


def entropy_derivative(
    logits: Float[Tensor, "*batch n"], inverse_temperature: Float[Tensor, "*#batch"] | float
) -> Float[Tensor, "*batch"]:
    """dH/dtau of p = softmax(tau z): -tau Var_p(z), in nats per unit of tau.

    Never positive for tau >= 0.

    >>> entropy_derivative(torch.tensor([1.0, -1.0]), 0.0).item()  # uniform: a maximum
    -0.0
    """
    tau = torch.as_tensor(inverse_temperature, dtype=logits.dtype, device=logits.device)
    row = (tau.unsqueeze(-1) * logits).softmax(-1)
    mean = (row * logits).sum(-1, keepdim=True)
    return -tau * (row * (logits - mean) ** 2).sum(-1)


def majorises(
    p: Float[Tensor, "*batch n"], q: Float[Tensor, "*batch n"], tolerance: float = 0.0
) -> torch.Tensor:
    """Whether p majorises q.

    So it is where, for every k, the k largest entries of p sum to at least those of q, and the
    totals agree. For tau' > tau >= 0, softmax(tau' z) majorises softmax(tau z). Hence entropy falls
    and maximum, L2 norm, Gini and Hoyer rise with tau. tolerance: slack for rounding, an absolute
    probability.

    >>> sharp, flat = torch.tensor([0.75, 0.25, 0.0]), torch.tensor([0.5, 0.25, 0.25])
    >>> majorises(sharp, flat).item(), majorises(flat, sharp).item()
    (True, False)
    """
    first, second = (row.sort(-1, descending=True).values for row in (p, q))
    difference = (first - second).cumsum(-1)
    return (difference >= -tolerance).all(-1) & (difference[..., -1].abs() <= max(tolerance, 1e-12))
