"""The loss of one model of each workload, written once for PyTorch and for JAX.

`Ops` holds what the two spell differently, and what a layout does. Axes are counted from the front,
so that with `Ops` of the member-last layout the same lines are the losses of many models, (...,
member).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

Array = Any
"""A tensor, or an array of JAX."""
Arrays = dict[str, Array]


@dataclass(frozen=True)
class Ops:
    """product: (..., n, k) by (k, m). dot: (..., k) by (k,). each: (s, n, k) by (s, k), to (s, n).
    take(x, at): rows of x (n, m) to (s, m). choose(x, at): of each row of x (s, n) one entry.
    """

    exp: Callable[[Array], Array]
    log: Callable[[Array], Array]
    tanh: Callable[[Array], Array]
    sigmoid: Callable[[Array], Array]
    gelu: Callable[[Array], Array]
    where: Callable[[Array, Array, float], Array]
    softmax: Callable[[Array, int], Array]
    log_softmax: Callable[[Array, int], Array]
    product: Callable[[Array, Array], Array]
    dot: Callable[[Array, Array], Array]
    each: Callable[[Array, Array], Array]
    take: Callable[[Array, Array], Array]
    choose: Callable[[Array, Array], Array]


TORCH = Ops(
    exp=torch.exp,
    log=torch.log,
    tanh=torch.tanh,
    sigmoid=torch.sigmoid,
    gelu=F.gelu,
    where=torch.where,
    softmax=torch.softmax,
    log_softmax=torch.log_softmax,
    product=lambda a, b: a @ b,
    dot=lambda a, b: a @ b,
    each=lambda a, b: (a @ b[:, :, None])[:, :, 0],
    take=lambda x, at: x[at],
    choose=lambda x, at: x.gather(1, at[:, None])[:, 0],
)


def import_jax() -> Any:
    """JAX, a peer that only `make readme` installs."""
    import jax  # pyright: ignore[reportMissingImports], as nothing else needs it installed

    return jax


def jax_ops(member_last: bool) -> Ops:
    """Of one model; member_last: of many, whose products are sums over axes before the last, which
    XLA fuses into loops over the models.
    """
    jax = import_jax()
    jnp, nn = jax.numpy, jax.nn
    common = {
        "exp": jnp.exp,
        "log": jnp.log,
        "tanh": jnp.tanh,
        "sigmoid": nn.sigmoid,
        "gelu": lambda x: nn.gelu(x, approximate=False),
        "where": jnp.where,
        "softmax": nn.softmax,
        "log_softmax": nn.log_softmax,
        "choose": lambda x, at: jnp.take_along_axis(x, at[:, None], 1)[:, 0],
    }
    if member_last:
        return Ops(
            product=lambda a, b: (a[..., :, None, :] * b).sum(-3),
            dot=lambda a, b: (a * b).sum(-2),
            each=lambda a, b: (a * b[:, None]).sum(2),
            take=lambda x, at: jnp.take_along_axis(x, at[:, None], 0),
            **common,
        )
    return Ops(
        product=lambda a, b: a @ b,
        dot=lambda a, b: a @ b,
        each=lambda a, b: (a @ b[:, :, None])[:, :, 0],
        take=lambda x, at: x[at],
        **common,
    )


Loss = Callable[[Ops, Arrays, Arrays], Array]
"""Of operations, parameters and data."""


def _queries(ops: Ops, p: Arrays, tokens: Array) -> Array:
    """tau_i W^T x_i, tau_i = 1 + tanh(w . gelu(W^T x_i)) where there is a w."""
    query = ops.product(tokens, p["weight"])
    if "query.vector" in p:
        query = query * (1 + ops.tanh(ops.dot(ops.gelu(query), p["query.vector"])))[:, None]
    return query


def _row_loss(ops: Ops, logits: Array, data: Arrays) -> Array:
    log_p = ops.log_softmax(logits, 1)
    return -(data["weight"] * (data["target"] * log_p).sum(1)).sum(0)


def graph(ops: Ops, p: Arrays, data: Arrays) -> Array:
    """The attention row is the prediction: softmax_j(tau_i e_i W e_j), in cross-entropy."""
    tokens = data["embeddings"]
    logits = ops.product(_queries(ops, p, tokens), tokens.swapaxes(0, 1))
    return _row_loss(ops, logits, data)


def classifier(ops: Ops, p: Arrays, data: Arrays) -> Array:
    """softmax(C y_i), y_i = sum_j a_ij W_v e_j, a_i the attention row."""
    tokens = data["embeddings"]
    rows = ops.softmax(ops.product(_queries(ops, p, tokens), tokens.swapaxes(0, 1)), 1)
    output = ops.product(ops.product(rows, tokens), p["value"])
    return _row_loss(ops, ops.product(output, p["classifier"].swapaxes(0, 1)), data)


def prompt(ops: Ops, p: Arrays, data: Arrays) -> Array:
    """The rows over the tokens of a prompt, of which equal ones share their attention."""
    tokens, target = data["embeddings"], data["target"]
    logits = ops.product(_queries(ops, p, tokens), tokens.swapaxes(0, 1))
    log_p = ops.log_softmax(ops.take(logits, data["node"]) + ops.log(data["counts"]), 1)
    return -ops.where(target > 0, target * log_p, 0.0).sum(1).mean(0)


def denoise(ops: Ops, p: Arrays, data: Arrays) -> Array:
    """y = sum_j a_j tau_j W_v x_j of a learned query, tau_j with an MLP of its own."""
    tokens = data["tokens"]
    length, dim = tokens.shape[1:3]
    weight = ops.softmax(ops.dot(tokens, p["weight"]) / math.sqrt(dim), 1)
    inner = ops.gelu(ops.product(tokens, p["value.hidden"]) + p["value.bias"])
    score = ops.dot(inner, p["value.vector"]) + p["value.offset"]
    tau = 1 + ops.tanh(score) + ops.sigmoid(p["value.alpha"]) * math.log(length)
    mixed = ops.each(tokens.swapaxes(1, 2), weight * tau)
    error = ops.product(mixed, p["value"]) - data["target"]
    return (error * error).mean(1).mean(0)


def retrieval(ops: Ops, p: Arrays, data: Arrays) -> Array:
    """Which key does a query stem from? tau_i = 1 + tanh(a phi_i + b), phi its given scalar."""
    tau = 1 + ops.tanh(p["query.slope"] * data["feature"] + p["query.offset"])
    query = ops.product(data["token"], p["weight"]) * tau[:, None]
    log_p = ops.log_softmax(ops.each(data["keys"], query), 1)
    return -ops.choose(log_p, data["target"]).mean(0)


def regression(lengths: tuple[int, ...]) -> Loss:
    """The squared errors of attention over the first n keys, summed over lengths n, from given
    scores; tau(n) = 1 + sigmoid(a) log n.
    """

    def loss(ops: Ops, p: Arrays, data: Arrays) -> Array:
        total = 0.0
        for n in lengths:
            tau = 1 + ops.sigmoid(p["query.alpha"]) * math.log(n)
            rows = ops.softmax(data["given"][:, :n] * (ops.exp(p["log_scale"]) * tau), 1)
            error = (rows * data["values"][:, :n]).sum(1) - data["target"]
            total = total + (error * error).mean(0)
        return total

    return loss
