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
# # Denoising: what a value temperature can and cannot do
#
# A signal y is to be estimated from L tokens. Each token carries it, `x_i = y + s_signal eps`, with
# probability rho; the others are fillers, `x_i = s_noise eps`. Nothing marks a token as relevant
# but the token itself. A value temperature tau_v(x_i) scales what a token contributes to
# attention's output, so it can shut fillers out one by one. This notebook puts the trained gates on
# a ladder of exact baselines, compares what they learn with the posterior, and shows where no such
# gate can help.

# %%
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import SVG

from analysis.claims.show import print_claims
from analysis.draw.figures import new_figure, svg
from analysis.experiments import EXPERIMENTS
from analysis.run.runner import execute
from tasks import DenoisingTask

pd.options.display.float_format = "{:.3f}".format
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The ladder, before any training
# All numbers are mean squared errors per coordinate. All but Bayes are closed forms or quadratures;
# the Bayes risk averages the exact posterior variance over sampled inputs. Each rung uses more of
# what the tokens say:
#
# - **naive**: the mean token.
# - **shrunk**: the best multiple of the mean token. Every *linear* rule that treats tokens alike
#   stops here.
# - **threshold**: leave out the tokens on the worse side of the best norm, then take the best
#   multiple of the sum.
# - **additive**: the best sum of phi(x_i) over *all* maps phi. A value gate under uniform attention
#   is such a sum, so no value gate gets below it, whatever its shape and training.
# - **Bayes**: E[y | X]. Tokens are judged together: relevant ones agree with one another, fillers
#   do not.
# - **oracle**: is told which tokens are relevant.

# %%
task = DenoisingTask(
    dim=8, length=10, relevance=0.3, prior_scale=1.0, signal_noise=0.5, filler_noise=2.5
)
bayes = task.bayes_risk(8000, np.random.default_rng(0))
rungs = {name: task.risk(name) for name in ("naive", "shrunk", "threshold", "additive")}
rungs |= {"Bayes": bayes.value, "oracle": task.risk("oracle")}
ladder = pd.DataFrame({"error": rungs})
ladder["gain over the rung above"] = -ladder["error"].diff()
print(ladder.to_string(na_rep=""))
print(f"standard error of the Bayes risk: {bayes.error:.4f}")

# %% [markdown]
# ## Train on it
# The experiment `denoise` at a small size: 16 seeds, four models, all attending from a learned
# constant query. `ssa-mlp-value` is the paper's form tau_v = 1 + tanh f + sigmoid(alpha) log L,
# `value-sigmoid` is 2 sigmoid(f), and `gate-and-sink` gates *inside* the softmax, with a sink that
# takes the weight that no token deserves. A verdict below is computed from its interval over seeds;
# at this size, and after so short a training, some may differ from those of the full experiment.

# %%
experiment = EXPERIMENTS["denoise"]
config = experiment.config(
    seeds=16,
    mechanisms=("vanilla", "ssa-mlp-value", "value-sigmoid", "gate-and-sink"),
    swept_mechanisms=("vanilla", "value-sigmoid"),
    swept_filler_noise=(),
    batch_size=32,
    held_out=256,
)
result, claims, _ = execute(experiment, config, folder)
SVG(folder / "denoise" / "figure.svg")

# %% [markdown]
# ## Where the models stand
# The place on the ladder is the share of the way from the naive mean (0) to Bayes (1).

# %%
default = result.sel(setting="default")
learned = default["mse_band"].to_pandas()
span = float(default["naive"] - default["bayes"])
learned["place"] = (float(default["naive"]) - learned["value"]) / span
rows = {
    name: (float(default["naive"]) - float(default[name])) / span
    for name in ("shrunk", "additive", "bayes")
}
print(learned.to_string(), "\n")
print(
    "exact rungs for comparison:",
    ", ".join(f"{name} {place:.3f}" for name, place in rows.items()),
    "\n",
)
print_claims(claims, "What its tests say of the topics, and the checks")

# %% [markdown]
# ## What the gate learns
# Given its norm r alone, a token is relevant with probability pi(r), in closed form. The gate h(r)
# of the best additive estimator is pi(r) times a factor that rises with r here: the other tokens of
# a large signal are large too and partly shut out with the fillers, so a large token has to speak
# for them. A gate's scale means nothing, because the value matrix can undo it; each curve is
# divided by its maximum.

# %%
norm = result["norm"].values
curves = {"pi(r)": result["relevance_by_norm"].values, "h(r)": result["additive_gate"].values}
for name in ("ssa-mlp-value", "value-sigmoid"):
    gate = result["gate_by_norm_band"].sel(mechanism=name, estimate="value")
    curves[name] = gate.values
curves = {name: curve / curve.max() for name, curve in curves.items()}
table = pd.DataFrame(curves, index=pd.Index(norm, name="norm r"))
print(table.iloc[3::4].to_string(), "\n")
for name in ("ssa-mlp-value", "value-sigmoid"):
    exact = ("pi(r)", "h(r)")
    distance = {curve: float(np.abs(curves[name] - curves[curve]).mean()) for curve in exact}
    print(
        f"{name}: mean distance "
        + ", ".join(f"to {curve} {d:.3f}" for curve, d in distance.items())
    )
floor = float(default["gate_floor"].sel(mechanism="ssa-mlp-value").mean())
start = 0.5 * np.log(config.length)
print(
    f"ssa-mlp-value cannot go below sigmoid(alpha) log L: {start:.2f} at first, {floor:.2f} trained"
)

# %% [markdown]
# ## Where a gate cannot help, 1: norms that say nothing
# A gate decides token by token. At s_noise^2 = s_y^2 + s_signal^2 relevant tokens and fillers have
# the same law, pi(r) = rho everywhere, and the best additive estimator is the shrunk mean. Bayes
# still does better: tokens that agree give themselves away.

# %%
silent = replace(task, filler_noise=config.no_information)
radius = np.array([1.0, 3.0, 5.0])
relevance = silent.relevance_given_norm(radius)
print(f"s_noise = {silent.filler_noise:.4f}: P(relevant | norm) at norms {radius} is {relevance}")
risk = silent.bayes_risk(4000, np.random.default_rng(0))
linear = ", ".join(f"{name} {silent.risk(name):.6f}" for name in ("shrunk", "additive"))
print(f"{linear}, Bayes {risk.value:.3f} +- {risk.error:.3f}")
trained = result["mse"].sel(setting="no information").mean("seed")
ratio = float(trained.sel(mechanism="value-sigmoid") / trained.sel(mechanism="vanilla"))
print(f"trained there: mean error of value-sigmoid over that of vanilla {ratio:.4f}")

# %% [markdown]
# ## Where a gate cannot help, 2: what tokens say about each other
# With a single token there is nothing to compare it with, and the best gate *is* Bayes. With more
# tokens a part of the attainable gain lies in their agreement, which a gate on single tokens cannot
# see. On the right: the share of the shrunk mean's error that the best gate removes. Whatever the
# share rho of relevant tokens, it vanishes where norms say nothing.

# %%
lengths = (1, 2, 4, 8, 12)
tasks = [replace(task, length=n) for n in lengths]
risks = {name: np.array([t.risk(name) for t in tasks]) for name in ("shrunk", "additive", "oracle")}
estimates = [
    t.bayes_risk(max(1000, 200_000 // t.length**3), np.random.default_rng(0)) for t in tasks
]
value, error = np.array([(e.value, e.error) for e in estimates]).T
columns = {"Bayes": value, "additive - Bayes": risks["additive"] - value, "standard error": error}
print(pd.DataFrame(risks | columns, index=pd.Index(lengths, name="L")).to_string())

figure = new_figure(10.0, 4.0)
left, right = figure.subplots(1, 2)
for (name, values), style in zip(risks.items(), ("--", "-", "-."), strict=True):
    left.plot(lengths, values, color="#444444", linestyle=style, label=name)
left.errorbar(
    lengths,
    value,
    yerr=1.96 * error,
    color="black",
    marker="*",
    markersize=9,
    linestyle="none",
    label="Bayes",
)
left.set(
    xlabel="number of tokens L",
    ylabel="mean squared error per coordinate",
    title="from one token to many",
)
noises = np.unique(np.append(np.linspace(0.6, 3.0, 7), config.no_information))
for rho, color, style in ((0.1, "#56b4e9", ":"), (0.5, "#d55e00", "--"), (0.9, "#222222", "-")):
    swept = [replace(task, relevance=rho, filler_noise=float(s)) for s in noises]
    gain = [1 - t.risk("additive") / t.risk("shrunk") for t in swept]
    right.plot(noises, gain, color=color, linestyle=style, label=f"rho = {rho}")
right.axvline(config.no_information, color="#bbbbbb", linewidth=1, zorder=0)
right.set(
    xlabel="s_noise, standard deviation of the fillers",
    ylabel="largest possible gain of a gate, 1 - additive / shrunk",
)
right.set_title("grey line: one law for all tokens")
for ax in (left, right):
    ax.set_ylim(bottom=0)
    ax.legend()
SVG(svg(figure))
