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
# # From a text to a language model with temperatures
#
# A small decoder reads a text, symbol by symbol. Its attention wears a mechanism: none (vanilla), a
# constant scale on its scores, or SSA's learned temperatures. This notebook trains the three,
# draws figure 2 of the SSA paper ([arXiv 2411.12892](https://arxiv.org/abs/2411.12892)) in miniature,
# and colours a text by the learned temperatures. One seed shows what is measured, not what is true:
# for that, `ssa-theory run language` trains sixteen seeds of nineteen mechanisms, each tuned.

# %%
import html

import numpy as np
import torch
import transformers
from IPython.display import HTML, SVG
from matplotlib import colormaps

from analysis.draw.figures import new_figure, style, svg
from ssa_theory.language import (
    Decoder,
    DecoderForm,
    LanguageTraining,
    attention_anatomy,
    fit_language,
    validation_loss,
    windows,
)
from ssa_theory.language.select import select
from tasks import TextReading, corpus, default_text, read_text

torch.set_num_threads(1)

# %% [markdown]
# ## A text
# Put the path of your own in place of `None`; by default it is the prose of Python's documentation.

# %%
PATH = None
text = default_text() if PATH is None else read_text(PATH)[0]
read = corpus(text, TextReading("graphemes", top=79))
print("; ".join(read.notes))
print(f"{len(read.training):,} to train on, {len(read.validation):,} to validate on")
print("most frequent:", " ".join(read.symbols[:12]))

# %% [markdown]
# ## Three models, from the same weights and on the same windows
# The temperatures of SSA add few parameters: one vector and one scalar for each head of the queries
# and of the values. `constant-scale` multiplies all scores by 2.5, which is near what SSA's position
# term starts at, and learns nothing new.

# %%
form = DecoderForm(len(read.symbols), dim=32, layers=2, heads=2, context=48)
training = LanguageTraining(steps=100, context=form.context, batch=8, rate=0.015)
models = {}
for name in ("vanilla", "constant-scale", "ssa"):
    model = Decoder(form, name, seed=0, log_frequency=read.log_frequency)
    fit_language([model], read.training, training, seeds=[0])
    loss = validation_loss(model, read.validation, form.context, 4096).mean()
    print(
        f"{name:14s} {model.parameter_count():,} parameters, {model.added_parameters():3d} of them new;"
        f" validation loss {loss:.3f} nats"
    )
    models[name] = model

# %% [markdown]
# ## Figure 2 in miniature
# For a thousand tokens: the weight with its temperature, tau ||W_q W_k^T||, and how spiky each row of
# attention is, 1 / (n sum s^2), where smaller is spikier.

# %%
seen = windows(read.validation, np.arange(22) * form.context, form.context)
figure = new_figure(9.0, 3.2)
left, right = figure.subplots(1, 2)
for name, model in models.items():
    found = attention_anatomy(model, seen)
    look = {"color": style(name)["color"], "linestyle": style(name)["linestyle"]}
    for ax, key in ((left, "effective_weight"), (right, "spikiness")):
        values = found[key].ravel()
        share, edges = np.histogram(values, 30)
        ax.stairs(share / len(values), edges, label=f"{name}, mean {values.mean():.2f}", **look)
left.set(xlabel="tau ||W_q W_k^T||", ylabel="share of tokens")
right.set(xlabel="spikiness 1 / (n sum s^2)")
for ax in (left, right):
    ax.legend()
SVG(svg(figure))

# %% [markdown]
# A constant scale makes rows spikier, too. Whether SSA does more than that is what the topic
# `language-beyond-constant` of the ledger decides.
#
# ## A text, coloured by its temperatures
# The query's inverse temperature of every symbol in the last layer, less its position term: dark
# symbols ask sharply, light ones bluntly. Hover over a symbol for the number.

# %%
piece = torch.from_numpy(read.validation[None, : form.context])
layer, inputs = models["ssa"].layers[-1], []
hook = layer.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
with torch.no_grad():
    models["ssa"](piece)
    hook.remove()
    tau = layer.inverse_temperature("query", inputs[0])[0]
    alpha = layer.parts["query"]["alpha"][:, None]
    own = (tau - torch.sigmoid(alpha) * torch.arange(1.0, form.context + 1).log()).mean(0).numpy()


def coloured(symbol: str, value: float) -> str:
    red, green, blue, _ = colormaps["Blues"](0.1 + 0.45 * value, bytes=True)
    shown = html.escape(" " if symbol == "\u2423" else symbol)
    return f'<span title="{value:.2f}" style="background: rgb({red},{green},{blue})">{shown}</span>'


symbols = [read.symbols[i] for i in piece[0]]
shown = "".join(map(coloured, symbols, own))
HTML(f'<pre style="font-size: 150%">{shown}</pre>')

# %% [markdown]
# ## A model of your own
# `ssa_theory.language.select` puts any mechanism into a pretrained GPT-2, GPT-NeoX (Pythia) or Llama
# of Hugging Face; `pip install 'ssa-theory[language]'` brings what it needs. Here into a tiny random
# one: its logits stay what they were until the new parameters are trained.

# %%
config = transformers.AutoConfig.for_model(
    "gpt_neox", vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2
)
pretrained = transformers.AutoModelForCausalLM.from_config(config).eval()
tokens = torch.arange(12).unsqueeze(0)
with torch.no_grad():
    before = pretrained(tokens).logits
    added = select(pretrained, "ssa")
    change = (pretrained(tokens).logits - before).abs().max()
print(f"{added} parameters added; the logits changed by at most {change:.0e}")
