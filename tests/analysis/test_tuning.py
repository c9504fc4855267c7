"""The tuned learning rate: against trainings one by one, whatever is held at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from pydantic import ValidationError

from analysis.claims.registry import MARGIN, registry
from analysis.claims.statistics import ratio as claimed_ratio
from analysis.experiments.norms import NORMS
from analysis.experiments.twins import TWINS
from analysis.problems import (
    DenoiseProblem,
    GraphProblem,
    RetrievalProblem,
    Training,
    fit,
    train_all,
    tuning,
)
from analysis.problems.grid import Grid
from analysis.problems.imbalance import ImbalanceProblem
from analysis.problems.kernel_regression import KernelRegressionProblem
from analysis.problems.tuned import TUNING_SEEDS
from analysis.problems.tuning import tune
from analysis.report.sensitivity import Setting, Strip, strips
from analysis.store.config import SeededConfig
from ssa_theory.mechanism import known

CPU = torch.device("cpu")
RATES = (0.01, 0.1, 0.5)
PROBLEMS = {
    "graph": GraphProblem(dim=3),
    "retrieval": RetrievalProblem(batch_size=8, held_out=32),
}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("steps", [5, 60])
def test_is_the_rate_of_the_least_mean_log_objective(name, steps):
    problem, training = PROBLEMS[name], Training(steps, 0.1, 5)
    models = [known("ssa-feature" if name == "retrieval" else "ssa")]
    score = []
    for rate in RATES:
        result = train_all(problem, models, list(TUNING_SEEDS), training.at(rate), CPU)
        objective = "cross_entropy" if name == "retrieval" else "cross_entropy_gap"
        value = result[objective].isel(mechanism=0).transpose("seed", ...).values
        value = value.mean(-1) if name == "retrieval" else value[:, -1]
        score.append(np.log(value).mean())
    if name == "graph":  # the recorded steps leave out the cooldown, which changes little here
        assert np.ptp(score) > 0.02
    assert tune(problem, models, training, RATES, CPU).rate == RATES[int(np.argmin(score))]


def test_does_not_depend_on_how_much_is_held_at_a_time(monkeypatch):
    problem, training, models = PROBLEMS["graph"], Training(20, 0.1), [known("vanilla")]
    whole, told = tune(problem, models, training, RATES, CPU), []
    monkeypatch.setattr(tuning, "_BYTES", 5 * problem.bytes_per_seed(training))
    monkeypatch.setattr(tuning, "_SCORED", {})
    parts = tune(problem, models, training, RATES, CPU, told.append)
    # Rates of members move Adam's epsilon.
    np.testing.assert_allclose(parts.scores, whole.scores, atol=2e-3)
    np.testing.assert_allclose(parts.longer, whole.longer, atol=1e-6)
    assert sum(told) == 20 + 80


def test_a_rate_at_which_a_seed_diverges_is_not_chosen():
    problem, training = PROBLEMS["graph"], Training(20, 0.1, optimizer="sgd")
    assert tune(problem, [known("ssa-free")], training, (0.1, 1e30), CPU).rate == 0.1


def test_one_rate_is_not_tuned(monkeypatch):
    monkeypatch.setattr(tuning, "fit", None)
    found = tune(PROBLEMS["graph"], [known("vanilla")], Training(5, 9.0), (0.3,), CPU)
    assert found.rate == 0.3
    assert list(found.variables) == ["learning_rate"]
    assert np.isnan(found.longer).all()


def test_each_mechanism_is_trained_at_its_own_rate():
    problem, training = PROBLEMS["graph"], Training(30, 9.0)
    models = [known("vanilla"), known("ssa-free")]
    together = train_all(problem, models, range(3), training, CPU, rates=RATES)
    for model, rate in zip(models, together["learning_rate"].values.tolist(), strict=True):
        assert rate in RATES
        alone = train_all(problem, [model], range(3), replace(training, learning_rate=rate), CPU)
        own = together.sel(mechanism=[model.name])
        np.testing.assert_array_equal(own["cross_entropy_gap"], alone["cross_entropy_gap"])


def test_each_problem_of_a_grid_has_the_rate_that_it_has_alone():
    """The balanced counts need no step; the others need many."""
    small = {"train_length": 24, "positions": 9, "beyond": 2}
    problems = tuple(ImbalanceProblem(p, a, **small) for p, a in ((0.0, 0.5), (1.0, 0.25)))
    grid, training = Grid("cell", ("even", "odd"), problems), Training(20, 0.1)
    models, rates = [known("vanilla"), known("ssa-position")], (0.02, 0.6)
    together = train_all(grid, models, range(2), training, CPU, rates=rates)
    chosen = together["learning_rate"]
    assert chosen.dims == ("mechanism", "cell")
    assert len(np.unique(chosen.sel(mechanism="ssa-position"))) == 2
    for name, problem in zip(grid.labels, problems, strict=True):
        alone = train_all(problem, models, range(2), training, CPU, rates=rates)
        own = together.sel(cell=name)
        np.testing.assert_array_equal(own["learning_rate"], alone["learning_rate"])
        np.testing.assert_allclose(own["margin"], alone["margin"], rtol=2e-4, atol=1e-6)
        np.testing.assert_allclose(own["longer_error"], alone["longer_error"], rtol=2e-3, atol=1e-8)
        np.testing.assert_array_equal(own["zero_loss_margin"], alone["zero_loss_margin"])


def test_a_rate_is_tuned_once_whatever_the_blocks(monkeypatch):
    problem, training = PROBLEMS["graph"], Training(7, 0.1)
    models, rates = [known("vanilla"), known("ssa")], (0.03, 0.3)
    first = tune(problem, models, training, rates, CPU)
    monkeypatch.setattr(tuning, "fit", None)
    told = []
    again = tune(problem, models, training, rates, CPU, told.append)
    np.testing.assert_array_equal(again.scores, first.scores)
    np.testing.assert_array_equal(again.longer, first.longer)
    assert told == [7 + 28, 7 + 28]


def test_no_rate_is_tuned_beyond_the_training():
    length = KernelRegressionProblem(train_lengths=(4, 9), test_lengths=(4, 8, 64))
    assert length.for_tuning.test_lengths == (4, 8)
    assert replace(length, test_lengths=(64,)).for_tuning.test_lengths == (9,)
    assert RetrievalProblem(tested_keys=(128,)).for_tuning == RetrievalProblem()


def test_rates_may_be_tuned_on_another_problem():
    small, large = GraphProblem(dim=2), GraphProblem(dim=8)
    training, model = Training(30, 0.1), known("vanilla")
    wanted = [tune(p, [model], training, RATES, CPU).rate.item() for p in (small, large)]
    assert wanted[0] != wanted[1]
    found = train_all(large, [model], [0], training, CPU, rates=RATES, tune_on=small)
    assert found["learning_rate"].item() == wanted[0]


def test_compiling_serves_tuning_and_training(monkeypatch):
    """The estimate counts the steps of all three, where all are of one problem."""
    small, large = GraphProblem(dim=2), GraphProblem(dim=3)
    counted = []

    def never(loss, state, first, steps):
        counted.append((steps, state.diverged.numel()))
        return False

    monkeypatch.setattr("ssa_theory.ensemble.pays", never)
    training, tuning = Training(4, 0.1, 3, compile=None), len(TUNING_SEEDS)
    for rates, other, expected in (
        ((0.2,), None, [(7, 3)]),
        ((0.21, 0.1), None, [(33, 2 * tuning), (33, tuning), (33, 3)]),
        ((0.22, 0.1), small, [(26, 2 * tuning), (26, tuning), (7, 3)]),
    ):
        counted.clear()
        own = training.at(max(rates))
        train_all(large, [known("vanilla")], range(3), own, CPU, rates=rates, tune_on=other)
        assert counted == expected


def test_the_data_of_a_seed_that_stands_twice_are_those_that_stand_once():
    tested = (("denoise", DenoiseProblem(batch_size=4, held_out=16)), *PROBLEMS.items())
    for name, problem in tested:
        training, mechanism = Training(3, 0.1), known("vanilla")
        blocks = [problem.block(seeds, training, CPU) for seeds in ((7, 7, 4), (7, 4))]
        twice, once = (
            block.evaluate(layer, fit(block, layer, training))[problem.objective]
            for block in blocks
            for layer in [problem.layer(mechanism)]
        )
        np.testing.assert_allclose(twice[..., [1, 2]], once, rtol=1e-5, err_msg=name)
        np.testing.assert_array_equal(twice[..., 0], twice[..., 1])


def test_no_run_reports_a_tuning_seed():
    """They are the last that fit in 64 bits, and no config takes one, nor one beyond."""
    assert TUNING_SEEDS.stop == 2**63
    assert len(TUNING_SEEDS) == 8
    assert SeededConfig(first_seed=2**62 - 1, seeds=10_000_000).seed_range[-1] < TUNING_SEEDS[0]
    for first in (2**62, TUNING_SEEDS[0], TUNING_SEEDS[-1]):
        with pytest.raises(ValidationError, match="less than 4611686018427387904"):
            SeededConfig(first_seed=first)


def test_what_tuning_found_is_stored_and_told_by_step_size_and_steps():
    """Against trainings one by one, of a quarter, half and all of the steps."""
    problem, training = PROBLEMS["graph"], Training(41, 0.1, 5)
    models = [known("vanilla"), known("ssa-free")]
    result = train_all(problem, models, range(2), training, CPU, rates=RATES)
    wanted, norms = np.empty((2, 2, 3, 3, len(TUNING_SEEDS)))
    for place in np.ndindex(wanted.shape[:3]):
        (model, rate), steps = (models[place[0]], RATES[place[1]]), (11, 21, 41)[place[2]]
        own = replace(training, steps=steps, learning_rate=rate)
        block = problem.block(TUNING_SEEDS, own, CPU)
        layer = problem.layer(model)
        own = own if steps == 41 else replace(own, cooldown_steps=0)
        measured = block.evaluate(layer, fit(block, layer, own))
        wanted[place], norms[place] = measured["final_gap"], measured["weight_norm"]
    assert result["tuning_error"].dims == ("mechanism", "tried_rate", "tried_step", "tuning_seed")
    assert result["tuning_seed"].values.tolist() == list(TUNING_SEEDS)
    assert result["tried_rate"].values.tolist() == list(RATES)
    assert result["tried_step"].values.tolist() == [0.25, 0.5, 1.0]
    # Rates of members move Adam's epsilon, hence not to rounding.
    np.testing.assert_allclose(result["tuning_error"], wanted, rtol=2e-2)
    mean = np.log(result["tuning_error"]).mean("tuning_seed")
    np.testing.assert_allclose(mean, np.log(wanted).mean(-1), atol=5e-3)
    best = np.log(wanted[:, :, -1]).mean(-1).argmin(1)
    np.testing.assert_array_equal(result["learning_rate"], np.array(RATES)[best])
    assert result["tuning_weight_norm"].dims == result["tuning_error"].dims
    np.testing.assert_allclose(result["tuning_weight_norm"], norms, rtol=2e-2)
    own = result["tuning_effective_weight"] / result["tuning_weight_norm"]
    np.testing.assert_allclose(own.sel(mechanism="vanilla"), 1)
    assert abs(own.sel(mechanism="ssa-free") - 1).max() > 0.1


NOISE = np.exp(0.01 * np.array([1, -1, 2, -2, 0.5, -0.5]))
"""By tuning seed: on average none."""


def _tried(error: np.ndarray, noise: np.ndarray = NOISE) -> xr.Dataset:
    """A result with these errors (mechanism, rate, step, problem) of vanilla and others, SSA's with
    noise over the tuning seeds.
    """
    dims = ("mechanism", "tried_rate", "tried_step", "problem", "tuning_seed")
    names = ["ssa", "vanilla", "mine"][: len(error)]
    labels = {"mechanism": names, "tried_rate": [0.02, 0.6], "tried_step": [0.25, 1.0]}
    each = (
        error[..., None]
        * np.stack([noise, *np.ones((len(error) - 1, len(noise)))])[:, None, None, None]
    )
    return xr.Dataset({"tuning_error": (dims, each)}, labels)


def test_a_strip_compares_with_vanilla_at_the_same_step_size_and_steps():
    """By hand: geometric means over problems; the best of each problem's step sizes by itself."""
    vanilla = np.array([[[1.0, 1.0], [8.0, 2.0]], [[2.0, 2.0], [4.0, 4.0]]])
    ratio = np.array([[[0.5, 0.5], [1.0, 4.0]], [[1.03, 0.97], [0.96, 0.93]]])
    (strip,) = strips(_tried(np.stack([ratio * vanilla, vanilla])))
    assert strip.name == "ssa"
    assert strip.columns == ("each its best", "0.02", "0.6")
    assert list(strip.rows) == ["25 %", "100 %"]
    early, last = ([one.ratio for one in row] for row in strip.rows.values())
    np.testing.assert_allclose(early, [0.5, 0.5, np.sqrt(1.03 * 0.97)])
    best = np.sqrt(
        3.84 / 4.0 * (3.72 / 2.0)
    )  # of the first problem at 0.6, of the second at either
    np.testing.assert_allclose(last, [best, 2.0, np.sqrt(0.96 * 0.93)])
    outcomes = [[one.outcome for one in row] for row in strip.rows.values()]
    assert outcomes == [["benefit", "benefit", "equivalent"], ["harm", "harm", "unresolved"]]
    assert strip.sentence == (
        "ssa: the error over vanilla's at equal step size and steps lies between 0.5 and 2; of 4 "
        "settings a benefit at 1, a harm at 1, equivalent at 1, unresolved at 1."
    )


def test_a_strip_of_what_else_is_tracked_has_the_best_of_the_errors():
    """Of the first problem the error is least at 0.6, of the second at 0.02; the norm never."""
    error = np.ones((2, 2, 1, 2))
    error[:, 0, :, 0] = error[:, 1, :, 1] = 2.0
    norm = np.ones((2, 2, 1, 2))
    norm[0, 0], norm[0, 1] = [[3.0, 4.0]], [[9.0, 0.25]]
    dims = ("mechanism", "tried_rate", "tried_step", "problem", "tuning_seed")
    result = xr.Dataset(
        {
            "tuning_error": (dims, error[..., None] * np.ones(6)),
            "tuning_weight_norm": (dims, norm[..., None] * np.ones(6), {"measure": "norm"}),
        },
        {"mechanism": ["ssa", "vanilla"], "tried_rate": [0.02, 0.6], "tried_step": [1.0]},
    )
    own, other = strips(result)
    assert [(s.name, s.measure) for s in (own, other)] == [
        ("ssa", ""),
        ("ssa, weight norm", "norm"),
    ]
    assert [one.ratio for one in own.rows["100 %"]] == pytest.approx([1, 1, 1])
    found = [one.ratio for one in other.rows["100 %"]]
    assert found == pytest.approx(np.sqrt([9 * 4, 3 * 4, 9 * 0.25]))
    assert other.sentence.startswith("ssa: the weight norm over vanilla's at equal step size")


def test_the_interval_of_a_setting_is_that_of_the_claims():
    """The ratio of each seed's geometric means over the problems, paired; two problems count once."""
    noise = np.exp(0.1 * np.random.default_rng(0).standard_normal(8))
    (strip,) = strips(_tried(np.ones((2, 2, 2, 3)), noise))
    one, wanted = strip.rows["25 %"][0], claimed_ratio(noise, np.ones(8))
    np.testing.assert_allclose(
        (one.ratio, one.low, one.high), (wanted.value, wanted.low, wanted.high)
    )
    assert one.text == f"{wanted.value:.3g}"
    assert one.interval == f"{wanted.low:.3g} to {wanted.high:.3g}"
    (few,) = strips(_tried(0.5 * np.ones((2, 2, 2, 3)), noise[:5]))
    one = few.rows["25 %"][0]
    assert (one.outcome, one.interval) == ("unresolved", "")  # as in a topic


def test_each_mechanism_is_compared_with_its_own_peer():
    names = ["a-vanilla", "a-ssa", "b-vanilla", "b-ssa"]
    error = np.array([1.0, 2.0, 3.0, 12.0]).reshape(4, 1, 1, 1) * np.ones((4, 2, 2, 6))
    result = xr.Dataset(
        {"tuning_error": (("mechanism", "tried_rate", "tried_step", "tuning_seed"), error)},
        {"mechanism": names, "tried_rate": [0.02, 0.6], "tried_step": [0.25, 1.0]},
    ).assign_coords(peer=("mechanism", [names[0], names[0], names[2], names[2]]))
    found = {strip.name: strip.rows["100 %"][0].ratio for strip in strips(result)}
    assert found == pytest.approx({"a-ssa": 2.0, "b-ssa": 4.0})


def test_a_strip_says_who_diverged():
    error = np.ones((3, 2, 2, 2))
    error[0, 0, 0, 1] = error[1, 1, 0, 0] = np.inf
    error[2, ..., 1] = np.nan  # a problem that it cannot wear
    error[2, 0, 0, 0] = error[2, 1, :, 0] = np.inf
    ssa, mine = strips(_tried(error, np.ones(6)))
    assert [[one.text for one in row] for row in ssa.rows.values()] == [
        ["1", "diverged", "vanilla diverged"],
        3 * ["1"],
    ]
    early, late = ([(one.text, one.outcome) for one in row] for row in mine.rows.values())
    assert early == [("diverged", "harm"), ("diverged", "harm"), ("", "no ratio")]
    same = ("1", "equivalent")
    assert late == [same, same, ("diverged", "harm")]
    assert mine.sentence.endswith(
        "; of 4 settings a benefit at 0, a harm at 2, equivalent at 1, unresolved at 0."
    )


def test_without_tuning_or_vanilla_there_is_no_strip():
    known_errors = _tried(np.ones((2, 2, 2, 1)))
    assert isinstance(strips(known_errors)[0], Strip)
    assert strips(known_errors.drop_vars("tuning_error")) == ()
    assert strips(known_errors.sel(mechanism=["ssa"])) == ()
    assert strips(known_errors.isel(tuning_seed=0, drop=True)) == ()  # of an older version


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.5, 0.949, "benefit"),
        (0.5, 0.951, "unresolved"),
        (0.951, 1.052, "equivalent"),
        (0.949, 1.052, "unresolved"),
        (0.951, 1.054, "unresolved"),
        (1.052, 2.0, "unresolved"),
        (1.054, 2.0, "harm"),
    ],
)
def test_the_margin_of_a_strip_is_that_of_the_topics(low, high, outcome):
    assert Setting((low * high) ** 0.5, low, high).outcome == outcome
    assert Setting(1.0, 0.0, np.inf).outcome == "unresolved"
    assert {topic.margin for topic in registry().topics.values()} == {MARGIN}


@pytest.mark.parametrize(
    ("experiment", "small", "tracked"),
    [
        (NORMS, {"steps": 3, "letters_steps": 2}, {"weight norm", "effective weight"}),
        (TWINS, {"steps": 3}, {"capped weight norm"}),
    ],
)
def test_results_about_norms_have_strips_of_norms(experiment, small, tracked):
    config = {"seeds": 2, "learning_rates": (0.1, 0.2), "device": "cpu"} | small
    result = experiment.run(experiment.config(**config))
    assert {s.compared for s in strips(result) if s.measure == "norm"} == tracked
