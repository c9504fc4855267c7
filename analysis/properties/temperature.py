"""Temperature: what it does to an attention row, and how position schedules raise it."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from analysis.problems.measures import gini, hoyer
from analysis.properties.base import (
    EPS,
    Choice,
    Integer,
    Number,
    Row,
    at_most,
    collect,
    equal,
    exact,
    states,
)
from ssa_theory.mechanism import MECHANISMS, Form, Inputs, Layer, Misfit
from ssa_theory.mechanism.schedules import ASEntmax, Extended, LogPower, Power, Schedule
from ssa_theory.mechanism.temperature import Selective
from ssa_theory.theory import entropy, entropy_derivative, majorises

_LOGITS = Row(2, 12)
_SCALE = Number(-5.0, 4.0, 0.0)
_SOURCE = "SSA paper: temperature controls sparsity; majorisation (Marshall, Olkin and Arnold)"


def _sharpened(
    logits: tuple[float, ...], log10_scale: float, tau: float, factor: float, dtype: str
) -> tuple[torch.Tensor, torch.Tensor, float, float]:
    """softmax(tau z), softmax(tau' z) with tau' > tau, how far rounding moves any sum of entries,
    and any logit.

    A product tau z is off by half a rounding of itself, which moves the sum P of any set of entries
    by 2 P (1 - P) times as much; the softmax and the sums themselves add a rounding for each entry.
    """
    z = (torch.tensor(logits, dtype=torch.float64) * 10**log10_scale).to(getattr(torch, dtype))
    larger = factor * tau + 0.01
    unit = torch.finfo(z.dtype).eps
    moved = unit * (tau + larger) * float(z.abs().max())
    return (
        (tau * z).softmax(-1),
        (larger * z).softmax(-1),
        moved + 4 * len(logits) * unit,
        moved + unit,
    )


_PAIR = {
    "logits": _LOGITS,
    "log10_scale": _SCALE,
    "tau": Number(0.0, 10.0, 1.0),
    "factor": Number(1.0, 10.0),
    "dtype": Choice(("float64", "float32")),
}


@states(_SOURCE, **_PAIR)
def majorisation(generator: np.random.Generator, **case: Any) -> None:
    """For tau' > tau >= 0, softmax(tau' z) majorises softmax(tau z)."""
    blunt, sharp, slack, _ = _sharpened(**case)
    less, more = (p.double().sort(descending=True).values.cumsum(-1) for p in (blunt, sharp))
    at_most(less, more, slack, "sum of the k largest weights, at tau and at tau'")
    exact(majorises(sharp, blunt, slack), "softmax(tau' z) majorises softmax(tau z)")


@states(_SOURCE, **_PAIR)
def concentration(generator: np.random.Generator, **case: Any) -> None:
    """As tau rises, an attention row's entropy falls, and its largest weight, L2 norm, Gini and
    Hoyer index rise.
    """
    blunt, sharp, slack, moved = _sharpened(**case)
    n = len(blunt)
    # The slope of each measure in the entries times how far they move: |dH| <= 4 H per unit of
    # logit, H <= log n.
    at_most(
        entropy(sharp),
        entropy(blunt),
        4 * math.log(n) * moved + 2 * slack * (1 + math.log(n)),
        "entropy",
    )
    at_most(blunt.max(), sharp.max(), slack, "largest weight")
    at_most(blunt.norm(), sharp.norm(), 2 * slack, "L2 norm")
    at_most(gini(blunt), gini(sharp), 2 * slack, "Gini index")
    at_most(hoyer(blunt), hoyer(sharp), 2 * slack * n / (math.sqrt(n) - 1), "Hoyer index")


@states(_SOURCE, logits=_LOGITS, log10_scale=_SCALE, product=Number(0.0, 30.0, 1.0))
def entropy_slope(
    generator: np.random.Generator, logits: tuple[float, ...], log10_scale: float, product: float
) -> None:
    """dH/dtau = -tau Var_p(z) for p = softmax(tau z), which is never positive."""
    scale, n = 10**log10_scale, len(logits)  # tau z is moderate, tau and z are not
    z = torch.tensor(logits, dtype=torch.float64) * scale
    tau = torch.tensor(product / scale, dtype=torch.float64, requires_grad=True)
    log_row = (tau * z).log_softmax(-1)
    (slope,) = torch.autograd.grad(-(log_row.exp() * log_row).sum(), tau)
    derivative = entropy_derivative(z, tau.detach())
    # n terms p (log p) z with |log p| <= 2 product + log n, of at most 32 roundings each.
    equal(derivative, slope, 32 * n * EPS * scale * (1 + 2 * product + math.log(n)) ** 2, "dH/dtau")
    at_most(derivative, 0.0, 0.0, "dH/dtau")


@states(_SOURCE, logits=_LOGITS, tau=Number(0.0, 100.0))
def temperature_limits(
    generator: np.random.Generator, logits: tuple[float, ...], tau: float
) -> None:
    """softmax(tau z) is uniform as tau -> 0 and uniform over the largest logits as tau -> infinity,
    at these rates: weights lie within a factor exp(tau (max z - min z)) of 1/n; the others hold at
    most (n/k - 1) exp(-tau gap).
    """
    z, n = torch.tensor(logits, dtype=torch.float64), len(logits)
    exact(((0.0 * z).softmax(-1) - 1 / n).abs().max() <= EPS, "the row at tau = 0 is uniform")
    row = (tau * z).softmax(-1)
    best = z == z.max()
    slack = EPS * (
        4 * n + 4 * tau
    )  # relative: tau z is off by EPS tau / 2 at most, and so are the bounds
    spread = tau * float(z.max() - z.min())
    at_most(row * n, math.exp(spread), slack * math.exp(spread), "n times a weight")
    at_most(
        math.exp(-spread),
        row * n,
        slack * float(row.max()) * n,
        "exp(-tau range) below n times a weight",
    )
    equal(row[best], row.max(), 0.0, "weights of the largest logits")
    if not best.all():
        rate = (n / int(best.sum()) - 1) * math.exp(-tau * float(z.max() - z[~best].max()))
        at_most(row[~best].sum(), rate, slack * rate, "mass off the largest logits")


def _schedules() -> dict[str, Layer]:
    """A layer of given scores for every mechanism that scales them by a tau(n) alone."""
    form = Form(1, given_scores=True, position=True, trained_length=4096)
    layers = {}
    for name, mechanism in MECHANISMS.items():
        try:
            layer = Layer(mechanism, form)
        except Misfit:
            continue
        worn = layer.mechanism
        alone = isinstance(worn.query, Selective) and worn.query.score is None
        if replace(worn, query=None).is_vanilla and (
            alone or worn.query is None or isinstance(worn.query, Schedule)
        ):
            layers[name] = layer
    return layers


_SCHEDULES = _schedules()


@states(
    "SSA paper; Scalable-Softmax (2501.19399), ASEntmax (2506.16640), YaRN (2309.00071); optimal "
    "bandwidths",
    name=Choice(tuple(_SCHEDULES)),
    n=Integer(1, 10**6),
    factor=Integer(2, 50),
    log_scale=Number(-2.0, 2.0, 0.0),
    score=Number(-3.0, 3.0, 0.0),
)
def schedules(
    generator: np.random.Generator, name: str, n: int, factor: int, log_scale: float, score: float
) -> None:
    """No position schedule lets tau fall as the context grows; all but the constant one and those
    that wait for the trained length raise it.
    """
    layer = _SCHEDULES[name]
    temperature = layer.mechanism.query
    start = layer.initial_parameters([generator])
    values = dict.fromkeys(start, score) | {k: log_scale for k in start if k.endswith("log_scale")}
    if isinstance(temperature, Power):  # of either sign; a growing one is the claim's
        values["query.gamma"] = math.exp(score) / 10
    parameters = {k: torch.full_like(start[k], value) for k, value in values.items()}
    count = torch.tensor([1, n, n * factor], dtype=torch.float64)[:, None]
    tau = layer.inverse_temperature("query", parameters, Inputs(count=count))
    one, short, long = tau.expand(3, 1)[:, 0].tolist()
    log_n = math.log(n * factor)
    at_most(short, long, 8 * EPS * abs(long) * (1 + log_n), "tau(n) below tau of a longer context")
    if temperature is not None and not isinstance(temperature, Extended):
        exact(long > short, f"tau rises, from {short} to {long}")
    at_one = math.exp(log_scale)
    if isinstance(temperature, LogPower):
        at_one = 0.0
    elif isinstance(temperature, ASEntmax):
        at_one = values["query.delta"]
    equal(one, at_one, 8 * EPS * (1 + abs(at_one)), "tau of a single key")
    if isinstance(temperature, Selective):
        least = math.exp(log_scale)
        slack = 8 * EPS * long
        at_most([least, long], [long, least * (1 + log_n)], slack, "c to c (1 + log n)")


PROPERTIES = collect(globals())
