"""The hierarchy experiment: prompts by loops, the floor by enumeration, claims on known data."""

import itertools

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.optimize import minimize

from analysis.experiments import EXPERIMENTS
from analysis.experiments.base import silent
from analysis.problems import Training, fit, train_all
from analysis.problems.heads import ClassifierHead, RowHead
from analysis.problems.hierarchy import HierarchyProblem
from ssa_theory.mechanism import Misfit, mechanism
from ssa_theory.seeds import Stream, member_generator
from tests.analysis.evidence import found, missing, said

CPU = torch.device("cpu")
HEADS = {"row": RowHead(), "classifier": ClassifierHead()}
HIERARCHY = EXPERIMENTS["hierarchy"]


@pytest.fixture(scope="module")
def smoke():
    config = HIERARCHY.preset("smoke")
    return config, HIERARCHY.run(config, silent)


def problem_of(head, context, **settings):
    prompts = {"prompt_length": 5, "batch_size": 4, "pool": 3, "held_out": 6} | settings
    return HierarchyProblem(2, 2, 4, HEADS[head], context, **prompts)


def softmax(scores):
    weight = np.exp(scores - scores.max())
    return weight / weight.sum()


@pytest.mark.parametrize("name", ["vanilla", "key-bias", "ssa-free", "ssa"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("context", ["vocabulary", "prompt"])
def test_attention_prediction_and_measures_are_the_formula(context, head, name):
    """Softmax over the positions of each prompt, one after the other."""
    problem = problem_of(head, context)
    training = Training(30, 0.05, dtype="float64")
    block, layer = problem.block([3, 8], training, CPU), problem.layer(mechanism(name))
    done = fit(block, layer, training)
    for part in done.parameters.values():  # nothing stays where it started
        part += 0.3 * torch.randn(part.shape, generator=torch.Generator().manual_seed(0)).double()
    measured = block.evaluate(layer, done)
    z = layer.scores(done.parameters, block.inputs).numpy()
    tau = layer.inverse_temperature("value", done.parameters, block.inputs).numpy()
    own = {k: v.numpy() for k, v in done.parameters.items()}
    below = problem.task.below
    for m, seed in enumerate([3, 8]):
        prompts = [np.r_[[j for j in range(7) if j != i], i] for i in range(7)]
        if context == "prompt":
            generator = member_generator(seed, Stream.EVALUATION)
            prompts = problem.task.sample_prompts(6, 5, generator).tokens
        vector = block.tokens.vector[..., m].numpy()
        l1, tv, gap = [], [], []
        for tokens in prompts:
            query = tokens[-1]
            p = softmax(z[query, tokens, m])
            row = np.array([p[tokens == j].sum() for j in range(7)])
            predicted = row
            if head == "classifier":
                y = sum(
                    p[i] * tau[j, m] * vector[j] @ own["value"][..., m]
                    for i, j in enumerate(tokens)
                )
                predicted = softmax(own["classifier"][..., m] @ y)
            possible = [j for j in range(7) if j in tokens and below[query, j]]
            law = np.array([1 / len(possible) if j in possible else 0 for j in range(7)])
            l1.append(np.abs(row - law).sum())
            tv.append(np.abs(predicted - law).sum() / 2)
            gap.append(np.mean([np.log(1 / len(possible) / predicted[j]) for j in possible]))
        for measure, each in (("map_l1", l1), ("tv", tv), ("final_gap", gap)):
            assert measured[measure][m].item() == pytest.approx(np.mean(each), rel=1e-9)
    assert measured["parameters"][0] == sum(v[..., 0].size for v in own.values())


def test_rates_are_tuned_on_the_tree_of_the_middle_size():
    config = HIERARCHY.preset("paper")
    for cell in config.cells:
        own, tuned = cell.problem, cell.tune_on
        assert (tuned.tree, tuned.head, tuned.context) == ("k2-D2", own.head, own.context)
        assert config.share_of(tuned) == config.share_of(own)


def test_prompts_are_a_fixed_pool_and_others_are_held_out():
    problem, training = problem_of("row", "prompt", prompt_length=40), Training(5, 0.1)
    block = problem.block([1, 2], training, CPU)
    batches = list(block.batches(training))
    assert torch.equal(batches[0].counts, batches[3].counts)
    pool = {tuple(row) for b in batches for row in b.counts.movedim(1, 2).reshape(-1, 7).tolist()}
    held = {tuple(row) for row in block.evaluation.counts.movedim(1, 2).reshape(-1, 7).tolist()}
    assert len(pool) == 24
    assert not pool & held
    alone = problem.block([2], training, CPU)
    for batch, own in zip(batches, alone.batches(training), strict=True):
        assert torch.equal(batch.target[..., 1:], own.target)
        assert torch.allclose(batch.weight.sum(0), torch.ones(2))


def test_the_floor_is_that_of_free_scores_on_all_prompts():
    """All 3^4 prompts of a root and two leaves, and a general solver for all nine scores."""
    problem = HierarchyProblem(2, 1, 2, RowHead(), "prompt", prompt_length=4)
    task = problem.task
    prompts = np.array(list(itertools.product(range(3), repeat=4)))
    counts = np.array([np.bincount(p, minlength=3) for p in prompts])
    law = task.below[prompts[:, -1]] & (counts > 0)
    law = law / law.sum(1, keepdims=True)

    def rows(scores):
        weight = counts * np.exp(scores.reshape(3, 3)[prompts[:, -1]])
        return weight / weight.sum(1, keepdims=True)

    def loss(scores):
        return -np.mean(np.sum(law * np.log(np.where(law > 0, rows(scores), 1)), 1))

    best = minimize(loss, np.zeros(9), bounds=[(-15, 15)] * 9, tol=1e-12).x
    each = np.abs(rows(best) - law).sum(1)
    assert problem.floor() == pytest.approx(each.mean(), abs=4 * each.std() / np.sqrt(2**14))
    assert each.mean() > 0.05
    assert problem_of("row", "vocabulary").floor() == 0
    assert np.isnan(problem_of("classifier", "prompt").floor())


def test_free_scores_reach_the_law_and_the_floor():
    """With d = N, a row reaches P* in the vocabulary, and in prompts the floor but not the law."""
    for context in ("vocabulary", "prompt"):
        problem = HierarchyProblem(2, 1, 3, RowHead(), context)
        trained = train_all(
            problem, [mechanism("scaled")], range(8), Training(600, 0.05), CPU, record=[]
        )
        error = np.median(trained["map_l1"])  # nearly parallel embeddings train slowly
        assert error == pytest.approx(problem.floor(), abs=0.01)


def test_what_a_prompt_cannot_wear_is_refused():
    with pytest.raises(Misfit, match="no gate"):
        problem_of("classifier", "prompt").layer(mechanism("gated"))
    with pytest.raises(Misfit, match="context vocabulary"):
        problem_of("classifier", "prompt").layer(mechanism("sparsemax"))
    assert problem_of("classifier", "vocabulary").layer(mechanism("gated")).form.values
    with pytest.raises(ValueError, match="most_nodes must allow a tree, got 5"):
        HIERARCHY.config(most_nodes=5, branchings=(5,))


@pytest.mark.parametrize("preset", ["paper", "large"])
def test_every_tree_is_trained_from_few_dimensions_to_as_many_as_tokens(preset):
    problems = [cell.problem for cell in HIERARCHY.preset(preset).cells]
    for head, context, k, depth in itertools.product(
        HEADS.values(), ("vocabulary", "prompt"), (2, 3), (1, 2, 3)
    ):
        own = [p for p in problems if (p.head, p.context) == (head, context)]
        own = [p for p in own if (p.branching, p.depth) == (k, depth)]
        nodes = own[0].task.nodes
        assert min(p.dim for p in own) < nodes == max(p.dim for p in own)


def test_no_model_is_below_bayes_and_everything_is_described(smoke):
    config, result = smoke
    assert (result["final_gap"] > -1e-9).all()
    assert not result["diverged"].any()
    assert [c.name for c in config.cells] == result["cell"].values.tolist()
    assert all(v.attrs.get("description") for v in result.data_vars.values())
    cell = "row-prompt-k2-D2-d4"
    at = result.sel(cell=cell)
    assert np.array_equal(at["error"], at["map_l1"])
    assert np.allclose(at["map_l1"], 2 * at["tv"])
    other = result.sel(cell="classifier-prompt-k2-D2-d4")
    assert np.array_equal(other["error"], other["tv"])
    log = np.log(at["error"])
    ratio = np.exp((log.sel(mechanism="scaled") - log.sel(mechanism="vanilla")).mean())
    found = at["error_ratio"].sel(mechanism="scaled", estimate="value")
    assert float(found) == pytest.approx(float(ratio))
    HIERARCHY.plot(result)


def errors_of(config, factors):
    """A result: each mechanism's errors a factor of those of vanilla, with noise by seed."""
    cells, noise = [c.name for c in config.cells], np.random.default_rng(0)
    values = [
        factor * np.exp(noise.normal(0, 0.01, (len(cells), 64))) for factor in factors.values()
    ]
    axes = {"mechanism": list(factors), "cell": cells, "seed": np.arange(64)}
    return xr.Dataset({"error": (tuple(axes), np.stack(values))}, axes)


FACTORS = {"vanilla": 1.0, "scaled": 0.64, "key-bias": 0.8, "ssa-query": 0.8}
PAPER = HIERARCHY.preset("paper")


def test_tests_follow_the_errors():
    """ssa-query at 0.8 of vanilla, 1.25 of scaled, equal to key-bias; in one cell at 2 of vanilla."""
    data = errors_of(PAPER, FACTORS)
    data["error"].loc[{"mechanism": "ssa-query", "cell": "row-prompt-k2-D2-d4"}] *= 2.5
    claims = HIERARCHY.judge(PAPER, data)
    for topic in ("hierarchy-map", "hierarchy-prediction"):
        tests = found(claims, topic)
        place = "prompt", "k = 2, D = 2", "N/2", "vanilla"
        log = np.log(data["error"].sel(cell="row-prompt-k2-D2-d4"))
        for cell, test in tests.items():
            wanted = {"vanilla": "benefit", "scaled": "harm", "key-bias": "equivalent"}[cell[-1]]
            if topic == "hierarchy-map" and cell[:3] == place[:3]:
                own = log.sel(mechanism=cell[-1]) - log.sel(mechanism="ssa-query")
                assert test.effect.value == pytest.approx(float(own.mean()))
                wanted = "harm"
            assert said(test) == wanted, test.id
            assert (test.effect.seeds, test.requested_seeds) == (64, 64)


def test_every_declared_cell_is_produced():
    claims = HIERARCHY.judge(PAPER, errors_of(PAPER, FACTORS))
    assert missing(claims, "hierarchy-map", "hierarchy-prediction") == []
    assert len(claims) == 2 * 2 * (2 * 2 + 4 * 3) * 3  # none beyond: small trees have no N/4


def test_the_dimension_is_named_by_its_share():
    named = {c.name: PAPER.share_of(c.problem) for c in PAPER.cells}
    for cell, share in (("k2-D1-d2", "N/2"), ("k3-D1-d4", "N"), ("k3-D3-d10", "N/4")):
        assert named[f"row-prompt-{cell}"] == share


@pytest.mark.parametrize(("lost", "outcome"), [(3, "benefit"), (4, "missing")])
def test_diverged_seeds_count_as_lost(lost, outcome):
    data = errors_of(PAPER, FACTORS)
    data["error"].loc[{"mechanism": "vanilla", "seed": range(lost)}] = np.nan
    test = found(HIERARCHY.judge(PAPER, data), "hierarchy-map")[
        "vocabulary", "k = 3, D = 3", "N/4", "vanilla"
    ]
    assert (test.lost, said(test)) == (lost / 64, outcome)


def test_peers_that_were_not_trained_are_not_compared(smoke):
    config, result = smoke
    few = found(
        HIERARCHY.judge(config, result.sel(mechanism=["vanilla", "ssa-query"])), "hierarchy-map"
    )
    assert {cell[-1] for cell in few} == {"vanilla"}
    assert HIERARCHY.judge(config, result.sel(mechanism=["vanilla", "scaled"])) == []
