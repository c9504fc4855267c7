"""Norms: what a target map costs a weight matrix, with and without temperatures."""

import numpy as np
from scipy.special import log_softmax

from analysis.properties.base import (
    EPS,
    Choice,
    Integer,
    Number,
    applies,
    at_most,
    collect,
    equal,
    exact,
    states,
)
from ssa_theory.theory import minimal_norm, norm_lower_bound
from tasks import unit_embeddings

_SOURCE = "SSA paper: the expressivity proposition; least-norm solutions"


def _realised(embeddings: np.ndarray, weight: np.ndarray, tau: np.ndarray | float) -> np.ndarray:
    """log softmax(diag(tau) E W E^T)."""
    tau = np.broadcast_to(tau, len(embeddings))
    return log_softmax(tau[:, None] * (embeddings @ weight @ embeddings.T), axis=1)


@states(
    _SOURCE,
    tokens=Integer(2, 5),
    dim=Integer(2, 7),
    log10_scale=Number(-2.0, 0.7, 0.0),
    similarity=Choice((0.0, 0.8)),
    log_common=Number(-4.0, 4.0, 0.0),
)
def norm_bound(
    generator: np.random.Generator,
    tokens: int,
    dim: int,
    log10_scale: float,
    similarity: float,
    log_common: float,
) -> None:
    """Any W that realises a map by softmax(diag(tau) E W E^T) has ||W||_2 >= the bound by pairs of
    rows and columns; a temperature common to all rows divides the bound.
    """
    weight = generator.standard_normal((dim, dim)) * 10**log10_scale
    embeddings = unit_embeddings(tokens, dim, generator, similarity)
    tau = np.exp(generator.uniform(-1, 1, tokens))
    log_target = _realised(embeddings, weight, tau)
    target = np.exp(log_target)
    apart = np.linalg.norm(embeddings[:, None] - embeddings, axis=-1)[
        np.triu_indices(tokens, 1)
    ].min()
    # Four logs, each off by a few roundings of itself and of its row's sum, over the least product
    # of distances.
    slack = 32 * dim * EPS * (1 + np.abs(log_target).max()) / (tau.min() * apart**2)
    bound = norm_lower_bound(embeddings, target, tau)
    at_most(bound, np.linalg.norm(weight, 2), slack, "bound on the spectral norm")
    exact(bound > 0, "the bound is positive")
    common = float(np.exp(log_common))
    equal(
        norm_lower_bound(embeddings, target, common * tau) * common,
        bound,
        slack,
        "bound under a common tau, times tau",
    )


_TARGET = {
    "tokens": Integer(2, 5),
    "extra": Integer(0, 3),
    "similarity": Choice((0.0, 0.5)),
    "largest_tau": Choice((1.0, 0.5, 2.0)),
}


def _target(generator: np.random.Generator, tokens: int, extra: int, similarity: float) -> tuple:
    """Embeddings of full row rank, a positive target of mixed sharpness, and the rounding of a map
    through E^+.

    E^+ on both sides of the logits, and E on both sides of W, multiply a rounding by the condition
    number squared.
    """
    embeddings = unit_embeddings(tokens, tokens + extra, generator, similarity)
    condition = float(np.linalg.cond(embeddings))
    applies(condition < 50)
    sharpness = np.exp(generator.uniform(-1, 1.5, (tokens, 1)))
    target = np.exp(log_softmax(sharpness * generator.standard_normal((tokens, tokens)), 1))
    return embeddings, target, 16 * (tokens + extra) * EPS * condition**2


@states(_SOURCE, **_TARGET, selective=Choice((False, True)))
def minimal_norm_realises(
    generator: np.random.Generator,
    tokens: int,
    extra: int,
    similarity: float,
    largest_tau: float,
    selective: bool,
) -> None:
    """The least-norm W with its temperatures realises the target, no temperature exceeds the
    largest that is allowed, and the lower bound holds.
    """
    embeddings, target, rounding = _target(generator, tokens, extra, similarity)
    least = minimal_norm(embeddings, target, largest_tau, selective)
    tau, logits = least.inverse_temperature, np.abs(np.log(target)).max()
    error = rounding * logits * tau.max() / tau.min()
    equal(np.exp(_realised(embeddings, least.weight, tau)), target, error, "realised probability")
    at_most(tau, largest_tau, 2 * EPS * largest_tau, "inverse temperature")
    exact(
        (tau > 0).all() and (selective or (tau == largest_tau).all()),
        "temperatures are positive, and vanilla's are one",
    )
    bound = norm_lower_bound(embeddings, target, tau)
    at_most(
        bound, least.spectral_norm, rounding * least.spectral_norm, "bound on the spectral norm"
    )
    values = np.linalg.svd(least.weight, compute_uv=False)
    slack = 8 * len(values) * EPS * values[0]
    equal(least.spectral_norm, values[0], slack, "spectral norm, and the largest singular value")
    equal(
        least.frobenius_norm,
        np.sqrt((values**2).sum()),
        slack,
        "Frobenius norm, and that of the singular values",
    )


@states(_SOURCE, **_TARGET)
def selective_norm(
    generator: np.random.Generator, tokens: int, extra: int, similarity: float, largest_tau: float
) -> None:
    """With temperatures of its own for every row, a map never needs a larger Frobenius norm than
    without.
    """
    embeddings, target, rounding = _target(generator, tokens, extra, similarity)
    vanilla, selective = (
        minimal_norm(embeddings, target, largest_tau, s).frobenius_norm for s in (False, True)
    )
    at_most(selective, vanilla, rounding * vanilla, "Frobenius norm with temperatures")
    exact(selective > 0, "a map that is not uniform has a positive norm")


@states(_SOURCE, **_TARGET, selective=Choice((False, True)), log10_change=Number(-4.0, 0.0, 0.0))
def minimal_norm_is_least(
    generator: np.random.Generator,
    tokens: int,
    extra: int,
    similarity: float,
    largest_tau: float,
    selective: bool,
    log10_change: float,
) -> None:
    """No other temperatures, shifts of rows or parts in the null space realise the target with a
    smaller Frobenius norm.
    """
    embeddings, target, rounding = _target(generator, tokens, extra, similarity)
    least = minimal_norm(embeddings, target, largest_tau, selective)
    change, inverse = 10**log10_change, np.linalg.pinv(embeddings)
    u = 1 / least.inverse_temperature
    if selective:
        u = np.maximum(u + change * generator.standard_normal(tokens), 1 / largest_tau)
    logits = u[:, None] * np.log(target)
    shift = (embeddings @ least.weight @ embeddings.T - logits).mean(
        1
    ) + change * generator.standard_normal(tokens)
    outside = (
        np.eye(embeddings.shape[1]) - inverse @ embeddings
    )  # projects onto what no embedding sees
    weight = inverse @ (logits + shift[:, None]) @ inverse.T
    weight = weight + change * generator.standard_normal(weight.shape) @ outside
    norm = float(np.linalg.norm(weight))
    error = rounding * np.abs(logits + shift[:, None]).max() / u.min()
    equal(
        np.exp(_realised(embeddings, weight, 1 / u)),
        target,
        error,
        "probability realised by another W",
    )
    at_most(
        least.frobenius_norm, norm, rounding * norm, "least Frobenius norm, and that of another W"
    )


PROPERTIES = collect(globals())
