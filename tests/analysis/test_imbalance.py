"""Imbalanced tokens: the loss by loops over every key, the exact optima, and the claims."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from pydantic import ValidationError
from scipy.optimize import minimize

from analysis.experiments import EXPERIMENTS
from analysis.experiments.imbalance import IMBALANCE, ImbalanceConfig
from analysis.experiments.imbalance.train import cell_name
from analysis.problems import Training, fit
from analysis.problems.imbalance import ImbalanceProblem
from analysis.problems.schedules import schedules
from ssa_theory.mechanism import Misfit, mechanism
from ssa_theory.mechanism.schedules import YaRN
from ssa_theory.seeds import Stream, member_generator
from tests.analysis.evidence import checks, found, missing, outcomes, said

CPU = torch.device("cpu")
DEFAULT = ImbalanceConfig().mechanisms
SHOWN = ("vanilla", "scaled", "ssa-position", "ssa", "ssmax", "yarn")
SMALL = {"train_length": 24, "positions": 9, "beyond": 2}
PROBLEMS = [
    ImbalanceProblem(0.5, 0.3, -0.4, **SMALL),
    ImbalanceProblem(-0.6, 0.8, 0.7, **SMALL),
    ImbalanceProblem(0.9, 0.5, 0.1, random=True, **SMALL),
]
MEMBERS = [(s, p) for s in (4, 9) for p in PROBLEMS]


@pytest.fixture(scope="module")
def result():
    config = IMBALANCE.preset("smoke").model_copy(update={"device": "cpu", "mechanisms": SHOWN})
    return IMBALANCE.run(config)


def numpy_loss(name, own, problem, seed, positions):
    """Softmax attention over every single key: errors and margins."""
    tokens, e = problem.sequence(seed).tokens[0], problem.task.embeddings
    error, margin = [], []
    for n in positions:
        query, keys = e[tokens[n - 1]], e[tokens[:n]]
        tau = {
            "vanilla": lambda: 1.0,
            "ssa-position": lambda n=n: 1 + np.log(n) / (1 + np.exp(-own["query.alpha"])),
            "power": lambda n=n: np.exp(own["query.log_scale"]) * n ** own["query.gamma"],
        }[name]()
        score = tau * query @ own["weight"] @ keys.T
        weight = np.exp(score - score.max())
        output = weight / weight.sum() @ keys
        both = len(set(tokens[:n])) == 2
        error.append(((output - problem.task.target) ** 2).sum() if both else 0.0)
        margin.append(tau * query @ own["weight"] @ (e[0] - e[1]))
    return np.array(error), np.array(margin)


@pytest.mark.parametrize("name", ["vanilla", "ssa-position", "power"])
def test_loss_and_evaluation_are_the_formula(name):
    training = Training(8, 0.3, dtype="float64")
    block = PROBLEMS[0].block_at(MEMBERS, training, CPU)
    layer = PROBLEMS[0].layer(mechanism(name))
    done = fit(block, layer, training)
    measured = block.evaluate(layer, done)
    assert torch.allclose(block.loss(layer, done.parameters, None), measured["loss"], rtol=1e-12)
    for m, (seed, problem) in enumerate(MEMBERS):
        own = {k: v[..., m].numpy() for k, v in done.parameters.items()}
        error, margin = numpy_loss(name, own, problem, seed, problem.evaluated)
        inside = problem.evaluated <= 24
        assert np.allclose(measured["error"][:, m], error, rtol=1e-9, atol=1e-14)
        assert np.allclose(measured["margin"][:, m], margin, rtol=1e-9, atol=1e-14)
        assert measured["loss"][m].item() == pytest.approx(error[inside].mean())
        assert measured["loss_beyond"][m].item() == pytest.approx(error[~inside].mean())


def test_positions_are_log_spaced_within_and_beyond():
    problem = ImbalanceProblem()
    assert len(problem.trained) <= 64
    assert problem.trained[[0, -1]].tolist() == [2, 256]
    beyond = problem.evaluated[len(problem.trained) :]
    assert beyond[0] > 256
    assert beyond[-1] == 8 * 256
    assert np.ptp(np.diff(np.log(beyond))) < 0.01
    every = ImbalanceProblem(train_length=24, positions=1000)
    assert every.trained.tolist() == list(range(2, 25))


def test_the_margin_of_zero_loss_has_none():
    for seed, problem in MEMBERS:
        data = problem.describe([seed]).isel(seed=0)
        drawn = problem.sequence(seed)
        at = problem.evaluated - 1
        seen, margin = drawn.both_seen[0, at], data["zero_loss_margin"].values
        assert (np.isfinite(margin) == seen).all()
        weight = problem.task.attention(margin[seen], drawn.kappa[0, at][seen])
        assert np.allclose(weight, problem.share)
        assert (data["query_is_a"].values == (drawn.tokens[0, at] == 0)).all()


EARLY_YARN = replace(mechanism("yarn"), name="early-yarn", query=YaRN(4))


@pytest.mark.parametrize(
    "model",
    [
        *dict.fromkeys((*DEFAULT, "log2", "root", "llama4")),
        "ssa-signed",
        "ssa-token",
        "ssa-mlp",
        EARLY_YARN,
    ],
)
def test_no_parameters_have_a_lower_loss_than_the_optimum(model):
    """Of random models, over many scales."""
    model = mechanism(model) if isinstance(model, str) else model
    generator = torch.Generator().manual_seed(0)
    for seed, problem in MEMBERS:
        block = problem.block([seed] * 200, Training(1, 0.1), CPU)
        layer = problem.layer(model)
        start = layer.initial_parameters([member_generator(0, Stream.PARAMETER)] * 200)
        scale = 10 ** (2 * torch.rand(200, generator=generator) - 1)
        random = {
            k: v + scale * torch.randn(v.shape, generator=generator).double()
            for k, v in start.items()
        }
        margin = block.counted.margin(layer, random)
        loss = block.counted.error(margin)[: block.trained].mean(0)
        best = problem.best_error(model, seed)
        assert best.shape == problem.trained.shape
        assert loss.nan_to_num(np.inf).min() >= best.mean() - 1e-12


@pytest.mark.parametrize(
    "model",
    ["vanilla", "key-bias", "ssmax", "log2", "root", "power", "ssa", "ssa-position", EARLY_YARN],
)
def test_training_reaches_the_optimum_of_the_schedule(model):
    """The optimum is no mere bound: Adam, which knows nothing of it, comes near."""
    model = mechanism(model) if isinstance(model, str) else model
    problem = ImbalanceProblem(0.75, 0.6, 0.2, train_length=32, positions=12)
    training = Training(300, 0.2, cooldown_steps=60, dtype="float64")
    block, layer = problem.block(range(2), training, CPU), problem.layer(model)
    loss = block.evaluate(layer, fit(block, layer, training))["loss"].min().item()
    best = problem.best_error(model, 0).mean()
    assert 1 - 1e-9 <= loss / best < 1.03


def test_optima_are_nested():
    """A family that contains another is at least as good; a token term frees the ratio."""
    for seed, problem in MEMBERS:
        best = {m: problem.best_error(mechanism(m), seed).mean() for m in DEFAULT}
        assert best["vanilla"] == best["scaled"] == best["key-bias"] == best["yarn"]
        assert best["released"] == best["ssa-position"] <= best["vanilla"] + 1e-12
        assert best["ssa"] <= best["ssa-position"] + 1e-9
        assert best["ssa"] <= best["ssmax"] + 1e-9
        assert best["power"] <= best["vanilla"] + 1e-12
        early = problem.best_error(EARLY_YARN, seed).mean()
        assert abs(early / best["vanilla"] - 1) > 1e-3  # it grows within the training length


def test_a_token_term_frees_the_ratio_for_each_query_token():
    """By a general solver over t_x + s_x log n of one sign, x the query's token."""
    problem = ImbalanceProblem(0.25, 0.75, -0.4, **SMALL)
    at, sequence = problem.trained - 1, problem.sequence(0)
    kappa, token = sequence.kappa[0, at], sequence.tokens[0, at]

    def loss(x, sign):
        x = np.exp(x.reshape(2, 2))[token]
        margin = sign[token] * (x[:, 0] + x[:, 1] * np.log(problem.trained))
        return problem.task.error(1 / (1 + kappa * np.exp(-margin))).mean()

    signs = [np.array(s) for s in itertools.product((-1, 1), repeat=2)]
    starts = [np.array(x) for x in itertools.product((-4.0, 0.0), repeat=4)]
    least = min(minimize(loss, x, (s,)).fun for s in signs for x in starts)
    best = problem.best_error(mechanism("ssa"), 0).mean()
    assert best <= least + 1e-12
    assert least == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("name", ["ssa-key", "qk-norm", "ssa-mlp-key-shift", "key-bias+ssmax"])
def test_schedules_that_are_not_known_have_no_optimum(name):
    assert schedules(PROBLEMS[0].layer(mechanism(name)).mechanism) is None
    assert np.isnan(PROBLEMS[0].best_error(mechanism(name), 0)).all()


@pytest.mark.parametrize("name", ["sparsemax", "sink", "top-k"])
def test_rows_that_counts_do_not_give_are_refused(name):
    with pytest.raises(Misfit, match="keys one by one"):
        PROBLEMS[0].layer(mechanism(name))


def test_members_do_not_depend_on_each_other():
    training = Training(6, 0.1, dtype="float64")
    layer = PROBLEMS[0].layer(mechanism("ssa"))
    together = PROBLEMS[0].block_at(MEMBERS, training, CPU)
    alone = PROBLEMS[0].block_at(MEMBERS[4:5], training, CPU)
    whole, one = (b.evaluate(layer, fit(b, layer, training)) for b in (together, alone))
    assert torch.allclose(whole["margin"][:, 4:5], one["margin"], rtol=1e-9)


def test_no_trained_model_is_below_the_optimum(result):
    assert (result["loss"] >= result["best_loss"] - 1e-9).all()
    assert not result["diverged"].any()
    assert all("description" in v.attrs for v in result.data_vars.values())
    assert result["error"].sizes["cell"] == 3 + 1
    parameters = dict(zip(SHOWN, result["parameters"].values.tolist(), strict=True))
    assert parameters["vanilla"] == 4
    assert parameters["ssa-position"] == 5


def known(config, factors):
    """Losses of vanilla with noise, and of each other mechanism a factor of them, beyond twice."""
    noise = np.random.default_rng(0)
    axes = {
        "mechanism": list(factors),
        "seed": np.arange(64),
        "cell": [cell_name(p) for p in config.problems],
    }
    shape = tuple(map(len, axes.values()))
    factor = np.array(list(factors.values()))[:, None, None]
    loss = factor * np.exp(noise.normal(0, 0.02, shape))
    beyond = factor**2 * np.exp(noise.normal(0, 0.02, shape))
    values = {"loss": loss, "loss_beyond": beyond, "best_loss": loss * 0.9}
    return xr.Dataset({k: (tuple(axes), v) for k, v in values.items()}, axes)


PAPER = IMBALANCE.preset("paper")
FACTORS = {"vanilla": 1.0, "scaled": 0.25, "ssa-position": 0.5}


def test_tests_follow_the_losses():
    data = known(PAPER, FACTORS)
    tests = found(IMBALANCE.judge(PAPER, data), "imbalance")
    for (power, share, length, peer), test in tests.items():
        drawn = power.endswith(", random sequences")
        cell = f"{power.split(',')[0]}, {share}" + ", random" * drawn
        loss = np.log(data["loss" if length == "within training" else "loss_beyond"].sel(cell=cell))
        own = float((loss.sel(mechanism=peer) - loss.sel(mechanism="ssa-position")).mean())
        assert test.effect.value == pytest.approx(own)
        factor = FACTORS[peer] / 0.5
        wanted = np.log(factor if length == "within training" else factor**2)
        assert own == pytest.approx(wanted, abs=0.02)
        assert said(test) == ("benefit" if peer == "vanilla" else "harm")
        assert (test.effect.seeds, test.requested_seeds) == (64, 64)


def test_every_declared_cell_is_produced():
    claims = IMBALANCE.judge(PAPER, known(PAPER, FACTORS))
    assert missing(claims, "imbalance") == []
    beyond = {cell for cell in found(claims, "imbalance") if "random" in cell[0]}
    assert beyond == {
        ("0.5, random sequences", "0.5", length, peer)
        for length in ("within training", "beyond training")
        for peer in ("vanilla", "scaled")
    }
    few = known(PAPER, FACTORS).sel(mechanism=["vanilla", "scaled"])
    assert list(outcomes(IMBALANCE.judge(PAPER, few))) == []


def test_zero_losses_are_equal():
    data = known(PAPER, FACTORS)
    data["loss"][:] = 1e-12 * data["loss"]
    tests = found(IMBALANCE.judge(PAPER, data), "imbalance")
    assert said(tests["0", "0.5", "within training", "vanilla"]) == "equivalent"


@pytest.mark.parametrize(("lost", "outcome"), [(3, "benefit"), (4, "missing")])
def test_diverged_seeds_count_as_lost(lost, outcome):
    data = known(PAPER, FACTORS)
    data["loss"].loc[{"mechanism": "ssa-position", "seed": range(lost)}] = np.nan
    test = found(IMBALANCE.judge(PAPER, data), "imbalance")[
        "0.75", "0.25", "within training", "vanilla"
    ]
    assert (test.lost, said(test)) == (lost / 64, outcome)


def test_a_loss_below_the_optimum_fails_the_check(result):
    assert checks(IMBALANCE.claims(result))["imbalance-optimum"].passed == "passed"
    below = result.copy(deep=True)
    below["loss"][{"mechanism": 0, "seed": 0, "cell": 1}] = 1e-3
    assert checks(IMBALANCE.claims(below))["imbalance-optimum"].passed == "failed"


def test_figure_marks_training_and_names_all(result):
    figure = IMBALANCE.plot(result)
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert all(any(label.startswith(f"{m} (") for label in labels) for m in SHOWN)
    for ax in (figure.axes[0], figure.axes[3]):
        assert any((np.array(line.get_xdata()) == 256).all() for line in ax.get_lines())
    assert [ax.get_title()[:3] for ax in figure.axes] == ["(a)", "(b)", "(c)", "(d)"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"powers": (0.5, 1.5)}, r"power must lie in \[-1, 1\], got 1.5"),
        ({"shares": (0.5, 1.0)}, r"share must lie in \(0, 1\), got 1.0"),
        ({"powers": (0.5, 0.5)}, "powers must be different"),
        ({"power": 0.3}, "power must be one of the powers"),
        ({"share": 0.3}, "share must be one of the shares"),
        ({"cosine": 1.0}, "less than 1"),
        ({"mechanisms": ("vanilla", "sparsemax")}, "needs keys one by one"),
    ],
)
def test_bad_config(fields, message):
    with pytest.raises(ValidationError, match=message):
        ImbalanceConfig(**fields)


def test_registered():
    assert EXPERIMENTS["imbalance"] is IMBALANCE
    assert IMBALANCE.preset("paper").seeds >= 64
