"""Train each task's model compiled as for a GPU, by torch, and not at all, and print what differs;
`test_ensemble` runs it in a process of its own.
"""

import json
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from ssa_theory import steps
from ssa_theory.ensemble import train
from ssa_theory.losses import Queries, choice_loss, cross_entropy, squared_error
from ssa_theory.mechanism import MECHANISMS, Form, Inputs, Layer, Tokens

MEMBERS = 64


def problem(
    name: str,
) -> tuple[Callable[[dict[str, Tensor], Any], Tensor], dict[str, Tensor], list[Any]]:
    """Loss, initial parameters and batches of one task's model, in float64."""
    generators = [np.random.default_rng([7, m]) for m in range(MEMBERS)]
    rng = np.random.default_rng(8)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal((*shape, MEMBERS)))

    if name == "denoise":
        form = Form(3, constant_query=True, values=True, over_root_dim=True, position=True)
        gate = Layer(MECHANISMS["value-tanh"], form)
        batches = [(normal(4, 5, 3), normal(4, 3)) for _ in range(3)]

        def error(p: dict[str, Tensor], batch: Any) -> Tensor:
            return squared_error(
                gate.output(p, Inputs(None, Tokens(batch[0]), count=5.0)), batch[1]
            )

        return error, gate.initial_parameters(generators), batches
    if name == "retrieval":
        search = Layer(
            MECHANISMS["ssa-feature-exp"], Form(3, query_dim=4, features=frozenset({"query"}))
        )
        noise = torch.from_numpy(rng.uniform(0.1, 0.8, (4, MEMBERS)))
        answer = torch.from_numpy(rng.integers(0, 6, (4, MEMBERS)))

        def asked() -> Inputs:
            keys, query = normal(4, 6, 3), normal(4, 3)
            token = torch.cat([query, noise.log().unsqueeze(1)], 1)
            return Inputs(Tokens(token, noise.log()), Tokens(keys), count=6.0)

        batches = [asked() for _ in range(3)]
        return (
            lambda p, b: choice_loss(search.scores(p, b), answer),
            search.initial_parameters(generators),
            batches,
        )
    model = Layer(MECHANISMS["ssa"], Form(3, position=name == "prompt"))
    words = Tokens(normal(5, 3))
    inputs = Inputs(words, words, count=4.0)
    count = 5 if name == "vocabulary" else 7
    target, weight = normal(count, 5).softmax(1), normal(count).softmax(0)
    batches = [Queries(target, weight)] * 3
    if name == "prompt":
        node = torch.from_numpy(rng.integers(0, 5, (count, MEMBERS)))
        drawn = (
            rng.integers(0, 3, (count, 5, MEMBERS))
            + np.eye(5)[rng.integers(0, 5, count)][..., None]
        )
        counts = torch.from_numpy(drawn)
        target = torch.where(counts > 0, target, 0.0)
        batches = [
            Queries(target / target.sum(1, keepdim=True), weight * s, node, counts)
            for s in (1.0, 0.5, 2.0)
        ]
    return (
        lambda p, b: cross_entropy(model.scores(p, inputs), b),
        model.initial_parameters(generators),
        batches,
    )


def main() -> None:
    torch.set_num_threads(1)
    steps.Lanes = steps.Fused  # type: ignore[misc, assignment], what a GPU has, here on the CPU
    found = {}
    for name in ("vocabulary", "vocabulary again", "prompt", "denoise", "retrieval"):
        loss, start, batches = problem(name.split()[0])
        graphs = counters["stats"]["unique_graphs"]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            compiled = train(
                loss, start, steps=3, learning_rate=0.05, batches=batches, compile=True
            ).parameters
        plain = train(loss, start, steps=3, learning_rate=0.05, batches=batches).parameters
        found[name] = {
            "notices": [str(w.message) for w in caught if w.category is RuntimeWarning],
            "graphs": counters["stats"]["unique_graphs"] - graphs,
        }
        if "again" not in name:
            found[name] |= {
                "moved": min(float((plain[k] - start[k]).abs().max()) for k in start),
                "difference": max(float((plain[k] - compiled[k]).abs().max()) for k in start),
            }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
