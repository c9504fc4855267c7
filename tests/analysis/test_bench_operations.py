"""The operations that the benchmark counts: each part against loops that do it, which are right by
autograd; and the ceilings that follow.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from analysis.bench import operations as ops
from analysis.bench.ceilings import SIZES, ceilings, measure_rates
from analysis.bench.graph_workloads import DIM, NODES
from analysis.bench.losses import TORCH
from analysis.bench.operations import FUNCTION_OPERATIONS, Work, product
from analysis.bench.sample_workloads import QUERIES
from analysis.bench.workloads import WORKLOADS, workload

N, K, M = 3, 5, 4


@dataclass
class Counter:
    """What a part's loops did. A pass reads or writes an entry of an array once, however often."""

    operations: int = 0
    functions: int = 0
    moved: int = 0
    touched: set = field(default_factory=set)

    def end_pass(self) -> None:
        self.moved += len(self.touched)
        self.touched.clear()


COUNT = Counter()


class Number:
    """A float that counts what is done with it."""

    def __init__(self, value: float) -> None:
        self.value = value

    def _with(self, other, operation: Callable[[float, float], float]) -> "Number":
        COUNT.operations += 1
        return Number(operation(self.value, getattr(other, "value", other)))

    def __add__(self, other):
        return self._with(other, lambda a, b: a + b)

    def __sub__(self, other):
        return self._with(other, lambda a, b: a - b)

    def __mul__(self, other):
        return self._with(other, lambda a, b: a * b)

    def __truediv__(self, other):
        return self._with(other, lambda a, b: a / b)

    def max(self, other):
        return self._with(other, max)

    def root(self):
        return self._with(0.5, lambda a, b: a**b)


def function(f: Callable[[float], float], x: Number) -> Number:
    COUNT.functions += 1
    return Number(f(x.value))


ZERO, LEAST = Number(0.0), Number(-math.inf)


class Array:
    """An array in memory."""

    def __init__(self, values) -> None:
        self.values = np.array(values, dtype=float)

    def __getitem__(self, at):
        COUNT.touched.add(("read", id(self), at))
        return Number(float(self.values[at]))

    def __setitem__(self, at, number: Number) -> None:
        COUNT.touched.add(("written", id(self), at))
        self.values[at] = number.value


def empty(*shape: int) -> Array:
    return Array(np.zeros(shape))


def random(*shape: int) -> Array:
    return Array(np.random.default_rng(len(shape)).standard_normal(shape))


def leaf(array: Array) -> torch.Tensor:
    return torch.from_numpy(array.values.copy()).requires_grad_()


def same(array: Array, tensor) -> None:
    np.testing.assert_allclose(array.values, tensor.detach().numpy(), rtol=1e-12, atol=1e-12)


def loops_of_product(slopes: int) -> None:
    a, b, g = random(N, K), random(K, M), random(N, M)
    y, da, db = empty(N, M), empty(N, K), empty(K, M)

    def times(into, left, right, rows, inner, columns):
        for i in range(rows):
            for j in range(columns):
                total = ZERO
                for k in range(inner):
                    total = total + left(i, k) * right(k, j)
                into[i, j] = total
        COUNT.end_pass()

    times(y, lambda i, k: a[i, k], lambda k, j: b[k, j], N, K, M)
    if slopes > 0:
        times(da, lambda i, j: g[i, j], lambda j, k: b[k, j], N, M, K)
    if slopes > 1:
        times(db, lambda k, i: a[i, k], lambda i, j: g[i, j], K, N, M)
    p, q = leaf(a), leaf(b)
    made = p @ q
    made.backward(torch.from_numpy(g.values))
    same(y, made)
    for slope, exact in [(da, p.grad), (db, q.grad)][:slopes]:
        same(slope, exact)


def _exponentials(z: Array, row: int, n: int) -> tuple[list[Number], list[Number], Number]:
    """Differences to the maximum, their exponentials, and the sum of those."""
    numbers = [z[row, j] for j in range(n)]
    most = LEAST
    for x in numbers:
        most = most.max(x)
    shifted = [x - most for x in numbers]
    made = [function(math.exp, d) for d in shifted]
    total = ZERO
    for e in made:
        total = total + e
    return shifted, made, total


def loops_of_row_loss() -> None:
    z, w, slope, loss = random(N, K), random(N), empty(N, K), ZERO
    t = Array(np.random.default_rng(0).dirichlet(np.ones(K), N))
    for i in range(N):
        shifted, made, partition = _exponentials(z, i, K)
        log_partition, inner, weight = function(math.log, partition), ZERO, w[i]
        for j in range(K):
            inner = inner + t[i, j] * (shifted[j] - log_partition)
        loss = loss - weight * inner
        inverse = Number(1.0) / partition
        for j in range(K):
            slope[i, j] = (made[j] * inverse - t[i, j]) * weight
    COUNT.end_pass()
    p = leaf(z)
    target, weights = torch.from_numpy(t.values), torch.from_numpy(w.values)
    exact = -(weights * (target * p.log_softmax(1)).sum(1)).sum()
    exact.backward()
    assert loss.value == pytest.approx(exact.item())
    same(slope, p.grad)


def loops_of_choice_loss() -> None:
    z, chosen, slope, loss = random(N, K), Array([1, 4, 0]), empty(N, K), ZERO
    for i in range(N):
        shifted, made, partition = _exponentials(z, i, K)
        at = int(chosen[i].value)
        loss = loss + (shifted[at] - function(math.log, partition))
        inverse = Number(1.0) / partition * (1 / N)
        for j in range(K):
            own = made[j] * inverse
            slope[i, j] = own - 1 / N if j == at else own
    COUNT.end_pass()
    p = leaf(z)
    exact = torch.nn.functional.cross_entropy(p, torch.from_numpy(chosen.values).long())
    exact.backward()
    assert -loss.value / N == pytest.approx(exact.item())
    same(slope, p.grad)


def loops_of_softmax() -> None:
    z, g, p, slope = random(N, K), random(N, K, 1), empty(N, K), empty(N, K)
    g = Array(g.values[..., 0])
    for i in range(N):
        _, made, partition = _exponentials(z, i, K)
        inverse = Number(1.0) / partition
        for j in range(K):
            p[i, j] = made[j] * inverse
    COUNT.end_pass()
    for i in range(N):
        mean = ZERO
        for j in range(K):
            mean = mean + g[i, j] * p[i, j]
        for j in range(K):
            slope[i, j] = (g[i, j] - mean) * p[i, j]
    COUNT.end_pass()
    x = leaf(z)
    x.softmax(1).backward(torch.from_numpy(g.values))
    same(p, x.softmax(1))
    same(slope, x.grad)


def loops_of_gelu() -> None:
    x, g, y, kept, slope = random(N), random(N, 1), empty(N), empty(N), empty(N)
    g = Array(g.values[:, 0])
    for i in range(N):
        phi = (function(math.erf, x[i] * math.sqrt(0.5)) + 1.0) * 0.5
        kept[i], y[i] = phi, x[i] * phi
    COUNT.end_pass()
    for i in range(N):
        density = function(math.exp, x[i] * x[i] * -0.5) * (1 / math.sqrt(2 * math.pi))
        slope[i] = (x[i] * density + kept[i]) * g[i]
    COUNT.end_pass()
    p = leaf(x)
    torch.nn.functional.gelu(p).backward(torch.from_numpy(g.values))
    same(y, torch.nn.functional.gelu(p))
    same(slope, p.grad)


def loops_of_link() -> None:
    f, g, tau, kept, slope = random(N), random(N, 1), empty(N), empty(N), empty(N)
    g = Array(g.values[:, 0])
    for i in range(N):
        kept[i] = made = function(math.tanh, f[i])
        tau[i] = made + 1.0
    COUNT.end_pass()
    for i in range(N):
        slope[i] = (Number(1.0) - kept[i] * kept[i]) * g[i]
    COUNT.end_pass()
    p = leaf(f)
    (1 + p.tanh()).backward(torch.from_numpy(g.values))
    same(tau, 1 + p.tanh())
    same(slope, p.grad)


def loops_of_scale(slopes: int) -> None:
    x, a, g = random(N, K), random(N), random(N, K, 1)
    g = Array(g.values[..., 0])
    y, da, dx = empty(N, K), empty(N), empty(N, K)
    for i in range(N):
        for j in range(K):
            y[i, j] = x[i, j] * a[i]
    COUNT.end_pass()
    for i in range(N):
        total = ZERO
        for j in range(K):
            total = total + g[i, j] * x[i, j]
        da[i] = total
    COUNT.end_pass()
    if slopes > 1:
        for i in range(N):
            for j in range(K):
                dx[i, j] = g[i, j] * a[i]
        COUNT.end_pass()
    p, q = leaf(x), leaf(a)
    made = p * q[:, None]
    made.backward(torch.from_numpy(g.values))
    same(y, made)
    for slope, exact in [(da, q.grad), (dx, p.grad)][:slopes]:
        same(slope, exact)


def loops_of_shift() -> None:
    x, b, g, slope = random(N, K), random(K), random(N, K, 1), empty(K)
    before, g = leaf(x), Array(g.values[..., 0])
    for i in range(N):
        for j in range(K):
            x[i, j] = x[i, j] + b[j]
    COUNT.end_pass()
    for j in range(K):
        total = ZERO
        for i in range(N):
            total = total + g[i, j]
        slope[j] = total
    COUNT.end_pass()
    q = leaf(b)
    made = before + q
    made.backward(torch.from_numpy(g.values))
    same(x, made)
    same(slope, q.grad)


def loops_of_added() -> None:
    x, y = random(N), random(N, 1)
    y = Array(y.values[:, 0])
    exact = torch.from_numpy(x.values + y.values)
    for i in range(N):
        x[i] = x[i] + y[i]
    COUNT.end_pass()
    same(x, exact)


def loops_of_taken() -> None:
    x, at, g = random(N, K), Array([2, 0, 1, 2]), random(M, K)
    y, slope = empty(M, K), empty(N, K)
    for i in range(M):
        for j in range(K):
            y[i, j] = x[int(at[i].value), j]
    COUNT.end_pass()
    held = [[ZERO] * K for _ in range(N)]
    for i in range(M):
        row = int(at[i].value)
        for j in range(K):
            held[row][j] = held[row][j] + g[i, j]
    for i in range(N):
        for j in range(K):
            slope[i, j] = held[i][j]
    COUNT.end_pass()
    p = leaf(x)
    made = p[torch.from_numpy(at.values).long()]
    made.backward(torch.from_numpy(g.values))
    same(y, made)
    same(slope, p.grad)


def loops_of_squared_error() -> None:
    y, t, slope, loss = random(N), random(N, 1), empty(N), ZERO
    t = Array(t.values[:, 0])
    for i in range(N):
        error = y[i] - t[i]
        loss = loss + error * error
        slope[i] = error * (2 / N)
    COUNT.end_pass()
    p = leaf(y)
    exact = (p - torch.from_numpy(t.values)).square().mean()
    exact.backward()
    assert loss.value / N == pytest.approx(exact.item())
    same(slope, p.grad)


def loops_of_adam() -> None:
    p, g, m, v = random(N), random(N, 1), empty(N), empty(N)
    g = Array(g.values[:, 0])
    exact = leaf(p)
    exact.grad = torch.from_numpy(g.values.copy())
    torch.optim.Adam([exact], lr=0.1).step()
    rate, root = 0.1 / (1 - 0.9), (1 - 0.999) ** -0.5
    for i in range(N):
        slope = g[i]
        mean = m[i] * 0.9 + slope * (1 - 0.9)
        square = v[i] * 0.999 + slope * slope * (1 - 0.999)
        p[i] = p[i] - mean / (square.root() * root + 1e-8) * rate
        m[i], v[i] = mean, square
    COUNT.end_pass()
    same(p, exact)


PARTS = {
    "product of data": (lambda: loops_of_product(0), product(N, K, M, 0)),
    "product with one slope": (lambda: loops_of_product(1), product(N, K, M, 1)),
    "product with both": (lambda: loops_of_product(2), product(N, K, M, 2)),
    "row loss": (loops_of_row_loss, ops.row_loss(N, K)),
    "choice loss": (loops_of_choice_loss, ops.choice_loss(N, K)),
    "softmax": (loops_of_softmax, ops.softmax(N, K)),
    "gelu": (loops_of_gelu, ops.gelu(N)),
    "link": (loops_of_link, ops.link(N)),
    "scale of data": (lambda: loops_of_scale(1), ops.scale(N, K, 1)),
    "scale": (lambda: loops_of_scale(2), ops.scale(N, K, 2)),
    "shift": (loops_of_shift, ops.shift(N, K)),
    "added": (loops_of_added, ops.added(N)),
    "taken": (loops_of_taken, ops.taken(M, K, N)),
    "squared error": (loops_of_squared_error, ops.squared_error(N)),
    "adam": (loops_of_adam, ops.adam(N)),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_costs_what_its_loops_do(name, monkeypatch):
    counter = Counter()
    monkeypatch.setattr(f"{__name__}.COUNT", counter)
    loops, work = PARTS[name]
    loops()
    assert Work(counter.operations, counter.functions, counter.moved) == work


def test_every_part_has_loops():
    parts = {n for n, f in vars(ops).items() if callable(f) and f is not Work and n.islower()}
    assert {name for name in parts if getattr(ops, name).__module__ == ops.__name__} == {
        name.removeprefix("loops_of_") for name in globals() if name.startswith("loops_of_")
    }


PRODUCTS = {
    "graph": product(NODES, DIM, DIM, 1) + product(NODES, DIM, NODES, 1),
    "graph-classifier": product(NODES, DIM, DIM, 1)
    + product(NODES, DIM, NODES, 1)
    + product(NODES, NODES, DIM, 1)
    + product(NODES, DIM, DIM, 2)
    + product(NODES, DIM, NODES, 2),
    "retrieval": product(QUERIES, 9, 8, 1) + QUERIES * product(32, 8, 1, 1),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_those_that_pytorch_counts(name):
    work = workload(name)
    start = work.make([0], torch.device("cpu"), torch.float32, 1)
    own = {k: v[..., 0].requires_grad_() for k, v in start.parameters.items()}
    data = start.shared | {k: v[..., 0] for k, v in (start.own | start.batches[0]).items()}
    with FlopCounterMode(display=False) as counted:
        work.loss(TORCH, own, data).backward()
    assert counted.get_total_flops() == PRODUCTS[name].operations < work.work.operations


COUNTS = {
    "graph": (2344, 72, 728),
    "graph-ssa": (3100, 144, 1472),
    "graph-classifier": (7572, 208, 3008),
    "prompt": (8324, 648, 5688),
    "denoise": (595490, 21760, 213258),
    "retrieval": (48546, 1088, 24826),
    "kernel-regression": (121946, 8064, 105818),
}
"""Fixed, so that no trainer is measured by another count than those before it."""


def test_the_counts_are_these():
    work = {name: workload(name).work for name in WORKLOADS}
    assert {n: (w.operations, w.functions, w.moved) for n, w in work.items()} == COUNTS


def test_what_binds_is_what_takes_longest():
    cache, _, memory = SIZES
    rates = {
        "operations_per_second": 1e9,
        "bytes_per_second": {str(n): 1e9 * s for n, s in zip(SIZES, (10, 5, 1), strict=True)},
    }
    work = Work(100, 5, 10)
    found = ceilings(work, 4, 0, cache, rates)
    operations = 100 + 5 * FUNCTION_OPERATIONS
    assert found["fixed"] == {"models_steps_per_second": 1e9 / operations, "binds": "compute"}
    moving = ceilings(Work(1, 0, 1000), 4, 0, cache, rates)
    assert moving["fixed"] == {"models_steps_per_second": 1e10 / 4000, "binds": "cache"}
    for pool, rate in ((cache, 1e10), (cache + 1, 5e9), (memory, 1e9), (2 * memory, 1e9)):
        fresh = ceilings(work, 4, 8000, pool, rates)
        assert fresh["fixed"]["binds"] == "compute"
        assert fresh["fresh"]["binds"] == "memory"
        assert fresh["fresh"]["models_steps_per_second"] == pytest.approx(rate / 8000)


def test_the_machine_has_rates():
    found = measure_rates(torch.device("cpu"), 0.02)
    assert found["operations_per_second"] > 1e8
    bandwidth = found["bytes_per_second"]
    assert list(bandwidth) == [str(size) for size in SIZES]
    assert all(1e8 < rate < 1e13 for rate in bandwidth.values())
