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
# # Growing contexts: why a temperature should depend on the length
#
# A softmax over more keys spreads over more keys. A temperature that suits 100 keys is too soft for
# 10,000. This notebook shows the effect on single attention rows, where everything has a closed
# form (*dilution*), shows a limit that no schedule can pass (*freezing*), and then trains position
# schedules tau(n) on short contexts and tests them on long ones.

# %%
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import SVG

from analysis.claims.show import print_claims
from analysis.draw.figures import new_figure, style, svg
from analysis.experiments import EXPERIMENTS
from analysis.experiments.dilution import DilutionConfig
from analysis.problems.measures import effective_support
from analysis.run.runner import execute
from ssa_theory.theory import dilution as theory
from tasks import DilutionProbe

pd.options.display.float_format = "{:.3g}".format
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Dilution: one needle among equal distractors
# The needle's logit lies g above that of n - 1 equal distractors, so its odds are e^(tau g) / (n -
# 1), exactly. To keep it at probability p, tau has to grow like log n / g. A schedule's fate is the
# slope of the log-odds in log n, g dtau/dlog n - 1: negative, and the needle drowns; positive, and
# it wins in the end. The schedules are those of the literature, at their starting parameters and
# untrained (`power` with exponent 0.1); `vanilla` has a constant temperature.

# %%
gap = 4.0
config = DilutionConfig(lengths=tuple(int(n) for n in np.geomspace(10, 1e6, 21)), gap=gap)
lengths, names = np.array(config.lengths), config.mechanisms
tau = config.temperatures()
mass = theory.equal_needle_mass(lengths, tau, needles=1, gap=gap)
needed = theory.equal_critical_inverse_temperature(lengths, mass=0.5, needles=1, gap=gap)
log_odds = gap * tau - np.log(lengths - 1)
table = {
    "tau at n = 1e6": tau[:, -1],
    "needle's attention there": mass[:, -1],
    "slope of log-odds there": np.diff(log_odds)[:, -1] / np.diff(np.log(lengths))[-1],
}
print(pd.DataFrame(table, index=list(names)).to_string())
ends = [f"{needed[i]:.2f} at n = {lengths[i]:,}" for i in (0, -1)]
print(f"\nneeded to keep the needle at 1/2: tau = {ends[0]}, {ends[1]}")

figure = new_figure(10.0, 4.2)
left, right = figure.subplots(1, 2)
for name, taus, masses in zip(names, tau, mass, strict=True):
    left.plot(lengths, taus, label=name, markevery=4, markersize=5, **style(name))
    right.plot(lengths, masses, markevery=4, markersize=5, **style(name))
left.plot(lengths, needed, color="#bbbbbb", linewidth=4, zorder=0, label="needed for 1/2")
right.axhline(0.5, color="#bbbbbb", linewidth=4, zorder=0)
left.set(
    xscale="log",
    xlabel="number of keys n",
    ylabel="inverse temperature tau(n)",
    title="schedules, untrained",
)
right.set(
    xscale="log",
    yscale="log",
    xlabel="number of keys n",
    ylabel="attention on the needle",
    title=f"gap g = {gap:g} logits",
)
figure.legend(loc="outside lower center", ncols=4)
SVG(svg(figure))

# %% [markdown]
# ## Freezing: where more sharpening no longer helps
# Real distractors are not equal. Let their logits be Gaussian with standard deviation s. To leading
# order the largest of n lies at s sqrt(2 log n), and from tau_c = sqrt(2 log n) / s on, the few
# largest hold all of the distractors' weight. A needle above that level wins with growing tau. One
# below it gains at first and then loses to the largest distractor: no tau, and so no schedule,
# takes it past its maximum. Lines are exact expectations over the distractors, thin dotted lines
# the asymptotic random-energy model, points means of sampled rows.

# %%
count, deviation, rows = 10_000, 1.0, 64
critical = float(theory.gaussian_freezing(count - 1, deviation))
level = deviation**2 * critical
scaled = np.linspace(0, 3, 13)
figure = new_figure(10.0, 4.2)
left, right = figure.subplots(1, 2)
for gap, color, line, marker in (
    (level + 1.0, "#222222", "-", "o"),
    (level - 1.0, "#d55e00", "--", "s"),
):
    exact = [
        theory.expected_row("gaussian", deviation, count - 1, float(x * critical), 1, gap)
        for x in scaled
    ]
    model = theory.gaussian_needle_mass(count, scaled * critical, 1, gap, deviation)
    logits = torch.from_numpy(
        DilutionProbe("gaussian", 1, gap, deviation).sample(count, rows, np.random.default_rng(0))
    )
    sampled = torch.stack([(float(x * critical) * logits).softmax(-1)[:, 0] for x in scaled])
    expected, spread = np.array([(row.needle_mass, row.needle_mass_deviation) for row in exact]).T
    distance = np.abs(sampled.mean(1).numpy() - expected)[1:] / (spread[1:] / np.sqrt(rows))
    print(
        f"needle at {gap:.2f}, largest distractor near {level:.2f}: attention at most "
        f"{expected.max():.3f}, at tau / tau_c = {scaled[expected.argmax()]:g}; at the end "
        f"{expected[-1]:.3f}; sampled rows within {distance.max():.1f} standard errors"
    )
    left.plot(scaled, expected, color=color, linestyle=line, label=f"needle at {gap:.2f}")
    left.plot(scaled, model, color=color, linestyle=":", linewidth=0.9)
    left.plot(scaled, sampled.mean(1), color=color, marker=marker, linestyle="none", markersize=5)
alone = [
    theory.expected_row("gaussian", deviation, count, float(x * critical)).entropy for x in scaled
]
measured = [
    effective_support((float(x * critical) * logits[:, 1:]).softmax(-1)).log().mean()
    for x in scaled
]
right.plot(scaled, np.exp(alone), color="#222222", label="exact")
right.plot(
    scaled,
    np.exp(measured),
    color="#222222",
    marker="o",
    linestyle="none",
    markersize=5,
    label="sampled",
)
for ax in (left, right):
    ax.axvline(1, color="#bbbbbb", linewidth=1, zorder=0)
    ax.set_xlabel("tau / tau_c")
    ax.legend()
left.set(
    yscale="log",
    ylabel="attention on the needle",
    title=f"{count:,} keys, largest distractor near {level:.2f}",
)
right.set(
    yscale="log",
    ylabel="effective support, exp(mean entropy) (keys)",
    title="the distractors alone freeze",
)
SVG(svg(figure))

# %% [markdown]
# ## Train the schedules
# In kernel regression the keys are points on a sphere, the values are noisy readings of a random
# smooth function, and attention with logits tau q . k is a Nadaraya-Watson estimate with bandwidth
# 1/sqrt(tau). More keys allow a smaller bandwidth, so the best tau grows with n. The experiment
# `length` trains each schedule's few scalars on up to 64 keys and tests on up to 512. Exact Bayes
# is the posterior of the Gaussian process; the best constant tau of each length is the best that a
# schedule can do.

# %%
experiment = EXPERIMENTS["length"]
config = experiment.config(
    seeds=16,
    train_lengths=(4, 8, 16, 32, 64),
    test_lengths=(4, 8, 16, 32, 64, 128, 256, 512),
    contexts=32,
    steps=150,
    cooldown_steps=30,
)
result, claims, _ = execute(experiment, config, folder)
SVG(folder / "length" / "figure.svg")

# %% [markdown]
# ## Which one extrapolates?
# At the longest test length, eight times that of training. What each test says is computed over the
# 16 seeds, paired: a benefit, where the whole interval of the effect lies beyond a margin of 5 %.

# %%
longest = result.sel(length=max(config.test_lengths))
columns = {
    "error": longest["mse"].mean("seed").to_series(),
    "over the best tau's": (
        longest["mse"].mean("seed") / longest["oracle"].mean("seed")
    ).to_series(),
    "learned tau": longest["learned_inverse_temperature"].mean("seed").to_series(),
    "effective support": longest["effective_support"].mean("seed").to_series(),
}
print(pd.DataFrame(columns).sort_values("error").to_string())
best, error = float(longest["best_inverse_temperature"]), float(longest["oracle"].mean())
exact, uniform = (float(longest[name].mean()) for name in ("bayes", "naive"))
print(f"\nbest tau there {best:.3g} with error {error:.3g}")
print(f"exact Bayes {exact:.3g}; uniform attention {uniform:.3g}\n")
print_claims(claims, "What its tests say of the topics, and the checks")

# %% [markdown]
# ## How fast should tau grow?
# Bandwidth theory on the sphere of R^d (bias of order 1/tau, variance of order tau^((d-1)/2) / n)
# gives a best tau that grows as n^(2/(d+3)) in the limit of many keys: a power of n, faster than
# any schedule in log n. At the lengths at hand:

# %%
best = result["best_inverse_temperature"]
beyond = best.sel(length=best["length"] >= max(config.train_lengths))
slope = np.polyfit(np.log(beyond["length"]), np.log(beyond), 1)[0]
first, limit = int(beyond["length"][0]), 2 / (config.dim + 3)
print(f"best tau grows as n^{slope:.2f} from n = {first} on; the limit is n^{limit:.2f}")
for name in ("vanilla", "ssa-position", "ssmax", "asentmax-position", "power"):
    learned = result["learned_inverse_temperature"].sel(mechanism=name).mean("seed")
    learned = learned.sel(length=beyond["length"])
    rate = np.polyfit(np.log(beyond["length"]), np.log(learned), 1)[0]
    print(f"{name:17} grows as n^{rate:.2f} over the same lengths")
