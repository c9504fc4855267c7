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
# # Bring your own graph
#
# A single attention layer predicts the next node of a random walk: `P_hat = softmax(diag(tau) E W
# E^T)`. Vanilla attention has `tau = 1`; selective attention learns one inverse temperature a node.
# This notebook trains both on a graph of your own, reads the stored result with xarray, and asks
# what norm the same matrix would cost in closed form.

# %%
import tempfile
from pathlib import Path

import networkx as nx
import numpy as np
from IPython.display import SVG

from analysis.claims.show import print_claims
from analysis.experiments import EXPERIMENTS
from analysis.problems.measures import SMALLEST_TAU
from analysis.run.runner import execute
from ssa_theory import minimal_norm, norm_lower_bound
from tasks import MarkovGraphTask, unit_embeddings

# %% [markdown]
# ## A graph and its exact answers
# Any networkx graph will do: weights become transition probabilities, and the baseline is exact.

# %%
graph = nx.DiGraph()
graph.add_weighted_edges_from(
    [("home", "work", 8), ("home", "gym", 1), ("work", "home", 1), ("gym", "home", 1)]
)
graph.add_weighted_edges_from(
    [("work", "café", 1)] + [("café", place, 1) for place in ("home", "work", "gym", "café")]
)
task = MarkovGraphTask.from_graph(graph)
print("nodes            ", task.labels)
print("stationary       ", task.stationary_distribution.round(3))
print("row entropy, nats", task.row_entropy.round(3))
print(
    "entropy rate     ", round(task.entropy_rate, 4), "nats: no predictor has a lower cross-entropy"
)

# %% [markdown]
# ## Train vanilla and selective attention on it
# The experiment `graph` takes any GraphML file or edge list. Sixteen seeds are sixteen random
# embeddings in d = 2 dimensions.

# %%
folder = Path(tempfile.mkdtemp())
nx.write_graphml(graph, folder / "places.graphml")
experiment = EXPERIMENTS["graph"]
settings = {"family": "file", "graph_file": folder / "places.graphml", "dim": 2}
config = experiment.config(**settings, seeds=16, control_steps=0)
result, claims, _ = execute(experiment, config, folder)
SVG(folder / "graph" / "figure.svg")

# %% [markdown]
# ## Read the result
# Everything is a labelled array: dimensions `mechanism`, `seed`, `node`, `next`, `step`.

# %%
print(result["l1_error"].mean("seed").to_series().round(3), "\n")
tau = result["inverse_temperature"].clip(SMALLEST_TAU)
temperature = np.exp(-np.log(tau).mean("seed")).sel(mechanism=["ssa", "ssa-free"])
print(temperature.to_pandas().T.round(2), "\n")
print_claims(claims, "What its tests say of the topics, and the checks")

# %% [markdown]
# ## What norm does this matrix cost?
# With as many dimensions as tokens every positive matrix is realisable. The closed form gives the W
# of least Frobenius norm, with and without a temperature a row, and a lower bound that no W can
# beat. A temperature a row saves norm where tokens that look alike rank the same targets with
# different sharpness (see the experiment `twins`). In this graph the places differ in *what*
# follows them, so alike embeddings make both expensive, and the saving is small.

# %%
smoothed = 0.98 * task.transition_matrix + 0.02 / task.nodes
for similarity in (0.0, 0.9):
    embeddings = unit_embeddings(task.nodes, 6, np.random.default_rng(0), similarity)
    vanilla = minimal_norm(embeddings, smoothed, max_inverse_temperature=2.0)
    selective = minimal_norm(embeddings, smoothed, max_inverse_temperature=2.0, selective=True)
    bound = norm_lower_bound(embeddings, smoothed, vanilla.inverse_temperature)
    print(
        f"similarity {similarity}: lower bound {bound:6.1f}, vanilla {vanilla.spectral_norm:6.1f}, "
        f"selective {selective.spectral_norm:6.1f}, tau {selective.inverse_temperature.round(2)}"
    )
