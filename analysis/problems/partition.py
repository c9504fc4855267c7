"""The partition function of attention rows too long to hold: logits are streamed, sums merged."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK = 2**17  # logits held at once, times the number of settings


def stream_partition(
    draw: Callable[[int], Float[Tensor, "key member"]],
    tau: Float[Tensor, "setting length member"],
    counts: Int[np.ndarray, "length cut"],
    block: int = _BLOCK,
) -> tuple[Float[Tensor, "setting length cut member"], Float[Tensor, "setting length cut member"]]:
    """log sum_j exp(tau z_j) and its derivative in tau, the mean logit, over a stream's beginning.

    draw(k) returns the next k logits of every member. tau: one per setting, length and member.
    counts: for each length, the numbers of logits at which to read the sums; 0 gives log 0 = -inf
    and a mean of 0. At most `block` logits are held at once, times the number of settings. The sums
    of two blocks are merged by log-sum-exp, so nothing overflows.
    """
    settings, _, members = tau.shape
    log_sum, mean = torch.full_like(tau, -torch.inf), torch.zeros_like(tau)
    shape = (settings, *counts.shape, members)
    sums, means = tau.new_full(shape, -torch.inf), tau.new_zeros(shape)
    start, rows = 0, max(1, block // members)
    for stop in np.unique(counts[counts > 0]).tolist():
        while start < stop:
            size = min(rows, stop - start)
            z = draw(size)
            start += size
            largest = z.amax(0)
            shifted = z - largest
            for i in np.flatnonzero(counts.max(1) >= start):
                weight = (tau[:, i, None] * shifted).exp_()
                total = weight.sum(1)
                part_mean = weight.mul_(z).sum(1) / total
                part_log = tau[:, i] * largest + total.log()
                merged = torch.logaddexp(log_sum[:, i], part_log)
                share = (part_log - merged).exp()
                mean[:, i] += share * (part_mean - mean[:, i])
                log_sum[:, i] = merged
        for i, k in np.argwhere(counts == stop):
            sums[:, i, k], means[:, i, k] = log_sum[:, i], mean[:, i]
    return sums, means
