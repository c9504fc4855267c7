# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Temperature and sparsity
#
# An attention row is `softmax(tau z)`: logits `z`, one for each of n keys, times an inverse
# temperature `tau`. This notebook shows what `tau` alone does to a row, which words describe it
# (*spiky* is not *sparse*), and what a row's sharpness costs when it has to come from the weight
# matrix instead. Nothing is trained; what can be checked against a closed form is.

# %%
import numpy as np
import pandas as pd
import torch
from IPython.display import SVG

from analysis.draw.figures import new_figure, style, svg
from analysis.problems.measures import effective_support, gini, hoyer, spikiness, zero_fraction
from ssa_theory import (
    SelfAttention,
    entropy,
    entropy_derivative,
    majorises,
    minimal_norm,
    norm_lower_bound,
)
from tasks import TwinTokenTask

pd.options.display.float_format = "{:.4g}".format
looks = (
    {"color": "#999999", "linestyle": ":"},
    {"color": "#56b4e9", "linestyle": "-."},
    {"color": "#d55e00", "linestyle": "--"},
    {"color": "#000000", "linestyle": "-"},
)

# %% [markdown]
# ## One row at many temperatures
# Twelve Gaussian logits. Entropy is in nats; its exponential, the *effective support*, is the
# number of keys that a uniform row of the same entropy would attend to. The SSA paper's *spikiness*
# 1 / (n times the sum of squares) is 1 for the uniform row and falls towards 1 / n, so smaller is
# spikier. Gini and Hoyer are 0 for the uniform row and rise towards 1. All measures put the rows in
# the same order. The next section says why they must.

# %%
logits = torch.from_numpy(np.random.default_rng(0).standard_normal(12))
taus = torch.tensor([0.0, 0.5, 1.0, 2.0, 4.0, 16.0], dtype=torch.float64)
rows = (taus[:, None] * logits).softmax(-1)
measures = {
    "entropy": entropy(rows),
    "effective support": effective_support(rows),
    "spikiness": spikiness(rows),
    "largest weight": rows.amax(-1),
    "Gini": gini(rows),
    "Hoyer": hoyer(rows),
    "share of exact zeros": zero_fraction(rows),
}
table = pd.DataFrame(measures, index=pd.Index(taus.numpy(), name="tau"))
table.clip(lower=0)  # rounding leaves -2e-16 at tau = 0

# %% [markdown]
# ## Majorisation: why every measure of concentration agrees
# A row *majorises* another if, for every k, its k largest weights sum to at least as much. The sum
# of the k largest weights against k is the row's Lorenz curve, so a row majorises another exactly
# where its curve is nowhere below. For tau' > tau >= 0 the row at tau' majorises the row at tau:
# the curves are nested and never cross. Entropy, spikiness, largest weight, Gini and Hoyer are
# all monotone under majorisation, so along a temperature they cannot disagree.
#
# Between rows of *different* logits they can. The curves of p and q below cross: p has the larger
# maximum, and also the larger entropy. Which of the two is "more concentrated" then depends on the
# measure.

# %%
grid = torch.linspace(0, 16, 81, dtype=torch.float64)
path = (grid[:, None] * logits).softmax(-1)
measured = majorises(path[:, None], path[None, :], tolerance=1e-12)
expected = grid[:, None] >= grid[None, :]
same = bool((measured == expected).all())
print(f"{len(grid)} temperatures: row i majorises row j exactly where tau_i >= tau_j: {same}")

p, q = torch.tensor([[0.60, 0.20, 0.20], [0.50, 0.45, 0.05]], dtype=torch.float64)
print(f"p majorises q: {bool(majorises(p, q))}, q majorises p: {bool(majorises(q, p))}")
print(f"largest weight: p {p.max():.2f}, q {q.max():.2f}")
print(f"entropy: p {entropy(p):.3f}, q {entropy(q):.3f} nats")

figure = new_figure(10.5, 3.9)
weights, lorenz, crossing = figure.subplots(1, 3)
rank = np.arange(1, len(logits) + 1)
for row, tau, look in zip(rows[[0, 2, 3, 4]], taus[[0, 2, 3, 4]], looks, strict=True):
    ordered = row.sort(descending=True).values
    weights.plot(rank, ordered, label=f"tau = {tau:g}", **look)
    lorenz.plot(np.append(0, rank), np.append(0, ordered.cumsum(0)), label=f"tau = {tau:g}", **look)
for name, row, look in (("p", p, looks[3]), ("q", q, looks[2])):
    sums = np.append(0, row.sort(descending=True).values.cumsum(0))
    crossing.plot(range(4), sums, marker="o", label=name, **look)
weights.set(
    yscale="log",
    xlabel="rank of the key",
    ylabel="attention weight (log axis)",
    title="one row: no weight is zero",
)
lorenz.set(
    xlabel="number k of keys",
    ylabel="sum of the k largest weights",
    title="its Lorenz curves: nested",
)
crossing.set(
    xlabel="number k of keys",
    ylabel="sum of the k largest weights",
    title="two rows that do not compare",
)
for ax in (weights, lorenz, crossing):
    ax.legend()
SVG(svg(figure))

# %% [markdown]
# ## How fast the entropy falls, and where it ends
# `dH/dtau = -tau Var(z)`, the variance taken under the row itself. It is zero at tau = 0, and fades
# as the row settles on its largest logits. The limits: uniform over all keys for tau -> 0, uniform
# over the *set* of largest logits for tau -> infinity. With two tied largest logits the entropy
# stops at log 2: no temperature separates ties.

# %%
tau = grid.clone().requires_grad_()
(gradient,) = torch.autograd.grad(entropy((tau[:, None] * logits).softmax(-1)).sum(), tau)
closed = entropy_derivative(logits.expand(len(grid), -1), grid)
apart = float((gradient - closed).abs().max())
print(f"dH/dtau: largest difference between closed form and automatic derivative {apart:.1e}")

tied = torch.tensor([2.0, 2.0, 1.0, 0.0], dtype=torch.float64)
uniform, argmax = torch.tensor([[0.25] * 4, [0.5, 0.5, 0.0, 0.0]], dtype=torch.float64)
for small, large in zip((1e-1, 1e-2, 1e-3), (5.0, 10.0, 20.0), strict=True):
    start, end = (small * tied).softmax(0), (large * tied).softmax(0)
    low, high = float((start - uniform).abs().sum()), float((end - argmax).abs().sum())
    print(
        f"tau = {small:<5g} L1 distance to uniform {low:.1e};   "
        f"tau = {large:<2g} L1 distance to uniform on the two largest {high:.1e}, "
        f"exp(H) = {float(effective_support(end)):.6f}"
    )

figure = new_figure(9.0, 3.6)
left, right = figure.subplots(1, 2)
row_logits = {"12 Gaussian logits": logits, "two tied largest of four": tied}
for (name, z), look in zip(row_logits.items(), (looks[3], looks[2]), strict=True):
    left.plot(grid, effective_support((grid[:, None] * z).softmax(-1)), label=name, **look)
    right.plot(grid, entropy_derivative(z.expand(len(grid), -1), grid), label=name, **look)
left.axhline(2, color="#bbbbbb", linewidth=0.8, zorder=0)
left.set(
    xlabel="inverse temperature tau",
    ylabel="effective support exp(H) (keys)",
    title="limits: n, and the number of ties",
)
right.set(
    xlabel="inverse temperature tau",
    ylabel="dH/dtau (nats per unit of tau)",
    title="the entropy never rises",
)
for ax in (left, right):
    ax.legend()
SVG(svg(figure))

# %% [markdown]
# ## Spiky is not sparse
# *Spiky* says that the weight is concentrated. *Sparse* says that weights are exactly zero. A
# softmax row is never sparse at any finite temperature: even the least logit keeps the weight
# exp(-tau (max z - min z)) times the largest. A mask makes a row sparse without making it spiky.
# (In floating point a weight below about 1e-323 rounds to zero; its logarithm is still there.)

# %%
visible = torch.arange(12) < 6
masked = torch.zeros(12, dtype=torch.float64).masked_fill(~visible, -torch.inf).softmax(-1)
examples = {
    "softmax, tau = 1": rows[2],
    "softmax, tau = 16": rows[5],
    "uniform on 6 unmasked keys": masked,
}
table = {
    name: [float(f(row)) for f in (effective_support, zero_fraction, torch.amin)]
    for name, row in examples.items()
}
print(
    pd.DataFrame(
        table, index=["effective support", "share of exact zeros", "least weight"]
    ).T.to_string(),
    "\n",
)
extreme = (1000 * logits).log_softmax(-1)
underflow = float(zero_fraction(extreme.exp()))
least = float(extreme.min())
print(
    f"tau = 1000: {underflow:.0%} of the weights round to zero; the least of their logarithms is "
    f"{least:.0f}"
)

# %% [markdown]
# ## Sharpness from the temperature, or from the norm
# With logits `e_i^T W e_j` a row can be sharpened by a larger `W` as well as by a larger `tau_i`.
# For one row, or for all rows alike, the two are the same thing: doubling every tau halves the W of
# least norm. They part where two tokens look alike and need *different* sharpness. Then W has to
# tell the two apart by their small difference, and its norm grows as the inverse of their angle; a
# temperature of each token's own needs no such W. `minimal_norm` solves for the W of least
# Frobenius norm in both cases, under the same cap on tau; `norm_lower_bound` is a bound on the
# spectral norm that no W can beat.

# %%
angles = np.geomspace(1e-3, 1, 7)
cap = 2.0
norms = {
    (theory, what): []
    for theory in ("vanilla", "selective")
    for what in ("minimal norm", "lower bound")
}
worst = 0.0
for angle in angles:
    task = TwinTokenTask.sample(
        pairs=4, dim=12, angle=float(angle), generator=np.random.default_rng(0)
    )
    for theory in ("vanilla", "selective"):
        best = minimal_norm(task.embeddings, task.target, cap, selective=theory == "selective")
        bound = norm_lower_bound(task.embeddings, task.target, best.inverse_temperature)
        norms[theory, "minimal norm"].append(best.spectral_norm)
        norms[theory, "lower bound"].append(bound)
        scores = task.embeddings @ best.weight @ task.embeddings.T
        realised = torch.from_numpy(best.inverse_temperature[:, None] * scores).softmax(-1).numpy()
        worst = max(worst, float(np.abs(realised - task.target).max()))
print(f"all realise the target: largest error of an attention weight over all angles {worst:.1e}")
for theory in ("vanilla", "selective"):
    norm = norms[theory, "minimal norm"]
    slope = np.polyfit(np.log(angles[:4]), np.log(norm[:4]), 1)[0]
    print(
        f"{theory:9}: norm at the smallest angle {norm[0]:8.1f}; scales as angle^{slope:+.2f} there"
    )
halved = [minimal_norm(task.embeddings, task.target, c).spectral_norm for c in (1.0, 2.0)]
factor = halved[0] / halved[1]
print(f"one temperature for all rows: norm at tau = 1 over norm at tau = 2 is {factor:.6f}")

figure = new_figure(6.5, 4.0)
ax = figure.subplots()
for theory, look in (("vanilla", style("vanilla")), ("selective", style("ssa"))):
    bound = look | {"linestyle": ":", "marker": ""}
    ax.plot(angles, norms[theory, "minimal norm"], label=f"least norm, {theory}", **look)
    ax.plot(
        angles, norms[theory, "lower bound"], label=f"lower bound at its tau, {theory}", **bound
    )
ax.set(
    xscale="log",
    yscale="log",
    xlabel="angle between twin tokens (radian)",
    ylabel="spectral norm of W",
    title=f"four pairs of twins, every tau <= {cap:g}",
)
ax.legend()
SVG(svg(figure))

# %% [markdown]
# ## The same in the layer
# `SelfAttention` is multi-head attention that wears a mechanism. With `ssa-feature` it scales each
# query by `tau = 1 + tanh f`, f a given scalar of its token, times a slope, plus an offset. Here
# one query is asked five times: one direction, five temperatures. The token term is bounded, so tau
# stays between 0 and 2 whatever f is: this layer can flatten a row at will, but at most double its
# logits.

# %%
layer = SelfAttention(8, mechanism="ssa-feature", causal=False).double()
vanilla = SelfAttention(8, mechanism="vanilla", causal=False).double()
with torch.no_grad():
    for attention in (layer, vanilla):
        for projection in (attention.query, attention.key):
            projection.weight.copy_(3 * torch.eye(8))
    layer.parts["query"]["slope"].fill_(1.0)
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 40, 8)))
    x[0, :5] = x[0, 0]
    feature = torch.zeros(1, 40, dtype=torch.float64)
    feature[0, :5] = torch.tensor([-4.0, -1.0, 0.0, 1.0, 4.0])
    tau = layer.inverse_temperature("query", x, feature)[0, 0]
    selective, plain = layer.attention(x, feature)[0, 0], vanilla.attention(x)[0, 0]
    by_hand = (tau[:, None] * plain.log()).softmax(-1)
queries = {
    "f": feature[0, :5],
    "tau": tau[:5],
    "effective support": effective_support(selective[:5]),
}
print(pd.DataFrame(queries).to_string(index=False), "\n")
print(f"rows equal softmax(tau z) to {float((selective - by_hand).abs().max()):.1e}")
there = sum(p.numel() for p in vanilla.parameters())
print(f"the temperature adds {layer.added_parameters()} parameters to {there}")
