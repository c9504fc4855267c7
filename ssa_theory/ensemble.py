"""Ensemble training: many independent models as one tensor program, the model axis `member` last in
every tensor.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from ssa_theory.lanes import Unsupported
from ssa_theory.steps import Loss, Optimizer, Parameters, Plain, State, notice, pays, steps_for

COOLDOWN = 0.1  # the factor on the learning rate in the cooldown steps


@dataclass(frozen=True)
class Trained:
    """A trained ensemble.

    parameters: by name, (..., member). history: what `measure` returned at the recorded steps,
    stacked: (record, ..., member). diverged: members whose loss was ever not finite; their numbers
    mean nothing.
    """

    parameters: Parameters
    history: dict[str, Tensor]
    diverged: Bool[Tensor, " member"]


def train(
    loss: Loss,
    parameters: Parameters,
    *,
    steps: int,
    learning_rate: float,
    cooldown_steps: int = 0,
    optimizer: Optimizer = "adam",
    compile: bool | None = False,
    batches: Iterable[Any] | None = None,
    measure: Callable[[Parameters], dict[str, Tensor]] | None = None,
    record: Sequence[int] = (),
    progress: Callable[[int], None] | None = None,
    rates: Sequence[float] | None = None,
    shared: int = 0,
    dtype: torch.dtype | None = None,
) -> Trained:
    """Minimise every member's loss for `steps` steps, and then for `cooldown_steps` at a tenth of the
    learning rate, the optimiser started anew.

    loss(parameters, batch) gives one value per member. Members share no parameter, so the gradient
    of the summed loss is each member's own gradient, and elementwise optimisers keep them apart: a
    member that diverges fills its own column with NaN and no other. batches: one per step; None for
    a loss without data. measure(parameters) is stored at the steps in `record` (0 is the
    initialisation), none of the cooldown's. progress(n) is told of every n finished steps. compile: the loss, its
    gradient and the optimiser as one function, which takes about a second for each new loss and
    shape, whatever its tensors and rates, and pays for long trainings of many models; None: where
    it pays, by an estimate that is the same on any machine. The numbers agree to rounding. Where
    that is impossible training goes on without, with one RuntimeWarning.

    rates: a factor on the learning rate for each member. Adam's step does not depend on the scale
    of the gradient, so a parameter written as s phi, phi trained at the rate r, moves as it would
    at the rate s r (but for Adam's epsilon, 1e-8); plain gradient descent moves as at s^2 r. shared:
    steps of other trainings with rates that have this one's step, and share what it costs to
    compile. dtype: precision of training, by default the parameters'.

    Nothing inside the loop waits for the device. Raises ValueError for steps < 0, a learning rate
    that is not positive and finite, an unknown optimiser, or too few batches.

    >>> goals = torch.tensor([1.0, 2.0, 3.0])  # of three models

    >>> def loss(parameters: Parameters, batch: Any) -> Tensor:
    ...     return (parameters["x"] - goals).square()

    >>> done = train(loss, {"x": torch.zeros(3)}, steps=400, learning_rate=0.05)
    >>> done.parameters["x"].round(decimals=2)
    tensor([1., 2., 3.])
    """
    least, total = min(steps, cooldown_steps), steps + cooldown_steps
    if total != int(total):
        raise ValueError(f"the number of steps must be whole, got {total}: choose an integer")
    if least < 0:
        raise ValueError(f"the number of steps must be at least 0, got {least}: choose steps >= 0")
    if not 0 < learning_rate < float("inf"):
        raise ValueError(
            f"the learning rate must be positive and finite, got {learning_rate}: choose one above 0"
        )
    if optimizer not in ("adam", "sgd"):
        raise ValueError(f"unknown optimizer {optimizer!r}: choose adam or sgd")

    def start(parameters: Parameters) -> State:
        return State.of({k: v if dtype is None else v.to(dtype) for k, v in parameters.items()})

    state, working = start(parameters), None
    recorded, wanted = [], {s for s in record if s <= steps}
    source = iter(repeat(None) if batches is None else batches)
    first = list(islice(source, min(1, total)))
    source = chain(first, source)
    compiled = pays(loss, state, first, total + shared) if compile is None else compile
    if rates is not None:
        learning_rate = learning_rate * max(rates)
        # Where it is compiled, equal rates have the step that others have: one serves all.
        if compiled or min(rates) < max(rates):
            relative = torch.tensor(rates, dtype=torch.float64, device=state.diverged.device)
            scale = relative / max(rates)
            scale = scale.sqrt() if optimizer == "sgd" else scale
            factor = working = scale.to(dtype or scale.dtype)
            plain, plain_measure = loss, measure
            state = start({k: v / scale for k, v in parameters.items()})

            def scaled_loss(scaled: Parameters, batch: Any) -> Tensor:
                return plain({k: v * factor for k, v in scaled.items()}, batch)

            loss = scaled_loss
            if plain_measure is not None:

                def scaled_measure(scaled: Parameters) -> dict[str, Tensor]:
                    return plain_measure({k: v * factor for k, v in scaled.items()})

                measure = scaled_measure

    steps_of = steps_for(loss, state, optimizer, learning_rate, compiled)
    done = begun = 0
    while True:
        if measure is not None and done in wanted:
            with torch.no_grad():
                # A copy: what measure returns may be a parameter itself, which the optimiser goes
                # on changing.
                recorded.append(
                    {name: value.clone() for name, value in measure(state.parameters).items()}
                )
        if done == total:
            break
        if done == steps:
            begun, learning_rate = steps, COOLDOWN * learning_rate
            steps_of.restart(learning_rate)
        stop = min(s for s in (*wanted, steps, total) if s > done)
        count = min(steps_of.most, stop - done)
        given = list(islice(source, count))
        if len(given) < count:
            raise ValueError(
                f"the batches ran out after {done + len(given)} of {total} steps: give one per step"
            )
        try:
            steps_of.advance(given)
        except Unsupported as reason:
            steps_of = Plain(loss, state, optimizer, learning_rate)
            steps_of.advance(
                given[state.taken - (done - begun) :]
            )  # an error of the loss is the caller's
            notice(" ".join(str(reason).split())[:120])
        done += len(given)
        if progress is not None:
            progress(len(given))

    trained = {name: p.detach() for name, p in state.parameters.items()}
    if working is not None:
        trained = {name: p * working for name, p in trained.items()}
    finite = [torch.isfinite(p).reshape(-1, p.shape[-1]).all(0) for p in trained.values()]
    history = {
        name: torch.stack([entry[name] for entry in recorded])
        for name in (recorded[0] if recorded else {})
    }
    return Trained(trained, history, state.diverged | ~torch.stack(finite).all(0))
