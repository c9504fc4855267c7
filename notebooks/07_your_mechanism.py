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
# # Your mechanism in the atlas
#
# Does a mechanism of your own beat SSA, a sink, a gate? Where is the Bayes limit? Write it once, in
# a file of twenty lines. Test its limits. Then train its row of the atlas: every mechanism on every
# problem on one scale, 0 exact Bayes and 1 the naive predictor.

# %%
import tempfile
from pathlib import Path

import pandas as pd
import torch
from IPython.display import SVG

from analysis.draw.figures import svg
from analysis.experiments.atlas import ATLAS, AtlasConfig
from analysis.run.runner import execute
from ssa_theory import SelfAttention
from ssa_theory.mechanism import mechanism

pd.options.display.float_format = "{:.3f}".format
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Twenty lines
# The idea: a query temperature without bounds, tau(x) = exp(w . x), beside a sink, so that a query
# may attend sharply, bluntly, or to nothing at all. A mechanism is composed of parts. One of them is
# new, a temperature: its parameters with their shapes, and its formula. `View` is what a part sees
# of the tokens; the last axis of every tensor is the ensemble's.

# %%
MINE = """
from dataclasses import dataclass

from ssa_theory.mechanism import Mechanism
from ssa_theory.mechanism.normalizers import SoftmaxSink
from ssa_theory.mechanism.parts import Misfit
from ssa_theory.mechanism.temperature import Temperature

@dataclass(frozen=True)
class LogLinear(Temperature):
    def shapes(self, role, form):
        return {"slope": (form.width(role),)}

    def fitted(self, role, form):
        if form.given_scores or form.constant_query:
            raise Misfit("query tokens")
        return self

    def __call__(self, parameters, view):
        return (view.token * parameters["slope"]).sum(-2).exp()

MINE = Mechanism("mine", "exp(w . x) q . k, a sink", query=LogLinear(), normalizer=SoftmaxSink())
"""
file = folder / "mine.py"
file.write_text(MINE)
mine = mechanism(f"{file}:MINE")

# %% [markdown]
# ## Its limits
# A formula is understood where it reduces to another. With w = 0 it has to be the registry's `sink`,
# with the sink shut, too, vanilla attention. It starts at w = 0. As a layer of a network:

# %%
tokens = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0))


def output(name, **fixed):
    """Of layers with the same projections, and the named parameters at fixed values."""
    torch.manual_seed(0)
    layer = SelfAttention(16, heads=2, mechanism=name)
    with torch.no_grad():
        for key, parameter in layer.named_parameters():
            parameter.fill_(fixed[key.split(".")[-1]]) if key.split(".")[-1] in fixed else None
        return layer(tokens)


pairs = {
    "w = 0 from sink": (output(mine), output("sink")),
    "w = 0, sink shut, from vanilla": (output(mine, sink=-40.0), output("vanilla")),
    "w = 0.3 from sink": (output(mine, slope=0.3), output("sink")),
}
apart = {name: (one - other).abs().max().item() for name, (one, other) in pairs.items()}
print(pd.Series(apart, name="largest difference").to_string(float_format="{:.1e}".format))
assert max(list(apart.values())[:2]) < 1e-6 < list(apart.values())[2]

# %% [markdown]
# ## Its row of the atlas
# From the shell this is one line, in under a minute; what `make figures` has trained is not trained
# again:
#
#     ssa-theory run atlas --mechanisms ./mine.py:MINE
#
# Here a smaller one: five mechanisms, three problems, few seeds and steps. Every mechanism gets the
# same tuning. Where a problem cannot be worn, the reason stands in place of numbers.

# %%
config = AtlasConfig(
    mechanisms=("vanilla", "ssa", "sink", "gated", f"{file}:MINE"),
    problems=("graph", "imbalance", "trigger"),
    learning_rates=(0.06, 0.2),
    seeds=16,
    steps=80,
    cooldown_steps=20,
)
result, claims, _ = execute(ATLAS, config, folder)
print(result["excess"].mean("seed").to_pandas().T.to_string())
reasons = result["reason"].to_series()
print(*reasons[reasons != ""].unique(), sep="\n")

# %% [markdown]
# 0 is exact Bayes, 1 the naive predictor. On `graph` it has what makes SSA better than vanilla, on
# `trigger` what makes a sink better than both. Ratios are paired by seed, and their intervals say
# what this small run decides:

# %%
ratio = result["over_vanilla_band"].sel(mechanism="mine").dropna("problem").to_pandas()
ratio.columns = ["error over vanilla's", "low", "high"]
print(ratio.to_string(float_format="{:.2g}".format))
SVG(svg(ATLAS.plot(result)))
