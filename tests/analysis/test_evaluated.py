"""A mechanism that is evaluated with another normaliser than it is trained with."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from analysis.problems import GraphProblem, LocationProblem, Training, fit, train_all
from analysis.problems.hierarchy import HierarchyProblem
from ssa_theory.mechanism import Misfit, mechanism
from tasks import LocationTask

CPU = torch.device("cpu")
BOTH = [mechanism("vanilla"), mechanism("entropy-adaptive")]


def adapted(row: np.ndarray) -> np.ndarray:
    """softmax(beta z) of a softmax's row, whose logarithm is z up to a constant."""
    entropy = -(row * np.log(row)).sum()
    beta = max(1.0, np.polyval([-0.037, 0.481, -2.3, 4.917, -1.791], entropy))
    return row**beta / (row**beta).sum()


def test_it_is_trained_like_vanilla_and_measured_otherwise() -> None:
    problem = LocationProblem(LocationTask(length=12), batch_size=8, held_out=30)
    training = Training(20, 0.05, 4, dtype="float64")
    block, (plain, own) = problem.block([3, 5], training, CPU), map(problem.layer, BOTH)
    done = [fit(block, layer, training).parameters for layer in (plain, own)]
    for name, value in done[0].items():
        assert torch.equal(value, done[1][name])
    found = train_all(problem, BOTH, [3, 5], training, CPU)
    inputs = problem.inputs(block.tokens)
    rows = np.moveaxis(plain.rows(done[0], inputs).numpy(), 1, -1)
    sharper = np.apply_along_axis(adapted, -1, rows)
    values = np.einsum("sldm,dm->slm", block.tokens.numpy(), done[0]["value"][:, 1].numpy())
    for name, used in (("vanilla", rows), ("entropy-adaptive", sharper)):
        answer = np.einsum("qml,qlm->qm", used, values)
        excess = ((answer - block.bayes.numpy()) ** 2).mean(0)
        assert_allclose(found["excess"].sel(mechanism=name), excess, rtol=1e-9)
    assert abs(sharper - rows).max() > 0.01


def test_the_gap_of_a_row_is_that_of_the_row_it_predicts() -> None:
    found = train_all(GraphProblem(dim=4), BOTH, [0, 1], Training(60, 0.05), CPU)
    truth, learned = found["transition_matrix"], found["learned_transition_matrix"]
    entropy = -(truth * np.log(truth.where(truth > 0, 1.0))).sum("next").mean("node")
    loss = -(truth * np.log(learned)).sum("next").mean("node")
    last = found["cross_entropy_gap"].isel(step=-1)
    assert_allclose((loss - entropy).transpose(*last.dims), last, rtol=1e-4)
    rows = learned.sel(mechanism="vanilla").transpose("seed", "node", "next").values
    wanted = np.apply_along_axis(adapted, -1, rows)
    assert_allclose(learned.sel(mechanism="entropy-adaptive").values, wanted, rtol=1e-4)
    assert abs(wanted - rows).max() > 0.01


@pytest.mark.parametrize(
    ("problem", "why"),
    [
        (GraphProblem(context="prompt"), "keys that stand once"),
        (HierarchyProblem(context="prompt"), "context vocabulary"),
    ],
    ids=["graph", "hierarchy"],
)
def test_equal_tokens_of_a_prompt_do_not_share_its_entropy(problem: object, why: str) -> None:
    assert isinstance(problem, GraphProblem | HierarchyProblem)
    problem.layer(mechanism("vanilla"))
    with pytest.raises(Misfit, match=f"mechanism entropy-adaptive needs {why}"):
        problem.layer(mechanism("entropy-adaptive"))
