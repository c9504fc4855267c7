"""The convergence experiment: first passages, censoring, the choice of learning rates, and claims
of known data.
"""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from pydantic import ValidationError

from analysis.claims.claim import Claim
from analysis.claims.statistics import ratio
from analysis.experiments.base import silent
from analysis.experiments.convergence import CONVERGENCE
from analysis.experiments.convergence.config import ConvergenceConfig
from analysis.experiments.convergence.train import gap_by_step, loss_of
from analysis.problems.curves import first_passage
from analysis.run.runner import execute
from ssa_theory.mechanism import Form, Inputs, Layer, Tokens, mechanism
from ssa_theory.seeds import Stream, member_generator
from tasks import MarkovGraphTask, graph_from_family, unit_embeddings
from tests.analysis.evidence import found, missing, outcomes, said

SMOKE = CONVERGENCE.preset("smoke")
GRADED = MarkovGraphTask.from_graph(graph_from_family("graded", 8))


@pytest.fixture(scope="module")
def executed(tmp_path_factory, undrawn):
    folder = tmp_path_factory.mktemp("out")
    with undrawn():
        return folder, *execute(CONVERGENCE, SMOKE, folder)


@pytest.fixture(scope="module")
def result(executed):
    return executed[1]


@pytest.mark.parametrize("name", ["vanilla", "ssa", "ssa-free"])
def test_every_rate_of_the_ensemble_is_adam_at_that_rate(name):
    """Against torch's own Adam, one model and one learning rate at a time, with the loss written
    out.
    """
    rates, steps = (0.03, 0.3, 1.0), 12
    config = ConvergenceConfig(
        seeds=2, first_seed=5, steps=steps, learning_rates=rates, dtype="float64"
    )
    setting, chosen = config.cells[0], mechanism(name)
    measured, diverged = gap_by_step(config, setting, chosen, torch.device("cpu"))
    assert measured.shape == (steps + 1, 3, 2)
    assert not diverged.any()
    truth = torch.from_numpy(GRADED.transition_matrix)
    layer = Layer(chosen, Form(4, labels={"token": 8}))
    for i, rate in enumerate(rates):
        for j, seed in enumerate(config.seed_range):
            embeddings = unit_embeddings(8, 4, member_generator(seed, Stream.EMBEDDING))
            tokens = Tokens(torch.from_numpy(embeddings).unsqueeze(-1))
            initial = layer.initial_parameters([member_generator(seed, Stream.PARAMETER)])
            parameters = {k: v.requires_grad_() for k, v in initial.items()}
            optimizer = torch.optim.Adam(parameters.values(), lr=rate)
            for step in range(steps + 1):
                scores = layer.scores(parameters, Inputs(tokens, tokens))
                log_p = scores[..., 0].log_softmax(1)
                gap = (torch.special.xlogy(truth, truth) - truth * log_p).sum(1).mean()
                assert measured[step, i, j] == pytest.approx(gap.item(), rel=1e-4)  # Adam's epsilon
                optimizer.zero_grad()
                gap.backward()
                optimizer.step()
    assert np.ptp(measured[-1], axis=0).min() > 0.02  # the rates differ
    assert abs(measured[-1, :, 0] - measured[-1, :, 1]).min() > 1e-3  # and so do the seeds


def test_first_passage_of_known_curves():
    gap = np.array(
        [
            [1.0, 1.0, 1.0, 1.0],
            [0.4, 0.9, np.nan, 0.5],
            [0.6, 0.8, 0.1, 0.5],
            [0.1, 0.7, np.inf, 0.2],
        ]
    )
    steps, reached = first_passage(gap, np.array([0.5, 0.5, 0.05, 0.5]))
    assert steps.tolist() == [
        1,
        3,
        3,
        1,
    ]  # the first time, also where the loss rises again; censored at the last step
    assert reached.tolist() == [True, False, False, True]
    steps, reached = first_passage(gap, gap[0])
    assert steps.tolist() == [0, 0, 0, 0]
    assert reached.all()


def test_levels_lie_between_the_initial_loss_the_optimum_and_bayes():
    initial, optimum = np.array([1.0, 3.0]), np.array([0.5, 1.0])
    wanted = {1.0: initial, 0.0: optimum, -1.0: [0, 0], 0.5: [0.75, 2.0], -0.25: [0.375, 0.75]}
    for level, loss in wanted.items():
        np.testing.assert_allclose(loss_of(level, initial, optimum), loss)


def test_variables_and_dimensions(result):
    by_run = ("setting", "mechanism", "learning_rate", "seed")
    dims = {
        "steps_to_level": (*by_run, "level"),
        "reached": (*by_run, "level"),
        "diverged": by_run,
        "gap_by_share": (*by_run, "tried_step"),
        "tuning_error": ("setting", "mechanism", "tried_rate", "tried_step", "tuning_seed"),
        "gap_curve": (*by_run, "point"),
        "initial_gap": ("setting", "seed"),
        "budget": ("setting",),
        "best_learning_rate": ("setting", "mechanism", "level"),
        "compared_steps": ("choice", "setting", "mechanism", "level", "seed"),
        "compared_diverged": ("choice", "setting", "mechanism", "level", "seed"),
        "ratio": ("choice", "other", "setting", "level", "estimate"),
    }
    assert {n: set(result[n].dims) for n in dims} == {n: set(d) for n, d in dims.items()}
    assert all("description" in result[name].attrs for name in dims)
    assert result["setting"].values.tolist() == ["graded", "letters", "control"]
    assert result["budget"].values.tolist() == [60, 20, 60]
    assert result["reporting"].values.tolist() == [False, True, True, True]
    assert result["compared_steps"].isel(seed=0).isnull().all()
    assert result["compared_steps"].isel(seed=slice(1, None)).notnull().all()
    entropy = GRADED.row_entropy.mean()
    np.testing.assert_allclose(
        result["initial_gap"].sel(setting="graded"), np.log(8) - entropy, rtol=0.05
    )


def test_what_tuning_found_is_stored_of_the_seeds_that_tune(result):
    """By hand, of the first seed alone; the last share is the end of the curve."""
    own = result.isel(seed=slice(1)).transpose("setting", "mechanism", "learning_rate", ...)
    wanted = np.maximum(own["gap_by_share"].transpose(..., "seed").values, 1e-9)
    np.testing.assert_allclose(
        result["tuning_error"].transpose(..., "tuning_seed"), wanted, rtol=1e-12
    )
    assert result["tried_step"].values.tolist() == [0.25, 0.5, 1.0]
    curve, last = result["gap_curve"], result["gap_by_share"].isel(tried_step=-1)
    for setting, budget in (("graded", 60), ("letters", 20)):
        at = {"setting": setting}
        where = result["curve_step"].sel(at).values.tolist().index(budget)
        np.testing.assert_array_equal(curve.sel(at).isel(point=where), last.sel(at))


def test_stored_steps_agree_with_the_stored_curve(result):
    graded = result.sel(setting="control")
    curve, at = graded["gap_curve"], graded["curve_step"]
    shown = np.isfinite(at)
    for level in result["level"].values:
        target = max(level, 0.0) * graded["initial_gap"]  # with d = K vanilla's optimum is Bayes
        steps, reached = (
            graded["steps_to_level"].sel(level=level),
            graded["reached"].sel(level=level),
        )
        before = (curve > target) | (at >= steps) | ~shown
        assert before.all()  # no stored step before the first passage is below the level
        assert (steps.where(~reached, 60) == 60).all()
    assert 0.3 < result["reached"].sel(setting="control").mean() < 1


def _runs(steps: np.ndarray, final: np.ndarray | None = None, level: float = 0.5) -> xr.Dataset:
    """A result before its comparison: steps (mechanism, rate, seed) to the only level, budget 100."""
    dims = ("setting", "mechanism", "learning_rate", "seed")
    one = steps[None]
    last = np.full(one.shape, 0.5) if final is None else final[None]
    return xr.Dataset(
        {
            "steps_to_level": ((*dims, "level"), one[..., None]),
            "reached": ((*dims, "level"), (one < 100)[..., None]),
            "diverged": (dims, np.zeros(one.shape, dtype=bool)),
            "gap_by_share": ((*dims, "tried_step"), last[..., None]),
            "initial_gap": (("setting", "seed"), np.ones((1, steps.shape[-1]))),
            "vanilla_optimum_gap": (("setting", "seed"), np.zeros((1, steps.shape[-1]))),
            "gap_curve": ((*dims, "point"), np.ones((*one.shape, 1))),
            "curve_step": (("setting", "point"), [[1.0]]),
            "budget": ("setting", [100.0]),
        },
        coords={
            "setting": ["graded"],
            "mechanism": ["vanilla", "ssa"],
            "learning_rate": [0.1, 1.0],
            "seed": np.arange(steps.shape[-1]),
            "level": [level],
        },
    )


def _config(seeds: int, level: float = 0.5) -> ConvergenceConfig:
    return ConvergenceConfig(
        seeds=seeds,
        mechanisms=("vanilla", "ssa"),
        learning_rates=(0.1, 1.0),
        levels=(level,),
        shown_level=level,
        letters_steps=0,
        control_steps=0,
    )


def _known(seeds: int = 80) -> np.ndarray:
    """On the tuning seeds vanilla is best at 1.0 and ssa at 0.1, on the others the other way round."""
    generator = np.random.default_rng(0)
    steps = 40 + generator.integers(0, 10, (2, 2, seeds)).astype(float)
    tuning = np.arange(seeds) < seeds // 4
    steps[0, 0, tuning] += 10
    steps[1, 1, tuning] += 10
    steps[0, 1, ~tuning] += 20
    steps[1, 0, ~tuning] += 10
    return steps


def test_learning_rates_are_chosen_on_seeds_that_report_nothing():
    steps = _known()
    dataset = CONVERGENCE.summarise(_config(80), _runs(steps), silent)
    best = dataset["best_learning_rate"].isel(setting=0, level=0)
    assert best.sel(mechanism="vanilla") == 1.0
    assert best.sel(mechanism="ssa") == 0.1
    own, same = (
        dataset["compared_steps"].sel(choice=c).isel(setting=0, level=0) for c in ("own", "same")
    )
    np.testing.assert_array_equal(own.sel(mechanism="ssa")[20:], steps[1, 0, 20:])
    np.testing.assert_array_equal(same.sel(mechanism="ssa")[20:], steps[1, 1, 20:])
    np.testing.assert_array_equal(own.sel(mechanism="vanilla"), same.sel(mechanism="vanilla"))
    assert own.isel(seed=slice(20)).isnull().all()
    expected = ratio(steps[1, 0, 20:], steps[0, 1, 20:])
    np.testing.assert_allclose(
        dataset["ratio"].sel(choice="own").squeeze(), [expected.value, expected.low, expected.high]
    )


def test_where_no_rate_reaches_the_level_the_lower_final_loss_decides():
    steps, final = np.full((2, 2, 16), 100.0), np.full((2, 2, 16), 0.7)
    final[0, 1], final[1, 0] = (
        0.6,
        np.nan,
    )  # a loss that is not finite is no better than the initial one
    best = CONVERGENCE.summarise(_config(16), _runs(steps, final), silent)[
        "best_learning_rate"
    ].isel(setting=0, level=0)
    assert best.values.tolist() == [1.0, 1.0]


def _claims(steps: np.ndarray, level: float = 0.5, diverged: slice = slice(0)) -> list[Claim]:
    """diverged: of ssa at its best rate."""
    config, runs = _config(steps.shape[-1], level), _runs(steps, level=level)
    runs["diverged"][0, 1, 0, diverged] = True
    return CONVERGENCE.judge(config, CONVERGENCE.summarise(config, runs, silent))


def test_steps_of_known_data():
    """ssa at 0.1 against vanilla at 1.0, the best of each, and both at 1.0."""
    steps = _known()
    tests = found(_claims(steps), "optimisation")
    log = np.log(steps[..., 20:])
    wanted = {"each its best": log[0, 1] - log[1, 0], "vanilla's best": log[0, 1] - log[1, 1]}
    assert list(tests) == [("graded", "0.5", rates) for rates in wanted]
    for (_, _, rates), test in tests.items():
        assert test.effect.value == pytest.approx(wanted[rates].mean())
        assert (test.effect.seeds, test.requested_seeds, said(test)) == (60, 60, "benefit")
    own = tests["graded", "0.5", "each its best"]
    assert own.parts["ssa"].value == pytest.approx(steps[1, 0, 20:].mean())
    assert own.parts["vanilla reached"].value == 1
    swapped = found(_claims(steps[::-1]), "optimisation")
    assert said(swapped["graded", "0.5", "each its best"]) == "harm"
    alike = np.random.default_rng(1).integers(30, 60, (2, 2, 80)).astype(float)
    assert set(outcomes(_claims(alike)).values()) == {"unresolved"}


@pytest.mark.parametrize(("lost", "outcome"), [(2, "benefit"), (4, "missing")])
def test_runs_that_diverge_or_never_reach_the_level_are_lost(lost, outcome):
    steps, place = _known(), ("graded", "0.5", "each its best")
    diverged = found(_claims(steps, diverged=slice(20, 20 + lost)), "optimisation")[place]
    steps[0, 1, 50 : 50 + lost] = 100
    censored = found(_claims(steps), "optimisation")[place]
    assert censored.parts["vanilla reached"].value == pytest.approx(1 - lost / 60)
    assert "ssa reached" in diverged.parts
    for test in (diverged, censored):
        assert (test.effect.seeds, said(test)) == (60 - lost, outcome)


def test_a_hard_level_asks_whether_it_is_reached():
    steps = _known()
    steps[0, 1, 30:] = 100  # vanilla at its best rate: 10 of 60 reach it
    steps[1, 0, 70:] = 100  # ssa: 50 of 60
    tests = found(_claims(steps, 0.0625), "reach")
    assert list(tests) == [("graded", "0.0625")]
    test = tests["graded", "0.0625"]
    assert test.effect.value == pytest.approx(50 / 60 - 10 / 60)
    assert (test.effect.seeds, said(test)) == (60, "benefit")
    assert said(found(_claims(steps[::-1, ::-1], 0.0625), "reach")["graded", "0.0625"]) == "harm"
    lost = found(_claims(steps, 0.0625, slice(20, 24)), "reach")["graded", "0.0625"]
    assert (lost.effect.seeds, said(lost)) == (56, "missing")


def test_a_diverged_run_reaches_nothing():
    config = ConvergenceConfig(
        seeds=4,
        steps=6,
        letters_steps=0,
        control_steps=0,
        learning_rates=(0.1, 1e38),
        mechanisms=("vanilla", "ssa"),
    )
    result = CONVERGENCE.run(config, silent)
    assert result["diverged"].sel(learning_rate=1e38).any()
    lost = result["diverged"]
    assert not result["reached"].where(lost, False).any()
    assert (result["steps_to_level"].where(lost, 6) == 6).all()
    assert (result["best_learning_rate"] == 0.1).all()
    assert "diverged models count as never reaching" in CONVERGENCE.plot(result).get_suptitle()


def test_a_run_that_diverges_after_the_level_reaches_it_no_more(monkeypatch):
    gap = np.broadcast_to(np.geomspace(1, 0.01, 7)[:, None, None], (7, 1, 4))
    diverged = np.array([[False, True, False, True]])
    monkeypatch.setattr(
        "analysis.experiments.convergence.train.gap_by_step", lambda *arguments: (gap, diverged)
    )
    config = ConvergenceConfig(
        seeds=4,
        steps=6,
        letters_steps=0,
        control_steps=0,
        learning_rates=(0.1,),
        mechanisms=("vanilla", "ssa"),
    )
    result = CONVERGENCE.run(config, silent).isel(setting=0, learning_rate=0).sel(level=0.25)
    assert result["reached"].sel(mechanism="ssa").values.tolist() == [True, False, True, False]
    assert result["steps_to_level"].sel(mechanism="ssa").values.tolist() == [1, 6, 1, 6]


def test_the_numbers_of_a_seed_do_not_depend_on_its_company():
    quick = {"letters_steps": 0, "control_steps": 0, "dtype": "float64", "steps": 20}
    short = SMOKE.model_copy(update=quick | {"learning_rates": (0.03, 0.1)})
    whole = CONVERGENCE.run(short, silent)
    alone = CONVERGENCE.run(short.model_copy(update={"seeds": 2, "first_seed": 2}), silent)
    parts = CONVERGENCE.run(short.model_copy(update={"block_seeds": 3}), silent)
    for name in ("initial_gap", "gap_curve"):
        a, b, c = (d[name] for d in (alone, whole, parts))
        np.testing.assert_allclose(a.sel(seed=3), b.sel(seed=3), rtol=1e-6, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(c, b, rtol=1e-6, atol=1e-9, err_msg=name)


def test_the_figure_shows_budgets_levels_and_censoring(result):
    figure = CONVERGENCE.plot(result)
    assert len(figure.axes) == 9
    top, middle, bottom = figure.axes[0], figure.axes[3], figure.axes[6]
    graded = result.sel(setting="graded")
    optimum, initial = (float(graded[k].mean()) for k in ("vanilla_optimum_gap", "initial_gap"))
    for loss in ((optimum + initial) / 2, optimum):
        assert any(np.allclose(line.get_ydata(), loss) for line in top.get_lines())
    assert any(np.allclose(line.get_ydata(), 60) for line in middle.get_lines())
    hollow = [line for line in bottom.get_lines() if line.get_markerfacecolor() == "white"]
    assert hollow  # within 60 steps some level is not reached
    names = [text.get_text() for text in top.get_legend().get_texts()]
    rate = float(result["best_learning_rate"].sel(setting="graded", mechanism="vanilla", level=0.5))
    assert names[0] == f"vanilla, rate {rate:g}"
    assert "runs never reached level 0.5" in figure.get_suptitle()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": 1}, "greater than or equal to 2"),
        ({"learning_rates": (0.1, 0.1)}, "learning_rates must ascend"),
        ({"learning_rates": ()}, "learning_rates must ascend"),
        ({"learning_rates": (-1.0, 0.1)}, "greater than 0"),
        ({"levels": (0.5, 1.0)}, r"levels must lie in \(-1, 1\), got \[1.0\]"),
        ({"levels": (0.5, -1.0)}, r"levels must lie in \(-1, 1\), got \[-1.0\]"),
        ({"shown_level": 0.3}, "shown_level must be one of the levels"),
        (
            {"mechanisms": ("ssa", "ssa-free")},
            "mechanisms must be vanilla, the peer, and at least one other",
        ),
        ({"learning_rate": 0.1}, "Extra inputs are not permitted"),
    ],
)
def test_bad_config(fields, message):
    with pytest.raises(ValidationError, match=message):
        ConvergenceConfig(**fields)


def test_smoke_run_end_to_end(executed):
    _, dataset, claims, trained = executed
    assert trained
    assert json.loads(dataset.attrs["config"]) == json.loads(SMOKE.model_dump_json())
    assert len(claims) == len(outcomes(claims)) == 3 * (2 * 2 + 2)
    paper = CONVERGENCE.preset("paper")
    assert (paper.levels, [c.name for c in paper.cells]) == (
        SMOKE.levels,
        dataset["setting"].values.tolist(),
    )
    assert missing(claims, "optimisation", "reach") == []
    assert paper.seeds - paper.tuning_seeds >= 64
    assert CONVERGENCE.preset("large").seeds > paper.seeds
