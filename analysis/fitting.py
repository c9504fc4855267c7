"""Train an ensemble of single-layer models on a Markov target and measure it: the step between tasks and results."""


from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analysis.problems.sizes import block_size, check_result_fits  # noqa: F401
from analysis.problems.measures import effective_support, row_l1, singular_values, token_norm
from ssa_theory import (
    Queries,
    SingleLayerAttention,
    Stream,
    Tokens,
    Trained,
    cross_entropy,
    member_generator,
    train,
)
from tasks import MarkovGraphTask, unit_embeddings

COOLDOWN = 0.1  # the factor on the step size in the last steps of `train_with_cooldown`

FITTED: dict[str, tuple[tuple[str, ...], str]] = {
    "learned_transition_matrix": (("node", "next"), "P_hat = softmax(diag(tau) E W E^T) (probability)"),
    "cross_entropy_gap": (("step",), "cross-entropy above that of the Bayes predictor (nats), by step"),
    "l1_by_step": (("step",), "mean over rows of the L1 distance between P_hat and the target, by step"),
    "l1_error": ((), "mean over rows of the L1 distance between P_hat and the target after training"),
    "weight_norm": ((), "spectral norm ||W||_2 of the trained W"),
    "weight_frobenius_norm": ((), "Frobenius norm ||W||_F of the trained W"),
    "inverse_temperature": (("node",), "learned tau of each node; the paper's temperature is 1 / tau"),
    "token_norm": (("node",), "||W^T e_i||; times tau_i, the effective logit scale"),
    "effective_support": (("node",), "exp(entropy) of each learned row: its effective number of next tokens"),
    "diverged": ((), "whether the loss was ever not finite; the model's other numbers are NaN"),
    "underflow": ((), "whether a learned weight is below the smallest normal number of the training precision"),
    "rank_deficient": ((), "whether the embeddings have a lower rank than their number and dimension allow"),
}
"""What `fit` returns: by name, the dimensions after the member's, and the description stored with it."""


def record_steps(steps: int) -> np.ndarray:
    """At most 41 evenly spaced steps, the initialisation (0) and the last among them."""
    return np.unique(np.rint(np.linspace(0, steps, 41)).astype(int))


def stack_members(arrays: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """One array per member to one tensor (..., member) on the device."""
    return torch.from_numpy(np.stack(arrays, axis=-1)).to(device)


def exact_problem(
    task: MarkovGraphTask, dim: int, seeds: Sequence[int], device: torch.device
) -> tuple[Tokens, Queries]:
    """A chain in the vocabulary context with its exact loss, one member a seed, in float64.

    Every seed has its own embeddings of dimension `dim`; the queries are all rows of P*, weighted alike.
    """
    members, nodes = len(seeds), task.nodes
    embeddings = [unit_embeddings(nodes, dim, member_generator(s, Stream.EMBEDDING)) for s in seeds]
    tokens = Tokens(stack_members(embeddings, device), stack_members([task.out_degree] * members, device), nodes)
    weights = stack_members([task.row_weights("uniform")] * members, device)
    return tokens, Queries(stack_members([task.transition_matrix] * members, device), weights)


def train_with_cooldown(
    loss: Callable[[dict[str, Tensor], Any], Tensor],
    parameters: dict[str, Tensor],
    *,
    steps: int,
    cooldown_steps: int,
    learning_rate: float,
    batches: Iterable[Any],
    compile: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Trained:
    """`train` on fresh data, then `cooldown_steps` more at a tenth of the step size.

    At a constant step size Adam leaves the models in the noise of their batches. batches: one per step of both stages, in
    order. A member has diverged where it did in either stage.
    """
    source = iter(batches)
    common = {"batches": source, "compile": compile, "progress": progress}
    first = train(loss, parameters, steps=steps, learning_rate=learning_rate, **common)
    last = train(loss, first.parameters, steps=cooldown_steps, learning_rate=COOLDOWN * learning_rate, **common)
    return Trained(last.parameters, {}, first.diverged | last.diverged)


def fit(
    model: SingleLayerAttention,
    tokens: Tokens,
    target: Float[Tensor, "node next member"],
    evaluation: Queries,
    seeds: Sequence[int],
    *,
    dtype: str,
    steps: int,
    learning_rate: float,
    optimizer: str = "adam",
    compile: bool = False,
    batches: Iterable[Queries] | None = None,
    record: np.ndarray | None = None,
    measure: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Train one model per member and return the arrays of `FITTED`, member first, in float64.

    tokens, target and evaluation are float64 on the device; training runs in `dtype`. evaluation: the exact loss (or held-out
    queries with their exact answers) from which the gap is computed; also trained on where `batches` is None. seeds: of each
    member, naming its initialisation. record: the steps to record, by default `record_steps`. measure: further measures of
    the float64 parameters at those steps, by NAME (..., member), returned as NAME_by_step (member, step, ...); a parameter that
    is not finite reaches it as zero.
    """
    kind = getattr(torch, dtype)
    nodes, dim, _ = tokens.embeddings.shape
    working = Tokens(tokens.embeddings.to(kind), tokens.degree, tokens.keys)
    exact = Queries(
        evaluation.target.to(kind),
        evaluation.weight.to(kind),
        evaluation.node,
        None if evaluation.counts is None else evaluation.counts.to(kind),
    )
    bayes = (evaluation.weight * torch.special.entr(evaluation.target).sum(1)).sum(0)
    initial = model.initial_parameters(nodes, dim, [member_generator(s, Stream.PARAMETER) for s in seeds])

    def loss(parameters: dict[str, Tensor], batch: Queries | None) -> Tensor:
        return cross_entropy(model.logits(parameters, working), exact if batch is None else batch)

    def measure_step(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        current = {k: v.double() for k, v in parameters.items()}
        logits = model.logits(current, tokens)
        found = {
            "cross_entropy_gap": cross_entropy(logits, evaluation) - bayes,
            "l1_by_step": row_l1(logits.softmax(1), target),
        }
        if measure is not None:
            further = measure({k: torch.where(v.isfinite(), v, 0.0) for k, v in current.items()})
            found |= {f"{name}_by_step": value for name, value in further.items()}
        return found

    trained = train(
        loss,
        {k: v.to(target.device, kind) for k, v in initial.items()},
        steps=steps,
        learning_rate=learning_rate,
        optimizer=optimizer,
        compile=compile,
        batches=batches,
        measure=measure_step,
        record=(record_steps(steps) if record is None else record).tolist(),
        progress=progress,
    )
    # A diverged member becomes zero before, NaN after: svd refuses NaN.
    final = {k: torch.where(trained.diverged, 0.0, v.double()) for k, v in trained.parameters.items()}
    learned = model.logits(final, tokens).softmax(1)
    found = trained.history | {
        "learned_transition_matrix": learned,
        "l1_error": row_l1(learned, target),
        "weight_norm": singular_values(final["weight"])[0],
        "weight_frobenius_norm": final["weight"].square().sum((0, 1)).sqrt(),
        "inverse_temperature": model.inverse_temperature(final, tokens),
        "token_norm": token_norm(final["weight"], tokens.embeddings),
        "effective_support": effective_support(learned, dim=1),
    }
    found = {k: torch.where(trained.diverged, torch.nan, v) for k, v in found.items()} | {
        "diverged": trained.diverged,
        "underflow": (learned < torch.finfo(kind).tiny).any(0).any(0),
        "rank_deficient": torch.linalg.matrix_rank(tokens.embeddings.permute(2, 0, 1)) < min(nodes, dim),
    }
    return {name: np.moveaxis(value.cpu().numpy(), -1, 0) for name, value in found.items()}
