"""The problem of a trigger: evaluation by loops, what reaches zero and what stops at the floor."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from analysis.problems import Fitted, Training, TriggerProblem, compare, fit, train_all
from ssa_theory.mechanism import MECHANISMS, Misfit, Parameters, mechanism
from ssa_theory.seeds import Stream, member_generator
from tasks import TriggerTask

CPU = torch.device("cpu")
TASK = TriggerTask(content=3, length=5, probability=0.4)
FAR = 40.0  # a logit of certainty


def parameters_of(problem: TriggerProblem, name: str, **values: object) -> Parameters:
    """One model's, all zero but for these: the scores of the common (or the anchor's) coordinate,
    and the value map, which keeps the content alone.
    """
    layer, c = problem.layer(mechanism(name)), problem.task.content
    start = layer.initial_parameters([np.random.default_rng(0)])
    made = {k: torch.zeros_like(v) for k, v in start.items()}
    made["value"][range(c), range(c), 0] = 1.0
    for key, value in values.items():
        made[key.replace("__", ".")] += torch.tensor(value, dtype=torch.float64).reshape(
            made[key.replace("__", ".")].shape
        )
    return made


def scores(problem: TriggerProblem, triggered: float, silent: float) -> list[list[float]]:
    """W of which only the last coordinate of the keys is read."""
    rest = [0.0] * (problem.task.dim - 1)
    return [[*rest, triggered], [*rest, silent]]


def measured(problem: TriggerProblem, name: str, parameters: Parameters) -> dict[str, float]:
    block = problem.block([3], Training(1, 0.1), CPU)
    none = torch.zeros(1, dtype=torch.bool)
    found = block.evaluate(
        problem.layer(mechanism(name)).evaluated, Fitted(parameters, {}, none, none)
    )
    return {k: v.item() for k, v in found.items()}


REACH_ZERO = {
    "sink": (FAR, -FAR, {}),
    "off-by-one": (FAR, -FAR, {}),
    "gate-and-sink": (FAR, -FAR, {}),
    "softpick": (1.0, -1.0, {}),
    "rela": (1.0, -1.0, {}),
    "threshold": (1.0, -1.0, {}),
    "gated-head": (0.0, 0.0, {"gate__vector": [FAR, -FAR]}),
    "gated": (0.0, 0.0, {"gate__weight": [[FAR] * 4, [-FAR] * 4]}),
}


@pytest.mark.parametrize("name", REACH_ZERO)
def test_a_sink_a_gate_and_unnormalised_rows_lose_nothing(name: str) -> None:
    problem = TriggerProblem(TASK, held_out=50)
    up, down, others = REACH_ZERO[name]
    parameters = parameters_of(problem, name, weight=scores(problem, up, down), **others)
    found = measured(problem, name, parameters)
    assert found["risk"] < 1e-24
    mass = found["silent_mass"]
    assert mass == pytest.approx(1) if "gated" in name else mass < 1e-15
    assert name not in ("softpick", "rela", "threshold") or mass == 0


def test_an_anchor_is_a_sink_for_softmax() -> None:
    problem = TriggerProblem(TriggerTask(3, 5, 0.4, anchor=True), held_out=50)
    parameters = parameters_of(problem, "vanilla", weight=scores(problem, -FAR, FAR))
    found = measured(problem, "vanilla", parameters)
    assert found["risk"] < 1e-24
    assert found["silent_mass"] < 1e-15
    assert problem.form.dim == 5


@pytest.mark.parametrize("name", ["vanilla", "ssa-query", "differential", "sparsemax"])
def test_uniform_rows_are_at_the_floor_whatever_the_temperature(name: str) -> None:
    problem = TriggerProblem(TASK, held_out=50)
    parameters = parameters_of(problem, name)
    parameters["value"] *= TASK.probability
    found, exact = measured(problem, name, parameters), problem.describe([3]).isel(seed=0)
    assert found["risk"] == pytest.approx(exact["held_out_floor"].item(), rel=1e-12)
    tested = TASK.sample(50, member_generator(3, Stream.EVALUATION))
    square = (tested.content.mean(1) ** 2).sum(1).mean()
    assert exact["held_out_zero"].item() == pytest.approx(0.4 * square)
    assert exact["floor"].item() == pytest.approx(0.6 * 0.4 * 3 / 5)
    assert exact["zero"].item() == pytest.approx(0.4 * 3 / 5)
    assert exact["bayes"].item() == 0


@pytest.mark.parametrize("name", ["vanilla", "sink"])
def test_risk_and_loss_are_the_formula(name: str) -> None:
    problem = TriggerProblem(TASK, batch_size=6, held_out=7)
    training = Training(3, 0.05, 1, dtype="float64")
    block, layer = problem.block([5, 2], training, CPU), problem.layer(mechanism(name))
    done = fit(block, layer, training)
    found = {k: v.numpy() for k, v in block.evaluate(layer, done).items()}
    batches = list(block.batches(training))
    assert len(batches) == 4
    loss = block.loss(layer, done.parameters, batches[0])
    own = {k: v.numpy() for k, v in done.parameters.items()}
    for m, seed in enumerate(block.seeds):

        def answer(content: np.ndarray, triggered: bool, m: int = m) -> tuple[np.ndarray, float]:
            keys = [[*z, 1.0] for z in content]
            weight = [np.exp(own["weight"][0 if triggered else 1, :, m] @ k) for k in keys]
            extra = np.exp(own["normalizer.sink"][m]) if name == "sink" else 0.0
            row = np.array(weight) / (sum(weight) + extra)
            return sum(
                r * (k @ own["value"][..., m]) for r, k in zip(row, keys, strict=True)
            ), row.sum()

        tested = TASK.sample(7, member_generator(seed, Stream.EVALUATION)).content
        yes, no = ([answer(z, t) for z in tested] for t in (True, False))
        wanted = [np.array([*z.mean(0), 0.0]) for z in tested]
        told = np.mean([((y - t) ** 2).sum() for (y, _), t in zip(yes, wanted, strict=True)])
        silent = np.mean([(y**2).sum() for y, _ in no])
        assert_allclose(found["triggered_risk"][m], told, rtol=1e-10)
        assert_allclose(found["silent_risk"][m], silent, rtol=1e-10)
        assert_allclose(found["risk"][m], 0.4 * told + 0.6 * silent, rtol=1e-10)
        assert_allclose(found["silent_mass"][m], np.mean([mass for _, mass in no]), rtol=1e-10)
        drawn = TASK.sample(24, member_generator(seed, Stream.DATA))
        errors = [
            ((answer(z, t)[0] - t * np.array([*z.mean(0), 0.0])) ** 2).sum()
            for z, t in zip(drawn.content[:6], drawn.triggered[:6], strict=True)
        ]
        assert_allclose(loss[m].item(), np.mean(errors), rtol=1e-10)


def test_training_finds_the_floor_and_zero() -> None:
    """Vanilla and a temperature stop at the floor; a sink and a gate go through it."""
    names = ["vanilla", "ssa-query", "sink", "gated-head"]
    found = compare(
        TriggerProblem(TASK), names, seeds=2, steps=300, learning_rate=0.05, cooldown_steps=60
    )
    ratio = (found["risk"] / found["held_out_floor"]).mean("seed")
    for name in ("vanilla", "ssa-query"):
        assert 0.98 < ratio.sel(mechanism=name) < 1.1
    for name in ("sink", "gated-head"):
        assert ratio.sel(mechanism=name) < 0.1


def test_every_mechanism_that_fits_is_trained_and_measured() -> None:
    problem = TriggerProblem(TASK, batch_size=4, held_out=8)
    fitting, refused = [], set()
    for name, entry in MECHANISMS.items():
        try:
            problem.layer(entry)
        except Misfit:
            refused.add(name)
        else:
            fitting.append(entry)
    found = train_all(problem, fitting, [0, 1], Training(2, 0.05), CPU)
    assert np.isfinite(found["risk"]).all()
    assert {"ssmax", "yarn", "ssa-feature", "ssa-degree"} <= refused
    assert {"ssa", "differential", "asentmax", "entropy-adaptive", "gated"} <= {
        m.name for m in fitting
    }
