"""Hierarchies of tokens: laws against networkx's trees, prompts against enumeration."""

import itertools
import math
from collections import Counter

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tasks import HierarchyTask, Prompts

FALSE_ALARM = 1e-6
TREES = st.builds(HierarchyTask, branching=st.integers(1, 4), depth=st.integers(1, 4))


def subtrees(task: HierarchyTask) -> list[set[int]]:
    """Every token with its descendants, from a tree that networkx builds and numbers."""
    if task.branching == 1:
        tree = nx.path_graph(task.depth + 1, create_using=nx.DiGraph)
    else:
        tree = nx.balanced_tree(task.branching, task.depth, create_using=nx.DiGraph)
    return [{i} | nx.descendants(tree, i) for i in range(len(tree))]


@given(TREES)
def test_rows_are_uniform_over_subtrees(task: HierarchyTask) -> None:
    trees = subtrees(task)
    assert task.nodes == len(trees) == len(task.level) == task.chain.nodes
    for i, tree in enumerate(trees):
        assert set(np.flatnonzero(task.below[i]).tolist()) == tree
        expected = [1 / len(tree) if j in tree else 0 for j in range(task.nodes)]
        np.testing.assert_allclose(task.chain.transition_matrix[i], expected, rtol=1e-14)
        assert task.level[i] == sum(i in other for other in trees) - 1  # its proper ancestors
    np.testing.assert_allclose(
        task.chain.row_entropy, task.entropy_by_level[task.level], rtol=1e-12, atol=1e-12
    )
    np.testing.assert_array_equal(task.bayes_predictive(), task.chain.transition_matrix)


def test_entropies_fall_from_the_root_to_the_leaves() -> None:
    expected = [math.log(15), math.log(7), math.log(3), 0]
    np.testing.assert_allclose(HierarchyTask(2, 3).entropy_by_level, expected, rtol=1e-14)


def test_prompts_by_enumeration() -> None:
    """All prompts of three tokens: each different descendant that occurs counts once."""
    task = HierarchyTask(2, 2)
    trees = subtrees(task)
    tokens = np.array(list(itertools.product(range(task.nodes), repeat=3)))
    law = task.bayes_predictive(Prompts(tokens, tokens[:, -1]))
    for prompt, row in zip(tokens.tolist(), law, strict=True):
        possible = trees[prompt[-1]] & set(prompt)
        expected = [1 / len(possible) if j in possible else 0 for j in range(task.nodes)]
        np.testing.assert_allclose(row, expected, rtol=1e-14)


def test_a_prompt_of_the_whole_vocabulary_has_the_rows_of_the_map() -> None:
    task = HierarchyTask(3, 2)
    everything = np.array([[*range(task.nodes), q] for q in range(task.nodes)])
    law = task.bayes_predictive(Prompts(everything, everything[:, -1]))
    np.testing.assert_allclose(law, task.chain.transition_matrix, rtol=1e-14)


@pytest.mark.parametrize("length", [1, 3])
def test_sampled_prompts_have_their_law(length: int) -> None:
    """Every prompt with its next token, against its exact probability."""
    task, count = HierarchyTask(2, 1), 30_000
    prompts = task.sample_prompts(count, length, np.random.default_rng(0))
    trees = subtrees(task)
    counts = Counter(
        (*x, y) for x, y in zip(prompts.tokens.tolist(), prompts.target.tolist(), strict=True)
    )
    observed, expected = [], []
    for x in itertools.product(range(3), repeat=length):
        possible = trees[x[-1]] & set(x)
        for y in sorted(possible):
            observed.append(counts.pop((*x, y), 0))
            expected.append(count * 3**-length / len(possible))
    assert not counts  # nothing that cannot be
    assert stats.chisquare(observed, expected).pvalue > FALSE_ALARM


@given(TREES, st.integers(1, 8), st.integers(0, 2**32))
def test_a_stream_does_not_depend_on_how_it_is_cut(
    task: HierarchyTask, length: int, seed: int
) -> None:
    whole = task.sample_prompts(7, length, np.random.default_rng(seed))
    generator = np.random.default_rng(seed)
    parts = [task.sample_prompts(n, length, generator) for n in (2, 5)]
    np.testing.assert_array_equal(whole.tokens, np.concatenate([p.tokens for p in parts]))
    np.testing.assert_array_equal(whole.target, np.concatenate([p.target for p in parts]))


@pytest.mark.parametrize(
    ("branching", "depth", "message"),
    [
        (0, 2, "branching must be at least 1, got 0: choose branching >= 1"),
        (2, 0, "depth must be at least 1, got 0: choose depth >= 1"),
        (2, 12, "at most 4096 tokens, got branching 2 and depth 12: choose a smaller tree"),
        (4095, 2, "at most 4096 tokens, got branching 4095 and depth 2"),
        (1, 4096, "at most 4096 tokens, got branching 1 and depth 4096"),
        (10**9, 10**9, "at most 4096 tokens, got branching 1000000000 and depth 1000000000"),
    ],
)
def test_bad_trees(branching: int, depth: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HierarchyTask(branching, depth)


@pytest.mark.parametrize(("branching", "depth", "nodes"), [(2, 11, 4095), (4095, 1, 4096)])
def test_the_largest_trees(branching: int, depth: int, nodes: int) -> None:
    assert HierarchyTask(branching, depth).nodes == nodes


def test_bad_prompts() -> None:
    task, generator = HierarchyTask(), np.random.default_rng(0)
    with pytest.raises(ValueError, match="number of prompts must be at least 1, got 0: ask for"):
        task.sample_prompts(0, 4, generator)
    with pytest.raises(ValueError, match="at least 1 token, got length 0: choose length >= 1"):
        task.sample_prompts(3, 0, generator)
