"""Train each task's model compiled as for a GPU, by torch, and not at all, and print what differs;
`test_ensemble` runs it in a process of its own.
"""

import json
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.fx.experimental.proxy_tensor import make_fx

from ssa_theory import steps
from ssa_theory.ensemble import train
from ssa_theory.losses import Queries, choice_loss, cross_entropy, squared_error
from ssa_theory.mechanism import MECHANISMS, Form, Inputs, Layer, Mechanism, Misfit, Tokens

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
    if name == "sparse":
        rows, tokens = Layer(MECHANISMS["entmax15"], Form(3), 1.0), Tokens(normal(5, 3))
        return (
            lambda p, b: squared_error(rows.rows(p, Inputs(tokens, tokens, count=5.0)), b),
            rows.initial_parameters(generators),
            [normal(5, 5).softmax(1) for _ in range(3)],
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


def traced() -> dict[str, list[float]]:
    """Of one mechanism for each normaliser: the largest difference of rows' loss and gradient from
    those of their trace, by torch's tracer and by the compiler's, at other values than the traced.
    """
    found, form = {}, Form(3, position=True)
    rng = np.random.default_rng(9)
    words = Tokens(torch.from_numpy(rng.standard_normal((5, 3, MEMBERS))))
    entries = {m.normalizer: m for m in reversed(MECHANISMS.values()) if _fits(m, form)}
    for entry in entries.values():
        layer = Layer(entry, form, 1.0)
        start = layer.initial_parameters([np.random.default_rng([7, m]) for m in range(MEMBERS)])

        def step(*values: Tensor, layer: Layer = layer, names: Any = tuple(start)) -> Any:
            parameters = dict(zip(names, values, strict=True))
            loss = layer.rows(parameters, Inputs(words, words, count=5.0)).square().sum((0, 1))
            slopes = torch.autograd.grad(
                loss.sum(), values, allow_unused=True, materialize_grads=True
            )
            return loss.detach(), *slopes

        first, second = (
            [
                (v + s * torch.from_numpy(rng.standard_normal(v.shape))).requires_grad_()
                for v in start.values()
            ]
            for s in (0.3, 0.6)
        )
        graph = make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(*first)
        compiled = torch.compile(step, fullgraph=True, dynamic=False, backend="eager")
        with torch._dynamo.config.patch(trace_autograd_ops=True, recompile_limit=64):
            compiled(*first)
            results = graph(*second), compiled(*second)
        found[entry.name] = [
            max(
                float((a - b).detach().abs().max())
                for a, b in zip(result, step(*second), strict=True)
            )
            for result in results
        ]
    return found


def _fits(mechanism: Mechanism, form: Form) -> bool:
    try:
        mechanism.fitted(form)
    except Misfit:
        return False
    return True


def main() -> None:
    torch.set_num_threads(1)
    # What a GPU has, here on the CPU.
    steps.Lanes = lambda *given: steps.Fused(*given[:4])  # type: ignore[misc, assignment]
    found: dict[str, Any] = {"traced": traced()}
    # The graph and its gradient, run as they are: what a GPU's compiler then makes of them is torch's.
    torch.compile = partial(torch.compile, backend="aot_eager")
    for name in ("vocabulary", "vocabulary again", "prompt", "denoise", "retrieval", "sparse"):
        loss, start, batches = problem(name.split()[0])
        graphs = counters["stats"]["unique_graphs"]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            compiled = train(
                loss, start, steps=3, learning_rate=0.05, batches=batches, compile=True
            ).parameters
        plain = train(loss, start, steps=3, learning_rate=0.05, batches=batches).parameters
        found[name] = {
            # Torch has warnings of its own, as of Python 3.13.0.
            "notices": [n for w in caught if "uncompiled" in (n := str(w.message))],
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
