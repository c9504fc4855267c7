"""The three tasks of `normalizers`: each trains every normaliser, with and without a temperature, on a block of seeds."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analysis.experiments.length import batch_pool, cycle_batches, held_out_contexts
from analysis.experiments.normalizers_config import NormalizersConfig
from analysis.experiments.retrieval import batch_to_device
from analysis.fitting import stack_members, train_with_cooldown
from analysis.problems.measures import row_l1, zero_fraction
from ssa_theory import PositionSchedule, RetrievalAttention, SingleLayerAttention, Stream, Tokens, member_generator
from ssa_theory.normalizers import Normalizer
from ssa_theory.retrieval_models import RetrievalBatch
from tasks import NoisyRetrievalTask, unit_embeddings
from tasks.retrieval import Retrievals

Parameters = dict[str, Tensor]
Found = dict[str, np.ndarray]
_COOLDOWN_SHARE = 5  # the last fifth of the steps is made at a tenth of the step size


def train_graph(
    config: NormalizersConfig, seeds: Sequence[int], device: torch.device, advance: Callable[[int], None]
) -> list[Found]:
    """Learn the transition matrix P* of the ring; temperature: weight-shared, 1 + tanh(w . gelu(W^T e)).

    The loss is the exact expectation of the Brier score less its value at P*: mean_i sum_j (P_ij - P*_ij)^2.
    """
    nodes, dim, kind = config.graph_nodes, config.graph_dim, getattr(torch, config.dtype)
    task = config.graph_task
    embeddings = [unit_embeddings(nodes, dim, member_generator(s, Stream.EMBEDDING)) for s in seeds]
    exact = Tokens(stack_members(embeddings, device), stack_members([task.out_degree] * len(seeds), device), nodes)
    working = Tokens(exact.embeddings.to(kind), exact.degree, nodes)
    target = stack_members([task.transition_matrix] * len(seeds), device)
    wanted = target.to(kind)
    found = []
    for normalizer, selective in config.variants("graph"):
        model = SingleLayerAttention("ssa" if selective else "vanilla")

        def rows(p: Parameters, tokens: Tokens, normalizer: Normalizer = normalizer, model: Any = model) -> Tensor:
            tau = model.inverse_temperature(p, tokens).unsqueeze(1)
            return _normalise(normalizer, p, model.logits(p, tokens), tau, 1)

        final, state = _fit(
            config,
            "graph",
            normalizer,
            model.initial_parameters(nodes, dim, [member_generator(s, Stream.PARAMETER) for s in seeds]),
            lambda p, _, rows=rows: _squared_distance(rows(p, working), wanted),
            repeat(None),
            device,
            advance,
        )
        found.append(state | _measure_prediction(rows(final, exact), target))
    return found


def train_retrieval(
    config: NormalizersConfig, seeds: Sequence[int], device: torch.device, advance: Callable[[int], None]
) -> list[Found]:
    """Find the key that a noisy query stems from; temperature: 1 + tanh(f), f linear in log s.

    The loss is the Brier score less its value at the posterior, the target integrated out: mean_q sum_i (P_i - posterior_i)^2.
    """
    kind, size = getattr(torch, config.dtype), config.retrieval_batch
    task = config.retrieval_task
    drawn = [task.sample(config.retrieval_steps * size, member_generator(s, Stream.DATA)) for s in seeds]
    pool, wanted = _upload(task, drawn, device, kind)
    batches = [
        (RetrievalBatch(pool.keys[i], pool.query[i], pool.noise[i], pool.target[i]), wanted[i])
        for i in (slice(first, first + size) for first in range(0, config.retrieval_steps * size, size))
    ]
    held_out, posterior = _upload(task, [config.retrieval_problems(s) for s in seeds], device, torch.float64)
    found = []
    for normalizer, selective in config.variants("retrieval"):
        model = RetrievalAttention("ssa-tanh" if selective else "vanilla")

        def rows(
            p: Parameters, batch: RetrievalBatch, normalizer: Normalizer = normalizer, model: Any = model
        ) -> Tensor:
            tau = model.inverse_temperature(p, batch.noise).unsqueeze(1)
            return _normalise(normalizer, p, model.logits(p, batch), tau, 1)

        final, state = _fit(
            config,
            "retrieval",
            normalizer,
            model.initial_parameters(config.retrieval_dim, [member_generator(s, Stream.PARAMETER) for s in seeds]),
            lambda p, batch, rows=rows: _squared_distance(rows(p, batch[0]), batch[1]),
            batches,
            device,
            advance,
        )
        attention = rows(final, held_out)
        accuracy = posterior.gather(1, attention.argmax(1, keepdim=True)).mean((0, 1))
        found.append(state | _measure_prediction(attention, posterior) | {"accuracy": accuracy.cpu().numpy()})
    return found


def train_length(
    config: NormalizersConfig, seeds: Sequence[int], device: torch.device, advance: Callable[[int], None]
) -> list[Found]:
    """Kernel regression over contexts longer than those of training; temperature: the position term, c (1 + sigmoid(a) log n).

    Scores are c q . k without a temperature. The loss is the squared error of f(q). As the output is one number, which an
    RMS-normalised output would reduce to its sign, `rela` takes rows that sum to one, to which such an output tends with a large
    constant second value (see `rectified_output`); they keep the estimate linear in the values, hence its error exact.
    """
    length = config.length.model_copy(update={"seeds": len(seeds), "first_seed": seeds[0]})
    pool = batch_pool(length, seeds, device, getattr(torch, config.dtype))
    trained_on, tested_on = (torch.tensor(n, device=device) for n in (length.train_lengths, length.test_lengths))
    contexts = list(held_out_contexts(length))
    dots = stack_members([np.einsum("nd,qd->nq", c.keys[0], c.query[0]) for c in contexts], device)
    found, attention = [], []
    for normalizer, selective in config.variants("length"):
        schedule = PositionSchedule("ssa" if selective else "constant")

        def rows(
            p: Parameters,
            dots: Tensor,
            counts: Tensor,
            normalizer: Normalizer = normalizer,
            schedule: PositionSchedule = schedule,
        ) -> Iterator[Tensor]:
            lengths = length.train_lengths if counts is trained_on else length.test_lengths
            for n, tau in zip(lengths, schedule.inverse_temperature(p, counts), strict=True):
                yield _normalise(normalizer, p, tau * dots[:n], tau, 0)

        def loss(p: Parameters, batch: tuple[Tensor, ...], rows: Any = rows) -> Tensor:
            dots, values, target = batch
            estimates = ((w * values[: len(w)]).sum(0) for w in rows(p, dots, trained_on))
            return sum((estimate - target).square().mean(0) for estimate in estimates)

        initial = schedule.initial_parameters(len(seeds))
        batches = cycle_batches(pool, config.length_steps)
        final, state = _fit(config, "length", normalizer, initial, loss, batches, device, advance)
        weights = list(rows(final, dots, tested_on))
        measured = [_measure_rows(w, 0) for w in weights]
        by_length = torch.stack([m["effective_support"] for m in measured], -1)
        found.append(state | _to_host(measured[-1] | {"effective_support_by_length": by_length}))
        attention.append([w.cpu().numpy() for w in weights])
    mse = np.empty((len(found), len(seeds), len(length.test_lengths)))
    for i, context in enumerate(contexts):
        covariance = length.task.covariance(context.keys)
        for j, n in enumerate(length.test_lengths):
            weights = np.stack([w[j][:, :, i].T for w in attention])[None]
            mse[:, i, j] = length.task.linear_risk(context.prefix(n), weights, covariance[:, :n, :n])[0].mean(1)
    return [one | {"mse_by_length": errors} for one, errors in zip(found, mse, strict=True)]


def _upload(
    task: NoisyRetrievalTask, drawn: Sequence[Retrievals], device: torch.device, kind: torch.dtype
) -> tuple[RetrievalBatch, Tensor]:
    """Problems and their exact posteriors on the device, one set a member."""
    return batch_to_device(drawn, device, kind), stack_members([task.posterior(d) for d in drawn], device).to(kind)


def _fit(
    config: NormalizersConfig,
    task: str,
    normalizer: Normalizer,
    model: Parameters,
    loss: Callable[[Parameters, Any], Tensor],
    batches: Iterable[Any],
    device: torch.device,
    advance: Callable[[int], None],
) -> tuple[Parameters, Found]:
    """Train: the parameters in float64 (zero where the model diverged), and by member `diverged`, `unmoved` and `alpha`.

    unmoved: no parameter has changed at all, as none ever had a gradient. alpha: NaN where none is learned.
    """
    members = next(iter(model.values())).shape[-1]
    initial = model | normalizer.initial_parameters(members)
    if normalizer.name == "rela":
        initial["offset"] = torch.zeros(members, dtype=torch.float64)
    start = {k: v.to(device, getattr(torch, config.dtype)) for k, v in initial.items()}
    steps = getattr(config, f"{task}_steps")
    cooldown = steps // _COOLDOWN_SHARE
    trained = train_with_cooldown(
        loss,
        start,
        steps=steps - cooldown,
        cooldown_steps=cooldown,
        learning_rate=getattr(config, f"{task}_learning_rate"),
        batches=batches,
        compile=config.compile,
        progress=advance,
    )
    unmoved = torch.stack([(v == start[k]).reshape(-1, members).all(0) for k, v in trained.parameters.items()]).all(0)
    final = {k: torch.where(trained.diverged, 0.0, v.double()) for k, v in trained.parameters.items()}
    alpha = normalizer.alpha(final) if normalizer.name == "entmax" else torch.full((members,), torch.nan)
    return final, _to_host({"diverged": trained.diverged, "unmoved": unmoved, "alpha": alpha})


def _normalise(normalizer: Normalizer, parameters: Parameters, scores: Tensor, tau: Tensor, dim: int) -> Tensor:
    """The rows of scores z that tau has scaled; for `rela` the rows of tau (z - b), b one learned offset a member.

    The offset is what a constant coordinate of the keys would add: it decides which keys ReLA keeps, for which W alone is a poor
    tool. No other normaliser has a gradient in it.
    """
    if normalizer.name == "rela":
        scores = scores - tau * parameters["offset"]
    return normalizer.rows(parameters, scores, dim)


def _squared_distance(rows: Tensor, target: Tensor) -> Tensor:
    """mean over rows of sum_j (p_j - target_j)^2, of every member."""
    return (rows - target).square().sum(1).mean(0)


def _measure_rows(rows: Float[Tensor, "*row member"], dim: int) -> dict[str, Tensor]:
    """Means over the rows of each member: how spiky, how sparse, how many dead.

    Effective support and largest weight are over the rows with a key left. A dead row has at most one key left, so that its
    weights do not move with its scores: it has no gradient.
    """
    left = (rows > 0).sum(dim)
    some = left > 0
    spread = torch.where(some, torch.special.entr(rows).sum(dim).exp(), 0.0)
    return {
        "effective_support": spread.sum(0) / some.sum(0),
        "largest_weight": rows.amax(dim).sum(0) / some.sum(0),
        "zero_fraction": zero_fraction(rows, dim).mean(0),
        "dead_rows": (left <= 1).double().mean(0),
    }


def _measure_prediction(rows: Float[Tensor, "row key member"], target: Float[Tensor, "row key member"]) -> Found:
    """`_measure_rows`, and how far the rows are from the distributions that they predict."""
    stuck = ((rows > 0).sum(1) <= 1) & ((rows - target).abs().sum(1) > 1)
    return _to_host(
        _measure_rows(rows, 1)
        | {
            "error": _squared_distance(rows, target),
            "l1_error": row_l1(rows, target),
            "stuck_rows": stuck.double().mean(0),
        }
    )


def _to_host(values: dict[str, Tensor]) -> Found:
    return {name: value.cpu().numpy() for name, value in values.items()}
