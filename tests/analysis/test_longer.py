"""The second budget: against trainings of that length, one by one, and what a strip says of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from analysis.claims.statistics import ratio as claimed_ratio
from analysis.experiments.critical import CRITICAL
from analysis.experiments.denoise import DENOISE
from analysis.experiments.normalizers import NORMALIZERS
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
from analysis.problems.tuned import TUNING_SEEDS, Tuned
from analysis.problems.tuning import block_of, tune
from analysis.report.sensitivity import Strip, strips
from ssa_theory.mechanism import known

CPU = torch.device("cpu")
GRAPH = GraphProblem(dim=3)


@pytest.mark.parametrize(
    ("problem", "name", "training"),
    [
        (GRAPH, "ssa-free", Training(41, 0.1, 5)),
        (GRAPH, "ssa-free", Training(12, 0.1, 90)),  # more cooldown than a third
        (RetrievalProblem(batch_size=8, held_out=32), "ssa-feature", Training(9, 0.1)),
        (DenoiseProblem(batch_size=4, held_out=16), "ssa", Training(6, 0.1, 2)),
    ],
)
def test_is_a_training_of_four_times_the_steps_at_the_chosen_rate_and_start(
    problem, name, training
):
    """And of as many before its last third, or before its cooldown."""
    models, rates, starts = [known("vanilla"), known(name)], (0.02, 0.3), (0.3, 3.0)
    result = train_all(problem, models, range(2), training, CPU, rates=rates, starts=starts)
    assert result["longer_error"].dims == result["longer_settled"].dims
    assert result["longer_error"].dims == ("mechanism", "tuning_seed")
    steps = 4 * training.steps
    third = min(steps, 2 * (steps + training.cooldown_steps) // 3)
    for model in models:
        own, layer, found = result.sel(mechanism=model.name), problem.layer(model), []
        whole = replace(training, steps=steps, learning_rate=own["learning_rate"].item())
        for how in (replace(whole, steps=third, cooldown_steps=0), whole):
            block = problem.block(TUNING_SEEDS, whole, CPU)
            fitted = fit(block, layer, how, starts=[own["start"].item()] * len(TUNING_SEEDS))
            value = block.evaluate(layer, fitted)[problem.objective]
            found.append(value.reshape(-1, len(TUNING_SEEDS)).mean(0).numpy())
        then, end = found
        np.testing.assert_allclose(own["longer_error"], end, rtol=1e-4)
        change = abs(end / then - 1)
        assert (abs(change - 0.01) > 1e-4).all()
        np.testing.assert_array_equal(own["longer_settled"], change < 0.01)
    if problem is GRAPH:
        assert 0 < result["longer_settled"].mean() < 1


def test_what_changes_by_under_one_percent_and_has_not_diverged_has_settled():
    then = np.array([1.0, 1.0, 1.0, 1.0, np.inf, 1.0])
    end = np.array([0.991, 0.989, 1.009, 1.011, np.inf, np.inf])
    scores = np.zeros((1, 2, 1, 3, 6))
    found = Tuned((0.1, 0.2), (1.0,), (), scores, np.log([[then, end]])).variables
    assert found["longer_settled"][1].tolist() == [[True, False, True, False, False, False]]
    np.testing.assert_allclose(found["longer_error"][1], [end])


def test_a_mechanism_that_diverges_has_neither_error_nor_settled():
    training = Training(20, 0.1, optimizer="sgd")
    found = tune(GRAPH, [known("ssa-free")], training, (1e30, 1e31), CPU).variables
    assert np.isinf(found["longer_error"][1]).all()
    assert not found["longer_settled"][1].any()


def test_its_data_are_drawn_once_for_mechanisms_in_turn():
    problem, training = replace(GRAPH, nodes=5), Training(2, 0.1)
    block_of.cache_clear()
    for name in ("vanilla", "ssa"):
        tune(problem, [known(name)], training, (0.1, 0.2), CPU)
        block_of(problem, (0, 1), training, CPU)
    assert block_of.cache_info().misses == 3


def test_models_are_counted_in_trainings_of_all_steps():
    assert tuning.tuning_models((0.1, 0.2), (1.0, 2.0)) == 8 * (4 + 4)
    assert tuning.tuning_models((0.1, 0.2), ()) == 8 * (2 + 4)
    assert tuning.tuning_models((0.1,), ()) == tuning.tuning_models() == 0


PAIR = {"mechanisms": ("vanilla", "rela")}


@pytest.mark.parametrize(
    ("experiment", "small"),
    [
        (NORMS, {"steps": 3, "letters_steps": 2}),
        (CRITICAL, {"steps": 3}),
        (TWINS, {"steps": 3}),
        (DENOISE, {"steps": 3, "cooldown_steps": 2} | PAIR | {"swept_mechanisms": ("vanilla",)}),
        (NORMALIZERS, {"graph_steps": 3, "retrieval_steps": 2, "length_steps": 2} | PAIR),
    ],
    ids=lambda e: getattr(e, "name", ""),
)
@pytest.mark.parametrize("rates", [(0.1,), (0.1, 0.3)])
def test_bars_end_at_their_total(experiment, small, rates):
    few = {"seeds": 2, "learning_rates": rates, "device": "cpu"} | small
    smoke = experiment.preset("smoke").model_dump()
    heard = []

    def progress(description, total):
        heard.append([total, 0])
        own = heard[-1]
        return lambda finished: own.__setitem__(1, own[1] + finished)

    for _ in range(2):  # the second time nothing is tuned
        experiment.train(experiment.config(**smoke | few), progress)
    assert heard
    assert all(done == total for total, done in heard)


SEEDS = 8
NOISE = np.exp(0.02 * np.random.default_rng(0).standard_normal(SEEDS))


def _result(last: float, longer: np.ndarray, settled: np.ndarray, prefix: str = "") -> xr.Dataset:
    """A result in which SSA's error over vanilla's is `last` after all steps, and these (problem,
    seed) after the longer training, of which these models (mechanism, problem, seed) had settled.
    """
    error = np.stack([last * NOISE, np.ones(SEEDS)])[:, None, None, None] * np.ones((2, 1, 1, 2, 1))
    error = np.concatenate([error, 2 * error], 1)  # the first step size is the best
    dims = ("mechanism", "tried_rate", "tried_step", "problem", "tuning_seed")
    labels = {"mechanism": ["ssa", "vanilla"], "tried_rate": [0.1, 0.2], "tried_step": [1.0]}
    by_seed = (dims[0], *dims[3:])
    values = {
        "tuning_error": (dims, error),
        "longer_error": (by_seed, np.stack([longer, np.ones_like(longer)])),
        "longer_settled": (by_seed, settled),
    }
    return xr.Dataset({f"{prefix}{name}": of for name, of in values.items()}, labels)


def _strip(*result) -> Strip:
    (strip,) = strips(_result(*result))
    return strip


SETTLED = np.ones((2, 2, SEEDS), bool)
SETTLED[0, 1, :4] = False


def test_a_strip_says_what_longer_training_changes():
    """The ratio of each seed's geometric means over the problems, paired, as everywhere."""
    longer = np.stack([0.9 * NOISE, 1.1 * NOISE**2])
    strip = _strip(0.5, longer, SETTLED)
    assert strip.longer is not None
    wanted = claimed_ratio(np.sqrt(longer[0] * longer[1]), np.ones(SEEDS))
    one = strip.longer.setting
    np.testing.assert_allclose(
        (one.ratio, one.low, one.high), (wanted.value, wanted.low, wanted.high)
    )
    assert one.outcome == "equivalent"
    assert (strip.longer.own, strip.longer.vanilla) == (0.75, 1.0)
    assert strip.changed == "longer training changes this: benefit -> equivalent"
    assert list(strip.rows) == ["100 %"]
    assert strip.sentence.split(". ", 1)[1].partition("With")[1:] == (
        "With",
        f" 4 times the steps, each its best: {one.text} ({one.interval}), equivalent; 75 % of ssa's "
        "and 100 % of vanilla's models had settled; longer training changes this: benefit -> "
        "equivalent.",
    )


def test_a_strip_does_not_say_what_stays():
    strip = _strip(0.5, np.stack([0.6 * NOISE] * 2), SETTLED)
    assert strip.changed == ""
    assert strip.sentence.endswith(
        "a benefit; 75 % of ssa's and 100 % of vanilla's models had settled."
    )


@pytest.mark.parametrize(
    ("worse", "last", "changed"),
    [
        (1, ["benefit", "benefit", "harm"], ""),
        (
            0,
            ["equivalent", "harm", "benefit"],
            "longer training changes this: equivalent -> benefit",
        ),
    ],
)
def test_the_change_is_of_the_best_step_sizes_after_all_steps(
    worse: int, last: list[str], changed: str
) -> None:
    """At the other one the outcome is another, and after fewer steps too."""
    result = _result(0.5, np.stack([0.6 * NOISE] * 2), SETTLED)
    early = result.assign_coords(tried_step=[0.25])
    early["tuning_error"] = 1 / early["tuning_error"]
    result["tuning_error"][{"mechanism": 0, "tried_rate": worse}] *= 10
    (strip,) = strips(xr.concat([early, result], "tried_step", data_vars="minimal"))
    words = [[one.outcome for one in row] for row in strip.rows.values()]
    assert words == [["harm", "harm", "harm"], last]
    assert strip.changed == changed


def test_a_strip_says_which_longer_training_diverged_and_leaves_out_what_is_not_worn():
    lost = np.stack([np.full(SEEDS, np.inf), np.full(SEEDS, np.nan)])
    settled = SETTLED.copy()
    settled[0] = False
    settled[1, 1] = False
    result = _result(0.5, lost, settled)
    result["longer_error"][{"mechanism": 1, "problem": 1}] = np.nan
    (strip,) = strips(result)
    assert strip.longer is not None
    assert (strip.longer.own, strip.longer.vanilla) == (0.0, 1.0)
    assert (
        "each its best: diverged, a harm; 0 % of ssa's and 100 % of vanilla's models"
        in strip.sentence
    )
    assert strip.changed == "longer training changes this: benefit -> harm"


def test_each_regime_has_its_own_and_an_older_result_has_none():
    longer = np.stack([0.6 * NOISE] * 2)
    control = _result(0.5, longer, SETTLED, "control_")
    main = _result(0.5, longer, SETTLED).drop_vars(["longer_error", "longer_settled"])
    own, other = strips(main.merge(control))
    assert (own.longer, own.changed) == (None, "")
    assert own.sentence.endswith("equivalent at 0, unresolved at 0.")
    assert other.longer is not None
    assert "; 75 % of ssa's and" in other.sentence


def test_a_strip_compares_the_longer_training_with_the_peer():
    result = _result(0.5, np.stack([0.6 * NOISE] * 2), SETTLED)
    peers = result.assign_coords(mechanism=["a-ssa", "a-vanilla"])
    (strip,) = strips(peers.assign_coords(peer=("mechanism", ["a-vanilla"] * 2)))
    assert strip.longer is not None
    assert strip.longer.setting.ratio == pytest.approx(0.6 * np.exp(np.log(NOISE).mean()))
