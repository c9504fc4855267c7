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
# # The paper, statement by statement
#
# Where do the statements of the SSA paper ([arXiv 2411.12892](https://arxiv.org/abs/2411.12892))
# hold, and where do they fail? Statements are in our words. Every number is computed here, most of
# them exactly, and a statement that fails is met by the smallest case against it. What counts as
# the inverse temperature of the paper's SSA is `tau = tanh(f(x)) + 1 + sigmoid(alpha) log n`, which
# is always positive.

# %%
import math
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import SVG
from matplotlib.figure import Figure
from scipy.special import expit, logit

from analysis.draw.figures import label_log, letter, new_figure, style
from analysis.problems import compare
from analysis.problems.heads import ClassifierHead, RowHead, TiedHead
from analysis.problems.small_graphs import SmallGraphProblem
from ssa_theory.theory.paper import (
    FAMILIES,
    POSITIVE,
    SIGNED,
    VANILLA,
    Imbalance,
    SparseScores,
    TwoTokens,
    always_consistent,
    best_schedule,
    consistent_by_search,
    count_limits,
    dilution_norm,
    first_contradiction,
    largest_weight_bound,
    least_loss,
    long_loss_bound,
    reachable_ratios,
    specificity_bound,
    specificity_norm,
    statements,
)
from tasks import (
    BasisDenoisingTask,
    GraphFacts,
    ImbalanceTask,
    PowerImbalance,
    TwoTokenSequences,
    connected_graphs,
    neighbour_law,
    tracking_sequence,
)

pd.options.display.float_format = "{:.4g}".format
pd.options.display.max_colwidth = None
folder = Path(tempfile.mkdtemp())


def show(figure: Figure, name: str) -> SVG:
    for place, axes in enumerate(figure.axes if len(figure.axes) > 1 else ()):
        letter(axes, place)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    return SVG(folder / f"{name}.svg")


# %% [markdown]
# ## All at once
# `statements()` tries each on its cases and says *holds*, *holds as corrected*, *fails*, or
# *vacuous*: true, but of nothing. The sections below take them one by one.

# %%
every = {s.name: s for s in statements()}
rows = [
    (s.status, s.cases, ", ".join(f"{k} = {v:.4g}" for k, v in (s.counter_example or {}).items()))
    for s in every.values()
]
columns = ["status", "cases", "smallest case against it as printed"]
pd.DataFrame(rows, index=list(every), columns=columns)

# %% [markdown]
# ## Lemma 1: telling a sharp query from a blunt one costs norm
# How specific a query q can be is ||W^T q||. One W for a sharp query a, at least L_a, and a blunt
# one b, at most L_b, needs ||W|| >= (L_a - L_b) / ||a - b||: the more alike they are, the more. A
# query temperature needs W = L_a I and so the norm L_a, whatever the angle.

# %%
table = [
    {
        "a.b": rho,
        "bound": specificity_bound(1.0, 0.0, math.sqrt(2 - 2 * rho)),
        "least norm, vanilla": specificity_norm(1.0, 0.0, rho),
        "with a query temperature": 1.0,
    }
    for rho in (0.0, 0.5, 0.9, 0.99, 0.9999)
]
print(pd.DataFrame(table).to_string(index=False))
lemma = every["lemma-1"]
print(f"\n{lemma.status}: no case among {lemma.cases} below the bound. {lemma.truth}")

# %% [markdown]
# ## Proposition 1: one sharp row, one blunt row
# Two unit tokens with e1.e2 = rho, and the transitions [[1 - gamma, gamma], [0, 1]] to be met
# within eps. What counts is the effective norm, the largest |tau| times ||W||.
#
# **The lower bound for vanilla holds. The norm printed as enough for SSA is not always enough.**
# The simplest case against it has orthogonal tokens. The exact minimum is attained by a W that we
# can look at, and a general solver, which knows nothing of the formula, finds no smaller one.

# %%
bound = every["prop-1-lower-bound"]
print(f"lower bound, {bound.status}: {bound.truth}")
example = every["prop-1-converse"].counter_example or {}
case = TwoTokens(example["gamma"], example["eps"], example["rho"])
best = case.least(SIGNED)
logits = best.inverse_temperature[:, None] * (case.embeddings @ best.weight @ case.embeddings.T)
attention = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
wanted = np.array([[1 - case.gamma, case.gamma], [0, 1]])
print(f"\nSSA's norm, gamma = {case.gamma:g}, eps = {case.eps:g}, rho = {case.rho:g}:")
print(f"  printed as enough    {case.converse_bound:.4f}")
print(f"  exact minimum        {best.norm:.4f}   by the solver {case.solved_norm(SIGNED):.4f}")
print(
    f"  W attains it: rows {attention.round(4).tolist()}, off by {abs(attention - wanted).max():g}"
)
print(f"\n{every['prop-1-converse'].truth}")

# %% [markdown]
# **Is the cost of similar tokens gone with a query temperature?** The vanilla norm grows like 1 /
# (1 - rho), once for ||e1 - e2|| and once for the angle. A temperature is said to remove the
# second. With a temperature of either sign it does. With a positive one it does only if both rows
# prefer the same token: gamma above 1/2, within eps. Else the two queries, however alike, must
# prefer different tokens, and no positive factor turns a preference round.

# %%
apart = np.geomspace(1, 1e-6, 49)
figure = new_figure(9.0, 3.6)
kinds = (
    ("vanilla", VANILLA, "-", "#222222", 4),
    ("tau > 0, as in SSA", POSITIVE, "--", "#0072b2", 2),
    ("tau of any sign", SIGNED, ":", "#d55e00", 2),
)
for axes, gamma in zip(figure.subplots(1, 2, sharey=True), (0.3, 0.9), strict=True):
    maps = [TwoTokens(gamma, 0.01, 1 - x) for x in apart]
    for label, temperatures, line, color, width in kinds:
        norms = [m.least(temperatures).norm * m.distance for m in maps]
        axes.plot(apart, norms, line, color=color, linewidth=width, label=label)
        growth = norms[-1] / norms[0]
        print(f"gamma = {gamma:g}, {label:20} grows {growth:8.4g}-fold to 1 - rho = {apart[-1]:g}")
    axes.set(xscale="log", yscale="log", xlabel="1 - rho", title=f"gamma = {gamma:g}, eps = 0.01")
    label_log(axes.yaxis)
    axes.invert_xaxis()
figure.axes[0].set_ylabel("least norm times ||e1 - e2||")
figure.axes[0].legend()
corrected = every["prop-1-free-of-rho"]
print(f"\n{corrected.status}: {corrected.truth}")
show(figure, "prop1")

# %% [markdown]
# ## Dilution: no weight survives a long context at a bounded norm
# Among L unit keys no weight exceeds 1 / (1 + (L - 1) e^(-2 ||W||)). **It holds, and cannot be
# improved:** one key u against L - 1 keys -u attains it. Hence a weight of one half needs ||W|| of
# about log(L) / 2, and a bounded W needs a temperature that grows with the length.

# %%
norm, table = 2.0, []
for length in (10, 100, 1000, 10_000):
    keys = np.append(1.0, -np.ones(length - 1))  # u and -u, as multiples of the query u
    attained = np.exp(norm) / np.exp(norm * keys).sum()
    table.append(
        {
            "L": length,
            f"bound, ||W|| = {norm:g}": largest_weight_bound(length, norm),
            "attained": attained,
            "||W|| for a weight of 1/2": dilution_norm(length, 0.5),
            "log(L) / 2": math.log(length) / 2,
        }
    )
print(pd.DataFrame(table).to_string(index=False))

# %% [markdown]
# ## Proposition 2: a schedule that undoes a growing imbalance
# Tokens a and b occur n_a and n_b times, kappa_n = n_b / n_a grows, and the target stays alpha a +
# (1 - alpha) b. **The schedule tau_n = log kappa_n + log(alpha / (1 - alpha)) has no loss.** It
# knows the counts, though. Schedules of the length alone are left with the losses below, each the
# least over all W and all parameters of its family.

# %%
task, sequence = ImbalanceTask(share=0.5, cosine=0.0), tracking_sequence(PowerImbalance(0.5), 256)
kappa, seen = sequence.kappa[0], sequence.both_seen[0]
weight = task.attention(task.zero_loss_logit(kappa[seen]), kappa[seen])
print(f"kappa_n near sqrt(n), {seen.sum()} positions with both tokens")
print(f"largest error of the schedule: {task.error(weight).max():.2g}")
problem = Imbalance.of_tokens(sequence.tokens[0] == 0)
fits = {name: best_schedule(problem, family) for name, family in FAMILIES.items()}
table = {"least loss": [f.loss for f in fits.values()]}
print(pd.DataFrame(table, index=list(fits)).sort_values("least loss").to_string())

# %% [markdown]
# **The schedule changes sign where kappa_n passes (1 - alpha) / alpha, and SSA's tau cannot.** The
# shortest sequences that no tau >= 0 can serve, whatever its schedule and W: two queries with the
# same token, of which one needs a positive and the other a negative tau_n m.


# %%
def least_positive(is_a: np.ndarray) -> float:
    """The least loss over all tau_n >= 0 and both margins, for orthogonal tokens, alpha = 1/2.

    tau_n and a margin of the right sign undo kappa_n exactly; of the wrong sign, tau_n = 0 is best.
    """
    own, total = Imbalance.of_tokens(is_a), 0.0
    needed = own.log_odds
    cost = (expit(-needed) - 0.5) ** 2 * own.distance_squared / len(is_a)
    for query in (own.query_a, ~own.query_a):
        total += min(cost[query & (needed > 0)].sum(), cost[query & (needed < 0)].sum())
    return float(total)


losses: dict[tuple[str, ...], float] = {}
for length in range(2, 6):
    losses = {s: least_positive(np.array(s) == "a") for s in product("ab", repeat=length)}
    served = sum(v == 0 for v in losses.values())
    print(f"length {length}: {served} of {len(losses)} sequences can be served by tau >= 0")
for tokens in (s for s, v in losses.items() if v > 0):
    own = TwoTokenSequences(np.array([[int(t == "b") for t in tokens]]))
    ratios = ", ".join(f"{k:.3g}" for k in own.kappa[0])
    print(f"  {''.join(tokens)}: kappa_n = {ratios}; least loss {losses[tokens]:.4g}")

# %% [markdown]
# ## Its converse: one temperature is not enough
# Printed: with kappa_n in [1, 2] for n in [L/4, L/2] and kappa_n >= 4 from 3L/4 on, and one
# temperature, every W has a loss above 1/500. **No long sequence is like that:** n_a cannot fall.

# %%
beyond = int(first_contradiction())
at_half, late = count_limits(beyond)
valid = [n for n in range(1, 101) if consistent_by_search(n)]
print(f"lengths up to 100 with such a sequence, by following every count: {valid}")
print(f"length {beyond}: at least {at_half} a by L/2, at most {late} a at 3L/4")
print(f"kappa = 2 at L/2 becomes at most {reachable_ratios(2.0)[1]:g} at 3L/4, for any long L")

# %% [markdown]
# With a late ratio that sequences can have it becomes a statement about something, and is true for
# orthogonal tokens. The least loss is in proportion to ||a - b||^2, so for similar tokens it fails.
# The sequence drawn is the best of all, certified by branch and bound.

# %%
late_ratio, length, printed = 3, 16, 1 / 500
floor = least_loss(length, late_ratio)
print(f"late ratio {late_ratio}, L = {length}:")
print(f"  least loss, orthogonal tokens: in [{2 * floor.lower:.4f}, {2 * floor.upper:.4f}]")
print(f"  {printed:g} is reached at ||a - b||^2 = {printed / floor.upper:.3f}, a.b = ", end="")
print(f"{1 - printed / floor.upper / 2:.3f}")
never = [n for n in range(1, 81) if not consistent_by_search(n, late_ratio)]
print(f"lengths without such a sequence: {never}, none from {always_consistent(late_ratio):g} on")
long = 2 * long_loss_bound(81, late_ratio)
print(f"loss of every sequence of more than 80 orthogonal tokens, by an inequality: > {long:.5f}")

figure = new_figure(11.0, 3.5)
first, second, third = figure.subplots(1, 3)
half = np.linspace(0, 4, 81)
low, high = np.transpose([reachable_ratios(r) for r in half])
first.fill_between(half, low, high, color="#0072b2", alpha=0.2, linewidth=0, label="possible")
for late, color in ((4, "#d55e00"), (late_ratio, "#009e73")):
    first.plot(
        [1, 1, 2, 2], [6, late, late, 6], color=color, label=f"assumed, late kappa >= {late}"
    )
first.set(xlabel="kappa at L/2", ylabel="kappa at 3L/4", ylim=(0, 9), title="can kappa do that?")
first.legend()
distance = np.linspace(0, 4, 50)
second.plot(distance, floor.upper * distance, color="#009e73", label="least loss")
second.fill_between(
    distance, floor.lower * distance, floor.upper * distance, color="#009e73", alpha=0.4
)
second.axhline(printed, color="#d55e00", linestyle="--", label="printed bound")
second.axvline(2, color="#8c8c8c", linewidth=1, label="a orthogonal to b")
second.set(xlabel="||a - b||^2", ylabel="loss", title=f"late kappa >= {late_ratio}, L = {length}")
second.legend()
own = Imbalance.of_tokens(floor.is_a)
margin = np.where(own.query_a, *floor.margins)
n, share = own.count[own.balanced], expit(margin - own.log_odds)[own.balanced]
third.axhline(0.5, color="#8c8c8c", linewidth=1)
for query, marker, color in ((True, "o", "#0072b2"), (False, "s", "#d55e00")):
    of = own.query_a[own.balanced] == query
    third.plot(n[of], share[of], marker, color=color, label=f"query {'a' if query else 'b'}")
word = "".join("a" if x else "b" for x in floor.is_a)
third.set(xlabel="position n", ylabel="attention on all a", ylim=(0, 1), title=word)
third.legend()
show(figure, "converse")

# %% [markdown]
# ## Lemma 2: a temperature acts like keeping a share of the scores
# Of n scores the share s = n^-p is c + gamma, the rest c. With tau = 1 + alpha log n the largest
# weight is that of tau = 1 over the largest scores alone. **Which share of them has a misprint:**
# the factor 1 - s multiplies, where the paper divides by it. Printed, the share can exceed one;
# root finding agrees with the corrected one.

# %%
against = every["lemma-2"].counter_example or {}
cases = [SparseScores(int(against["length"]), against["slope"], against["gap"], against["power"])]
cases += [SparseScores(n, 0.5, 1.0, 0.7) for n in (10, 1000, 100_000)]
table = [
    {
        "n": c.length,
        "alpha": c.slope,
        "gamma": c.gap,
        "p": c.power,
        "printed": c.printed_share,
        "corrected": c.kept_share,
        "by root finding": c.solved_share,
    }
    for c in cases
]
print(pd.DataFrame(table).to_string(index=False))

# %% [markdown]
# ## Suppression: a value temperature that vanishes
# A token term near -1 is said to remove a token from the output. **It does only without the
# position term:** sigmoid(alpha) log n stays, and grows.

# %%
lengths = np.array([1, 2, 10, 100, 1000])
limit = math.tanh(-20.0) + 1  # f far below zero
table = {f"alpha = {a:g}": limit + expit(a) * np.log(lengths) for a in (0.0, -2.0, -6.0)}
print("least tau by length")
print(pd.DataFrame(table, index=pd.Index(lengths, name="n")).to_string())
small = 0.05
print(
    f"\ntau < {small:g} at n = {lengths[-1]} needs alpha < {logit(small / np.log(lengths[-1])):.3g}"
)

# %% [markdown]
# ## Denoising: what is the best possible?
# One of K directions is to be told from L noisy tokens, of which the last and perhaps others carry
# it. The paper's optimal estimator averages the tokens that do. **It is not optimal,** although it
# sees what no estimator can: it does not use that the answer is one of K vectors. The smallest case
# has two directions and one token, so that there is nothing to choose.

# %%
smallest = BasisDenoisingTask(dim=2, length=1, noise=0.5)
tokens, relevant = np.array([[[1.0, 0.5]]]), np.array([[True]])
posterior = smallest.posterior(tokens)[0]
acts = {
    "oracle mean": smallest.oracle_mean(tokens, relevant),
    "Bayes act": smallest.bayes_act(tokens),
}
print(
    f"one token {tokens[0, 0].tolist()}, noise {smallest.noise:g}: posterior {posterior.round(4)}"
)
for name, act in acts.items():
    print(f"  {name:12} {act[0].round(3)}, error {smallest.expected_error(tokens, act)[0]:.4f}")

noises, records = np.geomspace(0.05, 1.5, 9), []
for noise in noises:
    risks = BasisDenoisingTask(noise=noise).risks(20_000, np.random.default_rng(0))
    records.append({name: r.value for name, r in risks.items()})
risk = pd.DataFrame(records, index=pd.Index(noises, name="noise"))
print("\nrisks at K = 8, L = 8")
print(risk[["naive", "threshold", "oracle", "bayes"]].to_string())
print(
    f"\nBayes is below the oracle mean at {(risk.bayes < risk.oracle).sum()} of {len(risk)} noises"
)

figure = new_figure(5.5, 3.6)
axes = figure.subplots()
for name, color in (
    ("naive", "#8c8c8c"),
    ("threshold", "#d55e00"),
    ("oracle", "#0072b2"),
    ("bayes", "#222222"),
):
    axes.plot(risk.index, risk[name], "o-", color=color, ms=4, label=name)
axes.set(
    xscale="log",
    yscale="log",
    ylim=(1e-3, 2),
    xlabel="noise sigma",
    ylabel="risk E ||y - u||^2",
    title="K = 8, L = 8; Bayes runs on to zero",
)
label_log(axes.xaxis, axes.yaxis)
axes.legend()
show(figure, "denoise")

# %% [markdown]
# ## Graphs: is the attention map the transition matrix?
# The paper trains on one graph of 8 nodes, the next token uniform over the last one and its
# neighbours, and reads the attention map. **With a free classifier and value map the loss does not
# fix the map:** any invertible M predicts the rows P*, by logits M (M^-1 log P*). The smallest
# graphs with different rows have three nodes. The path is one, and its zeros are met within delta.

# %%
path = neighbour_law(connected_graphs(3)[0])
delta = 1e-6
log_law = np.log(np.maximum(path, delta))
for name, chosen in (
    ("the identity", np.eye(3)),
    ("a cyclic shift", np.roll(np.eye(3), 1, axis=0)),
    ("nearly uniform", 0.1 * np.eye(3) + 0.3),
):
    scores = chosen @ np.linalg.solve(chosen, log_law)  # map times values times classifier
    predicted = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    off = [np.abs(x - path).sum(1).mean() for x in (chosen, predicted)]
    print(f"map {name:15} L1 from P*: map {off[0]:.3f}, prediction {off[1]:.1e}")

print("\nconnected graphs by size:", {k: len(connected_graphs(k)) for k in range(1, 9)})
regular = GraphFacts.of(connected_graphs()).degree_classes == 1
print(f"of the last, graphs whose rows are all equally sharp: {regular.sum()}")

# %% [markdown]
# Trained on a sample of those graphs, with three heads. *row*: the attention row is the
# prediction, d below K, as in the paper's theory. *tied*: a classifier C with C E^T = I, so that
# the row is again the prediction. *classifier*: C and the value map are free, as in its
# experiment. `scaled` is vanilla with one learned scale: what it gains as well, no selectivity was
# needed for.

# %%
heads = {
    "row, d = 4": SmallGraphProblem(dim=4, head=RowHead()),
    "tied, d = 8": SmallGraphProblem(dim=8, head=TiedHead()),
    "classifier, d = 8": SmallGraphProblem(dim=8, head=ClassifierHead()),
}
mechanisms = ("vanilla", "scaled", "ssa-query")
trained = {
    name: compare(one, mechanisms, seeds=64, steps=300, cooldown_steps=100)
    for name, one in heads.items()
}
means = {name: r[["map_l1", "l1_error", "final_gap"]].mean("seed") for name, r in trained.items()}
columns = {"map_l1": "L1 of map", "l1_error": "L1 of prediction", "final_gap": "gap (nats)"}
pd.concat({k: v.to_dataframe().rename(columns=columns) for k, v in means.items()})

# %%
for name, result in trained.items():
    ratio = (result["map_l1"] / result["map_l1"].sel(mechanism="vanilla")).median("seed")
    fit = np.corrcoef(result["map_l1"].values.ravel(), result["final_gap"].values.ravel())[0, 1]
    ratios = ", ".join(f"{m} {float(ratio.sel(mechanism=m)):.2f}" for m in mechanisms[1:])
    print(
        f"{name:18} L1 of map over vanilla's, median: {ratios}; correlation with the gap {fit:.2f}"
    )

figure = new_figure(9.5, 3.8)
left, right = figure.subplots(1, 2)
for (name, result), marker in zip(trained.items(), "ovs", strict=True):
    for mechanism in mechanisms:
        look = {"color": style(mechanism)["color"], "marker": marker, "s": 12, "alpha": 0.6}
        own = result.sel(mechanism=mechanism)
        left.scatter(own["map_l1"], own["final_gap"], **look)
    left.scatter([], [], color="#8c8c8c", marker=marker, label=name)
for mechanism in mechanisms:
    left.scatter([], [], color=style(mechanism)["color"], marker="_", label=mechanism)
left.set(
    yscale="log",
    xlabel="L1 distance of the attention map to P*",
    ylabel="cross-entropy above Bayes (nats)",
    title="one point a model",
)
left.legend(fontsize=7.5, loc=(0.14, 0.02))
row = trained["row, d = 4"]
for mechanism in mechanisms[1:]:
    gain = row["map_l1"].sel(mechanism=mechanism) / row["map_l1"].sel(mechanism="vanilla")
    right.scatter(
        row["entropy_spread"], gain, s=14, color=style(mechanism)["color"], label=mechanism
    )
right.axhline(1, color="#8c8c8c", linewidth=1)
right.set(
    xlabel="spread of row entropies of the graph (nats)",
    ylabel="L1 of map over vanilla's",
    title="row head: where it gains",
)
right.legend()
show(figure, "graphs")

# %% [markdown]
# ## Try your own
# 1. Proposition 1 with a bounded temperature: SSA's token term lies between 0 and 2. Replace
#    `POSITIVE` by `Temperatures(ratio=4)`. Where does the growth with 1 - rho come back?
# 2. What if the converse asked for its late ratio at the end L alone? `reachable_ratios` takes the
#    stretch from L/2 to there.
# 3. How do the losses of the schedules change with the power of `PowerImbalance`? And of random
#    sequences of the same imbalance, `bernoulli_sequences`?
# 4. Train `ClassifierHead(learned_embeddings=True)`. Is the map any nearer? Then raise `steps`.
# 5. Denoising: what does the oracle mean gain when its answer is rounded to the nearest of the K
#    directions? Does it then beat Bayes, and may it, given what it sees?
#
# `ssa-theory run paper-theory paper-graph` has the same statements with all their cases, and all
# 11,117 graphs.
