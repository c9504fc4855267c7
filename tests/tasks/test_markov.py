"""Markov chains on graphs: baselines against enumeration, samplers against their exact laws."""

import itertools
import math
from collections import Counter
from collections.abc import Callable

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tasks import MarkovGraphTask, Prompts

FALSE_ALARM = 1e-6
WEIGHTINGS = ("uniform", "stationary")
LOOPED = np.array(
    [[0.5, 0.5, 0.0], [0.3, 0.0, 0.7], [1.0, 0.0, 0.0]]
)  # node 0 is its own neighbour, 1 and 2 are not
TWO_LOOPS = np.array([[0.5, 0.5, 0.0], [0.4, 0.0, 0.6], [0.2, 0.7, 0.1]])
TRANSIENT = np.array(
    [[0.2, 0.5, 0.3, 0.0], [0.0, 0.1, 0.9, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.25, 0.25, 0.5]]
)


@st.composite
def chains(draw: st.DrawFn, least: int = 0, largest_size: int = 5) -> np.ndarray:
    """A random row-stochastic matrix; weights from `least` to 4, so least 0 leaves edges out and
    least 1 none.
    """
    size = draw(st.integers(2, largest_size))
    weights = draw(
        st.lists(
            st.lists(st.integers(least, 4), min_size=size, max_size=size),
            min_size=size,
            max_size=size,
        )
    )
    weights = np.array(weights, dtype=np.float64)
    for row in np.flatnonzero(weights.sum(1) == 0):
        weights[row, draw(st.integers(0, size - 1))] = 1
    return weights / weights.sum(1, keepdims=True)


# Stationary distribution and entropy


@pytest.mark.parametrize("period", [2, 3, 6])
def test_stationary_distribution_of_a_periodic_chain(period: int) -> None:
    """Powers of a periodic chain do not converge; their averages over whole periods do."""
    rng = np.random.default_rng(period)
    size = 2 * period  # two nodes a class, and every class leads to the next
    matrix = np.zeros((size, size))
    for i, j in itertools.product(range(size), repeat=2):
        if j // 2 == (i // 2 + 1) % period:
            matrix[i, j] = rng.uniform(0.1, 1)
    matrix /= matrix.sum(1, keepdims=True)
    steps = 200 * period
    powers = [np.eye(size)]
    for _ in range(steps - 1):
        powers.append(powers[-1] @ matrix)
    assert np.abs(powers[-1] - powers[-2]).max() > 0.1
    average = np.mean(powers[-50 * period :], axis=0)
    np.testing.assert_allclose(
        MarkovGraphTask.from_matrix(matrix).stationary_distribution, average[0], atol=1e-12
    )
    np.testing.assert_allclose(average, np.broadcast_to(average[0], average.shape), atol=1e-12)


def test_transient_nodes_have_exactly_no_stationary_mass() -> None:
    task = MarkovGraphTask.from_matrix(TRANSIENT)
    pi = task.stationary_distribution
    assert pi[0] == 0
    assert pi[3] == 0
    np.testing.assert_allclose(pi[1:3], [1 / 1.9, 0.9 / 1.9], rtol=1e-14)
    assert task.entropy_rate == pytest.approx(
        pi[1] * -(0.1 * math.log(0.1) + 0.9 * math.log(0.9)), rel=1e-14
    )
    absorbing = MarkovGraphTask.from_matrix([[1.0, 0.0], [0.5, 0.5]])
    assert absorbing.stationary_distribution.tolist() == [1, 0]
    assert absorbing.entropy_rate == 0


@pytest.mark.parametrize("order", [1, -1])
def test_rare_nodes_have_an_accurate_and_never_negative_mass(order: int) -> None:
    """A walk with drift: detailed balance gives pi_i proportional to (up / down)^i, here down to
    1e-300 and beyond.
    """
    size, up = 160, 0.01
    matrix = np.zeros((size, size))
    for i in range(size):
        matrix[i, min(i + 1, size - 1)] += up
        matrix[i, max(i - 1, 0)] += 1 - up
    pi = MarkovGraphTask.from_matrix(matrix[::order, ::order].copy()).stationary_distribution[
        ::order
    ]
    exact = (up / (1 - up)) ** np.arange(size)
    exact /= exact.sum()
    assert exact[150] < 1e-290
    assert (pi >= 0).all()
    np.testing.assert_allclose(pi[:150], exact[:150], rtol=1e-10)


@given(chains())
def test_row_entropy_and_out_degree_by_hand(matrix: np.ndarray) -> None:
    task = MarkovGraphTask.from_matrix(matrix)
    for i, row in enumerate(matrix):
        assert task.out_degree[i] == sum(p > 0 for p in row)
        assert task.row_entropy[i] == pytest.approx(
            -sum(p * math.log(p) for p in row if p > 0), abs=1e-14
        )
    assert (np.exp(task.row_entropy) <= task.out_degree * (1 + 1e-14)).all()


# Transitions


def chi_square(counts: np.ndarray, law: np.ndarray) -> float:
    """p-value of counts under an exact law; impossible cells must be empty, and the others are well
    filled.
    """
    assert counts[law == 0].sum() == 0
    expected = counts.sum() * law[law > 0]
    assert expected.min() > 5
    return float(stats.chisquare(counts[law > 0], expected).pvalue)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("matrix", [LOOPED, TRANSIENT], ids=["looped", "transient"])
def test_sampled_transitions_follow_their_law(matrix: np.ndarray, weighting: str) -> None:
    task = MarkovGraphTask.from_matrix(matrix)
    current, following = task.sample_transitions(50_000, np.random.default_rng(1), weighting)
    counts = np.zeros_like(matrix)
    np.add.at(counts, (current, following), 1)
    law = {w: task.row_weights(w)[:, None] * matrix for w in WEIGHTINGS}
    assert law[weighting].sum() == pytest.approx(1)
    assert chi_square(counts, law[weighting]) > FALSE_ALARM
    wrong = law[WEIGHTINGS[1 - WEIGHTINGS.index(weighting)]]
    assert (
        counts[wrong == 0].sum() > 0 or chi_square(counts, wrong) < FALSE_ALARM
    )  # the test can tell the two apart


# Prompts


def enumerate_prompts(
    task: MarkovGraphTask, length: int, weighting: str
) -> tuple[np.ndarray, np.ndarray]:
    """(joint, accepted): the exact law of (prompt, target), and the probability that a prompt has a
    target.

    From the definition: independent tokens; a token of the prompt, at every place alike, is
    followed with probability proportional to P*; prompts without a possible follower are left out.
    joint: (K,) * length + (K,).
    """
    weights, p = task.row_weights(weighting), task.transition_matrix
    joint = np.zeros((task.nodes,) * (length + 1))
    for prompt in itertools.product(range(task.nodes), repeat=length):
        for token in prompt:
            joint[(*prompt, token)] += p[prompt[-1], token]
        total = joint[prompt].sum()
        if total > 0:
            joint[prompt] *= math.prod(weights[list(prompt)]) / total
    return joint / joint.sum(), float(joint.sum())


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize(
    ("matrix", "length"), [(TWO_LOOPS, 1), (LOOPED, 2), (LOOPED, 3), (LOOPED, 4), (TWO_LOOPS, 3)]
)
def test_sampled_prompts_and_targets_follow_their_law(
    matrix: np.ndarray, length: int, weighting: str
) -> None:
    task = MarkovGraphTask.from_matrix(matrix)
    prompts = task.sample_prompts(60_000, length, np.random.default_rng(2), weighting)
    assert prompts.tokens.shape == (60_000, length)
    counts = np.zeros((3,) * (length + 1))
    np.add.at(counts, (*prompts.tokens.T, prompts.target), 1)
    law, accepted = enumerate_prompts(task, length, weighting)
    assert 0.05 < accepted < 1
    assert chi_square(counts, law) > FALSE_ALARM
    wrong, _ = enumerate_prompts(task, length, WEIGHTINGS[1 - WEIGHTINGS.index(weighting)])
    assert chi_square(counts, wrong) < FALSE_ALARM  # the test can tell the two weightings apart


@given(chains(), st.integers(1, 6), st.integers(0, 2**32))
def test_every_sampled_prompt_holds_its_target_next_to_its_query(
    matrix: np.ndarray, length: int, seed: int
) -> None:
    task = MarkovGraphTask.from_matrix(matrix)
    if task.prompt_acceptance(length) == 0:
        with pytest.raises(
            ValueError, match="can hold a neighbour of its last token: use longer prompts"
        ):
            task.sample_prompts(5, length, np.random.default_rng(seed))
        return
    prompts = task.sample_prompts(50, length, np.random.default_rng(seed))
    for tokens, query, target in zip(prompts.tokens, prompts.query, prompts.target, strict=True):
        assert query == tokens[-1]
        assert target in tokens
        assert matrix[query, target] > 0


class Constant:
    """Stands in for a generator: every uniform has the one given value."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, self.value)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
@pytest.mark.parametrize(
    "matrix",
    [LOOPED, TRANSIENT, np.roll(np.eye(9), 1, axis=0)],
    ids=["looped", "transient", "cycle"],
)
@pytest.mark.usefixtures("unchecked")
def test_the_least_and_the_largest_uniform_stay_possible(
    matrix: np.ndarray, uniform: float
) -> None:
    """The ends of [0, 1) must not pick a node of zero weight beside them."""
    task = MarkovGraphTask.from_matrix(matrix)
    for weighting in WEIGHTINGS:
        current, following = task.sample_transitions(2, Constant(uniform), weighting)
        assert (task.row_weights(weighting)[current] > 0).all()
        assert (matrix[current, following] > 0).all()
        for length in range(2, 30):
            prompts = task.sample_prompts(2, length, Constant(uniform), weighting)
            assert (task.row_weights(weighting)[prompts.tokens] > 0).all()
            assert (matrix[prompts.query, prompts.target] > 0).all()


def test_transient_nodes_never_occur_in_stationary_prompts() -> None:
    task = MarkovGraphTask.from_matrix(TRANSIENT)
    prompts = task.sample_prompts(5_000, 5, np.random.default_rng(3), "stationary")
    assert set(prompts.tokens.ravel().tolist()) == {1, 2}


@given(chains(largest_size=4), st.integers(1, 4), st.sampled_from(WEIGHTINGS))
def test_prompt_acceptance_by_enumeration(matrix: np.ndarray, length: int, weighting: str) -> None:
    task = MarkovGraphTask.from_matrix(
        matrix if weighting == "uniform" else (matrix + 1 / len(matrix)) / 2
    )
    weights = task.row_weights(weighting)
    accepted = sum(
        math.prod(weights[list(prompt)])
        for prompt in itertools.product(range(task.nodes), repeat=length)
        if any(task.transition_matrix[prompt[-1], token] > 0 for token in prompt)
    )
    assert task.prompt_acceptance(length, weighting) == pytest.approx(accepted, abs=1e-12)


def test_prompt_acceptance_rises_with_length_and_sees_self_loops() -> None:
    task = MarkovGraphTask.from_matrix(LOOPED)
    assert task.prompt_acceptance(1) == pytest.approx(1 / 3)  # node 0 alone can follow itself
    values = [task.prompt_acceptance(n) for n in range(1, 30)]
    assert (np.diff(values) > 0).all()
    assert values[-1] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_bayes_prediction_is_the_law_of_the_target_given_the_prompt(weighting: str) -> None:
    task = MarkovGraphTask.from_matrix(LOOPED)
    law, _ = enumerate_prompts(task, 3, weighting)
    possible = np.argwhere(law.sum(-1) > 0)
    assert 20 <= len(possible) < 27
    given_prompt = law[tuple(possible.T)]
    exact = given_prompt / given_prompt.sum(1, keepdims=True)
    bayes = task.bayes_predictive(Prompts(possible, np.zeros(len(possible), dtype=int)))
    np.testing.assert_allclose(bayes, exact, atol=1e-15)
    np.testing.assert_array_equal(task.bayes_predictive(), LOOPED)


@given(st.integers(0, 2**32), st.integers(1, 7))
def test_counts_of_prompts(seed: int, length: int) -> None:
    tokens = np.random.default_rng(seed).integers(0, 4, (6, length))
    prompts = Prompts(tokens, np.zeros(6, dtype=int))
    for row, counted in zip(tokens.tolist(), prompts.counts(5).tolist(), strict=True):
        assert counted == [Counter(row)[j] for j in range(5)]
    assert prompts.query.tolist() == tokens[:, -1].tolist()


# Determinism

Sampler = Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def _transitions(count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return MarkovGraphTask.from_matrix(LOOPED).sample_transitions(count, generator, "stationary")


def _prompts(count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    prompts = MarkovGraphTask.from_matrix(LOOPED).sample_prompts(count, 4, generator, "stationary")
    return prompts.tokens, prompts.target


@pytest.mark.parametrize("sample", [_transitions, _prompts])
def test_samplers_are_functions_of_their_generator(sample: Sampler) -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002 (to see that nobody touches it)
    first, again, other = (sample(200, np.random.default_rng(seed)) for seed in (5, 5, 6))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()
    generator = np.random.default_rng(5)
    for whole, *parts in zip(first, sample(70, generator), sample(130, generator), strict=True):
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(("sample", "uniforms"), [(_transitions, 2), (_prompts, 4 + 2)])
def test_samplers_use_the_documented_number_of_uniforms(sample: Sampler, uniforms: int) -> None:
    used, same = np.random.default_rng(8), np.random.default_rng(8)
    sample(30, used)
    same.random(30 * uniforms)
    assert used.random() == same.random()


# Construction


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(1, 9)), min_size=1, max_size=20
    ),
    st.booleans(),
)
def test_from_graph_counts_parallel_edges_and_goes_both_ways_along_undirected_ones(
    edges: list[tuple[int, int, int]], directed: bool
) -> None:
    edges = edges + [(i, (i + 1) % 5, 1) for i in range(5)]  # every node has an out-neighbour
    graph = nx.MultiDiGraph() if directed else nx.MultiGraph()
    graph.add_nodes_from(range(5))
    graph.add_weighted_edges_from(edges)
    weights = np.zeros((5, 5))
    for i, j, w in edges:
        weights[i, j] += w
        if not directed and i != j:
            weights[j, i] += w
    task = MarkovGraphTask.from_graph(graph)
    np.testing.assert_allclose(
        task.transition_matrix, weights / weights.sum(1, keepdims=True), rtol=1e-15
    )
    assert task.labels == ("0", "1", "2", "3", "4")
    assert task.nodes == 5


def test_from_graph_weights_default_to_one_and_may_have_another_name() -> None:
    graph = nx.DiGraph()
    graph.add_edge("b", "a", weight=3.0, length=1.0)
    graph.add_edge("b", "c")
    graph.add_edge("a", "b", weight=0.5)
    graph.add_edge("c", "b", length=2.0)
    graph.add_edge("c", "a", weight=0.0)  # an edge of weight zero is no edge
    task = MarkovGraphTask.from_graph(graph)
    assert task.labels == ("b", "a", "c")
    assert task.transition_matrix.tolist() == [[0, 0.75, 0.25], [1, 0, 0], [1, 0, 0]]
    assert task.out_degree.tolist() == [2, 1, 1]
    renamed = MarkovGraphTask.from_graph(graph, weight="length")
    assert renamed.transition_matrix[0].tolist() == [0, 0.5, 0.5]
    np.testing.assert_allclose(renamed.transition_matrix[2], [2 / 3, 1 / 3, 0])


def test_from_matrix_copies_and_names() -> None:
    matrix = np.array([[0.25, 0.75], [1.0, 0.0]])
    task = MarkovGraphTask.from_matrix(matrix, ["rain", "sun"])
    matrix[:] = 0.5
    assert task.transition_matrix.tolist() == [[0.25, 0.75], [1, 0]]
    assert task.labels == ("rain", "sun")
    assert MarkovGraphTask.from_matrix([[0, 1], [1, 0]]).labels == ("0", "1")


def test_from_text_is_the_chain_of_its_letters() -> None:
    task = MarkovGraphTask.from_text("Abba!")
    assert task.labels == ("_", "a", "b")
    assert task.transition_matrix.tolist() == [[0, 1, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    np.testing.assert_allclose(task.stationary_distribution, [1 / 5, 2 / 5, 2 / 5], rtol=1e-14)


# Bad input


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (3.0, r"square with at least 2 nodes, got shape \(1,\): give one row"),
        ([], r"square with at least 2 nodes, got shape \(0,\)"),
        ([[1.0]], r"square with at least 2 nodes, got shape \(1, 1\)"),
        ([[0.5, 0.5]], r"square with at least 2 nodes, got shape \(1, 2\)"),
        ([[1.0], [0.5, 0.5]], "must be made of numbers .*: give equally long rows"),
        ([["a", "b"], ["c", "d"]], "must be made of numbers .*: give equally long rows"),
        (
            [[1.0, 0.0], [0.5, 0.4]],
            "must sum to 1, but row 1 sums to 0.9: divide each row by its sum",
        ),
        ([[0.5, 0.5], [0.5, 0.7]], "must sum to 1, but row 1 sums to 1.2: divide"),
        ([[1.0, 0.0], [0.0, 0.0]], "must sum to 1, but row 1 sums to 0: divide"),
        (
            [[1.0, 0.0], [1.5, -0.5]],
            "must be non-negative, got -0.5 from node 1 to node 1: mend that weight",
        ),
        (
            [[1.0, 0.0], [math.nan, 0.5]],
            "must be finite, got nan from node 1 to node 0: mend that weight",
        ),
        (
            [[math.inf, 0.0], [0.5, 0.5]],
            "must be finite, got inf from node 0 to node 0: mend that weight",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_matrices(matrix: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MarkovGraphTask.from_matrix(matrix)


def test_rows_may_be_off_by_rounding_only() -> None:
    MarkovGraphTask.from_matrix([[1 - 1e-10, 0.0], [0.5, 0.5]])
    with pytest.raises(ValueError, match=r"row 0 sums to 0\.999999: divide each row"):
        MarkovGraphTask.from_matrix([[1 - 1e-6, 0.0], [0.5, 0.5]])


def test_bad_labels() -> None:
    with pytest.raises(ValueError, match="got 1 labels for 2 nodes: give one label per node"):
        MarkovGraphTask.from_matrix([[0.0, 1.0], [1.0, 0.0]], ["a"])


def _graph(*edges: tuple[str, str, object]) -> nx.MultiDiGraph:
    graph = nx.MultiDiGraph()
    graph.add_weighted_edges_from(edges)
    return graph


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (_graph(), "at least 2 nodes to have transitions, got 0: add nodes"),
        (_graph(("a", "a", 1.0)), "at least 2 nodes to have transitions, got 1: add nodes"),
        (
            _graph(("a", "b", 1.0)),
            "every node needs an out-neighbour, but node b has none: add an edge",
        ),
        (
            _graph(("a", "b", 1.0), ("b", "a", 0.0)),
            "every node needs an out-neighbour, but node b has none",
        ),
        (
            _graph(("a", "b", -2.0), ("b", "a", 1.0)),
            "must be non-negative, got -2.0 from node a to node b",
        ),
        (
            _graph(("a", "b", 3.0), ("a", "b", -1.0), ("b", "a", 1.0)),
            "must be non-negative, got -1.0 from node a to node b",
        ),
        (
            _graph(("a", "b", math.nan), ("b", "a", 1.0)),
            "must be finite, got nan from node a to node b",
        ),
        (
            _graph(("a", "b", 1.0), ("b", "a", math.inf)),
            "must be finite, got inf from node b to node a",
        ),
        (
            _graph(("a", "b", "heavy"), ("b", "a", 1.0)),
            "edge weights must be numbers .*mend attribute 'weight'",
        ),
    ],
)
def test_bad_graphs(graph: nx.MultiDiGraph, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MarkovGraphTask.from_graph(graph)


def test_a_reducible_chain_has_no_stationary_distribution_but_everything_else() -> None:
    task = MarkovGraphTask.from_matrix(
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]], ["left", "right", "top"]
    )
    message = "no unique stationary distribution: nodes left and right lie in different closed classes; connect them"
    generator = np.random.default_rng(0)
    for ask in (
        lambda: task.stationary_distribution,
        lambda: task.entropy_rate,
        lambda: task.sample_transitions(3, generator, "stationary"),
        lambda: task.sample_prompts(3, 2, generator, "stationary"),
        lambda: task.prompt_acceptance(2, "stationary"),
    ):
        with pytest.raises(ValueError, match=message):
            ask()
    assert len(task.sample_transitions(3, generator)[0]) == 3
    assert task.prompt_acceptance(1) == pytest.approx(2 / 3)


@pytest.mark.usefixtures("unchecked")
def test_bad_requests() -> None:
    task = MarkovGraphTask.from_matrix([[0.0, 1.0], [1.0, 0.0]])
    generator = np.random.default_rng(0)
    for call, message in (
        (
            lambda: task.row_weights("even"),
            "unknown row weighting 'even': choose uniform or stationary",
        ),
        (
            lambda: task.sample_transitions(0, generator),
            "number of transitions must be at least 1, got 0: ask",
        ),
        (
            lambda: task.sample_prompts(-1, 3, generator),
            "number of prompts must be at least 1, got -1: ask",
        ),
        (
            lambda: task.sample_prompts(3, 0, generator),
            "at least 1 token, got length 0: choose length >= 1",
        ),
        (lambda: task.prompt_acceptance(0), "at least 1 token, got length 0: choose length >= 1"),
        (
            lambda: task.sample_prompts(3, 1, generator),
            "no prompt of length 1 can hold a neighbour of its last token",
        ),
        (
            lambda: task.bayes_predictive(
                Prompts(np.array([[0, 1], [1, 1]]), np.zeros(2, dtype=int))
            ),
            "prompt 1 holds no neighbour of its last token, so nothing can follow it: draw prompts",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
