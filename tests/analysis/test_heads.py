"""Heads against loops, and the problem of the paper's graphs."""

import numpy as np
import pytest
import torch

from analysis.problems import Training, fit, train_all
from analysis.problems.heads import ClassifierHead, RowHead, TiedHead
from analysis.problems.small_graphs import SmallGraphProblem
from ssa_theory.mechanism import Misfit, mechanism
from ssa_theory.seeds import Stream, member_generator
from tasks.small_graphs import connected_graphs, neighbour_law

CPU = torch.device("cpu")
HEADS = {
    "row": RowHead(),
    "tied": TiedHead(),
    "fixed": ClassifierHead(),
    "learned": ClassifierHead(learned_embeddings=True),
}
MODELS = ("vanilla", "scaled", "ssa-degree", "ssa-query", "ssa-free")


def fitted(problem, name, seeds=range(3), steps=5, **settings):
    """Block, layer and trained members in float64."""
    training = Training(steps, 0.05, dtype="float64", **settings)
    block, layer = problem.block(seeds, training, CPU), problem.layer(mechanism(name))
    return block, layer, fit(block, layer, training)


def numpy_rows(scores):
    weight = np.exp(scores - scores.max())
    return weight / weight.sum()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["vanilla", "ssa-degree"])
def test_the_prediction_of_every_head_is_the_formula(head, name):
    problem = SmallGraphProblem(5, 6, HEADS[head])
    block, layer, done = fitted(problem, name)
    prediction = HEADS[head].prediction(layer, done.parameters, block.inputs).numpy()
    own = {k: v.numpy() for k, v in done.parameters.items()}
    for m in range(3):
        e = block.inputs.query.vector[..., m].numpy()
        e = own["embedding"][..., m] if head == "learned" else e
        degree = connected_graphs(5)[problem.graphs([m])[0]].sum(1)
        theta = own["query.theta"][..., m] if name == "ssa-degree" else np.zeros(5)
        for i in range(5):
            row = numpy_rows(np.exp(theta[degree[i]]) * (e[i] @ own["weight"][..., m] @ e.T))
            if head in ("fixed", "learned"):
                output = sum(row[j] * (e[j] @ own["value"][..., m]) for j in range(5))
                row = numpy_rows(own["classifier"][..., m] @ output)
            assert np.allclose(prediction[i, :, m], row, rtol=1e-10, atol=1e-12)


def test_a_tied_classifier_returns_the_row():
    """C E^T = I: C sum_j p_ij e_j = p_i, with C solved for here."""
    block, layer, done = fitted(SmallGraphProblem(6, 7, TiedHead()), "ssa-query")
    prediction = TiedHead().prediction(layer, done.parameters, block.inputs).numpy()
    rows = layer.rows(done.parameters, block.inputs).numpy()
    for m in range(3):
        e = block.inputs.query.vector[..., m].numpy()
        classifier = np.linalg.pinv(e).T
        assert np.allclose(classifier @ e.T, np.eye(6), atol=1e-9)
        for i in range(6):
            output = (rows[i, :, m, None] * e).sum(0)
            assert np.allclose(classifier @ output, prediction[i, :, m], atol=1e-9)


def test_a_tied_head_needs_independent_embeddings():
    with pytest.raises(ValueError, match="needs dim >= nodes = 8, got 4: raise dim"):
        SmallGraphProblem(8, 4, TiedHead())


def test_rows_as_prediction_refuse_exact_zeros_and_classifiers_do_not():
    with pytest.raises(Misfit, match="another head"):
        SmallGraphProblem().layer(mechanism("sparsemax"))
    assert SmallGraphProblem(head=ClassifierHead()).layer(mechanism("sparsemax")).form.values


def test_a_seed_names_a_graph_and_every_graph_is_taken_once():
    problem = SmallGraphProblem(6)
    count = len(connected_graphs(6))
    number = problem.graphs(range(count))
    assert sorted(number) == list(range(count))
    assert (number != np.arange(count)).any()  # not by number of edges
    assert np.array_equal(problem.graphs(range(count, 2 * count)), number)
    described = problem.describe([3, 1])
    law = neighbour_law(connected_graphs(6)[number[[3, 1]]])
    entropy = -np.sum(law * np.log(np.where(law > 0, law, 1)), axis=2)
    assert np.allclose(described["bayes"], entropy.mean(1))
    assert np.allclose(described["entropy_spread"], entropy.std(1))
    block = problem.block([3, 1], Training(1, 0.1), CPU)
    assert np.allclose(block.target.permute(2, 0, 1), law)


@pytest.mark.parametrize("head", HEADS)
def test_the_gap_is_the_divergence_from_the_law(head):
    """mean_i KL(P*_i || P_hat_i), summed here edge by edge."""
    problem = SmallGraphProblem(5, 6, HEADS[head])
    block, layer, done = fitted(problem, "vanilla", cooldown_steps=2)
    found = block.evaluate(layer, done)
    prediction = found["learned_transition_matrix"].numpy()
    for m in range(3):
        law = neighbour_law(connected_graphs(5)[problem.graphs([m])[0]])
        own = [
            law[i, j] * np.log(law[i, j] / prediction[i, j, m])
            for i in range(5)
            for j in range(5)
            if law[i, j]
        ]
        assert found["final_gap"][m].item() == pytest.approx(sum(own) / 5, rel=1e-9)
        l1 = np.abs(law - layer.rows(done.parameters, block.inputs)[..., m].numpy()).sum() / 5
        if head != "learned":  # whose map is that of its own embeddings
            assert found["map_l1"][m].item() == pytest.approx(l1, rel=1e-9)
        norm = np.linalg.svd(done.parameters["weight"][..., m].numpy())[1][0]
        assert found["effective_weight"][m].item() == pytest.approx(norm, rel=1e-9)


def test_sampled_labels_follow_the_law_and_are_the_members_own():
    steps, batch = 400, 50
    problem = SmallGraphProblem(5, 6, labels="sampled", batch_size=batch)
    training = Training(steps, 0.05, cooldown_steps=3)
    block = problem.block([4, 9], training, CPU)
    queries = list(block.batches(training))
    assert len(queries) == steps + 3
    weight = torch.stack([q.weight for q in queries])
    drawn = torch.stack([q.target for q in queries]) * weight.unsqueeze(2) * batch
    assert torch.allclose(drawn, drawn.round(), atol=1e-3)  # numbers of labels
    assert torch.allclose(weight.sum(1), torch.ones(steps + 3, 2), atol=1e-5)
    law = block.target / 5
    n = batch * (steps + 3)
    error = (drawn.sum(0) / n - law).abs()
    assert (drawn.sum(0)[law == 0] == 0).all()
    assert (error <= 4.5 * (law * (1 - law) / n).sqrt()).all()
    alone = problem.block([9], training, CPU)
    for q, own in zip(queries, alone.batches(training), strict=True):
        assert torch.equal(q.target[..., 1:], own.target)
    again = list(block.batches(training))
    assert all(torch.equal(a.target, b.target) for a, b in zip(queries, again, strict=True))


def test_a_query_that_was_not_drawn_weighs_nothing():
    training = Training(20, 0.05)
    block = SmallGraphProblem(8, 8, labels="sampled", batch_size=1).block([0], training, CPU)
    for queries in block.batches(training):
        assert (queries.weight > 0).sum() == 1
        assert queries.weight.sum() == 1


@pytest.mark.parametrize("head", HEADS)
def test_members_do_not_depend_on_each_other(head):
    problem = SmallGraphProblem(6, 6, HEADS[head])
    models = [mechanism(m) for m in MODELS]
    together = train_all(problem, models, range(4), Training(6, 0.05, dtype="float64"), CPU)
    alone = train_all(problem, models, [2], Training(6, 0.05, dtype="float64"), CPU)
    for name in ("l1_error", "map_l1", "weight_norm"):
        assert np.allclose(together[name].sel(seed=[2]), alone[name], rtol=1e-9)


def test_with_a_classifier_the_loss_does_not_fix_the_map():
    """Any rows that tell queries apart predict any law: the identity map, and rows far from it."""
    law = neighbour_law(connected_graphs(5)[7])
    rows = np.full((5, 5), 0.05) + 0.75 * np.roll(np.eye(5), 2, axis=1)
    assert np.allclose(rows.sum(1), 1)
    wanted = np.log(np.where(law > 0, law, 1e-12))
    classifier = np.linalg.solve(rows, wanted).T  # C y_i = wanted_i, with E = W_v = I, y_i = p_i
    prediction = np.exp(rows @ classifier.T)
    assert np.abs(prediction / prediction.sum(1, keepdims=True) - law).max() < 1e-10
    assert np.abs(rows - law).sum(1).mean() > 0.5


def test_a_head_draws_its_parameters_after_the_layer():
    """Every head starts from the same W."""
    training = Training(1, 0.05)
    start = {}
    for head in HEADS:
        problem = SmallGraphProblem(6, 6, HEADS[head])
        block = problem.block([5], training, CPU)
        generators = [member_generator(5, Stream.PARAMETER)]
        start[head] = block.initial_parameters(problem.layer(mechanism("vanilla")), generators)
    for head in HEADS:
        assert torch.equal(start[head]["weight"], start["row"]["weight"])
    assert torch.equal(start["fixed"]["classifier"], start["learned"]["classifier"])
    embedding = SmallGraphProblem(6, 6).block([5], training, CPU).inputs.query.vector
    assert torch.equal(start["learned"]["embedding"], embedding)
