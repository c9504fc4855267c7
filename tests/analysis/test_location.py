"""The problem of a single location: vanilla is Bayes, and nothing is below it."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from analysis.problems import Fitted, LocationProblem, Training, compare, fit, train_all
from ssa_theory.mechanism import MECHANISMS, Misfit, mechanism
from ssa_theory.seeds import Stream, member_generator
from tasks import LocationTask

CPU = torch.device("cpu")
TASK = LocationTask(dim=3, length=4, mark=2.0, noise=0.3)


@pytest.mark.parametrize("scale", [1.0, 1.3])
def test_vanilla_is_bayes_at_one_temperature(scale: float) -> None:
    problem = LocationProblem(TASK, held_out=40)
    layer = problem.layer(mechanism("vanilla"))
    weight, value = torch.zeros(3, 1, dtype=torch.float64), torch.zeros(3, 3, 1).double()
    weight[0], value[1, 1] = scale * TASK.mark, 1.0
    none = torch.zeros(1, dtype=torch.bool)
    fitted = Fitted({"weight": weight, "value": value}, {}, none, none)
    found = problem.block([3], Training(1, 0.1), CPU).evaluate(layer, fitted)
    bayes = problem.describe([3])["bayes"].item()
    if scale == 1.0:
        assert found["excess"].item() < 1e-28
        assert found["risk"].item() == pytest.approx(bayes, rel=1e-14)
    else:
        assert found["excess"].item() > 1e-4


def test_risk_loss_and_baselines_are_the_formula() -> None:
    problem = LocationProblem(TASK, batch_size=5, held_out=9)
    training = Training(3, 0.05, dtype="float64")
    block, layer = problem.block([4, 1], training, CPU), problem.layer(mechanism("vanilla"))
    done = fit(block, layer, training)
    found, exact = block.evaluate(layer, done), problem.describe([4, 1])
    first = next(block.batches(training))
    loss = block.loss(layer, done.parameters, first)
    own = {k: v.numpy() for k, v in done.parameters.items()}
    for m, seed in enumerate(block.seeds):

        def answer(x: np.ndarray, m: int = m) -> float:
            z = np.exp([own["weight"][:, m] @ t for t in x])
            return float(sum(z[j] / z.sum() * (x[j] @ own["value"][:, 1, m]) for j in range(4)))

        tested = TASK.sample(9, member_generator(seed, Stream.EVALUATION)).tokens
        bayes, variance = TASK.bayes(tested), TASK.variance(tested)
        excess = np.mean([(answer(x) - b) ** 2 for x, b in zip(tested, bayes, strict=True)])
        assert_allclose(found["excess"][m].item(), excess, rtol=1e-10)
        assert_allclose(found["risk"][m].item(), excess + variance.mean(), rtol=1e-10)
        naive = np.mean([(x[:, 1].mean() - b) ** 2 for x, b in zip(tested, bayes, strict=True)])
        assert_allclose(exact["bayes"][m], variance.mean())
        assert_allclose(exact["naive"][m], naive + variance.mean())
        drawn = TASK.sample(15, member_generator(seed, Stream.DATA))
        errors = [
            (answer(x) - y) ** 2 for x, y in zip(drawn.tokens[:5], drawn.target[:5], strict=True)
        ]
        assert_allclose(loss[m].item(), np.mean(errors), rtol=1e-10)
    assert exact["zero"].values.tolist() == pytest.approx([1.09, 1.09])
    assert exact["oracle"].values.tolist() == pytest.approx([0.09, 0.09])
    assert (exact["bayes"] < exact["naive"]).all()


def test_training_comes_near_bayes() -> None:
    found = compare(
        LocationProblem(TASK), ["vanilla", "ssa"], seeds=2, steps=300, cooldown_steps=60
    )
    gap = found["naive"] - found["bayes"]
    assert (found["excess"] / gap < 0.05).all()
    assert_allclose(found["risk"] - found["excess"], (0 * found["risk"] + found["bayes"]))


def test_every_mechanism_that_fits_is_trained_and_never_below_bayes() -> None:
    problem = LocationProblem(TASK, batch_size=4, held_out=8)
    fitting, refused = [], set()
    for name, entry in MECHANISMS.items():
        try:
            problem.layer(entry)
        except Misfit:
            refused.add(name)
        else:
            fitting.append(entry)
    found = train_all(problem, fitting, [0, 1], Training(2, 0.05), CPU)
    assert (found["risk"] >= found["bayes"]).all()
    assert {"gated", "ssmax", "ssa-free"} <= refused
    assert {"vanilla", "ssa", "sink", "differential", "softpick"} <= {m.name for m in fitting}
